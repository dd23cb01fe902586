# SPDX-License-Identifier: Apache-2.0
"""The terminal: taken for a while, written to a frame at a time, and given back as it was.

It is given back whatever happens in Python: at the end, at an exception, at SIGTERM, SIGHUP and
Ctrl-C, and while the process is stopped (Ctrl-Z). Signals only wake up whoever waits, so nothing is
interrupted half-way.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from xdpkit.cli.screen.frame import Size
from xdpkit.cli.screen.keys import names_of
from xdpkit.cli.screen.text import ASCII, UNICODE, Glyphs, Line, Span, Style, width_of
from xdpkit.cli.streams import OutputFailed

# DEC: alternate screen, cursor, wrapping. ECMA-48: home, erase everything.
_TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_GIVE_BACK = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
# DEC 2026: show what follows in one step; terminals that do not know it ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"

_COLOURED = {
    Style.STRONG: "1",
    Style.HEADING: "36",
    Style.FAINT: "2",
    Style.ALARM: "1;31",
    Style.PAST: "33",
    Style.GOOD: "32",
}
_UNCOLOURED = {Style.STRONG: "1", Style.HEADING: "4", Style.FAINT: "2", Style.ALARM: "1"}

# What a terminal sends for one key comes at once; an escape by itself is the key of that name.
_ESCAPE_S = 0.05
_AT_ONCE = 1024
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCHED = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


def is_interactive() -> bool:
    """Whether there is a terminal that can be taken: one that shows commands, and has keys."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def glyphs_for(environment: Mapping[str, str], encoding: str) -> Glyphs:
    """Return the characters that a terminal can show.

    Python takes a terminal without any locale for one of UTF-8, so the locale is looked at, too.
    The console of Linux (TERM=linux) has few of the block characters in its fonts.
    """
    locale = next(
        (found for name in ("LC_ALL", "LC_CTYPE", "LANG") if (found := environment.get(name))), ""
    )
    said = locale.lower().replace("-", "")
    is_utf8 = "utf8" in said and encoding.lower().replace("-", "") == "utf8"
    return UNICODE if is_utf8 and environment.get("TERM") != "linux" else ASCII


def encoded(lines: Sequence[Line], width: int, *, in_colour: bool) -> str:
    """Return what shows lines on a terminal, in the place of those before.

    Args:
        lines: as many as the terminal has. width: how wide it is.
        in_colour: whether styles may be told by colours, too.
    """
    looks = _COLOURED if in_colour else _UNCOLOURED
    shown = []
    for line in lines:
        blanks = Span(" " * (width - width_of(line.text)))
        text = ""
        for span in (*line.spans, blanks):
            codes = "7" if line.is_selected else "", looks.get(span.style, "")
            code = ";".join(filter(None, codes))
            text += f"\x1b[{code}m{span.text}\x1b[0m" if code else span.text
        shown.append(text)
    # Nothing is erased behind a line: that would be its last column.
    return "".join((_BEGIN, _HOME, "\r\n".join(shown), _END))


@dataclass(frozen=True, slots=True)
class Events:
    """What happened while the terminal was waited for.

    Attributes:
        keys: names of keys that were pressed.
        has_ended: whether the terminal is gone, or a signal said that it is enough.
    """

    keys: tuple[str, ...] = ()
    has_ended: bool = False


class Terminal:
    """The terminal of standard input and output, taken within a ``with`` block."""

    def __init__(self) -> None:
        self._in = sys.stdin.fileno()
        self._out = sys.stdout.fileno()
        self._owned = ExitStack()
        self._wakeup = -1
        self._pending = b""
        self._in_colour = not os.environ.get("NO_COLOR")

    @property
    def size(self) -> Size:
        """How big it is now."""
        try:
            return Size(*os.get_terminal_size(self._out))
        except OSError:
            return Size(*shutil.get_terminal_size())

    def __enter__(self) -> Self:
        sys.stdout.flush()
        with ExitStack() as owned:
            self._wakeup = owned.enter_context(_signals())
            before = termios.tcgetattr(self._in)
            owned.callback(self._give_back, before)
            self._take()
            self._owned = owned.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._owned.close()

    def _take(self) -> None:
        """Have keys one by one, unseen, and with nothing that Ctrl does; and a screen to write."""
        modes: list[Any] = termios.tcgetattr(self._in)
        modes[0] &= ~(termios.IXON | termios.ICRNL)
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSADRAIN, modes)
        self._write(_TAKE)

    def _give_back(self, modes: list[Any]) -> None:
        # A terminal that is gone needs nothing back.
        with contextlib.suppress(OSError, OutputFailed, BrokenPipeError):
            self._write(_GIVE_BACK)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSADRAIN, modes)

    def show(self, lines: Sequence[Line], width: int) -> None:
        """Show lines of this width in the place of those before, in one step.

        Raises:
            OutputFailed: the terminal takes no more.
        """
        self._write(encoded(lines, width, in_colour=self._in_colour))

    def wait(self, seconds: float) -> Events:
        """Wait for keys, for a new size of the terminal, or for so long."""
        ready = self._ready(seconds)
        if self._wakeup in ready:
            numbers = os.read(self._wakeup, _AT_ONCE)
            if any(number in _ENDING for number in numbers):
                return Events(has_ended=True)
            if signal.SIGTSTP in numbers:
                self._stop()
            elif signal.SIGCONT in numbers:
                # Whoever let it go on may have changed the terminal meanwhile.
                self._take()
        if self._in not in ready:
            return Events()
        keys: list[str] = []
        while True:
            data = self._read()
            if not data:
                return Events(tuple(keys), has_ended=True)
            names, self._pending = names_of(self._pending + data, is_all=False)
            keys += names
            if not self._pending:
                break
            if self._in not in self._ready(_ESCAPE_S):
                names, self._pending = names_of(self._pending, is_all=True)
                keys += names
                break
        if "ctrl-z" in keys:
            self._stop()
        return Events(tuple(keys))

    def _ready(self, seconds: float) -> list[int]:
        ready, _, _ = select.select([self._in, self._wakeup], [], [], max(seconds, 0))
        return ready

    def _read(self) -> bytes:
        try:
            return os.read(self._in, _AT_ONCE)
        except OSError:
            # EIO: the terminal is gone.
            return b""

    def _stop(self) -> None:
        """Give the terminal back, and be stopped like any other job until the shell says so."""
        self._owned.close()
        os.kill(0, signal.SIGTSTP)
        self.__enter__()

    def _write(self, text: str) -> None:
        data = text.encode(sys.stdout.encoding, "backslashreplace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed("write to standard output", cause=str(error.strerror)) from None


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Have signals wake up whoever reads the descriptor that is yielded, and do nothing else.

    What the process was told to ignore, as a shell tells those that it runs in the background, is
    ignored.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with ExitStack() as owned:
        owned.callback(os.close, reading)
        owned.callback(os.close, writing)
        owned.callback(
            signal.set_wakeup_fd, signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        )
        for number in _WATCHED:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                signal.signal(number, _nothing)
                owned.callback(signal.signal, number, before)
        yield reading


def _nothing(*_: object) -> None:
    """Let the descriptor tell of a signal."""
