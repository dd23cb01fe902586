# SPDX-License-Identifier: Apache-2.0
"""What ``bpf/monitor.c`` keeps in its tables, decoded; the two are changed together. Pure.

Each CPU has a table of its own: what is counted is the sum over all of them.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xdpkit.errors import ObjectFormatError

LAYOUT = 1
"""The version of all that is here."""

SLOTS = 256
"""Of each kind."""

TARGETS = 32
"""How many targets of redirects are told apart for each program and errno, on each CPU."""

TARGET_OTHER = 0xFFFFFFFF
"""The target that stands for all that were too many."""

INDEX_ALL = 0xFFFFFFFF
"""The index of a redirect to all entries of a devmap, a broadcast.

Where the key that the program named has an entry the kernel tells of that, as of any redirect.
"""

_FILE = "the resident counters"
_SETTINGS = struct.Struct("=IIIIIxxxxQ")
_ERROR = struct.Struct("=4QQQIxxxx")
_NAMES = struct.Struct("=16s16s16s")
_HEAD = struct.Struct("=QQ")
_BULK = struct.Struct("=4Q4Q16s16s")
_CPUMAP = struct.Struct("=4Q8Q")
_KEY, _WHAT = 4, 2  # how many words a key has, and which of them has the kind
_IN_MAP = 1 << 8

SIZES = {
    "errors": _HEAD.size + 2 * SLOTS * _ERROR.size,
    "names": 2 * SLOTS * _NAMES.size,
    "bulks": _HEAD.size + SLOTS * _BULK.size,
    "cpumaps": _HEAD.size + SLOTS * _CPUMAP.size,
    "refused": 8,
    "settings": _SETTINGS.size,
}
"""Bytes of a value of each map."""


class Kind(enum.IntEnum):
    """What is counted in a slot."""

    EXCEPTION = 1
    REDIRECT_ERROR = 2
    BULK = 3
    CPUMAP = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """What user space has set.

    Attributes:
        layout: the version of the layout.
        rate: how often a second the time of an error is noted, on each CPU.
        ticks: the same, as the distance in ticks of the kernel's clock.
        seed: what decides where a key is tried first.
        by_cookie: whether namespaces are told by their cookies, and not by their inode numbers.
        since: when it was installed, in nanoseconds of CLOCK_BOOTTIME.
    """

    layout: int
    rate: int
    ticks: int
    seed: int
    by_cookie: bool
    since: int

    def encode(self) -> bytes:
        return _SETTINGS.pack(
            self.layout, self.rate, self.ticks, self.seed, self.by_cookie, self.since
        )

    @classmethod
    def decode(cls, data: bytes) -> Settings:
        """Read them.

        Raises:
            ObjectFormatError: they are too short.
        """
        _require(data, _SETTINGS.size)
        layout, rate, ticks, seed, by_cookie, since = _SETTINGS.unpack_from(data)
        return cls(layout, rate, ticks, seed, bool(by_cookie), since)


@dataclass(frozen=True, slots=True)
class Error:
    """Packets that went wrong in the same way.

    Attributes:
        kind: EXCEPTION or REDIRECT_ERROR.
        netns: cookie, or inode number, of the namespace. ifindex: the interface.
        program: id of the program. in_map: whether it is that of an entry of a devmap or cpumap.
        code: the action, 5 for what is none; or the errno.
        map_type, map_id, index: of the map that the packet was redirected by, 0 without; the index
            is INDEX_ALL for a broadcast.
        target: index of the interface that it was redirected to, 0 where it is none or not known;
            TARGET_OTHER stands for all that were too many.
        packets: how many. last_seen: when, in nanoseconds of CLOCK_MONOTONIC; 0: not noted.
        last: the action of the last one as it was returned; without meaning for redirects.
        interface, program_name, target_name: as they were called when it happened first.
    """

    kind: Kind
    netns: int
    ifindex: int
    program: int
    in_map: bool
    code: int
    map_type: int
    map_id: int
    index: int
    target: int
    packets: int
    last_seen: int
    last: int
    interface: str
    program_name: str
    target_name: str


@dataclass(frozen=True, slots=True)
class Bulk:
    """Frames that were handed to an interface for transmission.

    Attributes:
        netns, ifindex: the interface. source_netns, source: where they came in, 0 for none.
        sent, dropped: how many. last_seen: when some were dropped last.
        error: errno of the last bulk that failed as a whole, 0 for none.
        interface, source_name: as they were called first.
    """

    netns: int
    ifindex: int
    source_netns: int
    source: int
    sent: int
    dropped: int
    last_seen: int
    error: int
    interface: str
    source_name: str


@dataclass(frozen=True, slots=True)
class Cpumap:
    """Frames that went through a cpumap; see :class:`xdpkit.monitor.model.CpumapCount`."""

    map_id: int
    cpu: int
    enqueued: int
    queue_full: int
    processed: int
    no_memory: int
    passed: int
    dropped: int
    redirected: int
    last_seen: int


def errors(tables: Sequence[bytes], names: Sequence[bytes]) -> tuple[Error, ...]:
    """Return what all CPUs have counted, in the order of their slots.

    Args:
        tables, names: the values of the maps, one for each CPU.

    Raises:
        ObjectFormatError: a value is too short.
    """
    found: dict[tuple[int, ...], Error] = {}
    for table, its_names in zip(tables, names, strict=True):
        _require(table, SIZES["errors"])
        _require(its_names, SIZES["names"])
        for slot, fields in _slots(_ERROR, table, 2 * SLOTS):
            key, (packets, last_seen, last) = fields[:_KEY], fields[_KEY:]
            interface, program, target = _NAMES.unpack_from(its_names, slot * _NAMES.size)
            netns, who, what, where = key
            (ifindex, number), (index, target_index) = _halves(who), _halves(where)
            what, map_id = _halves(what)
            kind, map_type, code = what & 0xFF, what >> 8 & 0xFF, what >> 16
            if kind not in (Kind.EXCEPTION, Kind.REDIRECT_ERROR):
                raise ObjectFormatError(f"slot {slot} is of kind {kind}", file=_FILE)
            is_exception = kind == Kind.EXCEPTION
            before = found.get(key)
            if before is not None:
                packets += before.packets
                if before.last_seen > last_seen:
                    last_seen, last = before.last_seen, before.last
            found[key] = Error(
                Kind(kind),
                netns,
                ifindex,
                number,
                is_exception and bool(code & _IN_MAP),
                code & ~_IN_MAP if is_exception else code,
                map_type,
                map_id,
                index,
                target_index,
                packets,
                last_seen,
                last,
                _text(interface),
                _text(program),
                _text(target),
            )
    return tuple(each for each in found.values() if each.packets)


def bulks(tables: Iterable[bytes]) -> tuple[Bulk, ...]:
    """Return what all CPUs have counted of transmissions; see :func:`errors`."""
    found: dict[tuple[int, ...], Bulk] = {}
    for table in tables:
        _require(table, SIZES["bulks"])
        for _, fields in _slots(_BULK, table, SLOTS):
            key, (sent, dropped, last_seen, error, interface, source) = fields[:_KEY], fields[_KEY:]
            netns, who, _, source_netns = key
            ifindex, source_index = _halves(who)
            before = found.get(key)
            if before is not None:
                sent, dropped = sent + before.sent, dropped + before.dropped
                if before.last_seen > last_seen:
                    last_seen, error = before.last_seen, before.error
            found[key] = Bulk(
                netns,
                ifindex,
                source_netns,
                source_index,
                sent,
                dropped,
                last_seen,
                error,
                _text(interface),
                _text(source),
            )
    return tuple(found.values())


def cpumaps(tables: Iterable[bytes]) -> tuple[Cpumap, ...]:
    """Return what all CPUs have counted of cpumaps; see :func:`errors`."""
    found: dict[tuple[int, int], list[int]] = {}
    for table in tables:
        _require(table, SIZES["cpumaps"])
        for _, fields in _slots(_CPUMAP, table, SLOTS):
            (_, _, what, where), (*counts, last_seen) = fields[:_KEY], fields[_KEY:]
            (_, map_id), (_, cpu) = _halves(what), _halves(where)
            sums = found.setdefault((map_id, cpu), [0] * 8)
            sums[:7] = [a + b for a, b in zip(sums, counts, strict=False)]
            sums[7] = max(sums[7], last_seen)
    return tuple(Cpumap(*key, *sums) for key, sums in found.items())


def others(*tables: Sequence[bytes]) -> int:
    """Return how many packets found no slot, in all tables of all CPUs."""
    return sum(_HEAD.unpack_from(value)[0] for table in tables for value in table)


def _slots(form: struct.Struct, table: bytes, count: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the slots that are taken, with their numbers."""
    _, left = _HEAD.unpack_from(table)
    view = memoryview(table)[_HEAD.size : _HEAD.size + count * form.size]
    # Most tables are empty, and a machine can have hundreds of CPUs.
    for slot, fields in enumerate(form.iter_unpack(view) if left else ()):
        if fields[_WHAT]:
            yield slot, fields
            left -= 1
            if not left:
                return


def _halves(word: int) -> tuple[int, int]:
    return word & 0xFFFFFFFF, word >> 32


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _require(data: bytes, size: int) -> None:
    if len(data) < size:
        raise ObjectFormatError(
            f"a table of {len(data)} bytes, where {size} are needed", file=_FILE
        )
