# SPDX-License-Identifier: Apache-2.0
"""What the kernel announces about interfaces, of several network namespaces.

A socket in a namespace would keep it alive after its name and its processes have gone, and its
interfaces with it. So there is one only, in the caller's own, which hears of the others: of those
that have a number here (``NETLINK_LISTEN_ALL_NSID``), and they are given one.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from xdpkit.errors import KernelRefused, MissingPrivilege
from xdpkit.ports import seeing
from xdpkit.syscalls import netns
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.netlink import NetlinkSocket, encode_attribute
from xdpkit.uapi.if_link import RTNLGRP_LINK
from xdpkit.uapi.net_namespace import NETNSA_NSID_NOT_ASSIGNED, NamespaceMessage, Netnsa

# struct rtgenmsg: family, padded to the attributes' alignment.
_RTGENMSG = bytes(4)


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
        self._known.update(new)
        is_any_heard = False
        for cookie in new:
            with seeing.inside(places[cookie], cookie) as is_there:
                if is_there:
                    with netns.own("hear of its interfaces") as descriptor:
                        is_any_heard |= self._number(descriptor.fileno())
        return is_any_heard

    def _number(self, descriptor: int) -> bool:
        """Give a namespace a number here; return whether it has one now."""
        payload = _RTGENMSG + encode_attribute(Netnsa.FD, struct.pack("=I", descriptor))
        payload += encode_attribute(Netnsa.NSID, struct.pack("=i", NETNSA_NSID_NOT_ASSIGNED))
        try:
            self._requests.request(
                NamespaceMessage.NEWNSID, payload, what="give a network namespace a number"
            )
        except MissingPrivilege:
            return False
        except KernelRefused as error:
            # It has one already.
            return error.errno == errno.EEXIST
        return True

    def heard(self) -> bool:
        """Read what was announced; return whether anything was, or was lost."""
        messages = self._links.notifications()
        return messages is None or bool(messages)

    def close(self) -> None:
        """Close the sockets; safe to repeat."""
        self._links.close()
        self._requests.close()
