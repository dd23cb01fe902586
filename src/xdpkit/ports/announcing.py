# SPDX-License-Identifier: Apache-2.0
"""What the kernel announces about interfaces, of several network namespaces.

A socket in a namespace would keep it alive after its name and its processes have gone, and its
interfaces with it. So there is one only, in the caller's own, which hears of the others: of those
that have a number here (``NETLINK_LISTEN_ALL_NSID``), and they are given one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xdpkit.ports import seeing
from xdpkit.syscalls import netns, nsid
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.netlink import Message, NetlinkSocket
from xdpkit.syscalls.rtnetlink import decode_link
from xdpkit.tables.model import Identity
from xdpkit.uapi.if_link import RTNLGRP_LINK, RouteMessage


@dataclass(frozen=True, slots=True)
class Heard:
    """What was announced.

    Attributes:
        indexes, names, macs: those of the interfaces that it was about, in whichever namespace.
        is_anything: whether there was anything, or something was lost.
    """

    indexes: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    macs: frozenset[bytes] = frozenset()
    is_anything: bool = False

    def concerns(self, interface: Identity) -> bool:
        """Whether it may have been about an interface: has its index, its name or its address."""
        return (
            interface.ifindex in self.indexes
            or interface.name in self.names
            or interface.mac in self.macs
        )


NOTHING = Heard()


def understood(messages: Iterable[Message]) -> Heard:
    """Return what was announced by these messages; pure."""
    links = [
        decode_link(message.payload)
        for message in messages
        if message.type in (RouteMessage.NEWLINK, RouteMessage.DELLINK)
    ]
    return Heard(
        frozenset(link.index for link in links),
        frozenset(link.name for link in links),
        frozenset(link.mac for link in links if any(link.mac)),
        bool(links),
    )


class Announcements(Closing):
    """Hears of changes of interfaces. A context manager; not to be shared between threads."""

    def __init__(self) -> None:
        """Begin to hear of the caller's own network namespace."""
        self._known: set[int] = {netns.cookie()}
        self._requests = NetlinkSocket()
        try:
            self._links = NetlinkSocket()
        except BaseException:
            self._requests.close()
            raise
        try:
            self._links.join(RTNLGRP_LINK)
            self._hears_others = self._links.hear_other_namespaces()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that can be read when something was announced."""
        return self._links.fileno()

    def include(self, places: Mapping[int, str | None]) -> bool:
        """Hear of network namespaces, too; return whether any was not heard of before.

        Where that is not possible (it takes CAP_NET_BROADCAST) nothing is heard of them.

        Args:
            places: how to enter them, by their cookies.
        """
        new = places.keys() - self._known if self._hears_others else ()
        is_any_heard = False
        for cookie in new:
            with seeing.inside(places[cookie], cookie) as is_there:
                if is_there:
                    self._known.add(cookie)
                    with netns.own("hear of its interfaces") as descriptor:
                        is_any_heard |= nsid.give_number(self._requests, descriptor.fileno())
        return is_any_heard

    def heard(self) -> Heard:
        """Read what was announced."""
        messages = self._links.notifications()
        if messages is None:
            return Heard(is_anything=True)
        return understood(messages)

    def close(self) -> None:
        """Close the sockets; safe to repeat."""
        self._links.close()
        self._requests.close()
