# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit status IFACE`` says of a hook, from values: each line that there can be."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from xdpkit.cli import undoing
from xdpkit.cli.details import details
from xdpkit.hook import (
    AttachedProgram,
    HookStatus,
    MapSummary,
    Mode,
    Origin,
    Owner,
    PortOf,
    ProgramSummary,
    Record,
    StoredRecord,
    Via,
)
from xdpkit.hook.dispatcher import Component, Dispatcher
from xdpkit.hook.roots import Root
from xdpkit.hook.settings import Counting
from xdpkit.hook.state import LEAVING
from xdpkit.interfaces import Interface
from xdpkit.negotiation import Negotiation, Policy
from xdpkit.syscalls.proc import Holder
from xdpkit.syscalls.rtnetlink import XdpIds

Golden = Callable[[str, str], None]

INTERFACE = Interface(
    index=2,
    name="eth0",
    netns="blue",
    netns_cookie=4,
    driver="e1000e",
    kind=None,
    mtu=1500,
    rx_queues=1,
    tx_queues=1,
    xdp=XdpIds(native=13),
)


@pytest.fixture(autouse=True)
def one_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        patch.setattr(undoing, "clock_after", lambda seconds: "14:03:22")
        yield
    time.tzset()


def hook(**program: Any) -> HookStatus:
    """A hook with a program that xdpkit attached."""
    summary = ProgramSummary(
        id=13,
        name="a_firewall_with",
        tag="5a7f0ee63e342f90",
        jited=True,
        loaded_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        maps=(MapSummary(3, "hits"), MapSummary(4, "")),
    )
    given: dict[str, Any] = {
        "mode": Mode.NATIVE,
        "program": summary,
        "via": Via.LINK,
        "link_id": 7,
        "owner": Owner.XDPKIT,
        "pinned": "/sys/fs/bpf/xdpkit/4-2/link",
        "note": None,
        "record": stored(),
    }
    return HookStatus(INTERFACE, (AttachedProgram(**{**given, **program}),))


def stored(*, unknown: bool = False, **fields: Any) -> StoredRecord:
    given: dict[str, Any] = {
        "program": "a_firewall_with_a_long_name",
        "interface": "eth0",
        "ifindex": 2,
        "netns_cookie": 4,
        "mode": Mode.NATIVE,
        "via": Via.LINK,
        "cookie": 0xC0FFEE,
        "attached_at": 1_767_323_045_000_000_000,
        "revert_at": 0,
        "reverts_to": 0,
        "origin": Origin("/srv/fw\x1b[31m.o", "12" * 32, {"port": 53}, "default", True, "9.9"),
        "negotiation": Negotiation("fw", "eth0", "live", "native", Policy.DEFAULT, ()),
    }
    return StoredRecord(Record(**{**given, **fields}), 1, 96, unknown)


def boot_time(seconds: float) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + round(seconds * 1e9)


def told(found: HookStatus, pin_root: str = "/sys/fs/bpf") -> str:
    return "\n".join(details(found, pin_root)) + "\n"


def last(found: HookStatus, pin_root: str = "/sys/fs/bpf") -> str:
    return told(found, pin_root).splitlines()[-1].strip()


def test_all_that_is_known_is_told(golden: Golden) -> None:
    found = hook(holders=(Holder(123, "py\nthon"), Holder(4567, "agent")))
    golden("status-details.txt", told(found))


def test_a_dispatcher_tells_what_it_calls_in_its_order(golden: Golden) -> None:
    components = (
        Component(21, "first", "aa" * 8, 10, ("pass",)),
        Component(22, "second", "bb" * 8, 50, ("drop", "pass", "31")),
        Component(),
    )
    found = hook(
        record=None,
        pinned=None,
        owner=Owner.LIBXDP,
        dispatcher=Dispatcher(2, True, components, None),
    )
    golden("status-dispatcher.txt", told(found))


def test_a_newer_record_is_shown_as_far_as_it_is_understood() -> None:
    text = told(hook(record=stored(unknown=True)))
    assert "written by xdpkit 9.9; parts of it are not understood here\n" in text
    assert "a_firewall_with_a_long_name id 13" in text


@pytest.mark.parametrize(("previous", "goal"), [(12, "back to program 12"), (0, "off again")])
def test_what_is_not_confirmed_yet_says_how_and_until_when(previous: int, goal: str) -> None:
    found = hook(record=stored(revert_at=boot_time(43.4), reverts_to=previous))
    assert last(found, "/mnt/b p") == (
        f"goes {goal} in 43 s (at 14:03:22) unless confirmed:"
        " xdpkit confirm -n blue --pin-root '/mnt/b p' eth0"
    )


def test_what_was_not_undone_in_time_says_so() -> None:
    found = hook(record=stored(revert_at=boot_time(-89.6), reverts_to=12))
    assert last(found) == (
        "was to go back to program 12 1 min 30 s ago and did not: the process that was to do it was"
        " killed, or refused (the system's log says why); to keep the change:"
        " xdpkit confirm -n blue eth0"
    )


def test_what_stands_in_says_for_what() -> None:
    leaving = ProgramSummary(id=14, name=LEAVING, tag="614b434cd8324ecc")
    waiting = hook(program=leaving, record=stored(revert_at=boot_time(43.4), reverts_to=12))
    assert last(waiting).startswith(
        "lets all packets pass in place of program 12, which was detached; goes back to program 12"
    )
    killed = hook(program=leaving, record=None)
    assert last(killed) == (
        "being detached: if the command that does it was killed, the next change finishes it, or:"
        " xdpkit clean"
    )


def root(*members: AttachedProgram, **fields: Any) -> HookStatus:
    """A hook on which programs run by RX queue."""
    (found,) = hook(
        program=ProgramSummary(id=40, name="xdpkit_root", tag="33" * 8),
        record=stored(program="xdpkit_root", **fields),
        root=Root(40, 41, 8, 42),
        members=members,
    ).attached
    return HookStatus(INTERFACE, (found,))


def member(number: int, *queues: int | None, **fields: Any) -> list[AttachedProgram]:
    """A program of such a hook, once for each of its queues."""
    (found,) = hook(
        program=ProgramSummary(id=number, name="member"), record=stored(**fields)
    ).attached
    return [dataclasses.replace(found, qid=queue) for queue in queues]


def test_programs_by_queue_are_told_behind_what_runs_them(golden: Golden) -> None:
    counting = member(46, 3, None, program="counting", logical_id=45, counting=Counting.PACKETS)
    found = root(*member(43, 0, 1, 5), *counting)
    golden("status-queues.txt", told(found))


def test_a_root_that_runs_nothing_says_so() -> None:
    assert last(root()) == "serves   no queue: all packets pass"


def test_a_root_that_cannot_be_looked_at_says_nothing_of_what_it_runs() -> None:
    (found,) = root().attached
    hidden = dataclasses.replace(found, program=ProgramSummary(id=40))
    assert "serves" not in told(HookStatus(INTERFACE, (hidden,)))


def test_programs_by_queue_that_are_not_confirmed_yet_say_so() -> None:
    found = root(revert_at=boot_time(43.4), reverts_to=39)
    assert last(found) == (
        "goes back to the programs before in 43 s (at 14:03:22) unless confirmed:"
        " xdpkit confirm -n blue eth0"
    )


@pytest.mark.parametrize(
    ("counting", "text"),
    [
        (Counting.PACKETS, "packets, in place of program 12"),
        (Counting.PACKETS | Counting.BYTES, "packets and bytes, in place of program 12"),
    ],
)
def test_a_program_that_counts_says_what_it_is_a_copy_of(counting: Counting, text: str) -> None:
    found = hook(record=stored(logical_id=12, counting=counting))
    assert f"  counts   {text}\n" in told(found)


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (PortOf("lan", 2, "eth1"), "port 2 (eth1) of table lan"),
        (PortOf("lan", 0, "up\x1b[1mlink"), r"port 0 (up\x1b[1mlink) of table lan"),
        # Without what an earlier version did not write down.
        (PortOf("", 2), "port 2 of a table"),
        (PortOf("lan"), "table lan"),
    ],
)
def test_a_program_that_was_told_its_port_says_so(port: PortOf, text: str) -> None:
    assert f"  port     {text}\n" in told(hook(record=stored(port=port)))


def test_an_empty_hook_has_no_program() -> None:
    assert told(HookStatus(INTERFACE, ())) == "eth0: no program\n"
