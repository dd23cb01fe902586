# SPDX-License-Identifier: Apache-2.0
"""Counting: the code that is made, and what is refused. That it counts, the kernel tests show."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest

from tests.unit.rewrite.bodies import EXIT, instructions_of, machine_code, records
from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm, disassemble
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.rewrite import (
    COUNTED,
    Body,
    Counts,
    counting,
    exception_callback,
    stack_in_log,
    value_size,
)

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register
THROW = 4321


def text(body: Body) -> list[str]:
    return [line for _, line in disassemble(instructions_of(body))]


def made(*instructions: Instruction, **terms: Any) -> list[str]:
    return text(counting(Body(machine_code(*instructions)), **{"entries": 4, **terms}).body)


COUNT = [
    "r2 = r10",
    "r2 += -4",
    "r1 = 0x0",
    "call bpf_map_lookup_elem#1",
    "if r0 == 0x0 goto pc+8",
    "w1 = w6",
    "if r1 <= 0x4 goto pc+1",
    "r1 = 5",
    "r1 <<= 3",
    "r0 += r1",
    "r1 = *(u64 *)(r0 +0)",
    "r1 += 1",
    "*(u64 *)(r0 +0) = r1",
    "r0 = r6",
    "exit",
]


def test_one_queue_without_bytes_takes_only_an_epilogue() -> None:
    assert made(asm.mov(R0, 2), EXIT, queue=3) == [
        "r0 = 2",
        "r6 = r0",
        "*(u32 *)(r10 -4) = 3",
        *COUNT,
    ]


def test_the_queue_is_kept_below_what_the_program_uses() -> None:
    assert made(asm.store(R10, -8, 1), asm.mov(R0, 2), EXIT) == [
        "r2 = *(u32 *)(r1 +16)",
        "if r2 <= 0x3 goto pc+1",
        "r2 = 3",
        "*(u32 *)(r10 -12) = r2",
        "*(u64 *)(r10 -8) = 1",
        "r0 = 2",
        "r6 = r0",
        "r2 = r10",
        "r2 += -12",
        *COUNT[2:],
    ]


def test_all_returns_of_the_main_function_lead_to_one_epilogue() -> None:
    lines = made(
        asm.branch(JmpOp.JEQ, R1, 0, 3),
        asm.mov(R0, 1),
        asm.branch(JmpOp.JEQ, R1, 1, 1),
        EXIT,
        asm.call_subprogram(1),
        EXIT,
        asm.mov(R0, 0),
        EXIT,
        queue=0,
    )
    assert lines[3] == "goto pc+1"
    assert lines[5] == "r6 = r0"
    assert lines[4] == "call pc+18"
    assert lines[-2:] == ["r0 = 0", "exit"]


def test_a_register_that_the_program_uses_anyway_is_used() -> None:
    assert "r8 = r0" in made(asm.mov(R8, 1), asm.mov(R0, R8), EXIT, queue=0)


def test_a_map_of_one_entry_needs_no_queue() -> None:
    assert "*(u32 *)(r10 -4) = 0" in made(asm.mov(R0, 2), EXIT, entries=1)


def test_a_queue_beyond_the_map_counts_in_the_last_entry() -> None:
    assert "*(u32 *)(r10 -4) = 3" in made(asm.mov(R0, 2), EXIT, queue=17)


def test_the_places_for_the_map_are_told() -> None:
    result = counting(Body(machine_code(asm.mov(R0, 2), EXIT)), entries=1)
    code = instructions_of(result.body)
    assert [code[slot] for slot in result.map_slots] == [asm.ld_imm64(R1, 0)]


def throwing(*, in_subprogram: bool) -> Body:
    throw = asm.call_kfunc(THROW)
    if in_subprogram:
        code = asm.call_subprogram(1), EXIT, asm.mov(R1, 1), throw, EXIT
        return Body(machine_code(*code), records((0, 1), (2, 2)))
    code = asm.branch(JmpOp.JEQ, R1, 0, 2), asm.mov(R1, 1), throw, asm.mov(R0, 2), EXIT
    return Body(machine_code(*code))


def test_what_main_throws_is_returned_and_counted() -> None:
    lines = text(counting(throwing(in_subprogram=False), entries=1, throw=THROW).body)
    assert lines[:8] == [
        "if r1 == 0x0 goto pc+5",
        "r1 = 1",
        "r0 = r1",
        "r2 = 0",
        "if r2 != 0x0 goto pc+1",
        "goto pc+1",
        "r0 = 2",
        "r6 = r0",
    ]


def test_a_program_that_ends_in_a_throw_is_followed_no_further() -> None:
    body = Body(machine_code(asm.store(R10, -16, 1), asm.mov(R1, 1), asm.call_kfunc(THROW)))
    lines = text(counting(body, entries=4, throw=THROW).body)
    assert "*(u32 *)(r10 -20) = r2" in lines


def test_a_call_of_another_kernel_function_is_no_throw() -> None:
    lines = text(counting(throwing(in_subprogram=True), entries=1, throw=THROW + 1).body)
    assert f"call kernel-function#{THROW}" in lines


def test_a_throw_as_the_last_instruction_is_a_return() -> None:
    body = Body(machine_code(asm.mov(R1, 1), asm.call_kfunc(THROW)))
    assert text(counting(body, entries=1, throw=THROW).body)[:3] == [
        "r1 = 1",
        "r0 = r1",
        "r6 = r0",
    ]


def test_what_a_subprogram_throws_is_refused_without_a_callback() -> None:
    with pytest.raises(RequirementUnmet) as refused:
        counting(throwing(in_subprogram=True), entries=1, throw=THROW, name="fw")
    assert str(refused.value) == (
        "count what fw returns: a subprogram throws (bpf_throw), which ends the program without a"
        " return\nRemedy: throw in the main function only; or give the program an exception"
        " callback (__exception_cb), attach it for a single RX queue, and count no bytes"
    )


def test_a_program_that_is_too_complex_needs_the_verifiers_word_on_its_stack() -> None:
    # It calls itself.
    code = asm.call_subprogram(1), EXIT, asm.call_subprogram(-1), EXIT
    with pytest.raises(RequirementUnmet, match="too complex to find out how much stack it uses"):
        made(*code)
    assert "*(u32 *)(r10 -20) = r2" in made(*code, stack=(16, 0))


def test_stack_that_the_verifier_does_not_list_is_seen_all_the_same() -> None:
    # What is kept over calls of some helpers only, Linux 6.12 and later do not list.
    code = asm.store(R10, -24, R1), asm.mov(R0, 2), EXIT
    assert "*(u32 *)(r10 -28) = r2" in made(*code, stack=(8,))


def test_functions_that_the_verifier_took_out_are_taken_for_the_deepest() -> None:
    code = asm.call_subprogram(1), EXIT, asm.call_subprogram(1), EXIT, asm.mov(R0, 0), EXIT
    assert "*(u32 *)(r10 -12) = r2" in made(*code, stack=(8, 240))
    with pytest.raises(RequirementUnmet, match="would use 528 bytes of stack"):
        made(*code, stack=(0, 256))


@pytest.mark.parametrize(
    "terms",
    [
        {"entries": 0},
        {"queue": -1},
        {"stack": ()},
        {"throw": THROW, "exception_callback": 3},
    ],
)
def test_terms_that_make_no_sense_are_refused(terms: dict[str, Any]) -> None:
    body = throwing(in_subprogram=False)
    with pytest.raises(UsageError, match="count what the program returns"):
        counting(body, **{"entries": 4, **terms})


def test_counters_are_summed_over_processors() -> None:
    one, two = (struct.pack("=6Q", *range(start, start + 6)) for start in (0, 10))
    assert Counts.read([one, two]) == Counts((10, 12, 14, 16, 18, 20), None)
    assert value_size(count_bytes=False) == len(one)
    both = struct.pack("=12Q", *range(12))
    assert Counts.read([both]) == Counts((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11))
    assert value_size(count_bytes=True) == len(both)
    assert COUNTED == ("aborted", "drop", "pass", "tx", "redirect", "invalid")


def test_the_stack_is_read_off_a_log() -> None:
    log = "verification time 33 usec\nstack depth 64+0+32\nprocessed 8 insns (limit 1000000)"
    assert stack_in_log(log) == (64, 0, 32)
    assert stack_in_log("stack depth 8") == (8,)
    assert stack_in_log("processed 8 insns") is None


def test_the_exception_callback_is_the_function_that_mains_tag_names() -> None:
    builder = BtfBuilder(byteorder=sys.byteorder)
    proto = builder.add(t.FuncProto(0))
    main, other, callback = (
        builder.add(t.Func(name, proto)) for name in ("main", "other", "on_throw")
    )
    body = Body(b"", records((0, main), (8, other), (12, callback)))
    assert exception_callback(body, Btf.parse(builder.build())) is None
    builder.add(t.DeclTag("exception_callback:other", other))
    builder.add(t.DeclTag("something:on_throw", main))
    assert exception_callback(body, Btf.parse(builder.build())) is None
    builder.add(t.DeclTag("exception_callback:on_throw", main))
    assert exception_callback(body, Btf.parse(builder.build())) == 12
