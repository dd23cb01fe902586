# SPDX-License-Identifier: Apache-2.0
"""Writing the answer of a CO-RE relocation into its instruction.

An answer goes where the instruction has its constant: the immediate of an ALU operation, both
halves of a 64-bit immediate load, the offset of a load or store (RFC 9669, section 3 and 4).
"""

from __future__ import annotations

import struct
from typing import Literal

from xdpkit.errors import ObjectFormatError
from xdpkit.obj.core.access import Unfit
from xdpkit.obj.core.resolve import Outcome

#: Number of the helper that a poisoned instruction calls. There is none such: the verifier says
#: "invalid func unknown#195896080". 0xbad2310 reads "bad relo"; it is libbpf's number.
POISON = 0xBAD2310

_SLOT = 8
_LD, _LDX, _ST, _STX, _ALU, _ALU64 = 0, 1, 2, 3, 4, 7
_CLASS = 0x07
_SOURCE_REGISTER = 0x08
_SIZE = 0x18
_LD_IMM64 = 0x18
_CALL = 0x85
_SIZE_BITS = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_SIZE_BYTES = {bits: size for size, bits in _SIZE_BITS.items()}
_MAX_OFFSET = 0x7FFF
_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF

_FORMATS = {"little": struct.Struct("<BBhi"), "big": struct.Struct(">BBhi")}


def patch(
    code: bytearray, slot: int, outcome: Outcome, byteorder: Literal["little", "big"]
) -> None:
    """Change the instruction at ``slot`` as ``outcome`` says.

    Raises:
        ObjectFormatError: no such slot, not an instruction that can be relocated, or it does not
            hold what the object's types say.
        Unfit: the answer does not fit into the instruction.
    """
    at = slot * _SLOT
    if not 0 <= at <= len(code) - _SLOT:
        raise ObjectFormatError(f"there is no instruction {slot}")
    opcode = code[at]
    if opcode == _LD_IMM64 and at > len(code) - 2 * _SLOT:
        raise ObjectFormatError("the second half of the 64-bit immediate load is missing")
    layout = _FORMATS[byteorder]
    if outcome.value is None:
        _poison(code, at, layout)
        return
    match opcode & _CLASS:
        case cls if cls in (_ALU, _ALU64) and not opcode & _SOURCE_REGISTER:
            _patch_immediate(code, at, outcome.value, outcome, layout)
        case cls if cls in (_LDX, _ST, _STX):
            _patch_memory(code, at, outcome.value, outcome, layout)
        case _ if opcode == _LD_IMM64:
            _patch_wide(code, at, outcome.value, outcome, layout)
        case _:
            raise ObjectFormatError(f"opcode {opcode:#04x} holds no constant to relocate")


def _poison(code: bytearray, at: int, layout: struct.Struct) -> None:
    # Both halves: the verifier would complain of the second one's opcode 0 first.
    slots = 2 if code[at] == _LD_IMM64 else 1
    for place in range(at, at + slots * _SLOT, _SLOT):
        layout.pack_into(code, place, _CALL, 0, 0, POISON)


def _check(held: int, outcome: Outcome) -> None:
    if outcome.expected is not None and held & _U64 != outcome.expected:
        raise ObjectFormatError(
            f"the instruction holds {held}, the object's own types say {outcome.expected}"
        )


def _patch_immediate(
    code: bytearray, at: int, value: int, outcome: Outcome, layout: struct.Struct
) -> None:
    opcode, registers, offset, immediate = layout.unpack_from(code, at)
    _check(immediate, outcome)
    layout.pack_into(code, at, opcode, registers, offset, _signed32(value))


def _patch_memory(
    code: bytearray, at: int, value: int, outcome: Outcome, layout: struct.Struct
) -> None:
    opcode, registers, offset, immediate = layout.unpack_from(code, at)
    _check(offset, outcome)
    if value > _MAX_OFFSET:
        raise Unfit(f"offset {value} is too large for a load or store (at most {_MAX_OFFSET})")
    ours, theirs = outcome.sizes
    if ours != theirs:
        if not outcome.is_resizable:
            _poison(code, at, layout)
            return
        held = _SIZE_BYTES[opcode & _SIZE]
        if held != ours:
            raise ObjectFormatError(f"a load or store of {held} bytes of a field of {ours}")
        if theirs not in _SIZE_BITS:
            raise Unfit(f"a field of {theirs} bytes cannot be loaded or stored at once")
        opcode = opcode & ~_SIZE | _SIZE_BITS[theirs]
    layout.pack_into(code, at, opcode, registers, value, immediate)


def _patch_wide(
    code: bytearray, at: int, value: int, outcome: Outcome, layout: struct.Struct
) -> None:
    opcode, registers, offset, low = layout.unpack_from(code, at)
    second, second_registers, second_offset, high = layout.unpack_from(code, at + _SLOT)
    source = registers >> 4 if layout.format.startswith("<") else registers & 0x0F
    if source or offset or second or second_registers or second_offset:
        raise ObjectFormatError("the 64-bit immediate load is not of a plain constant")
    _check((high & _U32) << 32 | low & _U32, outcome)
    layout.pack_into(code, at, opcode, registers, 0, _signed32(value))
    layout.pack_into(code, at + _SLOT, 0, 0, 0, _signed32(value >> 32))


def _signed32(value: int) -> int:
    value &= _U32
    return value - (1 << 32) if value >> 31 else value
