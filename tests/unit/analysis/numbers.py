# SPDX-License-Identifier: Apache-2.0
"""Sets of numbers with a member of each, and what the instructions do to numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable

from hypothesis import strategies as st

from xdpkit.analysis.values import (
    MASK64,
    Cause,
    CauseKind,
    Scalar,
    Width,
    interval,
    of_pieces,
    of_values,
)
from xdpkit.isa.opcodes import AluOp, JmpOp

CAUSES = frozenset((Cause(CauseKind.PACKET, "", 7),))

EDGES = [0, 1, 2, 31, 32, 63, 64, 255, 256, 0xFFFF, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32]
EDGES += [(1 << 63) - 1, 1 << 63, MASK64 - (1 << 31), MASK64 - 1, MASK64]

words = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 40),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, MASK64),
    st.integers(0, 40).map(lambda distance: MASK64 - distance),
)


@st.composite
def members(draw: st.DrawFn) -> tuple[Scalar, int]:
    """Return a set of numbers: listed, a range or a range with a gap; and one of them."""
    kind = draw(st.sampled_from(["values", "range", "pieces"]))
    if kind == "values":
        numbers = draw(st.lists(words, min_size=1, max_size=6, unique=True))
        scalar = of_values({number: (draw(st.integers(0, 9)),) for number in numbers}, CAUSES)
        return scalar, draw(st.sampled_from(numbers))
    ends = sorted(draw(st.lists(words, min_size=4, max_size=4)))
    if kind == "range":
        return interval(ends[0], ends[3], CAUSES), draw(st.integers(ends[0], ends[3]))
    pieces = [(ends[0], ends[1]), (ends[2], ends[3])]
    lo, hi = draw(st.sampled_from(pieces))
    return of_pieces(pieces, CAUSES), draw(st.integers(lo, hi))


def signed(number: int, bits: int) -> int:
    """Return the lower bits as two's complement."""
    number %= 1 << bits
    return number - (1 << bits) if number >= 1 << (bits - 1) else number


def calculate(op: AluOp, left: int, right: int, width: Width, *, is_signed: bool = False) -> int:
    """Do what RFC 9669 sections 4.1 and 4.2 say."""
    modulus = 1 << width
    left, right = left % modulus, right % modulus
    if op in (AluOp.DIV, AluOp.MOD):
        if is_signed:
            left, right = signed(left, width), signed(right, width)
        if right == 0:
            result = 0 if op is AluOp.DIV else left
        else:
            quotient = abs(left) // abs(right)
            if (left < 0) != (right < 0):
                quotient = -quotient
            result = quotient if op is AluOp.DIV else left - quotient * right
    elif op is AluOp.ARSH:
        result = signed(left, width) >> right % width
    elif op is AluOp.LSH:
        result = left << right % width
    elif op is AluOp.RSH:
        result = left >> right % width
    else:
        result = _PLAIN[op](left, right)
    return result % modulus


_PLAIN: dict[AluOp, Callable[[int, int], int]] = {
    AluOp.ADD: operator.add,
    AluOp.SUB: operator.sub,
    AluOp.MUL: operator.mul,
    AluOp.OR: operator.or_,
    AluOp.AND: operator.and_,
    AluOp.XOR: operator.xor,
}
BINARY = [*_PLAIN, AluOp.DIV, AluOp.MOD, AluOp.LSH, AluOp.RSH, AluOp.ARSH]


def compare(op: JmpOp, left: int, right: int, width: Width) -> bool:
    """Return whether a conditional jump is taken; RFC 9669 section 4.3."""
    left, right = left % (1 << width), right % (1 << width)
    if op is JmpOp.JSET:
        return left & right != 0
    if op in _SIGNED:
        return _SIGNED[op](signed(left, width), signed(right, width))
    return _UNSIGNED[op](left, right)


_UNSIGNED: dict[JmpOp, Callable[[int, int], bool]] = {
    JmpOp.JEQ: operator.eq,
    JmpOp.JNE: operator.ne,
    JmpOp.JGT: operator.gt,
    JmpOp.JGE: operator.ge,
    JmpOp.JLT: operator.lt,
    JmpOp.JLE: operator.le,
}
_SIGNED: dict[JmpOp, Callable[[int, int], bool]] = {
    JmpOp.JSGT: operator.gt,
    JmpOp.JSGE: operator.ge,
    JmpOp.JSLT: operator.lt,
    JmpOp.JSLE: operator.le,
}
COMPARISONS = [*_UNSIGNED, *_SIGNED, JmpOp.JSET]
