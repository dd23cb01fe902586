# SPDX-License-Identifier: Apache-2.0
"""``xdpkit replace``."""

from __future__ import annotations

from xdpkit.cli import changing
from xdpkit.cli.changing import Wanted, takes_program
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.naming import full_name, identity
from xdpkit.cli.options import (
    dry_run_option,
    expect_option,
    interface_argument,
    keeping_log,
    pin_root_option,
    revert_after_option,
    verifier_log_option,
)
from xdpkit.cli.queues import queue_option
from xdpkit.cli.render import emit, printable


@subcommand(
    "replace",
    examples="""
xdpkit replace eth0 fw2.o
xdpkit replace eth0 fw2.o --expect 123
xdpkit replace eth0 fw2.o --queue 0-3,8
xdpkit replace eth0 fw2.o --revert-after 60s
xdpkit -n blue replace veth0 fw.o --set blocked_port=53 --dry-run
""",
)
@interface_argument()
@takes_program
@queue_option("Replace the programs that these RX queues have of their own.", served=True)
@expect_option
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
    expect: int | None,
    dry_run: bool,
    revert_after: float | None,
    pin_root: str,
    log_path: str | None,
) -> None:
    """Load a program and put it in the place of the present one, in one step.

    Each packet meets the old program or the new one. The mode stays, and what holds the program,
    too. Somebody else's program is replaced only if it is named: --expect ID.
    """
    from xdpkit.cli.verdicts import overridden, tolerated
    from xdpkit.hook import prepare_replace
    from xdpkit.hook.place import Place

    spec = wanted.read(f"replace the program on {iface}")
    change = changing.following(
        lambda: prepare_replace(
            Place(iface, settings.netns, pin_root),
            spec,
            queues=queues,
            expected=expect,
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
    replaced = changing.before(change)
    with keeping_log(log_path), change.apply(revert_after=revert_after) as attached:
        changing.notes(attached.notes)
        tolerated(change.negotiation)
        if settings.json:
            changing.emit_attached(
                settings,
                attached,
                change.negotiation,
                pin_root,
                revert_after,
                before=replaced[0].to_dict(),
                replaced=[each.to_dict() for each in replaced],
            )
            return
        name, mode = attached.interface.name, attached.mode.value
        where = changing.where(change, queues)
        gone = list({each.program.id: each for each in replaced}.values())
        names = ", ".join(dict.fromkeys(full_name(each) or "the program" for each in gone))
        emit([printable(f"replaced {names} on {name} by {spec.name} in {mode} mode{where}")])
        for each in gone:
            emit([f"  was {identity(each.program.id, each.program.tag, each.link_id)}"])
        program = attached.program
        emit([f"  is  {identity(program.id, program.tag, gone[0].link_id)}"])
        if attached.port is not None:
            emit([printable(f"  {attached.port}")])
        reverts_to = gone[0].program.id if changing.is_whole(change) else None
        emit(changing.until_confirmed(attached.interface, pin_root, reverts_to, revert_after))
