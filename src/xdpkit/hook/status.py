# SPDX-License-Identifier: Apache-2.0
"""Look at the hooks: what is on them, whoever put it there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet, XdpkitError
from xdpkit.hook.mode import Mode
from xdpkit.hook.pins import DEFAULT_ROOT, PinnedLink, Pins
from xdpkit.hook.state import (
    AttachedProgram,
    HookStatus,
    MapSummary,
    Owner,
    ProgramSummary,
    Via,
)
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import LinkType, ProgType

# The name of the program in which libxdp (xdp-tools) joins several.
_LIBXDP_DISPATCHER = "xdp_dispatcher"


def status(
    *, netns: str | None = None, iface: str | int | None = None, pin_root: str = DEFAULT_ROOT
) -> tuple[HookStatus, ...]:
    """Return the interfaces that have a program, or the one asked for with or without.

    Needs no privilege to tell which interfaces have programs, and their ids. For the rest it takes
    CAP_SYS_ADMIN (looking up an object by its id); without it the fields are None and ``note``
    says so.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    if iface is not None:
        interfaces: Iterable[Interface] = (resolve(iface, netns=netns),)
    else:
        interfaces = [found for found in list_all(netns=netns) if found.xdp]
    return examine(interfaces, Pins(pin_root))


def examine(interfaces: Iterable[Interface], pins: Pins) -> tuple[HookStatus, ...]:
    """Return what is on these interfaces' hooks. Changes nothing and takes no lock."""
    interfaces = tuple(interfaces)
    if not any(interface.xdp for interface in interfaces):
        return tuple(HookStatus(interface, ()) for interface in interfaces)
    links, links_note = _links()
    results = []
    for interface in interfaces:
        pinned, pins_note = _pinned(interface, pins)
        results.append(
            HookStatus(
                interface,
                tuple(
                    _attached(mode, program_id, interface, pinned, links, (links_note, pins_note))
                    for mode, program_id in programs_of(interface)
                ),
            )
        )
    return tuple(results)


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
    mode: Mode,
    program_id: int,
    interface: Interface,
    pinned: PinnedLink | None,
    links: Mapping[tuple[int, int], int] | None,
    notes: tuple[str | None, ...],
) -> AttachedProgram:
    program, program_note = _summary(program_id)
    via: Via | None = None
    ours = pinned is not None and pinned.program_id == program_id
    link_id = pinned.link_id if pinned is not None and ours else None
    if link_id is None and links is not None:
        link_id = links.get((interface.index, program_id))
        via = Via.NETLINK
    if link_id is not None:
        via = Via.LINK
    owner = Owner.UNKNOWN
    if ours:
        owner = Owner.XDPKIT
    elif program.name == _LIBXDP_DISPATCHER:
        owner = Owner.LIBXDP
    reasons = dict.fromkeys(note for note in (program_note, *notes) if note)
    return AttachedProgram(
        mode=mode,
        program=program,
        via=via,
        link_id=link_id,
        owner=owner,
        pinned=pinned.path if pinned is not None and ours else None,
        note="; ".join(reasons) or None,
    )


def _pinned(interface: Interface, pins: Pins) -> tuple[PinnedLink | None, str | None]:
    """Return the link that is pinned for a hook and holds it, and a note if that is unknown."""
    try:
        folder = pins.open_folder("look at the pins")
        if folder is None:
            return None, None
        with folder:
            opened = pins.open(interface)
    except (MissingPrivilege, RequirementUnmet, KernelRefused) as error:
        return None, error.cause
    if opened is None:
        return None, None
    descriptor, pinned = opened
    descriptor.close()
    return (pinned if pinned.holds(interface) else None), None


def _links() -> tuple[dict[tuple[int, int], int] | None, str | None]:
    """Return the ids of all XDP links by (ifindex, program id), or None and why not.

    An index counts in a namespace that the kernel does not name here: two interfaces with the same
    index and the same program, each in a namespace of its own, are told apart by pins only.
    """
    found = {}
    try:
        for link_id in bpf.ids(ObjectKind.LINK):
            descriptor = bpf.fd_by_id(ObjectKind.LINK, link_id)
            if descriptor is None:
                continue
            info = attr.XdpLinkInfo()
            with descriptor:
                bpf.get_info(descriptor.fileno(), info)
            if info.type == LinkType.XDP:
                found[info.ifindex, info.prog_id] = link_id
    except (MissingPrivilege, KernelRefused) as error:
        return None, _short(error)
    return found, None


def _summary(program_id: int) -> tuple[ProgramSummary, str | None]:
    """Describe a program, as far as the kernel lets this process look; else say why not."""
    try:
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, program_id)
        if descriptor is None:
            return ProgramSummary(program_id), "the program has gone meanwhile"
        with descriptor:
            info, map_ids = bpf.prog_info(descriptor.fileno())
        maps = tuple(_map_summary(map_id) for map_id in sorted(map_ids))
    except (MissingPrivilege, KernelRefused) as error:
        return ProgramSummary(program_id), _short(error)
    known = {member.value: member for member in ProgType}
    return ProgramSummary(
        id=program_id,
        name=info.name.decode("ascii", "backslashreplace"),
        tag=bytes(info.tag).hex(),
        type=known.get(info.type, int(info.type)),
        jited=info.jited_prog_len > 0,
        loaded_at=_wall_clock(info.load_time),
        maps=maps,
    ), None


def _map_summary(map_id: int) -> MapSummary:
    descriptor = bpf.fd_by_id(ObjectKind.MAP, map_id)
    if descriptor is None:
        return MapSummary(map_id, "")
    with descriptor:
        info = bpf.map_info(descriptor.fileno())
    return MapSummary(map_id, info.name.decode("ascii", "backslashreplace"))


def _wall_clock(since_boot: int) -> datetime:
    """Return the time of something that happened so many nanoseconds after the boot."""
    age = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - since_boot) / 1e9
    return datetime.fromtimestamp(round(time.time() - age), UTC)


def _short(error: XdpkitError) -> str:
    return f"{error.what}: {error.cause}"
