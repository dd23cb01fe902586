# SPDX-License-Identifier: Apache-2.0
"""The fields of ``struct xdpkit_md`` that the kernel's ``struct xdp_md`` does not have."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.isa.opcodes import SLOT_SIZE, AluOp, Class

BASE = 1024
"""Where they begin, in bytes. What is before them is the kernel's."""

NO_PORT = 0xFFFFFFFF
"""``XDPKIT_NO_PORT``: the ``port_index`` of an interface that has no port."""

_CLASS = 0x07
_ACCESSES = frozenset({Class.LDX, Class.STX, Class.ST})
_NUMBERS = frozenset(
    {Class.ALU64 | AluOp.ADD, Class.ALU64 | AluOp.MOV, Class.ALU | AluOp.MOV}
)  # dst += imm, dst = imm
_PLACES = frozenset(range(BASE, BASE + 256))  # there will never be more


@dataclass(frozen=True, slots=True)
class Field:
    """A field; offset and size are in bytes."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of what follows it."""
        return self.offset + self.size


FIELDS = (
    Field("port_index", 1024, 4),
    Field("frame_len", 1028, 4),
    Field("cookie", 1032, 8),
)
"""The fields, as ``xdpkit.h`` has them, by offset."""


def field_at(offset: int) -> Field | None:
    """Return the field that the byte at an offset of the context belongs to."""
    return next((field for field in FIELDS if field.offset <= offset < field.end), None)


def may_read(code: bytes | bytearray) -> bool:
    """Return whether a program may read the fields, by a glance at its machine code.

    The answer is no for nearly all programs that read none, and takes next to no time. Loads and
    stores tell, and numbers that compilers add to the pointer where one of two fields is read.

    Args:
        code: in this machine's byte order.
    """
    whole = memoryview(code)[: len(code) // SLOT_SIZE * SLOT_SIZE]
    opcodes = whole[::SLOT_SIZE]
    offsets, numbers = whole.cast("h")[1::4].tolist(), whole.cast("i")[1::2].tolist()
    # Most programs have no such number anywhere, and it takes no loop to see that.
    if max(offsets, default=0) < BASE and _PLACES.isdisjoint(numbers):
        return False
    return any(
        (offset >= BASE and opcode & _CLASS in _ACCESSES)
        or (number in _PLACES and opcode in _NUMBERS)
        for opcode, offset, number in zip(opcodes, offsets, numbers, strict=True)
    )
