# SPDX-License-Identifier: Apache-2.0
"""The standard counters for Prometheus, and whatever else reads its formats.

What a scrape costs is bounded, whoever asks and how often. Everything is read once for all who ask
within half a second, and within ten times what it took: so reading and writing take at most a tenth
of one CPU. One metric has so many series and no more (:mod:`xdpkit.monitor.folding`).
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest as plain
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.monitor.folding import DEFAULT_MAX_SERIES, Places, by_metric
from xdpkit.monitor.samples import METRICS, Metric, samples

if TYPE_CHECKING:
    from xdpkit.monitor.model import Snapshot

    Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily

SECONDS = Metric(
    "xdpkit_export_scrape_seconds",
    (),
    "How long it took to read what is shown.",
    is_counter=False,
)
FAILURES = Metric(
    "xdpkit_export_errors",
    (),
    "Parts that could not be read, at all readings since the exporter was started.",
)
FOLDED = Metric(
    "xdpkit_export_folded_series",
    ("metric",),
    'Series of a metric that are counted together, in the one whose labels are "other".',
    is_counter=False,
)

HEALTH = (SECONDS, FAILURES, FOLDED)
"""How the exporter itself fares."""

_HOLD_S = 0.5
# What was read is good for so many times as long as it took.
_REST = 10
# Different notes that are reported; more of them are counted only.
_MOST_NOTES = 256

_INFO = "_info"


class Format(enum.Enum):
    """A text format, by its media type.

    Attributes:
        PLAIN: the format of Prometheus, which node_exporter's textfile collector takes, too.
        OPENMETRICS: what became of it.
    """

    PLAIN = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = OPENMETRICS_TYPE

    @classmethod
    def accepted(cls, accept: str) -> Format:
        """Return the format for the value of an ``Accept`` header: OpenMetrics if it is there."""
        types = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
        return cls.OPENMETRICS if "application/openmetrics-text" in types else cls.PLAIN


_WRITERS: dict[Format, Callable[[CollectorRegistry], bytes]] = {
    Format.PLAIN: plain,
    Format.OPENMETRICS: openmetrics,
}


def exposed_name(metric: Metric) -> str:
    """Return the name that a metric has in queries: counters end in ``_total``."""
    return f"{metric.name}_total" if metric.is_counter else metric.name


class Exporter:
    """Reads the standard counters when it is asked, and not more often than is good.

    It is a collector of prometheus-client, too, and can be registered in a registry of one's own.
    It may be used by several threads: they wait for one another.
    """

    def __init__(
        self,
        take: Callable[[], Snapshot],
        *,
        max_series: int = DEFAULT_MAX_SERIES,
        report: Callable[[str], None] = lambda note: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare it; nothing is read yet.

        Args:
            take: reads everything (:func:`xdpkit.monitor.snapshot.take`). While it raises errors,
                their number is all there is to be shown.
            max_series: how many series of one metric there may be, beside "other"; 1 or more.
            report: is told what could not be read, in a sentence, each of them once.
            clock: the time in seconds.

        Raises:
            UsageError: there may be no series at all.
        """
        if max_series < 1:
            raise UsageError(
                "export the standard counters",
                cause=f"of a metric there must be 1 series or more, not {max_series}",
            )
        self._take = take
        self._report = report
        self._clock = clock
        self._places = {metric: Places(metric, max_series) for metric in METRICS}
        self._lock = threading.Lock()
        self._families: list[Family] = []
        self._pages: dict[Format, bytes] = {}
        self._spent = 0.0
        self._good_until: float | None = None
        self._failures = 0
        self._reported: set[str] = set()

    def collect(self) -> Iterator[Family]:
        """Yield the metrics, read now or a moment ago."""
        with self._lock:
            self._refresh()
            families = self._families
        yield from families

    def page(self, format: Format = Format.PLAIN) -> bytes:
        """Return the metrics as text, read now or a moment ago."""
        with self._lock:
            self._refresh()
            if format not in self._pages:
                started = self._clock()
                self._pages[format] = _text(self._families, format)
                self._spend(self._clock() - started)
            return self._pages[format]

    def read(self) -> None:
        """Read now, and raise what is only counted and reported otherwise.

        Raises:
            XdpkitError: nothing can be read.
        """
        with self._lock:
            self._take_in(self._clock())
            # The first time takes long, as modules are imported; that is no measure.
            self._spent = 0.0
            self._spend(0.0)

    def _refresh(self) -> None:
        started = self._clock()
        if self._good_until is not None and started < self._good_until:
            return
        try:
            self._take_in(started)
        except XdpkitError as error:
            self._fail(str(error), started)
        except Exception as error:
            # That there is nothing is seen where metrics are watched; an exporter that ended, or
            # one that reads in vain for each who asks, would be worse.
            self._fail(f"cannot read: unexpected {type(error).__qualname__}: {error}", started)

    def _take_in(self, started: float) -> None:
        snapshot = self._take()
        families, folded = self._shown(snapshot)
        for note in snapshot.notes:
            self._note(note)
        self._keep(families, folded, started)

    def _fail(self, note: str, started: float) -> None:
        self._note(note)
        self._keep([], {}, started)

    def _keep(self, families: list[Family], folded: dict[Metric, int], started: float) -> None:
        took = self._clock() - started
        self._families = [*families, *_health(took, self._failures, folded)]
        self._pages = {}
        self._spent = 0.0
        self._spend(took)

    def _spend(self, took: float) -> None:
        self._spent += took
        self._good_until = self._clock() + max(_HOLD_S, _REST * self._spent)

    def _shown(self, snapshot: Snapshot) -> tuple[list[Family], dict[Metric, int]]:
        found = by_metric(samples(snapshot))
        families, folded = [], {}
        for metric, places in self._places.items():
            result = places.fold(found.get(metric, {}))
            folded[metric] = result.folded
            if result.series:
                families.append(_family(metric, result.series))
        return families, folded

    def _note(self, note: str) -> None:
        self._failures += 1
        if note in self._reported or len(self._reported) > _MOST_NOTES:
            return
        self._reported.add(note)
        if len(self._reported) > _MOST_NOTES:
            note = "there is more that cannot be read; it is only counted from now on"
        self._report(note)


def _text(families: list[Family], format: Format) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return _WRITERS[format](registry)


class _Collected:
    """Metrics that have been read, as a collector."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _family(metric: Metric, series: Mapping[tuple[str, ...], float]) -> Family:
    if metric.name.endswith(_INFO):
        info = InfoMetricFamily(
            metric.name.removesuffix(_INFO), metric.meaning, labels=metric.labels
        )
        for labels in series:
            info.add_metric(labels, {})
        return info
    kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _health(took: float, failures: int, folded: Mapping[Metric, int]) -> Iterator[Family]:
    yield _family(SECONDS, {(): took})
    yield _family(FAILURES, {(): failures})
    if folded:
        yield _family(FOLDED, {(exposed_name(each),): number for each, number in folded.items()})
