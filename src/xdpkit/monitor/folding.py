# SPDX-License-Identifier: Apache-2.0
"""How many series there may be, and what their labels may hold: pure.

A database of metrics pays for each series that it has ever seen. So their number is bounded, and
so is the length of what names them, however many programs, interfaces and errors there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xdpkit.monitor.samples import Metric, Sample

DEFAULT_MAX_SERIES = 2000

OTHER_LABEL = "other"
"""What every label of a series says that stands for those without a series of their own."""

LONGEST_LABEL = 128
"""The most characters of a label's value; of a longer one the rest is cut off."""

# How many series are remembered while they are away, for each one that may be shown.
_REMEMBERED = 4


def label_value(text: str) -> str:
    """Return a name as the value of a label: what is not printable escaped, and not too long."""
    if not text.isprintable():
        text = "".join(
            char
            if char.isprintable()
            else char.encode("unicode_escape", "backslashreplace").decode("ascii")
            for char in text
        )
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
    that began anew. A series that goes away gives its place up when another needs it.
    """

    def __init__(self, metric: Metric, most: int) -> None:
        """Give places to so many series of a metric, 1 or more."""
        self._metric = metric
        self._most = most
        self._shown: set[tuple[str, ...]] = set()
        # What those in "other" had when they were last seen, and what went before that.
        self._last: dict[tuple[str, ...], int] = {}
        self._before = 0

    def fold(self, found: Mapping[tuple[str, ...], int]) -> Folded:
        """Return the series as they are shown."""
        other = (OTHER_LABEL,) * len(self._metric.labels)
        self._seat(found, other)
        series = {labels: found[labels] for labels in sorted(self._shown & found.keys())}
        rest = {labels: value for labels, value in found.items() if labels not in self._shown}
        self._remember(rest)
        if self._last or self._before:
            total = self._before + sum(self._last.values())
            series[other] = total if self._metric.is_counter else max(self._last.values())
        # What is called that anyway was not folded.
        return Folded(series, len(rest.keys() - {other}))

    def _seat(self, found: Mapping[tuple[str, ...], int], other: tuple[str, ...]) -> None:
        taken = self._shown | self._last.keys()
        if other:
            # What is called that anyway is a part of it. Without labels there is no such series.
            taken = taken | {other}
        new = [labels for labels in found if labels not in taken]
        if len(self._shown) + len(new) > self._most:
            self._shown &= found.keys()
        new.sort(key=lambda labels: (-found[labels], labels))
        self._shown.update(new[: self._most - len(self._shown)])

    def _remember(self, rest: Mapping[tuple[str, ...], int]) -> None:
        if not self._metric.is_counter:
            self._last = dict(rest)
            return
        for labels, value in rest.items():
            before = self._last.get(labels, 0)
            if value < before:
                # It began anew, as those of a program that is attached again do.
                self._before += before
            self._last[labels] = value
        if len(self._last) > max(self._most * _REMEMBERED, len(rest)):
            away = self._last.keys() - rest.keys()
            self._before += sum(self._last.pop(labels) for labels in away)
