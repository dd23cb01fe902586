# SPDX-License-Identifier: Apache-2.0
"""What there is to be shown: counters summed up in the ways that pages need, and how fast they go.

A sum is a series with None for the labels that it goes over: the packets of a queue, say, are
``Series(RETURNED.name, ("", "eth0", "3", None, None))``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

from xdpkit.cli.screen.troubles import Trouble, troubles
from xdpkit.monitor.rates import History, Series, rates, series_of
from xdpkit.monitor.samples import (
    DRIVER,
    DRIVER_BYTES,
    ERRORS,
    NO_PROGRAM,
    REDIRECT_ERRORS,
    RETURNED,
    RETURNED_BYTES,
    TRANSMIT_DROPS,
    TRANSMITTED,
    Sample,
    samples,
)

if TYPE_CHECKING:
    from xdpkit.monitor.model import Snapshot

PACKETS = "packets"
"""Metric of the sum of all packets that an interface, or a queue of it, got."""
FAILED = "failed"
"""Metric of the sum of all errors of an interface that the tracepoints tell."""


class Place(NamedTuple):
    """An interface: its namespace as :class:`~xdpkit.monitor.model.Where` has it, and its name."""

    netns: str
    interface: str

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.netns}/{self.interface}" if self.netns else self.interface


@dataclass(frozen=True, slots=True)
class Board:
    """All numbers of one moment, with those of the last minute.

    Attributes:
        snapshot: what was read.
        totals: all series that count, and sums of them.
        speeds: how many of them a second; those that are known.
        history: the last minute of them.
        troubles: what has gone wrong.
        places: the interfaces that there is something to say about, own ones first; of other
            namespaces only those where something happened in the last minute.
    """

    snapshot: Snapshot
    totals: Mapping[Series, int]
    speeds: Mapping[Series, float]
    history: History[Series]
    troubles: tuple[Trouble, ...]
    places: tuple[Place, ...]

    @classmethod
    def of(cls, snapshot: Snapshot, *, asked: Collection[str] = ()) -> Self:
        """Return the board of a first snapshot: totals only.

        Args:
            snapshot: what was read.
            asked: names of the interfaces that it was asked for; then others have no place, and
                no troubles; empty: it was not asked for any in particular.
        """
        totals, _ = _sums(snapshot, {})
        history: History[Series] = History()
        found = troubles(snapshot)
        places = tuple(_places(snapshot, found, totals, history, asked))
        wanted = tuple(_wanted(found, places, asked))
        return cls(snapshot, totals, {}, history, wanted, places)

    def after(self, snapshot: Snapshot, *, asked: Collection[str] = ()) -> Board:
        """Return the board of the next snapshot; the arguments are as of :meth:`of`."""
        before = self.snapshot
        totals, speeds = _sums(snapshot, rates(before, snapshot))
        history = self.history
        if snapshot.taken_at > before.taken_at:
            history = history.and_then(before.taken_at, snapshot.taken_at, speeds)
        found = troubles(snapshot)
        places = tuple(_places(snapshot, found, totals, history, asked))
        return replace(
            self,
            snapshot=snapshot,
            totals=totals,
            speeds=speeds,
            history=history,
            troubles=tuple(_wanted(found, places, asked)),
            places=places,
        )

    def total(self, *series: Series) -> int | None:
        """Return the sum of series, None if none of them is counted."""
        found = [self.totals[each] for each in series if each in self.totals]
        return sum(found) if found else None

    def speed(self, *series: Series) -> float | None:
        """Return how many a second there were of series together, None if that is not known."""
        counted = [each for each in series if each in self.totals]
        if not counted or any(each not in self.speeds for each in counted):
            return None
        return sum(self.speeds[each] for each in counted)

    def trend(self, slots: int, *series: Series) -> tuple[float | None, ...]:
        """Return the last minute of series together, see :meth:`History.trend`."""
        counted = [each for each in series if each in self.totals]
        if not counted:
            return (None,) * slots
        columns = zip(*(self.history.trend(each, slots) for each in counted), strict=True)
        return tuple(None if None in column else sum(filter(None, column)) for column in columns)

    def lately(self, *series: Series) -> float:
        """Return how many a second there were of series in the last minute."""
        return sum(self.history.mean(each) for each in series)

    def is_growing(self, *series: Series) -> bool:
        """Whether any of them has risen in the last minute."""
        return self.lately(*series) > 0


def _sums(
    snapshot: Snapshot, known: Mapping[Series, float]
) -> tuple[dict[Series, int], dict[Series, float]]:
    """Return all series and sums of them, and how fast they go; those that are known."""
    found = [sample for sample in samples(snapshot) if sample.metric.is_counter]
    whole = {
        (sample.labels[:2], sample.labels[4:])
        for sample in found
        if sample.metric in (DRIVER, DRIVER_BYTES) and not sample.labelled["queue"]
    }
    totals: dict[Series, int] = {}
    speeds: dict[Series, float] = {}
    unknown: set[Series] = set()
    for sample in found:
        speed = known.get(series_of(sample))
        for series in (series_of(sample), *_sums_with(sample, whole)):
            totals[series] = totals.get(series, 0) + sample.value
            if speed is None:
                unknown.add(series)
            else:
                speeds[series] = speeds.get(series, 0.0) + speed
    for series in unknown:
        speeds.pop(series, None)
    return totals, speeds


def _sums_with(
    sample: Sample, whole: set[tuple[tuple[str, ...], tuple[str, ...]]]
) -> Iterator[Series]:
    """Yield the sums that a sample is part of; ``whole``: what drivers have summed up already."""
    metric, labels = sample.metric, sample.labels
    here = labels[:2]
    if metric == RETURNED:
        queue, program, action = labels[2:]
        for q, p in ((None, None), (queue, None), (None, program)):
            yield Series(metric.name, (*here, q, p, None))
            yield Series(metric.name, (*here, q, p, action))
        yield Series(metric.name, (*here, queue, program, None))
        yield Series(PACKETS, (*here, None))
        yield Series(PACKETS, (*here, queue))
    elif metric == RETURNED_BYTES:
        queue, program, _ = labels[2:]
        for q, p in ((None, None), (queue, None), (None, program)):
            yield Series(metric.name, (*here, q, p, None))
    elif metric == NO_PROGRAM:
        yield Series(metric.name, (*here, None))
        yield Series(PACKETS, (*here, None))
        yield Series(PACKETS, (*here, labels[2]))
    elif metric in (DRIVER, DRIVER_BYTES):
        queue, event = labels[2], labels[4:]
        if queue:
            yield Series(metric.name, (*here, queue, None, *event))
        if not queue or (here, event) not in whole:
            yield Series(metric.name, (*here, None, None, *event))
    elif metric in (ERRORS, REDIRECT_ERRORS, TRANSMIT_DROPS):
        yield Series(FAILED, here)
        if metric == TRANSMIT_DROPS:
            yield Series(metric.name, (*here, None))
    elif metric == TRANSMITTED:
        yield Series(metric.name, (*here, None))


def _places(
    snapshot: Snapshot,
    found: Collection[Trouble],
    totals: Mapping[Series, int],
    history: History[Series],
    asked: Collection[str],
) -> Iterator[Place]:
    """Yield the interfaces that there is something to say about, each once."""
    told = {Place(each.where.netns, each.where.interface) for each in snapshot.drivers}
    busy = {Place("", report.interface.name) for report in snapshot.returned}
    busy.update(Place(each.where.netns, each.where.interface) for each in snapshot.attached)
    if asked:
        yield from sorted({*told, *busy, *(Place("", name) for name in asked)})
        return
    # A host can have thousands of containers in which something went wrong once.
    busy.update(Place(each.netns, each.interface) for each in found if each.is_recent)
    busy.discard(Place("", ""))
    moving = history.moving
    for series, total in totals.items():
        if total and series.metric in (FAILED, TRANSMITTED.name, DRIVER.name):
            netns, interface = series.labels[:2]
            if not netns or series in moving:
                busy.add(Place(netns or "", interface or ""))
    yield from sorted(busy)


def _wanted(
    found: Collection[Trouble], places: Collection[Place], asked: Collection[str]
) -> Iterator[Trouble]:
    for trouble in found:
        if not asked or (trouble.netns, trouble.interface) in places:
            yield trouble
