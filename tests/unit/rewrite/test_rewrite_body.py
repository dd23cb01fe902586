# SPDX-License-Identifier: Apache-2.0
"""Programs taken apart and put together again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases, random_programs
from tests.unit.rewrite.bodies import EXIT, instructions_of, machine_code, records
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.isa import CallKind, Instruction, asm
from xdpkit.isa.opcodes import LD_IMM64, JmpOp, Register
from xdpkit.obj.spec import ProgramSpec, RelocationKind
from xdpkit.rewrite import Body, maps_of
from xdpkit.rewrite.body import Step, edit
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register
WHAT = "try"


def linked(spec: ProgramSpec) -> Body:
    """Return a program as the kernel is given it, but for numbers of what it refers to."""
    program = spec.link()
    kfuncs = {
        slot
        for relocation in program.relocations
        if relocation.kind is RelocationKind.KFUNC
        for slot in relocation.slots
    }
    code = bytearray(program.code)
    call = machine_code(asm.call_kfunc(1))
    for slot in kfuncs:
        code[8 * slot : 8 * slot + 8] = call
    return Body(bytes(code), program.func_info, program.line_info)


@pytest.mark.parametrize(
    ("source", "compiler"),
    [
        pytest.param(source, compiler, id=f"{source.stem}-{compiler.name}")
        for source in (*build.sources(), *sorted({case.source for case in cases.cases()}))
        for compiler in build.compilers()
        if compiler.family != "gcc-bpf" and build.suits(source, compiler)
    ],
)
def test_what_is_taken_apart_and_not_changed_is_the_same(
    source: Path, compiler: build.Compiler
) -> None:
    path = build.build(source, compiler).path if source.parent == build.FOLDER else None
    obj = xdpkit.read(path or cases.path(source, compiler))
    if obj.byteorder != sys.byteorder:
        pytest.skip("of the other byte order")
    for spec in obj.programs.values():
        body = linked(spec)
        assert edit(body, what=WHAT).body(what=WHAT) == body


@settings(max_examples=50)
@given(random_programs.programs(modern=True))
def test_random_programs_are_the_same_too(program: tuple[Instruction, ...]) -> None:
    body = Body(machine_code(*program))
    assert edit(body, what=WHAT).body(what=WHAT) == body


LOAD_FUNCTION = Instruction(LD_IMM64, R1, PseudoSrc.FUNC, imm=5)
# 0: call 6; 1-2: the address of the function at 7; 3: back to 0; 4: over 5; 5, 6: exits; 7, 8.
PROGRAM = Body(
    machine_code(
        asm.call_subprogram(6),
        LOAD_FUNCTION,
        asm.branch(JmpOp.JEQ, R0, 1, -4),
        asm.branch(JmpOp.JEQ, R0, 2, 1),
        EXIT,
        EXIT,
        asm.mov(R0, 1),
        EXIT,
    ),
    records((0, 10), (7, 11)),
    records((0, 1, 2, 3), (4, 1, 2, 4), (7, 1, 2, 5)),
)


def test_what_moves_takes_its_records_and_what_leads_to_it_along() -> None:
    code = edit(PROGRAM, what=WHAT)
    main, other = code.functions
    main.prepend([Step(asm.mov(R6, R1)), Step(asm.mov(R7, 0))])
    main.steps.insert(5, Step(asm.mov(R8, 0)))
    other.prepend([Step(asm.mov(R9, 0))])
    assert code.body(what=WHAT) == Body(
        machine_code(
            asm.mov(R6, R1),
            asm.mov(R7, 0),
            asm.call_subprogram(7),
            Instruction(LD_IMM64, R1, PseudoSrc.FUNC, imm=6),
            asm.branch(JmpOp.JEQ, R0, 1, -4),
            asm.mov(R8, 0),
            asm.branch(JmpOp.JEQ, R0, 2, 1),
            EXIT,
            EXIT,
            asm.mov(R9, 0),
            asm.mov(R0, 1),
            EXIT,
        ),
        records((0, 10), (10, 11)),
        # The kernel wants a line where a function begins.
        records((0, 1, 2, 3), (2, 1, 2, 3), (7, 1, 2, 4), (10, 1, 2, 5), (11, 1, 2, 5)),
    )


def test_a_function_that_only_its_record_tells_of_is_one() -> None:
    body = Body(machine_code(EXIT, asm.mov(R0, R1), EXIT), records((0, 1), (1, 2)))
    code = edit(body, what=WHAT)
    assert [function.slot for function in code.functions] == [0, 1]
    assert code.function_at(1) is code.functions[1]
    assert code.function_at(2) is None


FAR = 32_767


@pytest.mark.parametrize("jump", [asm.jump(FAR), asm.branch(JmpOp.JEQ, R1, 0, FAR)])
def test_a_jump_that_reaches_no_longer_is_refused(jump: Instruction) -> None:
    filler = [asm.mov(R7, 0)] * FAR
    body = Body(machine_code(jump, *filler, EXIT))
    code = edit(body, what=WHAT)
    code.main.steps.insert(1, Step(asm.mov(R7, 0)))
    with pytest.raises(RequirementUnmet) as refused:
        code.body(what=WHAT)
    assert str(refused.value) == (
        "try: the jump at slot 0 would have to reach +32768 instructions, and a jump reaches 32767"
    )


def test_an_instruction_that_is_not_known_is_refused_with_its_place() -> None:
    body = Body(machine_code(asm.mov(R0, 0), Instruction(0xFF, 1, 2, 3, 4), EXIT))
    with pytest.raises(RequirementUnmet) as refused:
        edit(body, what=WHAT)
    assert str(refused.value) == (
        "try: this version of xdpkit does not know the instruction at slot 1:"
        " (unknown 0xff dst=1 src=2 offset=3 imm=4)"
    )


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (Body(b""), "the program has no instructions"),
        (Body(b"abc"), "the code is 3 bytes long, which is no multiple of 8"),
        (
            Body(machine_code(asm.jump(1), EXIT)),
            "the jump at slot 0 leads to slot 2, which is no instruction of its function",
        ),
        (
            Body(machine_code(asm.jump(1), asm.ld_imm64(R0, 0), EXIT)),
            "the jump at slot 0 leads to slot 2, which is no instruction of its function",
        ),
        (
            Body(machine_code(asm.call_subprogram(1), asm.jump(1), EXIT, EXIT)),
            "the jump at slot 1 leads to slot 3, which is no instruction of its function",
        ),
        (
            Body(machine_code(asm.call_subprogram(-3), EXIT)),
            "a function is at slot -2, where no instruction begins",
        ),
        (
            Body(machine_code(EXIT), line_info=records((1, 0, 0, 0))),
            "a line record is at slot 1, where no instruction begins",
        ),
        (
            Body(machine_code(EXIT, EXIT), line_info=records((1, 0, 0, 0), (0, 0, 0, 0))),
            "the line records are not in the order of the instructions",
        ),
        (
            Body(machine_code(EXIT), func_info=b"abc"),
            "the function records are no multiple of 8 bytes",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(body: Body, cause: str) -> None:
    with pytest.raises(ObjectFormatError) as refused:
        edit(body, what=WHAT)
    assert refused.value.cause == cause


def test_maps_are_counted_once_each() -> None:
    def load(number: int, source: PseudoSrc) -> Instruction:
        return asm.ld_imm64(R1, number, source=source)

    body = Body(
        machine_code(
            load(5, PseudoSrc.MAP_FD),
            load(7 | 16 << 32, PseudoSrc.MAP_VALUE),
            load(7, PseudoSrc.MAP_FD),
            load(9, PseudoSrc.BTF_ID),
            asm.ld_imm64(R2, 11),
            EXIT,
        )
    )
    assert maps_of(body) == {5, 7}


def test_calls_of_kernel_functions_stay_what_they_are() -> None:
    call = asm.call_kfunc(1234, module=2)
    body = Body(machine_code(call, EXIT))
    code = edit(body, what=WHAT)
    code.main.prepend([Step(asm.mov(R6, R1))])
    assert instructions_of(code.body(what=WHAT))[1] == call
    assert call.call_kind is CallKind.KFUNC
