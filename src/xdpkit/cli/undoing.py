# SPDX-License-Identifier: Apache-2.0
"""What there is to say about a change that is undone unless somebody confirms it."""

from __future__ import annotations

from xdpkit.cli.duration import clock_after, format_duration


def undoing(reverts_to: int | None, seconds: float, confirm: str) -> str:
    """Return what will become of a change, as a sentence.

    Args:
        reverts_to: id of the program that comes back, 0 for an empty hook; None for the programs
            that the RX queues had.
        seconds: until then; negative, if it should have happened already.
        confirm: the command that keeps the change.
    """
    if reverts_to is None:
        goal = "back to the programs before"
    else:
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
