# SPDX-License-Identifier: Apache-2.0
"""A page, laid out for a terminal of some size: as many lines as it has, none of them too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from xdpkit.cli.duration import format_duration
from xdpkit.cli.screen.pages import Content, Paragraph
from xdpkit.cli.screen.rows import NOW, Pane
from xdpkit.cli.screen.state import State, selected
from xdpkit.cli.screen.tables import cells, heading, lay_out
from xdpkit.cli.screen.text import Glyphs, Line, Span, Style, cut, width_of, wrapped

if TYPE_CHECKING:
    from xdpkit.cli.screen.board import Board

_SECOND = 10**9
_LEAST_WIDTH, _LEAST_HEIGHT = 40, 8
_MARGIN = 3  # before each row: whether it is selected, its mark, a blank
_ABOVE, _BELOW = 2, 1  # lines of the head and of the foot
_LEAST_PANE = 2  # lines: what the columns are, and one row

_HELP = """\
Arrows or j k      move; page keys, Home and End, too; Tab: to the next table
Enter              open: an interface, a program, a queue, an error
Backspace          back
s                  sort by packets or errors of the last minute, or by name
t                  totals instead of packets a second
p                  pause: the numbers stand still; counting goes on
q                  quit

{now} goes wrong now, or did in the last minute; {past} went wrong before; {dash} not known.
"last 60 s" is a chart of the last minute, the newest on the right; its highest
bar is the highest rate of that row.

Packets are as programs returned them (xdpkit counters enable IFACE), or as the
driver counts them. "failing" is what a program returned: aborted or invalid.
Errors are what went wrong then, by the kernel's own account: its tracepoints
(xdpkit monitor install).
"""


class Size(NamedTuple):
    """How big a terminal is, in characters."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to say about the time.

    Attributes:
        clock: what the clock on the wall shows.
        boottime: nanoseconds of CLOCK_BOOTTIME.
        interval: seconds between two rounds.
        problem: why the last round did not come about; "" if it did.
    """

    clock: str
    boottime: int
    interval: float
    problem: str = ""


def frame(
    content: Content, board: Board, state: State, moment: Moment, size: Size, glyphs: Glyphs
) -> tuple[Line, ...]:
    """Return the lines of the whole screen.

    Args:
        content: the page that is shown. board: the numbers. state: what the user looks at.
        moment: the time.
        size: how big the terminal is; there are as many lines as it has.
        glyphs: the characters that it can show.
    """
    if size.width < _LEAST_WIDTH or size.height < _LEAST_HEIGHT:
        said = f"too small: needs {_LEAST_WIDTH} x {_LEAST_HEIGHT}; q quits"
        return _filled([_line(said, size.width, glyphs, Style.ALARM)], size.height)
    room = size.height - _ABOVE - _BELOW
    if state.is_helping:
        body = list(_help(size.width, glyphs))
    else:
        body = list(_body(content, state, size.width, room, glyphs))
    return (
        _head(content, state, moment, size.width, glyphs),
        _status(board, state, moment, size.width, glyphs),
        *_filled(body[:room], room),
        _foot(state, moment, size.width, glyphs),
    )


def page_step(size: Size) -> int:
    """Return how many rows a page key moves by."""
    return max((size.height - _ABOVE - _BELOW) // 2, 1)


def _filled(lines: Sequence[Line], height: int) -> tuple[Line, ...]:
    return (*lines, *(Line() for _ in range(height - len(lines))))[:height]


def _line(text: str, width: int, glyphs: Glyphs, style: Style = Style.PLAIN) -> Line:
    return Line(cut([Span(glyphs.clean(text), style)], width, glyphs))


def _opposed(left: Sequence[Span], right: Sequence[Span], width: int, glyphs: Glyphs) -> Line:
    """Return a line with something at both ends; what is on the left matters less."""
    needed = sum(width_of(span.text) for span in right)
    kept = cut(left, max(width - needed - 2, 0), glyphs)
    used = sum(width_of(span.text) for span in kept)
    return Line(cut((*kept, Span(" " * (width - used - needed)), *right), width, glyphs))


def _head(content: Content, state: State, moment: Moment, width: int, glyphs: Glyphs) -> Line:
    path = " > ".join(("xdpkit monitor", *content.path))
    right = [Span(f"{moment.clock}  every {moment.interval:g} s")]
    if state.is_paused:
        right.insert(0, Span("PAUSED  ", Style.ALARM))
    return _opposed([Span(glyphs.clean(path), Style.STRONG)], right, width, glyphs)


def _status(board: Board, state: State, moment: Moment, width: int, glyphs: Glyphs) -> Line:
    installed, unread = board.snapshot.installed, board.snapshot.unread
    if unread is not None:
        left = [Span(glyphs.clean(f"errors cannot be read: {unread}"), Style.ALARM)]
    elif installed is None:
        left = [Span("errors are not counted: xdpkit monitor install", Style.ALARM)]
    else:
        ago = format_duration(max(moment.boottime - installed.since, 0) / _SECOND)
        left = [Span(f"counting errors for {ago}", Style.FAINT)]
    growing = sum(board.is_growing(each.series) for each in board.troubles)
    if growing:
        kinds = "1 kind" if growing == 1 else f"{growing} kinds"
        left.append(Span(f"  {NOW} {kinds} now", Style.ALARM))
    shown = "totals" if state.shows_totals else "rates"
    right = [Span(f"{shown}, by {_SORTS[state.sort.value]}", Style.FAINT)]
    return _opposed(left, right, width, glyphs)


_SORTS = {"busiest": "packets", "errors": "errors", "name": "name"}


def _foot(state: State, moment: Moment, width: int, glyphs: Glyphs) -> Line:
    if moment.problem:
        return _line(f"{NOW} {moment.problem}", width, glyphs, Style.ALARM)
    if state.is_helping:
        return _line("any key: back   q quit", width, glyphs, Style.FAINT)
    back = "backspace back  " if state.pages[1:] else ""
    keys = f"q quit  j/k move  enter open  {back}s sort  t totals  p pause  ? help"
    return _line(keys, width, glyphs, Style.FAINT)


def _help(width: int, glyphs: Glyphs) -> Iterator[Line]:
    past = "." if glyphs.is_ascii else "·"
    yield Line()
    for text in _HELP.format(now=NOW, past=past, dash=glyphs.dash).splitlines():
        yield _line(text, width, glyphs)


def _body(
    content: Content, state: State, width: int, height: int, glyphs: Glyphs
) -> Iterator[Line]:
    text = [line for each in content.text for line in _paragraph(each, width, glyphs)]
    panes: Sequence[Pane] = content.panes
    if text:
        # Tables in which something can be selected are not to be crowded out; charts may be.
        room = height - 1 - _LEAST_PANE if panes else height
        if len(text) > room and not content.rows:
            panes, room = (), height
        text = _readable(text, room, width, glyphs)
        yield from (*text, Line())
        height -= len(text) + 1
    at = selected(state.page, content.rows)
    panes, at = _in_reach(panes, at, height)
    heights, is_loose = _shares(panes, height)
    for number, (pane, share) in enumerate(zip(panes, heights, strict=True)):
        if number and is_loose:
            yield Line()
        chosen = at if 0 <= at < len(pane.rows) and not pane.is_still else None
        yield from _pane(pane, chosen, width, share, glyphs)
        at -= 0 if pane.is_still else len(pane.rows)


def _readable(text: list[Line], room: int, width: int, glyphs: Glyphs) -> list[Line]:
    """Return a text in so many lines: without its empty ones where it must be, then cut."""
    if len(text) > room:
        text = [line for line in text if line.text]
    if len(text) > room:
        more = f"{glyphs.ellipsis} {len(text) - room + 1} more lines, for a larger terminal"
        text = [*text[: room - 1], _line(more, width, glyphs, Style.FAINT)]
    return text


def _paragraph(paragraph: Paragraph, width: int, glyphs: Glyphs) -> Iterator[Line]:
    for text in wrapped(glyphs.clean(paragraph.text), width) if paragraph.text else [""]:
        yield _line(text, width, glyphs, paragraph.style)


def _needed(pane: Pane) -> int:
    return 1 + max(len(pane.rows), 1 if pane.empty else 0)


def _in_reach(panes: Sequence[Pane], at: int, height: int) -> tuple[list[Pane], int]:
    """Return as many panes as there is room for, that with the selected row among them.

    Returns the number of the selected row in these, too.
    """
    shown = list(panes)
    most = max(height // _LEAST_PANE, 1)
    while len(shown) > most and at >= sum(len(pane.rows) for pane in shown[:most]):
        at -= len(shown[0].rows)
        del shown[0]
    return shown[:most], at


def _shares(panes: Sequence[Pane], height: int) -> tuple[list[int], bool]:
    """Return how many lines each pane gets, and whether there are empty lines between them.

    Where there is not enough for all, the small ones get what they need, and the others the same.
    """
    needed = [_needed(pane) for pane in panes]
    gaps = max(len(panes) - 1, 0)
    if sum(needed) + gaps <= height:
        return needed, True
    is_loose = height - gaps >= 4 * len(panes)
    left = height - gaps if is_loose else height
    shares = [0] * len(panes)
    order = sorted(range(len(panes)), key=needed.__getitem__)
    for done, number in enumerate(order):
        shares[number] = min(needed[number], left // (len(order) - done))
        left -= shares[number]
    return shares, is_loose


def _pane(
    pane: Pane, chosen: int | None, width: int, height: int, glyphs: Glyphs
) -> Iterator[Line]:
    if not pane.rows:
        first = pane.columns[0]
        title = Span(f"{' ' * _MARGIN}{first.title}", Style.HEADING)
        yield Line(cut([title], width, glyphs))
        yield _line(f"{' ' * _MARGIN}{pane.empty}", width, glyphs, pane.empty_style)
        return
    room = height - 1
    first_row = 0
    columns = list(pane.columns)
    if len(pane.rows) > room:
        first_row = min(max((chosen or 0) - room // 2, 0), len(pane.rows) - room)
        shown = f"{first_row + 1}-{first_row + room}/{len(pane.rows)}"
        both = f"{columns[0].title} {shown}"
        # What the rows are can be seen; how many there are cannot.
        has_room = width_of(both) <= lay_out(columns, pane.rows, width - _MARGIN).widths[0]
        columns[0] = replace(columns[0], title=both if has_room else shown)
    widths = lay_out(columns, pane.rows, width - _MARGIN)
    margin = Span(" " * _MARGIN, Style.HEADING)
    yield Line(cut((margin, *heading(columns, widths, glyphs)), width, glyphs))
    for number, row in enumerate(pane.rows[first_row : first_row + room], first_row):
        is_selected = number == chosen
        style = Style.ALARM if row.mark == NOW else row.style
        before = Span(f"{'>' if is_selected else ' '}{row.mark} ", style)
        spans = before, *cells(row, columns, widths, glyphs)
        yield Line(cut(spans, width, glyphs), is_selected)
