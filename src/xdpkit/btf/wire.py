# SPDX-License-Identifier: Apache-2.0
"""How BTF is laid out in bytes: the header, and how long each kind's record is.

Source: include/uapi/linux/btf.h. The number of elements (``vlen``) has 24 bits and the kind 7 bits
since the header got a third section, which describes kinds; before, the bits now used were zero.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from typing import Literal, TypeAlias

from xdpkit.btf.types import Kind
from xdpkit.errors import ObjectFormatError

ByteOrder: TypeAlias = Literal["little", "big"]

MAGIC = 0xEB9F
VERSION = 1
HEADER_SIZE = 24
LAYOUT_HEADER_SIZE = 32
KIND_FLAG = 1 << 31
MAX_VLEN = 0xFFFFFF
# The kernel's limit is 511 (KSYM_NAME_LEN). A limit keeps hostile input, whose names may all
# point into one huge string, from costing quadratic time.
MAX_NAME = 4095
# The kernel and libbpf resolve at most 32 levels.
MAX_DEPTH = 64

# Words that follow the three of struct btf_type: once, and per element.
_TAILS: dict[int, tuple[int, int]] = {
    Kind.INT: (1, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 2),
    Kind.VAR: (1, 0),
    Kind.DATASEC: (0, 3),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (1, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 3),
}


# Kinds whose third word is a size in bytes.
WITH_SIZE = frozenset(
    (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.DATASEC, Kind.FLOAT, Kind.ENUM64)
)


def kind_of(info: int) -> int:
    """Return the kind in ``btf_type.info``, which need not be one that :class:`Kind` knows."""
    return info >> 24 & 0x7F


def vlen_of(info: int) -> int:
    """Return the number of elements in ``btf_type.info``."""
    return info & MAX_VLEN


def record_words(info: int) -> int | None:
    """Return the length of the record that ``info`` begins, in 4-byte words; None: unknown kind."""
    tail = _TAILS.get(kind_of(info))
    return None if tail is None else 3 + tail[0] + tail[1] * vlen_of(info)


def prefix(byteorder: ByteOrder) -> str:
    """Return the byte order as :mod:`struct` writes it."""
    return "<" if byteorder == "little" else ">"


def words_view(data: memoryview, byteorder: ByteOrder) -> memoryview:
    """Return ``data`` as 32-bit words in native order; copied only if the order differs.

    The length must be a multiple of 4.
    """
    if byteorder == sys.byteorder:
        return data.cast("I")
    words = array("I", bytes(data))
    words.byteswap()
    return memoryview(words)


def compose(types: bytes | bytearray, strings: bytes | bytearray, byteorder: ByteOrder) -> bytes:
    """Return a whole blob, with the header that every kernel knows."""
    header = struct.pack(
        f"{prefix(byteorder)}HBBIIIII",
        MAGIC,
        VERSION,
        0,
        HEADER_SIZE,
        0,
        len(types),
        len(types),
        len(strings),
    )
    return b"".join((header, types, strings))


@dataclass(frozen=True, slots=True)
class Header:
    """Where the sections are, as byte offsets from the start of the blob."""

    byteorder: ByteOrder
    types_start: int
    types_end: int
    strings_start: int
    strings_end: int


def byteorder_of(data: bytes, what: str, minimum: int) -> tuple[ByteOrder, int]:
    """Check what the headers of .BTF and .BTF.ext begin with; return byte order and header length.

    Raises:
        ObjectFormatError: wrong magic or version, unknown flags, or a header that does not fit.
    """
    if len(data) < 8:
        raise ObjectFormatError(f"too short for a {what} header", section=what, offset=0)
    byteorder: ByteOrder = "little" if data[:2] == b"\x9f\xeb" else "big"
    magic, version, flags, length = struct.unpack_from(f"{prefix(byteorder)}HBBI", data)
    if magic != MAGIC:
        raise ObjectFormatError("the magic number is not BTF's", section=what, offset=0)
    if version != VERSION:
        raise ObjectFormatError(f"BTF version {version} is unknown", section=what, offset=2)
    if flags:
        raise ObjectFormatError(f"header flags {flags:#x} are unknown", section=what, offset=3)
    if not minimum <= length <= len(data) or length % 4:
        raise ObjectFormatError(f"header length {length} is wrong", section=what, offset=4)
    return byteorder, length


def parse_header(data: bytes, *, is_split: bool) -> Header:
    """Check the header and the bounds of the sections.

    Raises:
        ObjectFormatError: the header, or a section that it describes, is malformed, or the header
            is newer than what is known and the unknown part is not zero.
    """
    byteorder, length = byteorder_of(data, ".BTF", HEADER_SIZE)
    known = min(length, LAYOUT_HEADER_SIZE)
    if any(data[known:length]):
        raise ObjectFormatError(
            "the header has fields that are unknown", section=".BTF", offset=known
        )
    fields = struct.unpack_from(f"{prefix(byteorder)}{(known - 8) // 4}I", data, 8)
    spans = []
    for i in range(0, len(fields) - 1, 2):
        start, size = length + fields[i], fields[i + 1]
        if start + size > len(data):
            raise ObjectFormatError(
                f"{('types', 'strings', 'layout')[i // 2]} end at {start + size}, past the end",
                section=".BTF",
                offset=8 + 4 * i,
            )
        spans.append((start, start + size))
    (types_start, types_end), (strings_start, strings_end) = spans[:2]
    if types_start % 4 or (types_end - types_start) % 4:
        raise ObjectFormatError("the types are not aligned to 4 bytes", section=".BTF", offset=8)
    if strings_start == strings_end:
        if not is_split:
            raise ObjectFormatError("there is no string section", section=".BTF", offset=16)
    elif data[strings_end - 1]:
        raise ObjectFormatError(
            "the last string has no end", section=".BTF", offset=strings_end - 1
        )
    elif not is_split and data[strings_start]:
        raise ObjectFormatError(
            "the strings do not begin with the empty one (is this split BTF without its base?)",
            section=".BTF",
            offset=strings_start,
        )
    return Header(byteorder, types_start, types_end, strings_start, strings_end)
