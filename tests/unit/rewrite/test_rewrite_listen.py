# SPDX-License-Identifier: Apache-2.0
"""Reporting from outside: the code that is made. That it reports, the kernel tests show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.rewrite.bodies import instructions_of
from xdpkit.errors import UsageError
from xdpkit.isa import disassemble
from xdpkit.rewrite import COUNTED, EVENT_SIZE, Layout, Reporting, listening

LAYOUT = Layout(rxq=32, data=0, data_end=8, dev=1, queue_index=9, ifindex=216, net=280, inum=152)
REPORTING = Reporting(7, "firewall", 0xF0000001, frozenset({"aborted", "invalid"}))
OF_THE_INTERFACE = [
    "r2 = *(u64 *)(r7 +32)",
    "r2 = *(u64 *)(r2 +1)",
    "r3 = *(u32 *)(r2 +216)",
    "if r3 != 0x5 goto",
    "r2 = *(u64 *)(r2 +280)",
    "r2 = *(u32 *)(r2 +152)",
    "w3 = -268435455",
    "if r2 != r3 goto",
    "call bpf_get_smp_processor_id#8",
]


def made(reporting: Reporting = REPORTING) -> list[str]:
    body = listening(LAYOUT, reporting, ifindex=5).body
    lines = [line for _, line in disassemble(instructions_of(body))]
    return [line.split(" pc+")[0] if "!= " in line else line for line in lines]


def test_most_frames_cost_no_more_than_a_look_at_the_action() -> None:
    lines = made()
    assert lines[:2] == ["r7 = *(u64 *)(r1 +0)", "r6 = *(u64 *)(r1 +8)"]
    assert lines[2:8] == [
        "w1 = w6",
        "if r1 <= 0x4 goto pc+1",
        "r1 = 5",
        "r2 = 33",
        "r2 >>= r1",
        "if r2 & 0x1 goto pc+1",
    ]
    assert lines[8].startswith("goto pc+")
    assert lines[9:18] == OF_THE_INTERFACE
    assert lines[-2:] == ["r0 = 0", "exit"]


def test_where_all_actions_are_wanted_only_the_interface_is_compared() -> None:
    assert made(replace(REPORTING, actions=frozenset(COUNTED)))[2:11] == OF_THE_INTERFACE


def test_the_frame_is_read_from_the_kernels_structure() -> None:
    lines = made()
    at = lines.index("call bpf_probe_read_kernel#113")
    assert lines[at - 4 : at] == [
        "r1 = r8",
        f"r1 += {EVENT_SIZE}",
        "r2 = r4",
        "r3 = *(u64 *)(r7 +0)",
    ]
    assert "r1 = *(u32 *)(r1 +9)" in lines
    assert "call bpf_probe_read_kernel#113" not in made(replace(REPORTING, snaplen=0))


def test_the_places_for_the_maps_are_told() -> None:
    found = listening(LAYOUT, REPORTING, ifindex=5)
    code = dict(disassemble(instructions_of(found.body)))
    slots = (*found.ring_slots, *found.credits_slots, *found.spending_slots)
    assert len(set(slots)) == 3
    assert {code[slot] for slot in slots} == {"r1 = 0x0"}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="the interface or its namespace makes no sense"):
        listening(LAYOUT, REPORTING, ifindex=0)
    with pytest.raises(UsageError, match="no action is named"):
        listening(LAYOUT, replace(REPORTING, actions=frozenset()), ifindex=5)
