# SPDX-License-Identifier: Apache-2.0
"""``xdpkit detach``."""

from __future__ import annotations

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
from xdpkit.cli.render import emit, emit_json, printable


@subcommand(
    "detach",
    examples="""
xdpkit detach eth0
xdpkit detach eth0 --expect 123
xdpkit detach eth0 --revert-after 5m
xdpkit -n blue detach veth0
""",
)
@interface_argument()
@expect_option
@dry_run_option
@revert_after_option
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    iface: str,
    expect: int | None,
    dry_run: bool,
    revert_after: float | None,
    pin_root: str,
) -> None:
    """Take a program off an interface.

    Only a program that 'xdpkit attach' put there is touched, unless another one is named: --expect
    ID. With --revert-after, a program that lets all packets pass stands in until it is confirmed.
    """
    from xdpkit.hook import Delete
    from xdpkit.hook.place import Place

    change = Delete(Place(iface, settings.netns, pin_root), expected=expect)
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
    program, interface = detached.program, detached.interface
    name = full_name(detached) or "it"
    emit([printable(f"detached {name} from {interface.name}")])
    emit([f"  program {program.id}, {held_by(detached.link_id)}"])
    emit(changing.until_confirmed(interface, pin_root, program.id, revert_after))
