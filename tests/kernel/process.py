# SPDX-License-Identifier: Apache-2.0
"""The command as a process, as users have it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xdpkit

COMMAND = (sys.executable, "-m", "xdpkit")
SHIPPED = Path(xdpkit.__file__).parent / "_bpf"

# A command that gives up all privilege, and one that runs another one so.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


@dataclass(frozen=True, slots=True)
class Done:
    """What the process printed, and its exit status."""

    status: int
    output: str
    messages: str

    @property
    def json(self) -> Any:
        """The output, as JSON."""
        return json.loads(self.output)


def xdpkit_command(
    *args: object, by: Sequence[str] = (), stdin: bytes = b"", **options: Any
) -> Done:
    """Run ``xdpkit ARGS``, with another command in front if ``by`` names one."""
    done = subprocess.run(
        [*by, *COMMAND, *map(str, args)], capture_output=True, check=False, input=stdin, **options
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def shipped(name: str) -> Path:
    """Return a program that the package carries; skip the test if it was not built."""
    path = SHIPPED / name
    if not path.exists():
        pytest.skip(f"{path} was not built: pip install --editable .")
    return path
