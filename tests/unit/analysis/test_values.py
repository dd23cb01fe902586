# SPDX-License-Identifier: Apache-2.0
"""Sets of numbers: every concrete result is in the abstract one, and small sets stay exact."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.numbers import BINARY, CAUSES, calculate, members, signed, words
from xdpkit.analysis.values import (
    MASK32,
    MASK64,
    MAX_VALUES,
    Scalar,
    Width,
    arithmetic,
    constant,
    interval,
    join,
    of_values,
    sign_extend,
    swap_bytes,
    truncate,
    widen,
)
from xdpkit.isa.opcodes import AluOp

Member = tuple[Scalar, int]

widths: st.SearchStrategy[Width] = st.sampled_from([32, 64])


def of(*numbers: int) -> Scalar:
    return of_values(dict.fromkeys(numbers, (0,)))


@given(st.sampled_from(BINARY), members(), members(), widths)
def test_the_result_of_an_operation_holds_that_of_every_member(
    op: AluOp, left: Member, right: Member, width: Width
) -> None:
    result = arithmetic(op, left[0], right[0], 3, width=width)
    assert calculate(op, left[1], right[1], width) in result


@given(st.sampled_from([AluOp.DIV, AluOp.MOD]), members(), members(), widths)
def test_the_result_of_a_signed_division_holds_that_of_every_member(
    op: AluOp, left: Member, right: Member, width: Width
) -> None:
    result = arithmetic(op, left[0], right[0], 3, width=width, signed=True)
    assert calculate(op, left[1], right[1], width, is_signed=True) in result


@given(members(), st.sampled_from([8, 16, 32, 64]), widths)
def test_cutting_extending_and_swapping_hold_every_member(
    member: Member, bits: int, width: Width
) -> None:
    scalar, number = member
    assert number % (1 << bits) in truncate(scalar, bits)
    assert signed(number, bits) % (1 << width) in sign_extend(scalar, min(bits, width), width=width)
    if bits > 8:
        low = (number % (1 << bits)).to_bytes(bits // 8, "little")
        assert int.from_bytes(low, "big") in swap_bytes(scalar, bits, 3)


@given(members(), members())
def test_a_join_holds_the_members_of_both(left: Member, right: Member) -> None:
    for combine in (join, widen):
        both = combine(left[0], right[0])
        assert left[1] in both
        assert right[1] in both
        assert numbers_of(combine(both, left[0])) == numbers_of(both)
        assert numbers_of(combine(both, right[0])) == numbers_of(both)


def numbers_of(scalar: Scalar) -> object:
    return scalar.pieces if scalar.values is None else set(scalar.values)


@given(st.lists(members(), max_size=200))
def test_widening_comes_to_an_end(added: list[Member]) -> None:
    scalar, changes = of(5), 0
    for more, _ in itertools.chain(added, added, added):
        wider = widen(scalar, more)
        bounds = (scalar.lo, scalar.hi, scalar.gap)
        changes += (wider.lo, wider.hi, wider.gap) != bounds
        scalar = wider
    assert changes <= 8


@given(members())
def test_a_set_is_exact_or_has_more_than_the_most_values(member: Member) -> None:
    scalar, _ = member
    if scalar.values is None:
        assert sum(hi - lo + 1 for lo, hi in scalar.pieces) > MAX_VALUES
    else:
        assert (min(scalar.values), max(scalar.values)) == (scalar.lo, scalar.hi)


@pytest.mark.parametrize(
    ("op", "left", "right", "width", "results"),
    [
        (AluOp.ADD, of(1, 2), of(3, 5), 64, {4, 5, 6, 7}),
        (AluOp.ADD, of(MASK64), of(1), 64, {0}),
        (AluOp.ADD, of(MASK32), of(1), 32, {0}),
        (AluOp.SUB, of(0), of(1), 32, {MASK32}),
        (AluOp.DIV, of(7), of(0, 2), 64, {0, 3}),
        (AluOp.MOD, of(7), of(0, 4), 64, {7, 3}),
        (AluOp.LSH, of(1), of(33), 32, {2}),
        (AluOp.ARSH, of(MASK64 - 1), of(1), 64, {MASK64}),
        (AluOp.AND, interval(0, MASK64), of(5), 64, {0, 1, 4, 5}),
        (AluOp.MOD, interval(0, MASK64), of(3), 64, {0, 1, 2}),
        (AluOp.RSH, interval(0, MASK32), of(31), 64, {0, 1}),
        (AluOp.MUL, of(1 << 63), of(2), 64, {0}),
    ],
)
def test_an_operation_on_small_sets_is_exact(
    op: AluOp, left: Scalar, right: Scalar, width: Literal[32, 64], results: set[int]
) -> None:
    found = arithmetic(op, left, right, 3, width=width).values
    assert found == dict.fromkeys(results, (3,))


def test_a_set_of_too_many_numbers_becomes_a_range() -> None:
    joined = of(0)
    for number in range(2, 100, 2):
        joined = join(joined, of(number))
    assert (joined.values, joined.lo, joined.hi) == (None, 0, 98)


def test_a_range_that_is_joined_with_a_distant_number_keeps_the_gap() -> None:
    joined = join(interval(1000, 2000), of(1))
    assert joined.gap == (2, 999)
    assert 500 not in joined


def test_a_sign_extended_range_is_two_pieces() -> None:
    extended = sign_extend(interval(0, MASK32), 32)
    assert extended.pieces == ((0, (1 << 31) - 1), (MASK64 - (1 << 31) + 1, MASK64))


def test_origins_of_equal_numbers_are_united() -> None:
    assert join(constant(4, 9), constant(4, 2)).values == {4: (2, 9)}


def test_causes_survive_arithmetic() -> None:
    assert arithmetic(AluOp.ADD, interval(0, 1000, CAUSES), of(1), 3).causes == CAUSES


@given(words, widths)
def test_a_constant_is_itself(number: int, width: Width) -> None:
    assert arithmetic(AluOp.OR, constant(number, 1), of(0), 2, width=width).constant == (
        number % (1 << width)
    )
