# SPDX-License-Identifier: Apache-2.0
"""``xdpkit doctor``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import pin_root_option
from xdpkit.cli.render import counted, emit, emit_json, printable, width

if TYPE_CHECKING:
    from xdpkit.monitor.doctor import Complaint, Diagnosis, OnHook

SOMETHING_IS_WRONG = 8
"""The exit status when there are errors or warnings."""


@subcommand(
    "doctor",
    examples="""
xdpkit doctor
xdpkit doctor eth0 eth1
xdpkit -n blue doctor
xdpkit doctor -j | jq '.complaints[] | select(.severity == "error")'
""",
)
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...", shell_complete=complete.interfaces)
@pin_root_option
@pass_settings
def command(settings: Settings, interfaces: tuple[str, ...], pin_root: str) -> None:
    """Say what is attached, what has gone wrong since, why, and what helps.

    Without IFACE, all interfaces that have a program are looked at. Nothing is changed. What was
    lost in the past is known if 'xdpkit monitor install' was run before.

    The exit status is 8 if there are errors or warnings, 0 if there are none.
    """
    from xdpkit.monitor.doctor import examine

    found = examine(settings.netns, interfaces or None, pin_root=pin_root)
    if settings.json:
        emit_json(found.to_dict(), pretty=settings.pretty)
    else:
        emit(told(found, columns=width()))
    if not found.is_well:
        click.get_current_context().exit(SOMETHING_IS_WRONG)


def told(found: Diagnosis, *, columns: int | None = None) -> Iterator[str]:
    """Yield the lines that say what was found.

    Args:
        found: what was found. columns: of the terminal; None: lines are as long as they get.
    """
    for _, programs in groupby(found.attached, key=lambda each: each.interface):
        yield from _headlines(list(programs), found, columns)
    for name in found.idle:
        yield printable(f"{name}: no program")
    if not found.attached and not found.idle:
        yield "no interface has a program"
    for complaint in found.complaints:
        yield ""
        yield from _complaint(complaint, columns)
    yield ""
    if found.is_well:
        yield "Nothing was found to be wrong."
        yield from _list("Looked at:", found.looked_at, columns)
    else:
        counts = Counter(each.severity.value for each in found.complaints)
        yield ", ".join(counted(number, word) for word, number in counts.items())
    if found.unseen:
        yield from _list("Could not be seen:", found.unseen, columns)


def _headlines(programs: list[OnHook], found: Diagnosis, columns: int | None) -> Iterator[str]:
    from xdpkit.cli.duration import format_duration
    from xdpkit.cli.queues import format_queues

    by_queue = any(each.queues is not None for each in programs)
    for each in programs:
        if each.queues is not None:
            served = f"queue{'s' if len(each.queues) > 1 else ''} {format_queues(each.queues)}"
        else:
            served = "all other queues" if by_queue else "all queues"
        parts = [f"{each.program} (id {each.program_id})", f"{each.mode} mode", served]
        if each.owner != "unknown":
            parts.append(f"by {each.owner}")
        if each.since is not None:
            parts.append(f"for {format_duration(max((found.at - each.since).total_seconds(), 0))}")
        yield printable(f"{each.interface}: {', '.join(parts)}")
        if each.needs:
            yield from _wrapped(f"needs {', '.join(each.needs)}", "  ", "  ", columns)


def _complaint(complaint: Complaint, columns: int | None) -> Iterator[str]:
    yield from _wrapped(complaint.what, f"{complaint.severity.value}: ", "  ", columns)
    if complaint.cause is not None:
        yield from _wrapped(complaint.cause, "  cause     ", " " * 12, columns)
    for at, text in enumerate(complaint.evidence):
        yield from _wrapped(text, " " * 12 if at else "  evidence  ", " " * 12, columns)
    if complaint.remedy is not None:
        yield from _wrapped(complaint.remedy, "  remedy    ", " " * 12, columns)


def _list(title: str, texts: Iterable[str], columns: int | None) -> Iterator[str]:
    yield title
    for text in texts:
        yield from _wrapped(text, "  - ", "    ", columns)


def _wrapped(text: str, first: str, rest: str, columns: int | None) -> Iterator[str]:
    """Yield a text in lines that fit the terminal."""
    text = printable(text)
    if columns is None:
        yield f"{first}{text}"
        return
    yield from textwrap.wrap(
        text,
        max(columns, 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
