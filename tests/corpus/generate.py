# SPDX-License-Identifier: Apache-2.0
"""Big XDP sources for benchmarks: many instructions, map references, calls and source lines."""

from __future__ import annotations

_HEAD = """\
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Generated: {instructions} instructions or more, {functions} subprograms.
#include "corpus.h"

"""

_MAP = """\
struct {{
\tATTR_UINT(type, MAP_ARRAY);
\tATTR_UINT(max_entries, 16);
\tATTR_TYPE(key, __u32);
\tATTR_TYPE(value, __u64);
}} map{index} SEC(".maps");

"""

_KERNEL_TYPES = """\
struct sk_buff {
\tunsigned int len, data_len, priority;
} __attribute__((preserve_access_index));

"""

_FIELD = "\tseed += __builtin_preserve_field_info(((struct sk_buff *)0)->{name}, 0);\n"
_FIELDS = ("len", "data_len", "priority")

_STEP = """\
\tkey = {key};
\tvalue = bpf_map_lookup_elem(&map{map}, &key);
\tif (value)
\t\t*value += seed ^ {number};
"""

# What clang makes of one _STEP at -O2.
_INSTRUCTIONS_PER_STEP = 11


def source(instructions: int, *, maps: int = 8, functions: int = 0, fields: int = 0) -> str:
    """Return C for one XDP program of at least `instructions` instructions once linked.

    Args:
        instructions: least number of instruction slots.
        maps: how many maps the map references go to in turn.
        functions: how many subprograms the work is spread over; 0 keeps it all in the program.
        fields: how many CO-RE relocations to add.
    """
    steps = -(-instructions // _INSTRUCTIONS_PER_STEP)
    parts = [_HEAD.format(instructions=instructions, functions=functions)]
    parts += [_MAP.format(index=index) for index in range(maps)]
    parts += [_KERNEL_TYPES] if fields else []
    body = [
        _STEP.format(key=step % 16, map=step % maps, number=step * 2654435761 % 2**31)
        for step in range(steps)
    ]
    body[:fields] = [
        _FIELD.format(name=_FIELDS[number % len(_FIELDS)]) + step
        for number, step in enumerate(body[:fields])
    ]
    if functions:
        for index in range(functions):
            parts += [
                f"static noinline int step{index}(__u64 seed)\n{{\n",
                "\t__u64 *value;\n\t__u32 key;\n\n",
                *body[index::functions],
                "\treturn seed & 1;\n}\n\n",
            ]
        body = [f"\tresult += step{index}(seed + {index});\n" for index in range(functions)]
    parts += [
        'SEC("xdp") int big(struct xdp_md *ctx)\n{\n',
        "\t__u64 seed = ctx->ingress_ifindex;\n\t__u32 result = 0;\n",
        "" if functions else "\t__u64 *value;\n\t__u32 key;\n",
        "\n",
        *body,
        "\treturn result & 1 ? XDP_DROP : XDP_PASS;\n}\n\n",
        'char _license[] SEC("license") = "GPL";\n',
    ]
    return "".join(parts)
