# SPDX-License-Identifier: Apache-2.0
"""How fast counters go, from two readings of them."""

from __future__ import annotations

import pytest

from tests.unit.cli.reports import counts, program, report, without_program
from xdpkit.hook.counters import CounterReport
from xdpkit.hook.rates import NoProgramRate, Rates, rates
from xdpkit.rewrite import Counts

DROP, PASS = 1, 2


def between(before: CounterReport, after: CounterReport) -> Rates:
    found = rates(before, after)
    assert found is not None
    return found


def test_what_was_counted_in_between_is_divided_by_the_time() -> None:
    before = report(program(7, {0: counts(drop=10, passed=5)}))
    after = report(program(7, {0: counts(drop=40, passed=5)}), seconds=2)
    (found,) = between(before, after).programs
    assert found is not None
    assert found.total.packets == (0, 15, 0, 0, 0, 0)
    assert found.per_queue[0] == found.total
    assert found.total.bits is None


def test_bits_are_eight_times_the_bytes() -> None:
    before = report(program(7, {0: counts(drop=10, length=60)}), count_bytes=True)
    after = report(program(7, {0: counts(drop=20, length=60)}), count_bytes=True, seconds=2)
    (found,) = between(before, after).programs
    assert found is not None
    assert found.total.bits == (0, 10 * 60 * 8 / 2, 0, 0, 0, 0)


def test_bits_are_unknown_where_bytes_were_not_counted_all_the_time() -> None:
    before = report(program(7, {0: counts(drop=10)}))
    after = report(program(7, {0: counts(drop=20, length=60)}), count_bytes=True, seconds=1)
    (found,) = between(before, after).programs
    assert found is not None
    assert (found.total.packets[DROP], found.total.bits) == (10, None)


def test_a_queue_that_gets_its_first_packets_had_none_before() -> None:
    before = report(program(7, {0: counts(passed=10)}))
    after = report(program(7, {0: counts(passed=10), 3: counts(passed=8)}), seconds=4)
    (found,) = between(before, after).programs
    assert found is not None
    assert [found.per_queue[queue].packets[PASS] for queue in (0, 3)] == [0, 2]
    assert found.total.packets[PASS] == 2


def test_a_copy_of_a_program_goes_on_where_it_left_off() -> None:
    before = report(program(7, {0: counts(drop=10)}))
    after = report(program(9, {0: counts(drop=11)}, logical=7), seconds=1)
    (found,) = between(before, after).programs
    assert found is not None
    assert found.total.packets[DROP] == 1


def test_of_a_program_that_took_anothers_place_nothing_is_known_yet() -> None:
    before = report(program(7, {0: counts(drop=10)}))
    assert between(before, report(program(9, {0: counts(drop=90)}), seconds=1)).programs == (None,)


def test_of_a_program_that_has_gone_nothing_is_said() -> None:
    before = report(program(7, {0: counts(drop=10)}), program(8))
    (found,) = between(before, report(program(8), seconds=1)).programs
    assert found is not None


@pytest.mark.parametrize(
    "after",
    [
        {0: counts(drop=3), 1: counts(drop=90)},
        {1: counts(drop=90)},
        {},
    ],
    ids=["lower", "one queue empty", "all empty"],
)
def test_counters_that_began_anew_have_no_rate(after: dict[int, Counts]) -> None:
    before = report(program(7, {0: counts(drop=10), 1: counts(drop=10)}))
    now = report(program(7, after), seconds=1)
    assert between(before, now).programs == (None,)


def test_a_program_for_all_and_one_for_queues_are_two_even_if_they_are_one() -> None:
    before = report(program(7, {0: counts(drop=10)}, queues=(0,)))
    after = report(
        program(7, {0: counts(drop=20)}, queues=(0,)), program(7, {1: counts(drop=5)}), seconds=1
    )
    specific, others = between(before, after).programs
    assert specific is not None
    assert specific.total.packets[DROP] == 10
    assert others is None


def test_packets_without_a_program_have_rates_too() -> None:
    before = report(no_program=without_program(q3=(10, 600), q4=(50, 50)))
    after = report(no_program=without_program(q3=(30, 1800), q4=(1, 60), q5=(2, 120)), seconds=2)
    assert between(before, after).no_program == {
        3: NoProgramRate(10, 1200 * 8 / 2),
        # Not queue 4, which began anew.
        5: NoProgramRate(1, 120 * 8 / 2),
    }


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_gives_no_rates(seconds: float) -> None:
    assert rates(report(program(7)), report(program(7), seconds=seconds)) is None


def test_counters_of_many_bits_are_exact_to_the_last_one() -> None:
    high = 1 << 63
    before = report(program(7, {0: counts(passed=high)}))
    after = report(program(7, {0: counts(passed=high + 1)}), seconds=1)
    (found,) = between(before, after).programs
    assert found is not None
    assert found.total.packets[PASS] == 1


def test_plain_data_has_the_actions_by_name_and_queues_as_text() -> None:
    before = report(program(7), no_program=without_program(q3=(10, 600)))
    after = report(
        program(7, {2: counts(drop=4)}),
        program(8),
        no_program=without_program(q3=(20, 1200)),
        seconds=2,
    )
    data = between(before, after).to_dict()
    rate = {
        "packets": {"aborted": 0, "drop": 2, "pass": 0, "tx": 0, "redirect": 0, "invalid": 0},
        "bits": None,
    }
    assert data == {
        "nanoseconds": 2 * 10**9,
        "programs": [{"total": rate, "per_queue": {"2": rate}}, None],
        "no_program": {"3": {"packets": 5, "bits": 2400}},
    }
