# SPDX-License-Identifier: Apache-2.0
"""The BPF instruction set (RFC 9669 and what Linux adds): decode, encode, print.

:mod:`xdpkit.isa.asm` makes instructions, :mod:`xdpkit.isa.opcodes` has the numbers, and
:mod:`xdpkit.isa.forms` the table that everything else is read off.
"""

from __future__ import annotations

from xdpkit.isa.disasm import disassemble, format_instruction
from xdpkit.isa.forms import CallKind, Kind
from xdpkit.isa.instruction import Instruction, decode, encode, iter_slots

__all__ = [
    "CallKind",
    "Instruction",
    "Kind",
    "decode",
    "disassemble",
    "encode",
    "format_instruction",
    "iter_slots",
]
