# SPDX-License-Identifier: Apache-2.0
"""What the screen shows, without a terminal: a line for each interface, program and error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdpkit.cli.render import counted, printable
from xdpkit.cli.screen.board import Board
from xdpkit.cli.screen.figures import ACTIONS, Figures
from xdpkit.cli.screen.text import UNICODE, short
from xdpkit.monitor.rates import Series
from xdpkit.monitor.samples import RETURNED


def lines(board: Board, clock: str) -> Iterator[str]:
    """Yield a round as lines that each make sense alone.

    Args:
        board: the numbers. clock: what each line begins with.
    """
    figures = Figures(board)
    for place in board.places:
        parts = [
            *_part(board, "packets", figures.packets(place), always=True),
            *(
                part
                for action in ACTIONS
                for part in _part(board, action, figures.action(place, action))
            ),
            *_part(board, "errors", figures.errors(place)),
        ]
        yield f"{clock}  {printable(place.title)}: {', '.join(parts)}"
        report = figures.report(place)
        for name in dict.fromkeys(each.name for each in report.programs) if report else ():
            found = {
                action: Series(RETURNED.name, (*place, None, name, action))
                for action in (None, *ACTIONS)
            }
            parts = [
                part
                for action, series in found.items()
                for part in _part(board, action or "packets", [series], always=action is None)
            ]
            yield f"{clock}  {printable(place.title)}, {printable(name)}: {', '.join(parts)}"
    for trouble in board.troubles:
        count = _count(board, counted(trouble.packets, trouble.unit), [trouble.series])
        yield f"{clock}  ! {printable(trouble.title)}: {printable(trouble.what)}: {count}"


def _part(
    board: Board, name: str, series: Sequence[Series], *, always: bool = False
) -> Iterator[str]:
    """Yield one number with its name, if there is any."""
    total = board.total(*series)
    if total:
        yield _count(board, f"{name} {total:,}", series)
    elif always:
        yield f"{name} {0 if total == 0 else 'not known'}"


def _count(board: Board, text: str, series: Sequence[Series]) -> str:
    speed = board.speed(*series)
    return text if speed is None else f"{text} ({short(speed, UNICODE)}/s)"
