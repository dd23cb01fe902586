# SPDX-License-Identifier: Apache-2.0
"""The record of a port table: a frozen map, pinned, and replaced as a whole.

A table is written into an array that nobody else has, which is frozen, pinned beside the record,
and renamed to be the record (``rename(2)`` on a bpffs is atomic). So a reader, who takes no lock,
finds the table as it was or as it is, and a writer that is killed leaves no more than a pin that
has not got its name. The two slots of a hook's record (:mod:`xdpkit.hook.records`) are not needed
here: what is bound to a program cannot be replaced, but a pin can.

The array's values are 32 KiB at most, since older kernels want memory in one piece to hand one out
(map_lookup_elem() in kernel/bpf/syscall.c).
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from dataclasses import dataclass, field

from xdpkit.errors import KernelRefused, ObjectFormatError
from xdpkit.kernel.folder import explained, unlink
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.syscalls.fd import Fd, HasFileno
from xdpkit.tables.model import Table
from xdpkit.tables.wire import TABLE_MAGIC, decode
from xdpkit.uapi import sized
from xdpkit.uapi.bpf import MapType

RECORD = "record"
"""The name of the pin."""

FRESH = "new-"
"""How the names of pins begin that are to be renamed."""

_MAP = "xdpkit_table"
_CHUNK = 32 << 10
_INDEX = struct.Struct("=I")
_KIND = "port table"


def is_there(folder: str) -> bool:
    """Whether something is pinned as the record of a table's folder."""
    return os.path.lexists(f"{folder}/{RECORD}")


def read(folder: str, what: str) -> Table | None:
    """Return the table of a folder; None where no record is pinned.

    The same record is the same value each time.

    Raises:
        ObjectFormatError: what is pinned there is none, or it is damaged.
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    path = f"{folder}/{RECORD}"
    try:
        pinned = bpf.obj_get(path, what=what)
    except KernelRefused as error:
        # What lies there and is no BPF object: a folder (which the kernel says with EACCES), or
        # anything on another file system.
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise
        raise ObjectFormatError("it is no BPF object", file=path) from None
    if pinned is None:
        return None
    with pinned:
        if bpf.kind_of(pinned.fileno()) is not ObjectKind.MAP:
            raise ObjectFormatError("it is no map", file=path)
        info = bpf.map_info(pinned.fileno())
        if info.type != MapType.ARRAY or not 0 < info.value_size <= _CHUNK:
            raise ObjectFormatError("it is another map than a table would be kept in", file=path)
        return _table_in(_Pinned(info.id, pinned, info.value_size, info.max_entries, path))


def write(folder: str, data: bytes, what: str) -> None:
    """Pin bytes as the record of a table's folder, in the place of the one before.

    Raises:
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    size = min(len(data), _CHUNK)
    new = NewMap(
        type=MapType.ARRAY,
        key_size=_INDEX.size,
        value_size=size,
        max_entries=-(-len(data) // size),
        name=_MAP,
    )
    with bpf.map_create(new, what=f"create map {_MAP}") as made:
        for slot, start in enumerate(range(0, len(data), size)):
            chunk = data[start : start + size].ljust(size, b"\0")
            bpf.map_update(made.fileno(), _INDEX.pack(slot), chunk)
        bpf.map_freeze(made.fileno())
        pin_as(made, folder, RECORD, what)


def pin_as(made: HasFileno, folder: str, name: str, what: str) -> None:
    """Pin an object, at once in the place of what has this name in a table's folder.

    Raises:
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    fresh = f"{folder}/{FRESH}{name}"
    unlink(fresh)
    bpf.obj_pin(made.fileno(), fresh, what=what)
    try:
        os.rename(fresh, f"{folder}/{name}")
    except OSError as error:
        raise explained(error, what, folder) from error


@dataclass(frozen=True, slots=True)
class _Pinned:
    """An open record: what is frozen in a map is known by the map's id."""

    id: int
    map: Fd = field(compare=False)
    value_size: int = field(compare=False)
    max_entries: int = field(compare=False)
    path: str = field(compare=False)

    def chunk(self, slot: int) -> bytes:
        return bpf.map_lookup(self.map.fileno(), _INDEX.pack(slot), self.value_size) or b""


# A command reads a table several times, and a large one takes milliseconds to decode.
@functools.lru_cache(maxsize=32)
def _table_in(pinned: _Pinned) -> Table:
    data = pinned.chunk(0)
    chunks = -(-(sized.used_by(data, TABLE_MAGIC) or 0) // pinned.value_size)
    if not 0 < chunks <= pinned.max_entries:
        raise ObjectFormatError(f"it does not begin as a {_KIND} does", file=pinned.path)
    return decode(data + b"".join(map(pinned.chunk, range(1, chunks))))
