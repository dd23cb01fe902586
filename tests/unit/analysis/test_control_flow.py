# SPDX-License-Identifier: Apache-2.0
"""Malformed programs are refused, hostile ones come to an end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.corpus_actions import random_programs
from tests.unit.analysis.programs import (
    R0,
    R1,
    R6,
    R7,
    R10,
    Line,
    address_of,
    call,
    kfunc,
    returns,
    run,
    subject,
    unknown,
    when,
)
from xdpkit.analysis import CauseKind, Subject, analyse
from xdpkit.errors import ObjectFormatError
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.uapi.bpf import PseudoSrc

PASS = returns(2)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="nothing"),
        pytest.param((asm.jump(5), asm.exit()), id="jump beyond the end"),
        pytest.param((asm.jump(-2), asm.exit()), id="jump before the start"),
        pytest.param((asm.call_subprogram(9), asm.exit()), id="call beyond the end"),
        pytest.param((asm.jump(1), asm.ld_imm64(R0, 0), asm.exit()), id="into an instruction"),
        pytest.param((asm.mov(R0, 1),), id="no exit"),
        pytest.param((asm.branch(JmpOp.JEQ, R1, 0, -1),), id="branch at the end"),
        pytest.param((asm.call("jiffies64"),), id="call at the end that returns"),
    ],
)
def test_control_flow_that_leaves_the_program_is_refused(lines: tuple[Line, ...]) -> None:
    with pytest.raises(ObjectFormatError):
        run(*lines)


def test_a_function_that_begins_nowhere_is_refused() -> None:
    with pytest.raises(ObjectFormatError):
        run(asm.ld_imm64(R0, 0), asm.exit(), exception_callback=1)


def test_a_program_may_end_in_a_throw() -> None:
    assert str(run(asm.mov(R1, 1), kfunc("bpf_throw")).actions) == "DROP"


def test_an_endless_loop_returns_nothing() -> None:
    found = run(asm.jump(-1))
    assert (found.actions.values, found.actions.any, found.returned) == (frozenset(), False, None)


def test_deep_calls_are_given_up() -> None:
    lines: list[Line] = []
    for number in range(40):
        lines += [f"f{number}", call(f"f{number + 1}"), asm.exit()]
    found = run(*lines, "f40", *PASS)
    assert [why.cause.kind for why in found.actions.unknown] == [CauseKind.TOO_COMPLEX]


def test_a_program_that_is_too_complex_still_says_what_it_uses() -> None:
    loops: list[Line] = [*unknown(R6), asm.mov(R7, 0)]
    for number in range(300):
        loops += [
            f"again{number}",
            asm.alu(AluOp.ADD, R7, R6),
            *[asm.store(R10, -8 - 8 * place, R7) for place in range(number % 60)],
            when(JmpOp.JNE, R7, number, "again0" if number % 2 else f"again{number}"),
        ]
    found = run(*loops, call("f"), *PASS, "f", asm.call("jiffies64"), *PASS)
    assert 118 in found.helpers
    assert 2 in found.actions


def test_an_address_in_a_frame_that_is_gone_does_no_harm() -> None:
    lines = (
        asm.mov(R1, R10),
        asm.alu(AluOp.ADD, R1, -8),
        call("f"),
        asm.load(R1, R10, -8),
        asm.mov(Register.R2, 8),
        asm.store(R1, -8, 1),
        asm.call("probe_read_kernel"),
        asm.load(R1, R10, -8),
        kfunc("some_kernel_function"),
        *PASS,
    )
    assert str(run(*lines, "f", asm.store(R1, 0, R10), *PASS).actions) == "PASS"


def test_a_very_long_chain_of_calls_comes_to_an_end() -> None:
    lines: list[Line] = []
    for number in range(3000):
        lines += [f"f{number}", asm.store(R10, -16, 0), call(f"f{number + 1}"), asm.exit()]
    found = run(*lines, "f3000", *PASS)
    assert found.stack.depth == 16 * 3000
    assert found.actions.any


def test_a_callback_that_nobody_knows_makes_everything_possible() -> None:
    found = run(*unknown(Register.R2), asm.call("loop"), *PASS)
    assert found.actions.any
    assert found.notes == ("which function is called back is not known",)


EASY = settings(suppress_health_check=list(HealthCheck), max_examples=300)


@EASY
@given(random_programs.programs(modern=True))
def test_analysing_twice_gives_the_same(program: tuple[Instruction, ...]) -> None:
    again = Subject("random", program)
    assert analyse(again) == analyse(again)


@EASY
@given(random_programs.programs(modern=True), st.data())
def test_a_damaged_program_gives_a_result_or_is_refused(
    program: tuple[Instruction, ...], data: st.DataObject
) -> None:
    code = bytearray(encode(program))
    for _ in range(data.draw(st.integers(1, 8))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(code))


OPCODES = sorted({opcode for opcode in range(256) if Instruction(opcode).is_known} | {0x06, 0xFF})
slots = st.builds(
    lambda opcode, registers, offset, imm: (
        bytes((opcode, registers)) + offset.to_bytes(2, "little", signed=True) + imm
    ),
    st.sampled_from(OPCODES),
    st.integers(0, 10).flatmap(lambda dst: st.integers(0, 2).map(lambda src: dst | src << 4)),
    st.integers(-4, 4),
    st.one_of(
        st.integers(0, 215).map(lambda imm: imm.to_bytes(4, "little")),
        st.binary(min_size=4, max_size=4),
    ),
)


@EASY
@given(st.lists(slots, max_size=30))
def test_any_instructions_give_a_result_or_are_refused(code: list[bytes]) -> None:
    attempt(b"".join([*code, encode((asm.exit(),))]))


def attempt(code: bytes) -> None:
    try:
        found = analyse(Subject.from_code("random", code))
    except ObjectFormatError:
        return
    assert found.reachable


def test_a_subject_without_names_has_some() -> None:
    bare = Subject.from_code(
        "bare", encode(subject(call("f"), asm.exit(), "f", *PASS).instructions)
    )
    found = analyse(bare)
    assert [use.name for use in found.functions] == ["bare", "function at 2"]


def test_a_load_without_a_reference_names_the_map_by_its_number() -> None:
    code = encode((asm.ld_imm64(R1, 5, source=PseudoSrc.MAP_FD), asm.mov(R0, 2), asm.exit()))
    assert list(analyse(Subject.from_code("bare", code)).maps) == ["fd 5"]


def test_a_big_endian_program_is_read_as_such() -> None:
    lines = (asm.store(R10, -8, 2, size=4), asm.load(R0, R10, -5, size=1), asm.exit())
    assert str(run(*lines, byteorder="big").actions) == "PASS"
    assert str(run(*lines, byteorder="little").actions) == "ABORTED"
    swapped = (asm.mov(R0, 0x0200), asm.to_endian(R0, 16, byteorder="big"), asm.exit())
    assert str(run(*swapped, byteorder="big").actions) == "512"
    assert str(run(*swapped, byteorder="little").actions) == "PASS"


def test_the_address_of_a_map_is_none_of_its_values() -> None:
    found = run(address_of(R1, "map .rodata"), asm.load(R0, R1, size=4), asm.exit())
    assert found.actions.any
