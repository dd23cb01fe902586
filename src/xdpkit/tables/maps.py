# SPDX-License-Identifier: Apache-2.0
"""The maps of a port table: what they are, and how they come and go."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.kernel import Map
from xdpkit.kernel.folder import unlink
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.tables import entries, record
from xdpkit.uapi.bpf import MapType

SET = "set-"
"""How the names of pins begin by which there are maps of sets."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a map of a table is; its keys have 4 bytes, and it has an entry for each port."""

    type: MapType
    value_size: int
    kernel_name: str


SHAPES = {
    "ports": Shape(MapType.DEVMAP, 8, "xdpkit_ports"),
    "numbers": Shape(MapType.HASH, 4, "xdpkit_numbers"),
    "counts": Shape(MapType.PERCPU_ARRAY, 8, "xdpkit_counts"),
}
"""Those that each table has, by the names of their pins."""


def shape_of(name: str) -> Shape:
    """Return what the map is that is pinned by this name: one of each table, or a set's."""
    return SHAPES["ports"] if name.startswith(SET) else SHAPES[name]


def make(folder: str, name: str, size: int, what: str) -> Map:
    """Make a map, and pin it in a table's folder, in the place of what a kill may have left.

    Raises:
        MissingPrivilege: it takes CAP_BPF and CAP_NET_ADMIN.
        KernelRefused: the kernel refused.
    """
    shape = shape_of(name)
    new = NewMap(
        type=shape.type,
        key_size=4,
        value_size=shape.value_size,
        max_entries=size,
        name=shape.kernel_name,
    )
    made = bpf.map_create(new, what=what)
    try:
        record.pin_as(made, folder, name, what)
    except BaseException:
        made.close()
        raise
    return Map(made)


def open_pinned(folder: str, name: str, size: int, what: str) -> Map | None:
    """Open a map of a table; None where nothing is pinned.

    Raises:
        UsageError: it is not what it should be.
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    pinned = bpf.obj_get(f"{folder}/{name}", what=what)
    if pinned is None:
        return None
    if bpf.kind_of(pinned.fileno()) is not ObjectKind.MAP:
        pinned.close()
        raise UsageError(what, cause="it is no map")
    found, shape = Map(pinned), shape_of(name)
    if (found.type, found.key_size, found.value_size, found.max_entries) != (
        shape.type,
        4,
        shape.value_size,
        size,
    ):
        found.close()
        raise UsageError(what, cause="it is another map")
    return found


def discard(folder: str, name: str) -> None:
    """Remove a pin of a table; a devmap is emptied before.

    Raises:
        MissingPrivilege, RequirementUnmet, KernelRefused: it cannot be removed.
    """
    path = f"{folder}/{name}"
    # What lies there may be anything, and has to go.
    with contextlib.suppress(XdpkitError), Map.from_pin(path) as found:
        if found.type == MapType.DEVMAP:
            entries.clear(found)
    unlink(path)
