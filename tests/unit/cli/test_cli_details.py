# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit status IFACE`` says of a hook, from values: each line that there can be."""

from __future__ import annotations

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
    ProgramSummary,
    Record,
    StoredRecord,
    Via,
)
from xdpkit.hook.dispatcher import Component, Dispatcher
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


def test_an_empty_hook_has_no_program() -> None:
    assert told(HookStatus(INTERFACE, ())) == "eth0: no program\n"
