# SPDX-License-Identifier: Apache-2.0
"""What helpers and kernel functions do to a program's registers and memory.

Read off the prototypes (``struct bpf_func_proto``; net/core/filter.c, kernel/bpf/helpers.c,
Linux 6.18). A function that is not here is taken to write whatever it is given an address of, and
to keep the address.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from xdpkit.uapi.helpers import HELPERS


class Size(enum.Enum):
    """How much a function writes, where it is not a number of bytes."""

    MAP_VALUE = "map-value"  # of the map in r1


class Result(enum.Enum):
    """What a function returns."""

    NUMBER = "number"
    NUMBER32 = "number32"  # not more than 32 bits
    MAP_VALUE = "map-value"  # a pointer to a value (or an inner map) of the map in r1, or NULL
    MEMORY = "memory"  # a pointer to memory of the kernel, or NULL
    MEMORY_NOT_NULL = "memory-not-null"


@dataclass(frozen=True, slots=True)
class Write:
    """Memory that a function writes.

    Attributes:
        argument: register that holds the address.
        size: bytes; or, as ``register``, the register that holds their number.
    """

    argument: int
    size: int | Size = 0
    register: int = 0


@dataclass(frozen=True, slots=True)
class Effect:
    """What one function does.

    Attributes:
        arguments: how many registers it reads, from r1 on.
        result: what it returns.
        writes: memory that it writes. What else it is given addresses of it reads, at most.
        callback: register that holds the address of a function that it calls, 0 if none.
        callback_later: whether that happens only once the program is over.
        reads_packet, writes_packet: whether it does so by itself, given the context.
    """

    arguments: int
    result: Result = Result.NUMBER
    writes: tuple[Write, ...] = ()
    callback: int = 0
    callback_later: bool = False
    reads_packet: bool = False
    writes_packet: bool = False


_DYNPTR_SIZE = 16

_BY_NAME: dict[str, Effect] = {
    "map_lookup_elem": Effect(2, Result.MAP_VALUE),
    "map_update_elem": Effect(4),
    "map_delete_elem": Effect(2),
    "ktime_get_ns": Effect(0),
    "trace_printk": Effect(5),
    "get_prandom_u32": Effect(0, Result.NUMBER32),
    "get_smp_processor_id": Effect(0, Result.NUMBER32),
    "tail_call": Effect(3),
    "redirect": Effect(2),
    "perf_event_output": Effect(5, reads_packet=True),
    "csum_diff": Effect(5),
    "get_numa_node_id": Effect(0),
    "xdp_adjust_head": Effect(2),
    "redirect_map": Effect(3),
    "xdp_adjust_meta": Effect(2),
    "xdp_adjust_tail": Effect(2),
    "fib_lookup": Effect(4, writes=(Write(2, register=3),)),
    "sk_lookup_tcp": Effect(5, Result.MEMORY),
    "sk_lookup_udp": Effect(5, Result.MEMORY),
    "sk_release": Effect(1),
    "map_push_elem": Effect(3),
    "map_pop_elem": Effect(2, writes=(Write(2, Size.MAP_VALUE),)),
    "map_peek_elem": Effect(2, writes=(Write(2, Size.MAP_VALUE),)),
    "spin_lock": Effect(1),
    "spin_unlock": Effect(1),
    "skc_lookup_tcp": Effect(5, Result.MEMORY),
    "tcp_check_syncookie": Effect(5),
    "strtol": Effect(4, writes=(Write(4, 8),)),
    "strtoul": Effect(4, writes=(Write(4, 8),)),
    "tcp_gen_syncookie": Effect(5),
    "probe_read_user": Effect(3, writes=(Write(1, register=2),)),
    "probe_read_kernel": Effect(3, writes=(Write(1, register=2),)),
    "probe_read_user_str": Effect(3, writes=(Write(1, register=2),)),
    "probe_read_kernel_str": Effect(3, writes=(Write(1, register=2),)),
    "jiffies64": Effect(0),
    "ktime_get_boot_ns": Effect(0),
    "ktime_get_coarse_ns": Effect(0),
    "ktime_get_tai_ns": Effect(0),
    "ringbuf_output": Effect(4),
    "ringbuf_reserve": Effect(3, Result.MEMORY),
    "ringbuf_submit": Effect(2),
    "ringbuf_discard": Effect(2),
    "ringbuf_query": Effect(2),
    "snprintf_btf": Effect(5, writes=(Write(1, register=2),)),
    "per_cpu_ptr": Effect(2, Result.MEMORY),
    "this_cpu_ptr": Effect(1, Result.MEMORY_NOT_NULL),
    "check_mtu": Effect(5, writes=(Write(3, 4),)),
    "for_each_map_elem": Effect(4, callback=2),
    "snprintf": Effect(5, writes=(Write(1, register=2),)),
    "timer_init": Effect(3),
    "timer_set_callback": Effect(2, callback=2, callback_later=True),
    "timer_start": Effect(3),
    "timer_cancel": Effect(1),
    "trace_vprintk": Effect(4),
    "loop": Effect(4, callback=2),
    "strncmp": Effect(3),
    "xdp_get_buff_len": Effect(1),
    "xdp_load_bytes": Effect(4, writes=(Write(3, register=4),), reads_packet=True),
    "xdp_store_bytes": Effect(4, writes_packet=True),
    "map_lookup_percpu_elem": Effect(3, Result.MAP_VALUE),
    "ringbuf_reserve_dynptr": Effect(4, writes=(Write(4, _DYNPTR_SIZE),)),
    "ringbuf_submit_dynptr": Effect(2, writes=(Write(1, _DYNPTR_SIZE),)),
    "ringbuf_discard_dynptr": Effect(2, writes=(Write(1, _DYNPTR_SIZE),)),
    "dynptr_from_mem": Effect(4, writes=(Write(4, _DYNPTR_SIZE),)),
    "dynptr_read": Effect(5, writes=(Write(1, register=2),)),
    "dynptr_write": Effect(5),
    "dynptr_data": Effect(3, Result.MEMORY),
    "tcp_raw_gen_syncookie_ipv4": Effect(3),
    "tcp_raw_gen_syncookie_ipv6": Effect(3),
    "tcp_raw_check_syncookie_ipv4": Effect(2),
    "tcp_raw_check_syncookie_ipv6": Effect(2),
    "user_ringbuf_drain": Effect(4, callback=2),
}

HELPER_EFFECTS: Mapping[int, Effect] = {
    number: _BY_NAME[name] for number, name in enumerate(HELPERS) if name in _BY_NAME
}
"""By helper number: the helpers that an XDP program may call."""

KFUNC_EFFECTS: Mapping[str, Effect] = {
    "bpf_xdp_metadata_rx_timestamp": Effect(2, writes=(Write(2, 8),)),
    "bpf_xdp_metadata_rx_hash": Effect(3, writes=(Write(2, 4), Write(3, 4))),
    "bpf_xdp_metadata_rx_vlan_tag": Effect(3, writes=(Write(2, 2), Write(3, 2))),
    "bpf_dynptr_from_xdp": Effect(3, writes=(Write(3, _DYNPTR_SIZE),)),
    "bpf_iter_num_new": Effect(3, writes=(Write(1, 8),)),
    "bpf_iter_num_next": Effect(1, Result.MEMORY, writes=(Write(1, 8),)),
    "bpf_iter_num_destroy": Effect(1, writes=(Write(1, 8),)),
    "bpf_rcu_read_lock": Effect(0),
    "bpf_rcu_read_unlock": Effect(0),
}
