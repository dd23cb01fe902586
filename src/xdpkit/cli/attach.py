# SPDX-License-Identifier: Apache-2.0
"""``xdpkit attach``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xdpkit.cli import changing
from xdpkit.cli.changing import Wanted, takes_program
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.naming import identity
from xdpkit.cli.options import (
    dry_run_option,
    interface_argument,
    keeping_log,
    modes_option,
    pin_root_option,
    revert_after_option,
    verifier_log_option,
)
from xdpkit.cli.queues import queue_option
from xdpkit.cli.render import emit, message, printable

if TYPE_CHECKING:
    from xdpkit.hook import Mode


@subcommand(
    "attach",
    examples="""
xdpkit attach eth0 fw.o
xdpkit attach eth0 fw.o --program firewall --set blocked_port=53
xdpkit attach eth0 fw.o --mode native,generic --dry-run
xdpkit attach eth0 fw.o --queue 0-3,8
xdpkit attach eth0 fw.o --revert-after 60s
xdpkit -n blue attach veth0 fw.o --mode generic
""",
)
@interface_argument()
@takes_program
@queue_option("Only for packets of these RX queues.")
@modes_option
@click.option("--netlink", is_flag=True, help="Let netlink hold the program, not a pinned link.")
@dry_run_option
@revert_after_option
@pin_root_option
@verifier_log_option
@pass_settings
def command(
    settings: Settings,
    iface: str,
    wanted: Wanted,
    queues: frozenset[int] | None,
    modes: tuple[Mode, ...] | None,
    netlink: bool,
    dry_run: bool,
    revert_after: float | None,
    pin_root: str,
    log_path: str | None,
) -> None:
    """Load a program and put it on an interface, to stay.

    It stays until 'xdpkit detach', or until the interface goes. An interface that has a program
    already is left as it is: see 'xdpkit replace'. A program that needs what the interface does not
    offer is refused, as 'xdpkit check' tells.

    With --queue, it is for the packets of these RX queues only, and takes precedence over the
    program that was attached without: that one serves all other queues.
    """
    from xdpkit.cli.verdicts import overridden, tolerated
    from xdpkit.hook import Via, prepare_add
    from xdpkit.hook.place import Place

    spec = wanted.read(f"attach {wanted.object_path} to {iface}")
    change = changing.following(
        lambda: prepare_add(
            Place(iface, settings.netns, pin_root),
            spec,
            queues=queues,
            mode=modes,
            via=Via.NETLINK if netlink else None,
            **wanted.terms,
        ),
        settings,
        iface,
        table=wanted.table,
        pin_root=pin_root,
        dry_run=dry_run,
    )
    if wanted.force:
        overridden(change.negotiation)
    if dry_run:
        changing.show_plan(settings, change, revert_after)
        return
    with keeping_log(log_path), change.apply(revert_after=revert_after) as attached:
        changing.notes(attached.notes)
        if modes is not None and attached.mode is not modes[0]:
            message(f"{attached.mode.value} mode was taken")
        negotiation = attached.negotiation or change.negotiation
        tolerated(negotiation)
        if settings.json:
            changing.emit_attached(settings, attached, negotiation, pin_root, revert_after)
            return
        name, mode = attached.interface.name, attached.mode.value
        where = changing.where(change, queues)
        emit([printable(f"attached {spec.name} to {name} in {mode} mode{where}")])
        program = attached.program
        emit([f"  {identity(program.id, program.tag, attached.link_id)}"])
        if attached.port is not None:
            emit([printable(f"  {attached.port}")])
        if attached.pinned is not None:
            emit([printable(f"  pinned at {attached.pinned}")])
        reverts_to = 0 if changing.is_whole(change) else None
        emit(changing.until_confirmed(attached.interface, pin_root, reverts_to, revert_after))
