# SPDX-License-Identifier: Apache-2.0
"""What a conditional jump tells about its operands, on either edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from xdpkit.analysis.values import (
    MASK32,
    MASK64,
    Piece,
    Scalar,
    Width,
    of_pieces,
    slots_of,
    truncate,
)
from xdpkit.isa.opcodes import JmpOp

Pair: TypeAlias = tuple[Scalar, Scalar]

_OPPOSITES: dict[int, int] = {
    JmpOp.JEQ: JmpOp.JNE,
    JmpOp.JNE: JmpOp.JEQ,
    JmpOp.JGT: JmpOp.JLE,
    JmpOp.JLE: JmpOp.JGT,
    JmpOp.JGE: JmpOp.JLT,
    JmpOp.JLT: JmpOp.JGE,
    JmpOp.JSGT: JmpOp.JSLE,
    JmpOp.JSLE: JmpOp.JSGT,
    JmpOp.JSGE: JmpOp.JSLT,
    JmpOp.JSLT: JmpOp.JSGE,
}
# The operations that are another one with the operands exchanged.
_MIRRORED: dict[int, int] = {
    JmpOp.JGT: JmpOp.JLT,
    JmpOp.JGE: JmpOp.JLE,
    JmpOp.JSGT: JmpOp.JSLT,
    JmpOp.JSGE: JmpOp.JSLE,
}


def refine(op: int, left: Scalar, right: Scalar, *, taken: bool, width: Width = 64) -> Pair | None:
    """Return what remains possible of both operands; None if the edge cannot be taken.

    Args:
        op: a :class:`JmpOp` with two operands.
        left, right: the operands; a 32-bit jump compares their lower halves.
        taken: whether the edge is the jump, or the fall-through.
        width: 32 or 64 bits.
    """
    if width == 64 or (left.hi <= MASK32 and right.hi <= MASK32):
        return _refine(op, left, right, taken, width)
    # The lower halves decide; what they tell about the whole is kept for sets only.
    low_left, low_right = truncate(left, 32), truncate(right, 32)
    pair = _refine(op, low_left, low_right, taken, width)
    if pair is None:
        return None
    return _widened(left, pair[0]), _widened(right, pair[1])


def _widened(whole: Scalar, low: Scalar) -> Scalar:
    if whole.hi <= MASK32:
        return low
    return _filtered(whole, lambda number: number & MASK32 in low) or whole


def _refine(op: int, left: Scalar, right: Scalar, taken: bool, width: Width) -> Pair | None:
    if op == JmpOp.JSET:
        return _bits(left, right, taken, width)
    if not taken:
        op = _OPPOSITES[op]
    mirrored = _MIRRORED.get(op)
    if mirrored is not None:
        pair = _ordered(mirrored, right, left, width)
        return None if pair is None else (pair[1], pair[0])
    if op == JmpOp.JEQ:
        return _equal(left, right)
    if op == JmpOp.JNE:
        return _unequal(left, right)
    return _ordered(op, left, right, width)


def _filtered(number: Scalar, keep: Callable[[int], bool]) -> Scalar | None:
    """Return what of a set may stay, None if nothing; a range stays as it is."""
    if number.values is None:
        return number
    kept = {value: origins for value, origins in number.values.items() if keep(value)}
    if len(kept) == len(number.values):
        return number
    return Scalar(kept, min(kept), max(kept), number.causes) if kept else None


def _bounded(number: Scalar, lo: int, hi: int) -> Scalar | None:
    if lo <= number.lo and number.hi <= hi:
        return number
    if number.values is not None:
        return _filtered(number, lambda value: lo <= value <= hi)
    return _made_of(((max(lo, first), min(hi, last)) for first, last in number.pieces), number)


def _made_of(pieces: Iterable[Piece], number: Scalar) -> Scalar | None:
    kept = [(lo, hi) for lo, hi in pieces if lo <= hi]
    return of_pieces(kept, number.causes) if kept else None


def _equal(left: Scalar, right: Scalar) -> Pair | None:
    first, second = _in_common(left, right), _in_common(right, left)
    return None if first is None or second is None else (first, second)


def _in_common(number: Scalar, other: Scalar) -> Scalar | None:
    if number.values is not None:
        return _filtered(number, lambda value: value in other)
    if other.values is None:
        return _bounded(number, other.lo, other.hi)
    origins = slots_of(number.causes)
    kept = {value: origins or known for value, known in other.values.items() if value in number}
    return Scalar(kept, min(kept), max(kept), number.causes) if kept else None


def _unequal(left: Scalar, right: Scalar) -> Pair | None:
    first = left if right.constant is None else _without(left, right.lo)
    second = right if left.constant is None else _without(right, left.lo)
    return None if first is None or second is None else (first, second)


def _without(number: Scalar, value: int) -> Scalar | None:
    if number.values is not None:
        return _filtered(number, lambda candidate: candidate != value)
    if value == number.lo:
        return _bounded(number, value + 1, MASK64)
    if value == number.hi:
        return _bounded(number, 0, value - 1)
    return number


def _ordered(op: int, left: Scalar, right: Scalar, width: Width) -> Pair | None:
    """Refine by JLT, JLE, JSLT or JSLE."""
    gap = 1 if op in (JmpOp.JLT, JmpOp.JSLT) else 0
    first: Scalar | None
    second: Scalar | None
    if op in (JmpOp.JLT, JmpOp.JLE):
        first = _bounded(left, 0, right.hi - gap)
        second = _bounded(right, left.lo + gap, MASK64)
    else:
        top = (1 << (width - 1)) - 1
        first = _bounded_signed(left, -top - 1, _signed_bounds(right, width)[1] - gap, width)
        second = _bounded_signed(right, _signed_bounds(left, width)[0] + gap, top, width)
    return None if first is None or second is None else (first, second)


def _signed_bounds(number: Scalar, width: Width) -> tuple[int, int]:
    half, modulus = 1 << (width - 1), 1 << width
    if number.values is not None:
        signed = [value - modulus if value >= half else value for value in number.values]
        return min(signed), max(signed)
    bounds = []
    for lo, hi in number.pieces:
        if lo < half:
            bounds += [lo, min(hi, half - 1)]
        if hi >= half:
            bounds += [max(lo, half) - modulus, hi - modulus]
    return min(bounds), max(bounds)


def _bounded_signed(number: Scalar, lo: int, hi: int, width: Width) -> Scalar | None:
    half, modulus = 1 << (width - 1), 1 << width
    if number.values is not None:
        return _filtered(
            number, lambda value: lo <= (value - modulus if value >= half else value) <= hi
        )
    pieces = []
    for first, last in number.pieces:
        pieces.append((max(first, lo), min(last, half - 1, hi)))
        least, greatest = max(first, half) - modulus, last - modulus
        pieces.append((max(least, lo) + modulus, min(greatest, hi) + modulus))
    return _made_of(pieces, number)


def _bits(left: Scalar, right: Scalar, taken: bool, width: Width) -> Pair | None:
    """Refine by ``left & right`` being not 0 (taken) or 0."""
    mask = right.constant
    if mask is None:
        return left, right
    if taken:
        kept = _filtered(left, lambda value: value & mask != 0)
        possible = kept if kept is not None and kept.hi > 0 and mask else None
    else:
        possible = _filtered(left, lambda value: value & mask == 0)
        if possible is not None:
            possible = _bounded(possible, 0, ((1 << width) - 1) & ~mask)
    return None if possible is None else (possible, right)
