# SPDX-License-Identifier: Apache-2.0
"""``xdpkit status``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.render import Column, emit, emit_json, message, printable, table, width

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

    With IFACE, show all about that one.
    """
    from xdpkit.hook import status

    hooks = status(netns=settings.netns, iface=iface, pin_root=pin_root)
    if settings.json:
        emit_json({"interfaces": [hook.to_dict() for hook in hooks]}, pretty=settings.pretty)
        return
    if iface is not None:
        emit(line for hook in hooks for line in _details(hook))
    elif hooks:
        emit(_overview(hooks))
    else:
        place = (
            f"network namespace {settings.netns}" if settings.netns else "this network namespace"
        )
        message(f"no interface in {place} has a program")
    for note in dict.fromkeys(found.note for hook in hooks for found in hook.attached):
        if note:
            message(note)


def _overview(hooks: tuple[HookStatus, ...]) -> Iterator[str]:
    return table(
        [
            Column("interface"),
            Column("mode"),
            Column("id", right=True),
            Column("program"),
            Column("tag"),
            Column("by"),
        ],
        [
            [
                hook.interface.name,
                found.mode.value,
                str(found.program.id),
                found.program.name or "",
                found.program.tag or "",
                _holder(found),
            ]
            for hook in hooks
            for found in hook.attached
        ],
        width=width(),
    )


def _details(hook: HookStatus) -> Iterator[str]:
    name = printable(hook.interface.name)
    if not hook.attached:
        yield f"{name}: no program"
    for found in hook.attached:
        yield f"{name}: {found.mode.value} mode"
        for key, value in _facts(found):
            if value:
                yield f"  {key:<9}{printable(value)}"


def _facts(found: AttachedProgram) -> Iterator[tuple[str, str]]:
    program = found.program
    yield "program", f"{program.name or ''} id {program.id}".strip()
    yield "tag", program.tag or ""
    if program.loaded_at is not None:
        yield "loaded", f"{program.loaded_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if program.jited is not None:
        yield "runs as", "machine code" if program.jited else "interpreted instructions"
    yield "by", _holder(found)
    yield "pinned", found.pinned or ""
    maps = (f"{used.name or 'unnamed'} ({used.id})" for used in program.maps or ())
    yield "maps", ", ".join(maps)


def _holder(found: AttachedProgram) -> str:
    """Return who put it there and what holds it: "xdpkit, link 7"."""
    owner = found.owner.value if found.owner.value != "unknown" else ""
    if found.link_id is not None:
        return ", ".join(filter(None, (owner, f"link {found.link_id}")))
    return ", ".join(filter(None, (owner, found.via.value if found.via else "")))
