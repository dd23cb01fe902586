# SPDX-License-Identifier: Apache-2.0
"""Map types, asked by making the smallest map of each."""

from __future__ import annotations

import mmap
from dataclasses import replace

from xdpkit.probes.ask import TRIVIAL_MAP, Reply, ask_map, create
from xdpkit.probes.finding import Answer
from xdpkit.syscalls.bpf import NewMap
from xdpkit.uapi.bpf import MapFlags, MapType

_PAGE = mmap.PAGESIZE
_FLAGS = {MapType.LPM_TRIE: MapFlags.NO_PREALLOC, MapType.ARENA: MapFlags.MMAPABLE}

# Key size, value size, number of entries, where 4, 8 and 1 would be refused.
_SIZES = {
    MapType.PROG_ARRAY: (4, 4, 1),
    MapType.PERF_EVENT_ARRAY: (4, 4, 1),
    MapType.CGROUP_ARRAY: (4, 4, 1),
    MapType.LPM_TRIE: (8, 8, 1),
    MapType.ARRAY_OF_MAPS: (4, 4, 1),
    MapType.HASH_OF_MAPS: (4, 4, 1),
    MapType.DEVMAP: (4, 4, 1),
    MapType.DEVMAP_HASH: (4, 4, 1),
    MapType.SOCKMAP: (4, 4, 1),
    MapType.SOCKHASH: (4, 4, 1),
    MapType.CPUMAP: (4, 4, 1),
    MapType.XSKMAP: (4, 4, 1),
    MapType.QUEUE: (0, 4, 1),
    MapType.STACK: (0, 4, 1),
    MapType.BLOOM_FILTER: (0, 4, 1),
    MapType.RINGBUF: (0, 0, _PAGE),
    MapType.USER_RINGBUF: (0, 0, _PAGE),
    MapType.ARENA: (0, 0, 1),
}
_PLAIN = frozenset(
    {
        MapType.HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.STACK_TRACE,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def ask_map_type(name: str) -> Reply:
    """Ask whether maps of a type can be made, by its kernel name in lower case."""
    kind = MapType.__members__.get(name.upper())
    if kind is None or (kind not in _SIZES and kind not in _PLAIN):
        return Answer.UNKNOWN, f"there is no probe for map type {name}"
    key_size, value_size, entries = _SIZES.get(kind, (4, 8, 1))
    new = NewMap(kind, key_size, value_size, entries, flags=_FLAGS.get(kind, MapFlags(0)))
    question = f"BPF_MAP_CREATE of BPF_MAP_TYPE_{kind.name}"
    if kind in _OF_MAPS:
        with create(TRIVIAL_MAP) as inner:
            return _ask(question, replace(new, inner_fd=inner.fileno()))
    return _ask(question, new)


def _ask(question: str, new: NewMap) -> Reply:
    return ask_map(
        question,
        new,
        type=MapType.ARRAY,
        key_size=4,
        value_size=8,
        max_entries=1,
        flags=0,
        inner_fd=None,
    )
