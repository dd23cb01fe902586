# SPDX-License-Identifier: Apache-2.0
"""Read what is counted for the ports of port tables.

The numbers are of several places (:mod:`xdpkit.monitor.portcounts` says which). They are joined by
the port's number where a frame went by the table, else by the interface and its namespace.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from xdpkit.errors import XdpkitError
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor.model import DriverCounts, Group, Tracepoints, Where
from xdpkit.monitor.places import Places
from xdpkit.monitor.portcounts import LinkSeen, Place, TableCounts, TableSeen, counted
from xdpkit.ports import seeing
from xdpkit.ports.following import locate
from xdpkit.syscalls import netdev
from xdpkit.syscalls.linkstats import LinkStatistics, dump_statistics
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.tables import store
from xdpkit.tables.entries import entries
from xdpkit.tables.model import Identity, Table
from xdpkit.tables.store import Store
from xdpkit.uapi.netdev import XdpAct
from xdpkit.uapi.netlink import NetlinkProtocol


@dataclass(frozen=True, slots=True)
class PortReport:
    """Port tables, and what is counted for their ports.

    Attributes:
        tables: the tables.
        groups: what the resident programs count: without them, what the kernel refuses is not
            known, and without :attr:`.Group.TRANSMIT`, nor is what interfaces do not take.
    """

    tables: tuple[TableCounts, ...]
    groups: frozenset[Group]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "counted": sorted(group.value for group in self.groups),
            "tables": [each.to_dict() for each in self.tables],
        }


# struct xdpkit_port_counts
_COUNTS = struct.Struct("=Q")


def port_counts(
    names: Iterable[str] | None = None,
    *,
    netns: str | None = None,
    pin_root: str = DEFAULT_ROOT,
) -> PortReport:
    """Read port tables and what is counted for their ports.

    Changes nothing: a port whose interface has come back is shown with it, though the kernel's map
    may not have it yet (:attr:`.PortCounts.troubles`).

    Args:
        names: of the tables; None: all.
        netns: the network namespace whose interfaces are called by their names alone; None: the
            caller's own.
        pin_root: the bpffs with the tables.

    Raises:
        UsageError: there is no such table or namespace.
        RequirementUnmet: another version of xdpkit has installed its own resident programs.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    from xdpkit.monitor import resident
    from xdpkit.monitor.snapshot import resolved

    found = resident.read(pin_root=pin_root)
    tracepoints, groups = Tracepoints(), frozenset[Group]()
    if found is not None:
        tracepoints = resolved(found, Places(netns, by_cookie=found.by_cookie))
        groups = found.installed.groups
    chosen = store.names(pin_root) if names is None else list(dict.fromkeys(names))
    reader = Reader(netns, tracepoints, with_transmits=Group.TRANSMIT in groups)
    return PortReport(reader.read(chosen, pin_root), groups)


@dataclass(frozen=True, slots=True)
class _Record:
    """A table as its maps have it.

    Attributes:
        table: what it says. maps: ids of the maps by which programs redirect, with their ports.
        entries: the interfaces in the kernel's map, by port.
        absent: frames to numbers without interface, by number.
        is_orphan: whether the process whose it was has gone.
    """

    table: Table
    maps: Mapping[int, frozenset[int]]
    entries: Mapping[int, int]
    absent: Mapping[int, int]
    is_orphan: bool


class Reader:
    """Reads tables at one moment; namespaces are looked into once for all of them."""

    def __init__(
        self,
        netns: str | None,
        tracepoints: Tracepoints,
        drivers: Collection[DriverCounts] = (),
        *,
        with_transmits: bool,
    ) -> None:
        """Prepare to read.

        Args:
            netns: the network namespace whose interfaces are called by their names alone.
            tracepoints: what the resident programs have counted, as seen from there.
            drivers: what drivers say, as far as it has been read.
            with_transmits: whether the resident programs count transmission.

        Raises:
            UsageError: there is no such namespace.
        """
        self._places = Places(netns, by_cookie=True)
        self._tracepoints = tracepoints
        self._with_transmits = with_transmits
        self._drivers: dict[Place, DriverCounts] = {
            (each.where.netns, each.where.ifindex): each for each in drivers
        }
        self._statistics: dict[int, Mapping[int, LinkStatistics]] = {}
        self._features: dict[int, Mapping[int, XdpAct]] = {}

    def read(self, names: Iterable[str], pin_root: str) -> tuple[TableCounts, ...]:
        """Return tables with what is counted for their ports.

        Raises:
            UsageError: there is no such table.
            MissingPrivilege: it takes CAP_SYS_ADMIN.
        """
        records = [_record(name, pin_root) for name in names]
        return tuple(
            counted(seen, self._tracepoints, self._drivers, with_transmits=self._with_transmits)
            for seen in map(self._look, records)
        )

    def _look(self, record: _Record) -> TableSeen:
        known = {
            port.number: port.interface for port in record.table.ports if port.interface is not None
        }
        located = locate(record.table.ports)
        present, places = located.interfaces, located.sight.places
        links = {
            number: link
            for number, interface in present.items()
            if (link := self._link(interface)) is not None
        }
        for number in links:
            self._read_driver(links[number], present[number].netns)
        gone = {
            number: Where(self._places.title(each.netns_cookie), each.name, each.ifindex)
            for number, each in known.items()
            if number not in links
        }
        unseen = frozenset(
            number
            for number in gone
            if known[number].netns_cookie not in places
            and record.entries.get(number) == known[number].ifindex
        )
        return TableSeen(
            table=record.table,
            maps=record.maps,
            entries=record.entries,
            absent=record.absent,
            links=links,
            gone=gone,
            unseen=unseen,
            is_orphan=record.is_orphan,
        )

    def _link(self, interface: Identity) -> LinkSeen | None:
        cookie = interface.netns_cookie
        if cookie not in self._statistics:
            self._dump(cookie, interface.netns)
        statistics = self._statistics[cookie].get(interface.ifindex)
        if statistics is None:
            return None
        features = self._features[cookie].get(interface.ifindex)
        return LinkSeen(
            where=Where(self._places.title(cookie), statistics.link.name, interface.ifindex),
            netns_cookie=cookie,
            statistics=statistics,
            transmits=None if features is None else XdpAct.NDO_XMIT in features,
        )

    def _dump(self, cookie: int, netns: str | None) -> None:
        self._statistics[cookie], self._features[cookie] = {}, {}
        with seeing.inside(netns, cookie) as is_there:
            if not is_there:
                return
            with NetlinkSocket() as connection:
                self._statistics[cookie] = dump_statistics(connection)
            self._features[cookie] = _features()

    def _read_driver(self, link: LinkSeen, netns: str | None) -> None:
        """Read what an interface's driver says, unless that was done; without it, it is unknown."""
        from xdpkit.interfaces import resolve
        from xdpkit.monitor import drivers

        if link.place in self._drivers:
            return
        with contextlib.suppress(XdpkitError):
            interface = resolve(link.where.ifindex, netns=netns)
            found = drivers.read(interface, shown_netns=link.where.netns)
            if found is not None:
                self._drivers[link.place] = found


def _record(name: str, pin_root: str) -> _Record:
    with store.open(name, pin_root=pin_root) as table:
        said = table.read()
        return _Record(
            table=said,
            maps=dict(_maps(table, said)),
            entries={number: found for number, (found, _) in entries(table.ports).items()},
            absent={
                number: frames for number, each in table.counts.items() if (frames := _absent(each))
            },
            is_orphan=table.is_orphan(),
        )


def _maps(opened: Store, table: Table) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the ids of the maps by which programs redirect, with the numbers of their ports."""
    yield opened.ports.id, frozenset(port.number for port in table.ports)
    sets = {each.name: each.ports for each in table.sets}
    for name, each in opened.sets.items():
        yield each.id, sets.get(name, frozenset())


def _absent(by_cpu: Iterable[bytes]) -> int:
    """Return the sum of what all CPUs have counted."""
    return sum(_COUNTS.unpack_from(each)[0] for each in by_cpu)


def _features() -> dict[int, XdpAct]:
    """Return what the interfaces of the calling thread's namespace do, by index, where it says."""
    with contextlib.suppress(XdpkitError), NetlinkSocket(NetlinkProtocol.GENERIC) as connection:
        family = netdev.find_family(connection)
        if family is not None:
            return {each.index: each.features for each in netdev.dump_devices(connection, family)}
    return {}
