# SPDX-License-Identifier: Apache-2.0
"""``xdpkit detach``."""

from __future__ import annotations

import click

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.render import emit, emit_json, printable


@subcommand(
    "detach",
    examples="""
xdpkit detach eth0
xdpkit detach eth0 --expect 123
xdpkit -n blue detach veth0
""",
)
@interface_argument()
@click.option(
    "--expect",
    metavar="ID",
    type=click.IntRange(min=1),
    help="Only if this program is on it; 'xdpkit status' shows ids.",
)
@pin_root_option
@pass_settings
def command(settings: Settings, iface: str, expect: int | None, pin_root: str) -> None:
    """Take a program off an interface.

    Only a program that 'xdpkit attach' put there is touched.
    """
    from xdpkit.hook import detach

    detached = detach(iface, netns=settings.netns, pin_root=pin_root, expect=expect)
    if settings.json:
        emit_json(detached.to_dict(), pretty=settings.pretty)
        return
    program = detached.program
    emit(
        [
            printable(f"detached {program.name or 'it'} from {detached.interface.name}"),
            f"  program {program.id}, link {detached.link_id}",
        ]
    )
