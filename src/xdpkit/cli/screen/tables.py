# SPDX-License-Identifier: Apache-2.0
"""Tables that fit a width: columns that matter less are left out, sparklines get what is left.

Texts give way; numbers have a fixed width, so that nothing jumps about while they change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from xdpkit.cli.screen.text import Glyphs, Span, Style, fitted, shortened, spark, width_of

_GAP = "  "
_SPARK_LEAST, _SPARK_MOST = 8, 60
_TEXT_LEAST = 8


@dataclass(frozen=True, slots=True)
class Trend:
    """A cell that is a sparkline: ``values`` gives the last minute in so many parts."""

    values: Callable[[int], Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: what stands above it.
        least: how wide it is at least.
        priority: the higher ones are left out first; 0: never.
        right: whether it is aligned to the right, as numbers are.
        gives_way: how narrow it may be made for other columns to be shown; 0: not at all. Where
            there is nothing left to leave out, it is made still narrower.
        has_places: whether its texts are titles of interfaces, which may be in other namespaces.
    """

    title: str
    least: int = 0
    priority: int = 0
    right: bool = True
    gives_way: int = 0
    has_places: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        key: what it is about, however the table is sorted.
        cells: one for each column.
        mark: one character before it: "!" for what goes wrong.
        style: how it looks. alarming: numbers of the cells that go wrong now.
        opens: what the user gets who opens it, None for nothing.
    """

    key: Hashable
    cells: tuple[str | Trend, ...]
    mark: str = " "
    style: Style = Style.PLAIN
    alarming: frozenset[int] = frozenset()
    opens: object | None = None


@dataclass(frozen=True, slots=True)
class Widths:
    """How a table is laid out: the columns that are shown, by number, and how wide each is."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]


def lay_out(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Widths:
    """Return which columns a table shows, and how wide they are.

    Args:
        columns: the columns. rows: all rows, also those that are scrolled away.
        width: how wide the table is to be.
    """
    needed = [_needed(at, column, rows) for at, column in enumerate(columns)]
    narrow = [
        min(each, column.gives_way) if column.gives_way else each
        for each, column in zip(needed, columns, strict=True)
    ]
    shown = list(range(len(columns)))
    while _total([narrow[at] for at in shown]) > width:
        last = max(shown, key=lambda at: (columns[at].priority, at))
        if columns[last].priority == 0:
            break
        shown.remove(last)
    widths = [needed[at] for at in shown]
    spare = width - _total(widths)
    while spare < 0:
        wide = [
            place
            for place, at in enumerate(shown)
            if 0 < min(columns[at].gives_way, _TEXT_LEAST) < widths[place]
        ]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
        spare += 1
    for place, at in enumerate(shown):
        if spare > 0 and any(isinstance(row.cells[at], Trend) for row in rows):
            widths[place] = min(widths[place] + spare, _SPARK_MOST)
    return Widths(tuple(shown), tuple(widths))


def _needed(at: int, column: Column, rows: Sequence[Row]) -> int:
    least = max(column.least, width_of(column.title))
    for row in rows:
        cell = row.cells[at]
        least = max(least, _SPARK_LEAST if isinstance(cell, Trend) else width_of(cell))
    return least


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def heading(columns: Sequence[Column], widths: Widths, glyphs: Glyphs) -> tuple[Span, ...]:
    """Return the line above a table."""
    parts = [
        fitted(columns[at].title, width, glyphs, right=columns[at].right)
        for at, width in zip(widths.columns, widths.widths, strict=True)
    ]
    return (Span(_GAP.join(parts), Style.HEADING),)


def cells(row: Row, columns: Sequence[Column], widths: Widths, glyphs: Glyphs) -> tuple[Span, ...]:
    """Return a row as the table is laid out."""
    spans: list[Span] = []
    for at, width in zip(widths.columns, widths.widths, strict=True):
        cell = row.cells[at]
        text = spark(cell.values(width), glyphs) if isinstance(cell, Trend) else cell
        if spans:
            spans.append(Span(_GAP, row.style))
        style = Style.ALARM if at in row.alarming else row.style
        column = columns[at]
        if column.has_places:
            text = shortened(text, width, glyphs)
        spans.append(Span(fitted(text, width, glyphs, right=column.right), style))
    return tuple(spans)
