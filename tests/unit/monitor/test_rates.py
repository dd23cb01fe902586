# SPDX-License-Identifier: Apache-2.0
"""How fast the standard counters go, and the last minute of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.cli.reports import SECOND
from tests.unit.cli.snapshots import counters, returned
from tests.unit.monitor.snapshots import INSTALLED, driver, error, snapshot
from xdpkit.monitor.model import Snapshot
from xdpkit.monitor.rates import History, Series, rates, round_to_dict

ERRORS = Series("xdpkit_errors", ("", "eth0", "firewall", "aborted", "aborted"))
DROPS = Series("xdpkit_returned_packets", ("", "eth0", "0", "firewall", "drop"))
TOLD = Series("xdpkit_driver_packets", ("", "eth0", "0", "veth", "packets"))


def errors(at: float, packets: int, **fields: Any) -> Snapshot:
    found = (error(packets=packets),) if packets else ()
    return snapshot(*found, at=at, **fields)


def drops(at: float, packets: int, *, program: str = "firewall") -> Snapshot:
    report = counters("eth0", {program: {0: returned(0, packets)} if packets else {}})
    return snapshot(at=at, returned=(report,))


def told(at: float, packets: int | None) -> Snapshot:
    found = () if packets is None else (driver("eth0", {"packets": [packets]}),)
    return snapshot(at=at, drivers=found)


def test_rates_are_per_second() -> None:
    assert rates(errors(0, 10), errors(4, 50))[ERRORS] == 10
    assert rates(drops(0, 10), drops(0.5, 60))[DROPS] == 100
    assert rates(told(1, 10), told(3, 10))[TOLD] == 0


def test_what_is_counted_for_the_first_time_began_at_0() -> None:
    assert rates(errors(0, 0), errors(2, 50))[ERRORS] == 25
    assert rates(drops(0, 0), drops(2, 50))[DROPS] == 25


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (errors(0, 50), errors(1, 10)),
        (drops(0, 50), drops(1, 10)),
        (told(0, 50), told(1, 10)),
    ],
    ids=["errors", "returned", "driver"],
)
def test_a_counter_that_went_back_has_no_rate(before: Snapshot, after: Snapshot) -> None:
    assert not {ERRORS, DROPS, TOLD} & rates(before, after).keys()


def test_counters_that_began_anew_have_no_rate_even_if_they_are_higher() -> None:
    anew = replace(INSTALLED, since=INSTALLED.since + SECOND)
    assert ERRORS not in rates(errors(0, 10), errors(1, 50, installed=anew))
    assert ERRORS not in rates(errors(0, 10, installed=None), errors(1, 50))

    after = drops(1, 50)
    (report,) = after.returned
    (program,) = report.programs
    other = replace(report, programs=(replace(program, logical_id=99),))
    assert DROPS not in rates(drops(0, 10), replace(after, returned=(other,)))
    assert DROPS not in rates(drops(0, 10, program="another"), after)

    assert TOLD not in rates(told(0, None), told(1, 50))
    (found,) = told(1, 50).drivers
    moved = replace(found, where=replace(found.where, ifindex=99))
    assert TOLD not in rates(told(0, 10), replace(told(1, 50), drivers=(moved,)))


def test_a_copy_that_counts_goes_on_with_the_rates_of_the_program() -> None:
    after = drops(1, 50)
    (report,) = after.returned
    (program,) = report.programs
    copy = replace(program, program=replace(program.program, id=1234))
    swapped = replace(after, returned=(replace(report, programs=(copy,)),))
    assert rates(drops(0, 10), swapped)[DROPS] == 40


def test_packets_without_a_program_have_rates_as_long_as_the_interface_is_counted() -> None:
    def passed(at: float, packets: int, index: int = 2) -> Snapshot:
        from xdpkit.rewrite import NoProgram

        unserved = {3: NoProgram(packets, 64 * packets)}
        return snapshot(at=at, returned=(counters("eth0", {}, index, no_program=unserved),))

    series = Series("xdpkit_no_program_packets", ("", "eth0", "3"))
    assert rates(passed(0, 10), passed(1, 30))[series] == 20
    assert series not in rates(passed(0, 10), passed(1, 30, index=7))


def test_no_time_gives_no_rates() -> None:
    assert rates(errors(1, 10), errors(1, 20)) == {}
    assert rates(errors(2, 10), errors(1, 20)) == {}


def test_states_have_no_rates() -> None:
    names = {series.metric for series in rates(errors(0, 1), errors(1, 1))}
    assert "xdpkit_monitor_installed" not in names


def test_a_round_as_json_has_each_series_with_its_rate() -> None:
    after = errors(4, 50)
    found = round_to_dict(after, rates(errors(0, 10), after))
    assert found["taken_at"] == after.taken_at
    samples = found["samples"]
    assert isinstance(samples, list)
    assert {
        "name": "xdpkit_errors",
        "labels": {
            "netns": "",
            "interface": "eth0",
            "program": "firewall",
            "action": "aborted",
            "reason": "aborted",
        },
        "value": 50,
        "per_second": 10.0,
    } in samples
    (installed,) = (each for each in samples if each["name"] == "xdpkit_monitor_installed")
    assert (installed["value"], installed["per_second"]) == (1, None)


def history(*rounds: tuple[float, float, float]) -> History[str]:
    found: History[str] = History()
    for begins, ends, rate in rounds:
        found = found.and_then(round(begins * SECOND), round(ends * SECOND), {"it": rate})
    return found


def test_the_last_minute_is_told_in_parts_the_newest_last() -> None:
    found = history((0, 20, 6), (20, 40, 0), (40, 60, 3))
    assert found.trend("it", 3) == (6, 0, 3)
    assert found.trend("it", 6) == (6, 6, 0, 0, 3, 3)
    assert found.trend("it", 1) == (3,)
    assert found.mean("it") == 3


def test_a_part_of_which_nothing_is_known_is_none() -> None:
    assert history().trend("it", 2) == (None, None)
    assert history((100, 130, 5)).trend("it", 4) == (None, None, 5, 5)
    assert history((100, 130, 5)).trend("another", 4) == (None, None, 0, 0)


def test_rounds_of_any_length_are_weighed_by_it() -> None:
    found = history((0, 30, 2), (30, 45, 4), (45, 60, 8))
    assert found.trend("it", 2) == (2, 6)


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    found = history(*((at, at + 1, at) for at in range(500)))
    assert len(found.rounds) <= 61
    assert found.trend("it", 60) == tuple(range(440, 500))


def test_history_is_bounded_however_short_rounds_are() -> None:
    found = history(*((at / 1000, (at + 1) / 1000, 1) for at in range(2000)))
    assert len(found.rounds) == 600


def test_only_what_moves_is_kept() -> None:
    found: History[str] = History()
    found = found.and_then(0, SECOND, {"still": 0.0, "moving": 1.0})
    assert list(found.rounds[0].rates) == ["moving"]
