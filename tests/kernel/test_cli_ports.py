# SPDX-License-Identifier: Apache-2.0
"""Port tables, from the command line."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from tests.kernel.fates import set_gro
from tests.kernel.killing import only_here, wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.ports_net import source
from tests.kernel.process import COMMAND, xdpkit_command
from tests.unit.cli.commands import Outcome, run
from xdpkit.cli.app import cli
from xdpkit.ports import PortTable, preparing
from xdpkit.syscalls.netns import entered

__all__ = ["only_here"]

pytestmark = pytest.mark.needs("bpf-link-xdp")


_PAGE = Path(__file__).parents[2] / "docs" / "ports.md"


class Shell:
    """Runs ``xdpkit ports`` in a namespace, with pins of its own."""

    def __init__(self, netns: str, pin_root: str) -> None:
        self.netns = netns
        self.pin_root = pin_root

    def args(self, verb: str, *args: object) -> list[str]:
        return ["-n", self.netns, "ports", verb, *map(str, args), "--pin-root", self.pin_root]

    def run(self, verb: str, *args: object) -> Outcome:
        return run(*self.args(verb, *args))

    def does(self, verb: str, *args: object) -> list[str]:
        """Run a command that succeeds; return its lines."""
        done = self.run(verb, *args)
        assert done.status == 0, done.messages
        return done.output.splitlines()

    def table(self, name: str = "lan") -> Any:
        """Return a table as ``show`` has it in JSON."""
        (found,) = self.run("show", name, "-j").json["tables"]
        return found

    def ports(self) -> list[tuple[int, str, str]]:
        return [(each["number"], each["name"], each["state"]) for each in self.table()["ports"]]


@pytest.fixture
def shell(netns: str, pin_root: str) -> Iterator[Shell]:
    yield Shell(netns, pin_root)
    for name in ("lan", "other"):
        with contextlib.suppress(Exception), PortTable.open(name, pin_root=pin_root) as table:
            table.destroy(force=True)


def fit(netns: str) -> Veth:
    """Make a veth to which frames can be redirected."""
    made = make_veth(netns, queues=1)
    set_gro(netns, made.peer, on=True)
    return made


def test_a_table_is_made_changed_shown_and_destroyed(shell: Shell, netns: str) -> None:
    one, two, three = (fit(netns) for _ in range(3))
    assert shell.does("create", "lan", one.name, two.name, "--size", 8) == [
        "created lan: room for 8 ports",
        f"port 0 of lan: {one.name}",
        f"port 1 of lan: {two.name}",
    ]
    assert shell.does("add", "lan", three.name, "--number", 5, "--name", "uplink") == [
        f"port 5 (uplink) of lan: {three.name}"
    ]
    assert shell.does("set", "lan", "guests", two.name, 0, "1") == ["set guests of lan: 0, 1"]
    assert shell.does("rename", "lan", "uplink", "sky") == ["port 5 of lan is called sky now"]
    assert shell.ports() == [(0, one.name, "up"), (1, two.name, "up"), (5, "sky", "up")]
    assert shell.table()["sets"] == {"guests": [0, 1]}
    assert shell.does("remove", "lan", "sky") == [
        "removed port 5 (sky) of lan; its number is kept for it"
    ]
    assert shell.ports()[2] == (5, "sky", "vacant")
    assert shell.does("remove", "lan", "5", "--free") == [
        "removed port 5 (sky) of lan; its number is free"
    ]
    assert len(shell.ports()) == 2
    assert shell.does("unset", "lan", "guests") == ["lan has no set guests any more"]
    text = shell.does("show")
    assert text[0] == "lan: 2 ports, room for 8"
    assert shell.does("destroy", "lan") == ["destroyed lan"]
    done = shell.run("show")
    assert (done.output, done.messages) == ("", "xdpkit: there is no port table\n")


def test_each_command_has_json(shell: Shell, netns: str) -> None:
    veth = fit(netns)
    made = shell.run("create", "lan", "-j").json
    assert made == {"schema": 1, "table": "lan", "size": 64, "ports": []}
    (port,) = shell.run("add", "lan", veth.name, "-j").json["ports"]
    assert port == {
        "number": 0,
        "name": veth.name,
        "interface": veth.name,
        "ifindex": veth.interface.index,
        "netns": netns,
        "egress": None,
        "prepared": [],
    }
    for args, expected in (
        (("rename", "lan", "0", "a"), {"number": 0, "name": "a"}),
        (("set", "lan", "s", "a"), {"set": "s", "ports": [0]}),
        (("unset", "lan", "s"), {"unset": "s"}),
        (("remove", "lan", "a", "--free"), {"removed": [0], "free": True}),
    ):
        verb, *rest = args
        assert shell.run(verb, *rest, "-j").json == {"schema": 1, "table": "lan", **expected}
    assert shell.run("destroy", "lan", "-j").json == {"schema": 1, "destroyed": "lan"}


def test_a_port_that_cannot_be_added_leaves_no_other_behind(shell: Shell, netns: str) -> None:
    good, idle = fit(netns), make_veth(netns, queues=1)
    done = shell.run("create", "lan", good.name, idle.name)
    assert (done.status, done.output) == (3, "")
    assert shell.run("show", "lan").status == 2
    shell.does("create", "lan")
    done = shell.run("add", "lan", good.name, "nothing")
    assert done.status == 2
    assert "has no such interface" in done.messages
    assert shell.ports() == []
    assert shell.does("add", "lan", idle.name, "--force") == [f"port 0 of lan: {idle.name}"]


def test_what_is_prepared_is_told_and_undone(shell: Shell, netns: str) -> None:
    idle = make_veth(netns, queues=1)
    shell.does("create", "lan")
    lines = shell.does("add", "lan", idle.name, "--prepare=gro")
    assert lines[0] == f"port 0 of lan: {idle.name}"
    assert f"  prepared: GRO on at {idle.peer}" in lines
    (port,) = shell.table()["ports"]
    assert f"GRO on at {idle.peer}" in port["prepared"]
    shell.does("remove", "lan", "0", "--free")
    assert shell.run("add", "lan", idle.name).status == 3


def test_an_egress_program_is_chosen_and_shown(shell: Shell, netns: str) -> None:
    veth = fit(netns)
    shell.does("create", "lan")
    path = source("egress").path
    done = shell.run("add", "lan", veth.name, "--egress", path, "--egress-program", "other")
    assert done.status == 2
    assert "name one: --egress-program NAME, of egress" in done.messages
    done = shell.run("add", "lan", veth.name, "--egress", source("ported").path)
    assert 'such a program is in section "xdp/devmap"' in done.messages
    lines = shell.does("add", "lan", veth.name, "--egress", path)
    assert "  egress program: egress" in lines
    assert shell.table()["ports"][0]["egress"] == "egress"


def test_ports_that_are_not_there_are_refused_before_any_is_changed(
    shell: Shell, netns: str
) -> None:
    veth = fit(netns)
    shell.does("create", "lan", veth.name)
    for wrong in ("1", "none", "9" * 5000):
        done = shell.run("remove", "lan", veth.name, wrong)
        assert done.status == 2
        assert f"lan has no port {wrong}" in done.messages
    assert shell.ports() == [(0, veth.name, "up")]
    assert shell.run("show", "other").status == 2


def test_an_interface_is_held_against_a_table(shell: Shell, netns: str) -> None:
    good, idle = fit(netns), make_veth(netns, queues=1)
    shell.does("create", "lan", good.name)
    done = shell.run("check", "lan", idle.name)
    assert done.status == 3
    assert "refused" in done.output.splitlines()[0]
    assert shell.run("check", "lan", idle.name, "--mode", "generic").status == 0
    assert shell.run("check", "lan", good.name, "-j").json["table"] == "lan"
    assert shell.ports() == [(0, good.name, "up")]


def test_a_table_is_shown_as_it_is_and_what_is_wrong_said(shell: Shell, netns: str) -> None:
    with namespace() as away:
        here, gone, moved = fit(netns), fit(away), fit(netns)
        shell.does("create", "lan", here.name, moved.name)
        Shell(away, shell.pin_root).does("add", "lan", gone.name)
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=here.name, state="down")
    expected = [(0, here.name, "down"), (1, moved.name, "up"), (2, gone.name, "absent")]
    # The kernel takes a namespace apart when it has time.
    wait_until(lambda: shell.ports() == expected, lambda: f"{shell.ports()}")
    assert [each["netns"] for each in shell.table()["ports"][:2]] == ["", ""]
    text = shell.does("show", "lan")
    assert f"  port 0 ({here.name}): {here.name} is down: " in "\n".join(text)
    assert f"its interface {gone.name} is absent" in "\n".join(text)


def test_a_watcher_says_what_it_puts_back_until_it_is_told_to_end(shell: Shell, netns: str) -> None:
    veth = fit(netns)
    shell.does("create", "lan", veth.name)
    command = [*COMMAND, *shell.args("watch", "lan", "-j")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        with rtnetlink(netns) as connection:
            connection.link("del", ifname=veth.name)
        gone = json.loads(watcher.stdout.readline())
        assert (gone["table"], gone["number"], gone["event"]) == ("lan", 0, "gone")
        with rtnetlink(netns) as connection:
            connection.link("add", ifname=veth.name, kind="veth", peer=veth.peer)
        back = json.loads(watcher.stdout.readline())
        assert back["event"] == "returned"
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(10) == 0


@pytest.mark.parametrize("verb", ["watch", "show"])
def test_tables_that_are_hidden_are_not_taken_for_none(verb: str, netns: str) -> None:
    done = xdpkit_command("ports", verb, by=("ip", "netns", "exec", netns), timeout=60)
    assert (done.status, done.output) == (3, "")
    assert "hidden here, as by ip netns exec" in done.messages
    assert "xdpkit -n NAME" in done.messages


def test_what_may_be_left_of_a_preparation_is_said(
    shell: Shell, netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (make_veth(netns, queues=1) for _ in range(2))
    for veth in (one, two):
        set_gro(netns, veth.peer, on=False)
    shell.does("create", "lan", one.name, two.name, "--prepare=gro")
    monkeypatch.setattr(preparing, "undo", lambda found, **_: f"{found.on.name} is out of reach")
    for words, veth in ((("remove", "lan", "0"), one), (("destroy", "lan"), two)):
        done = shell.run(*words)
        assert done.status == 0
        assert f"xdpkit: {veth.peer} is out of reach" in done.messages.splitlines()


@pytest.mark.needs("redirect-broadcast")
def test_the_page_about_ports_can_be_followed_line_by_line(
    netns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"eth{number}" for number in range(1, 7)]
    with rtnetlink(netns) as connection:
        for name in names:
            connection.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"})
            for end in (name, f"{name}p"):
                connection.link("set", ifname=end, state="up")
    for name in names:
        set_gro(netns, f"{name}p", on=True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = (text for language, text in blocks if language == "c")
    Path("forward.c").write_text(program)
    (script,) = (text for language, text in blocks if language == "python")
    commands = next(text for language, text in blocks if "ports create" in text)
    with entered(netns):
        try:
            for line in commands.splitlines():
                if line.startswith("$ xdpkit "):
                    done = run(*line.removeprefix("$ xdpkit ").split())
                    assert done.status == 0, (line, done.messages)
            exec(script, {})
            on_hooks = json.loads(run("status", "-j").output)["interfaces"]
            assert [each["interface"] for each in on_hooks if each["attached"]] == names
        finally:
            for name in names:
                run("detach", name)
            for table in ("lan", "office"):
                run("ports", "destroy", table)


@pytest.mark.usefixtures("only_here")
def test_cleaning_removes_tables_of_processes_that_ended_and_all_if_wanted(
    veth: Veth, shell: Shell, pin_root: str
) -> None:
    shell.does("create", "lan", veth.name, "--force")
    PortTable.create("other", pin_root=pin_root, owned=True).close()
    clean = ("clean", "--pin-root", pin_root)
    planned = run(*clean, "--dry-run").output
    assert "port table other, whose owner is gone" in planned
    assert "port table lan" not in planned
    assert "port table other" in run(*clean).output
    assert shell.ports() == [(0, veth.name, "up")]
    assert f"removed: port table lan, {pin_root}/xdpkit/ports/lan" in run(*clean, "--all").output
    assert not (Path(pin_root) / "xdpkit").exists()
    assert "nothing to clean up" in run(*clean, "--all").messages


def test_names_of_tables_ports_and_sets_complete(netns: str) -> None:
    veth = fit(netns)
    with PortTable.create("completed") as table:
        try:
            table.add(veth.name, netns=netns, name="uplink")
            table.set("guests", ["uplink"])
            complete = ShellComplete(cli, {}, "xdpkit", "_XDPKIT_COMPLETE").get_completions
            assert [each.value for each in complete(["ports", "show"], "comp")] == ["completed"]
            rename = ["ports", "rename", "completed"]
            assert [each.value for each in complete(rename, "")] == ["uplink"]
            unset = ["ports", "unset", "completed"]
            assert [each.value for each in complete(unset, "g")] == ["guests"]
            assert complete(["ports", "rename", "nothing"], "") == []
        finally:
            table.destroy()
