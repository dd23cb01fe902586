# SPDX-License-Identifier: Apache-2.0
"""``xdpkit demo``."""

from __future__ import annotations

import click

from xdpkit.cli.command import Settings, pass_settings, subcommand


@subcommand(
    "demo",
    examples="""
sudo xdpkit demo
sudo xdpkit demo --step       and try things in another terminal meanwhile
xdpkit demo                   without privilege: look at the program only
""",
)
@click.option("--step", is_flag=True, help="Wait for Enter after each step.")
@pass_settings
def command(settings: Settings, step: bool) -> None:
    """See it all at work on private network namespaces.

    Makes two namespaces with a pair of interfaces between them, attaches a firewall to one, sends
    it traffic, shows what was dropped and counted, replaces the firewall meanwhile, provokes
    refusals and errors, and cleans up. Nothing else on this machine is touched. Without privilege
    it says what it needs and shows the program.
    """
    from xdpkit.cli.demo.story import tell
    from xdpkit.cli.demo.unprivileged import missing_privilege, tell_without_privilege

    missing = missing_privilege()
    if missing is None:
        tell(settings, pausing=step)
    else:
        tell_without_privilege(settings, missing)
