# SPDX-License-Identifier: Apache-2.0
"""One instruction as a value, and its machine code."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.isa.forms import CallKind, Form, Kind, Operand, find_form
from xdpkit.isa.opcodes import LD_IMM64, SLOT_SIZE, Class, Register, Size

_EVERY_REGISTER = frozenset(Register)
_WRITABLE_REGISTERS = _EVERY_REGISTER - {Register.R10}


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction: the fields of RFC 9669 section 3.1, and what they amount to.

    Any field values can be represented; whether they mean something is :attr:`is_known`. What an
    unknown instruction does is not guessed: it is no load, jump or call, and it is taken to read
    and to change every register.

    Attributes:
        opcode: 0 to 255.
        dst, src: the register fields, 0 to 15; src also selects what an immediate means.
        offset: signed 16 bits: bytes in a load or store, slots in a jump.
        imm: signed 32 bits; of the two-slot 64-bit immediate load (0x18) the unsigned 64-bit
            value, with the second slot's immediate in the upper half.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0

    @property
    def slots(self) -> int:
        """How many 8-byte slots the machine code takes: 1 or 2."""
        return 2 if self.opcode == LD_IMM64 else 1

    @property
    def form(self) -> Form | None:
        """The row of the instruction table that this is, None for an unknown instruction."""
        return find_form(self.opcode, self.dst, self.src, self.offset, self.imm)

    @property
    def is_known(self) -> bool:
        """Whether the instruction set defines it, reserved fields and register numbers included.

        This is a statement about one instruction: the verifier can still refuse what it does.
        """
        return self.form is not None

    @property
    def op_class(self) -> Class:
        """The class, which every opcode has, also an unknown one."""
        return Class(self.opcode & 0x07)

    @property
    def kind(self) -> Kind | None:
        """What it does, None for an unknown instruction."""
        form = self.form
        return None if form is None else form.kind

    @property
    def is_load(self) -> bool:
        """Whether it reads memory; the 64-bit immediate load does not."""
        return self.kind in (Kind.LOAD, Kind.ATOMIC)

    @property
    def is_store(self) -> bool:
        """Whether it writes memory."""
        return self.kind in (Kind.STORE, Kind.ATOMIC)

    @property
    def access_size(self) -> int | None:
        """Bytes that a load or store moves, None for other instructions."""
        if self.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
            return Size(self.opcode & 0x18).bits // 8
        return None

    @property
    def is_jump(self) -> bool:
        """Whether it may go on at :meth:`target`: any jump, but neither call nor exit."""
        return self.kind in (Kind.JUMP, Kind.BRANCH)

    @property
    def is_conditional(self) -> bool:
        """Whether it is a jump that may also go on at the next instruction."""
        return self.kind is Kind.BRANCH

    @property
    def is_unconditional(self) -> bool:
        """Whether it is a jump that never goes on at the next instruction."""
        return self.kind is Kind.JUMP

    @property
    def is_call(self) -> bool:
        """Whether it calls a helper, a subprogram or a kfunc."""
        return self.kind is Kind.CALL

    @property
    def is_exit(self) -> bool:
        """Whether it returns from the program or subprogram."""
        return self.kind is Kind.EXIT

    @property
    def call_kind(self) -> CallKind | None:
        """What a call calls, None for other instructions."""
        return CallKind(self.src) if self.is_call else None

    def target(self, slot: int) -> int | None:
        """Return the slot that this instruction, standing at ``slot``, refers to.

        That is where a jump jumps to, the entry of the subprogram that is called, or that of the
        function whose address is loaded (``BPF_PSEUDO_FUNC``); None for other instructions. The
        result can lie outside the program, also below zero.
        """
        form = self.form
        if form is None or form.displacement is None:
            return None
        distance = self.offset if form.displacement == "offset" else signed32(self.imm)
        return slot + 1 + distance

    @property
    def uses(self) -> frozenset[int]:
        """The registers that it may read.

        How many arguments a callee takes is not known here: a call uses r1 to r5.
        """
        form = self.form
        return _EVERY_REGISTER if form is None else self._registers(form.uses)

    @property
    def defines(self) -> frozenset[int]:
        """The registers whose value it changes or destroys: r0 to r5 for a call."""
        form = self.form
        return _WRITABLE_REGISTERS if form is None else self._registers(form.defines)

    def _registers(self, operands: tuple[Operand, ...]) -> frozenset[int]:
        fields = {"dst": self.dst, "src": self.src}
        return frozenset(fields[op] if isinstance(op, str) else int(op) for op in operands)


def signed32(value: int) -> int:
    """Return the lower 32 bits of a value, read as two's complement."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


# opcode, register pair, offset, immediate; then how far to shift the pair for dst and for src.
_LAYOUTS = {
    "little": (struct.Struct("<BBhi"), 0, 4),
    "big": (struct.Struct(">BBhi"), 4, 0),
}


def _layout(byteorder: str) -> tuple[struct.Struct, int, int]:
    try:
        return _LAYOUTS[byteorder]
    except KeyError:
        raise UsageError(
            f"encode or decode instructions in byte order {byteorder!r}",
            cause='the byte order is "little" or "big"',
        ) from None


def decode(
    code: bytes | bytearray | memoryview, *, byteorder: str = "little"
) -> tuple[Instruction, ...]:
    """Return the instructions of a piece of machine code.

    Decoding is structural: an instruction that nobody defined is decoded all the same, and
    :func:`encode` gives the same bytes again.

    Args:
        code: whole slots of 8 bytes, contiguous.
        byteorder: "little" or "big"; in big endian the two register fields change places too.

    Raises:
        ObjectFormatError: the code ends within an instruction, or the second slot of a 64-bit
            immediate load is not one; ``offset`` is the byte offset of the slot in question.
    """
    layout, dst_shift, src_shift = _layout(byteorder)
    size = memoryview(code).nbytes
    if size % SLOT_SIZE:
        raise ObjectFormatError(
            f"the code is {size} bytes long, which is no multiple of {SLOT_SIZE}",
            offset=size - size % SLOT_SIZE,
        )
    instructions: list[Instruction] = []
    slots = layout.iter_unpack(code)
    for opcode, registers, offset, imm in slots:
        value = imm
        if opcode == LD_IMM64:
            second = next(slots, None)
            if second is None or second[:3] != (0, 0, 0):
                raise _bad_second_slot(instructions, missing=second is None)
            value = (imm & 0xFFFFFFFF) | (second[3] & 0xFFFFFFFF) << 32
        instructions.append(
            Instruction(
                opcode, registers >> dst_shift & 15, registers >> src_shift & 15, offset, value
            )
        )
    return tuple(instructions)


def _bad_second_slot(before: list[Instruction], *, missing: bool) -> ObjectFormatError:
    slot = sum(instruction.slots for instruction in before) + 1
    if missing:
        cause = "the code ends after the first slot of a 64-bit immediate load"
    else:
        cause = "the second slot of a 64-bit immediate load has an opcode, a register or an offset"
    return ObjectFormatError(cause, offset=slot * SLOT_SIZE)


def encode(instructions: Iterable[Instruction], *, byteorder: str = "little") -> bytes:
    """Return the machine code of instructions, known or not.

    Raises:
        UsageError: a field has a value that its bits cannot hold.
    """
    layout, dst_shift, src_shift = _layout(byteorder)
    code = bytearray()
    for instruction in instructions:
        dst, src, imm = instruction.dst, instruction.src, instruction.imm
        high = None
        try:
            if instruction.opcode == LD_IMM64:
                if not 0 <= imm < 1 << 64:
                    raise _field_out_of_range(instruction)
                imm, high = signed32(imm), signed32(imm >> 32)
            if not (0 <= dst <= 15 and 0 <= src <= 15):
                raise _field_out_of_range(instruction)
            registers = dst << dst_shift | src << src_shift
            code += layout.pack(instruction.opcode, registers, instruction.offset, imm)
        except struct.error:
            raise _field_out_of_range(instruction) from None
        if high is not None:
            code += layout.pack(0, 0, 0, high)
    return bytes(code)


def _field_out_of_range(instruction: Instruction) -> UsageError:
    return UsageError(
        f"encode {instruction}", cause="a field has a value that its bits cannot hold"
    )


def iter_slots(instructions: Iterable[Instruction]) -> Iterator[tuple[int, Instruction]]:
    """Yield each instruction with the slot at which it starts, the first at 0."""
    slot = 0
    for instruction in instructions:
        yield slot, instruction
        slot += instruction.slots
