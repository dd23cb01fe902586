# SPDX-License-Identifier: Apache-2.0
"""The systemd unit of the examples: is it one, and are its commands ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from xdpkit.cli.app import cli

UNIT = Path(__file__).parents[3] / "examples/systemd/xdpkit-attach@.service"
PROGRAM = "/usr/local/bin/xdpkit"


def commands() -> list[list[str]]:
    """Return what the unit runs, with the variables as their meaning."""
    words = {
        "%I": "eth0",
        "${OBJECT}": "fw.o",
        "$OPTIONS": "--force",
        "$ATTACH_OPTIONS": "--netlink",
    }
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("Exec")]
    return [
        [words.get(word, word) for word in line.split("=", 1)[1].removeprefix("-").split()]
        for line in lines
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "xdpkit-attach@eth0.service"
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_runs_commands_that_there_are() -> None:
    assert [command[:2] for command in commands()] == [
        [PROGRAM, verb] for verb in ("attach", "replace", "detach")
    ]
    for _, verb, *arguments in commands():
        context = click.Context(cli)
        command = cli.get_command(context, verb)
        assert command is not None
        # Parses, or raises a usage error.
        command.make_context(verb, arguments, parent=context)
