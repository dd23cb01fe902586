# SPDX-License-Identifier: Apache-2.0
"""The functions that make instructions, by the text of what they make."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xdpkit.errors import UsageError
from xdpkit.isa import Instruction, asm, format_instruction
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2 = Register.R0, Register.R1, Register.R2


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (asm.mov(R1, R2, width=32), "w1 = w2"),
        (asm.mov(R1, -1), "r1 = -1"),
        (asm.mov(R1, 0xFFFFFFFF, width=32), "w1 = -1"),
        (asm.mov_sx(R1, R2, 32), "r1 = (s32)r2"),
        (asm.mov_sx(R1, R2, 16, width=32), "w1 = (s16)w2"),
        (asm.addr_space_cast(R1, R2, to_kernel=True), "r1 = addr_space_cast(r2, 0, 1)"),
        (asm.addr_space_cast(R1, R2, to_kernel=False), "r1 = addr_space_cast(r2, 1, 0)"),
        (asm.alu(AluOp.ARSH, R1, 32), "r1 s>>= 32"),
        (asm.alu(AluOp.DIV, R1, R2, signed=True), "r1 s/= r2"),
        (asm.alu(AluOp.MOD, R1, 7, width=32), "w1 %= 7"),
        (asm.neg(R1, width=32), "w1 = -w1"),
        (asm.to_endian(R1, 16, byteorder="big"), "r1 = be16 r1"),
        (asm.to_endian(R1, 64, byteorder="little"), "r1 = le64 r1"),
        (asm.bswap(R1, 32), "r1 = bswap32 r1"),
        (asm.ld_imm64(R1, -1), "r1 = 0xffffffffffffffff"),
        (asm.ld_imm64(R1, 3, source=PseudoSrc.MAP_FD), "r1 = map[fd:3]"),
        (asm.ld_map_value(R1, 3, 16), "r1 = map[fd:3][0]+16"),
        (asm.load(R1, R2), "r1 = *(u64 *)(r2 +0)"),
        (asm.load(R1, R2, -4, size=4, signed=True), "r1 = *(s32 *)(r2 -4)"),
        (asm.store(R1, 2, R2, size=2), "*(u16 *)(r1 +2) = r2"),
        (asm.store(R1, 1, 255, size=1), "*(u8 *)(r1 +1) = 255"),
        (asm.atomic(Atomic.ADD, R1, 0, R2), "lock *(u64 *)(r1 +0) += r2"),
        (asm.atomic(Atomic.LOAD_ACQ, R1, 8, R2), "r2 = load_acquire((u64 *)(r1 +8))"),
        (asm.atomic(Atomic.STORE_REL, R1, 8, R2, size=1), "store_release((u8 *)(r1 +8), r2)"),
        (asm.jump(32767), "goto pc+32767"),
        (asm.jump(32768), "gotol pc+32768"),
        (asm.jump(-32769), "gotol pc-32769"),
        (asm.branch(JmpOp.JEQ, R1, R2, 4), "if r1 == r2 goto pc+4"),
        (asm.branch(JmpOp.JSGT, R1, -1, 4), "if r1 s> 0xffffffff goto pc+4"),
        (asm.branch(JmpOp.JNE, R1, 0xDEADBEEF, 4, width=32), "if w1 != 0xdeadbeef goto pc+4"),
        (asm.may_goto(3), "may_goto pc+3"),
        (asm.call("redirect_map"), "call bpf_redirect_map#51"),
        (asm.call("bpf_redirect_map"), "call bpf_redirect_map#51"),
        (asm.call(12), "call bpf_tail_call#12"),
        (asm.call_subprogram(9), "call pc+9"),
        (asm.call_kfunc(9, module=1), "call kernel-function#9"),
        (asm.exit(), "exit"),
    ],
)
def test_instructions_are_what_they_say(instruction: Instruction, text: str) -> None:
    assert format_instruction(instruction) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: asm.mov(R1, 1 << 31),
        lambda: asm.mov(R1, 1 << 32, width=32),
        lambda: asm.alu(AluOp.ADD, R1, R2, signed=True),
        lambda: asm.alu(AluOp.NEG, R1, R2),
        lambda: asm.ld_imm64(R1, 1 << 64),
        lambda: asm.ld_imm64(R1, -1, source=PseudoSrc.MAP_FD),
        lambda: asm.load(R1, R2, 1 << 15),
        lambda: asm.load(R1, R2, size=3),
        lambda: asm.load(R1, R2, size=8, signed=True),
        lambda: asm.atomic(Atomic.ADD, R1, 0, R2, size=2),
        lambda: asm.jump(1 << 31),
        lambda: asm.branch(JmpOp.JEQ, R1, 0, 1 << 15),
        lambda: asm.branch(JmpOp.EXIT, R1, 0, 1),
        lambda: asm.may_goto(1 << 15),
        lambda: asm.call("no_such_helper"),
        lambda: asm.call_subprogram(1 << 31),
    ],
)
def test_what_the_instruction_set_does_not_have_is_refused(
    make: Callable[[], Instruction],
) -> None:
    with pytest.raises(UsageError, match=r"^assemble "):
        make()
