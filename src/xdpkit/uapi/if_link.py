# SPDX-License-Identifier: Apache-2.0
"""Interfaces, and XDP's part of them, in rtnetlink (include/uapi/linux/{if_link,rtnetlink}.h)."""

from __future__ import annotations

import enum

IFNAMSIZ = 16
ALTIFNAMSIZ = 128

IFF_UP = 1 << 0
IFF_LOWER_UP = 1 << 16

# include/uapi/linux/if_arp.h
ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772


class RouteMessage(enum.IntEnum):
    """``RTM_*``."""

    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    SETLINK = 19


RTNLGRP_LINK = 1
"""The multicast group that interfaces are announced in."""


class Ifla(enum.IntEnum):
    """``IFLA_*``: the attributes of an interface."""

    ADDRESS = 1
    IFNAME = 3
    MTU = 4
    LINK = 5
    LINKINFO = 18
    STATS64 = 23
    EXT_MASK = 29
    NUM_TX_QUEUES = 31
    NUM_RX_QUEUES = 32
    LINK_NETNSID = 37
    XDP = 43
    TARGET_NETNSID = 46
    ALT_IFNAME = 53


class IflaInfo(enum.IntEnum):
    """``IFLA_INFO_*``: the attributes nested in ``IFLA_LINKINFO``."""

    KIND = 1


class ExtMask(enum.IntFlag):
    """``RTEXT_FILTER_*``: what a reply may leave out or has to have."""

    SKIP_STATS = 1 << 3


class XdpFlags(enum.IntFlag):
    """``XDP_FLAGS_*``."""

    UPDATE_IF_NOEXIST = 1 << 0
    SKB_MODE = 1 << 1
    DRV_MODE = 1 << 2
    HW_MODE = 1 << 3
    REPLACE = 1 << 4


class XdpAttached(enum.IntEnum):
    """``XDP_ATTACHED_*``: how a program is attached."""

    NONE = 0
    DRV = 1
    SKB = 2
    HW = 3
    MULTI = 4


class IflaXdp(enum.IntEnum):
    """``IFLA_XDP_*``: the attributes nested in ``IFLA_XDP``."""

    UNSPEC = 0
    FD = 1
    ATTACHED = 2
    FLAGS = 3
    PROG_ID = 4
    DRV_PROG_ID = 5
    SKB_PROG_ID = 6
    HW_PROG_ID = 7
    EXPECTED_FD = 8
