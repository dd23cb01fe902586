# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit ports`` shows of tables, from values, and what it refuses before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest

from tests.unit.cli.commands import run
from tests.unit.cli.test_cli_help import help_of
from tests.unit.cli.test_json_document import documented, keys, section
from tests.unit.monitor.snapshots import lan
from xdpkit.cli import ports
from xdpkit.cli.app import cli
from xdpkit.cli.portlist import described, not_counted, overview, port_to_dict
from xdpkit.monitor.model import Group
from xdpkit.monitor.portcounts import TableCounts
from xdpkit.monitor.ports import PortReport
from xdpkit.tables.model import Identity, Port, Preparation

Golden = Callable[[str, str], None]

VETH = Identity("veth1", 7, 2, "blue", b"", "veth")
PORT = Port(
    3,
    "guest",
    VETH,
    "mark",
    (Preparation("gro", Identity("veth1p", 8, 2, None, b"", "veth"), "off"),),
)


def test_tables_are_shown_with_what_is_lost_and_why(golden: Golden) -> None:
    tables = (
        lan(),
        TableCounts("empty", 8),
        TableCounts("odd\x1b[2J", 1, is_owned=True, unknown=True),
        TableCounts("left", 1, is_owned=True, is_orphan=True),
    )
    golden(
        "ports.txt", "\n".join("".join(f"{line}\n" for line in overview(each)) for each in tables)
    )


def test_tables_as_json(golden: Golden) -> None:
    report = PortReport((lan(),), frozenset(Group))
    golden("ports.json", json.dumps(report.to_dict(), indent=2) + "\n")


def test_each_key_is_documented() -> None:
    found = {*keys(PortReport((lan(),), frozenset(Group)).to_dict()), *keys(port_to_dict(PORT))}
    # These are names of sets.
    assert found - {"guests", "none"} - documented(section("json.md", "ports")) == set()


def test_what_is_not_counted_is_said_with_what_helps() -> None:
    for groups in (frozenset[Group](), frozenset({Group.ERRORS})):
        note = not_counted(groups)
        assert note is not None
        assert note.endswith("xdpkit monitor install --transmit")
    assert not_counted(frozenset(Group)) is None


def test_a_port_is_described_with_what_was_done_for_it() -> None:
    assert list(described(PORT, "lan")) == [
        "port 3 (guest) of lan: veth1",
        "  egress program: mark",
        "  prepared: GRO on at veth1p",
    ]
    assert list(described(Port(0, "eth0", None), "lan")) == ["port 0 (eth0) of lan: no interface"]
    assert port_to_dict(PORT) == {
        "number": 3,
        "name": "guest",
        "interface": "veth1",
        "ifindex": 7,
        "netns": "blue",
        "egress": "mark",
        "prepared": [{"what": "gro", "on": "veth1p"}],
    }


@pytest.mark.parametrize("verb", sorted(ports.command.commands))
def test_the_help_of_each_has_examples(verb: str, golden: Golden) -> None:
    group = click.Context(ports.command, click.Context(cli, info_name="xdpkit"), "ports")
    text = help_of(ports.command.commands[verb], verb, group)
    assert f"Examples:\n  xdpkit ports {verb}" in text
    assert max(map(len, text.splitlines())) <= 80
    golden(f"help-ports-{verb}.txt", text)


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (("add", "lan", "eth1", "eth2", "--number", "3"), "are for one interface"),
        (("add", "lan", "eth1", "--egress-program", "mark"), "is for --egress OBJECT"),
        (("add", "lan", "--prepare", "eth1", "eth2"), "it is one of gro, program"),
        (("add", "lan"), "Missing argument 'IFACE...'"),
        (("create", "lan", "--size", "1025"), "1<=x<=1024"),
        (("set", "lan", "red-hats", "1"), "where no name has a '-'"),
        (("rename", "lan", "1", "up\nlink"), "up\\nlink is no name"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_looked_at(
    args: tuple[str, ...], cause: str
) -> None:
    done = run("ports", *args)
    assert (done.status, done.output) == (2, "")
    assert cause in done.messages


@pytest.mark.parametrize(("verb", "folder"), [("show", "/proc"), ("watch", "/nonexistent")])
def test_where_no_table_can_be_none_is_looked_for(verb: str, folder: str) -> None:
    done = run("ports", verb, "--pin-root", folder)
    assert (done.status, done.output) == (3, "")
    assert f"{folder} is not a BPF file system" in done.messages
