# SPDX-License-Identifier: Apache-2.0
"""The loop of the live screen: rounds, keys, frames."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING

from xdpkit.cli.screen.board import Board
from xdpkit.cli.screen.frame import Moment, frame, page_step
from xdpkit.cli.screen.pages import content
from xdpkit.cli.screen.state import State, press
from xdpkit.cli.screen.terminal import Terminal, glyphs_for
from xdpkit.errors import XdpkitError

if TYPE_CHECKING:
    from xdpkit.monitor.model import Snapshot

# The first rates are there before the user wonders where they are.
_FIRST_S = 0.5


def watch(
    take: Callable[[], Snapshot], interval: float, *, netns: str | None, asked: Collection[str]
) -> None:
    """Show snapshots on the terminal until the user has seen enough.

    Args:
        take: takes a snapshot. Where a later one fails, the screen says why, and goes on.
        interval: seconds between two of them.
        netns: the namespace that was asked for.
        asked: names of the interfaces to show; empty: all that there is something to say about.

    Raises:
        XdpkitError: the first snapshot failed.
        OutputFailed: the terminal takes no more.
    """
    board = Board.of(take(), asked=asked)
    moment, state = _moment(interval), State()
    glyphs = glyphs_for(os.environ, sys.stdout.encoding)
    with Terminal() as terminal:
        due = time.monotonic() + min(interval, _FIRST_S)
        while not state.is_over:
            size = terminal.size
            page = content(board, state, glyphs, netns=netns)
            terminal.show(frame(page, board, state, moment, size, glyphs), size.width)
            events = terminal.wait(due - time.monotonic())
            if events.has_ended:
                return
            for key in events.keys:
                page = content(board, state, glyphs, netns=netns)
                state = press(state, key, page, step=page_step(size))
            if (now := time.monotonic()) < due:
                continue
            # A round that took longer is not made up for.
            due = max(due + interval, now)
            if state.is_paused:
                continue
            try:
                board = board.after(take(), asked=asked)
                moment = _moment(interval)
            except XdpkitError as error:
                moment = _moment(interval, str(error).replace("\n", " "))


def _moment(interval: float, problem: str = "") -> Moment:
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Moment(f"{datetime.now():%H:%M:%S}", boottime, interval, problem)
