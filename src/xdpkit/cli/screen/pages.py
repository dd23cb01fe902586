# SPDX-License-Identifier: Apache-2.0
"""What each page consists of: tables with rows that can be opened, or a text to be read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from xdpkit.cli.screen.board import Board, Place
from xdpkit.cli.screen.rows import TREND, Pane, Rows, ago, number_of
from xdpkit.cli.screen.state import Kind, State
from xdpkit.cli.screen.tables import Column, Row
from xdpkit.cli.screen.text import Glyphs, Style
from xdpkit.monitor.rates import Series
from xdpkit.monitor.samples import NO_PROGRAM, RETURNED

_KERNEL_NAME = 15  # BPF_OBJ_NAME_LEN without its zero


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text of a page that is to be read, wrapped to the width."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Content:
    """What a page consists of.

    Attributes:
        path: what it is about, from the whole to the part.
        panes: its tables. text: what is read above them.
    """

    path: tuple[str, ...]
    panes: tuple[Pane, ...] = ()
    text: tuple[Paragraph, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that can be selected, in their order."""
        return tuple(row for pane in self.panes if not pane.is_still for row in pane.rows)

    @property
    def starts(self) -> tuple[int, ...]:
        """The numbers of the first rows of tables, among those that can be selected."""
        lengths = [len(pane.rows) for pane in self.panes if pane.rows and not pane.is_still]
        return tuple(itertools.accumulate(lengths, initial=0))[:-1]


def content(board: Board, state: State, glyphs: Glyphs, *, netns: str | None = None) -> Content:
    """Return what the page that is shown consists of.

    Args:
        board: the numbers. state: what the user looks at.
        glyphs: the characters that the terminal can show.
        netns: the namespace that was asked for, for commands that are told.
    """
    maker = _Maker(Rows(board, state, glyphs, netns))
    subject = state.page.subject
    match state.page.kind:
        case Kind.INTERFACE if isinstance(subject, Place):
            return maker.interface(subject)
        case Kind.PROGRAM if isinstance(subject, Series):
            return maker.program(subject)
        case Kind.QUEUE if isinstance(subject, Series):
            return maker.queue(subject)
        case Kind.TROUBLE if isinstance(subject, Series):
            return maker.trouble(subject)
        case Kind.NOTE:
            return Content(("note",), text=(Paragraph(str(subject)),))
    return maker.overview()


@dataclass(frozen=True, slots=True)
class _Maker:
    rows: Rows

    def overview(self) -> Content:
        board = self.rows.board
        panes = [
            self.rows.interfaces(),
            self.rows.troubles(board.troubles, everywhere=True),
            self.rows.cpumaps(),
            self.rows.notes(board.snapshot.notes),
        ]
        return Content((), tuple(pane for pane in panes if pane.rows or pane.empty))

    def interface(self, place: Place) -> Content:
        board = self.rows.board
        report = self.rows.figures.report(place)
        programs = tuple(self.rows.in_order(self.rows.programs(place, report)))
        queues = tuple(self.rows.queues(place))
        said = "no program"
        if self.rows.attached(place):
            how = f"not counted; to count: {self.rows.command('counters enable', place)}"
            said = how if report is None else "nothing has been counted"
        panes = [
            Pane(self.rows.columns("program"), programs, said),
            self.rows.troubles(
                [each for each in board.troubles if (each.netns, each.interface) == place],
                everywhere=False,
            ),
            Pane(self.rows.columns("queue"), queues),
            self.rows.actions("action", (*place, None, None)),
            self.rows.transmission(place),
            self.rows.driver(place),
            self.rows.notes(report.not_counted if report is not None else ()),
        ]
        return Content((place.title,), tuple(pane for pane in panes if pane.rows or pane.empty))

    def program(self, subject: Series) -> Content:
        netns, interface, _, program, _ = subject.labels
        here = Place(netns or "", interface or "")
        per_queue = sorted(
            (
                series
                for series in self.rows.board.totals
                if series.metric == RETURNED.name
                and series.labels[:2] == here
                and series.labels[2] is not None
                and series.labels[3] == program
                and series.labels[4] is None
            ),
            key=lambda series: number_of(series.labels[2]),
        )
        rows = tuple(
            self.rows.returned(series.labels[2] or "", series.labels[:4], series)
            for series in per_queue
        )
        text = tuple(
            Paragraph(
                f"id {each.program_id}  tag {each.tag}  {each.mode}"
                f"  {f'queue {each.queue}' if each.queue else 'all other queues'}"
                f"  by {each.owner}",
                Style.FAINT,
            )
            for each in self.rows.board.snapshot.attached
            if (each.where.netns, each.where.interface) == here
            # Where it is not known in full, the kernel knows the beginning of a name.
            and each.program in (program, (program or "")[:_KERNEL_NAME])
        )
        panes = (
            self.rows.actions("action", subject.labels[:4]),
            Pane(self.rows.columns("queue"), rows),
        )
        return Content(
            (here.title, program or ""), tuple(each for each in panes if each.rows), text
        )

    def queue(self, subject: Series) -> Content:
        netns, interface, queue = subject.labels[:3]
        here = Place(netns or "", interface or "")
        found = sorted(
            series
            for series in self.rows.board.totals
            if series.metric == RETURNED.name
            and series.labels[:3] == (*here, queue)
            and series.labels[3] is not None
            and series.labels[4] is None
        )
        rows = [
            self.rows.returned(series.labels[3] or "", series.labels[:4], series)
            for series in found
        ]
        unserved = Series(NO_PROGRAM.name, (*here, queue))
        if unserved in self.rows.board.totals:
            rows.append(self.rows.unserved(unserved))
        panes = [
            self.rows.actions("action", (*here, queue, None)),
            Pane(self.rows.columns("program"), tuple(rows)),
            self.rows.driver(here, queue),
        ]
        path = here.title, f"queue {queue}"
        return Content(path, tuple(pane for pane in panes if pane.rows))

    def trouble(self, subject: Series) -> Content:
        found = next((each for each in self.rows.board.troubles if each.series == subject), None)
        if found is None:
            return Content(("error",), text=(Paragraph("This is not counted any more."),))
        is_now = self.rows.is_now(found)
        text = [
            Paragraph(found.what, Style.ALARM if is_now else Style.STRONG),
            Paragraph(f"on {found.title if found.interface else 'the machine'}", Style.FAINT),
            Paragraph(""),
            Paragraph(f"Cause: {found.cause or 'unknown'}."),
        ]
        if found.remedy is not None:
            text += [Paragraph(""), Paragraph(f"Remedy: {found.remedy}", Style.STRONG)]
        text += [
            Paragraph(""),
            Paragraph(f"{found.unit + 's':<10}{found.packets:,}"),
            Paragraph(f"{'a second':<10}{self.rows.short(self.rows.board.speed(subject))}"),
        ]
        if found.last_seen is not None:
            text.append(Paragraph(f"{'last':<10}{ago(found.last_seen)}"))
        text += [Paragraph(f"{name:<10}{value}") for name, value in found.details]
        row = Row(subject, (self.rows.trend(subject),))
        trend = Pane((Column(TREND, right=False),), (row,), is_still=True)
        return Content((found.title, "error"), (trend,), tuple(text))
