# SPDX-License-Identifier: Apache-2.0
"""Which of the interfaces that are there now a port's interface is.

Interfaces are renamed, get another index when they come back, and move between namespaces; names,
indexes and addresses are used again. So a port's interface is known by several marks, and these are
the rules, the surest first. Where it belongs, which is the namespace where it was added:

1. the same index, the same kind, and the name or the address (MAC) as it was;
2. the same name;
3. the same name in a namespace that is called as that one was, if that one is nowhere any more: a
   container's namespace that was made anew.

Elsewhere:

4. where it was last, by the first two rules;
5. in any namespace, the same kind and address, and the name or the index as it was.

Who may make interfaces in a namespace of his own can give them any name and address. So what is
elsewhere never outranks what has the name of the port's interface where that belongs, and such an
interface wins again when it comes.

A rule is asked for all ports before the next one, and an interface that is one port's is none's
else. Where a rule leaves a choice it says nothing: to send a port's frames to somebody else is
worse than not to send them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType

from xdpkit.tables.model import Identity, Port

_Mark = Callable[[Identity], Hashable]
_Rule = tuple[_Mark, Callable[[Identity, Identity], bool]]


def recognise(
    known: Mapping[int, Identity],
    seen: Iterable[Identity],
    homes: Mapping[int, Identity] = MappingProxyType({}),
) -> dict[int, Identity]:
    """Return the ports' interfaces as they are now, as far as they are there.

    Args:
        known: the ports' interfaces as they were last seen, by port number.
        seen: the interfaces that are there now.
        homes: of those that are elsewhere, what :func:`homes_of` gives.
    """
    free = list(seen)
    away = {number: each for number, each in known.items() if number in homes}
    belonging = {number: homes.get(number, each) for number, each in known.items()}
    namespaces = {each.netns_cookie for each in free}
    gone = {
        number: each
        for number, each in belonging.items()
        if _is_called(each) and each.netns_cookie not in namespaces
    }
    found: dict[int, Identity] = {}
    for before, rule in (
        (belonging, _IN_PLACE),
        (belonging, _BY_NAME),
        (gone, _MADE_ANEW),
        (belonging, _BY_ADDRESS_THERE),
        (away, _IN_PLACE),
        (away, _BY_NAME),
        (known, _BY_ADDRESS),
    ):
        missing = {number: each for number, each in before.items() if number not in found}
        if rule is _BY_ADDRESS:
            names = {_name(each) for each in free}
            missing = {
                number: each
                for number, each in missing.items()
                if _name(belonging[number]) not in names
            }
        if missing:
            new = _matches(missing, free, rule)
            found |= new
            taken = {each.place for each in new.values()}
            free = [each for each in free if each.place not in taken]
    return found


def homes_of(ports: Iterable[Port]) -> dict[int, Identity]:
    """Return the interfaces that are elsewhere as they were where they belong, by port number."""
    return {
        port.number: port.home
        for port in ports
        if port.interface is not None and port.home is not None
    }


def home_of(before: Identity, home: Identity | None, now: Identity) -> Identity | None:
    """Return what is to be remembered of where an interface belongs; None: it is there.

    Args:
        before: the interface as it was last seen.
        home: what was remembered until now.
        now: the interface as it was recognised.
    """
    own = before if home is None else home
    is_there = now.netns_cookie == own.netns_cookie or is_made_anew(own, now)
    return None if is_there else own


def is_made_anew(before: Identity, now: Identity) -> bool:
    """Whether an interface's namespace is another one now, in the place of the one that it was."""
    return (
        now.netns_cookie != before.netns_cookie
        and _is_called(before)
        and (now.netns, now.name) == (before.netns, before.name)
    )


def _matches(
    known: Mapping[int, Identity], free: Iterable[Identity], rule: _Rule
) -> dict[int, Identity]:
    """Return what one rule says, where port and interface are each other's only choice."""
    mark, fits = rule
    by_mark: dict[Hashable, list[Identity]] = {}
    for each in free:
        by_mark.setdefault(mark(each), []).append(each)
    chosen: dict[int, Identity] = {}
    wanted: Counter[tuple[int, int]] = Counter()
    for number, before in known.items():
        candidates = [now for now in by_mark.get(mark(before), ()) if fits(before, now)]
        wanted.update(now.place for now in candidates)
        if len(candidates) == 1:
            chosen[number] = candidates[0]
    return {number: now for number, now in chosen.items() if wanted[now.place] == 1}


def _is_called(interface: Identity) -> bool:
    """Whether its namespace has a name, and not only a path, which may be any process's."""
    return interface.netns is not None and "/" not in interface.netns


def _name(interface: Identity) -> tuple[int, str]:
    return interface.netns_cookie, interface.name


def _has_same_address(before: Identity, now: Identity) -> bool:
    # Tunnels have none, and loopback devices all the same one: zeros.
    return before.mac == now.mac and any(now.mac)


def _fits_by_address(before: Identity, now: Identity) -> bool:
    return _has_same_address(before, now) and (
        before.name == now.name or before.ifindex == now.ifindex
    )


_IN_PLACE: _Rule = (
    lambda each: (each.place, each.kind),
    lambda before, now: before.name == now.name or _has_same_address(before, now),
)
_BY_NAME: _Rule = (_name, lambda _before, _now: True)
_MADE_ANEW: _Rule = (lambda each: (each.netns, each.name), lambda _before, _now: True)
_BY_ADDRESS_THERE: _Rule = (
    lambda each: (each.netns_cookie, each.mac, each.kind),
    _fits_by_address,
)
_BY_ADDRESS: _Rule = (lambda each: (each.mac, each.kind), _fits_by_address)
