# SPDX-License-Identifier: Apache-2.0
"""The fields, and the glance at machine code that tells whether a program may read them."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.context.programs import machine_code
from xdpkit.context import BASE, FIELDS, NO_PORT, Field, field_at, may_read
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

HEADER = resources.files("xdpkit").joinpath("include/xdpkit.h").read_text()


def test_the_fields_are_those_of_the_header() -> None:
    found = re.search(r"struct xdpkit_md \{(.*?)\n\}", HEADER, re.DOTALL)
    assert found is not None
    kernels, ours = found[1].split("the_kernels[1000];")
    offset = 1000 + 4 * len(re.findall(r"__u32 \w+;", kernels))
    fields = []
    for bits, name in re.findall(r"__u(\d+) (\w+);", ours):
        fields.append(Field(name, offset, int(bits) // 8))
        offset = fields[-1].end
    assert tuple(fields) == FIELDS
    assert fields[0].offset == BASE
    assert f"#define XDPKIT_NO_PORT {NO_PORT:#x}U\n" in HEADER


def test_each_field_is_aligned() -> None:
    assert [field.name for field in FIELDS if field.offset % field.size] == []


@pytest.mark.parametrize(
    ("offset", "name"),
    [(1024, "port_index"), (1027, "port_index"), (1028, "frame_len"), (1039, "cookie")],
)
def test_a_field_is_found_by_each_of_its_bytes(offset: int, name: str) -> None:
    found = field_at(offset)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("offset", [-1, 0, 1023, 1040])
def test_other_offsets_have_no_field(offset: int) -> None:
    assert field_at(offset) is None


@pytest.mark.parametrize(
    "instruction",
    [
        asm.load(R0, R1, 1024, size=4),
        asm.load(R0, R1, 1039, size=1, signed=True),
        asm.load(R0, R1, 2000),
        asm.store(R1, 1024, 1, size=4),
        asm.store(R1, 1024, R2),
        asm.alu(AluOp.ADD, R1, 1028),
        asm.mov(R2, 1028),
        asm.mov(R2, 1028, width=32),
    ],
)
def test_what_may_be_a_field_is_seen_wherever_it_is(instruction: Instruction) -> None:
    assert may_read(machine_code(asm.ld_imm64(R3, 5), instruction, asm.exit()))


@pytest.mark.parametrize(
    "instruction",
    [
        asm.load(R0, R1, 1023, size=1),
        asm.load(R0, R1, -1024),
        asm.ld_imm64(R0, 1028),
        asm.mov(R0, 1500),
        asm.branch(JmpOp.JEQ, R1, 1028, 1024),
    ],
)
def test_what_is_no_field_costs_no_analysis(instruction: Instruction) -> None:
    assert not may_read(machine_code(instruction, asm.exit()))


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at(code: bytes) -> None:
    assert may_read(code) == may_read(bytearray(code))
