# SPDX-License-Identifier: Apache-2.0
"""The root program: which calls it makes for which queue."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, decode, disassemble, iter_slots
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.rewrite import MAX_CALLS, NO_PROGRAM_SIZE, NoProgram, Root, root
from xdpkit.uapi.helpers import HELPERS

TAIL_CALL = HELPERS.index("tail_call")
LOOKUP = HELPERS.index("map_lookup_elem")


def placed(made: Root) -> dict[int, Instruction]:
    return dict(iter_slots(decode(made.body.code, byteorder=sys.byteorder)))


def calls(code: Mapping[int, Instruction], queue: int) -> tuple[list[int], int]:
    """Return the slots that are tried for a queue, and how many comparisons it takes."""
    tried: list[int] = []
    slot = slot_wanted = comparisons = 0
    while True:
        instruction = code[slot]
        following = slot + instruction.slots
        if instruction.is_call and instruction.imm == LOOKUP:
            return tried, comparisons
        if instruction.is_call and instruction.imm == TAIL_CALL:
            tried.append(slot_wanted)
        elif instruction.is_unconditional:
            following = slot + 1 + instruction.offset
        elif instruction.is_conditional and instruction.dst == Register.R2:
            assert instruction.opcode & 0xF0 == JmpOp.JGE
            comparisons += 1
            if queue >= instruction.imm:
                following = slot + 1 + instruction.offset
        elif instruction.opcode == 0xB7 and instruction.dst == Register.R3:
            slot_wanted = instruction.imm
        slot = following


def model(queues: Mapping[int, int], default: int | None, queue: int) -> list[int]:
    own = [queues[queue]] if queue in queues else []
    return own if default is None else [*own, default]


@settings(max_examples=200)
@given(
    st.dictionaries(st.one_of(st.integers(0, 12), st.integers(0, 4000)), st.integers(0, 3)),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_a_queue_tries_its_own_slot_then_the_global_one(
    queues: dict[int, int], default: int | None
) -> None:
    code = placed(root(queues, default, entries=1))
    for queue in {0, 1 << 20, *queues, *(each + 1 for each in queues)}:
        assert calls(code, queue)[0] == model(queues, default, queue)


@pytest.mark.parametrize(("count", "most"), [(1, 1), (8, 4), (64, 7), (1023, 10)])
def test_the_comparisons_are_balanced(count: int, most: int) -> None:
    code = placed(root({queue: queue for queue in range(count)}, count, entries=count))
    assert max(calls(code, queue)[1] for queue in range(count)) == most


def test_neighbours_with_one_slot_share_a_call() -> None:
    made = root({queue: queue // 500 for queue in range(5000)}, None, entries=1)
    assert len(made.array_slots) == 10


def test_more_calls_than_a_program_can_have_are_refused() -> None:
    assert (
        len(root({queue: queue for queue in range(1023)}, 1023, entries=1).array_slots) == MAX_CALLS
    )
    with pytest.raises(RequirementUnmet) as refused:
        root({queue: queue for queue in range(1024)}, 1024, entries=1)
    assert str(refused.value) == (
        "dispatch by RX queue: it takes 1025 programs that are called from one, and the kernel"
        " allows 1024\nRemedy: give neighbouring queues the same program"
    )


@pytest.mark.parametrize(
    ("queues", "default", "entries"),
    [({-1: 0}, None, 1), ({0: -1}, None, 1), ({0: 0}, 1 << 31, 1), ({0: 0}, None, 0)],
)
def test_what_is_out_of_range_is_refused(
    queues: dict[int, int], default: int | None, entries: int
) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        root(queues, default, entries=entries)


def test_a_root_for_two_queues() -> None:
    made = root({0: 4, 1: 5}, 6, entries=2)
    code: tuple[Instruction, ...] = decode(made.body.code, byteorder=sys.byteorder)
    assert [line for _, line in disassemble(code)] == [
        "r6 = r1",
        "r2 = *(u32 *)(r1 +16)",
        "if r2 >= 0x1 goto pc+5",
        "r2 = 0x0",
        "r3 = 4",
        "call bpf_tail_call#12",
        "goto pc+7",
        "if r2 >= 0x2 goto pc+5",
        "r2 = 0x0",
        "r3 = 5",
        "call bpf_tail_call#12",
        "goto pc+1",
        "goto pc+0",
        "r1 = r6",
        "r2 = 0x0",
        "r3 = 6",
        "call bpf_tail_call#12",
        "r1 = *(u32 *)(r6 +16)",
        "if r1 < 0x2 goto pc+1",
        "r1 = 1",
        "*(u32 *)(r10 -4) = r1",
        "r1 = *(u32 *)(r6 +0)",
        "r6 = *(u32 *)(r6 +4)",
        "r6 -= r1",
        "r2 = r10",
        "r2 += -4",
        "r1 = 0x0",
        "call bpf_map_lookup_elem#1",
        "if r0 == 0x0 goto pc+6",
        "r1 = *(u64 *)(r0 +0)",
        "r1 += 1",
        "*(u64 *)(r0 +0) = r1",
        "r1 = *(u64 *)(r0 +8)",
        "r1 += r6",
        "*(u64 *)(r0 +8) = r1",
        "r0 = 2",
        "exit",
    ]
    slots = dict(iter_slots(code))
    loads = {slot for slot, instruction in slots.items() if instruction.slots == 2}
    assert {*made.array_slots, *made.counter_slots} == loads
    assert len(made.counter_slots) == 1


def test_counters_of_packets_without_a_program_are_summed() -> None:
    values = [struct.pack("=QQ", 1, 60), struct.pack("=QQ", 2, 200)]
    assert NoProgram.read(values) == NoProgram(3, 260)
    assert len(values[0]) == NO_PROGRAM_SIZE
