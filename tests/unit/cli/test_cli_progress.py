# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import subprocess
import sys

import pytest

from xdpkit.cli import progress
from xdpkit.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("total", [0, 100])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("running [red]fw", total=total) as bar:
        for _ in range(100):
            bar.advance(1)
    assert "running [red]fw" in terminal.getvalue()


@pytest.mark.usefixtures("impatient")
def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    with Progress("running fw", total=100) as bar:
        bar.advance(100)
    assert file.getvalue() == ""


def test_what_is_quick_needs_no_bar_and_does_not_import_one() -> None:
    code = (
        "import sys; from xdpkit.cli.progress import Progress\n"
        "with Progress('x', total=9) as bar: bar.advance(9)\n"
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
