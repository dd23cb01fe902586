# SPDX-License-Identifier: Apache-2.0
"""What is known at one place of a program: registers and stack frames.

A register holds a number or a pointer; after a join it can be either. Registers and stack cells
with the same non-zero ``id`` are copies of one another, so that what a branch tells about one is
known of all of them, as in the verifier.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from xdpkit.analysis.values import (
    TOP,
    Cause,
    CauseKind,
    Scalar,
    arithmetic,
    bits_of,
    constant,
    join,
    unknown,
    widen,
)
from xdpkit.isa.opcodes import AluOp
from xdpkit.uapi.bpf import MAX_BPF_STACK

FRAME_POINTER = 10
REGISTERS = 11
_MAX_REGIONS = 8


class RegionKind(enum.StrEnum):
    """What a pointer can point into."""

    CONTEXT = "context"
    PACKET = "packet"
    METADATA = "metadata"
    PACKET_END = "packet-end"
    STACK = "stack"
    MAP = "map"  # the map itself
    MAP_VALUE = "map-value"
    FUNCTION = "function"
    KERNEL = "kernel"
    ANYWHERE = "anywhere"


class Region(NamedTuple):
    """A piece of memory.

    Attributes:
        kind: what it is.
        name: of the map, or of what gave the memory.
        number: STACK: which frame, 0 is the outermost known; FUNCTION: its first slot;
            MAP_VALUE: FIRST_VALUE or ANY_VALUE of the map.
    """

    kind: RegionKind
    name: str = ""
    number: int = 0


FIRST_VALUE = 0
ANY_VALUE = 1

CONTEXT = Region(RegionKind.CONTEXT)
PACKET = Region(RegionKind.PACKET)
METADATA = Region(RegionKind.METADATA)
PACKET_END = Region(RegionKind.PACKET_END)
KERNEL = Region(RegionKind.KERNEL)
ANYWHERE = Region(RegionKind.ANYWHERE)

# Only here does an offset matter; elsewhere it would only keep loops from coming to an end.
_WITH_OFFSET = frozenset({RegionKind.CONTEXT, RegionKind.STACK, RegionKind.MAP_VALUE})

Pointer: TypeAlias = tuple[Region, Scalar]


class Value(NamedTuple):
    """What a register or a stack cell may hold: one of the numbers, or one of the pointers.

    Attributes:
        scalar: the numbers; None: it is a pointer.
        pointers: by region, each once; the scalar of each is its offset in bytes.
        id: what copies of each other have in common; 0 without copies.
    """

    scalar: Scalar | None
    pointers: tuple[Pointer, ...] = ()
    id: int = 0

    @property
    def may_be_anywhere(self) -> bool:
        """Whether it may be a pointer of which nothing is known."""
        return any(region.kind is RegionKind.ANYWHERE for region, _ in self.pointers)


ZERO = constant(0, 0)
UNSET = Value(TOP)
"""What nobody may look at, and of which nothing is known."""
HAVOC = Value(TOP, ((ANYWHERE, ZERO),))
"""Anything at all, also a pointer into the stack."""

_ids = itertools.count(1)


def fresh_id() -> int:
    """Return an id that no other value has."""
    return next(_ids)


def pointer(region: Region, offset: Scalar = ZERO, *, nullable_at: int | None = None) -> Value:
    """Return a pointer, or NULL as well, which the instruction at ``nullable_at`` returned."""
    return Value(None if nullable_at is None else constant(0, nullable_at), ((region, offset),))


def is_on_stack(value: Value) -> bool:
    """Return whether it may point into the stack."""
    return any(
        region.kind in (RegionKind.STACK, RegionKind.ANYWHERE) for region, _ in value.pointers
    )


def moved(value: Value, op: int, by: Scalar, slot: int) -> tuple[Pointer, ...]:
    """Return the pointers of a value with a distance added or subtracted."""
    return tuple(
        (region, arithmetic(op, offset, by, slot) if region.kind in _WITH_OFFSET else ZERO)
        for region, offset in value.pointers
    )


def join_values(old: Value, new: Value, *, widening: bool = False) -> Value:
    """Return a value that holds both, with the id of ``old``; ``old`` itself if it does already."""
    if old is new:
        return old
    combine = widen if widening else join
    if old.scalar is None or new.scalar is None:
        scalar = new.scalar if old.scalar is None else old.scalar
    else:
        scalar = combine(old.scalar, new.scalar)
    pointers = old.pointers
    if new.pointers != pointers:
        offsets = dict(pointers)
        for region, offset in new.pointers:
            known = offsets.get(region)
            offsets[region] = offset if known is None else combine(known, offset)
        if len(offsets) > _MAX_REGIONS:
            offsets = {ANYWHERE: ZERO}
            scalar = TOP
        pointers = tuple(sorted(offsets.items(), key=lambda item: item[0]))
        if pointers == old.pointers:
            pointers = old.pointers
    if scalar is old.scalar and pointers is old.pointers:
        return old
    return Value(scalar, pointers, old.id)


def value_key(value: Value) -> object:
    """Return what tells values apart, leaving out where their parts came from."""
    return _scalar_key(value.scalar), tuple(
        (region, _scalar_key(offset)) for region, offset in value.pointers
    )


def _scalar_key(scalar: Scalar | None) -> object:
    if scalar is None:
        return None
    if scalar.values is None:
        return scalar.pieces
    return frozenset(scalar.values)


class Frame:
    """A stack frame: what is stored at which offset from the frame pointer.

    Attributes:
        owner: first slot of the function.
        byteorder: of the machine, "little" or "big".
        cells: size in bytes and value by offset; cells do not overlap. Where there is none,
            nothing is known.
        escaped: somebody unknown can write from this offset on, at any time; 0: nobody.
        lost: a pointer into the stack may still be somewhere where no cell is.
    """

    __slots__ = ("byteorder", "cells", "escaped", "lost", "owner")

    def __init__(self, owner: int, byteorder: str) -> None:
        self.owner = owner
        self.byteorder = byteorder
        self.cells: dict[int, tuple[int, Value]] = {}
        self.escaped = 0
        self.lost = False

    def copy(self) -> Frame:
        other = Frame(self.owner, self.byteorder)
        other.cells = self.cells.copy()
        other.escaped = self.escaped
        other.lost = self.lost
        return other

    def forget(self, offset: int, end: int, *, is_overwritten: bool) -> None:
        """Forget what is stored from ``offset`` to before ``end``.

        Args:
            offset, end: the part of the frame; of numbers that are partly in it the rest is kept.
            is_overwritten: whether it is gone for sure; else it may still be there.
        """
        if end - offset > len(self.cells):
            overlapping = [at for at, (size, _) in self.cells.items() if offset - size < at < end]
        else:
            overlapping = [
                at
                for at in range(offset - 7, end)
                if at in self.cells and at + self.cells[at][0] > offset
            ]
        for at in overlapping:
            cell = self.drop(at, is_overwritten=is_overwritten)
            for start, stop in ((at, offset), (end, at + cell[0])):
                piece = self._piece(cell, start - at, stop - start) if start < stop else None
                if piece is not None:
                    self.cells[start] = (stop - start, Value(piece))

    def drop(self, offset: int, *, is_overwritten: bool = False) -> tuple[int, Value]:
        """Forget one cell, and return it."""
        cell = self.cells.pop(offset)
        self.lost |= not is_overwritten and is_on_stack(cell[1])
        return cell

    def escape(self, offset: int) -> None:
        """Let somebody unknown write from ``offset`` on, from now on."""
        self.escaped = min(self.escaped, offset)
        self.forget(offset, 0, is_overwritten=False)

    def store(self, offset: int, size: int, value: Value) -> None:
        """Write a number or pointer of so many bytes."""
        present = self.cells.get(offset)
        if present is None or present[0] != size:
            self.forget(offset, offset + size, is_overwritten=True)
        if offset + size > self.escaped < 0:
            self.cells.pop(offset, None)
            self.lost |= is_on_stack(value)
            return
        self.cells[offset] = (size, value)

    def load(self, offset: int, size: int, slot: int) -> Value:
        """Read a number or pointer of so many bytes, by the instruction at ``slot``."""
        present = self.cells.get(offset)
        if present is not None and present[0] == size:
            return present[1]
        if offset + size <= self.escaped or not self.escaped:
            scalar = self._pieced(offset, size, slot)
            if scalar is not None:
                return Value(scalar)
        nothing_known = unknown(size * 8, Cause(CauseKind.STACK, "", slot))
        return Value(nothing_known, HAVOC.pointers if size == 8 and self.lost else ())

    def _pieced(self, offset: int, size: int, slot: int) -> Scalar | None:
        """Return what several cells, or a part of one, make up."""
        result: Scalar | None = None
        at, end = offset, offset + size
        while at < end:
            start = next((s for s in range(at, at - 8, -1) if s in self.cells), None)
            if start is None or start + self.cells[start][0] <= at:
                return None
            cell = self.cells[start]
            length = min(start + cell[0], end) - at
            piece = self._piece(cell, at - start, length)
            if piece is None or length == size:
                return piece
            shift = (at - offset) if self.byteorder == "little" else (end - at - length)
            piece = arithmetic(AluOp.LSH, piece, constant(shift * 8, slot), slot)
            result = piece if result is None else arithmetic(AluOp.OR, result, piece, slot)
            at += length
        return result

    def _piece(self, cell: tuple[int, Value], skip: int, length: int) -> Scalar | None:
        """Return some bytes of a cell, None if it can be a pointer."""
        size, value = cell
        if value.scalar is None or value.pointers:
            return None
        shift = skip if self.byteorder == "little" else size - skip - length
        return bits_of(value.scalar, shift * 8, length * 8)

    def key(self) -> object:
        return (
            self.owner,
            self.escaped,
            self.lost,
            tuple((at, size, value_key(value)) for at, (size, value) in sorted(self.cells.items())),
        )


class State:
    """Registers, and the stack frames from the outermost known to the function's own.

    Frames are shared between copies until one of them writes.
    """

    __slots__ = ("_owned", "frames", "regs")

    def __init__(self, regs: list[Value], frames: Iterable[Frame]) -> None:
        self.regs = regs
        self.frames = list(frames)
        self._owned = [False] * len(self.frames)

    def copy(self) -> State:
        self._owned = [False] * len(self.frames)
        return State(self.regs.copy(), self.frames)

    def frame(self, index: int) -> Frame:
        """Return a frame for writing."""
        if not self._owned[index]:
            self.frames[index] = self.frames[index].copy()
            self._owned[index] = True
        return self.frames[index]

    def places_on_stack(self, value: Value) -> Iterator[tuple[int, Scalar]]:
        """Yield the frames that a value may point into, each with the offsets."""
        for region, offset in value.pointers:
            if region.kind is RegionKind.STACK and region.number < len(self.frames):
                yield region.number, offset

    def replace_frames(self, frames: Iterable[Frame]) -> None:
        self.frames = list(frames)
        self._owned = [False] * len(self.frames)

    def linked(self, register: int) -> Value:
        """Return a register's value, with an id so that a copy of it stays recognisable."""
        value = self.regs[register]
        scalar = value.scalar
        if value.id == 0 and scalar is not None and (scalar.constant is None or value.pointers):
            value = self.regs[register] = value._replace(id=fresh_id())
        return value

    def learn(self, register: int, value: Value) -> None:
        """Take note of what a register holds, of its copies too."""
        old = self.regs[register]
        self.regs[register] = value
        if old is value or old.id == 0:
            return
        for index, other in enumerate(self.regs):
            if other.id == old.id:
                self.regs[index] = value
        for index, frame in enumerate(self.frames):
            copies = [at for at, (_, cell) in frame.cells.items() if cell.id == old.id]
            for at in copies:
                self.frame(index).cells[at] = (frame.cells[at][0], value)

    def escape_all(self) -> None:
        """Let somebody unknown write everywhere."""
        for index in range(len(self.frames)):
            self.frame(index).escape(-MAX_BPF_STACK)

    def forget_copies(self) -> None:
        """Forget which stack cells are copies of which registers."""
        for index, frame in enumerate(self.frames):
            for at, (size, value) in list(frame.cells.items()):
                if value.id:
                    self.frame(index).cells[at] = (size, value._replace(id=0))

    def keep_only(self, registers: int) -> None:
        """Forget the registers that are not in the bit mask."""
        for register in range(FRAME_POINTER):
            if not registers >> register & 1:
                self.regs[register] = UNSET

    def join(self, other: State, *, widening: bool = False) -> bool:
        """Take in another state of the same place; return whether that changed anything."""
        partners: dict[int, int] = {}
        changed = False
        for register, (old, new) in enumerate(zip(self.regs, other.regs, strict=True)):
            value = _joined(old, new, partners, widening)
            if value is not old:
                self.regs[register] = value
                changed = True
        renamed = any(old_id != new_id for old_id, new_id in partners.items())
        for index, theirs in enumerate(other.frames):
            ours = self.frames[index]
            if ours is not theirs or renamed:
                changed |= self._join_frame(index, ours, theirs, partners, widening)
        return changed

    def _join_frame(
        self, index: int, ours: Frame, theirs: Frame, partners: dict[int, int], widening: bool
    ) -> bool:
        changes: dict[int, tuple[int, Value] | None] = {}
        lost = ours.lost or theirs.lost
        for at, cell in ours.cells.items():
            other = theirs.cells.get(at)
            if other is None or other[0] != cell[0]:
                changes[at] = None
                continue
            value = _joined(cell[1], other[1], partners, widening)
            if value is not cell[1]:
                changes[at] = (cell[0], value)
        for at, (size, value) in theirs.cells.items():
            if is_on_stack(value) and ours.cells.get(at, (0, UNSET))[0] != size:
                lost = True
        escaped = min(ours.escaped, theirs.escaped)
        if not changes and escaped == ours.escaped and lost == ours.lost:
            return False
        frame = self.frame(index)
        frame.lost = lost
        for at, change in changes.items():
            if change is None:
                frame.drop(at)
            else:
                frame.cells[at] = change
        if escaped != frame.escaped:
            frame.escape(escaped)
        return True

    def key(self, registers: int) -> object:
        """Return what tells states apart, of the registers in the bit mask and all frames."""
        return (
            tuple(
                value_key(value)
                for register, value in enumerate(self.regs)
                if registers >> register & 1
            ),
            tuple(frame.key() for frame in self.frames),
        )


def _joined(old: Value, new: Value, partners: dict[int, int], widening: bool) -> Value:
    """Join two values; copies stay copies where they are copies in both states.

    ``partners`` pairs the ids of the two states.
    """
    value = join_values(old, new, widening=widening)
    if value.id and (new.id == 0 or partners.setdefault(value.id, new.id) != new.id):
        return value._replace(id=0)
    return value
