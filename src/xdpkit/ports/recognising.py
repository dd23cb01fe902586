# SPDX-License-Identifier: Apache-2.0
"""Which of the interfaces that are there now a port's interface is.

Interfaces are renamed, get another index when they come back, and move between namespaces; names,
indexes and addresses are used again. So a port's interface is known by several marks, and these are
the rules, the surest first:

1. the same index in the same namespace, and the name or the address (MAC) as it was;
2. the same name in the same namespace;
3. in any namespace, the same address, and the name or the index as it was.

A rule is asked for all ports before the next one, and an interface that is one port's is none's
else. Where a rule leaves a choice it says nothing: to send a port's frames to somebody else is
worse than not to send them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping

from xdpkit.tables.model import Identity

_Mark = Callable[[Identity], Hashable]
_Rule = tuple[_Mark, Callable[[Identity, Identity], bool]]


def recognise(known: Mapping[int, Identity], seen: Iterable[Identity]) -> dict[int, Identity]:
    """Return the ports' interfaces as they are now, as far as they are there.

    Args:
        known: the ports' interfaces as they were last seen, by port number.
        seen: the interfaces that are there now.
    """
    free = list(seen)
    found: dict[int, Identity] = {}
    for mark, fits in _RULES:
        missing = {number: each for number, each in known.items() if number not in found}
        new = _matches(missing, free, mark, fits)
        found |= new
        taken = {_place(each) for each in new.values()}
        free = [each for each in free if _place(each) not in taken]
    return found


def _matches(
    known: Mapping[int, Identity],
    free: Iterable[Identity],
    mark: _Mark,
    fits: Callable[[Identity, Identity], bool],
) -> dict[int, Identity]:
    """Return what one rule says, where port and interface are each other's only choice."""
    by_mark: dict[Hashable, list[Identity]] = {}
    for each in free:
        by_mark.setdefault(mark(each), []).append(each)
    chosen: dict[int, Identity] = {}
    wanted: Counter[tuple[int, int]] = Counter()
    for number, before in known.items():
        candidates = [now for now in by_mark.get(mark(before), ()) if fits(before, now)]
        wanted.update(_place(now) for now in candidates)
        if len(candidates) == 1:
            chosen[number] = candidates[0]
    return {number: now for number, now in chosen.items() if wanted[_place(now)] == 1}


def _place(interface: Identity) -> tuple[int, int]:
    return interface.netns_cookie, interface.ifindex


def _name(interface: Identity) -> tuple[int, str]:
    return interface.netns_cookie, interface.name


def _address(interface: Identity) -> bytes:
    return interface.mac


def _has_same_address(before: Identity, now: Identity) -> bool:
    # Tunnels have none, and loopback devices all the same one: zeros.
    return before.mac == now.mac and any(now.mac)


_RULES: tuple[_Rule, ...] = (
    (
        _place,
        lambda before, now: before.name == now.name or _has_same_address(before, now),
    ),
    (_name, lambda _before, _now: True),
    (
        _address,
        lambda before, now: (
            _has_same_address(before, now)
            and (before.name == now.name or before.ifindex == now.ifindex)
        ),
    ),
)
