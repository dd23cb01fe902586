# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts of each interface, and what state it is in (``RTM_GETLINK``).

:func:`decode_statistics` is pure; :func:`dump_statistics` uses it on a
:class:`~xdpkit.syscalls.netlink.NetlinkSocket`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.rtnetlink import (
    LinkInfo,
    decode_link,
    decode_link_attributes,
    encode_selector,
)
from xdpkit.uapi.if_link import Ifla, RouteMessage

# struct rtnl_link_stats64 begins with received and sent packets, then bytes of both.
_STATS64 = struct.Struct("=QQQQ")


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """An interface and what it has received and sent since it was made.

    Whether frames count that XDP dropped, redirected or transmitted is up to the driver; most of
    them, veth among them, count each that they receive or send.

    Attributes:
        link: the interface.
        received, sent: frames. received_bytes, sent_bytes: their bytes.
    """

    link: LinkInfo
    received: int
    received_bytes: int
    sent: int
    sent_bytes: int


def decode_statistics(payload: bytes) -> LinkStatistics:
    """Return what an ``RTM_NEWLINK`` message says; without statistics, all of them are 0.

    Raises:
        KernelRefused: EBADMSG: the message is malformed.
    """
    link = decode_link(payload)
    counted = decode_link_attributes(payload).get(Ifla.STATS64, b"").ljust(_STATS64.size, b"\0")
    received, sent, received_bytes, sent_bytes = _STATS64.unpack_from(counted)
    return LinkStatistics(link, received, received_bytes, sent, sent_bytes)


def dump_statistics(connection: NetlinkSocket) -> dict[int, LinkStatistics]:
    """Return all interfaces of the socket's namespace, by index.

    Raises:
        KernelRefused: EAGAIN: they kept changing.
    """
    answers = connection.dump(
        RouteMessage.GETLINK,
        encode_selector(statistics=True),
        what="read statistics of interfaces",
    )
    found = (
        decode_statistics(message.payload)
        for message in answers
        if message.type == RouteMessage.NEWLINK
    )
    return {each.link.index: each for each in found}
