# SPDX-License-Identifier: Apache-2.0
"""Look at the hooks: what is on them, whoever put it there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, KernelRefused, MissingPrivilege, RequirementUnmet
from xdpkit.hook import roots, scope
from xdpkit.hook.homes import is_still_there
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.pins import HookFolder, PinnedLink, Pins
from xdpkit.hook.roots import Root
from xdpkit.hook.state import (
    AttachedProgram,
    HookStatus,
    MapSummary,
    Owner,
    ProgramSummary,
)
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.interfaces.interface import rx_queues_in_use
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import LinkType, ProgType

if TYPE_CHECKING:
    from xdpkit.hook.dispatcher import Dispatcher
    from xdpkit.hook.record import StoredRecord
    from xdpkit.syscalls.proc import Holder

OWN_MAPS = "xdpkit_"
"""How maps of xdpkit's own are called that its programs have."""

# The name of the program in which libxdp (xdp-tools) joins several.
_LIBXDP_DISPATCHER = "xdp_dispatcher"
_LOOKS = 3
_KNOWN_TYPES = {member.value: member for member in ProgType}


def status(
    *, netns: str | None = None, iface: str | int | None = None, pin_root: str = DEFAULT_ROOT
) -> tuple[HookStatus, ...]:
    """Return the interfaces that have a program, or the one asked for with or without.

    Needs no privilege to tell which interfaces have programs, and their ids. For the rest it takes
    CAP_SYS_ADMIN (looking up an object by its id); without it the fields are None and ``note``
    says so. Which processes hold a link is told of the one interface that was asked for.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    interfaces = (
        [resolve(iface, netns=netns)]
        if iface is not None
        else [found for found in list_all(netns=netns) if found.xdp]
    )
    return examine(interfaces, Pins(pin_root), with_holders=iface is not None, with_members=True)


def examine(
    interfaces: Iterable[Interface],
    pins: Pins,
    *,
    with_holders: bool = False,
    with_members: bool = False,
) -> tuple[HookStatus, ...]:
    """Return what is on these interfaces' hooks. Changes nothing and takes no lock.

    Args:
        interfaces: the interfaces. pins: where links are pinned.
        with_holders: look for the processes that hold links, too.
        with_members: look at the programs that a root runs, too.
    """
    interfaces = tuple(interfaces)
    if not any(interface.xdp for interface in interfaces):
        return tuple(HookStatus(interface, ()) for interface in interfaces)
    surroundings = _Surroundings(*_folders(pins), pins, with_holders, with_members)
    return tuple(
        HookStatus(
            interface,
            tuple(
                _attached(mode, program_id, interface, surroundings)
                for mode, program_id in programs_of(interface)
            ),
        )
        for interface in interfaces
    )


@dataclass(frozen=True)
class _Surroundings:
    """What is looked at once for all hooks."""

    folders: Sequence[HookFolder]
    pins_note: str | None
    pins: Pins
    with_holders: bool
    with_members: bool

    @cached_property
    def links(self) -> tuple[Mapping[tuple[int, int], Sequence[int]] | None, str | None]:
        """See :func:`_links`; all links of the host, so only where no pinned one tells."""
        return _links()


def root_of(program_id: int) -> Root | None:
    """Return the root that a program is, None if it is none, or has gone.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
    """
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, program_id)
    if descriptor is None:
        return None
    with descriptor:
        info, map_ids = bpf.prog_info(descriptor.fileno())
    if info.name != roots.ROOT.encode():
        return None
    maps = {number: _map_summary(number).name for number in map_ids}
    return roots.find(program_id, roots.ROOT, maps)


def programs_of(interface: Interface) -> list[tuple[Mode, int]]:
    """Return modes and ids of an interface's programs."""
    xdp = interface.xdp
    found = (
        (Mode.NATIVE, xdp.native),
        (Mode.GENERIC, xdp.generic),
        (Mode.OFFLOAD, xdp.offload),
    )
    return [(mode, program_id) for mode, program_id in found if program_id is not None]


def _attached(
    mode: Mode, program_id: int, interface: Interface, around: _Surroundings
) -> AttachedProgram:
    seen = _see(program_id, interface)
    folder = around.pins.choose(around.folders, interface)
    link = folder.link if folder is not None else None
    if link is not None and link.program_id != program_id:
        link = None
    record = _record_for(interface, seen, is_pinned=link is not None)
    via, link_id, links_note = _held_by(program_id, interface, link, record, around)
    owner = Owner.UNKNOWN
    if link is not None or record is not None:
        owner = Owner.XDPKIT
    elif seen.dispatcher is not None:
        owner = Owner.LIBXDP
    notes = [seen.note]
    if link is None:
        notes += [links_note, around.pins_note]
    root = seen.root
    if root is None and seen.program.name is None and link is not None and folder is not None:
        root = _root_by_pins(program_id, folder)
    attached = AttachedProgram(
        mode=mode,
        program=seen.program,
        via=via,
        link_id=link_id,
        owner=owner,
        pinned=link.path if link is not None else None,
        note="; ".join(note for note in notes if note) or None,
        record=record,
        dispatcher=seen.dispatcher,
        holders=_holders(link_id) if around.with_holders and link_id is not None else (),
        root=root,
    )
    if root is not None and around.with_members:
        return replace(attached, members=tuple(_members(attached, root, interface)))
    return attached


def _members(hook: AttachedProgram, root: Root, interface: Interface) -> Iterator[AttachedProgram]:
    """Yield the programs that a root runs, as :attr:`HookStatus.programs` has them."""
    try:
        members = roots.members_of(root, "look at the programs of the RX queues")
    except (HookBusy, MissingPrivilege, KernelRefused):
        # What is on the hook has a note about it.
        return
    seen = {number: member_of(hook, number, interface) for number in set(members.values())}
    in_use = rx_queues_in_use(interface)
    for number, member in seen.items():
        idle = [
            queue
            for queue, each in members.items()
            if each == number and queue is not None and in_use is not None and queue >= in_use
        ]
        if idle:
            text = f"{member.program.name or f'program {number}'}: {idle_note(idle, interface)}"
            seen[number] = replace(member, note="; ".join(filter(None, (member.note, text))))
    for queue, number in members.items():
        yield replace(seen[number], qid=queue)


def idle_note(queues: Iterable[int], interface: Interface) -> str:
    """Return a sentence about RX queues that an interface does not use now (``ethtool -L``)."""
    queues = frozenset(queues)
    verb = "is" if len(queues) == 1 else "are"
    return f"{scope.describe(queues)} of {interface.name} {verb} not in use now (ethtool -L)"


def member_of(hook: AttachedProgram, number: int, interface: Interface) -> AttachedProgram:
    """Look at a program that a root runs.

    Args:
        hook: the root, as it is on the hook. number: the program's id. interface: whose hook it is.
    """
    seen = _see(number, interface)
    record = _record_for(interface, seen, is_pinned=hook.pinned is not None)
    return replace(hook, program=seen.program, record=record, note=seen.note, root=None, members=())


def _root_by_pins(program_id: int, folder: HookFolder) -> Root | None:
    """Return what a program's pinned maps say of it where it cannot be looked at itself."""
    found = {number: path for path, number in folder.maps_for(program_id)}
    names: dict[int, str] = {}
    for number, path in found.items():
        descriptor = bpf.obj_get(path, what=f"open {path}")
        if descriptor is not None:
            with descriptor:
                names[number] = _name_of_map(descriptor.fileno())
    for number, name in names.items():
        if name == roots.QUEUES_MAP:
            return Root(program_id, number, queues=0, unserved_id=0)
    return None


def _record_for(interface: Interface, seen: _Seen, *, is_pinned: bool) -> StoredRecord | None:
    """Return the record of this attachment, of those that the program carries.

    An interface that moved here has the record that was made where it was. But that of another
    interface which still has the same program is not about this one.
    """
    here = (interface.netns_cookie, interface.index)
    for stored in seen.records:
        if stored.record.hook == here:
            return stored
    if len(seen.records) != 1:
        return None
    (stored,) = seen.records
    if is_pinned or is_still_there(*stored.record.hook, {seen.program.id}) is False:
        return stored
    return None


def _held_by(
    program_id: int,
    interface: Interface,
    pinned: PinnedLink | None,
    stored: StoredRecord | None,
    around: _Surroundings,
) -> tuple[Via | None, int | None, str | None]:
    """Return what holds a program, the link's id, and a note where that cannot be told."""
    if pinned is not None:
        return Via.LINK, pinned.link_id, None
    links, links_note = around.links
    if links is None:
        return None, None, links_note
    fitting = links.get((interface.index, program_id), [])
    if stored is not None and stored.record.via is Via.NETLINK:
        return Via.NETLINK, None, None
    if len(fitting) == 1:
        return Via.LINK, fitting[0], None
    if fitting:
        names = ", ".join(str(number) for number in sorted(fitting))
        note = f"links {names} fit, and the kernel does not tell which is this interface's"
        return None, None, note
    if stored is not None or links_note is not None:
        return None, None, links_note or "its link is being made, or has just gone"
    return Via.NETLINK, None, None


def _holders(link_id: int) -> tuple[Holder, ...]:
    from xdpkit.syscalls.proc import holders_of_link

    return holders_of_link(link_id)


def _folders(pins: Pins) -> tuple[Sequence[HookFolder], str | None]:
    """Return the pins of all hooks, and a note if they are not known."""
    try:
        folder = pins.open_folder("look at the pins")
        if folder is None:
            return (), None
        with folder:
            return pins.folders(), None
    except (MissingPrivilege, RequirementUnmet, KernelRefused) as error:
        return (), error.cause


def _links() -> tuple[dict[tuple[int, int], list[int]] | None, str | None]:
    """Return the ids of all XDP links by (ifindex, program id), or None and why not.

    An index counts in a namespace that the kernel does not name here: there can be several.
    """
    try:
        found, unopened = list_links()
        for _ in range(_LOOKS):
            if not unopened:
                return found, None
            # One that has gone holds nothing; one that is half made is still there another time.
            before = unopened
            found, unopened = list_links()
            unopened &= before
    except (MissingPrivilege, KernelRefused) as error:
        return None, f"links cannot be looked up: {error.cause}"
    return found, "a link is being made at this moment" if unopened else None


def list_links() -> tuple[dict[tuple[int, int], list[int]], set[int]]:
    """Return the ids of all XDP links by (ifindex, program id), and of those that cannot be opened.

    The index of a link that holds its program nowhere any more is 0.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    found: dict[tuple[int, int], list[int]] = {}
    unopened = set()
    for link_id in bpf.ids(ObjectKind.LINK):
        descriptor = bpf.fd_by_id(ObjectKind.LINK, link_id)
        if descriptor is None:
            unopened.add(link_id)
            continue
        info = attr.XdpLinkInfo()
        with descriptor:
            bpf.get_info(descriptor.fileno(), info)
        if info.type == LinkType.XDP:
            found.setdefault((info.ifindex, info.prog_id), []).append(link_id)
    return found, unopened


@dataclass(frozen=True, slots=True)
class _Seen:
    """What can be seen of a program by its id."""

    program: ProgramSummary
    records: tuple[StoredRecord, ...] = ()
    dispatcher: Dispatcher | None = None
    root: Root | None = None
    note: str | None = None


def _see(program_id: int, interface: Interface) -> _Seen:
    """Look at a program, as far as the kernel lets this process; else say why not."""
    try:
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, program_id)
        if descriptor is None:
            return _Seen(ProgramSummary(program_id), note="the program has gone meanwhile")
        with descriptor:
            return _look(program_id, descriptor.fileno(), interface)
    except (MissingPrivilege, KernelRefused) as error:
        note = f"names, maps and records of programs cannot be looked up: {error.cause}"
        return _Seen(ProgramSummary(program_id), note=note)


def _look(program_id: int, descriptor: int, interface: Interface) -> _Seen:
    info, map_ids = bpf.prog_info(descriptor)
    maps = [_map_summary(map_id) for map_id in sorted(map_ids)]
    name = info.name.decode("ascii", "backslashreplace")
    found: tuple[StoredRecord, ...] = ()
    dispatcher = note = None
    root = roots.find(program_id, name, {used.id: used.name for used in maps})
    if any(found.name.startswith(OWN_MAPS) for found in maps):
        from xdpkit.hook import records

        # The others of its maps have been opened once already.
        found = records.find_in(used.id for used in maps if used.name == records.RECORD_MAP)
    elif name == _LIBXDP_DISPATCHER:
        from xdpkit.hook.dispatcher import dispatcher_of

        dispatcher = dispatcher_of(descriptor, interface.index)
        note = dispatcher.note if dispatcher is not None else None
    program = ProgramSummary(
        id=program_id,
        name=name,
        tag=bytes(info.tag).hex(),
        type=_KNOWN_TYPES.get(info.type, int(info.type)),
        jited=info.jited_prog_len > 0,
        loaded_at=_wall_clock(info.load_time),
        maps=tuple(found for found in maps if not found.name.startswith(OWN_MAPS)),
    )
    return _Seen(program, found, dispatcher, root, note)


def _map_summary(map_id: int) -> MapSummary:
    descriptor = bpf.fd_by_id(ObjectKind.MAP, map_id)
    if descriptor is None:
        return MapSummary(map_id, "")
    with descriptor:
        return MapSummary(map_id, _name_of_map(descriptor.fileno()))


def _name_of_map(descriptor: int) -> str:
    name: bytes = bpf.map_info(descriptor).name
    return name.decode("ascii", "backslashreplace")


def _wall_clock(since_boot: int) -> datetime:
    """Return the time of something that happened so many nanoseconds after the boot."""
    age = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - since_boot) / 1e9
    return datetime.fromtimestamp(round(time.time() - age), UTC)
