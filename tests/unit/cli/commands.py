# SPDX-License-Identifier: Apache-2.0
"""Runs commands within the test's own process."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

from xdpkit.cli.app import execute


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit status."""

    status: int
    output: str
    messages: str

    @property
    def json(self) -> Any:
        """The output, as JSON."""
        return json.loads(self.output)


def run(*args: object) -> Outcome:
    """Run ``xdpkit ARGS``."""
    output, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        status = execute([str(arg) for arg in args])
    return Outcome(status, output.getvalue(), messages.getvalue())
