# SPDX-License-Identifier: Apache-2.0
"""Functions that make instructions, for programs that are generated.

Where the second operand can be either, a :class:`Register` is a register and any other int is an
immediate. Distances are in slots, from the end of the instruction. Sizes are in bytes, widths in
bits. All functions raise ``UsageError`` rather than return an instruction that is not known.
"""

from __future__ import annotations

from typing import Literal

from xdpkit.errors import UsageError
from xdpkit.isa.forms import CallKind
from xdpkit.isa.instruction import Instruction, signed32
from xdpkit.isa.opcodes import (
    ADDR_SPACE_CAST,
    LD_IMM64,
    AluOp,
    Atomic,
    Class,
    JmpOp,
    Mode,
    Register,
    Size,
    Source,
)
from xdpkit.uapi.bpf import PseudoSrc
from xdpkit.uapi.helpers import HELPERS

Width = Literal[32, 64]

_SIZES = {size.bits // 8: size for size in Size}
_HELPER_NUMBERS = {name: number for number, name in enumerate(HELPERS)}


def _known(instruction: Instruction) -> Instruction:
    if not instruction.is_known:
        raise UsageError(
            f"assemble {instruction}", cause="the instruction set has no such instruction"
        )
    return instruction


def _size(size: int) -> Size:
    try:
        return _SIZES[size]
    except KeyError:
        raise UsageError(
            f"assemble an access to {size} bytes", cause="the sizes are 1, 2, 4 and 8 bytes"
        ) from None


def _with_operand(
    opcode: int, dst: Register, operand: Register | int, *, width: Width, offset: int = 0
) -> Instruction:
    if isinstance(operand, Register):
        return _known(Instruction(opcode | Source.X, dst, operand, offset))
    # A 32-bit operation takes the same 32 bits signed or not; a 64-bit one extends the sign.
    imm = signed32(operand) if width == 32 and 0 <= operand < 1 << 32 else operand
    return _known(Instruction(opcode | Source.K, dst, 0, offset, imm))


def _alu_class(width: Width) -> Class:
    return Class.ALU64 if width == 64 else Class.ALU


def alu(
    op: AluOp,
    dst: Register,
    operand: Register | int,
    *,
    width: Width = 64,
    signed: bool = False,
) -> Instruction:
    """Return ``dst op= operand``; ``signed`` is for DIV and MOD."""
    return _with_operand(_alu_class(width) | op, dst, operand, width=width, offset=int(signed))


def mov(dst: Register, operand: Register | int, *, width: Width = 64) -> Instruction:
    """Return ``dst = operand``; an immediate is sign-extended from 32 bits."""
    return alu(AluOp.MOV, dst, operand, width=width)


def mov_sx(
    dst: Register, src: Register, bits: Literal[8, 16, 32], *, width: Width = 64
) -> Instruction:
    """Return ``dst = (s<bits>)src``."""
    return _with_operand(_alu_class(width) | AluOp.MOV, dst, src, width=width, offset=bits)


def addr_space_cast(dst: Register, src: Register, *, to_kernel: bool) -> Instruction:
    """Return the conversion of an arena pointer to the kernel's address space, or from it."""
    opcode = Class.ALU64 | AluOp.MOV | Source.X
    return Instruction(opcode, dst, src, ADDR_SPACE_CAST, 1 if to_kernel else 1 << 16)


def neg(dst: Register, *, width: Width = 64) -> Instruction:
    """Return ``dst = -dst``."""
    return Instruction(_alu_class(width) | AluOp.NEG, dst)


def to_endian(
    dst: Register, bits: Literal[16, 32, 64], *, byteorder: Literal["little", "big"]
) -> Instruction:
    """Return the conversion between the machine's byte order and the given one."""
    source = Source.X if byteorder == "big" else Source.K
    return _known(Instruction(Class.ALU | AluOp.END | source, dst, imm=bits))


def bswap(dst: Register, bits: Literal[16, 32, 64]) -> Instruction:
    """Return the unconditional byte swap of the lower bits."""
    return _known(Instruction(Class.ALU64 | AluOp.END, dst, imm=bits))


def ld_imm64(dst: Register, value: int, *, source: PseudoSrc | Literal[0] = 0) -> Instruction:
    """Return the two-slot load of a number, or of what ``source`` makes of it.

    Args:
        dst: the register.
        value: signed or unsigned 64 bits; a map's fd, a BTF id, a function's distance in slots.
        source: what the value is.
    """
    imm = value + (1 << 64) if -(1 << 63) <= value < 0 else value
    return _known(Instruction(LD_IMM64, dst, source, imm=imm))


def ld_map_value(dst: Register, fd: int, offset: int) -> Instruction:
    """Return the load of an address ``offset`` bytes into the first value of a map."""
    return ld_imm64(dst, fd | offset << 32, source=PseudoSrc.MAP_VALUE)


def load(
    dst: Register, base: Register, offset: int = 0, *, size: int = 8, signed: bool = False
) -> Instruction:
    """Return ``dst = *(base + offset)``."""
    mode = Mode.MEMSX if signed else Mode.MEM
    return _known(Instruction(Class.LDX | mode | _size(size), dst, base, offset))


def store(base: Register, offset: int, operand: Register | int, *, size: int = 8) -> Instruction:
    """Return ``*(base + offset) = operand``."""
    code = Mode.MEM | _size(size)
    if isinstance(operand, Register):
        return _known(Instruction(Class.STX | code, base, operand, offset))
    return _known(Instruction(Class.ST | code, base, 0, offset, operand))


def atomic(
    op: Atomic, base: Register, offset: int, operand: Register, *, size: int = 8
) -> Instruction:
    """Return the atomic operation on ``*(base + offset)``.

    ``operand`` is the value, and the register that a fetching operation returns the old value
    in; for ``LOAD_ACQ`` it is the register loaded. ``CMPXCHG`` compares with r0 and returns there.
    """
    code = Class.STX | Mode.ATOMIC | _size(size)
    if op is Atomic.LOAD_ACQ:
        return _known(Instruction(code, operand, base, offset, op))
    return _known(Instruction(code, base, operand, offset, op))


def jump(distance: int) -> Instruction:
    """Return an unconditional jump: ``goto``, or ``gotol`` where 16 bits do not suffice."""
    if -(1 << 15) <= distance < 1 << 15:
        return Instruction(Class.JMP | JmpOp.JA, offset=distance)
    return _known(Instruction(Class.JMP32 | JmpOp.JA, imm=distance))


def branch(
    op: JmpOp, left: Register, right: Register | int, distance: int, *, width: Width = 64
) -> Instruction:
    """Return ``if left op right goto distance``."""
    cls = Class.JMP if width == 64 else Class.JMP32
    return _with_operand(cls | op, left, right, width=width, offset=distance)


def may_goto(distance: int) -> Instruction:
    """Return the jump that the kernel takes when a loop has run too long."""
    return _known(Instruction(Class.JMP | JmpOp.JCOND, offset=distance))


def call(helper: str | int) -> Instruction:
    """Return a call of a helper, by its name (with or without ``bpf_``) or number."""
    if isinstance(helper, str):
        number = _HELPER_NUMBERS.get(helper.removeprefix("bpf_"))
        if number is None:
            raise UsageError(f"assemble a call of {helper}", cause="there is no such helper")
    else:
        number = helper
    return _known(Instruction(Class.JMP | JmpOp.CALL, src=CallKind.HELPER, imm=number))


def call_subprogram(distance: int) -> Instruction:
    """Return a call of the subprogram whose entry is ``distance`` slots away."""
    return _known(Instruction(Class.JMP | JmpOp.CALL, src=CallKind.SUBPROGRAM, imm=distance))


def call_kfunc(btf_id: int, *, module: int = 0) -> Instruction:
    """Return a call of a kernel function.

    Args:
        btf_id: the function's id in the BTF of the kernel, or of a module.
        module: index of the module's BTF in the ``fd_array`` of the load; 0 is the kernel.
    """
    return _known(
        Instruction(Class.JMP | JmpOp.CALL, src=CallKind.KFUNC, offset=module, imm=btf_id)
    )


def exit() -> Instruction:
    """Return the return from the program or subprogram."""
    return Instruction(Class.JMP | JmpOp.EXIT)
