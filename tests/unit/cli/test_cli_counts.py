# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit counters`` says of reports, from values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.cli.reports import counts, program, report, without_program
from xdpkit.cli.counts import headline, listed, only, tabulated
from xdpkit.errors import UsageError
from xdpkit.hook.counters import CounterReport
from xdpkit.hook.rates import rates

Golden = Callable[[str, str], None]


def busy(*, seconds: int = 0, length: int | None = 100) -> CounterReport:
    """A hook with a program of three queues, one of all others, and one that the first calls."""
    return report(
        program(43, {0: counts(drop=2, length=length)}, name="leaf", called_by=(31,)),
        program(42, {3: counts(passed=12 + seconds, invalid=1, length=length)}, name="others"),
        program(
            41,
            {0: counts(drop=3_000_000 * seconds, passed=7, length=length)},
            name="a_firewall_with_a_long_name",
            logical=31,
            queues=(0, 1, 5),
        ),
        seconds=seconds,
        count_bytes=length is not None,
        no_program=without_program(q6=(10 * seconds, 600 * seconds), q7=(1, 60)),
        not_counted=("What foreign (id 44) returns is not counted: another tool loaded it.",),
    )


def text(found: CounterReport, before: CounterReport | None = None, **how: bool) -> str:
    speed = rates(before, found) if before is not None else None
    lines = [headline(found), "", *tabulated(found, speed, by_queue=how.get("by_queue", False))]
    return "".join(f"{line}\n" for line in lines)


def test_totals_and_rates_of_programs_and_of_their_queues(golden: Golden) -> None:
    parts = [
        text(busy(seconds=2)),
        text(busy(seconds=2, length=None)),
        text(busy(seconds=2), by_queue=True),
        text(busy(seconds=4), busy(seconds=2)),
        text(busy(seconds=4), busy(seconds=2), by_queue=True),
        text(*(only(busy(seconds=at), frozenset({1, 3})) for at in (4, 2)), by_queue=True),
        text(report(program(9, {0: counts(drop=5)})), report(program(7), seconds=-1)),
    ]
    golden("counters.txt", "\n".join(parts))


def test_what_is_counted_is_listed_with_what_is_not(golden: Golden) -> None:
    empty = report(is_enabled=True)
    parts = ["\n".join(listed(found)) + "\n" for found in (busy(), busy(length=None), empty)]
    golden("counters-enabled.txt", "\n".join(parts))


def test_a_hook_without_programs_says_so() -> None:
    assert text(report()) == "eth0: packets are counted\n\nno program\n"


def test_counters_that_are_off_show_what_was_counted_before() -> None:
    off = report(program(7, {0: counts(drop=5)}), program(8), is_enabled=False)
    title, _, _, row = text(off).splitlines()
    assert title == "eth0: nothing is counted now"
    assert row.split()[:3] == ["firewall", "7", "0"]
    assert text(report(program(8), is_enabled=False)).endswith("\n\nnothing has been counted\n")


def test_a_queue_that_got_no_packets_is_shown_if_a_program_serves_it() -> None:
    found = only(report(program(7, queues=(1, 2)), program(8)), frozenset({2, 3}))
    title, row = tabulated(found, None, by_queue=True)
    assert title.split()[:3] == ["program", "id", "queue"]
    assert row.split()[:3] == ["firewall", "7", "2"]


def test_only_queues_that_the_interface_has_can_be_shown() -> None:
    with pytest.raises(UsageError, match="eth0 has RX queues 0 to 7, and no queue 8"):
        only(busy(), frozenset({1, 8}))


def test_names_cannot_harm_the_terminal() -> None:
    harmful = "\x1b[2J"
    found = report(program(7, name=harmful), not_counted=(harmful,))
    for lines in (listed(found), tabulated(found, None, by_queue=False)):
        assert "\x1b" not in "".join(lines)
