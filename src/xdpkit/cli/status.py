# SPDX-License-Identifier: Apache-2.0
"""``xdpkit status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.naming import full_name, held_by
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.queues import served
from xdpkit.cli.render import Column, emit, emit_json, message, table, width
from xdpkit.errors import MissingPrivilege, RequirementUnmet

if TYPE_CHECKING:
    from xdpkit.hook import AttachedProgram, HookStatus


@subcommand(
    "status",
    examples="""
xdpkit status
xdpkit status eth0
xdpkit -n blue status
xdpkit status -j | jq '.interfaces[].attached[].prog.id'
""",
)
@interface_argument(required=False)
@pin_root_option
@pass_settings
def command(settings: Settings, iface: str | None, pin_root: str) -> None:
    """Show which interfaces have which programs, whoever put them there.

    With IFACE, show all about that one: also where its program comes from, and which processes
    hold it.
    """
    from xdpkit.hook import status

    hooks = status(netns=settings.netns, iface=iface, pin_root=pin_root)
    if settings.json:
        emit_json({"interfaces": [hook.to_dict() for hook in hooks]}, pretty=settings.pretty)
        return
    if iface is not None:
        from xdpkit.cli.details import details

        emit(line for hook in hooks for line in details(hook, pin_root))
    elif hooks:
        emit(_overview(hooks, _tables(hooks, pin_root)))
    else:
        place = (
            f"network namespace {settings.netns}" if settings.netns else "this network namespace"
        )
        message(f"no interface in {place} has a program")
    for note in dict.fromkeys(
        found.note for hook in hooks for found in (*hook.attached, *hook.programs)
    ):
        if note:
            message(note)


def _tables(hooks: tuple[HookStatus, ...], pin_root: str) -> Mapping[str, int] | None:
    """Return what tells the port tables of now from others of their names; None: not known."""
    found = (each for hook in hooks for each in (*hook.attached, *hook.programs))
    if not any(each.record is not None and each.record.record.port for each in found):
        return None
    from xdpkit.tables import store

    try:
        return store.incarnations(pin_root)
    except (MissingPrivilege, RequirementUnmet):
        return None


def _overview(hooks: tuple[HookStatus, ...], tables: Mapping[str, int] | None) -> Iterator[str]:
    return table(
        [
            Column("interface"),
            Column("mode"),
            Column("queues"),
            Column("id", right=True),
            Column("program"),
            Column("tag"),
            Column("port"),
            Column("by"),
            Column("state"),
        ],
        [
            [
                hook.interface.name,
                found.mode.value,
                queues,
                str(found.program.id),
                full_name(found) or "",
                found.program.tag or "",
                _port(found, tables),
                holder(found),
                _state(found) or _state(on_hook),
            ]
            for hook in hooks
            for on_hook in hook.attached
            for found, queues in _programs(on_hook)
        ],
        width=width(),
    )


def _programs(found: AttachedProgram) -> list[tuple[AttachedProgram, str]]:
    """Return what there is to show of what is on a hook, with the RX queues that each serves."""
    if found.root is None:
        return [(found, "")]
    return served(found.members) or [(found, "none" if found.are_members_known else "?")]


def _port(found: AttachedProgram, tables: Mapping[str, int] | None) -> str:
    """Return what it was told of a port table: "port 2 (eth1) of table lan"."""
    port = found.record.record.port if found.record is not None else None
    if port is None:
        return ""
    from xdpkit.hook.ports import is_gone

    return f"{port} that is gone" if tables is not None and is_gone(port, tables) else str(port)


def holder(found: AttachedProgram) -> str:
    """Return who put it there and what holds it: "xdpkit, link 7"."""
    owner = found.owner.value if found.owner.value != "unknown" else ""
    held = held_by(found.link_id) if found.via is not None else ""
    return ", ".join(filter(None, (owner, held)))


def _state(found: AttachedProgram) -> str:
    """Return what is not as usual, in a word or two."""
    left = found.seconds_to_revert
    if left is not None:
        from xdpkit.cli.duration import format_duration

        return f"{format_duration(left)} to confirm" if left >= 0 else "not undone in time"
    if found.is_leaving:
        return "leaving"
    if found.record is not None and found.record.unknown:
        return "newer record"
    return ""
