# SPDX-License-Identifier: Apache-2.0
"""How much may be spent in a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xdpkit.monitor.allowance import Allowance

# Of 1/64 s, which a float has exactly.
TICKS = 64


def test_from_the_start_no_more_is_granted_in_a_second_than_the_rate() -> None:
    allowance = Allowance(100)
    spent = 0
    sums = []
    for tick in range(2 * TICKS + 1):
        (spent,) = allowance.granted(tick / TICKS, [spent])
        sums.append(spent)
    assert sums == [100] * (TICKS + 4) + [200] * (TICKS - 3)


def test_each_spender_has_its_own_allowance() -> None:
    allowance = Allowance(5)
    assert allowance.granted(0.0, [0, 0]) == [5, 5]
    assert allowance.granted(1.0, [3, 0]) == [5, 5]
    assert allowance.granted(2.0, [3, 0]) == [8, 5]


def test_what_was_not_spent_does_not_add_up() -> None:
    allowance = Allowance(5)
    for second in range(10):
        assert allowance.granted(float(second), [0]) == [5]


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 2 * TICKS), st.integers(0, 60)), max_size=60),
)
def test_in_no_second_more_is_spent_than_the_rate(rate: int, turns: list[tuple[int, int]]) -> None:
    allowance = Allowance(rate)
    now = spent = granted = 0
    history = []
    for ticks, wanted in turns:
        now += ticks
        # Spent at the last moment before the next grant, and at the first one behind it.
        history.append((now, spent := min(spent + wanted, granted)))
        before, (granted,) = granted, allowance.granted(now / TICKS, [spent])
        assert granted >= before
        history.append((now, spent := min(spent + wanted, granted)))
    for begin, before in history:
        within = [after for end, after in history if begin <= end < begin + TICKS]
        assert max(within) - before <= rate
