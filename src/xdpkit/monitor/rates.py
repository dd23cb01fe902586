# SPDX-License-Identifier: Apache-2.0
"""How fast the standard counters go: two snapshots, as numbers a second, and the last minute.

Pure. A rate is unknown, never guessed, where the earlier snapshot has nothing to compare with: the
program was not on the hook, its counters began anew, or the resident programs were installed
meanwhile. So no rate is negative.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from xdpkit.monitor.samples import (
    DRIVER,
    DRIVER_BYTES,
    INSTALLED,
    NO_PROGRAM,
    PROGRAM,
    RETURNED,
    RETURNED_BYTES,
    Sample,
    samples,
)

if TYPE_CHECKING:
    from xdpkit.monitor.model import Snapshot

_SECOND = 10**9  # nanoseconds
WINDOW = 60 * _SECOND
"""How much of the past a :class:`History` keeps, in nanoseconds."""

# As many as fit into the window at the shortest interval that the command allows.
_MOST_ROUNDS = 600

_Key = TypeVar("_Key", bound=Hashable)


class Series(NamedTuple):
    """What a sample is a number of: a metric's name, and the values of its labels.

    A label that is None stands for all values: such a series is the sum of others.
    """

    metric: str
    labels: tuple[str | None, ...] = ()


def series_of(sample: Sample) -> Series:
    """Return the series that a sample is of."""
    return Series(sample.metric.name, sample.labels)


def rates(before: Snapshot, after: Snapshot) -> Mapping[Series, float]:
    """Return how fast counters went between two snapshots, a second; those that are known.

    A series that turns up for the first time counts from 0, if what it belongs to was counted
    already: errors, say, are listed from the first one on.
    """
    elapsed = after.taken_at - before.taken_at
    if elapsed <= 0:
        return {}
    earlier = {series_of(sample): sample.value for sample in samples(before)}
    began, begins = _beginnings(before), _beginnings(after)
    known = {}
    for sample in samples(after):
        if not sample.metric.is_counter:
            continue
        series, owner = series_of(sample), _owner(sample)
        grown = sample.value - earlier.get(series, 0)
        if grown >= 0 and owner in began and began[owner] == begins[owner]:
            known[series] = grown * _SECOND / elapsed
    return known


def _owner(sample: Sample) -> tuple[str, ...]:
    """Return what a counter belongs to: its counters begin at the same time."""
    labels = sample.labelled
    if sample.metric in (RETURNED, RETURNED_BYTES):
        return RETURNED.name, labels["interface"], labels["program"]
    if sample.metric == NO_PROGRAM:
        return NO_PROGRAM.name, labels["interface"]
    if sample.metric in (DRIVER, DRIVER_BYTES):
        return DRIVER.name, labels["netns"], labels["interface"]
    return (INSTALLED.name,)


def _beginnings(snapshot: Snapshot) -> Mapping[tuple[str, ...], Hashable]:
    """Return what is counted, and what changes when that begins anew."""
    found: dict[tuple[str, ...], Hashable] = {}
    for report in snapshot.returned:
        here = report.interface.name
        found[NO_PROGRAM.name, here] = report.interface.index
        loaded: dict[str, set[tuple[int, bool]]] = {}
        for program in report.programs:
            identity = program.logical_id, program.queues is None
            loaded.setdefault(program.name, set()).add(identity)
        for name, identities in loaded.items():
            found[RETURNED.name, here, name] = frozenset(identities)
    for driver in snapshot.drivers:
        where = driver.where
        found[DRIVER.name, where.netns, where.interface] = where.ifindex
    if snapshot.installed is not None:
        found[INSTALLED.name,] = snapshot.installed.since
    return found


def round_to_dict(snapshot: Snapshot, known: Mapping[Series, float]) -> dict[str, object]:
    """Return a snapshot and its rates as plain data, for JSON.

    Args:
        snapshot: the snapshot.
        known: what :func:`rates` says of it and the one before; empty for the first one.
    """
    return {
        **snapshot.to_dict(),
        "samples": [
            {
                "name": sample.metric.name,
                "labels": dict(sample.labelled),
                "value": sample.value,
                "per_second": known.get(series_of(sample)),
            }
            for sample in samples(snapshot)
            if sample.metric != PROGRAM
        ],
        "programs": [
            dict(sample.labelled) for sample in samples(snapshot) if sample.metric == PROGRAM
        ],
    }


@dataclass(frozen=True, slots=True)
class _Round:
    """Rates that held for a while; those that are not in it were 0, or not known."""

    begins: int
    ends: int
    rates: Mapping[Hashable, float]


@dataclass(frozen=True, slots=True)
class History(Generic[_Key]):
    """How fast things went in the last minute. Bounded: what is older is forgotten."""

    rounds: tuple[_Round, ...] = ()

    def and_then(self, begins: int, ends: int, known: Mapping[_Key, float]) -> History[_Key]:
        """Return a history with one more round.

        Args:
            begins, ends: when the counters were read, in nanoseconds of one clock.
            known: how fast they went between.
        """
        kept = [each for each in self.rounds if each.ends > ends - WINDOW]
        # Most counters do not move: only what moves is kept.
        moving: dict[Hashable, float] = {key: rate for key, rate in known.items() if rate}
        return History((*kept[-_MOST_ROUNDS + 1 :], _Round(begins, ends, moving)))

    @property
    def moving(self) -> frozenset[Hashable]:
        """Everything that went at all in the last minute."""
        return frozenset(key for each in self.rounds for key in each.rates)

    def trend(self, key: _Key, slots: int) -> tuple[float | None, ...]:
        """Return how fast something went in each part of the last minute, the newest last.

        Args:
            key: what. slots: how many parts.

        None is for parts of which nothing is known.
        """
        if not self.rounds:
            return (None,) * slots
        last = self.rounds[-1].ends
        sums, spans = [0.0] * slots, [0.0] * slots
        for each in self.rounds:
            rate = each.rates.get(key, 0.0)
            # In slots, counted from the beginning of the window.
            begins = max((each.begins - last + WINDOW) * slots / WINDOW, 0.0)
            ends = (each.ends - last + WINDOW) * slots / WINDOW
            for slot in range(int(begins), min(int(ends) + 1, slots)):
                overlap = min(ends, slot + 1) - max(begins, slot)
                if overlap > 0:
                    sums[slot] += rate * overlap
                    spans[slot] += overlap
        return tuple(
            total / span if span else None for total, span in zip(sums, spans, strict=True)
        )

    def mean(self, key: _Key) -> float:
        """Return how fast something went in the last minute, as far as that is known."""
        spans = [(each.ends - each.begins, each.rates.get(key, 0.0)) for each in self.rounds]
        total = sum(span for span, _ in spans)
        return sum(span * rate for span, rate in spans) / total if total else 0.0
