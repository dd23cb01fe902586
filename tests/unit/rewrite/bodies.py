# SPDX-License-Identifier: Apache-2.0
"""Machine code and records of short programs."""

from __future__ import annotations

import struct
import sys

from xdpkit.isa import Instruction, asm, decode, encode
from xdpkit.rewrite import Body

EXIT = asm.exit()


def machine_code(*instructions: Instruction) -> bytes:
    return encode(instructions, byteorder=sys.byteorder)


def instructions_of(body: Body) -> tuple[Instruction, ...]:
    return decode(body.code, byteorder=sys.byteorder)


def records(*records: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack(f"={len(record)}I", *record) for record in records)
