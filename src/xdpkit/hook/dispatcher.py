# SPDX-License-Identifier: Apache-2.0
"""libxdp's dispatcher: the program by which libxdp and xdp-loader join several on one hook.

It is an XDP program named ``xdp_dispatcher`` that calls up to ten functions, ``prog0`` to
``prog9``, one after the other, for as long as each returns an action that its settings chain on. A
component is a program that replaces such a function (freplace). The settings are constants of the
dispatcher; the components are pinned at
``<bpffs>/xdp/dispatch-<ifindex>-<dispatcher's id>/prog<N>-prog``. Every change makes a new
dispatcher with a folder of its own.

The protocol is in lib/libxdp/protocol.org of xdp-tools, the layouts of the settings are in its
headers/xdp/prog_dispatcher.h and lib/libxdp/libxdp.c:

- version 1 (before xdp-tools 1.3) has no mark in the settings. That they are a dispatcher's is
  told, as libxdp does, by the variable ``dispatcher_version`` in the program's types;
- version 2 (1.3) begins with the magic number and the version, and knows of frags;
- version 3 (1.6) ends with whether it is bound to a device;
- a later one is recognised by the magic number. Its components are shown, its settings are not.

A program that has the name and not the settings is no dispatcher. Nothing here is trusted: whoever
may load programs can load one that looks like a dispatcher and says anything.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from xdpkit.errors import KernelRefused, MissingPrivilege, ObjectFormatError, XdpkitError
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import LinkType, MapFlags, MapType, XdpAction

XDP_DISPATCHER_MAGIC = 236
MAX_DISPATCHER_ACTIONS = 10

_NAME = "xdp_dispatcher"
_FUNCTION = re.compile(r"prog(\d)")
_PIN = re.compile(r"prog(\d{1,2})-prog")

# struct xdp_dispatcher_config. Before the arrays, chain_call_actions and run_prios first.
_MARK = struct.Struct("=BB")  # magic, dispatcher_version
_HEAD_V1 = struct.Struct("=B3x")  # num_progs_enabled
_HEAD_V2 = struct.Struct("=4B")  # magic, dispatcher_version, num_progs_enabled, is_xdp_frags
_ARRAY = struct.Struct(f"={MAX_DISPATCHER_ACTIONS}I")
_SIZES = {1: 84, 2: 124, 3: 128}

# What a stub returns that nothing replaces; always chained on, and no action.
_XDP_DISPATCHER_RETVAL = 31

_INDEX = struct.Struct("=I")
# More than any settings have.
_TOO_LARGE = 4096


@dataclass(frozen=True, slots=True)
class Component:
    """A program that a dispatcher calls. What is None or empty could not be found out.

    Attributes:
        id: unique until reboot.
        name: as the kernel has it, 15 characters.
        tag: hash of the instructions, in hexadecimal.
        priority: lower runs first.
        chain_call: the actions after which the next component runs: "pass". What has a bit
            without being an action is a number.
        pinned: where libxdp pinned it.
    """

    id: int | None = None
    name: str | None = None
    tag: str | None = None
    priority: int | None = None
    chain_call: tuple[str, ...] = ()
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """libxdp's dispatcher, and what it calls.

    Attributes:
        version: of the protocol; None where the settings may not be read: then only the name
            speaks for a dispatcher.
        frags: whether it takes packets of several pages; None where that is not known.
        programs: in the order in which they run.
        note: what could not be found out, and why; None when nothing is missing.
    """

    version: int | None
    frags: bool | None
    programs: tuple[Component, ...]
    note: str | None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return asdict(self) | {
            "programs": [
                asdict(program) | {"chain_call": list(program.chain_call)}
                for program in self.programs
            ]
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """What a dispatcher's settings say about one of its components."""

    priority: int
    chain_call: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A dispatcher's settings.

    Attributes:
        version: of the protocol; None if nothing is known of them.
        frags: whether it takes packets of several pages; None in version 1 and in unknown ones.
        claimed: how many components it says that it has; None in unknown versions.
        slots: one for each component, at most ten; None in unknown versions.
    """

    version: int | None
    frags: bool | None = None
    claimed: int | None = None
    slots: tuple[Slot, ...] | None = None


def decode_config(data: bytes, *, declared_version: int | None = None) -> Config | None:
    """Read ``struct xdp_dispatcher_config``; None for what is none.

    Args:
        data: the dispatcher's read-only data, in this machine's byte order.
        declared_version: the version that the program's types declare. Only version 1, which has
            no magic number, is told by it.
    """
    if len(data) < _MARK.size:
        return None
    magic, version = _MARK.unpack_from(data)
    if magic != XDP_DISPATCHER_MAGIC:
        version = declared_version if declared_version == 1 else 0
    elif version == 1:
        return None
    if not version or len(data) < _SIZES.get(version, 0):
        return None
    if version not in _SIZES:
        return Config(version)
    frags: bool | None = None
    if version == 1:
        head = _HEAD_V1
        (claimed,) = head.unpack_from(data)
    else:
        head = _HEAD_V2
        claimed, frags = head.unpack_from(data)[2], bool(head.unpack_from(data)[3])
    actions = _ARRAY.unpack_from(data, head.size)
    priorities = _ARRAY.unpack_from(data, head.size + _ARRAY.size)
    slots = tuple(
        Slot(priority, _action_names(mask))
        for priority, mask in zip(priorities, actions, strict=True)
    )
    return Config(version, frags, claimed, slots[:claimed])


def _action_names(mask: int) -> tuple[str, ...]:
    names = {action.value: action.name.lower() for action in XdpAction}
    return tuple(
        names.get(bit, str(bit)) for bit in range(_XDP_DISPATCHER_RETVAL) if mask >> bit & 1
    )


def dispatcher_of(
    program_fd: int, ifindex: int, *, bpffs: str = "/sys/fs/bpf"
) -> Dispatcher | None:
    """Return what a dispatcher is and calls; None for a program that is no dispatcher.

    It takes CAP_SYS_ADMIN to read the settings, and root to see the pins; without them it says
    what it can, and ``note`` says the rest.

    Args:
        program_fd: the program on the hook.
        ifindex: the hook's interface.
        bpffs: the mount in which libxdp keeps its folder ``xdp``.

    Raises:
        KernelRefused: the descriptor is not a program's.
    """
    info, map_ids = bpf.prog_info(program_fd)
    if _text(info.name) != _NAME:
        return None
    notes: list[str] = []
    try:
        config = _read_config(info.btf_id, map_ids)
    except (MissingPrivilege, KernelRefused) as error:
        notes.append(_short(error))
        config = Config(version=None)
    if config is None:
        return None
    slots = config.slots
    numbers = None if slots is None else range(len(slots))
    if slots is not None and config.claimed != len(slots):
        notes.append(f"it says {config.claimed} programs, where {len(slots)} is the most")
    found = _by_pins(f"{bpffs.rstrip('/')}/xdp", f"dispatch-{ifindex}-{info.id}", numbers, notes)
    if numbers is None or len(found) < len(numbers):
        found = _by_links(info.id, info.btf_id, notes) | found
    if slots is None:
        programs = [found[number] for number in sorted(found)]
    else:
        programs = [
            replace(
                found.get(number, Component()), priority=slot.priority, chain_call=slot.chain_call
            )
            for number, slot in enumerate(slots)
        ]
    note = "; ".join(dict.fromkeys(notes)) or None
    return Dispatcher(config.version, config.frags, tuple(programs), note)


# The settings


def _read_config(btf_id: int, map_ids: Iterable[int]) -> Config | None:
    """Return the settings from the first of a program's maps that has any."""
    for map_id in map_ids:
        data = _read_only_data(map_id)
        if data is None:
            continue
        config = decode_config(data)
        if config is None and len(data) >= _SIZES[1]:
            config = decode_config(data, declared_version=_declared_version(btf_id))
        if config is not None:
            return config
    return None


def _read_only_data(map_id: int) -> bytes | None:
    """Return what a map holds if a compiler's section of constants became it."""
    descriptor = bpf.fd_by_id(ObjectKind.MAP, map_id)
    if descriptor is None:
        return None
    with descriptor:
        info = bpf.map_info(descriptor.fileno())
        shape = (info.type, info.key_size, info.max_entries)
        if shape != (MapType.ARRAY, _INDEX.size, 1) or info.value_size > _TOO_LARGE:
            return None
        # What a program can change itself are no settings.
        if not info.map_flags & MapFlags.RDONLY_PROG:
            return None
        try:
            return bpf.map_lookup(descriptor.fileno(), _INDEX.pack(0), info.value_size)
        except KernelRefused:
            # Its maker did not want it to be read; libxdp does.
            return None


def _declared_version(btf_id: int) -> int | None:
    """Return ``dispatcher_version`` in the program's types: a pointer to an array of that size."""
    # Only the oldest dispatchers need it, and reading types takes many modules.
    from xdpkit.btf.types import Array, Ptr, Var
    from xdpkit.kernel.btf import by_id

    types = by_id(btf_id) if btf_id else None
    if types is None:
        return None
    try:
        for variable in map(types.__getitem__, types.find("dispatcher_version", Var.kind)):
            pointer = types[variable.type_id] if isinstance(variable, Var) else None
            array = types[pointer.type_id] if isinstance(pointer, Ptr) else None
            return array.count if isinstance(array, Array) else None
    except ObjectFormatError:
        # Types that only a newer kernel knows did not come with the oldest dispatcher.
        return None
    return None


# The components


def _by_pins(
    home: str, name: str, numbers: Iterable[int] | None, notes: list[str]
) -> dict[int, Component]:
    """Return the pinned components by number: those numbers, or all that there are."""
    from xdpkit.kernel.pins import open_pin

    folder = f"{home}/{name}"
    problem = _distrust(home, folder)
    if problem is not None:
        notes.append(problem)
        return {}
    found = {}
    for number in _pinned_numbers(folder) if numbers is None else numbers:
        path = f"{folder}/prog{number}-prog"
        try:
            with open_pin(path, ObjectKind.PROGRAM) as descriptor:
                found[number] = _describe(descriptor.fileno(), pinned=path)
        except XdpkitError as error:
            notes.append(_short(error))
    return found


def _distrust(home: str, folder: str) -> str | None:
    """Return why the pins are not to be had, None if they are."""
    try:
        owner = os.stat(home).st_uid if is_bpffs(folder) else None
    except OSError:
        owner = None
    if owner is None:
        return f"the pins of its programs are not to be seen: {folder}"
    # Everybody may make folders in a bpffs, unless it was mounted otherwise.
    if owner not in (0, os.geteuid()):
        return f"the pins in {home} say nothing: user {owner} owns it"
    return None


def _pinned_numbers(folder: str) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(int(match[1]) for match in map(_PIN.fullmatch, names) if match)


def _by_links(program_id: int, btf_id: int, notes: list[str]) -> dict[int, Component]:
    """Return the components by number, found by the links that attach them to a dispatcher."""
    from xdpkit.kernel.btf import by_id

    found: dict[int, Component] = {}
    try:
        attached = list(_attached_to(program_id))
        types = by_id(btf_id) if attached else None
        if types is None:
            return found
        for function_id, component_id in attached:
            number = _number_of(types.name(function_id))
            descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, component_id)
            if descriptor is None:
                continue
            with descriptor:
                if number is not None:
                    found[number] = _describe(descriptor.fileno())
    except (MissingPrivilege, KernelRefused, ObjectFormatError) as error:
        notes.append(_short(error))
    return found


def _attached_to(program_id: int) -> Iterator[tuple[int, int]]:
    """Yield function and program of each link that replaces a function of a program.

    Before Linux 5.13 ("bpf: Return target info when a tracing bpf_link is queried") links do not
    say what they are attached to.
    """
    for link_id in bpf.ids(ObjectKind.LINK):
        descriptor = bpf.fd_by_id(ObjectKind.LINK, link_id)
        if descriptor is None:
            continue
        info = attr.TracingLinkInfo()
        with descriptor:
            bpf.get_info(descriptor.fileno(), info)
        if info.type == LinkType.TRACING and info.target_obj_id == program_id:
            yield info.target_btf_id, info.prog_id


def _number_of(function: str) -> int | None:
    """Return which component replaces a function of a dispatcher, None for another function."""
    # A single component replaces the dispatcher as a whole.
    if function == _NAME:
        return 0
    match = _FUNCTION.fullmatch(function)
    return int(match[1]) if match else None


def _describe(program_fd: int, *, pinned: str | None = None) -> Component:
    info, _ = bpf.prog_info(program_fd)
    return Component(info.id, _text(info.name), bytes(info.tag).hex(), pinned=pinned)


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")


def _short(error: XdpkitError) -> str:
    return f"{error.what}: {error.cause}"
