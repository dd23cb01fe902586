# SPDX-License-Identifier: Apache-2.0
"""The code that is made, and its records."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.unit.context.programs import Source, compiled, machine_code, text
from xdpkit.context import Provided, provide, stand_in
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite import Body
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register
PORT, LENGTH, COOKIE = 1024, 1028, 1032
EXIT = asm.exit()

KEEP_LENGTH = [
    "r2 = *(u32 *)(r1 +4)",
    "r3 = *(u32 *)(r1 +0)",
    "r2 -= r3",
    "*(u32 *)(r10 -8) = r2",
]


def provided(*sources: Source, **terms: Any) -> Provided:
    body, types = compiled(*sources)
    return provide(
        body,
        **{
            "constants": {"cookie": 0},
            "looked_up": None,
            "frags": False,
            "types": types,
            "throw": None,
            **terms,
        },
    )


def made(*instructions: Instruction, **terms: Any) -> list[str]:
    return text(provided(Source("fw", 1, instructions), **terms).body)


@pytest.mark.parametrize(
    ("load", "value", "expected"),
    [
        (asm.load(R0, R1, PORT, size=4), 3, "w0 = 3"),
        (asm.load(R0, R1, PORT, size=4), 0xFFFFFFFF, "w0 = -1"),
        (asm.load(R5, R1, PORT, size=4, signed=True), 0xFFFFFFFF, "r5 = -1"),
        (asm.load(R0, R1, PORT, size=2, signed=True), 0x7FFF7FFF, "w0 = 32767"),
        (asm.load(R0, R1, COOKIE), 0xFFFFFFFF, "w0 = -1"),
        (asm.load(R0, R1, COOKIE), 1 << 32, "r0 = 0x100000000"),
        (asm.load(R0, R1, COOKIE, size=1), 0x0101010101010101, "w0 = 1"),
    ],
)
def test_a_constant_takes_the_place_of_a_load(load: Instruction, value: int, expected: str) -> None:
    constants = {"port_index": value & 0xFFFFFFFF, "cookie": value}
    assert made(load, EXIT, constants=constants) == [expected, "exit"]


def test_frame_len_is_kept_below_what_the_program_uses() -> None:
    assert made(asm.load(R0, R1, LENGTH, size=4), EXIT) == [
        *KEEP_LENGTH,
        "r0 = *(u32 *)(r10 -8)",
        "exit",
    ]
    code = asm.store(R10, -16, 1), asm.load(R0, R1, LENGTH, size=4), EXIT
    assert "r0 = *(u32 *)(r10 -24)" in made(*code)
    assert "r0 = *(u32 *)(r10 -48)" in made(*code, stack=(40,))


def test_with_fragments_the_kernel_is_asked_for_the_length() -> None:
    assert made(asm.mov(R8, R1), asm.load(R0, R8, LENGTH, size=2), EXIT, frags=True) == [
        "r8 = r1",
        "r1 = r8",
        "call bpf_xdp_get_buff_len#188",
        "*(u32 *)(r10 -8) = r0",
        "r1 = r8",
        "r8 = r1",
        "r0 = *(u16 *)(r10 -8)",
        "exit",
    ]


@pytest.mark.parametrize(("field", "offset"), [("ingress_ifindex", 12), ("egress_ifindex", 20)])
def test_a_port_is_looked_up_by_the_interface(field: str, offset: int) -> None:
    found = provided(Source("fw", 1, (asm.load(R0, R1, PORT, size=4), EXIT)), looked_up=field)
    assert text(found.body) == [
        "r6 = r1",
        f"r2 = *(u32 *)(r6 +{offset})",
        "*(u32 *)(r10 -8) = r2",
        "r2 = r10",
        "r2 += -8",
        "r1 = 0x0",
        "call bpf_map_lookup_elem#1",
        "w1 = -1",
        "if r0 == 0x0 goto pc+1",
        "r1 = *(u32 *)(r0 +0)",
        "*(u32 *)(r10 -8) = r1",
        "r1 = r6",
        "r0 = *(u32 *)(r10 -8)",
        "exit",
    ]
    assert found.map_slots == (5,)
    assert found.fields == ("port_index",)


def test_a_constant_port_is_not_looked_up() -> None:
    code = asm.load(R0, R1, PORT, size=4), EXIT
    found = provided(
        Source("fw", 1, code), constants={"port_index": 7}, looked_up="ingress_ifindex"
    )
    assert text(found.body) == ["w0 = 7", "exit"]
    assert found.map_slots == ()


def test_what_is_kept_shares_a_block() -> None:
    code = (
        asm.load(R6, R1, LENGTH, size=4),
        asm.load(R0, R1, PORT, size=4),
        EXIT,
    )
    lines = made(*code, looked_up="ingress_ifindex")
    assert lines[-3:] == ["r6 = *(u32 *)(r10 -4)", "r0 = *(u32 *)(r10 -8)", "exit"]


def test_a_program_that_reads_no_field_stays_as_it_is() -> None:
    body = Body(machine_code(asm.load(R0, R1, 16, size=4), EXIT))
    # A value of a map is no context, however far in it is read.
    lookup = Body(
        machine_code(
            asm.store(R10, -8, 0),
            asm.mov(R2, R10),
            asm.alu(AluOp.ADD, R2, -8),
            asm.ld_imm64(R1, 5, source=PseudoSrc.MAP_FD),
            asm.call("map_lookup_elem"),
            asm.branch(JmpOp.JEQ, R0, 0, 1),
            asm.load(R0, R0, 1028, size=4),
            EXIT,
        )
    )
    for each in (body, lookup):
        found = provide(each, constants={}, looked_up=None, frags=False, types=None, throw=None)
        assert found == Provided(each, (), ())
        assert found.body is each


def test_an_address_may_be_computed_first() -> None:
    code = asm.mov(R2, PORT), asm.alu(AluOp.ADD, R1, R2), asm.load(R0, R1, size=4), EXIT
    assert made(*code, constants={"port_index": 9})[2] == "w0 = 9"


def test_a_jump_to_the_first_instruction_does_not_keep_anew() -> None:
    code = (
        asm.load(R0, R1, LENGTH, size=4),
        asm.branch(JmpOp.JGT, R0, 5, -2),
        EXIT,
    )
    assert made(*code)[4:] == ["r0 = *(u32 *)(r10 -8)", "if r0 > 0x5 goto pc-2", "exit"]


def parts(data: bytes, fields: int) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack(f"={fields}I", data))


def test_the_records_stay_with_what_they_are_about() -> None:
    main = Source(
        "fw",
        1,
        (asm.mov(R6, R1), asm.call_subprogram(2), asm.load(R0, R6, LENGTH, size=4), EXIT),
    )
    callee = Source("length", 1, (asm.load(R0, R1, LENGTH, size=4), EXIT))
    body, _ = compiled(main, callee)
    found = provided(main, callee)
    assert text(found.body) == [
        *KEEP_LENGTH,
        "r6 = r1",
        "r2 = r10",
        "r2 += -8",
        "call pc+2",
        "r0 = *(u32 *)(r10 -8)",
        "exit",
        "*(u64 *)(r10 -8) = r2",
        "r0 = *(u64 *)(r10 -8)",
        "r0 = *(u32 *)(r0 +0)",
        "exit",
    ]
    starts = [slot for slot, _ in parts(found.body.func_info, 2)]
    assert starts == [0, 10]
    assert [each[1:] for each in parts(found.body.func_info, 2)] == [
        each[1:] for each in parts(body.func_info, 2)
    ]
    lines = {slot: place >> 10 for slot, _, _, place in parts(found.body.line_info, 4)}
    # What is put before a function's first instruction is of its line.
    assert lines == {0: 1, 4: 1, 5: 2, 8: 3, 9: 4, 10: 5, 11: 5, 13: 6}


def test_a_chain_of_calls_hands_the_address_on() -> None:
    main = Source("fw", 1, (asm.mov(R2, 1), asm.call_subprogram(1), EXIT))
    middle = Source("middle", 2, (asm.store(R10, -16, R2), asm.call_subprogram(1), EXIT))
    last = Source("last", 1, (asm.load(R0, R1, LENGTH, size=1, signed=True), EXIT))
    lines = text(provided(main, middle, last).body)
    assert lines[4:] == [
        "r2 = 1",
        "r3 = r10",
        "r3 += -8",
        "call pc+1",
        "exit",
        "*(u64 *)(r10 -24) = r3",
        "*(u64 *)(r10 -16) = r2",
        "r2 = *(u64 *)(r10 -24)",
        "call pc+1",
        "exit",
        "*(u64 *)(r10 -8) = r2",
        "r0 = *(u64 *)(r10 -8)",
        "r0 = *(s8 *)(r0 +0)",
        "exit",
    ]


def test_a_jump_to_a_call_leads_to_its_new_argument() -> None:
    main = Source(
        "fw",
        1,
        (asm.branch(JmpOp.JEQ, R1, 0, 1), asm.mov(R2, 1), asm.call_subprogram(1), EXIT),
    )
    lines = text(provided(main, Source("f", 1, (asm.load(R0, R1, LENGTH, size=4), EXIT))).body)
    assert lines[4:8] == ["if r1 == 0x0 goto pc+1", "r2 = 1", "r2 = r10", "r2 += -8"]


def test_an_argument_that_is_declared_nowhere_is_left_alone() -> None:
    # The compiler made one of a structure that a static function took.
    callee = Source("f", 1, (asm.load(R0, R1, LENGTH, size=4), asm.alu(AluOp.ADD, R0, R2), EXIT))
    main = Source("fw", 1, (asm.mov(R2, 5), asm.call_subprogram(1), EXIT))
    lines = text(provided(main, callee).body)
    assert lines[4:8] == ["r2 = 5", "r3 = r10", "r3 += -8", "call pc+1"]


def test_constants_are_provided_wherever_they_are_read() -> None:
    # A global function, called back by bpf_loop.
    main = Source(
        "fw",
        1,
        (
            asm.store(R10, -8, R1),
            asm.mov(R1, 4),
            asm.ld_imm64(R2, 7, source=PseudoSrc.FUNC),
            asm.mov(R3, R10),
            asm.alu(AluOp.ADD, R3, -8),
            asm.mov(R4, 0),
            asm.call("loop"),
            asm.mov(R0, 2),
            EXIT,
        ),
    )
    callback = Source(
        "each", 2, (asm.load(R1, R2), asm.load(R0, R1, PORT, size=4), EXIT), is_global=True
    )
    lines = text(provided(main, callback, constants={"port_index": 3}).body)
    assert lines[-2:] == ["w0 = 3", "exit"]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (asm.load(R0, R1, LENGTH, size=4), ["r0 = *(u32 *)(r1 +16)"]),
        (asm.load(R3, R1, LENGTH + 1, size=1), ["r3 = *(u32 *)(r1 +16)", "r3 <<= 56", "r3 >>= 56"]),
        (
            asm.load(R0, R1, LENGTH, size=4, signed=True),
            ["r0 = *(u32 *)(r1 +16)", "r0 <<= 32", "r0 s>>= 32"],
        ),
        (asm.load(R0, R1, COOKIE, size=4), ["w0 = 5"]),
    ],
)
def test_a_stand_in_reads_what_the_verifier_knows_nothing_of(
    load: Instruction, expected: list[str]
) -> None:
    body, types = compiled(Source("fw", 1, (load, EXIT)))
    found = stand_in(body, constants={"cookie": 5}, types=types, throw=None)
    assert text(found) == [*expected, "exit"]


def test_a_stand_in_reads_from_where_the_context_begins() -> None:
    code = (
        asm.alu(AluOp.ADD, R1, 1000),
        asm.mov(R2, R1),
        asm.branch(JmpOp.JEQ, R1, 0, 0),
        asm.load(R0, R2, LENGTH - 1000, size=4),
        EXIT,
    )
    body, types = compiled(Source("fw", 1, code))
    lines = text(stand_in(body, constants={}, types=types, throw=None))
    assert lines[2:] == [
        "if r1 == 0x0 goto pc+0",
        "r0 = r2",
        "r0 -= 1000",
        "r0 = *(u32 *)(r0 +16)",
        "exit",
    ]
