# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit monitor show`` prints where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.cli.snapshots import board, failing, normal, nothing_installed, strange
from xdpkit.cli.screen.board import Board
from xdpkit.cli.screen.lines import lines

Golden = Callable[[str, str], None]
CLOCK = "14:02:33"


def test_rounds_are_lines_that_make_sense_alone(golden: Golden) -> None:
    boards = [Board.of(normal(20)), *map(board, (normal, failing, nothing_installed, strange))]
    golden("screen-lines.txt", "\n".join("\n".join(lines(each, CLOCK)) + "\n" for each in boards))


def test_names_cannot_harm_the_terminal() -> None:
    assert all(line.isprintable() for line in lines(board(strange), CLOCK))
