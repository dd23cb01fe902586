# SPDX-License-Identifier: Apache-2.0
"""What takes the place of an instruction that reads a field."""

from __future__ import annotations

import sys

from xdpkit.context.accesses import Access
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import Mode, Register

_MODE = 0xE0
_U32 = 1 << 32


def constant(load: Instruction, access: Access, value: int) -> Instruction:
    """Return what has a part of a constant field without reading anything.

    Args:
        load: the instruction. access: what it reads.
        value: of the whole field.
    """
    part = value.to_bytes(access.field.size, sys.byteorder)[access.skipped :][: access.size]
    number = int.from_bytes(part, sys.byteorder, signed=_extends_the_sign(load))
    dst = Register(load.dst)
    if number >= _U32:
        return asm.ld_imm64(dst, number)
    return asm.mov(dst, number, width=64 if number < 0 else 32)


def kept(load: Instruction, access: Access, base: Register, place: int) -> Instruction:
    """Return what reads a part of a field that is kept, ``place`` bytes from a register."""
    return asm.load(
        Register(load.dst),
        base,
        place + access.skipped,
        size=access.size,
        signed=_extends_the_sign(load),
    )


def _extends_the_sign(load: Instruction) -> bool:
    return load.opcode & _MODE == Mode.MEMSX
