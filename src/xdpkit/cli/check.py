# SPDX-License-Identifier: Apache-2.0
"""``xdpkit check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from xdpkit.cli import complete
from xdpkit.cli.assign import assign
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import (
    choose_program,
    mode_option,
    pin_root_option,
    policy_option,
    ports_option,
    program_option,
    set_option,
    target_option,
)
from xdpkit.cli.render import emit, emit_json
from xdpkit.errors import RequirementUnmet, UsageError

if TYPE_CHECKING:
    from xdpkit.capabilities import Device
    from xdpkit.negotiation import Negotiation

_MOST_BYTES = 16 << 20


def _places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an interface, then a file; with a profile, a file."""
    if ctx.params.get("profile_name") or ctx.params.get("places"):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in complete.interfaces(ctx, param, incomplete)]


@subcommand(
    "check",
    examples="""
xdpkit check eth0 fw.o
xdpkit check eth0 router.o --target eth1 --target eth2 --policy strict
xdpkit check fw.o --profile mlx5@6.1
xdpkit check fw.o --profile fleet/eth0.json
""",
)
@click.argument("places", nargs=-1, metavar="[IFACE] OBJECT", shell_complete=_places)
@program_option
@mode_option
@policy_option
@target_option
@ports_option
@click.option(
    "--profile",
    "profile_name",
    metavar="NAME",
    help="Check against this instead of an interface: a driver and a kernel (mlx5@6.1), or a file"
    " that 'xdpkit device --json' wrote.",
)
@set_option
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    places: tuple[str, ...],
    program_name: str | None,
    mode: str,
    policy: str,
    targets: tuple[str, ...],
    table: str | None,
    profile_name: str | None,
    assignments: tuple[str, ...],
    pin_root: str,
) -> None:
    """Show what a program needs, and whether an interface offers it. Nothing is loaded.

    A port table that has not noticed yet that the interface was made anew does so now.

    The exit status is 3 if something is refused, unless the policy is 'report'.
    """
    from xdpkit.hook import Mode
    from xdpkit.hook.check import check
    from xdpkit.negotiation import Policy
    from xdpkit.obj import read
    from xdpkit.requirements.context import is_of_ports

    iface, object_path = _split(places, profile_name)
    obj = read(object_path)
    spec = choose_program(obj, program_name, what=f"check {object_path}")
    assign(obj, assignments)

    def negotiate() -> Negotiation:
        return check(
            spec,
            _profile(profile_name) if profile_name is not None else iface,
            mode=Mode.parse(mode),
            policy=Policy(policy),
            targets=targets,
            netns=settings.netns,
            ports=table,
            pin_root=pin_root,
        )

    negotiation = negotiate()
    lacks_port = any(is_of_ports(each.requirement.capability) for each in negotiation.refused)
    if lacks_port and profile_name is None:
        from xdpkit.cli.changing import follow

        if follow(settings, iface, table=table, pin_root=pin_root):
            negotiation = negotiate()
    if settings.json:
        emit_json(negotiation.to_dict(), pretty=settings.pretty)
    else:
        from xdpkit.cli.verdicts import list_verdicts

        emit(list_verdicts(negotiation))
    if not negotiation.is_allowed:
        click.get_current_context().exit(RequirementUnmet.exit_code)


def _split(places: tuple[str, ...], profile_name: str | None) -> tuple[str, str]:
    """Return the interface and the object; with a profile there is no interface."""
    expected = 1 if profile_name is not None else 2
    if len(places) != expected:
        raise UsageError(
            "check a program",
            cause="with a profile it takes an object file only"
            if profile_name is not None
            else "it takes an interface and an object file",
            remedy="xdpkit check OBJECT --profile NAME"
            if profile_name is not None
            else "xdpkit check IFACE OBJECT",
        )
    return places[0], places[-1]


def _profile(name: str) -> Device:
    """Return the profile from a file, or from the table of drivers."""
    from xdpkit.capabilities import Device

    if not (name.endswith(".json") or "/" in name):
        from xdpkit.interfaces import profile

        return profile(name)
    try:
        with Path(name).open("rb") as file:
            text = file.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"read device profile {name}", cause=str(error.strerror)) from None
    return Device.from_json(text, source=f"file {name}")
