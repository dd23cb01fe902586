# SPDX-License-Identifier: Apache-2.0
"""Structures that can grow, as the kernel wants those of its system calls.

The rule is that of the kernel's page on adding system calls
(Documentation/process/adding-syscalls.rst), applied to what xdpkit itself leaves in maps: a
structure says how large its writer knew it, and new fields are appended. A reader takes fields that
are absent for zero. Fields that it does not know it may pass over only if they are zero.

What has no fixed size are *parts*: bytes behind the structure, to which a pair of offset and size
in it points. Numbers are in this machine's byte order and aligned as C aligns them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from ctypes import Structure, c_uint32, sizeof
from dataclasses import dataclass
from typing import Generic, TypeVar

from xdpkit.errors import ObjectFormatError, UsageError

MAX_USED = 64 << 20
"""Bytes that nothing of this kind exceeds: a reader need not take more into memory."""

_ALIGNMENT = 8


class Part(Structure):
    """Where a part is, in bytes from the start of the structure; size 0: there is none."""

    _fields_ = [("offset", c_uint32), ("size", c_uint32)]


HEAD = (
    ("magic", c_uint32),
    ("size", c_uint32),
    ("crc", c_uint32),
    ("used", c_uint32),
)
"""What they all begin with.

``size`` is that of the structure, ``used`` counts the parts, too, and ``crc`` is the CRC-32 (IEEE
802.3, as zlib has it) of the used bytes with ``crc`` itself as zero.
"""


class _Head(Structure):
    _fields_ = [*HEAD]


LayoutT = TypeVar("LayoutT", bound=Structure)


@dataclass(frozen=True, slots=True)
class Unpacked(Generic[LayoutT]):
    """A structure that was read.

    Attributes:
        fields: those that this version knows. tail: those behind them, as bytes.
        data: the used bytes.
        kind: what it is, for errors.
    """

    fields: LayoutT
    tail: bytes
    data: bytes
    kind: str

    def part(self, name: str, *, unit: int = 1) -> bytes:
        """Return a part, which has to be made of units of this many bytes.

        Raises:
            ObjectFormatError: it is not, or it is not within the used bytes.
        """
        where: Part = getattr(self.fields, name)
        if where.size == 0:
            return b""
        if where.offset + where.size > len(self.data):
            raise ObjectFormatError(f"{name} reaches out of it", file=self.kind)
        if where.size % unit:
            raise ObjectFormatError(
                f"{name} has {where.size} bytes, no multiple of {unit}", file=self.kind
            )
        return self.data[where.offset : where.offset + where.size]

    def text(self, name: str) -> str:
        """Return a part that is text."""
        return self.part(name).decode("utf-8", "surrogateescape")


def text(value: str, name: str) -> bytes:
    """Return text as the bytes of a part.

    Raises:
        UsageError: it has surrogates that stand for no byte.
    """
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"store {name} {value!r}", cause="it is no text") from None


def pack(
    fields: Structure, numbers: Mapping[str, int], parts: Mapping[str, bytes], tail: bytes
) -> bytes:
    """Return a structure and its parts as bytes.

    Args:
        fields: a structure that begins with HEAD, with its magic number; the rest is filled in.
        numbers, parts: values of its fields.
        tail: fields behind those that its type has.

    Raises:
        UsageError: a number does not fit into its field, or all of it is too large.
    """
    for name, number in numbers.items():
        setattr(fields, name, number)
        if getattr(fields, name) != number:
            raise UsageError(f"store {name} {number}", cause="it is out of range")
    fields.size = end = sizeof(fields) + len(tail)
    for name, data in parts.items():
        if data:
            end += -end % _ALIGNMENT
            setattr(fields, name, Part(end, len(data)))
            end += len(data)
    if end > MAX_USED:
        raise UsageError("store a structure", cause=f"it has {end} bytes, at most {MAX_USED}")
    fields.used = end
    packed = bytearray(end)
    packed[: fields.size] = bytes(fields) + tail
    for name, data in parts.items():
        start = getattr(fields, name).offset
        if data:
            packed[start : start + len(data)] = data
    fields.crc = zlib.crc32(packed)
    packed[: sizeof(_Head)] = bytes(fields)[: sizeof(_Head)]
    return bytes(packed)


def used_by(data: bytes, magic: int) -> int | None:
    """Return how many bytes are used by what begins so; None if it is not of this kind."""
    if len(data) < sizeof(_Head):
        return None
    head = _Head.from_buffer_copy(data)
    return int(head.used) if head.magic == magic and head.used <= MAX_USED else None


def unpack(kind: str, magic: int, layout: type[LayoutT], data: bytes) -> Unpacked[LayoutT]:
    """Read a structure; bytes behind the used ones are ignored.

    Args:
        kind: what it is, for errors.
        magic: what it begins with.
        layout: its fields from HEAD on, as far as they are known.
        data: the bytes.

    Raises:
        ObjectFormatError: it is none, or it is damaged.
    """
    if used_by(data, magic) is None:
        raise ObjectFormatError(f"it does not begin as a {kind} does", file=kind)
    head = _Head.from_buffer_copy(data)
    if not sizeof(_Head) <= head.size <= head.used <= len(data):
        raise ObjectFormatError(
            f"{head.size} of {head.used} bytes cannot be its structure, in {len(data)} bytes",
            file=kind,
        )
    used = data[: head.used]
    crc = head.crc
    head.crc = 0
    if zlib.crc32(used[sizeof(_Head) :], zlib.crc32(head)) != crc:
        raise ObjectFormatError("its checksum is wrong", file=kind)
    known = sizeof(layout)
    fields = layout.from_buffer_copy(used[: head.size][:known].ljust(known, b"\0"))
    return Unpacked(fields, used[known : head.size], used, kind)
