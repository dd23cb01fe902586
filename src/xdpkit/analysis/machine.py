# SPDX-License-Identifier: Apache-2.0
"""What one instruction does to a state: arithmetic, memory and branches.

Calls are in :mod:`xdpkit.analysis.calls`.
"""

from __future__ import annotations

from xdpkit.analysis.refine import refine
from xdpkit.analysis.state import (
    FIRST_VALUE,
    HAVOC,
    KERNEL,
    METADATA,
    PACKET,
    PACKET_END,
    ZERO,
    Region,
    RegionKind,
    State,
    Value,
    is_on_stack,
    join_values,
    moved,
    pointer,
)
from xdpkit.analysis.subject import Subject
from xdpkit.analysis.usage import Recorder
from xdpkit.analysis.values import (
    MASK32,
    MASK64,
    TOP,
    Cause,
    CauseKind,
    Scalar,
    Width,
    arithmetic,
    constant,
    sign_extend,
    swap_bytes,
    truncate,
    unknown,
)
from xdpkit.isa import Instruction
from xdpkit.isa.opcodes import (
    ADDR_SPACE_CAST,
    AluOp,
    Atomic,
    Class,
    JmpOp,
    Mode,
    Register,
    Size,
    Source,
)
from xdpkit.obj.spec import RelocationKind
from xdpkit.uapi.bpf import MAX_BPF_STACK, ProgType, PseudoSrc

XDP_MD_FIELDS = {
    0: "data",
    4: "data_end",
    8: "data_meta",
    12: "ingress_ifindex",
    16: "rx_queue_index",
    20: "egress_ifindex",
}
"""``struct xdp_md`` (include/uapi/linux/bpf.h): each field has 4 bytes."""

_CONTEXT_POINTERS = {0: PACKET, 4: PACKET_END, 8: METADATA}
_SIZES = {size: size.bits // 8 for size in Size}
_ATOMIC_OPERATIONS = {
    Atomic.ADD: AluOp.ADD,
    Atomic.OR: AluOp.OR,
    Atomic.AND: AluOp.AND,
    Atomic.XOR: AluOp.XOR,
}
_FETCH = 0x01


class Machine:
    """The data instructions of one subject.

    Args:
        subject: the program.
        recorder: where what they use is taken down.
    """

    def __init__(self, subject: Subject, recorder: Recorder) -> None:
        self.subject = subject
        self.recorder = recorder
        self._byteorder = subject.byteorder

    def alu(self, state: State, instruction: Instruction, slot: int) -> None:
        """Apply an instruction of the classes ALU and ALU64."""
        opcode = instruction.opcode
        width: Width = 64 if opcode & 7 == Class.ALU64 else 32
        op = opcode & 0xF0
        dst = instruction.dst
        if op == AluOp.MOV:
            state.regs[dst] = self._move(state, instruction, width, slot)
            return
        left = state.regs[dst]
        if op == AluOp.END:
            state.regs[dst] = self._byte_order(left, instruction, width, slot)
            return
        if op == AluOp.NEG:
            op, right, left = AluOp.SUB, left, Value(ZERO)
        elif opcode & Source.X:
            right = state.regs[instruction.src]
        else:
            right = Value(constant(instruction.imm, slot))
        if left.pointers or right.pointers:
            state.regs[dst] = _with_pointers(op, left, right, width, slot)
            return
        state.regs[dst] = Value(
            arithmetic(
                op,
                left.scalar or TOP,
                right.scalar or TOP,
                slot,
                width=width,
                signed=instruction.offset == 1,
            )
        )

    def _move(self, state: State, instruction: Instruction, width: Width, slot: int) -> Value:
        if not instruction.opcode & Source.X:
            mask = MASK64 if width == 64 else MASK32
            return Value(constant(instruction.imm & mask, slot))
        value = state.linked(instruction.src)
        bits = instruction.offset
        if width == 64 and bits == 0:
            return value
        if width == 64 and bits == ADDR_SPACE_CAST:
            return Value(unknown(64, Cause(CauseKind.KERNEL_MEMORY, "", slot)))
        if value.pointers:
            return _address(slot, width)
        scalar = value.scalar or TOP
        changed = sign_extend(scalar, bits, width=width) if bits else truncate(scalar, 32)
        return value if changed is scalar else Value(changed)

    def _byte_order(self, value: Value, instruction: Instruction, width: Width, slot: int) -> Value:
        if value.pointers:
            value = _address(slot, 64)
        scalar = value.scalar or TOP
        if width == 32:
            wanted = "big" if instruction.opcode & Source.X else "little"
            if wanted == self._byteorder:
                return Value(truncate(scalar, instruction.imm))
        return Value(swap_bytes(scalar, instruction.imm, slot))

    def constant(self, state: State, instruction: Instruction, slot: int) -> None:
        """Apply the 64-bit immediate load."""
        state.regs[instruction.dst] = self._constant(instruction, slot)

    def _constant(self, instruction: Instruction, slot: int) -> Value:
        reference = self.subject.references.get(slot)
        if reference is not None:
            if reference.kind in (RelocationKind.MAP, RelocationKind.MAP_VALUE):
                self.recorder.maps[reference.name].add(slot)
                if reference.kind is RelocationKind.MAP:
                    return pointer(Region(RegionKind.MAP, reference.name))
                return pointer(
                    Region(RegionKind.MAP_VALUE, reference.name), constant(reference.offset, slot)
                )
            self.recorder.symbols[reference.name].add(slot)
            if reference.is_there is False:
                return Value(constant(0, slot))
            region = Region(RegionKind.KERNEL, reference.name)
            return pointer(region, nullable_at=slot if reference.is_there is None else None)
        source, imm = instruction.src, instruction.imm
        if source == 0:
            return Value(constant(imm, slot))
        if source == PseudoSrc.FUNC:
            target = instruction.target(slot) or 0
            return pointer(Region(RegionKind.FUNCTION, number=target))
        if source == PseudoSrc.BTF_ID:
            # A weak kernel variable that is not there has the address 0.
            return pointer(KERNEL, nullable_at=slot)
        by = "fd" if source in (PseudoSrc.MAP_FD, PseudoSrc.MAP_VALUE) else "index"
        name = f"{by} {imm & MASK32}"
        self.recorder.maps[name].add(slot)
        if source in (PseudoSrc.MAP_FD, PseudoSrc.MAP_IDX):
            return pointer(Region(RegionKind.MAP, name))
        return pointer(Region(RegionKind.MAP_VALUE, name), constant(imm >> 32, slot))

    def load(self, state: State, instruction: Instruction, slot: int) -> None:
        """Apply a load, acquiring or not; LD_ABS and LD_IND are not for XDP."""
        opcode = instruction.opcode
        size = _SIZES[Size(opcode & 0x18)]
        if opcode & 7 == Class.LD:
            self._packet_load(state, slot, size)
            return
        loaded = self._read(state, state.regs[instruction.src], instruction.offset, size, slot)
        if opcode & 0xE0 == Mode.MEMSX:
            if loaded.pointers:
                loaded = _address(slot, 64)
            loaded = Value(sign_extend(loaded.scalar or TOP, size * 8))
        state.regs[instruction.dst] = loaded

    def _packet_load(self, state: State, slot: int, size: int) -> None:
        self.recorder.touched_packet(False, slot)
        for register in range(Register.R1, Register.R6):
            state.regs[register] = HAVOC
        state.regs[Register.R0] = Value(unknown(size * 8, Cause(CauseKind.PACKET, "", slot)))

    def store(self, state: State, instruction: Instruction, slot: int) -> None:
        """Apply a store of a register or an immediate, releasing or not."""
        if instruction.opcode & 7 == Class.ST:
            value = Value(constant(instruction.imm, slot))
        else:
            value = state.linked(instruction.src)
        size = _SIZES[Size(instruction.opcode & 0x18)]
        base = state.regs[instruction.dst]
        self._write(state, base, instruction.offset, size, value, slot)

    def atomic(self, state: State, instruction: Instruction, slot: int) -> None:
        """Apply an atomic read-modify-write operation."""
        size = _SIZES[Size(instruction.opcode & 0x18)]
        base, offset = state.regs[instruction.dst], instruction.offset
        op, src = instruction.imm, instruction.src
        operand = state.regs[src]
        old = self._read(state, base, offset, size, slot)
        if op == Atomic.CMPXCHG:
            new = join_values(old, _cut(operand, size, slot))
            target = Register.R0
        else:
            new = self._atomic_result(op, old, operand, size, slot)
            target = Register(src)
        self._write(state, base, offset, size, new._replace(id=0), slot)
        if op & _FETCH:
            state.regs[target] = old._replace(id=0)

    def _atomic_result(self, op: int, old: Value, operand: Value, size: int, slot: int) -> Value:
        operand = _cut(operand, size, slot)
        if op == Atomic.XCHG:
            return operand
        if old.pointers or operand.pointers:
            return HAVOC
        return Value(
            arithmetic(
                _ATOMIC_OPERATIONS[Atomic(op & ~_FETCH)],
                old.scalar or TOP,
                operand.scalar or TOP,
                slot,
                width=64 if size == 8 else 32,
            )
        )

    def _read(self, state: State, base: Value, offset: int, size: int, slot: int) -> Value:
        self.recorder.access(base, offset, size, False, slot)
        result: Value | None = None
        if base.scalar is not None and (base.scalar.constant != 0 or not base.pointers):
            # An address that was itself read from kernel memory.
            result = Value(unknown(size * 8, Cause(CauseKind.KERNEL_MEMORY, "", slot)))
        for region, distance in base.pointers:
            read = self._read_region(state, region, distance, offset, size, slot)
            result = read if result is None else join_values(result, read)._replace(id=0)
        assert result is not None
        return result

    def _read_region(
        self, state: State, region: Region, distance: Scalar, offset: int, size: int, slot: int
    ) -> Value:
        match region.kind:
            case RegionKind.STACK if region.number < len(state.frames):
                return self._read_stack(state, region.number, distance, offset, size, slot)
            case RegionKind.CONTEXT:
                return self._read_context(distance, offset, size, slot)
            case RegionKind.MAP_VALUE:
                return Value(self._read_map(region, distance, offset, size, slot))
            case RegionKind.PACKET | RegionKind.METADATA:
                cause = Cause(CauseKind.PACKET, "", slot)
            case RegionKind.ANYWHERE | RegionKind.STACK:
                top = unknown(size * 8, Cause(CauseKind.STACK, "", slot))
                return Value(top, HAVOC.pointers if size == 8 else ())
            case _:
                cause = Cause(CauseKind.KERNEL_MEMORY, region.name, slot)
        return Value(unknown(size * 8, cause))

    def _read_stack(
        self, state: State, index: int, distance: Scalar, offset: int, size: int, slot: int
    ) -> Value:
        frame = state.frames[index]
        places = stack_places(distance, offset)
        self.recorder.stack(frame, min(places, default=-MAX_BPF_STACK))
        if not places:
            cause = Cause(CauseKind.STACK, "", slot)
            return Value(unknown(size * 8, cause), HAVOC.pointers if frame.lost else ())
        result = frame.load(places[0], size, slot)
        for place in places[1:]:
            other = frame.load(place, size, slot)
            result = join_values(result, other)._replace(id=0)
        return result

    def _read_context(self, distance: Scalar, offset: int, size: int, slot: int) -> Value:
        place = distance.constant
        name = ""
        if self.subject.type == ProgType.XDP and place is not None:
            place = signed_offset(place) + offset
            region = _CONTEXT_POINTERS.get(place)
            if region is not None and size == 4:
                return pointer(region)
            name = XDP_MD_FIELDS.get(place & ~3, "")
        return Value(unknown(size * 8, Cause(CauseKind.CONTEXT, name, slot)))

    def _read_map(
        self, region: Region, distance: Scalar, offset: int, size: int, slot: int
    ) -> Scalar:
        known = self.subject.maps.get(region.name) if region.number == FIRST_VALUE else None
        if known is not None and known.data is not None and distance.values is not None:
            places = [signed_offset(place) + offset for place in distance.values]
            if all(0 <= place <= len(known.data) - size for place in places):
                numbers = {
                    int.from_bytes(known.data[place : place + size], self._byteorder): (slot,)
                    for place in places
                }
                return Scalar(numbers, min(numbers), max(numbers))
        return unknown(size * 8, Cause(CauseKind.MAP, region.name, slot))

    def _write(
        self, state: State, base: Value, offset: int, size: int, value: Value, slot: int
    ) -> None:
        self.recorder.access(base, offset, size, True, slot)
        if any(region.kind is not RegionKind.STACK for region, _ in base.pointers):
            self.recorder.took_address(value, slot)
        if base.may_be_anywhere:
            forget_everything(state)
        for number, distance in state.places_on_stack(base):
            places = stack_places(distance, offset)
            frame = state.frame(number)
            self.recorder.stack(frame, min(places, default=-MAX_BPF_STACK))
            if len(places) == 1 and len(base.pointers) == 1 and base.scalar is None:
                frame.store(places[0], size, _cut(value, size, slot))
                continue
            for place in places:
                frame.forget(place, place + size, is_overwritten=False)
            if not places:
                frame.forget(-MAX_BPF_STACK, 0, is_overwritten=False)

    def branch(self, state: State, instruction: Instruction, *, taken: bool, slot: int) -> bool:
        """Take note of what an edge tells; return whether it can be taken at all."""
        opcode = instruction.opcode
        if opcode == Class.JMP | JmpOp.JCOND:
            return True
        op = opcode & 0xF0
        left = state.regs[instruction.dst]
        if opcode & Source.X:
            right = state.regs[instruction.src]
        else:
            right = Value(constant(instruction.imm, slot))
        if left.pointers or right.pointers:
            return _compare_pointers(state, instruction, op, left, right, taken)
        width: Width = 32 if opcode & 7 == Class.JMP32 else 64
        first, second = left.scalar or TOP, right.scalar or TOP
        if width == 32 and not opcode & Source.X:
            second = constant(instruction.imm & MASK32, slot)
        pair = refine(op, first, second, taken=taken, width=width)
        if pair is None:
            return False
        if pair[0] is not first:
            state.learn(instruction.dst, left._replace(scalar=pair[0]))
        if opcode & Source.X and pair[1] is not second:
            state.learn(instruction.src, right._replace(scalar=pair[1]))
        return True


def stack_places(distance: Scalar, offset: int) -> list[int]:
    """Return the offsets from the frame pointer that a pointer and a displacement give."""
    if distance.values is None:
        return []
    places = [signed_offset(value) + offset for value in distance.values]
    return places if all(-MAX_BPF_STACK <= place < 0 for place in places) else []


def signed_offset(number: int) -> int:
    """Return 64 bits read as two's complement."""
    return number - (1 << 64) if number >> 63 else number


def forget_everything(state: State) -> None:
    """Forget what is on the stack: somebody wrote through a pointer that nobody knows."""
    for index in range(len(state.frames)):
        state.frame(index).forget(-MAX_BPF_STACK, 0, is_overwritten=False)


def _cut(value: Value, size: int, slot: int) -> Value:
    """Return what of a register is stored."""
    if size == 8:
        return value
    if value.pointers:
        value = _address(slot, 64)
    scalar = value.scalar or TOP
    cut = truncate(scalar, size * 8)
    return value if cut is scalar else Value(cut)


def _address(slot: int, width: Width) -> Value:
    """Return a pointer taken as a number."""
    return Value(unknown(width, Cause(CauseKind.ADDRESS, "", slot)))


def _with_pointers(op: int, left: Value, right: Value, width: Width, slot: int) -> Value:
    """Apply an operation of which an operand may be a pointer."""
    if op not in (AluOp.ADD, AluOp.SUB) or width == 32:
        return _of_numbers(op, left, right, width, slot)
    if left.may_be_anywhere or right.may_be_anywhere:
        return HAVOC
    if not right.pointers and right.scalar is not None:
        scalar = left.scalar and arithmetic(op, left.scalar, right.scalar, slot)
        return Value(scalar, moved(left, op, right.scalar, slot))
    if op == AluOp.ADD and not left.pointers and left.scalar is not None:
        scalar = right.scalar and arithmetic(op, right.scalar, left.scalar, slot)
        return Value(scalar, moved(right, op, left.scalar, slot))
    if op == AluOp.ADD and is_on_stack(left) | is_on_stack(right):
        return HAVOC
    return _address(slot, width)


def _of_numbers(op: int, left: Value, right: Value, width: Width, slot: int) -> Value:
    """Apply an operation that the verifier refuses for pointers; of 32 bits it may be a number."""
    if left.scalar is None or right.scalar is None:
        return _address(slot, width)
    result = Value(arithmetic(op, left.scalar, right.scalar, slot, width=width))
    return result if width == 64 else join_values(result, _address(slot, width))


def _compare_pointers(
    state: State, instruction: Instruction, op: int, left: Value, right: Value, taken: bool
) -> bool:
    """Refine by a comparison with NULL; of any other nothing is learnt."""
    null_test = op in (JmpOp.JEQ, JmpOp.JNE) and instruction.opcode & 7 == Class.JMP
    if not null_test or right.pointers or right.scalar is None or right.scalar.constant != 0:
        return True
    is_null = (op == JmpOp.JEQ) == taken
    if left.may_be_anywhere:
        return True
    pair = None
    if left.scalar is not None:
        pair = refine(JmpOp.JEQ, left.scalar, ZERO, taken=is_null)
    if is_null:
        if pair is None:
            return False
        state.learn(instruction.dst, left._replace(scalar=pair[0], pointers=()))
        return True
    state.learn(instruction.dst, left._replace(scalar=None if pair is None else pair[0]))
    return True
