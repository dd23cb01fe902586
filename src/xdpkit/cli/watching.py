# SPDX-License-Identifier: Apache-2.0
"""Showing the same thing again and again, until somebody has seen enough."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from xdpkit.cli.render import emit

# ECMA-48: cursor to the beginning of the line that is n up; erase what is below. DEC: wrapping.
_UP, _ERASE, _NO_WRAP, _WRAP = "\x1b[{}F", "\x1b[J", "\x1b[?7l", "\x1b[?7h"


def rounds(seconds: float, count: int | None) -> Iterator[None]:
    """Yield so many times, or for ever, at such a distance, until Ctrl-C or SIGTERM.

    These wait while a round is worked on, so each is finished. Where the process was told to
    ignore one of them, as a shell tells those that it runs in the background, it is ignored. A
    handler that notes it, as the demo's, is called at the end.
    """
    ending = {
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    taken = None
    try:
        due = time.monotonic()
        for number in itertools.count(1):
            yield
            if number == count:
                return
            # A round that took longer is not made up for.
            due = max(due + seconds, now := time.monotonic())
            taken = signal.sigtimedwait(ending, due - now)
            if taken is not None:
                return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if taken is not None:
            handler = signal.getsignal(taken.si_signo)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(taken.si_signo, None)


class Screen:
    """Shows lines in the place of those before; where it is no terminal, behind them."""

    def __init__(self) -> None:
        self._shown = 0
        self._is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines now; those that the terminal has no room for are counted only."""
        if not self._is_terminal:
            emit(["", *lines] if self._shown else lines)
            self._shown = len(lines)
            sys.stdout.flush()
            return
        room = shutil.get_terminal_size().lines - 1
        if len(lines) > room:
            kept = max(room - 1, 0)
            lines = [*lines[:kept], f"… {len(lines) - kept:,} more lines"]
        back = _UP.format(self._shown) if self._shown else ""
        # In one piece, so that nothing flickers, and wrapping does not stay off.
        text = "".join(f"{line}\n" for line in lines)
        sys.stdout.write(f"{back}{_ERASE}{_NO_WRAP}{text}{_WRAP}")
        sys.stdout.flush()
        self._shown = len(lines)
