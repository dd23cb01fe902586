# SPDX-License-Identifier: Apache-2.0
"""What was counted, with names for numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpkit.capabilities import Answer
from xdpkit.interfaces import Interface
from xdpkit.monitor.layout import INDEX_ALL, TARGET_OTHER, Error, Kind
from xdpkit.monitor.model import Installed, Reason, Tracepoints
from xdpkit.monitor.places import Places
from xdpkit.monitor.resident import Counted
from xdpkit.monitor.snapshot import resolved
from xdpkit.uapi.bpf import MapType, XdpAction

EXCEPTION = Error(
    kind=Kind.EXCEPTION,
    netns=1,
    ifindex=2,
    program=7,
    in_map=False,
    code=XdpAction.REDIRECT,
    map_type=0,
    map_id=0,
    index=0,
    target=0,
    packets=10,
    last_seen=5,
    last=XdpAction.REDIRECT,
    interface="eth0",
    program_name="firewall",
    target_name="",
)
FAILED = replace(EXCEPTION, kind=Kind.REDIRECT_ERROR, code=22, packets=7, target=9)


class NoPlaces(Places):
    """A machine whose interfaces are all gone, or out of reach."""

    def __init__(self, offered: Answer = Answer.UNKNOWN) -> None:
        self.netns, self.by_cookie, self.number = None, True, 1
        self._offered = offered

    def interface(self, number: int, ifindex: int) -> Interface | None:
        return None

    def has(self, number: int, ifindex: int, capability: str) -> Answer:
        return self._offered


def told(*errors: Error, offered: Answer = Answer.UNKNOWN) -> Tracepoints:
    installed = Installed(frozenset(), (), (), 100, 512, 0, ())
    counted = Counted(installed, True, errors, (), (), {}, 0, 0)
    return resolved(counted, NoPlaces(offered), {7: "firewall_in_full"})


def test_a_redirect_that_a_driver_tells_of_twice_is_counted_once() -> None:
    found = told(EXCEPTION, FAILED)
    assert [each.packets for each in found.redirect_errors] == [7]
    (error,) = found.errors
    assert (error.packets, error.reason) == (3, Reason.REDIRECT_FAILED)
    assert told(EXCEPTION, replace(FAILED, packets=10)).errors == ()
    assert told(EXCEPTION, replace(FAILED, packets=11)).errors == ()


def test_redirects_of_others_are_not_taken_for_a_programs_own() -> None:
    for other in (replace(FAILED, program=8), replace(FAILED, ifindex=3), replace(FAILED, netns=2)):
        (error,) = told(EXCEPTION, other).errors
        assert error.packets == 10


@pytest.mark.parametrize(
    ("code", "offered", "reason"),
    [
        (XdpAction.ABORTED, Answer.NO, Reason.ABORTED),
        (5, Answer.YES, Reason.INVALID),
        (XdpAction.TX, Answer.NO, Reason.UNSUPPORTED),
        (XdpAction.TX, Answer.YES, Reason.TX_FAILED),
        (XdpAction.TX, Answer.UNKNOWN, Reason.TX_FAILED),
        (XdpAction.REDIRECT, Answer.NO, Reason.UNSUPPORTED),
        (XdpAction.REDIRECT, Answer.YES, Reason.REDIRECT_FAILED),
        (XdpAction.PASS, Answer.YES, Reason.FAILED),
        (XdpAction.DROP, Answer.YES, Reason.FAILED),
    ],
)
def test_the_reason_is_what_was_returned_and_what_the_driver_has(
    code: int, offered: Answer, reason: Reason
) -> None:
    (error,) = told(replace(EXCEPTION, code=code), offered=offered).errors
    assert error.reason is reason


def test_a_program_of_the_entry_of_a_map_has_neither_tx_nor_redirect() -> None:
    for code in (XdpAction.TX, XdpAction.REDIRECT):
        mapped = replace(EXCEPTION, code=code, in_map=True)
        (error,) = told(mapped, FAILED, offered=Answer.YES).errors
        assert (error.reason, error.packets) == (Reason.UNSUPPORTED, 10)


def test_names_are_in_full_where_they_are_known() -> None:
    found = told(EXCEPTION, replace(FAILED, program=8))
    assert [each.program for each in found.errors] == ["firewall_in_full"]
    assert [each.program for each in found.redirect_errors] == ["firewall"]


@pytest.mark.parametrize(
    ("failed", "kind", "name"),
    [
        (replace(FAILED, target_name="eth1"), "interface", "eth1"),
        (FAILED, "interface", "interface 9"),
        (replace(FAILED, target=0), "", "none"),
        (replace(FAILED, target=TARGET_OTHER), "", "other"),
        (replace(FAILED, target=0, map_type=MapType.CPUMAP, index=3), "cpumap", "cpu 3"),
        (replace(FAILED, target=0, map_type=MapType.XSKMAP, index=4), "xskmap", "queue 4"),
        (
            replace(FAILED, target=0, map_type=MapType.DEVMAP, index=INDEX_ALL),
            "devmap",
            "all entries",
        ),
        (replace(FAILED, target=0, map_type=99, index=1), "", "none"),
    ],
)
def test_a_target_is_called_what_it_is(failed: Error, kind: str, name: str) -> None:
    (found,) = told(failed).redirect_errors
    assert (found.target.kind, found.target.name) == (kind, name)


def test_an_interface_that_is_gone_keeps_the_name_that_it_had() -> None:
    (error,) = told(EXCEPTION).errors
    assert error.where.title == "eth0"
