# SPDX-License-Identifier: Apache-2.0
"""The numbers of the BPF instruction set, under their kernel names without ``BPF_``.

RFC 9669 sections 3 to 5; include/uapi/linux/bpf.h and bpf_common.h. An opcode is the sum of a
class and, depending on it, an operation and a source, or a mode and a size.
"""

from __future__ import annotations

import enum

SLOT_SIZE = 8
"""Bytes of an instruction slot; the 64-bit immediate load takes two slots."""

LD_IMM64 = 0x18
"""``BPF_LD | BPF_IMM | BPF_DW``: the one instruction of two slots."""

ADDR_SPACE_CAST = 1
"""``BPF_ADDR_SPACE_CAST``: offset of a 64-bit register move that converts an arena pointer."""


class Register(enum.IntEnum):
    """``BPF_REG_*``."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


class Class(enum.IntEnum):
    """Low three bits of an opcode."""

    LD = 0x00
    LDX = 0x01
    ST = 0x02
    STX = 0x03
    ALU = 0x04
    JMP = 0x05
    JMP32 = 0x06
    ALU64 = 0x07


class Source(enum.IntEnum):
    """Of arithmetic and jumps: whether the second operand is the immediate or a register."""

    K = 0x00
    X = 0x08


class Size(enum.IntEnum):
    """Of loads and stores: the width of the access."""

    W = 0x00
    H = 0x08
    B = 0x10
    DW = 0x18

    @property
    def bits(self) -> int:
        return _BITS[self]


_BITS = {Size.B: 8, Size.H: 16, Size.W: 32, Size.DW: 64}


class Mode(enum.IntEnum):
    """Of loads and stores: how memory is addressed."""

    IMM = 0x00
    ABS = 0x20
    IND = 0x40
    MEM = 0x60
    MEMSX = 0x80
    ATOMIC = 0xC0


class AluOp(enum.IntEnum):
    """Operation of the classes ALU and ALU64."""

    ADD = 0x00
    SUB = 0x10
    MUL = 0x20
    DIV = 0x30
    OR = 0x40
    AND = 0x50
    LSH = 0x60
    RSH = 0x70
    NEG = 0x80
    MOD = 0x90
    XOR = 0xA0
    MOV = 0xB0
    ARSH = 0xC0
    END = 0xD0


class JmpOp(enum.IntEnum):
    """Operation of the classes JMP and JMP32."""

    JA = 0x00
    JEQ = 0x10
    JGT = 0x20
    JGE = 0x30
    JSET = 0x40
    JNE = 0x50
    JSGT = 0x60
    JSGE = 0x70
    CALL = 0x80
    EXIT = 0x90
    JLT = 0xA0
    JLE = 0xB0
    JSLT = 0xC0
    JSLE = 0xD0
    JCOND = 0xE0


class Atomic(enum.IntEnum):
    """Immediate of an instruction of mode ATOMIC."""

    ADD = 0x00
    OR = 0x40
    AND = 0x50
    XOR = 0xA0
    FETCH_ADD = 0x01
    FETCH_OR = 0x41
    FETCH_AND = 0x51
    FETCH_XOR = 0xA1
    XCHG = 0xE1
    CMPXCHG = 0xF1
    LOAD_ACQ = 0x100
    STORE_REL = 0x110
