# SPDX-License-Identifier: Apache-2.0
"""What conditional jumps tell: nothing possible is ruled out, and the usual checks are exact."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.numbers import COMPARISONS, compare, members
from xdpkit.analysis.refine import refine
from xdpkit.analysis.values import MASK32, MASK64, Scalar, Width, interval, of_values
from xdpkit.isa.opcodes import JmpOp

Member = tuple[Scalar, int]


def of(*numbers: int) -> Scalar:
    return of_values(dict.fromkeys(numbers, (0,)))


ANY32 = interval(0, MASK32)
ANY64 = interval(0, MASK64)


@given(st.sampled_from(COMPARISONS), members(), members(), st.sampled_from([32, 64]))
def test_operands_that_take_an_edge_remain_possible_on_it(
    op: JmpOp, left: Member, right: Member, width: Width
) -> None:
    taken = compare(op, left[1], right[1], width)
    pair = refine(op, left[0], right[0], taken=taken, width=width)
    assert pair is not None
    assert left[1] in pair[0]
    assert right[1] in pair[1]


@given(st.sampled_from(COMPARISONS), members(), members(), st.sampled_from([32, 64]))
def test_an_edge_adds_nothing(op: JmpOp, left: Member, right: Member, width: Width) -> None:
    for taken in (True, False):
        pair = refine(op, left[0], right[0], taken=taken, width=width)
        for before, after in zip((left[0], right[0]), pair or (), strict=False):
            assert before.lo <= after.lo <= after.hi <= before.hi


@pytest.mark.parametrize(
    ("op", "left", "right", "taken", "width", "expected"),
    [
        (JmpOp.JEQ, ANY64, of(7), True, 64, {7}),
        (JmpOp.JEQ, of(1, 2, 3), of(2), False, 64, {1, 3}),
        (JmpOp.JNE, of(1, 2), of(2), True, 64, {1}),
        (JmpOp.JGT, ANY32, of(4), False, 32, {0, 1, 2, 3, 4}),
        (JmpOp.JGE, ANY64, of(3), False, 64, {0, 1, 2}),
        (JmpOp.JLT, ANY64, of(2), True, 64, {0, 1}),
        (JmpOp.JLE, of(1, 5, 9), of(5), True, 64, {1, 5}),
        (JmpOp.JSLT, of(1, MASK64), of(0), True, 64, {MASK64}),
        (JmpOp.JSGT, of(1, MASK32), of(MASK32), True, 32, {1}),
        (JmpOp.JSGE, of(0, MASK64), of(0), True, 64, {0}),
        (JmpOp.JSLE, of(0, 1, MASK32), of(0), True, 32, {0, MASK32}),
        (JmpOp.JSET, of(1, 2, 3), of(1), True, 64, {1, 3}),
        (JmpOp.JSET, ANY64, of(MASK64 - 3), False, 64, {0, 1, 2, 3}),
        (JmpOp.JEQ, of(1 << 32, 1), of(1), True, 32, {1}),
    ],
)
def test_what_an_edge_leaves(
    op: JmpOp,
    left: Scalar,
    right: Scalar,
    taken: bool,
    width: Literal[32, 64],
    expected: set[int],
) -> None:
    pair = refine(op, left, right, taken=taken, width=width)
    assert pair is not None
    assert set(pair[0].values or ()) == expected


@pytest.mark.parametrize(
    ("op", "left", "right", "taken"),
    [
        (JmpOp.JEQ, of(1, 2), of(3), True),
        (JmpOp.JNE, of(3), of(3), True),
        (JmpOp.JGT, of(1, 2), of(2), True),
        (JmpOp.JLT, of(MASK64), ANY64, True),
        (JmpOp.JSLT, of(0, 5), of(0), True),
        (JmpOp.JSET, of(2, 4), of(1), True),
        (JmpOp.JSET, of(1), of(1), False),
    ],
)
def test_an_edge_that_cannot_be_taken_is_seen(
    op: JmpOp, left: Scalar, right: Scalar, taken: bool
) -> None:
    assert refine(op, left, right, taken=taken) is None


def test_two_signed_checks_leave_what_is_between_them() -> None:
    low = refine(JmpOp.JSGT, ANY32, of(1), taken=False, width=32)
    assert low is not None
    both = refine(JmpOp.JSLT, low[0], of(0), taken=False, width=32)
    assert both is not None
    assert set(both[0].values or ()) == {0, 1}


def test_a_comparison_of_registers_tells_about_both() -> None:
    pair = refine(JmpOp.JLT, interval(10, 99), interval(0, 12), taken=True)
    assert pair is not None
    assert set(pair[0].values or ()) == {10, 11}
    assert set(pair[1].values or ()) == {11, 12}
