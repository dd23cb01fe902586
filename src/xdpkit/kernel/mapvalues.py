# SPDX-License-Identifier: Apache-2.0
"""Keys and values of maps: Python objects to bytes and back.

What a key or value is depends on the map's type first, then on its BTF, and is bytes without.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.syscalls.fd import HasFileno
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.btf import Btf

PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
"""Map types with a value for each CPU."""

INDEXED = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.SOCKMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
"""Map types whose keys are the numbers below ``max_entries``."""

DENSE = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
"""Map types all of whose elements are always there."""

KEYLESS = frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER})
"""Map types with values but no keys."""

MAP_IN_MAP = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
"""Map types whose values are maps."""

HOLDS_DESCRIPTORS = MAP_IN_MAP | {
    MapType.PROG_ARRAY,
    MapType.PERF_EVENT_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.XSKMAP,
}
"""Map types that are given a file descriptor and give an id."""


class Codec(Protocol):
    """Turns Python objects into bytes and back."""

    def encode(self, value: object, /) -> bytes: ...
    def decode(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class DevmapValue:
    """A target of a devmap (``struct bpf_devmap_val``).

    Attributes:
        ifindex: the interface that frames are sent out of.
        program: what runs there before: to be set, a program or its descriptor; as read, its id;
            0 or None for none.
    """

    ifindex: int
    program: HasFileno | int | None = None


@dataclass(frozen=True, slots=True)
class CpumapValue:
    """A target of a cpumap (``struct bpf_cpumap_val``).

    Attributes:
        qsize: length of the CPU's queue, in frames.
        program: what runs on that CPU first; as for :class:`DevmapValue`.
    """

    qsize: int
    program: HasFileno | int | None = None


class Raw:
    """Bytes of a fixed size."""

    def __init__(self, size: int) -> None:
        self._size = size

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview) and len(value) == self._size:
            return bytes(value)
        raise UsageError(
            f"use {value!r} as a map's key or value",
            cause=f"the map has no type information: give {self._size} bytes",
        )

    def decode(self, data: bytes) -> object:
        return data


class Typed:
    """A type of the map's BTF; its bytes are taken as well."""

    def __init__(self, types: Btf, type_id: int) -> None:
        from xdpkit.btf.values import codec

        self._codec = codec(types, type_id)

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes) and len(value) == self._codec.size:
            return value
        return self._codec.encode(value)

    def decode(self, data: bytes) -> object:
        return self._codec.decode(data)


class Number:
    """An unsigned number of 32 bits: an index, an interface."""

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes) and len(value) == 4:
            return value
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise UsageError(
                f"use {value!r} as a map's key or value", cause="it is not a number of 32 bits"
            )
        return struct.pack("=I", value)

    def decode(self, data: bytes) -> object:
        number: int = struct.unpack("=I", data)[0]
        return number


class Descriptor:
    """A kernel object: given as something with a descriptor, read as an id."""

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes) and len(value) == 4:
            return value
        return struct.pack("=i", descriptor(value))

    def decode(self, data: bytes) -> object:
        number: int = struct.unpack("=I", data)[0]
        return number


class WithProgram:
    """``struct bpf_devmap_val`` and ``struct bpf_cpumap_val``: a number and a program."""

    def __init__(self, make: type[DevmapValue] | type[CpumapValue]) -> None:
        self._make = make

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes) and len(value) == 8:
            return value
        if isinstance(value, int):
            return struct.pack("=Ii", value, 0)
        if not isinstance(value, self._make):
            raise UsageError(
                f"use {value!r} as a map's value", cause=f"it is no {self._make.__name__}"
            )
        number = value.ifindex if isinstance(value, DevmapValue) else value.qsize
        program = 0 if value.program is None else descriptor(value.program)
        return struct.pack("=Ii", number, program)

    def decode(self, data: bytes) -> object:
        return self._make(*struct.unpack("=II", data))


class PerCpu:
    """A list with one value per possible CPU; each is padded to 8 bytes."""

    def __init__(self, one: Codec, size: int, cpus: int) -> None:
        self._one = one
        self._size = size
        self._stride = padded(size)
        self._cpus = cpus

    def encode(self, value: object) -> bytes:
        if isinstance(value, bytes) and len(value) == self._stride * self._cpus:
            return value
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise UsageError(
                "set a per-CPU value", cause=f"give a list of {self._cpus} values, one per CPU"
            )
        if len(value) != self._cpus:
            raise UsageError(
                "set a per-CPU value",
                cause=f"{len(value)} values given, this machine can have {self._cpus} CPUs",
            )
        return b"".join(self._one.encode(each).ljust(self._stride, b"\0") for each in value)

    def decode(self, data: bytes) -> object:
        size = self._size
        return [self._one.decode(data[at : at + size]) for at in range(0, len(data), self._stride)]


def padded(size: int) -> int:
    """Return the room that one CPU's value takes: ``round_up(value_size, 8)``."""
    return (size + 7) // 8 * 8


def descriptor(value: object) -> int:
    """Return the file descriptor of a kernel object.

    Raises:
        UsageError: it has none.
    """
    if isinstance(value, int):
        return value
    fileno = getattr(value, "fileno", None)
    if not callable(fileno):
        raise UsageError(
            f"put {value!r} into a map", cause="it is neither a kernel object nor a descriptor"
        )
    number: int = fileno()
    return number


def key_codec(map_type: int, size: int, types: Btf | None, type_id: int) -> Codec:
    """Return what turns a map's keys into bytes and back."""
    codec = _typed(size, types, type_id)
    # The kernel takes no other keys than numbers of 4 bytes (dev_map_alloc_check()).
    is_number = map_type in INDEXED or map_type == MapType.DEVMAP_HASH
    return Number() if isinstance(codec, Raw) and is_number else codec


def value_codec(map_type: int, size: int, types: Btf | None, type_id: int, cpus: int) -> Codec:
    """Return what turns a map's values into bytes and back."""
    if map_type in HOLDS_DESCRIPTORS:
        return Descriptor()
    if map_type in (MapType.DEVMAP, MapType.DEVMAP_HASH):
        return Number() if size == 4 else WithProgram(DevmapValue)
    if map_type == MapType.CPUMAP:
        return Number() if size == 4 else WithProgram(CpumapValue)
    one = _typed(size, types, type_id)
    return PerCpu(one, size, cpus) if map_type in PER_CPU else one


def _typed(size: int, types: Btf | None, type_id: int) -> Codec:
    if types is None or not type_id:
        return Raw(size)
    try:
        return Typed(types, type_id) if types.sizeof(type_id) == size else Raw(size)
    except ObjectFormatError:
        # A map's type may be one that has no values in Python; its bytes always are.
        return Raw(size)
