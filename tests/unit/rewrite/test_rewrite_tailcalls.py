# SPDX-License-Identifier: Apache-2.0
"""Which programs count where programs tail-call one another."""

from __future__ import annotations

from tests.unit.rewrite.bodies import machine_code
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import Register
from xdpkit.rewrite import Body, CountingPlan, Member, plan_counting
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2, R3, R6 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R6

A, B = 71, 72
FIRST, LEAF, OTHER, THIRD = 1, 2, 3, 4

LEAVE = (asm.mov(R0, 2), asm.exit())


def load(array: int) -> Instruction:
    return asm.ld_imm64(R2, array, source=PseudoSrc.MAP_FD)


def tail_call(array: int, slot: int | None = 0) -> tuple[Instruction, ...]:
    """Tail-call a slot, None: one that depends on the packet; r6 is the context."""
    index = asm.load(R3, R6, 16, size=4) if slot is None else asm.mov(R3, slot)
    return asm.mov(R1, R6), load(array), index, asm.call("tail_call")


def program(name: str, *parts: tuple[Instruction, ...]) -> Member:
    code = [asm.mov(R6, R1)]
    for part in parts:
        code += part
    return Member(name, Body(machine_code(*code, *LEAVE)))


def with_subprogram(name: str, main: tuple[Instruction, ...], *sub: Instruction) -> Member:
    """A program whose main function ends by calling a subprogram, with the context."""
    code = asm.mov(R6, R1), *main, asm.mov(R1, R6), asm.call_subprogram(2), *LEAVE
    return Member(name, Body(machine_code(*code, asm.mov(R6, R1), *sub, *LEAVE)))


PLAIN = program("leaf")


def test_a_program_without_tail_calls_counts_alone() -> None:
    assert plan_counting(FIRST, {FIRST: PLAIN, LEAF: PLAIN}, {A: {0: LEAF}}) == CountingPlan(
        counted=frozenset({FIRST}),
        uncounted=frozenset(),
        arrays=frozenset(),
        original_arrays=frozenset(),
        loads={},
        not_counted=(),
    )


def test_what_main_tail_calls_counts_and_what_that_tail_calls_too() -> None:
    members = {
        FIRST: program("first", tail_call(A)),
        LEAF: program("leaf", tail_call(A, 1), tail_call(B)),
        OTHER: PLAIN,
        THIRD: PLAIN,
    }
    plan = plan_counting(FIRST, members, {A: {0: LEAF, 1: OTHER, 2: THIRD}, B: {}})
    assert plan.counted == {FIRST, LEAF, OTHER}
    assert plan.arrays == {A, B}
    assert plan.loads == {FIRST: {2: A}, LEAF: {2: A, 7: B}}
    assert not plan.uncounted | plan.original_arrays
    assert not plan.not_counted


def test_a_slot_that_is_not_known_may_be_any() -> None:
    members = {FIRST: program("first", tail_call(A, None)), LEAF: PLAIN, OTHER: PLAIN}
    assert plan_counting(FIRST, members, {A: {0: LEAF, 9: OTHER}}).counted == {FIRST, LEAF, OTHER}


def test_what_a_subprogram_tail_calls_does_not_count_nor_what_that_tail_calls() -> None:
    members = {
        FIRST: with_subprogram("first", (), *tail_call(A)),
        LEAF: program("leaf", tail_call(B)),
        OTHER: PLAIN,
    }
    plan = plan_counting(FIRST, members, {A: {0: LEAF}, B: {0: OTHER}})
    assert plan.counted == {FIRST}
    assert plan.uncounted == {LEAF, OTHER}
    assert plan.original_arrays == {A, B}
    assert not plan.arrays
    assert not plan.loads


def test_a_leaf_that_is_reached_both_ways_is_needed_twice() -> None:
    members = {
        FIRST: with_subprogram("first", tail_call(A, 1), *tail_call(A)),
        LEAF: PLAIN,
        OTHER: PLAIN,
    }
    plan = plan_counting(FIRST, members, {A: {0: LEAF, 1: LEAF, 2: OTHER}})
    assert plan.counted == {FIRST, LEAF}
    assert plan.uncounted == {LEAF}
    assert plan.arrays == plan.original_arrays == {A}
    # The subprogram's load stays as it is.
    assert plan.loads == {FIRST: {2: A}}


def test_programs_may_tail_call_one_another_in_a_circle() -> None:
    members = {FIRST: program("first", tail_call(A, 1)), LEAF: program("leaf", tail_call(A, 0))}
    plan = plan_counting(FIRST, members, {A: {0: FIRST, 1: LEAF}})
    assert plan.counted == {FIRST, LEAF}
    assert plan.loads == {FIRST: {2: A}, LEAF: {2: A}}


def test_an_array_that_main_hands_to_a_subprogram_and_uses_itself_does_not_count() -> None:
    # The subprogram is given the array in r2.
    main = (*tail_call(A), asm.mov(R1, R6), load(A))
    code = (asm.mov(R6, R1), *main, asm.call_subprogram(2), *LEAVE)
    sub = (asm.mov(R3, 0), asm.call("tail_call"), *LEAVE)
    members = {FIRST: Member("first", Body(machine_code(*code, *sub))), LEAF: PLAIN}
    plan = plan_counting(FIRST, members, {A: {0: LEAF}})
    assert plan.counted == {FIRST}
    assert not plan.loads
    assert plan.not_counted == (
        "What first reaches through program array 71 is not counted: its main function hands the"
        " array to a subprogram that tail-calls, too.",
    )


def test_what_is_not_to_be_counted_is_not_missed() -> None:
    sub = (*tail_call(A), *tail_call(B))
    members = {FIRST: with_subprogram("first", (), *sub), LEAF: Member("foreign", None)}
    plan = plan_counting(FIRST, members, {A: {0: LEAF, 1: OTHER}})
    assert plan.original_arrays == {A, B}
    assert not plan.not_counted


def test_what_cannot_be_counted_is_said() -> None:
    members = {
        FIRST: program("first", tail_call(A), tail_call(A, 1), tail_call(B)),
        LEAF: Member("foreign", None),
    }
    plan = plan_counting(FIRST, members, {A: {0: LEAF, 1: OTHER}})
    assert plan.counted == {FIRST}
    assert plan.arrays == {A, B}
    assert sorted(plan.not_counted) == [
        "What first reaches through program array 72 is not counted: what is in it is not known.",
        "What foreign (id 2) returns is not counted: its instructions were not kept with it.",
        "What program 3 returns is not counted: its instructions were not kept with it.",
    ]
