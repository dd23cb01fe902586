# SPDX-License-Identifier: Apache-2.0
"""Writing into instructions what only the running kernel knows."""

from __future__ import annotations

import sys

import pytest

from xdpkit.isa import Instruction, asm, decode, encode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import patch
from xdpkit.uapi.bpf import PseudoCall, PseudoSrc

if sys.byteorder != "little":
    pytest.skip("the expected code is little-endian", allow_module_level=True)

LOAD = asm.ld_imm64(Register.R3, 0)
CALL = Instruction(0x85, src=0, imm=-1)


def _code(*instructions: Instruction) -> bytearray:
    return bytearray(encode(instructions))


def test_a_map_is_loaded_by_its_descriptor() -> None:
    code = _code(asm.exit(), LOAD, LOAD)
    patch.set_map(code, (1, 3), 7)
    expected = Instruction(0x18, dst=3, src=PseudoSrc.MAP_FD, imm=7)
    assert decode(bytes(code))[1:] == (expected, expected)


def test_a_maps_value_is_loaded_with_an_offset() -> None:
    code = _code(LOAD)
    patch.set_map_value(code, (0,), 7, 0x100)
    assert decode(bytes(code)) == (
        Instruction(0x18, dst=3, src=PseudoSrc.MAP_VALUE, imm=7 | 0x100 << 32),
    )


def test_a_kernel_variable_is_loaded_by_its_type() -> None:
    code = _code(LOAD)
    patch.set_kernel_object(code, (0,), 1234, 9)
    assert decode(bytes(code)) == (
        Instruction(0x18, dst=3, src=PseudoSrc.BTF_ID, imm=1234 | 9 << 32),
    )


def test_an_address_is_loaded_as_a_number() -> None:
    code = _code(LOAD)
    patch.set_number(code, (0,), 0xFFFFFFFF81000010)
    assert decode(bytes(code)) == (Instruction(0x18, dst=3, imm=0xFFFFFFFF81000010),)


def test_a_kernel_function_is_called_by_its_type_and_module() -> None:
    code = _code(CALL, CALL)
    patch.set_kfunc(code, (1,), 4321, 2)
    assert decode(bytes(code)) == (
        CALL,
        Instruction(0x85, src=PseudoCall.KFUNC_CALL, offset=2, imm=4321),
    )
