# SPDX-License-Identifier: Apache-2.0
"""Rows and tables that pages consist of, from the numbers of a board."""

from __future__ import annotations

import enum
import functools
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpkit.cli.duration import format_duration
from xdpkit.cli.screen.board import PACKETS, Board, Place
from xdpkit.cli.screen.figures import ACTIONS, ERRORS, Figures
from xdpkit.cli.screen.state import Kind, Page, Sort, State
from xdpkit.cli.screen.tables import Column, Row, Trend
from xdpkit.cli.screen.text import Glyphs, Style, short
from xdpkit.cli.screen.troubles import DRIVER_ERRORS, Trouble
from xdpkit.monitor.rates import Series
from xdpkit.monitor.samples import (
    CPUMAP_DROPS,
    CPUMAP_FRAMES,
    DRIVER,
    NO_PROGRAM,
    RETURNED,
    RETURNED_BYTES,
    TRANSMIT_DROPS,
    TRANSMITTED,
)

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport

_BITS = 8  # of a byte
_NUMBER = 6  # columns of a rate
_NAME, _WORDS = 12, 30  # columns that names and words are left at least

TREND = "last 60 s"
"""Title of columns with the last minute."""

NOW, PAST = "!", "·"
"""Marks of what goes wrong now, and of what went wrong before the last minute."""


class _Priority(enum.IntEnum):
    """Which columns are left out first where there is no room: the higher ones."""

    SUM = 2
    ACTION = 3
    TREND = 4
    TOTAL = 5
    BITS = 6
    DETAIL = 7
    WORDS = 8


@dataclass(frozen=True, slots=True)
class Pane:
    """A table of a page.

    Attributes:
        columns: its columns, the first one names what the rows are.
        rows: its rows.
        empty: what is said instead where there are none; "": the pane is left out.
        empty_style: how that looks.
        is_still: whether there is nothing to be selected in it.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    empty: str = ""
    empty_style: Style = Style.FAINT
    is_still: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Makes rows and tables.

    Attributes:
        board: the numbers. state: what the user looks at.
        glyphs: the characters that the terminal can show.
        netns: the namespace that was asked for, for commands that are told.
    """

    board: Board
    state: State
    glyphs: Glyphs
    netns: str | None

    @property
    def figures(self) -> Figures:
        """Which counters tell what."""
        return Figures(self.board)

    def interfaces(self) -> Pane:
        """Return the table of all interfaces."""
        first, *columns = self.columns("interface", errors="errors")
        told_by = Column("told by", priority=_Priority.WORDS, right=False)
        rows = self.in_order(self._interface(place) for place in self.board.places)
        rows.sort(key=lambda row: isinstance(row.key, Place) and bool(row.key.netns))
        empty = "no interface has an XDP program or statistics about XDP"
        columns = [replace(first, has_places=True), *columns, told_by]
        return Pane(tuple(columns), tuple(rows), empty)

    def cpumaps(self) -> Pane:
        """Return the table of entries of cpumaps."""
        columns = (
            Column("cpumap", right=False, gives_way=_NAME),
            Column("cpu"),
            Column(self._title("frames"), _NUMBER),
            Column(self._title("drops"), _NUMBER),
            Column(TREND, priority=_Priority.TREND, right=False),
        )
        found = sorted(each for each in self.board.totals if each.metric == CPUMAP_FRAMES.name)
        return Pane(columns, tuple(self._cpumap(each) for each in found))

    def _interface(self, place: Place) -> Row:
        """Return the row of an interface."""
        board = self.board
        counted = self.figures.report(place) is not None
        is_installed = self.figures.is_installed
        packets = self.figures.packets(place)
        errors = self.figures.errors(place)
        growing = board.is_growing(*errors)
        # Without the tracepoints, that nothing went wrong is not known.
        is_known = is_installed or bool(board.total(*errors))
        sums = [self.figures.action(place, action) for action in ACTIONS]
        cells: list[str | Trend] = [
            place.title,
            self._figure(*packets, counted=counted),
            *(self._figure(*each, counted=counted) for each in sums[:4]),
            self._figure(*errors, counted=True) if is_known else self.glyphs.dash,
            self.trend(*packets),
            *(self._figure(*each, counted=counted) for each in sums[4:]),
            self._bits(self.figures.bytes(place)),
            self._exact(*packets, counted=counted),
            self._exact(*errors, counted=True) if is_known else self.glyphs.dash,
            "programs" if counted else "driver",
        ]
        return Row(
            place,
            self._clean(cells),
            self._mark_of(errors),
            alarming=frozenset({0, 6} if growing else ()),
            opens=Page(Kind.INTERFACE, place),
        )

    def programs(self, place: Place, report: CounterReport | None) -> Iterator[Row]:
        """Yield the rows of an interface's programs."""
        if report is None:
            return
        for name in dict.fromkeys(program.name for program in report.programs):
            labels = (*place, None, name)
            series = Series(RETURNED.name, (*labels, None))
            yield self.returned(name, labels, series, Page(Kind.PROGRAM, series))
        unserved = Series(NO_PROGRAM.name, (*place, None))
        if unserved in self.board.totals:
            yield self.unserved(unserved)

    def queues(self, place: Place) -> Iterator[Row]:
        """Yield the rows of an interface's RX queues."""
        found = {
            series.labels[2]
            for series in self.board.totals
            if series.metric == PACKETS and series.labels[:2] == place and series.labels[2]
        }
        for queue in sorted(found, key=number_of):
            labels = (*place, queue, None)
            series = Series(PACKETS, labels[:3])
            returned = Series(RETURNED.name, (*labels, None))
            yield self.returned(str(queue), labels, series, Page(Kind.QUEUE, returned))

    def returned(
        self,
        name: str,
        labels: Sequence[str | None],
        packets: Series,
        opens: Page | None = None,
    ) -> Row:
        """Return a row of what was returned by a program, in a queue, or both."""
        each = [Series(RETURNED.name, (*labels, action)) for action in ACTIONS]
        errors = each[4:]
        growing = self.board.is_growing(*errors)
        cells: list[str | Trend] = [
            name,
            self._figure(packets, counted=True),
            *(self._figure(series, counted=True) for series in each[:4]),
            self._figure(*errors, counted=True),
            self.trend(packets),
            *(self._figure(series, counted=True) for series in errors),
            self._bits(Series(RETURNED_BYTES.name, (*labels, None))),
            self._exact(packets, counted=True),
            self._exact(*errors, counted=True),
        ]
        return Row(
            (name, packets),
            self._clean(cells),
            self._mark_of(errors),
            alarming=frozenset({0, 6} if growing else ()),
            opens=opens,
        )

    def unserved(self, series: Series) -> Row:
        """Return the row of packets for which there was no program."""
        dash = self.glyphs.dash
        cells: list[str | Trend] = [
            "no program",
            self._figure(series),
            *[dash] * 5,
            self.trend(series),
            *[dash] * 3,
            self._exact(series),
            dash,
        ]
        return Row(("no program", series), tuple(cells), style=Style.FAINT)

    def actions(self, title: str, labels: Sequence[str | None]) -> Pane:
        """Return a table of what was returned.

        Args:
            title: of its first column.
            labels: where, in which queue, and by which program; None: all of them.
        """
        board = self.board
        whole = Series(RETURNED.name, (*labels, None))
        total = board.total(whole)
        rows = []
        for action in ACTIONS:
            series = Series(RETURNED.name, (*labels, action))
            packets = board.total(series)
            if not packets:
                continue
            share = f"{100 * packets / total:.1f} %" if total else self.glyphs.dash
            is_error = action in ERRORS
            cells = action, self.short(board.speed(series)), f"{packets:,}", share
            alarming = is_error and board.is_growing(series)
            rows.append(
                Row(
                    series,
                    (*cells, self.trend(series)),
                    self._mark_of([series]) if is_error else " ",
                    alarming=frozenset({0, 1} if alarming else ()),
                )
            )
        columns = (
            Column(title, _NAME, right=False, gives_way=_NAME),
            Column("per s", _NUMBER),
            Column("total", 12, _Priority.SUM),
            Column("share", 7, _Priority.ACTION),
            Column(TREND, priority=_Priority.TREND, right=False),
        )
        return Pane(columns, tuple(rows))

    def troubles(self, found: Sequence[Trouble], *, everywhere: bool) -> Pane:
        """Return a table of errors, those of now first; ``everywhere``: it says where each was."""
        order = sorted(
            found, key=lambda each: (not self.is_now(each), -self.board.lately(each.series))
        )
        rows = []
        for each in order:
            cells: list[str | Trend] = [
                *([each.title] if everywhere else []),
                each.what,
                self.short(self.board.speed(each.series)),
                f"{each.packets:,}",
                self.trend(each.series),
                ago(each.last_seen),
            ]
            style = Style.ALARM if self.is_now(each) else Style.PAST
            opens = Page(Kind.TROUBLE, each.series)
            rows.append(Row(each.series, self._clean(cells), self._mark(each), style, opens=opens))
        columns = [
            Column("what" if everywhere else "errors", right=False, gives_way=_WORDS),
            Column("per s", _NUMBER),
            Column("total", 9, _Priority.SUM),
            Column(TREND, priority=_Priority.TREND, right=False),
            Column("last", 10, priority=_Priority.TOTAL, right=False),
        ]
        if everywhere:
            columns.insert(0, Column("errors on", right=False, gives_way=_NAME, has_places=True))
        if self.figures.is_installed:
            return Pane(tuple(columns), tuple(rows), "no errors", Style.GOOD)
        hint = f"{NOW} errors are not counted; to count them: xdpkit monitor install"
        unread = self.board.snapshot.unread
        if unread is not None:
            hint = self.glyphs.clean(f"{NOW} errors cannot be read: {unread}")
        return Pane(tuple(columns), tuple(rows), hint, Style.ALARM)

    def driver(self, place: Place, queue: str | None = None) -> Pane:
        """Return a table of what a driver says, of one RX queue or of all together."""
        from xdpkit.monitor.drivers import EVENTS

        board = self.board
        found = sorted(
            series
            for series in board.totals
            if series.metric == DRIVER.name
            and series.labels[:4] == (*place, queue, None)
            and not (queue is not None and str(series.labels[4]).startswith("xmit"))
        )
        drivers = [
            each
            for each in board.snapshot.drivers
            if (each.where.netns, each.where.interface) == place
        ]
        included = {
            count.event: f"Has {', '.join(count.includes)} in it."
            for each in drivers
            for count in each.counts
            if count.includes
        }
        rows = []
        for series in found:
            event = str(series.labels[4])
            is_error = event in DRIVER_ERRORS
            alarming = is_error and board.is_growing(series)
            cells: list[str | Trend] = [
                event,
                self.short(board.speed(series)),
                f"{board.totals[series]:,}",
                self.trend(series),
                " ".join(filter(None, (EVENTS.get(event, ""), included.get(event)))),
            ]
            mark = self._mark_of([series]) if is_error else " "
            shown = frozenset({0, 1} if alarming else ())
            rows.append(Row(series, self._clean(cells), mark, alarming=shown))
        columns = (
            Column(
                f"driver {self.glyphs.clean(', '.join(each.driver for each in drivers))}",
                right=False,
            ),
            Column("per s", _NUMBER),
            Column("total", 12, _Priority.SUM),
            Column(TREND, priority=_Priority.TREND, right=False),
            Column("what it counts", priority=_Priority.WORDS, right=False),
        )
        return Pane(columns, tuple(rows))

    def transmission(self, place: Place) -> Pane:
        """Return the table of frames that an interface was to transmit."""
        columns = (
            Column("transmission", right=False, gives_way=_NAME),
            Column(self._title("frames"), _NUMBER),
            Column(self._title("not sent"), _NUMBER),
            Column(TREND, priority=_Priority.TREND, right=False),
        )
        return Pane(columns, tuple(self._transmits(place)))

    def _transmits(self, place: Place) -> Iterator[Row]:
        """Yield rows of frames that an interface was to transmit, by where they came from."""
        for series in sorted(self.board.totals, key=str):
            source = series.labels[-1] if series.labels else None
            if series.metric != TRANSMITTED.name or source is None or series.labels[:2] != place:
                continue
            drops = Series(TRANSMIT_DROPS.name, series.labels)
            alarming = self.board.is_growing(drops)
            cells: list[str | Trend] = [
                f"from {source}" if source else "sent back",
                self._figure(series),
                self._figure(drops),
                self.trend(series),
            ]
            yield Row(
                series,
                self._clean(cells),
                self._mark_of([drops]),
                alarming=frozenset({0, 2} if alarming else ()),
            )

    def _cpumap(self, series: Series) -> Row:
        """Return the row of a cpumap's entry."""
        drops = [
            Series(CPUMAP_DROPS.name, (*series.labels, reason))
            for reason in ("queue_full", "no_memory")
        ]
        alarming = self.board.is_growing(*drops)
        name, cpu = series.labels
        cells: list[str | Trend] = [
            name or "?",
            cpu or "",
            self._figure(series),
            self._figure(*drops),
            self.trend(series),
        ]
        return Row(
            series,
            self._clean(cells),
            self._mark_of(drops),
            alarming=frozenset({0, 3} if alarming else ()),
        )

    def notes(self, notes: Iterable[str]) -> Pane:
        """Return a table of sentences."""
        rows = tuple(
            Row(note, self._clean([note]), style=Style.FAINT, opens=Page(Kind.NOTE, note))
            for note in notes
        )
        return Pane((Column("notes", right=False, gives_way=1),), rows)

    def columns(self, title: str, errors: str = "failing") -> tuple[Column, ...]:
        """Return the columns of tables of packets by action.

        Args:
            title: what the rows are.
            errors: what errors are called: what a program returned is not what happened then.
        """
        columns = [
            Column(title, _NAME, right=False, gives_way=_NAME),
            Column(self._title("packets"), _NUMBER),
            *(Column(action, _NUMBER, _Priority.ACTION) for action in ACTIONS[:4]),
            Column(errors, _NUMBER),
            Column(TREND, priority=_Priority.TREND, right=False),
            *(Column(action, _NUMBER, _Priority.DETAIL) for action in ACTIONS[4:]),
            Column("bit/s", _NUMBER, _Priority.BITS),
            Column("packets total", 13, _Priority.TOTAL),
            Column(f"{errors} total", 12, _Priority.TOTAL),
        ]
        return tuple(columns)

    def _title(self, what: str) -> str:
        return what if self.state.shows_totals else f"{what}/s"

    def in_order(self, rows: Iterable[Row]) -> list[Row]:
        """Return rows in the order that the user wants; names decide between equals."""
        found = sorted(rows, key=lambda row: str(row.cells[0]))
        if self.state.sort is Sort.NAME:
            return found
        if self.state.sort is Sort.ERRORS:
            found.sort(key=lambda row: -self._weight(row, errors=True))
            return found
        found.sort(key=lambda row: -self._weight(row, errors=False))
        return found

    def _weight(self, row: Row, *, errors: bool) -> float:
        """Return how much there was in the last minute; in all, until that is known."""
        series = self._weighed(row.key, errors=errors)
        if self.board.history.rounds:
            return self.board.lately(*series)
        return float(self.board.total(*series) or 0)

    def _weighed(self, key: object, *, errors: bool) -> tuple[Series, ...]:
        match key:
            case Place() as place:
                return self.figures.errors(place) if errors else self.figures.packets(place)
            case (str(), Series() as packets) if errors and packets.metric == RETURNED.name:
                return tuple(
                    Series(packets.metric, (*packets.labels[:4], action)) for action in ERRORS
                )
            case (str(), Series() as packets) if not errors:
                return (packets,)
        return ()

    def attached(self, place: Place) -> bool:
        """Whether an interface has a program."""
        return any(
            (each.where.netns, each.where.interface) == place
            for each in self.board.snapshot.attached
        )

    def command(self, verb: str, place: Place) -> str:
        """Return a command of xdpkit's for an interface."""
        netns = place.netns or self.netns
        words = ["xdpkit", *verb.split(), *(["-n", netns] if netns else [])]
        return shlex.join(
            [*words, *(["--"] if place.interface.startswith("-") else []), place.interface]
        )

    def _figure(self, *series: Series, counted: bool = False) -> str:
        """Return a number for a table: how many a second, or how many in all.

        Args:
            series: what is summed up.
            counted: what has no counter yet has not happened yet.
        """
        board = self.board
        if self.state.shows_totals:
            total = board.total(*series)
            return self.short(0 if total is None and counted else total)
        if counted and board.total(*series) is None and board.history.rounds:
            return "0"
        return self.short(board.speed(*series))

    def _exact(self, *series: Series, counted: bool = False) -> str:
        total = self.board.total(*series)
        if total is None:
            return "0" if counted else self.glyphs.dash
        return f"{total:,}"

    def _bits(self, length: Series) -> str:
        speed = self.board.speed(length)
        return self.short(None if speed is None else speed * _BITS)

    def short(self, number: float | None) -> str:
        """Return a number in few characters."""
        return short(number, self.glyphs)

    def trend(self, *series: Series) -> Trend:
        """Return the last minute of series together."""
        return Trend(functools.partial(_values, self.board, series))

    def is_now(self, trouble: Trouble) -> bool:
        """Whether a trouble was there in the last minute."""
        return trouble.is_recent or self.board.is_growing(trouble.series)

    def _mark(self, trouble: Trouble) -> str:
        """Return the mark of a trouble."""
        return NOW if self.is_now(trouble) else self._past()

    def _mark_of(self, errors: Sequence[Series]) -> str:
        if self.board.is_growing(*errors):
            return NOW
        return self._past() if self.board.total(*errors) else " "

    def _past(self) -> str:
        return "." if self.glyphs.is_ascii else PAST

    def _clean(self, cells: Iterable[str | Trend]) -> tuple[str | Trend, ...]:
        return tuple(cell if isinstance(cell, Trend) else self.glyphs.clean(cell) for cell in cells)


def _values(board: Board, series: Sequence[Series], slots: int) -> tuple[float | None, ...]:
    return board.trend(slots, *series)


def ago(seconds: float | None) -> str:
    """Return when something was, "" if that is not known."""
    if seconds is None:
        return ""
    return f"{format_duration(seconds)} ago" if seconds >= 1 else "now"


def number_of(queue: str | None) -> tuple[int, str]:
    """Return what sorts queues by their number."""
    return (int(queue), "") if queue and queue.isdecimal() else (-1, queue or "")
