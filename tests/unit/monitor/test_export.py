# SPDX-License-Identifier: Apache-2.0
"""What the exporter shows, how often it reads, and what hostile names become."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
from prometheus_client.parser import text_string_to_metric_families as lenient

from tests.unit.monitor.snapshots import error, full, snapshot
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.monitor.drivers import EVENTS
from xdpkit.monitor.export import HEALTH, Exporter, Format, exposed_name
from xdpkit.monitor.folding import LONGEST_LABEL, Places, label_value
from xdpkit.monitor.model import Reason, Snapshot
from xdpkit.monitor.samples import ERRORS, METRICS, PROGRAM, Metric

Golden = Callable[[str, str], None]


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Gives snapshots, and counts how many; each takes its time."""

    def __init__(self, clock: Clock, *found: Snapshot | Exception, takes: float = 0.0) -> None:
        self.reads = 0
        self.found = list(found) or [snapshot()]
        self.takes = takes
        self._clock = clock

    def __call__(self) -> Snapshot:
        self._clock.now += self.takes
        found = self.found[min(self.reads, len(self.found) - 1)]
        self.reads += 1
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


def page_of(found: Snapshot, format: Format = Format.PLAIN, *, max_series: int = 2000) -> str:
    exporter = Exporter(lambda: found, max_series=max_series, clock=lambda: 0.0)
    return exporter.page(format).decode()


def series_of(page: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the numbers of a metric by the values of its labels, sorted by the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in lenient(page)
        for sample in family.samples
        if sample.name == name
    }


def value(exporter: Exporter, name: str) -> float:
    (found,) = series_of(exporter.page().decode(), name).values()
    return found


def test_the_plain_format_is_kept(golden: Golden) -> None:
    golden("export-plain.txt", page_of(full()))


def test_openmetrics_is_kept(golden: Golden) -> None:
    golden("export-openmetrics.txt", page_of(full(), Format.OPENMETRICS))


@pytest.mark.parametrize("format", Format)
def test_every_metric_is_shown_under_its_name_with_its_labels(format: Format) -> None:
    parse = strict if format is Format.OPENMETRICS else lenient
    shown = {
        sample.name: set(sample.labels)
        for family in parse(page_of(full(), format))
        for sample in family.samples
    }
    assert shown == {exposed_name(each): set(each.labels) for each in (*METRICS, *HEALTH)}


def test_a_metric_without_series_is_left_out() -> None:
    page = page_of(snapshot())
    assert "xdpkit_errors_total" not in page.replace('metric="xdpkit_errors_total"', "")


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", Format.PLAIN),
        ("*/*", Format.PLAIN),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format.PLAIN),
        # As Prometheus 2.42 asks.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format.OPENMETRICS,
        ),
        ("text/html, Application/OpenMetrics-Text ; version=1.0.0", Format.OPENMETRICS),
    ],
)
def test_who_asks_for_openmetrics_gets_it(accept: str, format: Format) -> None:
    assert Format.accepted(accept) is format


HOSTILE = {
    "a\nb": r"a\nb",
    'quo"te': 'quo"te',
    "back\\slash": "back\\slash",
    "\x1b[31mred": r"\x1b[31mred",
    "\udcff\udcfe": r"\udcff\udcfe",
    "nul\0": r"nul\x00",
    "\u202eright": r"\u202eright",
    "": "",
    "} 1\nxdpkit_errors_total{": r"} 1\nxdpkit_errors_total{",
    "naïve ✓": "naïve ✓",
}


@pytest.mark.parametrize(("name", "expected"), HOSTILE.items(), ids=range(len(HOSTILE)))
@pytest.mark.parametrize("format", Format)
def test_a_hostile_name_is_a_label_and_nothing_else(
    name: str, expected: str, format: Format
) -> None:
    page = page_of(snapshot(error(program=name, packets=7)), format)
    parse = strict if format is Format.OPENMETRICS else lenient
    (found,) = [
        sample
        for family in parse(page)
        for sample in family.samples
        if sample.name == "xdpkit_errors_total"
    ]
    assert (found.labels["program"], found.value) == (expected, 7)


@given(st.text(st.characters(), max_size=200))
def test_any_name_at_all_gives_a_label_that_can_be_printed(name: str) -> None:
    shown = label_value(name)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert len(shown) <= LONGEST_LABEL


def test_names_that_differ_where_they_are_cut_off_are_one_series() -> None:
    one, other = ("x" * 500 + end for end in "ab")
    page = page_of(snapshot(error(program=one, packets=2), error(program=other, packets=3)))
    assert set(series_of(page, "xdpkit_errors_total").values()) == {5}


def test_information_that_is_cut_off_is_still_one() -> None:
    given = full()
    long = tuple(replace(given.attached[0], tag="x" * 500 + end) for end in "ab")
    page = page_of(replace(given, attached=long))
    assert list(series_of(page, "xdpkit_program_info").values()) == [1]


def numbered(**packets: int) -> Snapshot:
    """Return errors of programs by these names."""
    return snapshot(*(error(program=name, packets=each) for name, each in packets.items()))


def errors_by_program(page: str) -> dict[str, float]:
    return {labels[3]: each for labels, each in series_of(page, "xdpkit_errors_total").items()}


def test_beyond_the_limit_the_smallest_are_counted_together() -> None:
    page = page_of(numbered(a=1, b=50, c=2, d=40, e=3), max_series=2)
    assert errors_by_program(page) == {"b": 50, "d": 40, "other": 6}
    assert ("other",) * len(ERRORS.labels) in series_of(page, "xdpkit_errors_total")
    folded = series_of(page, "xdpkit_export_folded_series")
    assert folded["xdpkit_errors_total",] == 3
    assert sum(folded.values()) == 3


def test_at_the_limit_nothing_is_counted_together() -> None:
    page = page_of(numbered(a=1, b=2), max_series=2)
    assert errors_by_program(page) == {"a": 1, "b": 2}
    assert set(series_of(page, "xdpkit_export_folded_series").values()) == {0}


def test_information_that_is_folded_is_still_one() -> None:
    page = page_of(full(), max_series=1)
    shown = series_of(page, "xdpkit_program_info")
    assert set(shown.values()) == {1}
    assert ("other",) * len(PROGRAM.labels) in shown


def test_a_metric_without_labels_is_never_folded() -> None:
    page = page_of(full(), max_series=1)
    assert series_of(page, "xdpkit_missed_events_total") == {(): 12}


def pages(*found: Snapshot, max_series: int) -> Iterator[str]:
    """Yield the pages that one exporter shows of one snapshot after the other."""
    clock = Clock()
    source = Source(clock, *found)
    exporter = Exporter(source, max_series=max_series, clock=clock)
    for _ in found:
        yield exporter.page().decode()
        clock.now += 1


def errors_of(*found: Snapshot, max_series: int) -> list[dict[str, float]]:
    return [errors_by_program(page) for page in pages(*found, max_series=max_series)]


def test_a_series_stays_where_it_is_so_that_no_counter_goes_down() -> None:
    before, after = errors_of(numbered(a=9, b=1), numbered(a=9, b=100), max_series=1)
    assert before == {"a": 9, "other": 1}
    assert after == {"a": 9, "other": 100}


def test_what_was_counted_together_stays_when_some_of_it_goes() -> None:
    found = errors_of(
        numbered(a=9, b=2, c=3),
        numbered(a=9, b=2),
        numbered(a=9),
        numbered(a=9, b=4, c=3),
        max_series=1,
    )
    assert [each["other"] for each in found] == [5, 5, 5, 7]


def test_what_began_anew_is_added_to_what_was_counted_together() -> None:
    found = errors_of(numbered(a=9, b=8), numbered(a=9, b=1), numbered(a=9, b=3), max_series=1)
    assert [each["other"] for each in found] == [8, 9, 11]


def test_the_place_of_a_series_that_went_is_given_to_a_new_one() -> None:
    found = errors_of(numbered(a=9, b=8), numbered(b=8), numbered(b=8, c=1), max_series=2)
    assert found == [{"a": 9, "b": 8}, {"b": 8}, {"b": 8, "c": 1}]


def test_a_series_that_was_away_for_a_moment_has_its_place_still() -> None:
    found = errors_of(numbered(a=9, b=8), numbered(b=8), numbered(a=10, b=8), max_series=2)
    assert found[-1] == {"a": 10, "b": 8}


def test_a_series_that_comes_back_to_a_place_that_is_taken_is_no_burst() -> None:
    found = errors_of(
        numbered(a=1_000_000, b=8),
        numbered(b=8),
        numbered(b=8, c=1),
        numbered(a=1_000_003, b=8, c=1),
        numbered(a=2, b=8, c=1),
        max_series=2,
    )
    assert [each.get("other") for each in found] == [None, None, None, 3, 5]


def test_a_series_that_was_away_for_long_is_no_burst_either() -> None:
    others = (numbered(a=9, **{f"p{number}": 1}) for number in range(3))
    first, *_, last = errors_of(numbered(a=9, b=8), *others, numbered(a=9, b=10), max_series=1)
    assert (first["other"], last["other"]) == (8, 8 + 3 + 2)


def test_the_place_that_is_given_up_is_that_of_whoever_has_been_away_longest() -> None:
    found = errors_of(
        numbered(a=9, b=8),
        numbered(b=8),
        numbered(c=1),
        numbered(b=9, c=1),
        max_series=2,
    )
    assert found[-1] == {"b": 9, "c": 1}


def test_a_series_called_other_is_not_one_more() -> None:
    places = Places(ERRORS, 5)
    labels: tuple[str, ...] = ("other",) * len(ERRORS.labels)
    folded = places.fold({labels: 5})
    assert (dict(folded.series), folded.folded) == ({labels: 5}, 0)


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 100), min_size=1),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_whatever_comes_and_goes_series_are_bounded_and_other_never_goes_down(
    rounds: list[dict[str, int]], most: int
) -> None:
    places = Places(ERRORS, most)
    other = ("other",) * len(ERRORS.labels)
    before = 0
    seen: dict[tuple[str, ...], int] = {}
    for found in rounds:
        named: dict[tuple[str, ...], int] = {
            ("", "eth0", name, "aborted", "aborted"): each for name, each in found.items()
        }
        folded = places.fold(named)
        own = {labels: each for labels, each in folded.series.items() if labels != other}
        assert len(own) <= most
        assert own.items() <= named.items()
        assert folded.folded == len(named) - len(own)
        now = folded.series.get(other, 0)
        grown = sum(
            each if each < seen.get(labels, 0) else each - seen.get(labels, 0)
            for labels, each in named.items()
            if labels not in own
        )
        # Those that are forgotten come back as if they were new.
        forgotten = len(seen) > 5 * most
        assert now == before + grown or (forgotten and now >= before + grown)
        before = now
        seen.update(named)


def test_what_is_remembered_of_series_that_went_is_bounded() -> None:
    places = Places(ERRORS, 1)
    seen = 0
    for number in range(200):
        labels = ("", f"eth{number}", "p", "aborted", "aborted")
        folded = places.fold({("", "a", "p", "aborted", "aborted"): 1000, labels: 2})
        seen += 2
        assert folded.series[("other",) * 5] == seen
        assert len(places._others) <= 5


def test_everything_is_read_once_for_all_who_ask_within_half_a_second(clock: Clock) -> None:
    source = Source(clock)
    exporter = Exporter(source, clock=clock)
    for _ in range(100):
        exporter.page()
        exporter.page(Format.OPENMETRICS)
        list(exporter.collect())
    assert source.reads == 1
    clock.now += 0.49
    exporter.page()
    assert source.reads == 1
    clock.now += 0.02
    exporter.page()
    assert source.reads == 2


def test_reading_takes_at_most_a_tenth_of_the_time(clock: Clock) -> None:
    source = Source(clock, takes=0.2)
    exporter = Exporter(source, clock=clock)
    exporter.page()
    clock.now += 1.9
    exporter.page()
    assert source.reads == 1
    clock.now += 0.2
    exporter.page()
    assert source.reads == 2


def test_those_who_ask_at_the_same_time_wait_for_one_reading() -> None:
    reading, go_on = threading.Event(), threading.Event()
    reads = []

    def take() -> Snapshot:
        reads.append(1)
        reading.set()
        assert go_on.wait(30)
        return snapshot()

    exporter = Exporter(take)
    clients = [threading.Thread(target=exporter.page) for _ in range(8)]
    for client in clients:
        client.start()
    assert reading.wait(30)
    go_on.set()
    for client in clients:
        client.join(30)
    assert len(reads) == 1


def test_it_says_how_long_reading_took(clock: Clock) -> None:
    exporter = Exporter(Source(clock, takes=0.25), clock=clock)
    assert value(exporter, "xdpkit_export_scrape_seconds") == 0.25


def test_what_could_not_be_read_is_counted_each_time_and_said_once(clock: Clock) -> None:
    said: list[str] = []
    source = Source(clock, snapshot(notes=("eth1 is gone",)))
    exporter = Exporter(source, report=said.append, clock=clock)
    for number in (1, 2, 3):
        assert value(exporter, "xdpkit_export_errors_total") == number
        assert value(exporter, "xdpkit_monitor_installed") == 1
        clock.now += 1
    assert said == ["eth1 is gone"]


REFUSED = RequirementUnmet("look at eth1", cause="it is gone")


@pytest.mark.parametrize(
    ("failure", "note"),
    [
        (REFUSED, "look at eth1: it is gone"),
        (KeyError("x"), "cannot read: unexpected KeyError: 'x'"),
    ],
)
def test_while_nothing_can_be_read_that_is_what_is_shown(
    clock: Clock, failure: Exception, note: str
) -> None:
    said: list[str] = []
    source = Source(clock, failure, snapshot())
    exporter = Exporter(source, report=said.append, clock=clock)
    page = exporter.page().decode()
    assert {family.name for family in lenient(page)} == {
        "xdpkit_export_scrape_seconds",
        "xdpkit_export_errors",
    }
    assert said == [note]
    exporter.page()
    assert source.reads == 1
    clock.now += 1
    assert value(exporter, "xdpkit_monitor_installed") == 1
    assert value(exporter, "xdpkit_export_errors_total") == 1


def test_who_reads_by_hand_is_told_what_is_wrong(clock: Clock) -> None:
    with pytest.raises(RequirementUnmet, match="look at eth1: it is gone"):
        Exporter(Source(clock, REFUSED), clock=clock).read()


def test_a_page_after_reading_by_hand_is_of_that_reading(clock: Clock) -> None:
    source = Source(clock)
    exporter = Exporter(source, clock=clock)
    exporter.read()
    exporter.page()
    assert source.reads == 1


def test_notes_that_are_always_different_are_said_no_longer(clock: Clock) -> None:
    said: list[str] = []
    found = snapshot(notes=tuple(f"eth{number} is gone" for number in range(1000)))
    exporter = Exporter(Source(clock, found), report=said.append, clock=clock)
    assert value(exporter, "xdpkit_export_errors_total") == 1000
    assert len(said) == 257
    assert said[-1] == "there is more that cannot be read; it is only counted from now on"


def test_it_can_be_registered_in_a_registry_of_ones_own() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(Exporter(full, clock=lambda: 0.0))
    assert generate_latest(registry).decode() == page_of(full())


def names(page: str) -> Iterable[str]:
    return (sample.name for family in lenient(page) for sample in family.samples)


def test_counters_end_in_total_and_nothing_else_does() -> None:
    counters = {exposed_name(each) for each in (*METRICS, *HEALTH) if each.is_counter}
    assert {name for name in names(page_of(full())) if name.endswith("_total")} == counters


DOCUMENT = Path(__file__).parents[3] / "docs/metrics.md"


@pytest.mark.parametrize("metrics", [METRICS, HEALTH], ids=["standard", "health"])
def test_the_page_about_metrics_has_them_all(metrics: Sequence[Metric]) -> None:
    rows = [
        f"| `{exposed_name(each)}` | {', '.join(f'`{label}`' for label in each.labels)} |"
        f" {each.meaning} |\n"
        for each in metrics
    ]
    table = f"| name | labels | meaning |\n|---|---|---|\n{''.join(rows)}\n"
    assert table in DOCUMENT.read_text(), f"docs/metrics.md lacks this table:\n{table}"


def test_the_page_about_metrics_names_no_others() -> None:
    named = set(re.findall(r"\bxdpkit_\w+\b", DOCUMENT.read_text()))
    # The last one is a program.
    assert named == {*(exposed_name(each) for each in (*METRICS, *HEALTH)), "xdpkit_root"}


def test_the_page_about_metrics_tells_each_reason_and_event() -> None:
    text = DOCUMENT.read_text()
    # Bytes have a metric of their own.
    for name in (*Reason, *(EVENTS.keys() - {"bytes"})):
        assert f"| `{name}` |" in text


def test_without_any_series_there_is_nothing_to_export() -> None:
    with pytest.raises(UsageError, match="there must be 1 series or more, not 0"):
        Exporter(full, max_series=0)
