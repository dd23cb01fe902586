# SPDX-License-Identifier: Apache-2.0
"""Maps in the kernel, as Python mappings."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from xdpkit.errors import KernelRefused, MissingPrivilege, UsageError
from xdpkit.kernel import host, mapvalues
from xdpkit.kernel.handle import Handle
from xdpkit.kernel.mapvalues import Codec
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import MapFlags, MapType, UpdateFlags

if TYPE_CHECKING:
    from xdpkit.btf import Btf

_BATCH = 1024
_ABSENT: Any = object()
_ErrorType = type[BaseException]

# What a kernel or a map type without batches says.
_NO_BATCH = frozenset({bpf.ENOTSUPP, errno.EINVAL, errno.EOPNOTSUPP})


_DEVMAPS = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH})


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says about a map (``struct bpf_map_info``).

    Attributes:
        id: unique until the next boot.
        name: at most 15 characters.
        type: a number that this version does not know stays a number.
        key_size, value_size: bytes; value_size is that of one CPU's value.
        max_entries: how many elements it can have.
        flags: ``BPF_F_*``.
        ifindex: the device it was offloaded to, else 0.
        btf_id: id of the BTF that describes it, 0 without.
        key_type_id, value_type_id: types in that BTF, 0 where not known.
        map_extra: per map type.
    """

    id: int
    name: str
    type: MapType | int
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlags
    ifindex: int
    btf_id: int
    key_type_id: int
    value_type_id: int
    map_extra: int


class Map(Handle, MutableMapping[Any, Any]):
    """A map in the kernel, and a mapping.

    Keys and values are Python's, by the map's BTF: ints, dicts for structs, bytes for arrays of
    char; without BTF they are bytes, but for indices and keys of devmaps, which are ints. Bytes of
    the right size are always taken. Per-CPU values are lists with one entry per possible CPU.
    Arrays of programs or maps and XSK maps are given the object (or its descriptor) and read as
    ids. Values of devmaps and cpumaps are ints, or
    :class:`~xdpkit.kernel.mapvalues.DevmapValue` and ``CpumapValue``.

    An absent key is a plain KeyError, as in any mapping. A key or value that does not fit is a
    UsageError; what else the kernel refuses (a full map: E2BIG) is a KernelRefused. Iteration is
    bounded and survives elements that come and go meanwhile; which of those it shows is open.
    Queues, stacks and bloom filters have no keys: :meth:`push`, :meth:`pop`, :meth:`peek`.

    A context manager that owns a file descriptor. Two Map objects are equal only if identical.

    Attributes:
        vets: called with each value before it is set; any of them refuses by raising.
    """

    _KIND = ObjectKind.MAP

    def __init__(
        self,
        fd: Fd,
        *,
        name: str | None = None,
        btf: Btf | None = None,
        key_type_id: int = 0,
        value_type_id: int = 0,
    ) -> None:
        """Take over a map's descriptor.

        Args:
            fd: the descriptor; it belongs to the Map from now on.
            name: what to call it; None: as the kernel does.
            btf, key_type_id, value_type_id: its types; None: those that the kernel has.
        """
        super().__init__(fd)
        self._given_name = name
        self.vets: list[Callable[[object], None]] = []
        self._types: tuple[Btf | None, int, int] | None = (
            (btf, key_type_id, value_type_id) if btf is not None else None
        )
        self._made_codecs: tuple[Codec, Codec] | None = None
        self._batches_work = True

    @cached_property
    def _info(self) -> MapInfo:
        # Asked for when it is needed: a load makes many maps that nobody looks at.
        return _read_info(self._fd)

    @classmethod
    def create(
        cls,
        map_type: MapType,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        name: str = "",
        flags: MapFlags | int = 0,
        inner: Map | None = None,
    ) -> Self:
        """Create a map.

        Args:
            map_type: what it is.
            key_size, value_size: bytes.
            max_entries: how many elements it can have.
            name: the kernel keeps 15 characters of it.
            flags: ``BPF_F_*``.
            inner: for maps of maps: one like those that it is going to hold.
        """
        new = NewMap(
            type=map_type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            name=name,
            flags=flags,
            inner_fd=None if inner is None else inner.fileno(),
        )
        return cls(bpf.map_create(new, what=f"create map {name or map_type.name}"))

    # What it is

    @property
    def _label(self) -> str:
        return f"map {self.name}"

    @property
    def name(self) -> str:
        """Its name in the object file, else the kernel's."""
        return self._given_name or self._info.name

    @property
    def id(self) -> int:
        """Unique until the next boot."""
        return self._info.id

    @property
    def type(self) -> MapType | int:
        return self._info.type

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._info.key_size

    @property
    def value_size(self) -> int:
        """Bytes of a value; of one CPU's."""
        return self._info.value_size

    @property
    def max_entries(self) -> int:
        """How many elements it can have."""
        return self._info.max_entries

    def info(self) -> MapInfo:
        """Return what the kernel says about it."""
        return self._info

    def untyped(self) -> Self:
        """Have keys and values be bytes, whatever the kernel knows of their types; return the map.

        Indices stay ints.
        """
        self._types = None, 0, 0
        self._made_codecs = None
        return self

    def freeze(self) -> None:
        """Make it read-only for user space, for good; programs may still write."""
        bpf.map_freeze(self.fileno())

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        kind = self.type.name if isinstance(self.type, MapType) else self.type
        state = ", closed" if self._fd.closed else ""
        return f"<Map {self.name} ({kind}, id {self.id}{state})>"

    # One element

    def __getitem__(self, key: Any) -> Any:
        keys, values = self._codecs
        data = bpf.map_lookup(self.fileno(), keys.encode(key), self._room)
        if data is None:
            raise KeyError(key)
        return values.decode(data)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def put(self, key: Any, value: Any, *, flags: UpdateFlags = UpdateFlags.ANY) -> None:
        """Set an element; with ``NOEXIST`` only a new one, with ``EXIST`` only an old one.

        Raises:
            UsageError: the key or value does not fit.
            KernelRefused: the map is full (E2BIG), frozen (EPERM), or a flag said no (EEXIST,
                ENOENT).
        """
        keys, values = self._codecs
        for vet in self.vets:
            vet(value)
        self._update_one(keys.encode(key), values.encode(value), flags)

    def _update_one(self, key: bytes, value: bytes, flags: int) -> None:
        try:
            bpf.map_update(self.fileno(), key, value, flags=flags)
        except KernelRefused as error:
            cause = error.cause
            if error.errno == errno.EINVAL and self.type in _DEVMAPS:
                cause = _missing_interface(value) or cause
            what = f"set element {self._codecs[0].decode(key)!r} of map {self.name}"
            raise KernelRefused(
                what, errno=error.errno or 0, cause=cause, remedy=error.remedy
            ) from None

    def __delitem__(self, key: Any) -> None:
        if not bpf.map_delete(self.fileno(), self._codecs[0].encode(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        keys, values = self._codecs
        if self.type == MapType.BLOOM_FILTER:
            return bpf.map_contains(self.fileno(), values.encode(key))
        return bpf.map_lookup(self.fileno(), keys.encode(key), self._room) is not None

    # Queues, stacks, bloom filters

    def push(self, value: Any, *, flags: UpdateFlags = UpdateFlags.ANY) -> None:
        """Add a value to a queue, stack or bloom filter; ``EXIST`` makes room in a full one."""
        bpf.map_update(self.fileno(), None, self._codecs[1].encode(value), flags=flags)

    def peek(self) -> Any:
        """Return the next value of a queue or stack.

        Raises:
            IndexError: it is empty.
        """
        return self._next_value(bpf.map_lookup(self.fileno(), None, self._room))

    def pop(self, key: Any = _ABSENT, default: Any = _ABSENT) -> Any:
        """Remove and return: the next value of a queue or stack, or the value of a key.

        Raises:
            IndexError: the queue or stack is empty.
            KeyError: the key is absent, and no default is given.
        """
        if self.type in (MapType.QUEUE, MapType.STACK):
            if key is not _ABSENT:
                raise UsageError(f"pop {key!r} from {self.name}", cause="it has no keys")
            return self._next_value(bpf.map_lookup_and_delete(self.fileno(), None, self._room))
        if key is _ABSENT:
            raise UsageError(f"pop from {self.name}", cause="it is no queue or stack: give a key")
        return super().pop(key) if default is _ABSENT else super().pop(key, default)

    def _next_value(self, data: bytes | None) -> Any:
        if data is None:
            raise IndexError(f"{self.name} is empty")
        return self._codecs[1].decode(data)

    # Many elements

    def __iter__(self) -> Iterator[Any]:
        decode = self._codecs[0].decode
        if self.type in mapvalues.DENSE:
            return iter(range(self.max_entries))
        if self.type in mapvalues.INDEXED:
            return (key for key in range(self.max_entries) if key in self)
        return (decode(key) for key in self._raw_keys())

    def __len__(self) -> int:
        """Return how many elements there are; it takes a walk through all but in an array."""
        return self.max_entries if self.type in mapvalues.DENSE else sum(1 for _ in self)

    def items(self) -> ItemsView[Any, Any]:
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        return _Values(self)

    def clear(self) -> None:
        """Delete all elements that are there now."""
        self.delete_many(list(self))

    def lookup_many(self, keys: Iterable[Any] | None = None) -> dict[Any, Any]:
        """Return the elements with these keys, absent ones left out; None: all elements.

        Keys that are dicts (structs) cannot be in a dict: use :meth:`items`.
        """
        if keys is None:
            return dict(self._pairs())
        return {key: value for key in keys if (value := self.get(key, _ABSENT)) is not _ABSENT}

    def update_many(
        self, elements: Mapping[Any, Any] | Iterable[tuple[Any, Any]], *, flags: int = 0
    ) -> None:
        """Set elements, in batches where the kernel has them. Not atomic: others see the way.

        Raises:
            UsageError: a key or value does not fit; nothing of its batch was set.
            KernelRefused: an element was refused; those before it were set.
        """
        pairs = elements.items() if isinstance(elements, Mapping) else elements
        keys, values = self._codecs
        for part in _parts(pairs):
            for vet in self.vets:
                for _, value in part:
                    vet(value)
            encoded = [(keys.encode(key), values.encode(value)) for key, value in part]
            self._update(encoded, flags)

    def _update(self, encoded: list[tuple[bytes, bytes]], flags: int) -> None:
        done, error = bpf.map_update_batch(
            self.fileno(),
            b"".join(key for key, _ in encoded),
            b"".join(value for _, value in encoded),
            len(encoded),
            flags=flags,
        )
        if not error:
            return
        # The first that was refused says why; all of them go this way where there are no batches.
        for key, value in encoded[done:]:
            self._update_one(key, value, flags)

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Delete the elements with these keys, as far as they are there; return how many were."""
        encode = self._codecs[0].encode
        deleted = 0
        for part in _parts(keys):
            encoded = [encode(key) for key in part]
            done, error = bpf.map_delete_batch(self.fileno(), b"".join(encoded), len(encoded))
            deleted += done
            if error:
                deleted += sum(bpf.map_delete(self.fileno(), key) for key in encoded[done:])
        return deleted

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        keys, values = self._codecs
        for key, value in self._raw_pairs():
            yield keys.decode(key), values.decode(value)

    def _raw_pairs(self) -> Iterator[tuple[bytes, bytes]]:
        if self._batches_work and self.type not in mapvalues.KEYLESS:
            cursor: bytes | None = None
            count = min(self.max_entries, _BATCH)
            while True:
                try:
                    batch = bpf.map_lookup_batch(
                        self.fileno(),
                        cursor,
                        count,
                        key_size=self.key_size,
                        value_size=self._room,
                    )
                except KernelRefused as error:
                    if error.errno == errno.ENOSPC and count < self.max_entries:
                        count = min(self.max_entries, count * 4)
                        continue
                    if error.errno in _NO_BATCH and cursor is None:
                        self._batches_work = False
                        break
                    raise
                yield from _split(batch, self.key_size, self._room)
                if batch.cursor is None:
                    return
                cursor = batch.cursor
        for key in self._raw_keys():
            value = bpf.map_lookup(self.fileno(), key, self._room)
            if value is not None:
                yield key, value

    def _raw_keys(self) -> Iterator[bytes]:
        """Yield the keys one by one.

        When the key that the walk stands on is deleted, a hash begins again from its start: keys
        that were seen are skipped, and the walk ends when it sees only such.
        """
        if self.type in mapvalues.KEYLESS:
            raise UsageError(f"iterate over {self.name}", cause="this type of map has no keys")
        seen: set[bytes] = set()
        repeated = 0
        key = bpf.map_next_key(self.fileno(), None, self.key_size)
        while key is not None and repeated <= self.max_entries:
            # The next key is asked for first, so that the caller may delete this one.
            following = bpf.map_next_key(self.fileno(), key, self.key_size)
            if key in seen:
                repeated += 1
            else:
                repeated = 0
                seen.add(key)
                yield key
            key = following

    # How values are encoded

    @property
    def _room(self) -> int:
        """Bytes of a value as bpf(2) gives it, with all CPUs."""
        if self.type in mapvalues.PER_CPU:
            return mapvalues.padded(self.value_size) * host.possible_cpus()
        return self.value_size

    @property
    def _codecs(self) -> tuple[Codec, Codec]:
        if self._made_codecs is None:
            types, key_type, value_type = self._types or self._kernel_types()
            info = self._info
            cpus = host.possible_cpus() if info.type in mapvalues.PER_CPU else 0
            self._made_codecs = (
                mapvalues.key_codec(info.type, info.key_size, types, key_type),
                mapvalues.value_codec(info.type, info.value_size, types, value_type, cpus),
            )
        return self._made_codecs

    def _kernel_types(self) -> tuple[Btf | None, int, int]:
        if not self._info.btf_id:
            return None, 0, 0
        from xdpkit.kernel.btf import by_id

        try:
            types = by_id(self._info.btf_id)
        except MissingPrivilege:
            # Without CAP_SYS_ADMIN a map can be used all the same: by bytes.
            types = None
        return types, self._info.key_type_id, self._info.value_type_id


class _Items(ItemsView[Any, Any]):
    """The elements of a map, read in batches and not one by one."""

    _mapping: Map

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._pairs()


class _Values(ValuesView[Any]):
    """The values of a map, read in batches and not one by one."""

    _mapping: Map

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._pairs())


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, _BATCH)):
        yield part


def _split(batch: bpf.Batch, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(batch.count):
        key, value = number * key_size, number * value_size
        yield batch.keys[key : key + key_size], batch.values[value : value + value_size]


def _missing_interface(value: bytes) -> str | None:
    """Return why a devmap refuses a value, None where its interface is there."""
    ifindex = int.from_bytes(value[:4], sys.byteorder)
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return f"the caller's network namespace, where a devmap looks, has no interface {ifindex}"
    return None


def map_ids() -> Iterator[int]:
    """Yield the ids of all maps in the kernel.

    Raises:
        MissingPrivilege: without CAP_SYS_ADMIN.
    """
    return bpf.ids(ObjectKind.MAP)


def _read_info(fd: Fd) -> MapInfo:
    info: attr.MapInfo = bpf.map_info(fd.fileno())
    return MapInfo(
        id=info.id,
        name=info.name.decode("ascii", "replace"),
        type=MapType(info.type) if info.type in _KNOWN_TYPES else info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=MapFlags(info.map_flags),
        ifindex=info.ifindex,
        btf_id=info.btf_id,
        key_type_id=info.btf_key_type_id,
        value_type_id=info.btf_value_type_id,
        map_extra=info.map_extra,
    )


_KNOWN_TYPES = frozenset(MapType)
