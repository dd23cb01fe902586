# SPDX-License-Identifier: Apache-2.0
"""Whether a program is still where it was attached, or its interface has moved away."""

from __future__ import annotations

from collections.abc import Collection

from xdpkit.errors import UsageError
from xdpkit.interfaces import Interface, resolve
from xdpkit.interfaces.namespaces import reachable


def ids_on(interface: Interface) -> tuple[int | None, ...]:
    """Return the ids of the programs on an interface's hooks."""
    return (interface.xdp.native, interface.xdp.generic, interface.xdp.offload)


def is_still_there(netns_cookie: int, ifindex: int, programs: Collection[int]) -> bool | None:
    """Return whether an interface has one of these programs, None where it cannot be looked at.

    One program can be on several hooks: that it is on one does not say that it left another.
    """
    places = reachable()
    place = places.get(netns_cookie)
    if place is None:
        return None if places.unseen else False
    try:
        interface = resolve(ifindex, netns=place.netns)
    except UsageError:
        return False
    if interface.netns_cookie != netns_cookie:
        # Another namespace has taken the name, or the process's number.
        return None
    return any(program in programs for program in ids_on(interface))
