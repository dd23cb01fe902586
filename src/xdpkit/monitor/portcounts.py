# SPDX-License-Identifier: Apache-2.0
"""What went in by each port of a table, what went out, what was lost, and why: pure.

A redirect to a port fails in many ways, and each is counted somewhere else. Here all of them are
put together, under the standard names:

==================  ===============================================================================
``absent``          the port had no interface: counted by ``xdpkit_redirect_to_port()`` itself
``ENETDOWN`` …      the kernel refused the redirect: the errno, by the resident programs
``aborted`` …       the egress program's fault: ``aborted``, ``invalid``, ``unsupported``
``tx_failed``       the interface could not send in generic mode, or send back (XDP_TX)
``transmit_drops``  the interface did not take it, or the egress program dropped it: counted by the
                    resident programs with ``--transmit``
``xmit_errors``     the interface did not take it: counted by its driver
==================  ===============================================================================

``transmit_drops`` holds what is in ``xmit_errors``, and what an egress program in native mode took.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import (
    DriverCounts,
    Reason,
    RedirectErrorCount,
    Tracepoints,
    Where,
)
from xdpkit.syscalls.linkstats import LinkStatistics
from xdpkit.tables.model import Port, Table
from xdpkit.uapi.if_link import IFF_LOWER_UP, IFF_UP

ABSENT = "absent"
TRANSMIT_DROPS = "transmit_drops"
XMIT_ERRORS = "xmit_errors"

EGRESS = frozenset({Reason.ABORTED, Reason.INVALID, Reason.UNSUPPORTED})
"""What can be wrong with what an egress program returns."""

Place = tuple[str, int]
"""A namespace, by what it is called, and the index of an interface in it."""


class PortState(enum.StrEnum):
    """What a port is like.

    Attributes:
        UP: its interface is there, and up. DOWN: it is there.
        ABSENT: its interface is gone.
        UNSEEN: its interface is there, in a namespace that cannot be looked into from here.
        VACANT: it has none: that was removed, and the number is kept.
    """

    UP = "up"
    DOWN = "down"
    ABSENT = "absent"
    UNSEEN = "unseen"
    VACANT = "vacant"


@dataclass(frozen=True, slots=True)
class PortError:
    """Frames to a port that were lost in one way.

    Attributes:
        reason: why, as a standard name. frames: how many.
        last_seen: when that was last, in nanoseconds of CLOCK_MONOTONIC; 0: not known.
    """

    reason: str
    frames: int
    last_seen: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {"reason": self.reason, "frames": self.frames, "last_seen": self.last_seen}


@dataclass(frozen=True, slots=True)
class PortTrouble:
    """Why frames to a port get lost now.

    Attributes:
        kind: a stable word for it: ``down``. text: as a sentence without its end: "it is down".
        counted: under which reason a frame to the port is counted that is lost so; "" where no
            frame is lost that was sent to it alone.
        is_skipped: whether a broadcast in native mode skips it, which nothing counts.
    """

    kind: str
    text: str
    counted: str
    is_skipped: bool = True

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "kind": self.kind,
            "text": self.text,
            "counted": self.counted or None,
            "broadcast_skips": self.is_skipped,
        }


@dataclass(frozen=True, slots=True)
class PortCounts:
    """A port, and what is counted for it.

    Attributes:
        number, name: of the port. state: what it is like.
        where: its interface; as it was seen last, if it is gone; None: it has none.
        egress: name of the program that runs on what is sent out of it, None without.
        prepared: what was done so that it can be sent to, as phrases: "GRO on at veth1".
        received, received_bytes, sent, sent_bytes: what the kernel counts of the interface, since
            that was made; None where it is not there.
        errors: frames to it that got lost, by reason; those with frames only.
        transmit_drops, xmit_errors: see above; None: not counted.
        troubles: why frames to it get lost now.
    """

    number: int
    name: str
    state: PortState
    where: Where | None = None
    egress: str | None = None
    prepared: tuple[str, ...] = ()
    received: int | None = None
    received_bytes: int | None = None
    sent: int | None = None
    sent_bytes: int | None = None
    errors: tuple[PortError, ...] = ()
    transmit_drops: int | None = None
    xmit_errors: int | None = None
    troubles: tuple[PortTrouble, ...] = ()

    @property
    def is_up(self) -> bool:
        """Whether its interface is there, and up."""
        return self.state is PortState.UP

    @property
    def absent(self) -> int:
        """Frames that were sent to the port while it had no interface."""
        return sum(each.frames for each in self.errors if each.reason == ABSENT)

    @property
    def lost(self) -> int:
        """Frames to the port that are known to be lost, each of them once.

        What drivers count began earlier than what the resident programs do: it may be more.
        """
        counted = sum(each.frames for each in self.errors)
        egress = sum(each.frames for each in self.errors if each.reason in EGRESS)
        by_interface = (self.xmit_errors or 0) + egress
        return counted - egress + max(self.transmit_drops or 0, by_interface)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "number": self.number,
            "name": self.name,
            "state": self.state.value,
            **(self.where or Where("", "", 0)).to_dict(),
            "egress": self.egress,
            "prepared": list(self.prepared),
            "received": self.received,
            "received_bytes": self.received_bytes,
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "lost": self.lost,
            "errors": [each.to_dict() for each in self.errors],
            TRANSMIT_DROPS: self.transmit_drops,
            XMIT_ERRORS: self.xmit_errors,
            "troubles": [each.to_dict() for each in self.troubles],
        }


@dataclass(frozen=True, slots=True)
class TableCounts:
    """A port table, and what is counted for its ports.

    Attributes:
        name, size: of the table. ports: by number.
        sets: the numbers of the ports of each set, by name.
        is_owned: whether it is one process's, and goes with it.
        is_orphan: whether that process has gone, and only the table is left.
        unknown: a later version of xdpkit has written what this one does not know.
        broadcast_errors: broadcasts that failed as a whole, by the errno's name.
        unassigned: frames that were sent to numbers which no port has, by number.
        maps: the ids of the maps by which programs redirect, with the ports that are in each.
    """

    name: str
    size: int
    ports: tuple[PortCounts, ...] = ()
    sets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    is_owned: bool = False
    is_orphan: bool = False
    unknown: bool = False
    broadcast_errors: tuple[PortError, ...] = ()
    unassigned: Mapping[int, int] = field(default_factory=dict)
    maps: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "name": self.name,
            "size": self.size,
            "ports": [each.to_dict() for each in self.ports],
            "sets": {name: list(numbers) for name, numbers in self.sets.items()},
            "owned": self.is_owned,
            "owner_gone": self.is_orphan,
            "newer": self.unknown,
            "broadcast_errors": [each.to_dict() for each in self.broadcast_errors],
            "unassigned": [
                {"number": number, "frames": frames} for number, frames in self.unassigned.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """The interface of a port, as it is now.

    Attributes:
        where: the interface. netns_cookie: its namespace's number.
        statistics: its state, and what the kernel counts.
        transmits: whether it takes redirected frames in native mode; None: not known.
    """

    where: Where
    netns_cookie: int
    statistics: LinkStatistics
    transmits: bool | None = None

    @property
    def place(self) -> Place:
        return self.where.netns, self.where.ifindex

    @property
    def is_up(self) -> bool:
        return bool(self.statistics.link.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        return bool(self.statistics.link.flags & IFF_LOWER_UP)


@dataclass(frozen=True, slots=True)
class TableSeen:
    """A port table as it was read.

    Attributes:
        table: what it says.
        maps: ids of the maps that programs redirect by, with the ports in each: all, and each set.
        entries: the interfaces in the kernel's map, by port.
        absent: frames to each number that had no interface.
        links: the interfaces that are there, by port.
        gone: what to call those that are not. unseen: ports of these that the kernel has all the
            same, in namespaces that cannot be looked into.
        is_orphan: whether it was a process's own, which has gone.
    """

    table: Table
    maps: Mapping[int, frozenset[int]]
    entries: Mapping[int, int]
    absent: Mapping[int, int]
    links: Mapping[int, LinkSeen]
    gone: Mapping[int, Where]
    unseen: frozenset[int] = frozenset()
    is_orphan: bool = False


def counted(
    seen: TableSeen,
    tracepoints: Tracepoints,
    drivers: Mapping[Place, DriverCounts],
    *,
    with_transmits: bool,
) -> TableCounts:
    """Return a table with what is counted for its ports.

    Args:
        seen: the table.
        tracepoints: what the resident programs have counted.
        drivers: what drivers say of interfaces.
        with_transmits: whether the resident programs count transmission, too.
    """
    table = seen.table
    ports = []
    for port in table.ports:
        link = seen.links.get(port.number)
        found = _counts(seen, port, link, _errors(seen, port, link, tracepoints), drivers)
        if with_transmits and link is not None:
            found = replace(found, transmit_drops=_drops(link, tracepoints))
        ports.append(found)
    failed = (each for each in tracepoints.redirect_errors if is_broadcast(each, seen.maps))
    numbers = {port.number for port in table.ports}
    return TableCounts(
        name=table.name,
        size=table.size,
        ports=tuple(ports),
        sets={each.name: tuple(sorted(each.ports)) for each in table.sets},
        is_owned=table.owner,
        is_orphan=seen.is_orphan,
        unknown=table.unknown,
        broadcast_errors=_summed(
            PortError(each.error, each.packets, each.last_seen) for each in failed
        ),
        unassigned={
            number: frames for number, frames in seen.absent.items() if number not in numbers
        },
        maps=seen.maps,
    )


def _counts(
    seen: TableSeen,
    port: Port,
    link: LinkSeen | None,
    errors: Iterable[PortError],
    drivers: Mapping[Place, DriverCounts],
) -> PortCounts:
    said = drivers.get(link.place) if link is not None else None
    failed = [each.value for each in said.counts if each.event == XMIT_ERRORS] if said else []
    statistics = link.statistics if link is not None else None
    return PortCounts(
        number=port.number,
        name=port.name,
        state=_state(seen, port, link),
        where=link.where if link is not None else seen.gone.get(port.number),
        egress=port.egress,
        prepared=tuple(prepared(port)),
        received=statistics.received if statistics else None,
        received_bytes=statistics.received_bytes if statistics else None,
        sent=statistics.sent if statistics else None,
        sent_bytes=statistics.sent_bytes if statistics else None,
        errors=_summed(errors),
        xmit_errors=sum(failed) if failed else None,
        troubles=tuple(_troubles(seen, port, link)),
    )


def prepared(port: Port) -> Iterator[str]:
    """Yield what was done so that a port can be sent to, as phrases: "GRO on at veth1 in blue"."""
    if not port.prepared:
        return
    from xdpkit.ports.preparing import describe

    here = port.interface.netns_cookie if port.interface is not None else None
    for each in port.prepared:
        is_elsewhere = each.on.netns is not None and each.on.netns_cookie != here
        yield describe(each) + (f" in {each.on.netns}" if is_elsewhere else "")


def _state(seen: TableSeen, port: Port, link: LinkSeen | None) -> PortState:
    if link is not None:
        return PortState.UP if link.is_up else PortState.DOWN
    if port.number in seen.unseen:
        return PortState.UNSEEN
    return PortState.VACANT if port.interface is None else PortState.ABSENT


def _errors(
    seen: TableSeen, port: Port, link: LinkSeen | None, told: Tracepoints
) -> Iterator[PortError]:
    absent = seen.absent.get(port.number, 0)
    if absent:
        yield PortError(ABSENT, absent)
    place = link.place if link is not None else None
    for failed in told.redirect_errors:
        if _is_to(seen, port, place, failed):
            yield PortError(failed.error, failed.packets, failed.last_seen)
    for error in told.errors:
        if (error.where.netns, error.where.ifindex) == place and (
            error.in_map or error.reason is Reason.TX_FAILED
        ):
            yield PortError(error.reason.value, error.packets, error.last_seen)
    for sent in told.transmits:
        is_own = (sent.where.netns, sent.where.ifindex) == place
        if is_own and sent.source is None and sent.dropped:
            yield PortError(Reason.TX_FAILED.value, sent.dropped, sent.last_seen)


def _is_to(seen: TableSeen, port: Port, place: Place | None, failed: RedirectErrorCount) -> bool:
    """Whether a redirect was to a port: by the table, or to its interface in another way."""
    target = failed.target
    if target.map_id in seen.maps:
        return target.index == port.number
    return target.ifindex != 0 and (failed.where.netns, target.ifindex) == place


def is_broadcast(failed: RedirectErrorCount, maps: Container[int]) -> bool:
    """Whether what failed was to go to all entries of one of these maps."""
    return failed.target.map_id in maps and failed.target.index == INDEX_ALL


def _drops(link: LinkSeen, told: Tracepoints) -> int:
    """Return how many redirected frames an interface did not take."""
    return sum(
        each.dropped
        for each in told.transmits
        if each.source is not None and (each.where.netns, each.where.ifindex) == link.place
    )


def _summed(errors: Iterable[PortError]) -> tuple[PortError, ...]:
    """Return one error for each reason, the most frequent first."""
    frames: Counter[str] = Counter()
    last: dict[str, int] = {}
    for each in errors:
        frames[each.reason] += each.frames
        last[each.reason] = max(last.get(each.reason, 0), each.last_seen)
    return tuple(PortError(reason, number, last[reason]) for reason, number in frames.most_common())


def _troubles(seen: TableSeen, port: Port, link: LinkSeen | None) -> Iterator[PortTrouble]:
    if port.interface is None or port.number in seen.unseen:
        return
    if link is None:
        yield PortTrouble("absent", f"its interface {port.interface.name} is absent", ABSENT)
        return
    name, index = link.where.interface, link.where.ifindex
    if seen.entries.get(port.number) != index:
        yield PortTrouble("out-of-step", f"the kernel's map does not have {name} yet", ABSENT)
    if not link.is_up:
        yield PortTrouble("down", f"{name} is down", "ENETDOWN")
    elif not link.has_carrier:
        yield PortTrouble("no-carrier", f"{name} has no carrier", TRANSMIT_DROPS, is_skipped=False)
    if link.transmits is False:
        yield PortTrouble("no-transmit", f"{name} takes no redirected frames", "EOPNOTSUPP")
    yield from _mtu(seen, link)
    for number, other in seen.links.items():
        if number != port.number and _are_mixed_up(link, other):
            yield PortTrouble(
                "same-index",
                f"{name} has the index of port {number}, {index}, in another network namespace:"
                f" a broadcast of what comes in by port {number} skips it, and programs that look"
                " their port up take it for none",
                "",
                is_skipped=False,
            )


def _mtu(seen: TableSeen, link: LinkSeen) -> Iterator[PortTrouble]:
    mtu = link.statistics.link.mtu
    largest = max(seen.links.items(), key=lambda each: each[1].statistics.link.mtu)
    number, most = largest[0], largest[1].statistics.link.mtu
    if mtu < most:
        yield PortTrouble(
            "mtu",
            f"{link.where.interface} has MTU {mtu}, and port {number} has {most}",
            "EMSGSIZE",
        )


def _are_mixed_up(one: LinkSeen, other: LinkSeen) -> bool:
    """Whether the kernel excludes both from a broadcast that came in by one of them.

    It compares indexes only: is_ifindex_excluded() in kernel/bpf/devmap.c.
    """
    return one.where.ifindex == other.where.ifindex and one.netns_cookie != other.netns_cookie
