# SPDX-License-Identifier: Apache-2.0
"""What is known of a 64-bit number: an exact small set, or an unsigned range.

The domain of the abstract interpretation. Everything here is a pure function over immutable
values; *sound* means that a result holds every number that the concrete operation (RFC 9669
section 4) can give for operands out of the arguments.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from xdpkit.isa.opcodes import AluOp

Width: TypeAlias = Literal[32, 64]

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1

MAX_VALUES = 32
"""A set of more numbers becomes a range."""

_MAX_PAIRS = 256
_MAX_ORIGINS = 8


class CauseKind(enum.StrEnum):
    """Why a number is not known."""

    PACKET = "packet"
    CONTEXT = "context"
    MAP = "map"
    HELPER = "helper"
    KFUNC = "kfunc"
    KERNEL_MEMORY = "kernel-memory"
    STACK = "stack"  # an escaped or unwritten part of it
    ADDRESS = "address"
    TAIL_CALL = "tail-call"
    REPLACEABLE = "replaceable"  # what a global function returns that freplace may exchange
    COMPUTED = "computed"  # from constants, but too many
    UNKNOWN_INSTRUCTION = "unknown-instruction"
    TOO_COMPLEX = "too-complex"


class Cause(NamedTuple):
    """Where something unknown came in.

    Attributes:
        kind: from what. name: of the map, helper, field; empty where there is none.
        slot: of the instruction that brought it in.
    """

    kind: CauseKind
    name: str
    slot: int

    def __str__(self) -> str:
        return _PHRASES[self.kind].format(self.name)


_PHRASES = {
    CauseKind.PACKET: "from packet",
    CauseKind.CONTEXT: "from context field {}",
    CauseKind.MAP: "from map {}",
    CauseKind.HELPER: "from helper {}",
    CauseKind.KFUNC: "from kernel function {}",
    CauseKind.KERNEL_MEMORY: "from kernel memory",
    CauseKind.STACK: "from a part of the stack that is not known",
    CauseKind.ADDRESS: "from an address",
    CauseKind.TAIL_CALL: "from tail call through {}",
    CauseKind.REPLACEABLE: "from function {}, which can be replaced",
    CauseKind.COMPUTED: "computed, with too many results to follow",
    CauseKind.UNKNOWN_INSTRUCTION: "from an unknown instruction",
    CauseKind.TOO_COMPLEX: "too complex to follow",
}

Piece: TypeAlias = tuple[int, int]
Causes: TypeAlias = frozenset[Cause]
NO_CAUSE: Causes = frozenset()


class Scalar(NamedTuple):
    """A set of 64-bit numbers.

    Attributes:
        values: the numbers, each with the slots of the instructions that made it; None if there
            are too many: then all from lo to hi but those in the gap.
        lo, hi: least and greatest, unsigned.
        causes: where what is unknown about it came in.
        gap: least and greatest of numbers between lo and hi that are left out, None if there are
            none. A range of signed numbers around 0 is two pieces of unsigned ones.
    """

    values: Mapping[int, tuple[int, ...]] | None
    lo: int
    hi: int
    causes: Causes = NO_CAUSE
    gap: Piece | None = None

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        if self.values is not None:
            return number in self.values
        return any(lo <= number <= hi for lo, hi in self.pieces)

    @property
    def constant(self) -> int | None:
        """The number, if it is only one."""
        return self.lo if self.lo == self.hi else None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """One range, or two, that hold all numbers."""
        if self.gap is None:
            return ((self.lo, self.hi),)
        return (self.lo, self.gap[0] - 1), (self.gap[1] + 1, self.hi)


TOP = Scalar(None, 0, MASK64)


def constant(number: int, slot: int) -> Scalar:
    """Return one number (taken modulo 2**64), made by the instruction at ``slot``."""
    number &= MASK64
    return Scalar({number: (slot,)}, number, number)


def unknown(bits: int, cause: Cause) -> Scalar:
    """Return all numbers of so many bits."""
    return interval(0, (1 << bits) - 1, frozenset((cause,)))


def interval(lo: int, hi: int, causes: Causes = NO_CAUSE) -> Scalar:
    """Return all numbers from lo to hi, as a set if they are few."""
    if hi - lo < MAX_VALUES:
        origins = slots_of(causes)
        return Scalar(dict.fromkeys(range(lo, hi + 1), origins), lo, hi, causes)
    return Scalar(None, lo, hi, causes)


def of_pieces(pieces: Iterable[Piece], causes: Causes = NO_CAUSE) -> Scalar:
    """Return all numbers in some ranges, and perhaps more; there must be one."""
    ordered = sorted(pieces)
    merged = [ordered[0]]
    for lo, hi in ordered[1:]:
        last_lo, last_hi = merged[-1]
        if lo <= last_hi + 1:
            merged[-1] = (last_lo, max(hi, last_hi))
        else:
            merged.append((lo, hi))
    if sum(hi - lo + 1 for lo, hi in merged) <= MAX_VALUES:
        origins = slots_of(causes)
        numbers = {number: origins for lo, hi in merged for number in range(lo, hi + 1)}
        return Scalar(numbers, merged[0][0], merged[-1][1], causes)
    gaps = [(left[1] + 1, right[0] - 1) for left, right in pairwise(merged)]
    widest = max(gaps, key=lambda gap: gap[1] - gap[0], default=None)
    return Scalar(None, merged[0][0], merged[-1][1], causes, widest)


def of_values(values: Mapping[int, tuple[int, ...]], causes: Causes = NO_CAUSE) -> Scalar:
    """Return a set of numbers, as a range if they are too many; there must be one."""
    lo, hi = min(values), max(values)
    if len(values) > MAX_VALUES:
        return Scalar(None, lo, hi, causes)
    return Scalar(values, lo, hi, causes)


def slots_of(causes: Causes) -> tuple[int, ...]:
    """Return the slots where something unknown came in, ascending."""
    return tuple(sorted({cause.slot for cause in causes}))[:_MAX_ORIGINS]


def _merged(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    if first == second or not second:
        return first
    return tuple(sorted({*first, *second}))[:_MAX_ORIGINS]


def _united(first: Causes, second: Causes) -> Causes:
    if second <= first:
        return first
    if not first:
        return second
    return frozenset(sorted(first | second)[:_MAX_ORIGINS])


def join(old: Scalar, new: Scalar) -> Scalar:
    """Return a set that holds both; ``old`` itself if it does already."""
    if old is new:
        return old
    causes = _united(old.causes, new.causes)
    if old.values is not None and new.values is not None:
        merged = dict(old.values)
        for number, origins in new.values.items():
            merged[number] = _merged(merged.get(number, ()), origins)
        if merged == old.values and causes == old.causes:
            return old
        return of_values(merged, causes)
    if old.values is None and causes == old.causes and _covers(old, new):
        return old
    return of_pieces((*old.pieces, *new.pieces), causes)


def _covers(old: Scalar, new: Scalar) -> bool:
    if new.lo < old.lo or new.hi > old.hi:
        return False
    return old.gap is None or all(hi < old.gap[0] or lo > old.gap[1] for lo, hi in new.pieces)


def widen(old: Scalar, new: Scalar) -> Scalar:
    """Return a set that holds both, such that repeating it comes to an end soon."""
    joined = join(old, new)
    if joined is old:
        return old
    if joined.lo == old.lo and joined.hi == old.hi:
        return joined if joined.gap in (None, old.gap) else joined._replace(gap=None)
    lo = joined.lo if joined.lo == old.lo else 0
    hi = joined.hi if joined.hi == old.hi else MASK32 if joined.hi <= MASK32 else MASK64
    return interval(lo, hi, joined.causes)


def _sign(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number


def _divide(left: int, right: int) -> int:
    if right == 0:
        return 0
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _modulo(left: int, right: int) -> int:
    return left - right * _divide(left, right) if right else left


_OPERATIONS: dict[int, Callable[[int, int, int], int]] = {
    AluOp.ADD: lambda a, b, bits: a + b,
    AluOp.SUB: lambda a, b, bits: a - b,
    AluOp.MUL: lambda a, b, bits: a * b,
    AluOp.DIV: lambda a, b, bits: a // b if b else 0,
    AluOp.MOD: lambda a, b, bits: a % b if b else a,
    AluOp.OR: lambda a, b, bits: a | b,
    AluOp.AND: lambda a, b, bits: a & b,
    AluOp.XOR: lambda a, b, bits: a ^ b,
    AluOp.LSH: lambda a, b, bits: a << (b & (bits - 1)),
    AluOp.RSH: lambda a, b, bits: a >> (b & (bits - 1)),
    AluOp.ARSH: lambda a, b, bits: _sign(a, bits) >> (b & (bits - 1)),
}
_SIGNED_OPERATIONS: dict[int, Callable[[int, int, int], int]] = {
    AluOp.DIV: lambda a, b, bits: _divide(_sign(a, bits), _sign(b, bits)),
    AluOp.MOD: lambda a, b, bits: _modulo(_sign(a, bits), _sign(b, bits)),
}


def arithmetic(
    op: int, left: Scalar, right: Scalar, slot: int, *, width: Width = 64, signed: bool = False
) -> Scalar:
    """Return the results of ``left op right``.

    Args:
        op: an :class:`AluOp` with two operands, not MOV.
        left, right: the operands; of those of a 32-bit operation the lower halves.
        slot: of the instruction, the origin of the results.
        width: 32 or 64 bits; a 32-bit result is zero-extended.
        signed: for DIV and MOD.
    """
    if width == 32:
        left, right = truncate(left, 32), truncate(right, 32)
    causes = _united(left.causes, right.causes)
    mask = (1 << width) - 1
    first, second = left.values, right.values
    if first is not None and second is not None and len(first) * len(second) <= _MAX_PAIRS:
        operation = (_SIGNED_OPERATIONS if signed else _OPERATIONS)[op]
        origin = (slot,)
        return of_values(
            {operation(a, b, width) & mask: origin for a in first for b in second}, causes
        )
    if op == AluOp.AND:
        return _masked(left, right, slot, causes)
    bounds = _bounds(op, left, right, width, signed)
    if bounds is None:
        return Scalar(None, 0, mask, causes)
    return _made(bounds[0], bounds[1], causes, slot)


def _made(lo: int, hi: int, causes: Causes, slot: int) -> Scalar:
    """Return the numbers from lo to hi, made at ``slot``."""
    if hi - lo < MAX_VALUES:
        return Scalar(dict.fromkeys(range(lo, hi + 1), (slot,)), lo, hi, causes)
    return Scalar(None, lo, hi, causes)


def _masked(left: Scalar, right: Scalar, slot: int, causes: Causes) -> Scalar:
    for mask in (left.constant, right.constant):
        if mask is not None and 1 << mask.bit_count() <= MAX_VALUES:
            return Scalar(dict.fromkeys(_parts(mask), (slot,)), 0, mask, causes)
    return _made(0, min(left.hi, right.hi), causes, slot)


def _parts(mask: int) -> Iterable[int]:
    """Yield every number whose bits are all in the mask."""
    part = mask
    while part:
        yield part
        part = (part - 1) & mask
    yield 0


def _bounds(
    op: int, left: Scalar, right: Scalar, width: Width, signed: bool
) -> tuple[int, int] | None:
    """Return least and greatest result, None if nothing better than all is known."""
    mask = (1 << width) - 1
    sign = 1 << (width - 1)
    if signed and (left.hi >= sign or right.hi >= sign):
        return None
    match op:
        case AluOp.ADD:
            return _wrapped(left.lo + right.lo, left.hi + right.hi, mask)
        case AluOp.SUB:
            return _wrapped(left.lo - right.hi, left.hi - right.lo, mask)
        case AluOp.MUL:
            return (left.lo * right.lo, left.hi * right.hi) if left.hi * right.hi <= mask else None
        case AluOp.DIV:
            return (left.lo // right.hi, left.hi // right.lo) if right.lo else (0, left.hi)
        case AluOp.MOD:
            return (0, min(left.hi, right.hi - 1)) if right.lo else (0, left.hi)
        case AluOp.OR:
            return max(left.lo, right.lo), (1 << (left.hi | right.hi).bit_length()) - 1
        case AluOp.XOR:
            return 0, (1 << (left.hi | right.hi).bit_length()) - 1
    if right.hi >= width:
        return None
    if op == AluOp.LSH:
        return (left.lo << right.lo, left.hi << right.hi) if left.hi << right.hi <= mask else None
    if op == AluOp.RSH or left.hi < sign:
        return left.lo >> right.hi, left.hi >> right.lo
    if left.lo >= sign:
        # Shifting a negative number by more brings it nearer to -1.
        least = (left.lo - mask - 1) >> right.lo
        return least & mask, ((left.hi - mask - 1) >> right.hi) & mask
    return None


def _wrapped(lo: int, hi: int, mask: int) -> tuple[int, int] | None:
    """Return a range modulo the width, None if it would be in two pieces."""
    if lo >= 0 and hi <= mask:
        return lo, hi
    if lo > mask or hi < 0:
        return lo & mask, hi & mask
    return None


def truncate(number: Scalar, bits: int) -> Scalar:
    """Return the lower bits, zero-extended; ``number`` itself if that changes nothing."""
    return number if number.hi < 1 << bits else bits_of(number, 0, bits)


def bits_of(number: Scalar, shift: int, bits: int) -> Scalar:
    """Return some of the bits, moved down by ``shift`` and zero-extended."""
    if number.values is None:
        moved = [_cut((lo >> shift, hi >> shift), bits) for lo, hi in number.pieces]
        return of_pieces(moved, number.causes)
    mask = (1 << bits) - 1
    cut: dict[int, tuple[int, ...]] = {}
    for value, origins in number.values.items():
        part = value >> shift & mask
        cut[part] = _merged(cut.get(part, ()), origins)
    return of_values(cut, number.causes)


def _cut(piece: Piece, bits: int) -> Piece:
    lo, hi = piece
    mask = (1 << bits) - 1
    return (lo & mask, hi & mask) if lo >> bits == hi >> bits else (0, mask)


def sign_extend(number: Scalar, bits: int, *, width: Width = 64) -> Scalar:
    """Return the lower bits, sign-extended to ``width`` and from there zero-extended."""
    low = truncate(number, bits)
    if low.hi < 1 << (bits - 1):
        return low
    mask = (1 << width) - 1
    if low.values is not None:
        return of_values(
            {_sign(value, bits) & mask: origins for value, origins in low.values.items()},
            low.causes,
        )
    half = 1 << (bits - 1)
    parts = [
        part for lo, hi in low.pieces for part in ((lo, min(hi, half - 1)), (max(lo, half), hi))
    ]
    return of_pieces(
        [(_sign(lo, bits) & mask, _sign(hi, bits) & mask) for lo, hi in parts if lo <= hi],
        low.causes,
    )


def swap_bytes(number: Scalar, bits: int, slot: int) -> Scalar:
    """Return the lower bits with their bytes in reverse order, zero-extended."""
    low = truncate(number, bits)
    if low.values is None:
        return _made(0, (1 << bits) - 1, low.causes, slot)
    size = bits // 8
    return of_values(
        {int.from_bytes(value.to_bytes(size, "little"), "big"): (slot,) for value in low.values},
        low.causes,
    )
