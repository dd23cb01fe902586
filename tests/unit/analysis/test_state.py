# SPDX-License-Identifier: Apache-2.0
"""Stack frames against real memory, and copies that stay copies only where they are."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.numbers import members
from xdpkit.analysis.state import (
    REGISTERS,
    UNSET,
    Frame,
    Region,
    RegionKind,
    State,
    Value,
    pointer,
)
from xdpkit.analysis.values import Scalar, constant, interval, truncate

SIZE = 32
ON_STACK = pointer(Region(RegionKind.STACK))

sizes = st.sampled_from([1, 2, 4, 8])
places = st.tuples(st.integers(-SIZE, -1), sizes).map(
    lambda place: (min(place[0], -place[1]), place[1])
)
stores = st.lists(st.tuples(places, members()), max_size=12)
byteorders: st.SearchStrategy[Literal["little", "big"]] = st.sampled_from(["little", "big"])


@given(stores, st.lists(places, min_size=1, max_size=6), byteorders)
def test_a_load_holds_what_the_stores_before_it_left(
    written: list[tuple[tuple[int, int], tuple[Scalar, int]]],
    read: list[tuple[int, int]],
    byteorder: Literal["little", "big"],
) -> None:
    frame, memory = Frame(0, byteorder), bytearray(SIZE)
    for (offset, size), (scalar, number) in written:
        low = number % (1 << size * 8)
        frame.store(offset, size, Value(truncate(scalar, size * 8)))
        memory[SIZE + offset : SIZE + offset + size] = low.to_bytes(size, byteorder)
    for offset, size in read:
        found = frame.load(offset, size, 2)
        assert found.scalar is not None
        part = memory[SIZE + offset : SIZE + offset + size]
        assert int.from_bytes(part, byteorder) in found.scalar


def test_a_constant_is_read_back_in_parts_and_as_a_whole() -> None:
    frame = Frame(0, "little")
    frame.store(-8, 8, Value(constant(0x1122334455667788, 1)))
    frame.store(-6, 1, Value(constant(0xAA, 1)))

    def load(offset: int, size: int) -> int | None:
        scalar = frame.load(offset, size, 2).scalar
        return None if scalar is None else scalar.constant

    assert load(-8, 2) == 0x7788
    assert load(-6, 1) == 0xAA
    assert load(-4, 4) == 0x11223344
    assert load(-8, 8) == 0x1122334455AA7788


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_pointer_that_is_overwritten_in_part_is_gone(size: int) -> None:
    frame = Frame(0, "little")
    frame.store(-8, 8, ON_STACK)
    frame.store(-8, size, Value(constant(0, 1)))
    assert frame.load(-8, 8, 2).pointers == ()


def test_an_escaped_part_of_the_stack_stays_unknown() -> None:
    frame = Frame(0, "little")
    frame.store(-16, 8, Value(constant(1, 1)))
    frame.escape(-8)
    frame.store(-8, 8, Value(constant(2, 1)))
    inside, outside = frame.load(-8, 8, 2), frame.load(-16, 8, 2)
    assert inside.scalar is not None
    assert 77 in inside.scalar
    assert outside.scalar == constant(1, 1)


def test_a_pointer_that_only_one_path_has_spilled_may_still_be_there() -> None:
    with_pointer, without = state(), state()
    with_pointer.frame(0).store(-8, 8, ON_STACK)
    without.join(with_pointer)
    assert without.frames[0].load(-8, 8, 2).pointers


def state(*values: Value) -> State:
    regs = [*values, *[UNSET] * (REGISTERS - len(values))]
    return State(regs, (Frame(0, "little"),))


def test_what_a_branch_tells_about_a_register_is_known_of_its_copies() -> None:
    here = state(Value(interval(0, 1000)))
    here.regs[1] = here.linked(0)
    here.frame(0).store(-8, 8, here.linked(0))
    here.learn(0, here.regs[0]._replace(scalar=constant(5, 1)))
    assert here.regs[1].scalar == constant(5, 1)
    assert here.frames[0].load(-8, 8, 1).scalar == constant(5, 1)


def test_what_is_a_copy_on_one_path_only_is_none_after_the_join() -> None:
    left, right = state(Value(interval(0, 1000))), state(*[Value(interval(0, 1000))] * 2)
    left.regs[1] = left.linked(0)
    right.linked(0)
    right.linked(1)
    left.join(right)
    left.learn(0, left.regs[0]._replace(scalar=constant(5, 1)))
    assert left.regs[1].scalar == interval(0, 1000)


def test_what_is_a_copy_on_both_paths_is_one_after_the_join() -> None:
    left, right = state(Value(interval(0, 1000))), state(Value(interval(500, 2000)))
    for path in (left, right):
        path.regs[1] = path.linked(0)
    assert left.join(right)
    left.learn(0, left.regs[0]._replace(scalar=constant(5, 1)))
    assert left.regs[1].scalar == constant(5, 1)


def test_copies_in_a_shared_frame_are_told_apart_from_those_in_registers() -> None:
    before = state(Value(interval(0, 1000)))
    before.frame(0).store(-8, 8, before.linked(0))
    left, right = before.copy(), before.copy()
    right.regs[0] = Value(interval(0, 1000))
    right.linked(0)
    left.join(right)
    left.learn(0, left.regs[0]._replace(scalar=constant(5, 1)))
    assert left.frames[0].load(-8, 8, 1).scalar == interval(0, 1000)


def test_a_copied_state_does_not_see_later_stores() -> None:
    first = state()
    second = first.copy()
    first.frame(0).store(-8, 8, Value(constant(1, 1)))
    second.frame(0).store(-8, 8, Value(constant(2, 1)))
    assert first.frames[0].load(-8, 8, 1).scalar == constant(1, 1)
