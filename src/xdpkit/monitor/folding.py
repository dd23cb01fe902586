# SPDX-License-Identifier: Apache-2.0
"""How many series there may be, and what their labels may hold: pure.

A database of metrics pays for each series that it has ever seen. So their number is bounded, and
so is the length of what names them, however many programs, interfaces and errors there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xdpkit.errors import printable
from xdpkit.monitor.samples import Metric, Sample

DEFAULT_MAX_SERIES = 2000

OTHER_LABEL = "other"
"""What every label of a series says that stands for those without a series of their own."""

LONGEST_LABEL = 128
"""The most characters of a label's value; of a longer one the rest is cut off."""

# How many series are remembered that are not shown, for each one that may be.
_REMEMBERED = 4


def label_value(text: str) -> str:
    """Return a name as the value of a label: what is not printable escaped, and not too long."""
    text = printable(text)
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def by_metric(samples: Iterable[Sample]) -> dict[Metric, dict[tuple[str, ...], int]]:
    """Return samples by metric and by the values of their labels, as those may be shown.

    Series whose names differ only in what is cut off are one series: a page that has a series
    twice would be refused as a whole.
    """
    found: dict[Metric, dict[tuple[str, ...], int]] = {}
    for sample in samples:
        labels = tuple(map(label_value, sample.labels))
        series = found.setdefault(sample.metric, {})
        before = series.get(labels, 0)
        series[labels] = (
            before + sample.value if sample.metric.is_counter else max(before, sample.value)
        )
    return found


@dataclass(frozen=True, slots=True)
class Folded:
    """The series of a metric as they are shown.

    Attributes:
        series: numbers by the values of the labels; the last one may stand for several.
        folded: for how many it stands.
    """

    series: Mapping[tuple[str, ...], int]
    folded: int


class Places:
    """Which series of one metric are shown by themselves, and which go into one called "other".

    The largest of those that are there first are shown. Then each stays where it is: if the larger
    ones took turns, what "other" counts would go down, which whoever reads it takes for a counter
    that began anew. A series that goes away gives its place up when another needs it; when it comes
    back then, "other" grows by what it has grown by, not by all that it has ever counted.
    """

    def __init__(self, metric: Metric, most: int) -> None:
        """Give places to so many series of a metric, 1 or more."""
        self._metric = metric
        self._most = most
        # Numbers when they were last seen; those that have been away for longest come first.
        self._shown: dict[tuple[str, ...], int] = {}
        self._others: dict[tuple[str, ...], int] = {}
        # What "other" has counted, None before there was anything for it.
        self._total: int | None = None

    def fold(self, found: Mapping[tuple[str, ...], int]) -> Folded:
        """Return the series as they are shown."""
        other = (OTHER_LABEL,) * len(self._metric.labels)
        self._seat(found, other)
        series = {labels: found[labels] for labels in sorted(self._shown.keys() & found.keys())}
        for labels, value in series.items():
            _renew(self._shown, labels, value)
        rest = {labels: value for labels, value in found.items() if labels not in self._shown}
        if not self._metric.is_counter:
            self._others = dict(rest)
            if rest:
                series[other] = max(rest.values())
        else:
            self._count(rest)
            if self._total is not None:
                series[other] = self._total
        # What is called that anyway was not folded.
        return Folded(series, len(rest.keys() - {other}))

    def _seat(self, found: Mapping[tuple[str, ...], int], other: tuple[str, ...]) -> None:
        taken = self._shown.keys() | self._others.keys()
        if other:
            # What is called that anyway is a part of it. Without labels there is no such series.
            taken = taken | {other}
        new = [labels for labels in found if labels not in taken]
        new.sort(key=lambda labels: (-found[labels], labels))
        lacking = max(len(self._shown) + len(new) - self._most, 0)
        away = [labels for labels in self._shown if labels not in found]
        for labels in away[:lacking]:
            _renew(self._others, labels, self._shown.pop(labels))
        for labels in new[: self._most - len(self._shown)]:
            self._shown[labels] = found[labels]

    def _count(self, rest: Mapping[tuple[str, ...], int]) -> None:
        """Add what has come since each was seen last to what "other" has counted."""
        for labels, value in rest.items():
            before = self._others.get(labels, 0)
            # It began anew if it is lower, as those of a program that is attached again do.
            grown = value - before if value >= before else value
            self._total = (self._total or 0) + grown
            _renew(self._others, labels, value)
        excess = len(self._others) - max(self._most * _REMEMBERED, len(rest))
        for labels in list(itertools.islice(self._others, max(excess, 0))):
            del self._others[labels]


def _renew(seen: dict[tuple[str, ...], int], labels: tuple[str, ...], value: int) -> None:
    """Put a series behind all others that were seen."""
    seen.pop(labels, None)
    seen[labels] = value
