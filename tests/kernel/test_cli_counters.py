# SPDX-License-Identifier: Apache-2.0
"""Forced counters, from the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.kernel.attaching import foreign_link, program
from tests.kernel.multiqueue import Line, line_into
from tests.kernel.net import Veth, rtnetlink
from tests.kernel.process import COMMAND, POWERLESS, shipped, xdpkit_command
from tests.kernel.transcript import Transcript
from xdpkit.cli.app import cli
from xdpkit.errors import RequirementUnmet
from xdpkit.hook import leaves
from xdpkit.kernel import Program

Golden = Callable[[str, str], None]

# Of a frame that a Line sends.
LENGTH = 64


@pytest.fixture
def shell(veth: Veth, pin_root: str) -> Transcript:
    return Transcript(veth, pin_root)


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """An object whose program lets all packets pass."""
    return Path(shutil.copy(str(program().object.path), tmp_path / "minimal.o"))


@pytest.fixture
def line(veth: Veth) -> Iterator[Line]:
    with line_into(veth) as found:
        yield found


def here(veth: Veth, pin_root: str) -> list[str]:
    return ["-n", veth.netns, "--pin-root", pin_root, veth.name]


def counters(shell: Transcript, verb: str, *args: object) -> Any:
    """Run ``xdpkit counters VERB IFACE ARGS -j``; return its report."""
    return shell.run(f"counters {verb}", "-j", *args).json


def test_counters_are_switched_on_and_off_and_shown(
    shell: Transcript, minimal: Path, line: Line, golden: Golden
) -> None:
    shell.run("counters show")
    shell.run("counters enable")
    shell.run("counters show")
    shell.run("attach", minimal)
    shell.run("attach", shipped("demo.o"), "--queue", "1-2")
    shell.run("counters show")
    shell.run("counters enable", "--bytes")
    line.send(0, 3)
    line.send(1, 4)
    line.send(2, 5)
    shell.run("counters show")
    shell.run("counters show", "--per-queue")
    shell.run("counters show", "--queue", "2-3")
    shell.run("status")
    shell.run("detach")
    line.send(3, 2)
    shell.run("counters show", "--per-queue")
    shell.run("counters disable")
    shell.run("counters show")
    shell.run("counters show", "--queue", "0")
    golden("cli-counters.txt", shell.text.replace(f"{minimal.parent}/", ""))


def test_json_has_counters_by_action_and_queue(
    shell: Transcript, minimal: Path, line: Line
) -> None:
    attached = shell.run("attach", minimal, "-j", "--queue", "1,3").json["prog"]["id"]
    report = counters(shell, "enable")
    assert (report["schema"], report["enabled"], report["bytes"]) == (1, True, False)
    line.send(1, 3)
    line.send(3, 4)
    line.send(0, 2)
    report = counters(shell, "show")
    (found,) = report["programs"]
    assert (found["name"], found["logical_id"], found["queues"]) == ("minimal", attached, [1, 3])
    assert found["prog"]["id"] != attached
    nothing = {"aborted": 0, "drop": 0, "tx": 0, "redirect": 0, "invalid": 0}
    assert found["total"] == {"packets": {**nothing, "pass": 7}, "bytes": None}
    assert found["per_queue"] == {
        "1": {"packets": {**nothing, "pass": 3}, "bytes": None},
        "3": {"packets": {**nothing, "pass": 4}, "bytes": None},
    }
    assert report["no_program"] == {"0": {"packets": 2, "bytes": 2 * LENGTH}}
    assert "rates" not in report

    report = counters(shell, "show", "--queue", "3")
    (found,) = report["programs"]
    assert found["queues"] == [3]
    assert found["total"]["packets"]["pass"] == 4
    assert report["no_program"] == {}

    report = counters(shell, "disable")
    assert (report["enabled"], report["bytes"]) == (False, False)


def test_a_program_that_counts_is_expected_by_either_id(shell: Transcript, minimal: Path) -> None:
    logical = shell.run("attach", minimal, "-j").json["prog"]["id"]
    (found,) = counters(shell, "enable")["programs"]
    actual = found["prog"]["id"]
    assert shell.run("replace", minimal, "--expect", actual, "--dry-run").status == 0
    done = shell.run("replace", minimal, "-j", "--expect", logical)
    assert done.status == 0
    assert done.json["replaced"][0]["prog"]["id"] == actual
    (found,) = counters(shell, "show")["programs"]
    assert found["logical_id"] not in (logical, actual)


def test_programs_of_others_are_said_not_to_be_counted(shell: Transcript, veth: Veth) -> None:
    with foreign_link(veth):
        done = shell.run("counters enable")
        assert done.status == 0
        report = counters(shell, "show")
    (sentence,) = report["not_counted"]
    assert "foreign" in sentence
    assert sentence in done.output


def test_a_program_that_cannot_be_counted_is_not_overlooked(shell: Transcript, veth: Veth) -> None:
    with foreign_link(veth):
        assert shell.run("counters show").output.endswith("\n\nnothing has been counted\n")
        assert "no program" not in shell.run("counters enable").output
        assert "no program" not in shell.run("counters show").output


def test_disable_says_what_goes_on_counting(
    shell: Transcript,
    minimal: Path,
    veth: Veth,
    pin_root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell.run("attach", minimal)
    (found,) = counters(shell, "enable")["programs"]

    def gone(*_: object, **__: object) -> Program:
        raise RequirementUnmet("load program minimal again", cause="its map counts is gone")

    monkeypatch.setattr(leaves, "uncounted_copy", gone)
    done = CliRunner().invoke(
        cli, ["-n", veth.netns, "counters", "disable", *here(veth, pin_root)[2:]]
    )
    assert done.output == (
        f"{veth.name}: nothing is counted now\n\nWhat minimal (id {found['prog']['id']})"
        " returns is still counted: its map counts is gone.\n"
    )


def test_rounds_have_rates_from_the_second_one_on(
    shell: Transcript, minimal: Path, line: Line
) -> None:
    shell.run("attach", minimal)
    shell.run("counters enable", "--bytes")
    line.send(1, 3)
    done = shell.run("counters show", "-j", "--watch", "0.1", "--count", 2)
    assert done.status == 0
    first, second = map(json.loads, done.output.splitlines())
    assert first["rates"] is None
    rates = second["rates"]
    assert rates["nanoseconds"] == second["taken_at"] - first["taken_at"]
    (rate,) = rates["programs"]
    assert set(rate["total"]["packets"].values()) == {0}
    assert set(rate["total"]["bits"].values()) == {0}

    done = shell.run("counters show", "--watch", "0.1", "--count", 2)
    assert done.status == 0
    before, after = done.output.split("\n\n", 2)[1], done.output.rpartition("\n\n")[2]
    assert [row.split()[0] for row in before.splitlines()] == ["program", "minimal"]
    assert [row.split()[0] for row in after.splitlines()] == ["program", "minimal", "per"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [[], ["-j"]], ids=["text", "json"])
def test_watching_ends_well_at_a_signal(
    veth: Veth, pin_root: str, minimal: Path, number: signal.Signals, options: list[str]
) -> None:
    xdpkit_command("attach", *here(veth, pin_root), minimal)
    words = ["counters", "show", *here(veth, pin_root), "--watch", "3600", *options]
    with subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore it, and the command would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as watching:
        assert watching.stdout is not None
        # A round is printed when it is finished.
        assert watching.stdout.readline()
        watching.send_signal(number)
        _, messages = watching.communicate()
    assert (watching.returncode, messages) == (0, b"")


def test_watching_ends_with_an_error_when_the_interface_goes(
    veth: Veth, pin_root: str, minimal: Path
) -> None:
    words = ["counters", "show", *here(veth, pin_root), "--watch", "0.1", "-j"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)
        *_, error = watching.stdout
        watching.wait()
    assert watching.returncode == 2
    assert json.loads(error)["error"]["kind"] == "UsageError"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--watch=0"], "it has to be from 0.1 to 86,400"),
        (["--watch=nan"], "it has to be from 0.1 to 86,400"),
        (["--watch=often"], "what follows --watch is the time between two rounds"),
        (["--count", "3"], "--count is how often to show them with --watch"),
        (["--queue", "9-"], "queues are numbers and ranges of them, like 3 or 0-3,8"),
        (["--queue", "4"], "has RX queues 0 to 3, and no queue 4"),
    ],
)
def test_what_makes_no_sense_is_refused(shell: Transcript, options: list[str], cause: str) -> None:
    refused = shell.run("counters show", *options)
    assert (refused.status, refused.output) == (2, "")
    assert cause in refused.messages


def test_an_interface_behind_watch_is_not_taken_for_a_time(veth: Veth) -> None:
    refused = xdpkit_command("counters", "show", "-n", veth.netns, "--watch", veth.name)
    assert refused.status == 2
    assert "Remedy: name the interface first: " in refused.messages


def test_counters_take_privilege(veth: Veth, pin_root: str) -> None:
    words = ["enable", "disable", "show"]
    for verb in words:
        refused = xdpkit_command("counters", verb, *here(veth, pin_root), "-j", by=POWERLESS)
        assert refused.status == 7
        assert refused.json["error"]["kind"] == "MissingPrivilege"


def test_words_and_queues_are_completed(veth: Veth) -> None:
    shell = ShellComplete(cli, {}, "xdpkit", "_XDPKIT_COMPLETE")

    def offered(*words: str) -> list[str]:
        *before, begun = words
        return [item.value for item in shell.get_completions(["counters", *before], begun)]

    assert offered("") == ["enable", "disable", "show"]
    assert offered("show", "--w") == ["--watch"]
    assert offered("show", "-n", veth.netns, veth.name, "--queue", "0-2,") == ["0-2,3"]
    assert veth.name in offered("enable", "-n", veth.netns, "")
