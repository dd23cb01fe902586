# SPDX-License-Identifier: Apache-2.0
"""``xdpkit confirm``."""

from __future__ import annotations

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.naming import full_name, identity
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.render import emit, emit_json, printable


@subcommand(
    "confirm",
    examples="""
xdpkit confirm eth0
xdpkit -n blue confirm veth0
""",
)
@interface_argument()
@pin_root_option
@pass_settings
def command(settings: Settings, iface: str, pin_root: str) -> None:
    """Keep a change that was made with --revert-after.

    'xdpkit status' shows which changes wait for it, and how long.
    """
    from xdpkit.hook import Hook
    from xdpkit.hook.state import LEAVING

    hook = Hook(iface, netns=settings.netns, pin_root=pin_root)
    confirmed = hook.confirm()
    found = hook.status()
    if settings.json:
        emit_json(
            {**found.to_dict(), "confirmed": confirmed.program.to_dict()}, pretty=settings.pretty
        )
        return
    name, program = found.interface.name, confirmed.program
    if program.name == LEAVING:
        emit([printable(f"confirmed: {name} stays without the program that was detached")])
        return
    if confirmed.root is not None:
        emit([printable(f"confirmed: {name} keeps the programs of its RX queues")])
        return
    emit([printable(f"confirmed: {full_name(confirmed)} stays on {name}")])
    emit([f"  {identity(program.id, program.tag, confirmed.link_id)}"])
