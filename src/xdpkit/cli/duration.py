# SPDX-License-Identifier: Apache-2.0
"""Durations: ``60s`` in, "1 min 5 s" out."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

from xdpkit.errors import UsageError

LONGEST_S = 86_400
"""A day: the longest time between two rounds."""

_SHORTEST_S = 0.1

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Return a duration in seconds: a number and one of the units ms, s, m and h.

    Raises:
        UsageError: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"read {text!r} as a duration",
            cause="it takes a number and a unit (ms, s, m, h)",
            remedy="as in: 500ms, 60s, 5m, 1.5h",
        )
    return float(found[1]) * _UNITS[found[2]]


def parse_seconds(text: str) -> float:
    """Return the time between two rounds, a number of seconds without a unit.

    Raises:
        UsageError: it is none, or too short or long.
    """
    what = f"read {text!r} as a number of seconds"
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(what, cause="it is none") from None
    # Not so written, what is no number at all (nan) would pass.
    if not _SHORTEST_S <= seconds <= LONGEST_S:
        raise UsageError(what, cause=f"it has to be from {_SHORTEST_S} to {LONGEST_S:,}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration for people, to the second: "43 s", "5 min", "1 h 2 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    # Nobody counts the seconds of hours.
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def clock_after(seconds: float) -> str:
    """Return what the clock on the wall will show then; with the day, if that is another one."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M:%S}"


def duration_callback(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Read an option's value."""
    return None if text is None else parse_duration(text)


def seconds_callback(_: click.Context, __: click.Parameter, text: str) -> float:
    """Read an option's value."""
    return parse_seconds(text)
