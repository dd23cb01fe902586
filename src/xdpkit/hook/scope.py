# SPDX-License-Identifier: Apache-2.0
"""Which packets a program is for: those of some RX queues, or all that no such program serves."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.interfaces import Interface

Scope = frozenset[int] | None
"""RX queues that a program serves; None: it is global, and serves those that have none."""

Seat = int | None
"""An RX queue, or None for all that have no program of their own."""

MAX_QUEUES = 1023
"""How many RX queues can have a program of their own.

The kernel allows 1,024 tail calls of constant slots in one program
(``bpf_jit_add_poke_descriptor()`` in kernel/bpf/core.c), and one of them is for the global program.
"""

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
# The kernel's own limit of queues is far below (``dev->num_rx_queues``, netif_alloc_rx_queues()).
_LAST = (1 << 16) - 1


def seats_of(scope: Scope) -> tuple[Seat, ...]:
    """Return what a scope is made of, in order."""
    return (None,) if scope is None else tuple(sorted(scope))


def parse(text: str) -> frozenset[int]:
    """Return the RX queues that text names, like "3" or "0-3,8".

    Raises:
        UsageError: it names none.
    """
    what = f"read queues {text!r}"
    queues: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise UsageError(what, cause="queues are numbers and ranges of them, like 3 or 0-3,8")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise UsageError(what, cause=f"{part.strip()} ends before it begins")
        if last > _LAST:
            raise UsageError(what, cause=f"no interface has a queue {last}")
        queues.update(range(first, last + 1))
    return frozenset(queues)


def ranges(queues: Iterable[int]) -> str:
    """Return queues as text that :func:`parse` reads, the shortest: "0-3,8"."""
    runs: list[list[int]] = []
    for queue in sorted(queues):
        if runs and queue == runs[-1][1] + 1:
            runs[-1][1] = queue
        else:
            runs.append([queue, queue])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def describe(scope: Scope) -> str:
    """Return a scope as a phrase: "queue 3", "queues 0-3, 8", "all other queues"."""
    if scope is None:
        return "all other queues"
    return f"queue{'s' if len(scope) > 1 else ''} {ranges(scope).replace(',', ', ')}"


def program_of(scope: Scope) -> str:
    """Return what serves a scope, as a phrase: "the program of queue 3", "the global program"."""
    return "the global program" if scope is None else f"the program of {describe(scope)}"


def require(queues: frozenset[int], interface: Interface, what: str) -> None:
    """Refuse RX queues that an interface can never have, or that the kernel cannot tell apart.

    Raises:
        UsageError: there are no queues, or the interface was not made with that many.
        RequirementUnmet: it is beyond what one program can tell apart.
    """
    if not queues or min(queues) < 0:
        raise UsageError(what, cause="no queue is named")
    last = max(queues)
    if last >= interface.rx_queues:
        number = interface.rx_queues
        has = "one RX queue, queue 0" if number == 1 else f"RX queues 0 to {number - 1}"
        raise UsageError(what, cause=f"{interface.name} has {has}, and no queue {last}")
    if last >= MAX_QUEUES:
        raise RequirementUnmet(
            what,
            cause=f"queue {last} cannot have a program of its own: the kernel allows 1,024 tail"
            f" calls of constant slots in one program, which are queues 0 to {MAX_QUEUES - 1} and"
            " the global program",
            remedy=f"leave the queues from {MAX_QUEUES} on to the global program",
        )
