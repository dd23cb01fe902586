# SPDX-License-Identifier: Apache-2.0
"""What there is to say about a change that is undone unless somebody confirms it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from xdpkit.cli.duration import clock_after, format_duration
from xdpkit.cli.options import DEFAULT_PIN_ROOT

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface


def confirmation(interface: Interface, pin_root: str) -> str:
    """Return the command that keeps the change on an interface."""
    words = ["xdpkit", "confirm"]
    if interface.netns is not None:
        words += ["-n", interface.netns]
    if pin_root != DEFAULT_PIN_ROOT:
        words += ["--pin-root", pin_root]
    if interface.name.startswith("-"):
        words.append("--")
    return shlex.join([*words, interface.name])


def undoing(reverts_to: int, seconds: float, confirm: str) -> str:
    """Return what will become of a change, as a sentence.

    Args:
        reverts_to: id of the program that comes back, 0 for an empty hook.
        seconds: until then; negative, if it should have happened already.
        confirm: the command that keeps the change.
    """
    goal = f"back to program {reverts_to}" if reverts_to else "off again"
    if seconds < 0:
        return (
            f"was to go {goal} {format_duration(-seconds)} ago and did not: the process that was"
            f" to do it was killed, or refused (the system's log says why); to keep the change:"
            f" {confirm}"
        )
    return (
        f"goes {goal} in {format_duration(seconds)} (at {clock_after(seconds)}) unless confirmed:"
        f" {confirm}"
    )
