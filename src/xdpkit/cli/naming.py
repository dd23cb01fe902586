# SPDX-License-Identifier: Apache-2.0
"""What the command calls the programs on a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.hook import AttachedProgram
    from xdpkit.hook.delete import Detached


def full_name(attached: AttachedProgram | Detached) -> str | None:
    """Return a program's name as its object has it, else as the kernel does: 15 characters."""
    if attached.record is not None:
        return attached.record.record.program
    return attached.program.name


def identity(number: int, tag: str | None, link_id: int | None) -> str:
    """Return what tells a program from others, and what holds it: "program 12, tag …, link 7"."""
    known = f", tag {tag}" if tag else ""
    return f"program {number}{known}, {held_by(link_id)}"


def held_by(link_id: int | None) -> str:
    """Return what holds a program: "link 7"."""
    return f"link {link_id}" if link_id is not None else "netlink"
