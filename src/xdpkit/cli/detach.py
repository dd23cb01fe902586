# SPDX-License-Identifier: Apache-2.0
"""``xdpkit detach``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from xdpkit.cli import changing
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.naming import full_name, held_by
from xdpkit.cli.options import (
    dry_run_option,
    expect_option,
    interface_argument,
    pin_root_option,
    revert_after_option,
)
from xdpkit.cli.queues import queue_option
from xdpkit.cli.render import counted, emit, emit_json, printable

if TYPE_CHECKING:
    from xdpkit.hook import Detached, ProgramSummary


@subcommand(
    "detach",
    examples="""
xdpkit detach eth0
xdpkit detach eth0 --expect 123
xdpkit detach eth0 --queue 0-3,8
xdpkit detach eth0 --all
xdpkit detach eth0 --revert-after 5m
xdpkit -n blue detach veth0
""",
)
@interface_argument()
@queue_option("Take off the programs that these RX queues have of their own.", served=True)
@click.option(
    "--all", "everything", is_flag=True, help="Take off all programs, those of RX queues, too."
)
@click.option(
    "--keep-root",
    is_flag=True,
    help="Leave the program that runs those of RX queues even if none has any more: some drivers"
    " reset their rings when what is on the hook is exchanged.",
)
@expect_option
@dry_run_option
@revert_after_option
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    iface: str,
    queues: frozenset[int] | None,
    everything: bool,
    keep_root: bool,
    expect: int | None,
    dry_run: bool,
    revert_after: float | None,
    pin_root: str,
) -> None:
    """Take a program off an interface.

    With --queue, it is the program that these RX queues have of their own; the one that was
    attached without serves them from then on. Without, it is that one.

    Only a program that 'xdpkit attach' put there is touched, unless another one is named: --expect
    ID. With --revert-after, a program that lets all packets pass stands in for the last one until
    it is confirmed.
    """
    from xdpkit.hook import prepare_delete
    from xdpkit.hook.place import Place

    change = prepare_delete(
        Place(iface, settings.netns, pin_root),
        queues=queues,
        expected=expect,
        keep_root=keep_root,
        everything=everything,
    )
    if dry_run:
        changing.show_plan(settings, change, revert_after)
        return
    detached = change.apply(revert_after=revert_after)
    changing.notes(detached.notes)
    if settings.json:
        document = {
            **detached.to_dict(),
            "revert_after": changing.nanoseconds(revert_after),
        }
        emit_json(document, pretty=settings.pretty)
        return
    interface = detached.interface
    emit(_told(detached, changing.where(change, queues)))
    reverts_to = detached.program.id if changing.is_whole(change) else None
    emit(changing.until_confirmed(interface, pin_root, reverts_to, revert_after))


def _told(detached: Detached, where: str) -> Iterator[str]:
    """Yield what was taken off, and where."""
    from xdpkit.hook.scope import describe

    gone: dict[ProgramSummary, set[int]] = {}
    for queue, program in (detached.programs or {None: detached.program}).items():
        gone.setdefault(program, set()).update(() if queue is None else (queue,))
    interface = printable(detached.interface.name)
    if len(gone) == 1:
        (program,) = gone
        name = full_name(detached) if program == detached.program else program.name
        yield printable(f"detached {name or 'it'} from {interface}{where}")
        yield f"  program {program.id}, {held_by(detached.link_id)}"
        return
    yield f"detached {counted(len(gone), 'program')} from {interface}{where}"
    for program, queues in gone.items():
        served = describe(frozenset(queues) or None)
        yield printable(f"  program {program.id} ({program.name}), {served}")
