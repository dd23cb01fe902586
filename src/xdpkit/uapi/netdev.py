# SPDX-License-Identifier: Apache-2.0
"""The ``netdev`` generic netlink family (include/uapi/linux/netdev.h), Linux 6.3."""

from __future__ import annotations

import enum

NETDEV_FAMILY_NAME = "netdev"
NETDEV_MCGRP_MGMT = "mgmt"


class NetdevCommand(enum.IntEnum):
    """``NETDEV_CMD_*``."""

    DEV_GET = 1
    DEV_ADD_NTF = 2
    DEV_DEL_NTF = 3
    DEV_CHANGE_NTF = 4


class NetdevAttribute(enum.IntEnum):
    """``NETDEV_A_DEV_*``."""

    IFINDEX = 1
    XDP_FEATURES = 3
    XDP_ZC_MAX_SEGS = 4
    XDP_RX_METADATA_FEATURES = 5
    XSK_FEATURES = 6


class XdpAct(enum.IntFlag):
    """``NETDEV_XDP_ACT_*``: what a device's native XDP does.

    BASIC is ABORTED, DROP, PASS and TX together. NDO_XMIT: other devices can redirect to this one.
    """

    BASIC = 1 << 0
    REDIRECT = 1 << 1
    NDO_XMIT = 1 << 2
    XSK_ZEROCOPY = 1 << 3
    HW_OFFLOAD = 1 << 4
    RX_SG = 1 << 5
    NDO_XMIT_SG = 1 << 6


class XdpRxMetadata(enum.IntFlag):
    """``NETDEV_XDP_RX_METADATA_*``: the hints that the metadata kfuncs can give."""

    TIMESTAMP = 1 << 0
    HASH = 1 << 1
    VLAN_TAG = 1 << 2


class XskFlags(enum.IntFlag):
    """``NETDEV_XSK_FLAGS_*``: what an AF_XDP socket's transmit side can ask for."""

    TX_TIMESTAMP = 1 << 0
    TX_CHECKSUM = 1 << 1
    TX_LAUNCH_TIME_FIFO = 1 << 2
