# SPDX-License-Identifier: Apache-2.0
"""A machine that runs short programs, and forgives nothing that the verifier refuses."""

from __future__ import annotations

import operator
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from xdpkit.context import BASE, FIELDS
from xdpkit.isa import CallKind, Instruction, Kind, decode, iter_slots
from xdpkit.isa.opcodes import AluOp, Class, JmpOp, Mode, Source
from xdpkit.rewrite import Body
from xdpkit.uapi.helpers import HELPERS

MASK = (1 << 64) - 1
_DATA = 0x1000
_OPERATIONS: dict[AluOp, Callable[[int, int], int]] = {
    AluOp.ADD: operator.add,
    AluOp.SUB: operator.sub,
    AluOp.MUL: operator.mul,
    AluOp.LSH: operator.lshift,
    AluOp.RSH: operator.rshift,
    AluOp.ARSH: lambda left, right: _signed(left) >> right,
}
_LOOKUP, _LENGTH = HELPERS.index("map_lookup_elem"), HELPERS.index("xdp_get_buff_len")


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address: a place in some memory."""

    memory: Memory
    offset: int = 0


@dataclass(slots=True, eq=False)
class Memory:
    """Memory: bytes and pointers, by where they are. What was never written cannot be read."""

    what: str
    size: int = 0
    cells: dict[int, int | Pointer] = field(default_factory=dict)

    def store(self, offset: int, size: int, value: int | Pointer) -> None:
        assert -self.size <= offset <= -size, f"{self.what} has no {offset}"
        if isinstance(value, Pointer):
            assert (size, offset % 8) == (8, 0)
            self.cells |= dict.fromkeys(range(offset, offset + 8), value)
            return
        data = (value & MASK).to_bytes(8, sys.byteorder)
        part = data[:size] if sys.byteorder == "little" else data[8 - size :]
        self.cells |= dict(enumerate(part, offset))

    def load(self, offset: int, size: int) -> int | Pointer:
        cells = [self.cells[at] for at in range(offset, offset + size)]
        first = cells[0]
        if isinstance(first, Pointer):
            assert cells == [first] * 8
            return first
        return int.from_bytes(bytes(map(_number, cells)), sys.byteorder)


Value = int | Pointer | None
"""What is in a register; None: nobody set it."""


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _pointer(value: Value) -> Pointer:
    assert isinstance(value, Pointer)
    return value


@dataclass(frozen=True, slots=True)
class Packet:
    """What a program is run for.

    Attributes:
        fields: of the extended context, for a program as it was compiled; None: it must have been
            provided with them, and the context has none.
        first: bytes of the first fragment. length: bytes of all.
        ifindex, egress: interfaces. queue: the RX queue that it came by.
        ports: what is in the map of ports.
    """

    fields: Mapping[str, int] | None
    first: int = 60
    length: int = 60
    ifindex: int = 2
    egress: int = 3
    queue: int = 0
    ports: Mapping[int, int] = field(default_factory=dict)


class Machine:
    """Runs a program for a packet."""

    def __init__(self, body: Body, packet: Packet, map_slots: tuple[int, ...] = ()) -> None:
        self._code = dict(iter_slots(decode(body.code, byteorder=sys.byteorder)))
        self._packet = packet
        self._map = Memory("the map")
        self._map_slots = map_slots
        self.context = Memory("the context")
        known = (_DATA, _DATA + packet.first, _DATA, packet.ifindex, packet.queue, packet.egress)
        data = bytearray(struct.pack("=6I", *known))
        if packet.fields is not None:
            data += bytes(BASE - len(data))
            for each in FIELDS:
                data += packet.fields[each.name].to_bytes(each.size, sys.byteorder)
        self.context.cells = dict(enumerate(data))

    def run(self) -> int:
        """Return what main returns."""
        return _number(self._call(0, [Pointer(self.context)]))

    def _call(self, slot: int, arguments: Sequence[Value]) -> Value:
        regs: list[Value] = [None, *arguments, *[None] * (10 - len(arguments))]
        regs[10] = Pointer(Memory("the stack", 512))
        while True:
            instruction = self._code[slot]
            following = slot + instruction.slots
            kind = instruction.kind
            if kind is Kind.EXIT:
                return regs[0]
            if kind is Kind.ALU:
                self._alu(regs, instruction)
            elif kind is Kind.CONSTANT:
                is_map = slot in self._map_slots
                regs[instruction.dst] = Pointer(self._map) if is_map else instruction.imm
            elif kind is Kind.LOAD:
                regs[instruction.dst] = self._load(regs, instruction)
            elif kind is Kind.STORE:
                self._store(regs, instruction)
            elif kind is Kind.CALL:
                if instruction.call_kind is CallKind.SUBPROGRAM:
                    target = instruction.target(slot)
                    assert target is not None
                    regs[0] = self._call(target, regs[1:6])
                else:
                    regs[0] = self._help(instruction.imm, regs)
                regs[1:6] = [None] * 5
            elif kind is Kind.JUMP or self._is_taken(regs, instruction):
                target = instruction.target(slot)
                assert target is not None
                following = target
            slot = following

    def _alu(self, regs: list[Value], instruction: Instruction) -> None:
        op, dst = AluOp(instruction.opcode & 0xF0), instruction.dst
        right = regs[instruction.src] if instruction.opcode & Source.X else instruction.imm
        assert right is not None, "a register that nobody set"
        left = regs[dst]
        is_wide = instruction.opcode & 7 == Class.ALU64
        if op == AluOp.MOV:
            result = right
        elif isinstance(left, Pointer):
            assert instruction.opcode & ~Source.X == Class.ALU64 | AluOp.ADD
            result = Pointer(left.memory, left.offset + _number(right))
        else:
            result = _OPERATIONS[op](_number(left), _number(right))
        if isinstance(result, int):
            result &= MASK if is_wide else 0xFFFFFFFF
        regs[dst] = result

    def _load(self, regs: list[Value], instruction: Instruction) -> Value:
        base, size = _pointer(regs[instruction.src]), instruction.access_size or 0
        value = base.memory.load(base.offset + instruction.offset, size)
        if instruction.opcode & 0xE0 == Mode.MEMSX:
            sign = 1 << (8 * size - 1)
            value = ((_number(value) ^ sign) - sign) & MASK
        return value

    def _store(self, regs: list[Value], instruction: Instruction) -> None:
        base, size = _pointer(regs[instruction.dst]), instruction.access_size or 0
        is_immediate = instruction.opcode & 7 == Class.ST
        value = instruction.imm if is_immediate else regs[instruction.src]
        assert value is not None, "a register that nobody set"
        assert base.memory is not self.context, "the context is written"
        base.memory.store(base.offset + instruction.offset, size, value)

    def _is_taken(self, regs: list[Value], instruction: Instruction) -> bool:
        left, imm = regs[instruction.dst], instruction.imm
        if instruction.opcode == Class.JMP | JmpOp.JEQ:
            # No address is NULL.
            return left == imm
        assert instruction.opcode == Class.JMP | JmpOp.JGT
        return _number(left) > imm

    def _help(self, number: int, regs: list[Value]) -> int | Pointer:
        if number == _LENGTH:
            assert regs[1] == Pointer(self.context)
            return self._packet.length
        assert (number, regs[1]) == (_LOOKUP, Pointer(self._map))
        key = _pointer(regs[2])
        ifindex = _number(key.memory.load(key.offset, 4))
        if ifindex not in self._packet.ports:
            return 0
        found = Memory("a value", 4)
        found.store(-4, 4, self._packet.ports[ifindex])
        return Pointer(found, -4)
