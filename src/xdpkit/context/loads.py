# SPDX-License-Identifier: Apache-2.0
"""What takes the place of an instruction that reads a field."""

from __future__ import annotations

import sys

from xdpkit.context.accesses import Access
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Mode, Register
from xdpkit.uapi.attr import XdpMd

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


def unforeseeable(load: Instruction, access: Access) -> list[Instruction]:
    """Return what has a number of which the verifier knows as little as of a kept field's part.

    It is a part of some field of the kernel's, which has 32 bits as those that are kept.
    """
    dst, base = Register(load.dst), Register(load.src)
    instructions = []
    distance = access.field.offset + access.skipped - load.offset
    if distance:
        # The verifier takes accesses from where the context begins only.
        instructions += [asm.mov(dst, base), asm.alu(AluOp.SUB, dst, distance)]
        base = dst
    instructions.append(asm.load(dst, base, XdpMd.rx_queue_index.offset, size=4))
    is_signed = _extends_the_sign(load)
    if is_signed or access.size < 4:
        bits = 64 - 8 * access.size
        instructions.append(asm.alu(AluOp.LSH, dst, bits))
        instructions.append(asm.alu(AluOp.ARSH if is_signed else AluOp.RSH, dst, bits))
    return instructions


def _extends_the_sign(load: Instruction) -> bool:
    return load.opcode & _MODE == Mode.MEMSX
