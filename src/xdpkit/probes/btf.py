# SPDX-License-Identifier: Apache-2.0
"""Small pieces of BTF, one for each kind of type that a kernel may not know."""

from __future__ import annotations

import struct

from xdpkit.btf.types import Kind
from xdpkit.probes.ask import Reply, ask, ask_against
from xdpkit.syscalls import bpf

_MAGIC = 0xEB9F
_HEADER_SIZE = 24
_LINKAGE_GLOBAL = 1
_SIGNED = 1 << 24


def _blob(types: bytes, strings: bytes = b"\0x\0.data\0xdp_md\0") -> bytes:
    header = struct.pack(
        "=HBBIIIII", _MAGIC, 1, 0, _HEADER_SIZE, 0, len(types), len(types), len(strings)
    )
    return header + types + strings


def _type(name: int, kind: Kind, size_or_type: int, *tail: int, count: int = 0) -> bytes:
    words = (name, kind << 24 | count, size_or_type, *tail)
    return struct.pack(f"={len(words)}I", *(word & 0xFFFFFFFF for word in words))


# The strings of _blob(): "x" at 1, ".data" at 3, "xdp_md" at 9.
_INT = _type(1, Kind.INT, 4, _SIGNED | 32)
_FUNCTION = _INT + _type(0, Kind.FUNC_PROTO, 0, 1, 1, count=1)
_VARIABLE = _INT + _type(1, Kind.VAR, 1, 0)

_SAMPLES = {
    "btf": _INT,
    "btf-func": _FUNCTION + _type(1, Kind.FUNC, 2),
    "btf-func-global": _FUNCTION + _type(1, Kind.FUNC, 2, count=_LINKAGE_GLOBAL),
    "btf-datasec": _VARIABLE + _type(3, Kind.DATASEC, 4, 2, 0, 4, count=1),
    "btf-float": _type(1, Kind.FLOAT, 4),
    "btf-decl-tag": _VARIABLE + _type(1, Kind.DECL_TAG, 2, -1),
    "btf-type-tag": _INT + _type(1, Kind.TYPE_TAG, 1) + _type(0, Kind.PTR, 2),
    "btf-enum64": _type(1, Kind.ENUM64, 8, 1, 0, 0, count=1),
}


INT_BTF = _blob(_INT)
"""One 32-bit integer: BTF that every kernel with BTF takes."""

XDP_FUNCTION_BTF = _blob(
    _INT
    + _type(9, Kind.STRUCT, 0)
    + _type(0, Kind.PTR, 2)
    + _type(0, Kind.FUNC_PROTO, 1, 1, 3, count=1)
    + _type(1, Kind.FUNC, 4, count=_LINKAGE_GLOBAL)
)
"""``int x(struct xdp_md *x)``, a global function."""

XDP_FUNCTION_ID = 5
"""The function in :data:`XDP_FUNCTION_BTF`."""


def ask_btf(name: str) -> Reply:
    """Ask whether the kernel takes BTF with the kind of type that the feature is about."""
    question = f"BPF_BTF_LOAD of a sample for {name}"

    def attempt() -> None:
        bpf.btf_load(_blob(_SAMPLES[name])).close()

    if name == "btf":
        return ask(question, attempt)
    return ask_against(question, attempt, lambda: bpf.btf_load(INT_BTF).close())
