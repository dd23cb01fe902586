# SPDX-License-Identifier: Apache-2.0
"""What an instruction is said to do: kind, registers, targets."""

from __future__ import annotations

import pytest

from xdpkit.isa import CallKind, Instruction, Kind, asm
from xdpkit.isa.forms import FORMS
from xdpkit.isa.opcodes import LD_IMM64, AluOp, Atomic, Class, JmpOp, Register
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2, R3, R4, R5, R6, _, _, R9, R10 = Register
CALLER_SAVED = {R0, R1, R2, R3, R4, R5}
UNKNOWN = Instruction(0x8D, dst=1)


def test_no_two_rows_of_the_table_claim_the_same_instruction() -> None:
    def overlap(a: object, b: object) -> bool:
        assert isinstance(a, range | tuple)
        assert isinstance(b, range | tuple)
        if isinstance(a, range) and isinstance(b, range):
            return max(a.start, b.start) < min(a.stop, b.stop)
        finite, other = (a, b) if isinstance(a, tuple) else (b, a)
        return any(value in other for value in finite)

    clashes = [
        (one.text, other.text)
        for index, one in enumerate(FORMS)
        for other in FORMS[index + 1 :]
        if one.opcode == other.opcode
        and overlap(one.dst, other.dst)
        and overlap(one.src, other.src)
        and overlap(one.offset, other.offset)
        and overlap(one.imm, other.imm)
    ]
    assert clashes == []


@pytest.mark.parametrize(
    ("instruction", "uses", "defines"),
    [
        (asm.mov(R1, 5), set(), {R1}),
        (asm.mov(R1, R2), {R2}, {R1}),
        (asm.mov_sx(R1, R2, 8), {R2}, {R1}),
        (asm.addr_space_cast(R1, R2, to_kernel=True), {R2}, {R1}),
        (asm.alu(AluOp.ADD, R1, 5), {R1}, {R1}),
        (asm.alu(AluOp.ADD, R1, R2), {R1, R2}, {R1}),
        (asm.neg(R3), {R3}, {R3}),
        (asm.bswap(R3, 16), {R3}, {R3}),
        (asm.ld_imm64(R3, 1), set(), {R3}),
        (asm.load(R1, R2), {R2}, {R1}),
        (asm.store(R10, -8, 1), {R10}, set()),
        (asm.store(R10, -8, R1), {R10, R1}, set()),
        (asm.atomic(Atomic.ADD, R1, 0, R2), {R1, R2}, set()),
        (asm.atomic(Atomic.FETCH_ADD, R1, 0, R2), {R1, R2}, {R2}),
        (asm.atomic(Atomic.XCHG, R1, 0, R2), {R1, R2}, {R2}),
        (asm.atomic(Atomic.CMPXCHG, R1, 0, R2), {R0, R1, R2}, {R0}),
        (asm.atomic(Atomic.LOAD_ACQ, R1, 0, R2), {R1}, {R2}),
        (asm.atomic(Atomic.STORE_REL, R1, 0, R2), {R1, R2}, set()),
        (Instruction(0x30, imm=14), {R6}, CALLER_SAVED),
        (Instruction(0x50, src=9, imm=14), {R6, R9}, CALLER_SAVED),
        (asm.jump(3), set(), set()),
        (asm.may_goto(3), set(), set()),
        (asm.branch(JmpOp.JEQ, R1, 5, 3), {R1}, set()),
        (asm.branch(JmpOp.JEQ, R1, R2, 3), {R1, R2}, set()),
        (asm.call("map_lookup_elem"), {R1, R2, R3, R4, R5}, CALLER_SAVED),
        (asm.call_subprogram(3), {R1, R2, R3, R4, R5}, CALLER_SAVED),
        (asm.call_kfunc(3), {R1, R2, R3, R4, R5}, CALLER_SAVED),
        (asm.exit(), {R0}, set()),
        (UNKNOWN, set(Register), set(Register) - {R10}),
    ],
)
def test_registers_read_and_changed(
    instruction: Instruction, uses: set[int], defines: set[int]
) -> None:
    assert instruction.uses == uses
    assert instruction.defines == defines


@pytest.mark.parametrize(
    ("instruction", "traits"),
    [
        (asm.mov(R1, 5), set()),
        (asm.ld_imm64(R1, 5), set()),
        (asm.load(R1, R2), {"is_load"}),
        (asm.atomic(Atomic.LOAD_ACQ, R1, 0, R2), {"is_load"}),
        (Instruction(0x30, imm=14), {"is_load"}),
        (asm.store(R10, -8, 1), {"is_store"}),
        (asm.store(R10, -8, R1), {"is_store"}),
        (asm.atomic(Atomic.STORE_REL, R1, 0, R2), {"is_store"}),
        (asm.atomic(Atomic.ADD, R1, 0, R2), {"is_load", "is_store"}),
        (asm.jump(1), {"is_jump", "is_unconditional"}),
        (asm.jump(40_000), {"is_jump", "is_unconditional"}),
        (asm.branch(JmpOp.JNE, R1, 0, 1), {"is_jump", "is_conditional"}),
        (asm.may_goto(1), {"is_jump", "is_conditional"}),
        (asm.call(1), {"is_call"}),
        (asm.exit(), {"is_exit"}),
        (UNKNOWN, set()),
    ],
)
def test_classification(instruction: Instruction, traits: set[str]) -> None:
    names = (
        "is_load",
        "is_store",
        "is_jump",
        "is_conditional",
        "is_unconditional",
        "is_call",
        "is_exit",
    )
    assert {name for name in names if getattr(instruction, name)} == traits


@pytest.mark.parametrize(
    ("instruction", "size"),
    [
        (asm.load(R1, R2, size=1), 1),
        (asm.load(R1, R2, size=2, signed=True), 2),
        (asm.store(R1, 0, R2, size=4), 4),
        (asm.atomic(Atomic.ADD, R1, 0, R2), 8),
        (asm.ld_imm64(R1, 0), None),
        (asm.exit(), None),
    ],
)
def test_access_size(instruction: Instruction, size: int | None) -> None:
    assert instruction.access_size == size


def test_calls_say_what_they_call() -> None:
    calls = [asm.call(1), asm.call_subprogram(4), asm.call_kfunc(77)]
    assert [call.call_kind for call in calls] == [
        CallKind.HELPER,
        CallKind.SUBPROGRAM,
        CallKind.KFUNC,
    ]
    assert asm.exit().call_kind is None


@pytest.mark.parametrize(
    ("instruction", "target"),
    [
        (asm.jump(5), 106),
        (asm.jump(-101), 0),
        (asm.jump(100_000), 100_101),
        (asm.branch(JmpOp.JSLT, R1, R2, -1), 100),
        (asm.may_goto(2), 103),
        (asm.call_subprogram(-200), -99),
        (asm.ld_imm64(R1, 7, source=PseudoSrc.FUNC), 108),
        (asm.ld_imm64(R1, 0xFFFFFFFF, source=PseudoSrc.FUNC), 100),
        (asm.ld_imm64(R1, 7), None),
        (asm.call(1), None),
        (asm.call_kfunc(1), None),
        (asm.exit(), None),
        (UNKNOWN, None),
    ],
)
def test_targets_count_slots_from_the_slot_after(
    instruction: Instruction, target: int | None
) -> None:
    assert instruction.target(100) == target


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0xB7, dst=11),
        Instruction(0xB7, dst=1, src=1),
        Instruction(0xB7, dst=1, offset=1),
        Instruction(0xBF, dst=1, src=2, imm=1),
        Instruction(0xBF, dst=1, src=2, offset=1),
        Instruction(0xBC, dst=1, src=2, offset=32),
        Instruction(0x1F, dst=1, src=2, offset=1),
        Instruction(0x8F, dst=1),
        Instruction(0xDF, dst=1, imm=16),
        Instruction(0xDC, dst=1, imm=24),
        Instruction(0x61, dst=1, src=2, imm=1),
        Instruction(0x62, dst=1, src=2),
        Instruction(0x63, dst=1, src=2, imm=1),
        Instruction(0x99, dst=1, src=2),
        Instruction(0x38),
        Instruction(0xD3, dst=1, src=2),
        Instruction(0xDB, dst=1, src=2, imm=0xE0),
        Instruction(0x05, imm=1),
        Instruction(0x06, offset=1),
        Instruction(0x16, dst=1, src=1),
        Instruction(0xE5, imm=1),
        Instruction(0xE6),
        Instruction(0x85, src=3),
        Instruction(0x85, offset=1),
        Instruction(0x86),
        Instruction(0x8D),
        Instruction(0x95, offset=1),
        Instruction(0x96),
        Instruction(LD_IMM64, src=7),
        Instruction(LD_IMM64, src=1, imm=1 << 32),
        Instruction(LD_IMM64, offset=1),
        Instruction(0x00),
        Instruction(0x195),
        Instruction(-1),
    ],
    ids=repr,
)
def test_reserved_fields_and_undefined_opcodes_make_an_instruction_unknown(
    instruction: Instruction,
) -> None:
    assert not instruction.is_known
    assert instruction.kind is None
    assert instruction.access_size is None


def test_the_class_is_there_for_unknown_instructions_too() -> None:
    assert UNKNOWN.op_class is Class.JMP
    assert [Instruction(opcode).op_class for opcode in range(8)] == list(Class)


def test_kind_names_what_an_instruction_does() -> None:
    assert asm.atomic(Atomic.ADD, R1, 0, R2).kind is Kind.ATOMIC
    assert asm.ld_imm64(R1, 0).kind is Kind.CONSTANT
