# SPDX-License-Identifier: Apache-2.0
"""Programs by RX queue, from the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from tests.kernel.attaching import program
from tests.kernel.multiqueue import Witnesses, line_into, served_by, set_channels
from tests.kernel.net import Veth
from tests.kernel.process import shipped
from tests.kernel.transcript import Transcript
from xdpkit.cli.app import cli
from xdpkit.hook import Hook

Golden = Callable[[str, str], None]

HOUR_NS = 3600 * 10**9


@pytest.fixture
def shell(veth: Veth, pin_root: str) -> Transcript:
    return Transcript(veth, pin_root)


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """A second object, whose programs go with those of the demo's under one root."""
    return Path(shutil.copy(str(program().object.path), tmp_path / "minimal.o"))


def by_queue(document: Any) -> dict[int | None, int]:
    """Return the ids of the programs of a HOOK, by RX queue."""
    return {found["qid"]: found["prog"]["id"] for found in document["attached"]}


def test_each_verb_says_for_which_queues_it_did_it(
    shell: Transcript, minimal: Path, golden: Golden
) -> None:
    demo = shipped("demo.o")
    shell.run("attach", demo, "--queue", "0-1,3", "--cookie", 7)
    shell.run("status", iface=False)
    shell.run("attach", minimal)
    shell.run("status", iface=False)
    shell.run("status")
    shell.run("attach", minimal, "--queue", "1-2")
    shell.run("attach", minimal)
    shell.run("replace", minimal, "--queue", "0")
    shell.run("replace", demo)
    shell.run("replace", demo, "--queue", "2")
    shell.run("status", iface=False)
    shell.run("replace", minimal, "--queue", "0,3")
    shell.run("detach", "--queue", "0-1")
    shell.run("detach")
    shell.run("detach")
    shell.run("status", iface=False)
    shell.run("detach", "--queue", "3", "--keep-root")
    shell.run("status", iface=False)
    shell.run("status")
    shell.run("detach", "--all")
    shell.run("attach", demo)
    shell.run("attach", minimal, "--queue", "2")
    shell.run("detach", "--queue", "2")
    shell.run("status", iface=False)
    shell.run("attach", minimal, "--queue", "2")
    shell.run("detach", "--all")
    shell.run("status")
    golden("cli-queues.txt", shell.text.replace(f"{minimal.parent}/", ""))


def test_a_dry_run_of_queues_says_what_would_change(
    shell: Transcript, minimal: Path, golden: Golden
) -> None:
    demo = shipped("demo.o")
    shell.run("attach", demo, "--queue", "0-1", "--dry-run")
    shell.run("attach", demo)
    shell.run("attach", minimal, "--queue", "0-1", "--dry-run")
    shell.run("attach", minimal, "--queue", "0-1")
    shell.run("replace", demo, "--queue", "1", "--dry-run")
    shell.run("detach", "--queue", "0-1", "--dry-run")
    shell.run("detach", "--all", "--dry-run")
    shell.run("detach", "--dry-run")
    shell.run("status", iface=False)
    golden("cli-queues-dry-run.txt", shell.text.replace(f"{minimal.parent}/", ""))


def test_a_change_of_queues_that_waits_says_how_to_keep_it(
    shell: Transcript, minimal: Path, golden: Golden
) -> None:
    demo = shipped("demo.o")
    shell.run("attach", demo)
    shell.run("attach", minimal, "--queue", "1", "--revert-after", "1h")
    shell.run("status", iface=False)
    shell.run("status")
    shell.run("confirm")
    shell.run("replace", demo, "--queue", "1", "--revert-after", "1h")
    shell.run("confirm")
    shell.run("detach", "--queue", "1", "--revert-after", "1h")
    shell.run("status", iface=False)
    shell.run("confirm")
    shell.run("status", iface=False)
    golden("cli-queues-revert-after.txt", shell.text.replace(f"{minimal.parent}/", ""))


def test_json_has_an_entry_for_each_queue_and_the_root(
    shell: Transcript, minimal: Path, veth: Veth, pin_root: str
) -> None:
    demo = shipped("demo.o")
    document = shell.run("attach", demo, "-j").json
    assert (document["queues"], document["root"]) == (None, None)
    (entry,) = document["attached"]
    assert (entry["mode"], entry["qid"], entry["prog"]) == ("native", None, document["prog"])
    assert {"id", "tag", "jited"} <= entry["prog"].keys()

    document = shell.run("attach", minimal, "-j", "--queue", "0,2-3").json
    assert document["queues"] == [0, 2, 3]
    own, others = document["prog"]["id"], entry["prog"]["id"]
    assert by_queue(document) == {0: own, 2: own, 3: own, None: others}
    assert document["root"]["prog"]["name"] == "xdpkit_root"
    assert {found["link"]["id"] for found in document["attached"]} == {
        document["root"]["link"]["id"]
    }
    (shown,) = shell.run("status", "-j").json["interfaces"]
    assert by_queue(shown) == by_queue(document)
    assert shown["attached"][0]["record"]["queues"] == [0, 2, 3]

    document = shell.run("replace", demo, "-j", "--queue", "2-3", "--expect", own).json
    assert document["queues"] == [2, 3]
    assert document["before"]["prog"]["id"] == own
    assert [(found["qid"], found["prog"]["id"]) for found in document["replaced"]] == [
        (2, own),
        (3, own),
    ]
    new = document["prog"]["id"]
    assert by_queue(document) == {0: own, 2: new, 3: new, None: others}

    document = shell.run("detach", "-j", "--queue", "0,3").json
    assert {found["qid"]: found["prog"]["id"] for found in document["detached"]} == {0: own, 3: new}
    (left,) = shell.run("status", "-j").json["interfaces"]
    assert by_queue(left) == {2: new, None: others}

    document = shell.run("detach", "-j", "--all", "--revert-after", "1h").json
    assert {found["qid"]: found["prog"]["id"] for found in document["detached"]} == {
        2: new,
        None: others,
    }
    assert document["revert_after"] == HOUR_NS


def test_json_of_a_replacement_for_all_packets_says_what_went(
    shell: Transcript, minimal: Path
) -> None:
    went = shell.run("attach", shipped("demo.o"), "-j").json["prog"]
    document = shell.run("replace", minimal, "-j").json
    assert [found["prog"] for found in document["replaced"]] == [went]
    assert document["before"]["prog"] == went
    assert document["queues"] is None


def test_json_has_the_plan_of_a_dry_run_of_queues(shell: Transcript, minimal: Path) -> None:
    shell.run("attach", shipped("demo.o"))
    plan = shell.run("attach", minimal, "-j", "--dry-run", "--queue", "1").json
    assert (plan["dry_run"], plan["change"], plan["queues"]) == (True, "attach", [1])
    own = shell.run("attach", minimal, "-j", "--queue", "1-2").json["prog"]["id"]
    for plan in (
        shell.run("replace", minimal, "-j", "--dry-run", "--queue", "2").json,
        shell.run("detach", "-j", "--dry-run", "--queue", "2").json,
    ):
        assert plan["queues"] == [2]
        assert [(found["qid"], found["prog"]["id"]) for found in plan["before"]] == [(2, own)]


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("", "queues are numbers and ranges of them, like 3 or 0-3,8"),
        ("3,", "queues are numbers and ranges of them, like 3 or 0-3,8"),
        ("three", "queues are numbers and ranges of them, like 3 or 0-3,8"),
        ("-1", "queues are numbers and ranges of them, like 3 or 0-3,8"),
        ("3-1", "3-1 ends before it begins"),
        ("99999", "no interface has a queue 99999"),
        ("0-4", "has RX queues 0 to 3, and no queue 4"),
    ],
)
def test_queues_that_are_none_are_refused(
    shell: Transcript, veth: Veth, pin_root: str, spec: str, cause: str
) -> None:
    shell.run("attach", shipped("demo.o"))
    before = Hook(veth.name, netns=veth.netns, pin_root=pin_root).status()
    for verb in (["attach", shipped("demo.o")], ["replace", shipped("demo.o")], ["detach"]):
        refused = shell.run(*verb, f"--queue={spec}")
        assert (refused.status, refused.output) == (2, "")
        assert cause in refused.messages
    assert Hook(veth.name, netns=veth.netns, pin_root=pin_root).status() == before


def test_what_contradicts_itself_is_refused(shell: Transcript, minimal: Path) -> None:
    shell.run("attach", minimal, "--queue", "1")
    for options in (["--all", "--queue", "1"], ["--all", "--keep-root"]):
        refused = shell.run("detach", *options)
        assert refused.status == 2
        assert "either everything goes, or programs of some queues" in refused.messages


def test_another_program_than_the_expected_one_stays_in_its_queue(
    shell: Transcript, minimal: Path
) -> None:
    other = shell.run("attach", minimal, "-j").json["prog"]["id"]
    own = shell.run("attach", minimal, "-j", "--queue", "1-2").json["prog"]["id"]
    for verb in (["replace", minimal], ["detach"]):
        refused = shell.run(*verb, "--queue", "1", "--expect", other)
        assert refused.status == 5
        assert f"program {other} is expected, but queue 1 has program {own}" in refused.messages


def test_the_mode_of_the_hook_is_taken_unless_one_is_asked_for(
    shell: Transcript, minimal: Path
) -> None:
    shell.run("attach", minimal, "--mode", "generic")
    refused = shell.run("attach", minimal, "--queue", "1", "--mode", "native")
    assert refused.status == 2
    assert "the programs that are there are in generic mode" in refused.messages
    done = shell.run("attach", minimal, "--queue", "1")
    assert "in generic mode, queue 1\n" in done.output
    assert done.messages == ""


def test_a_program_whose_queue_is_not_in_use_is_named(
    shell: Transcript, minimal: Path, veth: Veth
) -> None:
    shell.run("attach", minimal, "--queue", "0")
    shell.run("attach", shipped("demo.o"), "--queue", "3")
    set_channels(veth.peer, veth.peer_netns, rx=2, tx=2)
    set_channels(veth.name, veth.netns, rx=2, tx=2)
    for shown in (shell.run("status"), shell.run("status", iface=False)):
        assert shown.messages == (
            f"xdpkit: firewall: queue 3 of {veth.name} is not in use now (ethtool -L)\n"
        )
    (hook,) = shell.run("status", "-j").json["interfaces"]
    first, second = hook["attached"]
    assert first["note"] is None
    assert "is not in use now" in second["note"]


def test_each_queue_is_served_by_the_program_that_was_attached_for_it(
    shell: Transcript, minimal: Path, veth: Veth, pin_root: str
) -> None:
    with Witnesses() as witnesses, line_into(veth) as line:
        hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
        everything = witnesses.program()
        hook.add(everything).close()
        shell.run("attach", minimal, "--queue", "1,3")
        assert served_by(line, witnesses, range(4)) == {
            0: everything.id,
            1: None,
            2: everything.id,
            3: None,
        }
        shell.run("detach", "--queue", "1,3")
        assert served_by(line, witnesses, range(4)) == dict.fromkeys(range(4), everything.id)


def test_queues_and_ids_are_completed(shell: Transcript, minimal: Path, veth: Veth) -> None:
    shell.run("attach", minimal, "--queue", "1,3")
    here = ["-n", veth.netns]
    completing = ShellComplete(cli, {}, "xdpkit", "_XDPKIT_COMPLETE")

    def offered(verb: str, option: str, begun: str) -> list[str]:
        words = [*here, verb, veth.name, option]
        return [item.value for item in completing.get_completions(words, begun)]

    assert offered("attach", "--queue", "") == ["0", "1", "2", "3"]
    assert offered("attach", "--queue", "0,2-3,") == ["0,2-3,1"]
    assert offered("attach", "--queue", "nonsense,") == []
    assert offered("detach", "--queue", "") == ["1", "3"]
    assert offered("replace", "--queue", "1,") == ["1,3"]
    (hook,) = shell.run("status", "-j").json["interfaces"]
    assert offered("detach", "--expect", "") == [str(hook["attached"][0]["prog"]["id"])]
