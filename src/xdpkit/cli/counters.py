# SPDX-License-Identifier: Apache-2.0
"""``xdpkit counters enable``, ``disable`` and ``show``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from xdpkit.cli.command import Settings, pass_settings, subcommands
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.queues import queue_option
from xdpkit.cli.render import emit, emit_json
from xdpkit.errors import UsageError

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport, Counters

_DEFAULT_S = "1"
_SHORTEST_S = 0.1
_LONGEST_S = 86_400


@subcommands(
    "counters",
    examples="""
xdpkit counters enable eth0
xdpkit counters show eth0 --watch
xdpkit counters disable eth0
""",
)
def command() -> None:
    """Count what programs return: packets by program, RX queue and action.

    This is a setting of the interface: programs that are attached later are counted, too, and none
    can opt out. It is switched on and off without a gap; a packet costs a few nanoseconds more.
    """


@command.command(
    "enable",
    examples="""
xdpkit counters enable eth0
xdpkit counters enable eth0 --bytes
""",
)
@interface_argument()
@click.option("--bytes", "count_bytes", is_flag=True, help="Count the bytes of packets, too.")
@pin_root_option
@pass_settings
def enable(settings: Settings, iface: str, count_bytes: bool, pin_root: str) -> None:
    """Count what the programs on an interface return, from now on.

    Each program is replaced by a copy that counts and does the same, in one step. What was counted
    before it was switched off is not lost.
    """
    report = _counters(settings, iface, pin_root).enable(count_bytes=count_bytes)
    if settings.json:
        emit_json(report.to_dict(), pretty=settings.pretty)
        return
    from xdpkit.cli.counts import listed

    emit(listed(report))


@command.command("disable", examples="xdpkit counters disable eth0")
@interface_argument()
@pin_root_option
@pass_settings
def disable(settings: Settings, iface: str, pin_root: str) -> None:
    """Count no longer; each program is as it was attached again.

    What has been counted can still be shown, as long as the programs stay.
    """
    report = _counters(settings, iface, pin_root).disable()
    if settings.json:
        emit_json(report.to_dict(), pretty=settings.pretty)
        return
    from xdpkit.cli.counts import headline, not_counted

    emit([headline(report), *not_counted(report)])


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Read the time between two rounds.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    what = f"read {text!r} as a number of seconds"
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(
            what,
            cause="what follows --watch is the time between two rounds",
            remedy="name the interface first: xdpkit counters show IFACE --watch",
        ) from None
    # Not so written, what is no number at all (nan) would pass.
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise UsageError(what, cause=f"it has to be from {_SHORTEST_S} to {_LONGEST_S:,}")
    return seconds


@command.command(
    "show",
    examples="""
xdpkit counters show eth0
xdpkit counters show eth0 --per-queue
xdpkit counters show eth0 --queue 0-3
xdpkit counters show eth0 --watch 5
xdpkit counters show eth0 --watch --count 60 -j > counters.jsonl
""",
)
@interface_argument()
@queue_option("Show each of these RX queues by itself.")
@click.option("--per-queue", is_flag=True, help="Show each RX queue by itself.")
@click.option(
    "--watch",
    "seconds",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=_DEFAULT_S,
    callback=_seconds,
    help="Show it again and again, with rates, until Ctrl-C; each second by default.",
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --watch: show it N times.",
)
@pin_root_option
@pass_settings
def show(
    settings: Settings,
    iface: str,
    queues: frozenset[int] | None,
    per_queue: bool,
    seconds: float | None,
    count: int | None,
    pin_root: str,
) -> None:
    """Show what the programs on an interface returned: packets by action.

    What a program returned is not what happened then: a packet that was to be redirected may have
    been lost. 'invalid' is a number that is no action. 'no program' are packets of RX queues that
    no program serves; they pass.
    """
    if seconds is None and count is not None:
        raise UsageError("show counters", cause="--count is how often to show them with --watch")
    counters = _counters(settings, iface, pin_root)

    def read() -> CounterReport:
        from xdpkit.cli.counts import only

        report = counters.read()
        return report if queues is None else only(report, queues)

    by_queue = per_queue or queues is not None
    if seconds is None:
        _show(settings, read(), by_queue)
    else:
        _watch(settings, read, by_queue, seconds, count)


def _show(settings: Settings, report: CounterReport, by_queue: bool) -> None:
    from xdpkit.cli.counts import headline, tabulated

    if settings.json:
        emit_json(report.to_dict(), pretty=settings.pretty)
        return
    emit([headline(report), "", *tabulated(report, None, by_queue=by_queue)])


def _watch(
    settings: Settings,
    read: Callable[[], CounterReport],
    by_queue: bool,
    seconds: float,
    count: int | None,
) -> None:
    """Show counters and how fast they go, round by round."""
    from xdpkit.cli.counts import headline, tabulated
    from xdpkit.cli.watching import Screen, rounds
    from xdpkit.hook.rates import rates

    screen = Screen()
    before: CounterReport | None = None
    for _ in rounds(seconds, count):
        report = read()
        speed = rates(before, report) if before is not None else None
        if settings.json:
            known = speed.to_dict() if speed is not None else None
            emit_json({**report.to_dict(), "rates": known}, pretty=settings.pretty)
            sys.stdout.flush()
        else:
            title = f"{headline(report)}, at {datetime.now():%H:%M:%S}"
            screen.show([title, "", *tabulated(report, speed, by_queue=by_queue)])
        before = report


def _counters(settings: Settings, iface: str, pin_root: str) -> Counters:
    from xdpkit.hook import Hook

    return Hook(iface, netns=settings.netns, pin_root=pin_root).counters
