# SPDX-License-Identifier: Apache-2.0
"""Standard streams that may be closed, full or without a reader."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from xdpkit.errors import XdpkitError


class OutputFailed(XdpkitError):
    """Standard output takes no more: a full disk, say. A reader that went is a BrokenPipeError."""


class _Output(io.TextIOWrapper):
    """Standard output that tells its own errors from those of whatever else a command writes."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _own(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _own(error) from None


def _own(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return OutputFailed("write to standard output", cause=str(error.strerror))


def prepare() -> None:
    """Make the streams that the caller closed, and let the others fail as little as may be."""
    # In the order of the descriptors, so that each gets its own number and nothing else does.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name == "stdout":
            sys.stdout = _Output(
                sys.stdout.buffer,
                encoding=sys.stdout.encoding,
                line_buffering=sys.stdout.isatty(),
            )
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def settle() -> None:
    """Drop what could not be written: Python flushes once more at exit."""
    for stream in (sys.stdout, sys.stderr):
        if _is_stuck(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_stuck(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, OutputFailed):
        return True
    return False
