# SPDX-License-Identifier: Apache-2.0
"""``xdpkit monitor install``, ``remove`` and ``show``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommands
from xdpkit.cli.duration import seconds_callback
from xdpkit.cli.options import pin_root_option
from xdpkit.cli.render import emit, emit_json, message
from xdpkit.errors import UsageError

if TYPE_CHECKING:
    from xdpkit.monitor.model import Installed, Snapshot

_HINT = "errors are not counted; to count them: xdpkit monitor install"

_IDLE = "no interface has an XDP program, or packets that a driver counts for XDP"


@subcommands(
    "monitor",
    examples="""
xdpkit monitor install
xdpkit monitor show
xdpkit monitor remove
""",
)
def command() -> None:
    """Count what goes wrong on the whole machine, and watch it.

    Small programs on the kernel's tracepoints count every packet that is lost after an XDP program
    has run, whosever program that is. They stay until they are removed, or until a reboot.
    """


@command.command(
    "install",
    examples="""
xdpkit monitor install
xdpkit monitor install --transmit
""",
)
@click.option(
    "--transmit",
    is_flag=True,
    help="Count frames that are redirected, too, and those that get lost then.",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many times a second and CPU to note when an error was; beyond that, it is only"
    " counted.",
)
@pin_root_option
@pass_settings
def install(settings: Settings, transmit: bool, rate: int, pin_root: str) -> None:
    """Count what goes wrong, from now on and until it is removed.

    Where it is installed already, it counts on, and takes what is asked for now.
    """
    from xdpkit import monitor

    installed = monitor.install(transmit=transmit, rate=rate, pin_root=pin_root)
    if settings.json:
        emit_json(installed.to_dict(), pretty=settings.pretty)
    else:
        emit(_described(installed))
        for note in installed.notes:
            message(note)


def _described(installed: Installed) -> Iterator[str]:
    from xdpkit.monitor.model import Group

    transmits = Group.TRANSMIT in installed.groups
    what = "errors, and redirected frames," if transmits else "errors"
    yield f"counted on the whole machine: {what} until 'xdpkit monitor remove' or a reboot"
    yield f"  tracepoints: {', '.join(installed.tracepoints)}"
    if installed.absent:
        yield f"  not in this kernel: {', '.join(installed.absent)}"
    yield f"  programs: {', '.join(map(str, installed.program_ids))}"
    yield "what it costs: nothing for packets without errors; about 50 ns for each error"
    if transmits:
        yield "  and about 50 ns for each bulk of redirected frames, lost or not"


@command.command("remove", examples="xdpkit monitor remove")
@pin_root_option
@pass_settings
def remove(settings: Settings, pin_root: str) -> None:
    """Count what goes wrong no longer, and forget what was counted."""
    from xdpkit import monitor

    was_installed = monitor.remove(pin_root=pin_root)
    if settings.json:
        emit_json({"removed": was_installed}, pretty=settings.pretty)
    else:
        emit(["removed" if was_installed else "nothing was installed"])


@command.command(
    "show",
    examples="""
xdpkit monitor show
xdpkit monitor show eth0 eth1
xdpkit monitor show --once
xdpkit monitor show --interval 10 -j > monitor.jsonl
""",
)
@click.argument("ifaces", metavar="[IFACE]...", nargs=-1, shell_complete=complete.interfaces)
@click.option(
    "--interval",
    metavar="SECONDS",
    default="1",
    show_default=True,
    callback=seconds_callback,
    help="How long to wait between two rounds.",
)
@click.option("--once", is_flag=True, help="Print the totals as lines, and end.")
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), help="Print N rounds as lines, and end."
)
@pin_root_option
@pass_settings
def show(
    settings: Settings,
    ifaces: tuple[str, ...],
    interval: float,
    once: bool,
    count: int | None,
    pin_root: str,
) -> None:
    """Watch what programs return, what drivers do, and what goes wrong.

    On a terminal this is a screen; '?' shows its keys. Elsewhere each round is printed as lines,
    or as a line of JSON, until Ctrl-C or SIGTERM.

    What drivers and programs say is shown of these interfaces, or of all that have a program; what
    goes wrong, of all network namespaces.
    """
    if once and count is not None:
        raise UsageError("show what is counted", cause="--once and --count exclude each other")
    from xdpkit.cli.screen.terminal import is_interactive
    from xdpkit.monitor import take

    snapshot = functools.partial(
        take, netns=settings.netns, interfaces=ifaces or None, pin_root=pin_root
    )
    rounds = 1 if once else count
    if settings.json:
        _print_json(snapshot, interval, rounds, pretty=settings.pretty)
    elif rounds is not None or not is_interactive():
        _print_lines(snapshot, interval, rounds, asked=ifaces)
    else:
        from xdpkit.cli.screen.live import watch

        watch(snapshot, interval, netns=settings.netns, asked=ifaces)


def _print_json(
    take: Callable[[], Snapshot], interval: float, count: int | None, *, pretty: bool
) -> None:
    from xdpkit.cli.watching import rounds
    from xdpkit.monitor.rates import rates, round_to_dict

    before: Snapshot | None = None
    for _ in rounds(interval, count):
        snapshot = take()
        known = rates(before, snapshot) if before is not None else {}
        now = datetime.now(UTC).isoformat()
        emit_json({"time": now, **round_to_dict(snapshot, known)}, pretty=pretty)
        sys.stdout.flush()
        before = snapshot


def _print_lines(
    take: Callable[[], Snapshot], interval: float, count: int | None, *, asked: Collection[str]
) -> None:
    from xdpkit.cli.screen.board import Board
    from xdpkit.cli.screen.lines import lines
    from xdpkit.cli.watching import rounds

    board: Board | None = None
    said: set[str] = set()
    for _ in rounds(interval, count):
        snapshot = take()
        if board is None:
            board = Board.of(snapshot, asked=asked)
        else:
            board = board.after(snapshot, asked=asked)
        is_absent = snapshot.installed is None and snapshot.unread is None
        # That they cannot be read is among the notes.
        for note in [*([_HINT] if is_absent else []), *snapshot.notes]:
            if note not in said:
                said.add(note)
                message(note)
        if not board.places and not board.troubles and _IDLE not in said:
            said.add(_IDLE)
            message(_IDLE)
        emit(lines(board, f"{datetime.now():%H:%M:%S}"))
        sys.stdout.flush()
