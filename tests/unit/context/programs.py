# SPDX-License-Identifier: Apache-2.0
"""Programs of several functions, with the type and line information that compilers give them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.context import FIELDS
from xdpkit.isa import Instruction, decode, disassemble, encode
from xdpkit.rewrite import Body

MEMBERS = (*((field.name, field.offset) for field in FIELDS), ("rx_hash", 1040))
"""The fields as the program was compiled with: one more than are provided."""


@dataclass(frozen=True, slots=True)
class Source:
    """A function: its name, how many arguments it has, and its instructions."""

    name: str
    arguments: int
    instructions: Sequence[Instruction]
    is_global: bool = False

    @property
    def size(self) -> int:
        return sum(instruction.slots for instruction in self.instructions)


def compiled(*functions: Source, context: str = "xdpkit_md") -> tuple[Body, Btf]:
    """Return a program; the instruction at each slot is in the line of that number, from 1."""
    btf = BtfBuilder(byteorder=sys.byteorder)
    u32 = btf.add(t.Int("unsigned int", 4, 32))
    members = tuple(t.Member(name, u32, 8 * offset) for name, offset in MEMBERS)
    md = btf.add(t.Struct(context, 1044, (t.Member("data", u32), *members)))
    ctx = btf.add(t.Ptr(md))
    func_info, line_info = b"", b""
    slot = 0
    file, text = btf.string("/home/me/fw.c"), btf.string("")
    for function in functions:
        params = [t.Param("ctx", ctx), *(t.Param(f"a{n}", u32) for n in range(4))]
        prototype = btf.add(t.FuncProto(u32, tuple(params[: function.arguments])))
        linkage = t.FuncLinkage.GLOBAL if function.is_global else t.FuncLinkage.STATIC
        func_info += struct.pack("=II", slot, btf.add(t.Func(function.name, prototype, linkage)))
        for instruction in function.instructions:
            line_info += struct.pack("=IIII", slot, file, text, (slot + 1) << 10)
            slot += instruction.slots
    code = [each for function in functions for each in function.instructions]
    body = Body(machine_code(*code), func_info, line_info)
    return body, Btf.parse(btf.build())


def text(body: Body) -> list[str]:
    return [line for _, line in disassemble(decode(body.code, byteorder=sys.byteorder))]


def machine_code(*instructions: Instruction) -> bytes:
    return encode(instructions, byteorder=sys.byteorder)
