# SPDX-License-Identifier: Apache-2.0
"""The commands that change a hook, and what they say of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import xdpkit
from tests.kernel.attaching import attach_by_netlink, foreign_link, on_hook, program
from tests.kernel.net import Veth, rtnetlink
from tests.kernel.process import shipped, xdpkit_command
from tests.kernel.transcript import Transcript, messages_of
from xdpkit.cli.app import cli, execute
from xdpkit.hook import Delete, Hook, Mode, Via
from xdpkit.hook.delete import Detached
from xdpkit.hook.state import LEAVING

Golden = Callable[[str, str], None]

HOUR_NS = 3600 * 10**9


@pytest.fixture
def shell(veth: Veth, pin_root: str) -> Transcript:
    return Transcript(veth, pin_root)


def program_id(veth: Veth, pin_root: str) -> int:
    found = on_hook(veth, pin_root)
    assert found is not None
    return found.program.id


def make_bridge(netns: str) -> str:
    """Make an interface whose driver has no native XDP."""
    with rtnetlink(netns) as connection:
        connection.link("add", ifname="br7", kind="bridge")
        connection.link("set", ifname="br7", state="up")
    return "br7"


def test_each_verb_says_what_it_did(shell: Transcript, golden: Golden) -> None:
    demo, other = shipped("demo.o"), shipped("pass.o")
    shell.run("attach", demo, "--set", "blocked_port=99", "--cookie", 7)
    shell.run("status")
    shell.run("status", iface=False)
    shell.run("attach", other)
    shell.run("replace", other)
    shell.run("detach")
    shell.run("replace", other)
    shell.run("detach")
    shell.run("confirm")
    golden("cli-verbs.txt", shell.text)


def test_a_change_that_waits_says_how_to_keep_it(shell: Transcript, golden: Golden) -> None:
    demo, other = shipped("demo.o"), shipped("pass.o")
    shell.run("attach", demo, "--revert-after", "1h")
    shell.run("status", iface=False)
    shell.run("confirm")
    shell.run("replace", other, "--revert-after", "2h")
    shell.run("status")
    shell.run("confirm")
    shell.run("detach", "--revert-after", "90m")
    shell.run("status")
    shell.run("confirm")
    shell.run("status")
    golden("cli-revert-after.txt", shell.text)


def test_what_netlink_holds_is_said_so(shell: Transcript, golden: Golden) -> None:
    shell.run("attach", shipped("demo.o"), "--netlink")
    shell.run("status", iface=False)
    shell.run("replace", shipped("pass.o"))
    shell.run("detach")
    golden("cli-netlink.txt", shell.text)


def test_programs_of_others_are_changed_by_name_only(
    shell: Transcript, veth: Veth, pin_root: str, golden: Golden
) -> None:
    demo = shipped("demo.o")
    with foreign_link(veth):
        shell.run("replace", demo)
        shell.run("detach")
        shell.run("replace", demo, "--expect", 1)
        shell.run("replace", demo, "--expect", program_id(veth, pin_root))
    attach_by_netlink(veth)
    shell.run("replace", demo)
    shell.run("detach", "--expect", program_id(veth, pin_root))
    golden("cli-foreign.txt", shell.text)


@pytest.mark.alone
def test_what_holds_a_link_is_named(shell: Transcript, veth: Veth) -> None:
    name = Path("/proc/self/comm").read_text().removesuffix("\n")
    with foreign_link(veth):
        assert f"held by  {name} (pid {os.getpid()})\n" in shell.run("status").output
        (hook,) = shell.run("status", "-j").json["interfaces"]
        assert hook["attached"][0]["holders"] == [{"pid": os.getpid(), "name": name}]
        (hook,) = shell.run("status", "-j", iface=False).json["interfaces"]
        assert hook["attached"][0]["holders"] == []


def test_a_dry_run_changes_nothing_and_shows_the_verdicts(
    shell: Transcript, veth: Veth, pin_root: str
) -> None:
    demo = shipped("demo.o")
    planned = shell.run("attach", demo, "--dry-run", "--mode", "native,generic")
    assert planned.status == 0
    first, empty, verdict, *_ = planned.output.splitlines()
    home = f"{pin_root}/xdpkit/{veth.interface.netns_cookie}-{veth.interface.index}"
    assert first == (
        f"would attach firewall to {veth.name} in native mode, by a link pinned in {home}"
    )
    assert (empty, verdict) == ("", f"{veth.name}  native  accepted")
    assert planned.messages == "xdpkit: dry run: nothing was loaded or changed\n"
    assert on_hook(veth, pin_root) is None
    assert not (Path(pin_root) / "xdpkit").exists()

    shell.run("attach", demo)
    before = on_hook(veth, pin_root)
    assert before is not None
    replaced = shell.run("replace", shipped("pass.o"), "--dry-run")
    assert replaced.output.startswith(
        f"would replace on {veth.name}: {before.describe()}, by xdp_pass\n"
    )
    detached = shell.run("detach", "--dry-run")
    assert detached.output == f"would detach from {veth.name}: {before.describe()}\n"
    assert on_hook(veth, pin_root) == before


def test_a_dry_run_is_refused_as_the_change_would_be(shell: Transcript, veth: Veth) -> None:
    demo = shipped("demo.o")
    assert shell.run("replace", demo, "--dry-run").status == 2
    assert shell.run("detach", "--dry-run").status == 2
    assert shell.run("attach", demo, "--dry-run", "--revert-after", "200h").status == 2
    with foreign_link(veth):
        assert shell.run("attach", demo, "--dry-run").status == 5
        assert shell.run("replace", demo, "--dry-run").status == 5


def test_what_was_detached_is_told_although_it_came_after_the_first_look(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = xdpkit.read(shipped("demo.o")).programs["firewall"]
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    real = Delete.apply

    def after_another(change: Delete, **arguments: float | None) -> Detached:
        hook.add(spec).close()
        return real(change, **arguments)

    monkeypatch.setattr(Delete, "apply", after_another)
    assert execute(["-n", veth.netns, "detach", veth.name, "--pin-root", pin_root]) == 0

    assert capsys.readouterr().out.startswith(f"detached firewall from {veth.name}\n")


def test_a_dry_run_is_refused_where_maps_could_not_be_kept(
    shell: Transcript, tmp_path: Path
) -> None:
    source = program("program_array.c", "constant_slot").object.path
    where = ["--program", "constant_slot", "--netlink", "--force", "--pin-root", tmp_path]
    for more in (["--dry-run"], []):
        assert shell.run("attach", source, *where, *more).status == 3


def test_a_change_of_an_oddly_named_interface_is_confirmed_as_it_says(
    veth: Veth, pin_root: str
) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", index=veth.interface.index, ifname="-odd")
    here = ["-n", veth.netns, "--pin-root", pin_root]
    done = xdpkit_command("attach", *here, "--revert-after", "1h", "--", "-odd", shipped("demo.o"))
    command = done.output.rpartition("unless confirmed: xdpkit ")[2]
    assert xdpkit_command(*command.split()).status == 0
    assert xdpkit_command("detach", *here, "--", "-odd").status == 0


def test_json_has_the_plan_of_a_dry_run(shell: Transcript, veth: Veth, pin_root: str) -> None:
    demo = shipped("demo.o")
    plan = shell.run("attach", demo, "--dry-run", "-j", "--netlink", "--revert-after", "1h").json
    assert (plan["dry_run"], plan["change"], plan["via"]) == (True, "attach", "netlink")
    assert plan["negotiation"]["allowed"] is True
    assert plan["revert_after"] == HOUR_NS
    shell.run("attach", demo)
    number = program_id(veth, pin_root)
    plan = shell.run("replace", shipped("pass.o"), "--dry-run", "-j").json
    assert (plan["change"], plan["program"]) == ("replace", "xdp_pass")
    assert plan["before"][0]["prog"]["id"] == number
    plan = shell.run("detach", "--dry-run", "-j").json
    assert plan["change"] == "detach"
    assert plan["before"][0]["prog"]["id"] == number
    assert plan["revert_after"] is None


def test_the_second_mode_is_taken_where_the_first_is_impossible(netns: str, pin_root: str) -> None:
    name = make_bridge(netns)
    here = ["-n", netns, "--pin-root", pin_root, name, shipped("demo.o")]
    refused = xdpkit_command("attach", *here)
    assert refused.status == 3
    done = xdpkit_command("attach", *here, "--mode", "native,skb")
    assert done.status == 0
    assert done.output.startswith(f"attached firewall to {name} in generic mode\n")
    first, second = messages_of(done).splitlines()
    assert first.startswith("xdpkit: not in native mode: ")
    assert second == "xdpkit: generic mode was taken"
    xdpkit_command("detach", *here[:-1])

    document = xdpkit_command("attach", "-j", *here, "--mode", "native,generic").json
    assert document["mode"] == "generic"
    assert document["negotiation"]["mode"] == "generic"
    assert any(note.startswith("not in native mode: ") for note in document["notes"])
    assert Hook(name, netns=netns, pin_root=pin_root).delete().mode is Mode.GENERIC


def test_json_of_a_replacement_says_what_went_and_what_came(
    shell: Transcript, veth: Veth, pin_root: str
) -> None:
    shell.run("attach", shipped("demo.o"), "--cookie", 7, "--set", "blocked_port=99")
    number = program_id(veth, pin_root)
    document = shell.run(
        "replace", shipped("pass.o"), "-j", "--expect", number, "--revert-after", "1h"
    ).json
    assert document["schema"] == 1
    (came,) = document["attached"]
    went = document["before"]
    assert (went["prog"]["id"], went["record"]["program"]) == (number, "firewall")
    assert went["record"]["cookie"] == 7
    assert went["record"]["origin"]["variables"] == {"blocked_port": 99}
    assert went["record"]["origin"]["path"] == str(shipped("demo.o"))
    assert came["record"]["program"] == "xdp_pass"
    assert came["record"]["reverts_to"] == number
    assert came["link"] == went["link"]
    assert came["prog"]["id"] == program_id(veth, pin_root)
    assert 0 < came["reverts_in"] <= HOUR_NS == document["revert_after"]
    assert (went["reverts_in"], came["leaving"]) == (None, False)

    confirmed = shell.run("confirm", "-j").json
    assert confirmed["confirmed"]["id"] == came["prog"]["id"]
    assert confirmed["attached"][0]["reverts_in"] is None

    detached = shell.run("detach", "-j", "--revert-after", "1h").json
    assert (detached["prog"], detached["revert_after"]) == (came["prog"], HOUR_NS)
    (hook,) = shell.run("status", "-j").json["interfaces"]
    assert hook["attached"][0]["prog"]["name"] == LEAVING
    assert shell.run("confirm", "-j").json["attached"] == []


def test_force_is_said_and_written_down(netns: str, pin_root: str) -> None:
    here = ["-n", netns, "--pin-root", pin_root, make_bridge(netns)]
    # Native, where only the kernel can still refuse it.
    done = xdpkit_command("attach", *here, shipped("demo.o"), "--force")
    assert done.status == 4
    assert "xdpkit: overridden by --force: " in done.messages
    xdpkit_command("attach", *here, shipped("demo.o"), "--force", "--mode", "generic")
    assert "policy   default, forced\n" in xdpkit_command("status", *here).output
    assert xdpkit_command("detach", *here).status == 0


def test_a_cookie_that_is_none_is_refused(shell: Transcript, veth: Veth, pin_root: str) -> None:
    for cookie in (-1, 1 << 64):
        refused = shell.run("attach", shipped("demo.o"), f"--cookie={cookie}")
        assert refused.status == 2
        assert "a cookie is a number of 64 bits, not negative" in refused.messages
    assert on_hook(veth, pin_root) is None


def test_the_ids_on_an_interface_are_completed(veth: Veth, pin_root: str) -> None:
    shell = ShellComplete(cli, {}, "xdpkit", "_XDPKIT_COMPLETE")
    words = ["-n", veth.netns, "detach", veth.name, "--expect"]
    assert shell.get_completions(words, "") == []
    with foreign_link(veth):
        (item,) = shell.get_completions(words, "")
        assert item.value == str(program_id(veth, pin_root))


def test_status_of_a_recorded_program_imports_nothing_that_it_does_not_use(
    shell: Transcript, veth: Veth, pin_root: str
) -> None:
    shell.run("attach", shipped("demo.o"))
    script = "import sys; from xdpkit.cli.app import execute; execute(sys.argv[1:])"
    report = "print(*sys.modules, file=sys.stderr)"
    here = ["-n", veth.netns, "--pin-root", pin_root]
    for iface in ([], [veth.name]):
        done = subprocess.run(
            [sys.executable, "-c", f"{script}; {report}", "status", *here, *iface],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "firewall" in done.stdout
        modules = done.stderr.split()
        assert "xdpkit.hook.records" in modules
        for unused in ("asyncio", "elftools", "pyroute2", "rich", "subprocess"):
            assert unused not in modules
        for unused in ("btf", "isa", "kernel.loader", "kernel.maps", "obj", "probes"):
            assert f"xdpkit.{unused}" not in modules


# clean


def alone(netns: str) -> list[str]:
    """Return what runs a command where it sees this network namespace only."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("apt-get install util-linux")
    hide = 'mount -t tmpfs none /run/netns && exec "$@"'
    own = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    return ["nsenter", f"--net=/run/netns/{netns}", *own, "sh", "-c", hide, "sh"]


def test_clean_says_what_it_removed(
    shell: Transcript, veth: Veth, pin_root: str, golden: Golden
) -> None:
    by = alone(veth.netns)
    shell.run("clean", iface=False, by=by)
    shell.run("attach", shipped("demo.o"))
    shell.run("clean", iface=False, by=by)
    shell.run("clean", "--all", "--dry-run", iface=False, by=by)
    assert on_hook(veth, pin_root) is not None
    shell.run("clean", "--all", iface=False, by=by)
    assert on_hook(veth, pin_root) is None
    assert os.listdir(pin_root) == []

    shell.run("attach", shipped("demo.o"))
    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)
    shell.run("clean", iface=False, by=by)
    golden("cli-clean.txt", shell.text)


def test_clean_leaves_what_a_process_holds_and_says_so(
    shell: Transcript, veth: Veth, pin_root: str
) -> None:
    by = alone(veth.netns)
    spec = xdpkit.read(shipped("demo.o")).programs["firewall"]
    with xdpkit.attach(veth.name, spec, netns=veth.netns, pin_root=pin_root) as attached:
        done = shell.run("clean", "--all", iface=False, by=by)
        assert (done.status, done.output) == (5, "")
        assert f"xdpkit: cannot remove: {veth.name}: program {attached.program.id}" in done.messages
        assert "a process holds it" in done.messages
        document = shell.run("clean", "--all", "-j", iface=False, by=by)
        assert document.status == 5
        (found,) = document.json["cleaned"]
        assert (found["interface"], found["path"]) == (veth.name, None)
        assert found["error"].startswith("a process holds it")
        assert program_id(veth, pin_root) == attached.program.id


def test_clean_takes_off_what_netlink_holds(shell: Transcript, veth: Veth, pin_root: str) -> None:
    shell.run("attach", shipped("demo.o"), "--netlink")
    found = on_hook(veth, pin_root)
    assert found is not None
    assert found.via is Via.NETLINK
    document = shell.run("clean", "--all", "-j", iface=False, by=alone(veth.netns)).json
    assert document["dry_run"] is False
    assert [each["error"] for each in document["cleaned"]] == [None]
    assert on_hook(veth, pin_root) is None
