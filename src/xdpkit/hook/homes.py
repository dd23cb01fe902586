# SPDX-License-Identifier: Apache-2.0
"""Whether a program is still where it was attached, or its interface has moved away."""

from __future__ import annotations

from collections.abc import Collection

from xdpkit.errors import UsageError
from xdpkit.interfaces import Interface, resolve
from xdpkit.interfaces.namespaces import Reachable, reachable


def ids_on(interface: Interface) -> tuple[int | None, ...]:
    """Return the ids of the programs on an interface's hooks."""
    return (interface.xdp.native, interface.xdp.generic, interface.xdp.offload)


def is_still_there(netns_cookie: int, ifindex: int, programs: Collection[int]) -> bool | None:
    """Return whether an interface has one of these programs, None where it cannot be looked at.

    One program can be on several hooks: that it is on one does not say that it left another.
    """
    interface, is_gone = _look(netns_cookie, ifindex, reachable())
    if interface is None:
        return False if is_gone else None
    return any(program in programs for program in ids_on(interface))


def ids_at(netns_cookie: int, ifindex: int, places: Reachable) -> tuple[int | None, ...] | None:
    """Return the ids of the programs on an interface's hooks; None where it cannot be looked at.

    Args:
        netns_cookie, ifindex: the interface. places: the namespaces that can be reached.
    """
    interface, is_gone = _look(netns_cookie, ifindex, places)
    if interface is None:
        return () if is_gone else None
    return ids_on(interface)


def is_gone(netns_cookie: int, ifindex: int, places: Reachable) -> bool:
    """Return whether there is certainly no such interface any more.

    Args:
        netns_cookie, ifindex: the interface. places: the namespaces that can be reached.
    """
    return _look(netns_cookie, ifindex, places)[1]


def _look(netns_cookie: int, ifindex: int, places: Reachable) -> tuple[Interface | None, bool]:
    """Return an interface, None where it is not seen, and whether it is certainly gone."""
    place = places.get(netns_cookie)
    if place is None:
        return None, not places.unseen
    try:
        interface = resolve(ifindex, netns=place.netns)
    except UsageError:
        return None, True
    # Else another namespace has taken the name, or the process's number.
    return (interface if interface.netns_cookie == netns_cookie else None), False
