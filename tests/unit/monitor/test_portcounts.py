# SPDX-License-Identifier: Apache-2.0
"""Which port a number is of, and why frames to it get lost, from values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.monitor.snapshots import HERE, THERE, driver, error, redirect_error, transmit
from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import DriverCounts, Reason, Target, Tracepoints, Where
from xdpkit.monitor.portcounts import (
    LinkSeen,
    PortCounts,
    PortError,
    PortState,
    TableCounts,
    TableSeen,
    counted,
)
from xdpkit.syscalls.linkstats import LinkStatistics
from xdpkit.syscalls.rtnetlink import LinkInfo, XdpIds
from xdpkit.tables.model import Identity, Port, PortSet, Preparation, Table
from xdpkit.uapi.if_link import IFF_LOWER_UP, IFF_UP

UP = IFF_UP | IFF_LOWER_UP
PORTS, GUESTS, ELSEWHERE = 20, 21, 99
"""Ids of the table's map, its set's, and somebody else's."""


def link(
    where: Where = HERE,
    *,
    flags: int = UP,
    mtu: int = 1500,
    transmits: bool | None = True,
    netns_cookie: int = 1,
) -> LinkSeen:
    info = LinkInfo(
        where.ifindex, 1, where.interface, flags, mtu, "veth", 1, 1, None, None, XdpIds()
    )
    return LinkSeen(where, netns_cookie, LinkStatistics(info, 10, 1000, 20, 2000), transmits)


def identity(name: str = "eth0", ifindex: int = 2) -> Identity:
    return Identity(name, ifindex, 1, None, b"\2\0\0\0\0\1", "veth")


def port(number: int = 0, name: str = "eth0", **fields: Any) -> Port:
    return Port(number, name, fields.pop("interface", identity(name)), **fields)


def seen(*ports: Port, links: Mapping[int, LinkSeen], **fields: Any) -> TableSeen:
    table = Table("lan", 64, ports or (port(),), (PortSet("guests", frozenset({0})),))
    given: dict[str, Any] = {
        "maps": {PORTS: frozenset({0, 1}), GUESTS: frozenset({0})},
        "entries": {number: each.where.ifindex for number, each in links.items()},
        "absent": {},
        "gone": {},
    }
    return TableSeen(table=table, links=links, **{**given, **fields})


def whole(
    found: TableSeen,
    *,
    drivers: Mapping[tuple[str, int], DriverCounts] | None = None,
    with_transmits: bool = True,
    **told: Any,
) -> TableCounts:
    return counted(found, Tracepoints(**told), drivers or {}, with_transmits=with_transmits)


def only(found: TableSeen, **told: Any) -> PortCounts:
    (result,) = whole(found, **told).ports
    return result


def kinds(counts: PortCounts) -> list[str]:
    return [each.kind for each in counts.troubles]


def to_entry(index: int, map_id: int = PORTS) -> Target:
    """A target in a devmap; the interface is what is there now, and need not be what was."""
    return Target("devmap", "whatever", ifindex=77, map_id=map_id, index=index)


HEALTHY = seen(links={0: link()})


def test_a_port_in_order_has_the_numbers_of_its_interface_and_no_troubles() -> None:
    found = only(HEALTHY)
    assert (found.state, found.is_up, found.where) == (PortState.UP, True, HERE)
    assert (found.received, found.received_bytes) == (10, 1000)
    assert (found.sent, found.sent_bytes) == (20, 2000)
    assert (found.lost, found.errors, found.transmit_drops, found.xmit_errors) == (0, (), 0, None)
    assert found.troubles == ()


def test_what_is_not_counted_is_not_zero() -> None:
    assert only(HEALTHY, with_transmits=False).transmit_drops is None


@pytest.mark.parametrize("map_id", [PORTS, GUESTS])
def test_a_redirect_by_the_table_is_the_ports_by_number(map_id: int) -> None:
    errors = (
        redirect_error(target=to_entry(0, map_id), error="ENETDOWN", packets=3, last_seen=5),
        redirect_error(THERE, target=to_entry(0, map_id), error="ENETDOWN", packets=4),
        redirect_error(target=to_entry(1, map_id), error="ENETDOWN", packets=100),
        redirect_error(target=to_entry(0, ELSEWHERE), error="ENETDOWN", packets=100),
    )
    assert only(HEALTHY, redirect_errors=errors).errors == (PortError("ENETDOWN", 7, 5),)


def test_a_redirect_in_another_way_is_the_ports_by_interface_and_namespace() -> None:
    there = seen(links={0: link(THERE)})
    index = THERE.ifindex
    errors = (
        redirect_error(THERE, target=Target("interface", "veth1", index), packets=1),
        redirect_error(THERE, target=Target("devmap", "veth1", index, ELSEWHERE, 3), packets=2),
        redirect_error(HERE, target=Target("interface", "veth1", index), packets=100),
        redirect_error(THERE, target=Target("cpumap", "cpu 0", 0, 5, 0), packets=100),
    )
    assert only(there, redirect_errors=errors).errors == (PortError("ENETDOWN", 3),)


def test_a_broadcast_that_fails_is_the_tables_and_no_ports() -> None:
    failed = redirect_error(target=to_entry(INDEX_ALL), error="ENOMEM", packets=8)
    found = whole(HEALTHY, redirect_errors=(failed,))
    assert found.broadcast_errors == (PortError("ENOMEM", 8),)
    assert found.ports[0].errors == ()


def test_what_an_egress_program_loses_is_the_ports_that_it_is_of() -> None:
    errors = (
        replace(error(HERE, packets=2), in_map=True),
        replace(error(HERE, action="invalid", reason=Reason.INVALID, packets=3), in_map=True),
        error(HERE, packets=100),
        replace(error(THERE, packets=100), in_map=True),
    )
    assert only(HEALTHY, errors=errors).errors == (PortError("invalid", 3), PortError("aborted", 2))


def test_what_an_interface_cannot_send_back_or_in_generic_mode_is_one_reason() -> None:
    failed = error(HERE, action="tx", reason=Reason.TX_FAILED, packets=2)
    sent = transmit(None, where=HERE, sent=9, dropped=3)
    found = only(HEALTHY, errors=(failed,), transmits=(sent,))
    assert found.errors == (PortError("tx_failed", 5),)
    assert (found.transmit_drops, found.lost) == (0, 5)


def test_drops_of_all_sources_are_the_interfaces() -> None:
    sent = (
        transmit(THERE, where=HERE, sent=9, dropped=3),
        transmit(HERE, where=HERE, sent=9, dropped=1),
        transmit(HERE, where=THERE, sent=9, dropped=100),
    )
    assert only(HEALTHY, transmits=sent).transmit_drops == 4


def test_frames_that_are_counted_in_two_places_are_lost_once() -> None:
    egress = replace(error(HERE, packets=2), in_map=True)
    said = {("", 2): driver("eth0", {"xmit_errors": [3, 1], "xmit": [50, 50]})}
    drops = transmit(THERE, where=HERE, sent=9, dropped=6)
    refused = redirect_error(target=to_entry(0), packets=5)
    found = only(
        HEALTHY, errors=(egress,), drivers=said, transmits=(drops,), redirect_errors=(refused,)
    )
    assert (found.transmit_drops, found.xmit_errors) == (6, 4)
    assert found.lost == 5 + 6
    found = only(HEALTHY, errors=(egress,), drivers=said, with_transmits=False)
    assert found.lost == 2 + 4


def test_frames_to_no_interface_are_counted_by_port() -> None:
    gone = Where("", "eth0", 2)
    found = only(seen(links={}, absent={0: 7, 1: 100}, gone={0: gone}))
    assert (found.state, found.where, found.absent, found.lost) == (PortState.ABSENT, gone, 7, 7)
    assert (found.received, found.transmit_drops) == (None, None)
    (trouble,) = found.troubles
    assert (trouble.kind, trouble.counted, trouble.is_skipped) == ("absent", "absent", True)
    assert trouble.text == "its interface eth0 is absent"


def test_frames_to_a_number_that_no_port_has_are_the_tables() -> None:
    found = whole(seen(port(interface=None), links={}, absent={0: 7, 5: 9}))
    assert (found.ports[0].absent, found.unassigned) == (7, {5: 9})
    assert found.to_dict()["unassigned"] == [{"number": 5, "frames": 9}]


def test_a_number_that_is_kept_is_no_trouble() -> None:
    found = only(seen(port(interface=None), links={}, absent={0: 7}))
    assert (found.state, found.where, found.troubles, found.lost) == (PortState.VACANT, None, (), 7)


def test_an_interface_in_a_namespace_out_of_reach_is_neither_there_nor_absent() -> None:
    found = only(seen(links={}, gone={0: HERE}, entries={0: 2}, unseen=frozenset({0})))
    assert (found.state, found.where, found.troubles) == (PortState.UNSEEN, HERE, ())


def test_an_interface_that_is_down_refuses_frames_and_a_broadcast_skips_it() -> None:
    found = only(seen(links={0: link(flags=0)}))
    assert found.state is PortState.DOWN
    (trouble,) = found.troubles
    assert (trouble.kind, trouble.counted, trouble.is_skipped) == ("down", "ENETDOWN", True)


def test_without_a_carrier_frames_are_handed_over_and_dropped() -> None:
    found = only(seen(links={0: link(flags=IFF_UP)}))
    assert found.state is PortState.UP
    (trouble,) = found.troubles
    assert (trouble.counted, trouble.is_skipped) == ("transmit_drops", False)


@pytest.mark.parametrize(("transmits", "expected"), [(False, ["no-transmit"]), (None, [])])
def test_what_is_not_known_to_fail_is_no_trouble(
    transmits: bool | None, expected: list[str]
) -> None:
    assert kinds(only(seen(links={0: link(transmits=transmits)}))) == expected


@pytest.mark.parametrize("entries", [{}, {0: 3}])
def test_a_map_that_has_another_interface_is_out_of_step(entries: dict[int, int]) -> None:
    assert kinds(only(seen(links={0: link()}, entries=entries))) == ["out-of-step"]


def test_an_mtu_below_that_of_another_port_loses_longer_frames() -> None:
    two = seen(port(), port(1, "veth1"), links={0: link(mtu=1400), 1: link(THERE)})
    small, large = whole(two).ports
    assert (kinds(small), kinds(large)) == (["mtu"], [])
    assert small.troubles[0].text == "eth0 has MTU 1400, and port 1 has 1500"


def test_equal_indexes_in_two_namespaces_are_told_of_both_ports() -> None:
    other = Where("blue", "veth1", 2)
    two = seen(port(), port(1, "veth1"), links={0: link(), 1: link(other, netns_cookie=2)})
    found = whole(two).ports
    assert [kinds(each) for each in found] == [["same-index"], ["same-index"]]
    trouble = found[0].troubles[0]
    assert (trouble.counted, trouble.is_skipped) == ("", False)
    assert "a broadcast of what comes in by port 1 skips it" in trouble.text


def test_what_was_prepared_is_said_with_where() -> None:
    prepared = (Preparation("gro", identity("eth0p", 3), "off"),)
    assert only(seen(port(prepared=prepared), links={0: link()})).prepared == ("GRO on at eth0p",)


def test_where_something_was_prepared_is_said_if_that_is_another_namespace() -> None:
    peer = Identity("eth0p", 3, 9, "blue", b"", "veth")
    prepared = (Preparation("gro", peer, "off"),)
    found = only(seen(port(prepared=prepared), links={0: link()}))
    assert found.prepared == ("GRO on at eth0p in blue",)


def test_sets_are_numbers_in_order() -> None:
    assert whole(HEALTHY).sets == {"guests": (0,)}
