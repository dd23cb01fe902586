# SPDX-License-Identifier: Apache-2.0
"""``xdpkit clean``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import dry_run_option, pin_root_option
from xdpkit.cli.render import emit, emit_json, message, printable
from xdpkit.errors import HookBusy, UsageError

if TYPE_CHECKING:
    from xdpkit.hook import Cleaned


@subcommand(
    "clean",
    examples="""
xdpkit clean
xdpkit clean --all --dry-run
xdpkit clean --all
""",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Detach all that xdpkit keeps on any interface, and remove every trace of it.",
)
@dry_run_option
@pin_root_option
@pass_settings
def command(settings: Settings, everything: bool, dry_run: bool, pin_root: str) -> None:
    """Remove what is left over: of interfaces that are gone, and of commands that were killed.

    All network namespaces are gone through. The exit status is 5 if something could not be
    removed, because a process holds it.
    """
    from xdpkit.monitor.cleaning import clean

    if settings.netns is not None:
        raise UsageError(
            "clean up",
            cause="it goes through all network namespaces, and cannot keep to one",
            remedy="leave out -n; 'xdpkit -n NAME detach IFACE' takes off one program",
        )
    results = clean(everything=everything, pin_root=pin_root, dry_run=dry_run)
    if settings.json:
        emit_json(
            {"dry_run": dry_run, "cleaned": [found.to_dict() for found in results]},
            pretty=settings.pretty,
        )
    else:
        _show(results, dry_run=dry_run)
    if any(found.error is not None for found in results):
        click.get_current_context().exit(HookBusy.exit_code)


def _show(results: tuple[Cleaned, ...], *, dry_run: bool) -> None:
    verb = "would remove" if dry_run else "removed"
    emit(f"{verb}: {_phrase(found)}" for found in results if found.error is None)
    for found in results:
        if found.error is not None:
            message(f"cannot remove: {_phrase(found)}: {found.error}")
    if not results:
        message("there is nothing to clean up")


def _phrase(found: Cleaned) -> str:
    place = f"{found.interface}: " if found.interface is not None else ""
    path = f", {found.path}" if found.path is not None and found.path not in found.what else ""
    return printable(f"{place}{found.what}{path}")
