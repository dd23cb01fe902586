# SPDX-License-Identifier: Apache-2.0
"""Decoding and encoding, in both byte orders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.isa import Instruction, decode, disassemble, encode, iter_slots
from xdpkit.isa.forms import FORMS, Form
from xdpkit.isa.opcodes import LD_IMM64, SLOT_SIZE

BYTEORDERS = st.sampled_from(["little", "big"])


def field_values(allowed: Sequence[int]) -> st.SearchStrategy[int]:
    if isinstance(allowed, range):
        return st.integers(allowed.start, allowed.stop - 1)
    return st.sampled_from([int(value) for value in allowed])


def instructions_of(form: Form) -> st.SearchStrategy[Instruction]:
    return st.builds(
        Instruction,
        st.just(form.opcode),
        dst=field_values(form.dst),
        src=field_values(form.src),
        offset=field_values(form.offset),
        imm=field_values(form.imm),
    )


known_instructions = st.sampled_from(FORMS).flatmap(instructions_of)

any_instructions = st.builds(
    Instruction,
    st.integers(0, 255).filter(lambda opcode: opcode != LD_IMM64),
    dst=st.integers(0, 15),
    src=st.integers(0, 15),
    offset=st.integers(-(1 << 15), (1 << 15) - 1),
    imm=st.integers(-(1 << 31), (1 << 31) - 1),
)


def decode_or_offset(code: bytes, byteorder: str) -> tuple[Instruction, ...] | int | None:
    try:
        return decode(code, byteorder=byteorder)
    except ObjectFormatError as error:
        return error.offset


@given(st.binary(max_size=256), BYTEORDERS)
def test_any_bytes_decode_to_the_same_bytes_or_are_refused_with_an_offset(
    code: bytes, byteorder: str
) -> None:
    result = decode_or_offset(code, byteorder)
    if isinstance(result, tuple):
        assert encode(result, byteorder=byteorder) == code
        assert sum(instruction.slots for instruction in result) * SLOT_SIZE == len(code)
    else:
        assert result in range(len(code) + 1)


@given(st.lists(st.binary(min_size=8, max_size=8)).map(b"".join), BYTEORDERS)
def test_whole_slots_always_print(code: bytes, byteorder: str) -> None:
    code = code.replace(bytes([LD_IMM64]), b"\0")
    instructions = decode(code, byteorder=byteorder)
    lines = list(disassemble(instructions))
    assert [slot for slot, _ in lines] == list(range(len(code) // SLOT_SIZE))
    for instruction, (_, text) in zip(instructions, lines, strict=True):
        assert text.startswith("(unknown 0x") is not instruction.is_known


@given(st.lists(known_instructions), BYTEORDERS)
def test_known_instructions_survive_encoding_and_decoding(
    instructions: list[Instruction], byteorder: str
) -> None:
    assert decode(encode(instructions, byteorder=byteorder), byteorder=byteorder) == tuple(
        instructions
    )


@given(st.lists(any_instructions), BYTEORDERS)
def test_instructions_that_nobody_defined_survive_too(
    instructions: list[Instruction], byteorder: str
) -> None:
    assert decode(encode(instructions, byteorder=byteorder), byteorder=byteorder) == tuple(
        instructions
    )


@given(known_instructions)
def test_every_instruction_built_from_the_table_is_known(instruction: Instruction) -> None:
    assert instruction.is_known


def test_big_endian_swaps_the_register_fields_and_the_byte_order_of_the_others() -> None:
    instruction = Instruction(0x6B, dst=10, src=1, offset=-8, imm=0x01020304)
    assert encode([instruction]).hex() == "6b1af8ff04030201"
    assert encode([instruction], byteorder="big").hex() == "6ba1fff801020304"


def test_a_64_bit_immediate_is_split_over_two_slots_low_half_first() -> None:
    instruction = Instruction(LD_IMM64, dst=3, imm=0x1122334455667788)
    assert encode([instruction]).hex() == "18030000887766550000000044332211"
    assert encode([instruction], byteorder="big").hex() == "18300000556677880000000011223344"


def test_a_64_bit_immediate_is_unsigned() -> None:
    (instruction,) = decode(bytes.fromhex("18000000ffffffff00000000ffffffff"))
    assert instruction.imm == (1 << 64) - 1


@pytest.mark.parametrize("cut", range(1, SLOT_SIZE))
def test_code_that_ends_within_a_slot_is_refused_at_that_slot(cut: int) -> None:
    with pytest.raises(ObjectFormatError, match=r"no multiple of 8") as caught:
        decode(bytes(SLOT_SIZE * 2 + cut))
    assert caught.value.offset == SLOT_SIZE * 2


def test_a_missing_second_slot_is_refused_where_it_should_be() -> None:
    wide = encode([Instruction(LD_IMM64)])
    with pytest.raises(ObjectFormatError, match="ends after the first slot") as caught:
        decode(wide + wide[:SLOT_SIZE])
    assert caught.value.offset == 3 * SLOT_SIZE


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("field", [0, 1, 2, 3])
def test_a_second_slot_that_is_an_instruction_is_refused(field: int, byteorder: str) -> None:
    code = bytearray(encode([Instruction(0x95), Instruction(LD_IMM64)], byteorder=byteorder))
    code[2 * SLOT_SIZE + field] = 0x10
    with pytest.raises(ObjectFormatError, match="second slot") as caught:
        decode(code, byteorder=byteorder)
    assert caught.value.offset == 2 * SLOT_SIZE


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(256),
        Instruction(-1),
        Instruction(0xB7, dst=16),
        Instruction(0xB7, src=-1),
        Instruction(0xB7, offset=1 << 15),
        Instruction(0xB7, imm=1 << 31),
        Instruction(LD_IMM64, imm=-1),
        Instruction(LD_IMM64, imm=1 << 64),
        Instruction(LD_IMM64, dst=16),
    ],
)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_value_that_its_field_cannot_hold_is_not_encoded(
    instruction: Instruction, byteorder: str
) -> None:
    with pytest.raises(UsageError, match="its bits cannot hold"):
        encode([instruction], byteorder=byteorder)


def test_a_byte_order_is_little_or_big() -> None:
    with pytest.raises(UsageError, match="'middle'"):
        decode(b"", byteorder="middle")
    with pytest.raises(UsageError, match="'middle'"):
        encode([], byteorder="middle")


def test_code_can_be_any_kind_of_buffer() -> None:
    code = encode([Instruction(0xB7, imm=2), Instruction(0x95)])
    assert decode(bytearray(code)) == decode(memoryview(code)) == decode(code)


def test_slots_count_a_64_bit_immediate_load_twice() -> None:
    program = [Instruction(0xB7), Instruction(LD_IMM64), Instruction(0x95)]
    assert [slot for slot, _ in iter_slots(program)] == [0, 1, 3]
