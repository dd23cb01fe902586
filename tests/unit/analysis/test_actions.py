# SPDX-License-Identifier: Apache-2.0
"""Which actions a program can return: each construct, and each trap by name."""

from __future__ import annotations

import pytest

from tests.unit.analysis.programs import (
    MAPS,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R10,
    Line,
    actions,
    address_of,
    call,
    kfunc,
    lookup,
    returns,
    run,
    subject,
    unknown,
    when,
)
from xdpkit.analysis import CauseKind, SubjectMap, analyse
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp
from xdpkit.uapi.bpf import MapType, ProgType

PASS = returns(2)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(returns(2), "PASS", id="constant"),
        pytest.param(returns(42), "42", id="no action"),
        pytest.param(returns(-1), "4294967295", id="negative"),
        pytest.param(
            (asm.mov(R0, 1), when(JmpOp.JEQ, R1, 0, "end"), asm.mov(R0, 2), "end", asm.exit()),
            "PASS",
            id="an address is not null",
        ),
        pytest.param(
            (*unknown(R6), asm.exit()),
            "any",
            id="what a helper returns",
        ),
        pytest.param(
            (*unknown(R6), asm.alu(AluOp.AND, R0, 3), asm.exit()),
            "ABORTED DROP PASS TX",
            id="masked",
        ),
        pytest.param(
            (
                *unknown(R6),
                asm.mov(R0, 1),
                when(JmpOp.JGT, R6, 5, "end"),
                asm.mov(R0, 3),
                "end",
                asm.exit(),
            ),
            "DROP TX",
            id="conditional move",
        ),
        pytest.param(
            (*unknown(R6), when(JmpOp.JGT, R0, 4, "out"), asm.exit(), "out", *PASS),
            "ABORTED DROP PASS TX REDIRECT",
            id="checked",
        ),
        pytest.param(
            (
                *unknown(R6),
                asm.mov(R7, R6, width=32),
                asm.alu(AluOp.LSH, R7, 32),
                asm.alu(AluOp.RSH, R7, 32),
                asm.mov(R8, R7),
                when(JmpOp.JGT, R8, 1, "out"),
                asm.mov(R0, R7),
                asm.exit(),
                "out",
                *PASS,
            ),
            "ABORTED DROP PASS",
            id="checked through a copy",
        ),
        pytest.param(
            (
                *unknown(R6),
                asm.alu(AluOp.AND, R0, 1),
                asm.store(R10, -8, R0),
                asm.load(R3, R10, -8),
                asm.mov(R0, R3),
                asm.exit(),
            ),
            "ABORTED DROP",
            id="spilled",
        ),
        pytest.param(
            (
                asm.store(R10, -8, -1),
                asm.store(R10, -8, 2, size=1),
                asm.load(R0, R10, -8, size=1),
                asm.exit(),
            ),
            "PASS",
            id="overwritten in part",
        ),
        pytest.param(
            (asm.store(R10, -8, 0x0103), asm.load(R0, R10, -7, size=1), asm.exit()),
            "DROP",
            id="part of a spill",
        ),
        pytest.param((asm.mov(R0, 0x0200), asm.bswap(R0, 16), asm.exit()), "PASS", id="byte swap"),
        pytest.param(
            (asm.mov(R1, 0xFF), asm.mov_sx(R0, R1, 8), asm.exit()),
            "4294967295",
            id="sign extension",
        ),
        pytest.param(
            (address_of(R1, "value .rodata+4"), asm.load(R0, R1, size=4), asm.exit()),
            "PASS",
            id="constant in .rodata",
        ),
        pytest.param(
            (
                *unknown(R6),
                asm.alu(AluOp.AND, R6, 1),
                asm.alu(AluOp.LSH, R6, 2),
                address_of(R1, "value .rodata+0"),
                asm.alu(AluOp.ADD, R1, R6),
                asm.load(R0, R1, size=4),
                asm.exit(),
            ),
            "DROP PASS",
            id="table in .rodata",
        ),
        pytest.param(
            (address_of(R1, "value .rodata+6"), asm.load(R0, R1, size=4), asm.exit()),
            "any",
            id="beyond .rodata",
        ),
        pytest.param(
            (address_of(R1, "value .bss+0"), asm.load(R0, R1, size=4), asm.exit()),
            "any",
            id=".bss is no constant",
        ),
        pytest.param(
            (*lookup("hash"), when(JmpOp.JEQ, R0, 0, "end"), asm.mov(R0, 1), "end", asm.exit()),
            "ABORTED DROP",
            id="null is 0",
        ),
        pytest.param(
            (asm.mov(R1, 3), asm.mov(R2, 3), when(JmpOp.JNE, R1, R2, "end"), *PASS, "end", *PASS),
            "PASS",
            id="dead branch",
        ),
    ],
)
def test_a_construct_gives_its_actions(lines: tuple[Line, ...], expected: str) -> None:
    assert actions(*lines) == expected


def test_only_the_low_32_bits_of_r0_count() -> None:
    assert actions(asm.ld_imm64(R0, 0xABCD_0000_0001), asm.exit()) == "DROP"
    assert actions(asm.ld_imm64(R0, 1 << 63), asm.exit()) == "ABORTED"


@pytest.mark.parametrize(
    ("flags", "expected"), [(0, "REDIRECT"), (1, "ABORTED"), (None, "ABORTED REDIRECT")]
)
def test_bpf_redirect_with_flags_aborts(flags: int | None, expected: str) -> None:
    chosen = (asm.mov(R2, R6),) if flags is None else (asm.mov(R2, flags),)
    lines = (*unknown(R6), asm.mov(R1, 3), *chosen, asm.call("redirect"), asm.exit())
    assert actions(*lines) == expected


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("devmap", 0, "ABORTED REDIRECT"),
        ("devmap", 2, "PASS REDIRECT"),
        ("devmap", 4, "ABORTED"),
        ("devmap", 8, "REDIRECT"),
        ("devmap", 8 | 16 | 2, "REDIRECT"),
        ("devmap", 16 | 1, "DROP REDIRECT"),
        ("cpumap", 3, "TX REDIRECT"),
        ("cpumap", 8, "ABORTED"),
        ("unheard of", 8, "ABORTED REDIRECT"),
        ("devmap", None, "ABORTED DROP PASS TX REDIRECT"),
    ],
)
def test_bpf_redirect_map_falls_back_to_what_its_flags_name(
    name: str, flags: int | None, expected: str
) -> None:
    chosen = (asm.mov(R3, R6),) if flags is None else (asm.mov(R3, flags),)
    target = (address_of(R1, f"map {name}"), asm.mov(R2, 0))
    lines = (*unknown(R6), *target, *chosen, asm.call("redirect_map"), asm.exit())
    assert actions(*lines) == expected


def test_what_a_redirect_returns_in_other_program_types_is_not_guessed() -> None:
    lines = (asm.mov(R1, 3), asm.mov(R2, 0), asm.call("redirect"), asm.exit())
    assert actions(*lines, type=ProgType.SCHED_CLS) == "any"


def escaping(*more: Line) -> tuple[Line, ...]:
    """Keep 2 at fp-8 and give its address away, as the first argument."""
    return (
        asm.store(R10, -8, 2),
        asm.store(R10, -16, 1),
        asm.mov(R1, R10),
        asm.alu(AluOp.ADD, R1, -8),
        *more,
        asm.load(R0, R10, -8),
        asm.exit(),
    )


def test_a_stack_slot_whose_address_escapes_to_a_helper_is_unknown() -> None:
    size = asm.mov(R2, 8)
    assert actions(*escaping(size, asm.mov(R3, 0), asm.call("probe_read_kernel"))) == "any"
    assert actions(*escaping(asm.call("skb_load_bytes"))) == "any"


def test_a_stack_slot_whose_address_escapes_to_a_kernel_function_stays_unknown() -> None:
    assert actions(*escaping(kfunc("some_kernel_function"))) == "any"
    again = asm.store(R10, -8, 3)
    assert actions(*escaping(kfunc("some_kernel_function"), again)) == "any"


def test_a_stack_slot_below_what_escapes_is_kept() -> None:
    lines = (*escaping(kfunc("some_kernel_function"))[:-2], asm.load(R0, R10, -16), asm.exit())
    assert actions(*lines) == "DROP"


def test_a_helper_writes_no_more_than_it_is_told() -> None:
    lines = (asm.mov(R2, 4), asm.mov(R3, 0), asm.call("probe_read_kernel"))
    beyond = (*escaping(*lines)[:-2], asm.load(R0, R10, -4, size=4), asm.exit())
    assert actions(*beyond) == "ABORTED"


def test_a_key_that_a_helper_only_reads_is_kept() -> None:
    lines = (
        *lookup("hash"),
        asm.store(R10, -8, 2),
        asm.mov(R2, R10),
        asm.alu(AluOp.ADD, R2, -8),
        address_of(R1, "map hash"),
        asm.call("map_lookup_elem"),
        asm.load(R0, R10, -8),
        asm.exit(),
    )
    assert actions(*lines) == "PASS"


def test_a_value_that_is_popped_from_a_queue_is_unknown() -> None:
    lines = (
        asm.store(R10, -8, 2),
        asm.mov(R2, R10),
        asm.alu(AluOp.ADD, R2, -8),
        address_of(R1, "map queue"),
        asm.call("map_pop_elem"),
    )
    assert actions(*lines, asm.load(R0, R10, -8, size=4), asm.exit()) == "any"
    assert actions(*lines, asm.load(R0, R10, -4, size=4), asm.exit()) == "ABORTED"


def test_a_slot_that_is_written_through_one_of_two_pointers_is_unknown() -> None:
    lines = (
        *unknown(R6),
        asm.store(R10, -8, 1),
        asm.store(R10, -16, 1),
        asm.mov(R7, R10),
        asm.alu(AluOp.ADD, R7, -8),
        when(JmpOp.JEQ, R6, 0, "write"),
        asm.alu(AluOp.ADD, R7, -8),
        "write",
        asm.store(R7, 0, R6),
        *[asm.mov(R1, 0)] * 40,
        asm.load(R0, R10, -8),
        asm.exit(),
    )
    assert actions(*lines) == "any"


def test_main_returns_what_a_subprogram_returns() -> None:
    lines = (*unknown(R1), call("f"), asm.exit(), "f", *unknown(R6), asm.alu(AluOp.AND, R0, 1))
    assert actions(*lines, asm.exit()) == "ABORTED DROP"


def test_what_a_subprogram_returns_is_no_action() -> None:
    lines = (call("f"), when(JmpOp.JEQ, R0, 77, "drop"), *PASS, "drop", *returns(1))
    assert actions(*lines, "f", *returns(77)) == "DROP"


def test_a_subprogram_is_followed_for_each_argument() -> None:
    lines = (
        *unknown(R6),
        asm.mov(R1, 1),
        when(JmpOp.JEQ, R6, 0, "other"),
        call("same"),
        asm.exit(),
        "other",
        asm.mov(R1, 42),
        call("same"),
        when(JmpOp.JEQ, R0, 42, "pass"),
        *returns(99),
        "pass",
        *PASS,
        "same",
        asm.mov(R0, R1),
        asm.exit(),
    )
    assert actions(*lines) == "DROP PASS"


def test_a_subprogram_writes_to_its_callers_stack() -> None:
    lines = (
        asm.store(R10, -8, 1),
        asm.mov(R1, R10),
        asm.alu(AluOp.ADD, R1, -8),
        call("f"),
        asm.load(R0, R10, -8),
        asm.exit(),
        "f",
        asm.store(R1, 0, 3),
        asm.store(R10, -8, 77),
        *returns(0),
    )
    assert actions(*lines) == "TX"


def test_a_subprogram_without_a_pointer_leaves_its_callers_stack() -> None:
    lines = (
        asm.store(R10, -8, 1),
        call("f"),
        asm.load(R0, R10, -8),
        asm.exit(),
        "f",
        asm.store(R10, -8, 77),
        *returns(0),
    )
    assert actions(*lines) == "DROP"


def test_more_contexts_than_are_kept_apart_become_one() -> None:
    body: list[Line] = [*unknown(R6)]
    for number in range(40):
        body += [
            when(JmpOp.JNE, R6, number, f"not_{number}"),
            asm.mov(R1, number),
            call("small"),
            asm.exit(),
            f"not_{number}",
        ]
    small = ("small", asm.mov(R0, R1), asm.alu(AluOp.AND, R0, 1), asm.exit())
    assert actions(*body, *PASS, *small) == "ABORTED DROP PASS"


def leaf(*numbers: int) -> SubjectMap:
    """Return a program array with a program for each number, which returns it."""
    programs = {slot: subject(*returns(number)) for slot, number in enumerate(numbers)}
    return SubjectMap("jumps", MapType.PROG_ARRAY, programs=programs)


def tail_call(slot: int | None) -> tuple[Line, ...]:
    chosen = unknown(R3) if slot is None else (asm.mov(R3, slot),)
    return (
        asm.mov(R6, R1),
        *chosen,
        asm.mov(R1, R6),
        address_of(R2, "map jumps"),
        asm.call("tail_call"),
    )


def with_leaf(*numbers: int) -> dict[str, SubjectMap]:
    return {**MAPS, "jumps": leaf(*numbers)}


@pytest.mark.parametrize(
    ("slot", "expected"),
    [(0, "DROP PASS"), (1, "PASS TX"), (2, "PASS"), (None, "DROP PASS TX")],
)
def test_a_tail_call_can_fail_and_falls_through(slot: int | None, expected: str) -> None:
    assert actions(*tail_call(slot), *PASS, maps=with_leaf(1, 3)) == expected


def test_a_tail_call_into_an_array_of_unknown_contents_returns_anything() -> None:
    found = run(*tail_call(0), *PASS).actions
    assert str(found) == "PASS any"
    assert [(str(why.cause), why.cause.kind) for why in found.unknown] == [
        ("from tail call through jumps", CauseKind.TAIL_CALL)
    ]


def test_a_tail_call_in_a_subprogram_returns_the_leafs_value_to_its_caller() -> None:
    lines = (
        call("f"),
        when(JmpOp.JEQ, R0, 77, "drop"),
        when(JmpOp.JEQ, R0, 5, "tx"),
        *PASS,
        "drop",
        *returns(1),
        "tx",
        *returns(3),
        "f",
        *tail_call(0),
        *returns(5),
    )
    assert actions(*lines, maps=with_leaf(77)) == "DROP TX"


def test_programs_that_tail_call_each_other_are_all_counted() -> None:
    programs: dict[int, object] = {}
    maps = {**MAPS, "jumps": SubjectMap("jumps", MapType.PROG_ARRAY, programs=programs)}  # type: ignore[arg-type]
    first = subject(*tail_call(1), *returns(1), maps=maps, name="first")
    second = subject(*tail_call(None), *returns(3), maps=maps, name="second")
    programs.update({0: first, 1: second})
    assert str(analyse(first).actions) == "DROP TX"
    assert str(analyse(second).actions) == "DROP TX"


def test_tail_calls_that_count_up_come_to_an_end() -> None:
    programs: dict[int, object] = {}
    maps = {**MAPS, "jumps": SubjectMap("jumps", MapType.PROG_ARRAY, programs=programs)}  # type: ignore[arg-type]
    lines = (call("f"), asm.alu(AluOp.ADD, R0, 1), asm.exit(), "f", *tail_call(0), *returns(0))
    counts = programs[0] = subject(*lines, maps=maps)
    assert analyse(counts).actions.any


def test_an_array_can_hold_what_was_analysed_before() -> None:
    known = {0: run(*returns(3))}
    maps = {**MAPS, "jumps": SubjectMap("jumps", MapType.PROG_ARRAY, programs=known)}
    assert actions(*tail_call(0), *PASS, maps=maps) == "PASS TX"


def test_what_is_thrown_is_an_action() -> None:
    assert actions(asm.mov(R1, 1), kfunc("bpf_throw")) == "DROP"


def test_what_a_subprogram_throws_is_an_action_too() -> None:
    lines = (call("f"), *PASS, "f", *unknown(R6), when(JmpOp.JEQ, R6, 0, "fine"))
    throw = (asm.mov(R1, 3), kfunc("bpf_throw"), "fine", *returns(9))
    assert actions(*lines, *throw) == "PASS TX"


def test_an_exception_callback_says_what_is_returned() -> None:
    lines = (asm.mov(R1, 1), kfunc("bpf_throw"), "handler", asm.mov(R0, R1))
    code = subject(*lines, asm.alu(AluOp.ADD, R0, 40), asm.exit())
    with_callback = subject(*lines, asm.alu(AluOp.ADD, R0, 40), asm.exit(), exception_callback=2)
    assert str(analyse(code).actions) == "DROP"
    assert str(analyse(with_callback).actions) == "41"


def test_a_leaf_that_throws_ends_its_callers_program() -> None:
    thrower = subject(asm.mov(R1, 1), kfunc("bpf_throw"))
    maps = {**MAPS, "jumps": SubjectMap("jumps", MapType.PROG_ARRAY, programs={0: thrower})}
    lines = (call("f"), *PASS, "f", *tail_call(0), *returns(0))
    assert actions(*lines, maps=maps) == "DROP PASS"


def test_a_global_function_is_followed_and_marked_as_replaceable() -> None:
    found = run(call("global_f"), asm.exit(), "global_f", *returns(3))
    assert str(found.actions) == "TX"
    assert [(use.name, use.replaceable) for use in found.functions] == [
        ("main", False),
        ("global_f", True),
    ]


def test_a_global_function_of_a_foreign_program_returns_anything() -> None:
    lines = (call("global_f"), asm.exit(), "global_f", *returns(3))
    found = run(*lines, is_foreign=True).actions
    assert str(found) == "any"
    assert str(found.unknown[0].cause) == "from function global_f, which can be replaced"
    assert actions(call("f"), asm.exit(), "f", *returns(3), is_foreign=True) == "TX"


def test_a_global_function_of_a_foreign_program_writes_what_it_is_given() -> None:
    lines = (*escaping(call("global_f")), "global_f", *returns(3))
    assert actions(*lines) == "PASS"
    assert actions(*lines, is_foreign=True) == "any"


def looping(helper: str, *callback: Line) -> tuple[Line, ...]:
    """Keep 2 at fp-8, let a callback have its address, and return what is there then."""
    return (
        asm.store(R10, -8, 2),
        asm.mov(R1, 4),
        address_of(R2, "callback"),
        asm.mov(R3, R10),
        asm.alu(AluOp.ADD, R3, -8),
        asm.mov(R4, 0),
        asm.call(helper),
        asm.load(R0, R10, -8),
        asm.exit(),
        "callback",
        *callback,
    )


def test_a_callback_runs_any_number_of_times_and_also_not_at_all() -> None:
    assert actions(*looping("loop", asm.store(R2, 0, 1), *returns(0))) == "DROP PASS"
    once_more = (asm.load(R3, R2), asm.alu(AluOp.XOR, R3, 3), asm.store(R2, 0, R3))
    assert actions(*looping("loop", *once_more, *returns(0))) == "DROP PASS"
    adding = (asm.load(R3, R2), asm.alu(AluOp.ADD, R3, 1), asm.store(R2, 0, R3))
    assert "any" in actions(*looping("loop", *adding, *returns(0)))


def test_what_a_callback_returns_is_no_action() -> None:
    assert actions(*looping("loop", *returns(42))) == "PASS"


def test_the_index_of_a_callback_is_unknown() -> None:
    assert actions(*looping("loop", asm.store(R2, 0, R1), *returns(0))) == "any"


def test_a_callback_of_a_kernel_function_can_have_any_arguments() -> None:
    lines = (
        asm.store(R10, -8, 2),
        asm.mov(R1, R10),
        asm.alu(AluOp.ADD, R1, -16),
        address_of(R2, "callback"),
        kfunc("some_kernel_function"),
        asm.load(R0, R10, -8),
        asm.exit(),
        "callback",
        *returns(0),
    )
    found = run(*lines)
    assert found.actions.any
    assert list(found.callbacks) == ["callback"]


def test_a_timers_callback_runs_later_and_changes_no_stack() -> None:
    lines = looping("timer_set_callback", asm.call("jiffies64"), *returns(9))
    found = run(*lines)
    assert str(found.actions) == "PASS"
    assert 118 in found.helpers


@pytest.mark.parametrize(
    ("op", "memory", "expected"),
    [
        (Atomic.FETCH_ADD, "41", "TX"),
        (Atomic.XCHG, "1", "TX"),
        (Atomic.FETCH_OR, "43", "TX"),
        (Atomic.CMPXCHG, "3", "TX"),
    ],
)
def test_a_fetching_operation_writes_its_register(op: Atomic, memory: str, expected: str) -> None:
    target = R0 if op is Atomic.CMPXCHG else R6
    operand = int(memory) - 3 if op is Atomic.FETCH_ADD else 1 if op is Atomic.XCHG else 40
    lines = (asm.store(R10, -8, 3), asm.mov(R0, 0), asm.mov(R6, operand))
    fetched = (asm.atomic(op, R10, -8, R6), asm.mov(R0, target), asm.exit())
    assert actions(*lines, *fetched) == expected


def test_an_exchange_may_or_may_not_have_happened() -> None:
    lines = (asm.store(R10, -8, 3), asm.mov(R0, 0), asm.mov(R6, 1))
    after = (asm.atomic(Atomic.CMPXCHG, R10, -8, R6), asm.load(R0, R10, -8), asm.exit())
    assert actions(*lines, *after) == "DROP TX"


def test_may_goto_goes_on_both_ways() -> None:
    lines = ("again", (asm.may_goto(0), "end"), *PASS, "end", *returns(1))
    assert actions(*lines) == "DROP PASS"


def test_a_loop_counts_as_far_as_its_condition_says() -> None:
    lines = (
        *unknown(R6),
        asm.mov(R7, 0),
        "again",
        when(JmpOp.JEQ, R6, R7, "out"),
        asm.alu(AluOp.ADD, R7, 1),
        when(JmpOp.JLT, R7, 4, "again"),
        "out",
        asm.mov(R0, R7),
        asm.exit(),
    )
    assert actions(*lines) == "ABORTED DROP PASS TX REDIRECT"


def test_a_long_loop_is_widened() -> None:
    lines = (
        *unknown(R6),
        asm.mov(R7, 0),
        "again",
        asm.alu(AluOp.ADD, R7, 1),
        when(JmpOp.JLT, R7, R6, "again"),
        asm.mov(R0, R7),
        asm.exit(),
    )
    assert "any" in actions(*lines)
    constant_after = (*lines[:-2], *returns(1))
    assert actions(*constant_after) == "DROP"


def test_an_unknown_instruction_makes_everything_possible() -> None:
    found = run(*unknown(R6), Instruction(0xFF), asm.call("redirect"), *PASS)
    assert str(found.actions) == "any"
    assert [why.cause.kind for why in found.actions.unknown] == [CauseKind.UNKNOWN_INSTRUCTION]
    assert 23 in found.helpers
    assert found.notes == ("the instruction at slot 2 is not known, so anything can happen",)


def test_an_unknown_instruction_that_is_never_reached_does_not_matter() -> None:
    assert actions(*PASS, Instruction(0xFF), *PASS) == "PASS"


def test_a_function_that_calls_itself_makes_everything_possible() -> None:
    found = run(call("f"), asm.exit(), "f", call("f"), asm.exit())
    assert str(found.actions) == "any"
    assert found.notes == ("f calls itself",)


def test_each_value_has_the_instructions_that_it_comes_from() -> None:
    lines = (*unknown(R6), asm.mov(R0, 3), when(JmpOp.JEQ, R6, 0, "end"), asm.mov(R0, 42))
    found = run(*lines, "end", asm.exit(), line_of=lambda slot: f"a.c:{slot * 10}").actions
    assert {value: [str(origin) for origin in at] for value, at in found.origins.items()} == {
        3: ["a.c:20"],
        42: ["a.c:40"],
    }
    assert {value: [origin.slot for origin in at] for value, at in found.invalid.items()} == {
        42: [4]
    }


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ((asm.call("get_prandom_u32"), asm.exit()), "from helper bpf_get_prandom_u32"),
        ((asm.load(R0, R1, 16, size=4), asm.exit()), "from context field rx_queue_index"),
        ((asm.load(R2, R1, 0, size=4), asm.load(R0, R2), asm.exit()), "from packet"),
        ((*lookup("hash"), asm.load(R0, R0, size=4), asm.exit()), "from map hash"),
        ((kfunc("some_function"), asm.exit()), "from kernel function some_function"),
        ((asm.mov(R0, R10), asm.exit()), "from an address"),
        ((asm.load(R0, R10, -8), asm.exit()), "from a part of the stack that is not known"),
    ],
)
def test_a_cause_says_where_the_unknown_came_in(lines: tuple[Line, ...], cause: str) -> None:
    assert [str(why.cause) for why in run(*lines).actions.unknown] == [cause]
