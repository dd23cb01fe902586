# SPDX-License-Identifier: Apache-2.0
"""Netlink's message layer (include/uapi/linux/netlink.h)."""

from __future__ import annotations

import enum

SOL_NETLINK = 270

NLA_F_NESTED = 1 << 15
NLA_F_NET_BYTEORDER = 1 << 14
NLA_TYPE_MASK = 0xFFFF & ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER)


class NetlinkProtocol(enum.IntEnum):
    """``NETLINK_*``: the protocol of a netlink socket."""

    ROUTE = 0
    GENERIC = 16


class SocketOption(enum.IntEnum):
    """``NETLINK_*``: options at level ``SOL_NETLINK``."""

    CAP_ACK = 10
    EXT_ACK = 11
    GET_STRICT_CHK = 12


class MessageType(enum.IntEnum):
    """``NLMSG_*``: the message types that every protocol shares."""

    NOOP = 1
    ERROR = 2
    DONE = 3
    OVERRUN = 4


class MessageFlags(enum.IntFlag):
    """``NLM_F_*``.

    One bit can mean two things: CAPPED and ACK_TLVS belong to ``NLMSG_ERROR`` and ``NLMSG_DONE``,
    ROOT and MATCH to requests.
    """

    REQUEST = 0x1
    MULTI = 0x2
    ACK = 0x4
    DUMP_INTR = 0x10
    ROOT = 0x100
    MATCH = 0x200
    DUMP = 0x300
    CAPPED = 0x100
    ACK_TLVS = 0x200


class ErrorAttribute(enum.IntEnum):
    """``NLMSGERR_ATTR_*``: what an extended acknowledgement carries."""

    MSG = 1
    OFFS = 2
