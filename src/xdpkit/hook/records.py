# SPDX-License-Identifier: Apache-2.0
"""Where records are kept: in maps that are bound to the program.

From an interface the kernel leads to the program's id, and from the program to the maps that it
uses. ``BPF_PROG_BIND_MAP`` puts two more among them, which live and die with the program, and leave
its instructions and its tag alone:

``xdpkit_record``
    An array with two slots. An edit goes into the slot that does not count, with a generation one
    higher; what counts is the slot with a right checksum and the highest generation. So a write
    that was interrupted, or torn between two writers, leaves the record as it was. A word that says
    which slot counts would be one more write, in between which a crash finds both slots written and
    the choice open; and it has no checksum of its own.
``xdpkit_image``
    What it takes to load the program again (:class:`xdpkit.kernel.image.Image`), in one frozen
    array; values of at most 256 KiB, since the kernel wants memory in one piece to hand them out.
    Programs that were loaded with it into its program arrays have theirs, too, and no record.

A map cannot be unbound. A record that outgrows its slot gets a new, larger map, and the old one is
emptied; an empty one is used again. Anybody may give a map such a name: what is not as it should be
in it is passed over.

Changes are made under the caller's lock (:meth:`xdpkit.hook.pins.Pins.locked`).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpkit.errors import (
    HookBusy,
    KernelRefused,
    MissingPrivilege,
    ObjectFormatError,
    RequirementUnmet,
)
from xdpkit.hook.record import Record, StoredRecord
from xdpkit.hook.wire import RECORD_MAGIC, decode, encode, generation_of
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi import sized
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.kernel import Program
    from xdpkit.kernel.image import Image
    from xdpkit.uapi.attr import MapInfo

RECORD_MAP = "xdpkit_record"
IMAGE_MAP = "xdpkit_image"

_INDEX = struct.Struct("=I")
_SLOTS = 2
# Slots have room for an edit that makes the record a little longer.
_SLOT_UNIT = 256
_SLACK = 256
# Older kernels copy values through memory in one piece (KMALLOC_MAX_SIZE).
_MAX_SLOT = 4 << 20
_IMAGE_CHUNK = 256 << 10
# Two edits during one look tear both slots; they cannot do so for ever.
_READS = 3


def write(program: Program, record: Record, like: StoredRecord | None = None) -> str | None:
    """Write down a program's attachment: a new record, or the next edit of the hook's own.

    With the first one goes the program's image, if this process loaded the program, and those of
    the programs that were loaded into its program arrays.

    Args:
        program: the program. record: what to write down.
        like: the record of the program that this one is a copy of: documents that did not change
            stay as they were written.

    Returns None, or a note that there is no record: on a kernel that binds no maps (before Linux
    5.10), and without CAP_SYS_ADMIN if the program has bound maps already.

    Raises:
        UsageError: something in the record cannot be written down.
        RequirementUnmet: a later version wrote the record that is there.
        HookBusy: somebody else is writing it at this moment.
        KernelRefused: the kernel refused.
    """
    try:
        _write(program, record, like)
    except MissingPrivilege as error:
        return (
            f"no record of {program.name} is kept, since the maps that are bound to it cannot be"
            f" looked up: {error.cause}"
        )
    except KernelRefused:
        from xdpkit.probes import is_absent

        # Linux 5.10, "bpf: Add BPF_PROG_BIND_MAP syscall".
        if not is_absent("prog-bind-map"):
            raise
        return (
            f"no record of {program.name} is kept: this kernel binds no maps to programs"
            " (Linux 5.10)"
        )
    return None


def find(program_fd: int, *, netns_cookie: int, ifindex: int) -> StoredRecord | None:
    """Return the record of a program's attachment to an interface; None if there is none.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    return _newest(_kept(_map_ids(program_fd))).get((netns_cookie, ifindex))


def find_all(program_fd: int) -> tuple[StoredRecord, ...]:
    """Return the records of all attachments of a program.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    return find_in(_map_ids(program_fd))


def find_in(map_ids: Iterable[int]) -> tuple[StoredRecord, ...]:
    """Return the records of all attachments of a program that has these maps.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    return tuple(_newest(_kept(map_ids)).values())


def edit(program_fd: int, stored: StoredRecord, record: Record) -> None:
    """Change a record that was found.

    Raises:
        RequirementUnmet: a later version wrote it, with what this one does not know.
        HookBusy: it has been changed since it was found.
        UsageError: something in the new one cannot be written down.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
        KernelRefused: the kernel refused.
    """
    what = f"change the record of {stored.record.program} on {stored.record.interface}"
    if stored.unknown:
        version = stored.record.origin.xdpkit
        raise RequirementUnmet(
            what,
            cause=f"xdpkit {version} wrote it, with what this version does not know",
            remedy=f"use xdpkit {version}",
        )
    data = encode(record, stored.generation + 1, stored)
    with _reopened(stored, what) as fd:
        size = int(bpf.map_info(fd.fileno()).value_size)
        if len(data) <= size:
            _put(fd, 1 - stored.slot, data, size)
            return
    _store(program_fd, data, _kept(_map_ids(program_fd)))
    clear(stored)


def clear(stored: StoredRecord) -> None:
    """Remove a record that was found: the attachment that it is about has ended.

    Raises:
        HookBusy: it has been changed since it was found.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
        KernelRefused: the kernel refused.
    """
    what = f"remove the record of {stored.record.program} on {stored.record.interface}"
    with _reopened(stored, what) as fd:
        size = int(bpf.map_info(fd.fileno()).value_size)
        # The one that counts goes last: what was before must not come back.
        for slot in (1 - stored.slot, stored.slot):
            _put(fd, slot, b"", size)


def clear_for(program_fd: int, *, netns_cookie: int, ifindex: int) -> None:
    """Remove the record of an attachment that has ended, if it can be looked at.

    A program can live on, on other hooks or in a process. What is left of its record would count
    again if somebody put it on this hook.
    """
    with contextlib.suppress(MissingPrivilege, KernelRefused, HookBusy):
        stored = find(program_fd, netns_cookie=netns_cookie, ifindex=ifindex)
        if stored is not None:
            clear(stored)


def image_of(program_fd: int) -> Image | None:
    """Return what it takes to load a program again, None where xdpkit did not keep it.

    Raises:
        RequirementUnmet: a later version wrote it, with what this one does not know.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    return _image_in(_map_ids(program_fd))


def share_image(copy: Program, original: int) -> None:
    """Bind what a program is loaded from to a copy of it, too; by it they are seen to be the same.

    Args:
        copy: the copy. original: the program's descriptor.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
        KernelRefused: the kernel refused.
    """
    for _, fd, _ in _named(_map_ids(original), IMAGE_MAP):
        bpf.prog_bind_map(copy.fileno(), fd.fileno())


def keep_image(program: Program) -> None:
    """Bind to a program what it is loaded from, if this process loaded it.

    Raises:
        UsageError: one of its maps was closed.
        MissingPrivilege: it takes CAP_SYS_ADMIN if it has bound maps already.
        KernelRefused: the kernel refused.
    """
    _keep_image(program, _others(program))


def image_maps(map_ids: Iterable[int]) -> frozenset[int]:
    """Return which of a program's maps hold what it is loaded from.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    return frozenset(map_id for map_id, _, _ in _named(map_ids, IMAGE_MAP))


def _write(program: Program, record: Record, like: StoredRecord | None) -> None:
    number = program.fileno()
    for leaf in program.leaves:
        keep_image(leaf)
    others = _others(program)
    _keep_image(program, others)
    kept = list(_kept(others))
    stored = _newest(kept).get(record.hook)
    if stored is not None:
        edit(number, stored, record)
    else:
        _store(number, encode(record, 1, like), kept)


def _others(program: Program) -> list[int]:
    """Return the maps that are bound to a program.

    One just loaded has its own maps only, and to look for others takes more privilege.
    """
    own = {found.id for found in program.maps.values()}
    return [map_id for map_id in _map_ids(program.fileno()) if map_id not in own]


def _keep_image(program: Program, others: Iterable[int]) -> None:
    if program.image is not None and _image_in(others) is None:
        _bind_image(program.fileno(), program.image)


# Reading


def opened(map_ids: Iterable[int]) -> Iterator[tuple[int, Fd, MapInfo]]:
    """Yield maps by their ids, those that have gone left out; each is open until the next.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    for map_id in map_ids:
        fd = bpf.fd_by_id(ObjectKind.MAP, map_id)
        if fd is not None:
            with fd:
                yield map_id, fd, bpf.map_info(fd.fileno())


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record map: its id, the size of its slots, and what is in it.

    With neither a record nor emptiness, what is in it is not for us.
    """

    map_id: int
    size: int
    stored: StoredRecord | None
    is_empty: bool


def _map_ids(program_fd: int) -> tuple[int, ...]:
    return bpf.prog_info(program_fd)[1]


def _named(map_ids: Iterable[int], name: str) -> Iterator[tuple[int, Fd, MapInfo]]:
    """Yield the arrays of a name; each is open until the next is asked for."""
    for map_id, fd, info in opened(map_ids):
        if info.name == name.encode() and info.type == MapType.ARRAY:
            yield map_id, fd, info


def _kept(map_ids: Iterable[int]) -> Iterator[_Kept]:
    for map_id, fd, info in _named(map_ids, RECORD_MAP):
        if info.max_entries == _SLOTS and info.value_size <= _MAX_SLOT:
            stored, is_empty = _read(fd, map_id, info.value_size)
            yield _Kept(map_id, info.value_size, stored, is_empty)


def _newest(kept: Iterable[_Kept]) -> dict[tuple[int, int], StoredRecord]:
    """Return the records by hook, of several of one hook the newest."""
    newest: dict[tuple[int, int], StoredRecord] = {}
    for each in kept:
        if each.stored is None:
            continue
        hook = each.stored.record.hook
        if hook not in newest or newest[hook].generation < each.stored.generation:
            newest[hook] = each.stored
    return newest


def _read(fd: Fd, map_id: int, size: int) -> tuple[StoredRecord | None, bool]:
    """Return the record in a map, and whether there is certainly none."""
    slots: list[bytes] = []
    for _ in range(_READS):
        slots = [_get(fd, slot, size) for slot in range(_SLOTS)]
        generations = [generation_of(data) for data in slots]
        newest = max(generations, key=lambda generation: generation or 0)
        if newest is not None:
            slot = generations.index(newest)
            try:
                return replace(decode(slots[slot]), map_id=map_id, slot=slot), False
            except ObjectFormatError:
                return None, False
        if all(sized.used_by(data, RECORD_MAGIC) is None for data in slots):
            break
    return None, not any(map(any, slots))


def _reopened(stored: StoredRecord, what: str) -> Fd:
    """Open the map of a record that was found, if the record is still the one in it."""
    fd = bpf.fd_by_id(ObjectKind.MAP, stored.map_id)
    now = None
    if fd is not None:
        try:
            now, _ = _read(fd, stored.map_id, bpf.map_info(fd.fileno()).value_size)
        finally:
            if now is None or now.generation != stored.generation:
                fd.close()
    if fd is None or fd.closed:
        raise HookBusy(what, cause="another process changed it meanwhile", remedy="try it again")
    return fd


def _image_in(map_ids: Iterable[int]) -> Image | None:
    from xdpkit.kernel.image import IMAGE_MAGIC, Image

    for _, fd, info in _named(map_ids, IMAGE_MAP):
        if info.value_size > _IMAGE_CHUNK:
            continue
        data = _get(fd, 0, info.value_size)
        used = sized.used_by(data, IMAGE_MAGIC) or 0
        chunks = -(-used // info.value_size)
        if not 0 < chunks <= info.max_entries:
            continue
        data += b"".join(_get(fd, at, info.value_size) for at in range(1, chunks))
        try:
            return Image.decode(data)
        except ObjectFormatError:
            continue
    return None


# Writing


def _store(program_fd: int, data: bytes, kept: Iterable[_Kept]) -> None:
    """Write a record into an empty map that is bound already, or bind one for it."""
    for each in kept:
        if each.is_empty and len(data) <= each.size:
            fd = bpf.fd_by_id(ObjectKind.MAP, each.map_id)
            if fd is not None:
                with fd:
                    _put(fd, 0, data, each.size)
                return
    size = -(-(len(data) + _SLACK) // _SLOT_UNIT) * _SLOT_UNIT
    with _array(RECORD_MAP, size, _SLOTS) as fd:
        _put(fd, 0, data, size)
        bpf.prog_bind_map(program_fd, fd.fileno())


def _bind_image(program_fd: int, image: Image) -> None:
    data = image.encode()
    size = min(len(data), _IMAGE_CHUNK)
    with _array(IMAGE_MAP, size, -(-len(data) // size)) as fd:
        for slot, start in enumerate(range(0, len(data), size)):
            _put(fd, slot, data[start : start + size], size)
        bpf.map_freeze(fd.fileno())
        bpf.prog_bind_map(program_fd, fd.fileno())


def _array(name: str, value_size: int, max_entries: int) -> Fd:
    new = NewMap(
        type=MapType.ARRAY,
        key_size=_INDEX.size,
        value_size=value_size,
        max_entries=max_entries,
        name=name,
    )
    return bpf.map_create(new, what=f"create map {name}")


def _get(fd: Fd, slot: int, size: int) -> bytes:
    return bpf.map_lookup(fd.fileno(), _INDEX.pack(slot), size) or b""


def _put(fd: Fd, slot: int, data: bytes, size: int) -> None:
    bpf.map_update(fd.fileno(), _INDEX.pack(slot), data.ljust(size, b"\0"))
