# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from xdpkit.cli.watching import Screen, rounds

LONG_S = 3600


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Restore what Ctrl-C does; a test runner in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_there_are_as_many_rounds_as_asked_for() -> None:
    assert len(list(rounds(0, 3))) == 3


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_rounds_once_this_one_is_finished(number: signal.Signals) -> None:
    finished: list[None] = []
    for each in rounds(LONG_S, None):
        os.kill(os.getpid(), number)
        finished.append(each)
    assert len(finished) == 1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


@pytest.mark.usefixtures("interrupts")
def test_a_signal_that_the_process_ignores_ends_nothing() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    finished: list[None] = []
    for each in rounds(0, 2):
        os.kill(os.getpid(), signal.SIGINT)
        finished.append(each)
    assert len(finished) == 2


@pytest.mark.usefixtures("interrupts")
def test_who_listens_to_a_signal_hears_of_the_one_that_ended_the_rounds() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    for _ in rounds(LONG_S, None):
        os.kill(os.getpid(), signal.SIGINT)
        assert not heard
    assert heard == [signal.SIGINT]


class _Terminal(io.StringIO):
    """Takes what is printed to a terminal."""

    def isatty(self) -> bool:
        return True

    def taken(self) -> str:
        """Return what was printed since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """A terminal of four lines."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 4)))
    monkeypatch.setenv("TERM", "xterm")
    return _Terminal()


def shown_on(terminal: _Terminal, *rounds_: list[str]) -> list[str]:
    """Return what a screen prints in each round."""
    printed = []
    with contextlib.redirect_stdout(terminal):
        screen = Screen()
        for lines in rounds_:
            screen.show(lines)
            printed.append(terminal.taken())
    return printed


def test_a_terminal_shows_each_round_in_the_place_of_the_one_before(terminal: _Terminal) -> None:
    assert shown_on(terminal, ["a", "b"], ["c"], ["d"]) == [
        "\x1b[J\x1b[?7la\nb\n\x1b[?7h",
        "\x1b[2F\x1b[J\x1b[?7lc\n\x1b[?7h",
        "\x1b[1F\x1b[J\x1b[?7ld\n\x1b[?7h",
    ]


def test_what_does_not_fit_the_terminal_is_counted(terminal: _Terminal) -> None:
    first, second = shown_on(terminal, ["1", "2", "3", "4"], ["1"])
    assert "1\n2\n… 2 more lines\n" in first
    assert second.startswith("\x1b[3F")


def test_elsewhere_rounds_follow_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for lines in (["a", "b"], ["c"]):
        screen.show(lines)
    assert capsys.readouterr().out == "a\nb\n\nc\n"


def test_a_terminal_that_knows_no_commands_gets_none(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert shown_on(terminal, ["a"], ["b"]) == ["a\n", "\nb\n"]
