# SPDX-License-Identifier: Apache-2.0
"""The table of everything that the instruction set allows, and what each row of it means.

A :class:`Form` is an opcode together with the values that its other fields may have: one opcode
has several forms where a field selects among meanings (atomics by the immediate, calls by the
source register, moves by the offset). The disassembly, what is known, what registers are touched,
and the tests are all read off this table.

RFC 9669; what goes beyond it (pseudo-sources, ``may_goto``, acquire and release,
``addr_space_cast``) and which fields are reserved: kernel/bpf/verifier.c, Linux 6.18.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from xdpkit.isa.opcodes import (
    ADDR_SPACE_CAST,
    LD_IMM64,
    AluOp,
    Atomic,
    Class,
    JmpOp,
    Mode,
    Register,
    Size,
    Source,
)
from xdpkit.uapi.bpf import PseudoCall, PseudoSrc

ZERO = range(1)
REGISTER = range(len(Register))
INT16 = range(-(1 << 15), 1 << 15)
INT32 = range(-(1 << 31), 1 << 31)
UINT32 = range(1 << 32)
UINT64 = range(1 << 64)

Operand: TypeAlias = Literal["dst", "src"] | Register
"""A register that the instruction names in a field, or one that is implied."""


class Kind(enum.Enum):
    """What an instruction does, as far as control and data flow care."""

    ALU = "alu"
    CONSTANT = "constant"  # the 64-bit immediate load
    LOAD = "load"
    STORE = "store"
    ATOMIC = "atomic"  # read-modify-write: a load and a store
    JUMP = "jump"
    BRANCH = "branch"  # a jump that may fall through
    CALL = "call"
    EXIT = "exit"


class CallKind(enum.IntEnum):
    """What a call's immediate names; the value is the call's source register field."""

    HELPER = 0
    SUBPROGRAM = PseudoCall.CALL
    KFUNC = PseudoCall.KFUNC_CALL


@dataclass(frozen=True, slots=True)
class Form:
    """One row of the table.

    Attributes:
        opcode: the opcode byte.
        text: template of the disassembly. ``{d}`` and ``{s}`` are the registers, ``{off}`` the
            offset with its sign, ``{imm}`` the immediate, ``{rel}`` the same with its sign,
            ``{hex}`` the same unsigned, ``{low}`` and ``{high}`` the halves of a 64-bit one,
            ``{space}`` those of an address space pair, ``{name}`` what the immediate refers to.
        kind: what it does.
        dst, src, offset, imm: the values that the field may have; ``ZERO`` where it is reserved.
        uses: the registers read. defines: the registers whose value changes or is lost.
        word: whether the registers are 32 bits wide.
        displacement: the field that holds a distance in slots, None where there is none.
        default_name: template of ``{name}`` where nothing better is known.
    """

    opcode: int
    text: str
    kind: Kind
    dst: Sequence[int] = ZERO
    src: Sequence[int] = ZERO
    offset: Sequence[int] = ZERO
    imm: Sequence[int] = ZERO
    uses: tuple[Operand, ...] = ()
    defines: tuple[Operand, ...] = ()
    word: bool = False
    displacement: Literal["offset", "imm"] | None = None
    default_name: str = ""

    def matches(self, dst: int, src: int, offset: int, imm: int) -> bool:
        """Return whether the fields have values that this form allows."""
        # A range looks at all of its numbers, one by one, for what is not exactly an int (an enum).
        return (
            dst in self.dst
            and src in self.src
            and int(offset) in self.offset
            and int(imm) in self.imm
        )


_ALU_SIGNS = {
    AluOp.ADD: "+=",
    AluOp.SUB: "-=",
    AluOp.MUL: "*=",
    AluOp.DIV: "/=",
    AluOp.OR: "|=",
    AluOp.AND: "&=",
    AluOp.LSH: "<<=",
    AluOp.RSH: ">>=",
    AluOp.MOD: "%=",
    AluOp.XOR: "^=",
    AluOp.ARSH: "s>>=",
}
_SIGNED_ALU_SIGNS = {AluOp.DIV: "s/=", AluOp.MOD: "s%="}

_BRANCH_SIGNS = {
    JmpOp.JEQ: "==",
    JmpOp.JGT: ">",
    JmpOp.JGE: ">=",
    JmpOp.JSET: "&",
    JmpOp.JNE: "!=",
    JmpOp.JSGT: "s>",
    JmpOp.JSGE: "s>=",
    JmpOp.JLT: "<",
    JmpOp.JLE: "<=",
    JmpOp.JSLT: "s<",
    JmpOp.JSLE: "s<=",
}

_ATOMIC_SIGNS = {Atomic.ADD: "+=", Atomic.OR: "|=", Atomic.AND: "&=", Atomic.XOR: "^="}
_ATOMIC_FUNCTIONS = {
    Atomic.FETCH_ADD: "fetch_add",
    Atomic.FETCH_OR: "fetch_or",
    Atomic.FETCH_AND: "fetch_and",
    Atomic.FETCH_XOR: "fetch_xor",
    Atomic.XCHG: "xchg",
}

ARGUMENTS = (Register.R1, Register.R2, Register.R3, Register.R4, Register.R5)
CALLER_SAVED = (Register.R0, *ARGUMENTS)


def _arithmetic() -> Iterator[Form]:
    for cls in (Class.ALU, Class.ALU64):
        word = cls is Class.ALU
        rows = [(op, ZERO, sign) for op, sign in _ALU_SIGNS.items()]
        rows += [(op, range(1, 2), sign) for op, sign in _SIGNED_ALU_SIGNS.items()]
        for op, offset, sign in rows:
            yield Form(
                cls | op | Source.K,
                "{d} " + sign + " {imm}",
                Kind.ALU,
                dst=REGISTER,
                offset=offset,
                imm=INT32,
                uses=("dst",),
                defines=("dst",),
                word=word,
            )
            yield Form(
                cls | op | Source.X,
                "{d} " + sign + " {s}",
                Kind.ALU,
                dst=REGISTER,
                src=REGISTER,
                offset=offset,
                uses=("dst", "src"),
                defines=("dst",),
                word=word,
            )
        yield Form(
            cls | AluOp.NEG | Source.K,
            "{d} = -{d}",
            Kind.ALU,
            dst=REGISTER,
            uses=("dst",),
            defines=("dst",),
            word=word,
        )


def _moves() -> Iterator[Form]:
    for cls, widths in ((Class.ALU, (8, 16)), (Class.ALU64, (8, 16, 32))):
        word = cls is Class.ALU
        yield Form(
            cls | AluOp.MOV | Source.K,
            "{d} = {imm}",
            Kind.ALU,
            dst=REGISTER,
            imm=INT32,
            defines=("dst",),
            word=word,
        )
        rows = [(0, "{d} = {s}")]
        rows += [(width, "{d} = (s" + str(width) + "){s}") for width in widths]
        for offset, text in rows:
            yield Form(
                cls | AluOp.MOV | Source.X,
                text,
                Kind.ALU,
                dst=REGISTER,
                src=REGISTER,
                offset=(offset,),
                uses=("src",),
                defines=("dst",),
                word=word,
            )
    yield Form(
        Class.ALU64 | AluOp.MOV | Source.X,
        "{d} = addr_space_cast({s}, {space})",
        Kind.ALU,
        dst=REGISTER,
        src=REGISTER,
        offset=(ADDR_SPACE_CAST,),
        imm=(1, 1 << 16),
        uses=("src",),
        defines=("dst",),
    )


def _byte_swaps() -> Iterator[Form]:
    # The source bit of a swap is not a source: it says which byte order to convert to.
    for opcode, name in (
        (Class.ALU | AluOp.END | Source.K, "le"),
        (Class.ALU | AluOp.END | Source.X, "be"),
        (Class.ALU64 | AluOp.END | Source.K, "bswap"),
    ):
        yield Form(
            opcode,
            "{d} = " + name + "{imm} {d}",
            Kind.ALU,
            dst=REGISTER,
            imm=(16, 32, 64),
            uses=("dst",),
            defines=("dst",),
        )


def _constants() -> Iterator[Form]:
    for source, text, name, imm in (
        (0, "{name}", "{hex}", UINT64),
        (PseudoSrc.MAP_FD, "map[{name}]", "fd:{low}", UINT32),
        (PseudoSrc.MAP_VALUE, "map[{name}][0]+{high}", "fd:{low}", UINT64),
        (PseudoSrc.BTF_ID, "{name}", "btf[id:{low}]", UINT64),
        (PseudoSrc.FUNC, "subprog[{name}]", "{rel}", UINT64),
        (PseudoSrc.MAP_IDX, "map[{name}]", "idx:{low}", UINT32),
        (PseudoSrc.MAP_IDX_VALUE, "map[{name}]+{high}", "idx:{low}", UINT64),
    ):
        yield Form(
            LD_IMM64,
            "{d} = " + text,
            Kind.CONSTANT,
            dst=REGISTER,
            src=(source,),
            imm=imm,
            defines=("dst",),
            displacement="imm" if source == PseudoSrc.FUNC else None,
            default_name=name,
        )


def _loads_and_stores() -> Iterator[Form]:
    for size in Size:
        yield Form(
            Class.LDX | Mode.MEM | size,
            "{d} = *(u" + str(size.bits) + " *)({s} {off})",
            Kind.LOAD,
            dst=REGISTER,
            src=REGISTER,
            offset=INT16,
            uses=("src",),
            defines=("dst",),
        )
        yield Form(
            Class.ST | Mode.MEM | size,
            "*(u" + str(size.bits) + " *)({d} {off}) = {imm}",
            Kind.STORE,
            dst=REGISTER,
            offset=INT16,
            imm=INT32,
            uses=("dst",),
        )
        yield Form(
            Class.STX | Mode.MEM | size,
            "*(u" + str(size.bits) + " *)({d} {off}) = {s}",
            Kind.STORE,
            dst=REGISTER,
            src=REGISTER,
            offset=INT16,
            uses=("dst", "src"),
        )
    for size in (Size.W, Size.H, Size.B):
        yield Form(
            Class.LDX | Mode.MEMSX | size,
            "{d} = *(s" + str(size.bits) + " *)({s} {off})",
            Kind.LOAD,
            dst=REGISTER,
            src=REGISTER,
            offset=INT16,
            uses=("src",),
            defines=("dst",),
        )
        # Documentation/bpf/linux-notes.rst: packet loads read the context from r6, scratch what a
        # call does, and leave the program, returning 0, where the packet is too short.
        yield Form(
            Class.LD | Mode.ABS | size,
            "r0 = *(u" + str(size.bits) + " *)skb[{imm}]",
            Kind.LOAD,
            imm=INT32,
            uses=(Register.R6,),
            defines=CALLER_SAVED,
        )
        yield Form(
            Class.LD | Mode.IND | size,
            "r0 = *(u" + str(size.bits) + " *)skb[{s} + {imm}]",
            Kind.LOAD,
            src=REGISTER,
            imm=INT32,
            uses=("src", Register.R6),
            defines=CALLER_SAVED,
        )


def _atomics() -> Iterator[Form]:
    for size in Size:
        memory = "(u" + str(size.bits) + " *)({d} {off})"
        opcode = Class.STX | Mode.ATOMIC | size
        yield Form(
            opcode,
            "{d} = load_acquire((u" + str(size.bits) + " *)({s} {off}))",
            Kind.LOAD,
            dst=REGISTER,
            src=REGISTER,
            offset=INT16,
            imm=(Atomic.LOAD_ACQ,),
            uses=("src",),
            defines=("dst",),
        )
        rows: list[tuple[Atomic, str, Kind, tuple[Operand, ...], tuple[Operand, ...]]] = []
        rows.append(
            (
                Atomic.STORE_REL,
                "store_release(" + memory + ", {s})",
                Kind.STORE,
                ("dst", "src"),
                (),
            )
        )
        if size in (Size.W, Size.DW):
            prefix = "atomic64_" if size is Size.DW else "atomic_"
            rows += [
                (op, "lock *" + memory + " " + sign + " {s}", Kind.ATOMIC, ("dst", "src"), ())
                for op, sign in _ATOMIC_SIGNS.items()
            ]
            rows += [
                (
                    op,
                    "{s} = " + prefix + function + "(" + memory + ", {s})",
                    Kind.ATOMIC,
                    ("dst", "src"),
                    ("src",),
                )
                for op, function in _ATOMIC_FUNCTIONS.items()
            ]
            rows.append(
                (
                    Atomic.CMPXCHG,
                    "r0 = " + prefix + "cmpxchg(" + memory + ", r0, {s})",
                    Kind.ATOMIC,
                    ("dst", "src", Register.R0),
                    (Register.R0,),
                )
            )
        for op, text, kind, uses, defines in rows:
            yield Form(
                opcode,
                text,
                kind,
                dst=REGISTER,
                src=REGISTER,
                offset=INT16,
                imm=(op,),
                uses=uses,
                defines=defines,
            )


def _jumps() -> Iterator[Form]:
    yield Form(
        Class.JMP | JmpOp.JA,
        "goto pc{off}",
        Kind.JUMP,
        offset=INT16,
        displacement="offset",
    )
    yield Form(
        Class.JMP32 | JmpOp.JA,
        "gotol pc{rel}",
        Kind.JUMP,
        imm=INT32,
        displacement="imm",
    )
    yield Form(
        Class.JMP | JmpOp.JCOND,
        "may_goto pc{off}",
        Kind.BRANCH,
        offset=INT16,
        displacement="offset",
    )
    for cls in (Class.JMP, Class.JMP32):
        for op, sign in _BRANCH_SIGNS.items():
            yield Form(
                cls | op | Source.K,
                "if {d} " + sign + " {hex} goto pc{off}",
                Kind.BRANCH,
                dst=REGISTER,
                offset=INT16,
                imm=INT32,
                uses=("dst",),
                word=cls is Class.JMP32,
                displacement="offset",
            )
            yield Form(
                cls | op | Source.X,
                "if {d} " + sign + " {s} goto pc{off}",
                Kind.BRANCH,
                dst=REGISTER,
                src=REGISTER,
                offset=INT16,
                uses=("dst", "src"),
                word=cls is Class.JMP32,
                displacement="offset",
            )


def _calls() -> Iterator[Form]:
    for call, text, name in (
        (CallKind.HELPER, "call {name}#{imm}", "unknown"),
        (CallKind.SUBPROGRAM, "call pc{rel}", ""),
        (CallKind.KFUNC, "call {name}#{imm}", "kernel-function"),
    ):
        yield Form(
            Class.JMP | JmpOp.CALL,
            text,
            Kind.CALL,
            src=(call,),
            # The offset of a kfunc call selects the module's BTF in the loader's fd array.
            offset=INT16 if call is CallKind.KFUNC else ZERO,
            imm=INT32,
            uses=ARGUMENTS,
            defines=CALLER_SAVED,
            displacement="imm" if call is CallKind.SUBPROGRAM else None,
            default_name=name,
        )
    # The verifier ignores an exit's offset; RFC 9669 3.1 reserves it.
    yield Form(Class.JMP | JmpOp.EXIT, "exit", Kind.EXIT, uses=(Register.R0,))


FORMS: tuple[Form, ...] = (
    *_arithmetic(),
    *_moves(),
    *_byte_swaps(),
    *_constants(),
    *_loads_and_stores(),
    *_atomics(),
    *_jumps(),
    *_calls(),
)


def _by_opcode() -> dict[int, tuple[Form, ...]]:
    rows: dict[int, list[Form]] = {}
    for form in FORMS:
        rows.setdefault(form.opcode, []).append(form)
    return {opcode: tuple(row) for opcode, row in rows.items()}


_FORMS_BY_OPCODE = _by_opcode()


def find_form(opcode: int, dst: int, src: int, offset: int, imm: int) -> Form | None:
    """Return the row of the table that the fields belong to, None where there is none."""
    for form in _FORMS_BY_OPCODE.get(opcode, ()):
        if form.matches(dst, src, offset, imm):
            return form
    return None
