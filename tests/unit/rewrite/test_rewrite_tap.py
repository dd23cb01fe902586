# SPDX-License-Identifier: Apache-2.0
"""Reporting: the code that is made, and what is refused. That it reports, the kernel tests show."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.rewrite.bodies import EXIT, instructions_of, machine_code, records
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm, disassemble
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.rewrite import (
    COUNTED,
    EVENT_SIZE,
    Body,
    Event,
    Reporting,
    Spending,
    counting,
    tapping,
)

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register
THROW = 4321
FAILING = Reporting(7, "firewall", 0xF0000001, frozenset({"aborted", "invalid"}))


def text(body: Body) -> list[str]:
    return [line for _, line in disassemble(instructions_of(body))]


def made(*instructions: Instruction, reporting: Reporting = FAILING, **terms: Any) -> list[str]:
    return text(tapping(Body(machine_code(*instructions)), reporting, **terms).body)


FILTER = [
    "w1 = w0",
    "if r1 <= 0x4 goto pc+1",
    "r1 = 5",
    "r2 = 33",
    "r2 >>= r1",
    "if r2 & 0x1 goto pc+1",
    "exit",
    "r6 = r0",
]
SPENDING = [
    "r7 = *(u64 *)(r10 -8)",
    "call bpf_get_smp_processor_id#8",
    "*(u32 *)(r10 -8) = r0",
    "r1 = 0x0",
    "r2 = r10",
    "r2 += -8",
    "call bpf_map_lookup_elem#1",
]


def test_the_context_is_kept_and_most_returns_go_no_further() -> None:
    lines = made(asm.mov(R0, 2), EXIT)
    assert lines[:2] == ["*(u64 *)(r10 -8) = r1", "r0 = 2"]
    assert lines[2:17] == [*FILTER, *SPENDING]
    assert lines[-2:] == ["r0 = r6", "exit"]


def test_where_all_actions_are_wanted_nothing_is_compared() -> None:
    lines = made(asm.mov(R0, 2), EXIT, reporting=replace(FAILING, actions=frozenset(COUNTED)))
    assert lines[2:10] == ["r6 = r0", *SPENDING]


def test_the_context_is_kept_below_what_the_program_uses() -> None:
    assert made(asm.store(R10, -20, 1, size=4), asm.mov(R0, 2), EXIT)[0] == (
        "*(u64 *)(r10 -32) = r1"
    )
    assert made(asm.mov(R0, 2), EXIT, stack=(40,))[0] == "*(u64 *)(r10 -48) = r1"


def test_all_returns_of_the_main_function_lead_to_one_epilogue() -> None:
    lines = made(
        asm.branch(JmpOp.JEQ, R1, 0, 2),
        asm.mov(R0, 1),
        EXIT,
        asm.mov(R0, 0),
        EXIT,
    )
    assert lines[1:6] == [
        "if r1 == 0x0 goto pc+2",
        "r0 = 1",
        "goto pc+1",
        "r0 = 0",
        "w1 = w0",
    ]
    assert lines.count("call bpf_ringbuf_submit#132") == 1


def test_what_subprograms_return_is_not_reported() -> None:
    lines = made(asm.call_subprogram(1), EXIT, asm.mov(R0, 0), EXIT)
    assert lines[-2:] == ["r0 = 0", "exit"]
    assert lines.count("call bpf_ringbuf_submit#132") == 1


def test_the_places_for_the_maps_are_told() -> None:
    found = tapping(Body(machine_code(asm.mov(R0, 2), EXIT)), FAILING)
    code = dict(disassemble(instructions_of(found.body)))
    places = (found.ring_slots, found.credits_slots, found.spending_slots)
    assert [len(slots) for slots in places] == [1, 1, 1]
    assert len({slot for slots in places for slot in slots}) == 3
    assert {code[slot] for slots in places for slot in slots} == {"r1 = 0x0"}


def test_a_program_that_counts_reports_and_goes_on_counting() -> None:
    counted = counting(Body(machine_code(asm.mov(R0, 2), EXIT)), entries=4)
    found = tapping(counted.body, FAILING, moved=counted.map_slots)
    code = dict(disassemble(instructions_of(found.body)))
    (slot,) = found.moved
    assert code[slot] == "r1 = 0x0"
    assert code[slot + 2] == "call bpf_map_lookup_elem#1"
    lines = list(code.values())
    assert lines[0] == "*(u64 *)(r10 -16) = r1"
    assert lines.index("r0 = r6") + 1 == lines.index("w1 = w0")


@pytest.mark.parametrize(
    ("frags", "lines"),
    [
        (False, ["r4 = *(u32 *)(r7 +4)", "r1 = *(u32 *)(r7 +0)", "r4 -= r1"]),
        (True, ["r1 = r7", "call bpf_xdp_get_buff_len#188", "r4 = r0"]),
    ],
)
def test_the_length_is_that_of_all_fragments(frags: bool, lines: list[str]) -> None:
    found = made(asm.mov(R0, 2), EXIT, frags=frags)
    at = found.index(lines[-1])
    assert found[at - 2 : at + 1] == lines
    assert found[at + 1] == "*(u32 *)(r8 +40) = r4"


def test_without_bytes_none_are_copied() -> None:
    with_bytes = made(asm.mov(R0, 2), EXIT)
    without = made(asm.mov(R0, 2), EXIT, reporting=replace(FAILING, snaplen=0))
    assert "call bpf_xdp_load_bytes#189" in with_bytes
    assert "call bpf_xdp_load_bytes#189" not in without
    assert f"r2 = {EVENT_SIZE + 64}" in with_bytes
    assert f"r2 = {EVENT_SIZE}" in without


def test_one_in_so_many_frames_is_chosen() -> None:
    assert "r1 %= 100" in made(asm.mov(R0, 2), EXIT, reporting=replace(FAILING, sample=100))
    assert not any("%=" in line for line in made(asm.mov(R0, 2), EXIT))


@pytest.mark.parametrize(
    ("actions", "is_noted", "is_asked"),
    [
        ({"aborted", "invalid"}, True, False),
        ({"aborted"}, True, False),
        ({"invalid", "tx"}, True, True),
        ({"drop", "pass"}, False, False),
    ],
)
def test_failing_frames_are_noted(actions: set[str], is_noted: bool, is_asked: bool) -> None:
    lines = made(asm.mov(R0, 2), EXIT, reporting=replace(FAILING, actions=frozenset(actions)))
    noted = f"*(u64 *)(r9 +{Spending.noted.offset}) = r1"
    assert (noted in lines) == is_noted
    assert (f"r2 = {FAILING.netns << 32:#x}" in lines) == is_noted
    assert ("w1 = w6" in lines) == is_asked


def test_the_name_is_the_one_that_the_kernel_has() -> None:
    long = replace(FAILING, name="a_name_that_is_longer")
    words = struct.unpack("=2Q", b"a_name_that_is_\0")
    lines = made(asm.mov(R0, 2), EXIT, reporting=long)
    for number, word in enumerate(words):
        at = lines.index(f"*(u64 *)(r8 +{Event.name.offset + 8 * number}) = r1")
        assert lines[at - 1] == f"r1 = {word:#x}"


def test_the_layout_is_the_one_that_readers_know() -> None:
    assert EVENT_SIZE == 88
    assert [(name, getattr(Event, name).offset) for name in ("netns", "queue", "captured")] == [
        ("netns", 16),
        ("queue", 36),
        ("captured", 44),
    ]
    assert Event.name.offset == 72
    assert (Spending.seen.offset, Spending.noted.offset) == (24, 32)


def throwing(*, in_subprogram: bool) -> Body:
    throw = asm.call_kfunc(THROW)
    if in_subprogram:
        code = asm.call_subprogram(1), EXIT, asm.mov(R1, 1), throw, EXIT
        return Body(machine_code(*code), records((0, 1), (2, 2)))
    return Body(machine_code(asm.mov(R1, 1), throw))


def test_what_main_throws_is_returned_and_reported() -> None:
    lines = text(tapping(throwing(in_subprogram=False), FAILING, throw=THROW).body)
    assert lines[1:4] == ["r1 = 1", "r0 = r1", "w1 = w0"]


@pytest.mark.parametrize(
    ("in_subprogram", "has_callback", "words"),
    [
        (True, False, "a subprogram throws (bpf_throw), which ends the program without a return"),
        (True, True, "its exception callback can learn nothing of the frame"),
        (False, True, "its exception callback can learn nothing of the frame"),
    ],
)
def test_what_is_thrown_out_of_reach_is_refused(
    in_subprogram: bool, has_callback: bool, words: str
) -> None:
    body = throwing(in_subprogram=in_subprogram)
    with pytest.raises(RequirementUnmet, match="report what firewall returns") as refused:
        tapping(body, FAILING, throw=THROW, has_callback=has_callback)
    assert words in str(refused.value)


def test_a_callback_that_nothing_is_thrown_to_does_not_matter() -> None:
    assert made(asm.mov(R0, 2), EXIT, throw=THROW, has_callback=True)


def test_without_room_on_the_stack_it_is_refused() -> None:
    with pytest.raises(RequirementUnmet, match="8 more bytes of stack are needed"):
        made(asm.store(R10, -512, 1), asm.mov(R0, 2), EXIT)


def test_returns_that_are_too_far_from_each_other_have_an_epilogue_each() -> None:
    far = [asm.mov(R0, 1)] * 40000
    code = asm.branch(JmpOp.JEQ, R1, 0, 2), asm.mov(R0, 1), EXIT, *far, EXIT
    body = Body(machine_code(*code))
    assert len(tapping(body, FAILING, stack=(0,)).ring_slots) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": frozenset()}, "no action is named"),
        ({"actions": frozenset({"dropped"})}, "there is no action 'dropped'"),
        ({"snaplen": 1 << 17}, "of a frame 0 to 65536 bytes can be reported, not 131072"),
        ({"sample": 0}, "1 in 0 frames cannot be chosen"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(asm.mov(R0, 2), EXIT, reporting=replace(FAILING, **change))


def test_slots_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no instruction at a slot"):
        made(asm.ld_imm64(R0, 1), EXIT, moved=(1,))


def test_line_records_stay_with_their_instructions() -> None:
    code = machine_code(asm.mov(R0, 2), EXIT)
    body = Body(code, records((0, 1)), records((0, 1, 2, 3), (1, 4, 5, 6)))
    found = tapping(body, FAILING).body
    assert found.line_info == records((0, 1, 2, 3), (1, 1, 2, 3), (2, 4, 5, 6))
