# SPDX-License-Identifier: Apache-2.0
"""``xdpkit attach``."""

from __future__ import annotations

import click

from xdpkit.cli.assign import assign
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import (
    choose_program,
    interface_argument,
    keeping_log,
    mode_option,
    object_argument,
    pin_root_option,
    policy_option,
    program_option,
    set_option,
    target_option,
    verifier_log_option,
)
from xdpkit.cli.render import emit, emit_json, printable


@subcommand(
    "attach",
    examples="""
xdpkit attach eth0 fw.o
xdpkit attach eth0 fw.o --program firewall --set blocked_port=53
xdpkit -n blue attach veth0 fw.o --mode generic
""",
)
@interface_argument()
@object_argument
@program_option
@mode_option
@set_option
@policy_option
@target_option
@click.option("--force", is_flag=True, help="Try it even if the interface cannot do it.")
@pin_root_option
@verifier_log_option
@pass_settings
def command(
    settings: Settings,
    iface: str,
    object_path: str,
    program_name: str | None,
    mode: str,
    assignments: tuple[str, ...],
    policy: str,
    targets: tuple[str, ...],
    force: bool,
    pin_root: str,
    log_path: str | None,
) -> None:
    """Load a program and put it on an interface, to stay.

    It stays until 'xdpkit detach', or until the interface goes. An interface that has a program
    already is left as it is. A program that needs what the interface does not offer is refused, as
    'xdpkit check' tells.
    """
    from xdpkit.cli.verdicts import overridden, tolerated
    from xdpkit.hook import Mode, attach, status
    from xdpkit.hook.check import check
    from xdpkit.negotiation import Policy
    from xdpkit.obj import read

    obj = read(object_path)
    spec = choose_program(obj, program_name, what=f"attach {object_path} to {iface}")
    assign(obj, assignments)
    if force:
        overridden(
            check(
                spec,
                iface,
                mode=Mode.parse(mode),
                policy=Policy(policy),
                targets=targets,
                netns=settings.netns,
            )
        )
    with (
        keeping_log(log_path),
        attach(
            iface,
            spec,
            mode=Mode.parse(mode),
            policy=Policy(policy),
            targets=targets,
            force=force,
            pin=True,
            netns=settings.netns,
            pin_root=pin_root,
        ) as attached,
    ):
        negotiation = attached.negotiation
        tolerated(negotiation)
        if settings.json:
            (hook,) = status(netns=settings.netns, iface=iface, pin_root=pin_root)
            emit_json(
                {
                    **hook.to_dict(),
                    "negotiation": negotiation.to_dict(),
                    "overridden": not negotiation.is_allowed,
                },
                pretty=settings.pretty,
            )
            return
        name = attached.interface.name
        emit(
            [
                printable(f"attached {spec.name} to {name} in {attached.mode.value} mode"),
                f"  program {attached.program.id}, tag {attached.program.tag},"
                f" link {attached.link_id}",
                printable(f"  pinned at {attached.pinned}"),
            ]
        )
