# SPDX-License-Identifier: Apache-2.0
"""Everything that is counted, read at one moment."""

from __future__ import annotations

import contextlib
import errno
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError, XdpkitError, errno_name
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.kernel import DevmapValue, Map
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor import layout, resident
from xdpkit.monitor.model import (
    AttachedInfo,
    CpumapCount,
    DriverCounts,
    ErrorCount,
    Group,
    Installed,
    Reason,
    RedirectErrorCount,
    Snapshot,
    Target,
    Tracepoints,
    TransmitCount,
)
from xdpkit.monitor.places import Places
from xdpkit.uapi.bpf import MapType, XdpAction

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport
    from xdpkit.hook.state import AttachedProgram, HookStatus
    from xdpkit.monitor.portcounts import TableCounts

_INVALID = max(XdpAction) + 1
_FAILURES = {
    XdpAction.TX: Reason.TX_FAILED,
    XdpAction.REDIRECT: Reason.REDIRECT_FAILED,
    XdpAction.PASS: Reason.FAILED,
    XdpAction.DROP: Reason.FAILED,
}
_MAP_KINDS = {
    MapType.DEVMAP: "devmap",
    MapType.DEVMAP_HASH: "devmap",
    MapType.CPUMAP: "cpumap",
    MapType.XSKMAP: "xskmap",
}
OTHER = "other"
NO_NAMES: Mapping[int, str] = MappingProxyType({})


def take(
    *,
    netns: str | None = None,
    interfaces: Collection[str | int] | None = None,
    pin_root: str = DEFAULT_ROOT,
) -> Snapshot:
    """Read what is counted.

    What cannot be read is left out, and said in the notes. Errors that tracepoints tell are those
    of the whole machine, and so are port tables; the rest is about one namespace.

    Args:
        netns: the network namespace, None: the caller's own.
        interfaces: names or indexes; None: all that have a program, and those whose driver counts.
        pin_root: the bpffs with the pins.

    Raises:
        UsageError: there is no such namespace, or no such interface.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    notes: list[str] = []
    wanted = _interfaces(netns, interfaces)
    hooks = _hooks(wanted, pin_root, notes)
    unread = None
    try:
        counted = resident.read(pin_root=pin_root)
    except XdpkitError as error:
        counted, unread = None, _why(error)
        notes.append(f"What goes wrong cannot be read: {unread}.")
    places = Places(netns, by_cookie=counted is not None and counted.by_cookie)
    names = {
        number: _name_of(each)
        for hook in hooks
        for each in (*hook.programs, *hook.attached)
        for number in (each.program.id, each.logical_id)
    }
    installed = counted.installed if counted is not None else None
    tracepoints = resolved(counted, places, names) if counted is not None else Tracepoints()
    drivers = tuple(_drivers(wanted, notes))
    return Snapshot(
        taken_at=time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        installed=installed,
        unread=unread,
        tracepoints=tracepoints,
        drivers=drivers,
        returned=tuple(_returned(hooks, pin_root, notes)),
        attached=tuple(_attached(hooks, places)),
        tables=_tables(netns, pin_root, installed, tracepoints, drivers, notes),
        notes=tuple(dict.fromkeys(notes)),
    )


def read(*, netns: str | None = None, pin_root: str = DEFAULT_ROOT) -> Tracepoints | None:
    """Return what the resident programs have counted, None if none are installed.

    Args:
        netns: the network namespace whose interfaces are called by their names alone; None: the
            caller's own.
        pin_root: the bpffs with the pins.

    Raises:
        UsageError: there is no such namespace.
        RequirementUnmet: another version of xdpkit has installed its own.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    counted = resident.read(pin_root=pin_root)
    if counted is None:
        return None
    return resolved(counted, Places(netns, by_cookie=counted.by_cookie))


def resolved(
    counted: resident.Counted, places: Places, names: Mapping[int, str] = NO_NAMES
) -> Tracepoints:
    """Return what was counted, with names for numbers.

    Args:
        counted: what was counted. places: where to look for interfaces.
        names: full names of programs, by their ids.
    """
    failed = Counter[tuple[int, int, int]]()
    for each in counted.errors:
        if each.kind is layout.Kind.REDIRECT_ERROR:
            failed[_whose(each)] += each.packets
    exceptions = (each for each in counted.errors if each.kind is layout.Kind.EXCEPTION)
    return Tracepoints(
        errors=tuple(
            _error(each, places, names)
            for each in (_without(each, failed) for each in exceptions)
            if each.packets
        ),
        redirect_errors=tuple(
            _redirect_error(each, places, names)
            for each in counted.errors
            if each.kind is layout.Kind.REDIRECT_ERROR
        ),
        transmits=tuple(_transmit(each, places) for each in counted.bulks),
        cpumaps=tuple(_cpumap(each) for each in counted.cpumaps),
        attach_failures=counted.attach_failures,
        other=counted.other,
        missed=counted.missed,
    )


def _whose(each: layout.Error) -> tuple[int, int, int]:
    return each.netns, each.ifindex, each.program


def _without(each: layout.Error, failed: Counter[tuple[int, int, int]]) -> layout.Error:
    """Leave out packets of which a redirect error tells: some drivers tell of those once more."""
    if each.code != XdpAction.REDIRECT or each.in_map:
        return each
    return replace(each, packets=max(0, each.packets - failed[_whose(each)]))


def reason_of(
    action: int, places: Places, number: int, ifindex: int, *, in_map: bool = False
) -> Reason:
    """Return why a driver gave up a packet.

    Args:
        action: what the program returned, any number.
        places: where to look whether the driver has that action.
        number, ifindex: the namespace's number and the interface's index.
        in_map: whether the program is that of an entry of a devmap or cpumap, for which there is
            neither XDP_TX nor, in a devmap, XDP_REDIRECT.
    """
    from xdpkit.capabilities import Answer

    if action == XdpAction.ABORTED:
        return Reason.ABORTED
    if action >= _INVALID:
        return Reason.INVALID
    if in_map:
        return Reason.UNSUPPORTED
    wanted = f"action-{XdpAction(action).name.lower()}"
    if places.has(number, ifindex, wanted) is Answer.NO:
        return Reason.UNSUPPORTED
    return _FAILURES[XdpAction(action)]


def name_of_action(action: int) -> str:
    """Return the name of what a program returned, "invalid" for what is no action."""
    return "invalid" if action >= _INVALID else XdpAction(action).name.lower()


def target_of(
    places: Places,
    number: int,
    *,
    map_type: int,
    map_id: int,
    index: int,
    ifindex: int,
    name: str = "",
) -> Target:
    """Return where a packet was to be redirected to.

    Args:
        places: where to look for interfaces. number: number of the packet's namespace.
        map_type, map_id, index: of the map; 0 without.
        ifindex: the interface, 0 for none, or not known. name: what it was called once.
    """
    kind = _MAP_KINDS.get(MapType(map_type), "") if map_type in _MAP_KINDS else ""
    if not map_type:
        kind = "interface" if ifindex else ""
    if kind == "devmap" and index == layout.INDEX_ALL and not ifindex:
        return Target(kind, "all entries", 0, map_id, index)
    if kind == "devmap" and not ifindex:
        ifindex, name = _entry(map_id, index), ""
    if ifindex:
        # The target of a redirect is in the namespace of the packet, most of the time.
        found = places.interface(number, ifindex)
        if found is not None and name in ("", found.name):
            name = found.name
        return Target(kind, name or f"interface {ifindex}", ifindex, map_id, index)
    words = {"cpumap": f"cpu {index}", "xskmap": f"queue {index}", "devmap": f"entry {index}"}
    return Target(kind, words.get(kind, "none"), 0, map_id, index)


def _entry(map_id: int, index: int) -> int:
    """Return the interface that a devmap has at a key now, 0 for none."""
    with contextlib.suppress(XdpkitError, KeyError), Map.from_id(map_id) as found:
        value = found[index]
        return value.ifindex if isinstance(value, DevmapValue) else int(value)
    return 0


def _error(each: layout.Error, places: Places, names: Mapping[int, str]) -> ErrorCount:
    return ErrorCount(
        where=places.where(each.netns, each.ifindex, each.interface),
        program=names.get(each.program, each.program_name),
        program_id=each.program,
        action=name_of_action(each.code),
        reason=reason_of(each.code, places, each.netns, each.ifindex, in_map=each.in_map),
        packets=each.packets,
        returned=each.last,
        last_seen=each.last_seen,
        in_map=each.in_map,
    )


def _redirect_error(
    each: layout.Error, places: Places, names: Mapping[int, str]
) -> RedirectErrorCount:
    if each.target == layout.TARGET_OTHER:
        target = Target("", OTHER)
    else:
        target = target_of(
            places,
            each.netns,
            map_type=each.map_type,
            map_id=each.map_id,
            index=each.index,
            ifindex=each.target,
            name=each.target_name,
        )
    return RedirectErrorCount(
        where=places.where(each.netns, each.ifindex, each.interface),
        program=names.get(each.program, each.program_name),
        program_id=each.program,
        target=target,
        error=errno_name(each.code),
        packets=each.packets,
        last_seen=each.last_seen,
    )


def _transmit(each: layout.Bulk, places: Places) -> TransmitCount:
    source = None
    if each.source:
        source = places.where(each.source_netns, each.source, each.source_name)
    return TransmitCount(
        source=source,
        where=places.where(each.netns, each.ifindex, each.interface),
        sent=each.sent,
        dropped=each.dropped,
        error=errno_name(each.error) if each.error else "",
        last_seen=each.last_seen,
    )


def _cpumap(each: layout.Cpumap) -> CpumapCount:
    name = ""
    with contextlib.suppress(UsageError), Map.from_id(each.map_id) as found:
        name = found.name
    return CpumapCount(
        each.map_id,
        name,
        each.cpu,
        each.enqueued,
        each.queue_full,
        each.processed,
        each.no_memory,
        each.passed,
        each.dropped,
        each.redirected,
        each.last_seen,
    )


def _interfaces(netns: str | None, wanted: Collection[str | int] | None) -> tuple[Interface, ...]:
    if wanted is None:
        return list_all(netns=netns)
    return tuple(resolve(each, netns=netns) for each in dict.fromkeys(wanted))


def _hooks(
    interfaces: tuple[Interface, ...], pin_root: str, notes: list[str]
) -> tuple[HookStatus, ...]:
    from xdpkit.hook.looking import examine
    from xdpkit.hook.pins import Pins

    busy = [each for each in interfaces if each.xdp]
    try:
        return tuple(examine(busy, Pins(pin_root), with_members=True)) if busy else ()
    except XdpkitError as error:
        notes.append(f"Programs cannot be looked at: {error.cause}.")
        return ()


def _drivers(interfaces: tuple[Interface, ...], notes: list[str]) -> Iterator[DriverCounts]:
    from xdpkit.monitor import drivers

    for interface in interfaces:
        try:
            found = drivers.read(interface)
        except XdpkitError as error:
            notes.append(
                f"What the driver of {interface.name} counts cannot be read: {error.cause}."
            )
            continue
        if found is not None and (found.counts or found.raw):
            yield found


def _tables(
    netns: str | None,
    pin_root: str,
    installed: Installed | None,
    tracepoints: Tracepoints,
    drivers: tuple[DriverCounts, ...],
    notes: list[str],
) -> tuple[TableCounts, ...]:
    from xdpkit.tables import store

    try:
        names = store.names(pin_root)
        if not names:
            return ()
        from xdpkit.monitor.ports import Reader

        with_transmits = installed is not None and Group.TRANSMIT in installed.groups
        reader = Reader(netns, tracepoints, drivers, with_transmits=with_transmits)
        return reader.read(names, pin_root)
    except XdpkitError as error:
        notes.append(f"Port tables cannot be read: {_why(error)}.")
        return ()


def _returned(
    hooks: tuple[HookStatus, ...], pin_root: str, notes: list[str]
) -> Iterator[CounterReport]:
    from xdpkit.hook import Hook

    for hook in hooks:
        interface = hook.interface
        try:
            report = Hook(interface.index, netns=interface.netns, pin_root=pin_root).counters.read()
        except XdpkitError as error:
            if not _is_gone(error):
                notes.append(f"The counters of {interface.name} cannot be read: {error.cause}.")
            continue
        if report.is_enabled or report.programs or report.no_program:
            yield report


def _why(error: XdpkitError) -> str:
    number = getattr(error, "errno", None)
    return error.cause if number is None else f"{error.cause} ({errno_name(number)})"


def _is_gone(error: XdpkitError) -> bool:
    return isinstance(error, UsageError) or getattr(error, "errno", None) == errno.ENODEV


def _name_of(attached: AttachedProgram) -> str:
    """Return a program's name, in full where its record tells it."""
    if attached.record is not None:
        return attached.record.record.program
    return attached.program.name or ""


def _attached(hooks: tuple[HookStatus, ...], places: Places) -> Iterator[AttachedInfo]:
    for hook in hooks:
        where = places.where(places.number, hook.interface.index, hook.interface.name)
        for each in hook.programs:
            yield AttachedInfo(
                where=where,
                queue="" if each.qid is None else str(each.qid),
                program=_name_of(each),
                program_id=each.program.id,
                tag=each.program.tag or "",
                mode=each.mode.value,
                owner=each.owner.value,
            )
