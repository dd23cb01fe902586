# SPDX-License-Identifier: Apache-2.0
"""What the ``netdev`` family says of a device's XDP (Documentation/netlink/specs/netdev.yaml).

:func:`decode_device` is pure; :func:`get_device` and :func:`dump_devices` use it on a generic
netlink socket.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from xdpkit.errors import KernelRefused
from xdpkit.syscalls import genetlink
from xdpkit.syscalls.genetlink import Family
from xdpkit.syscalls.netlink import NetlinkSocket, decode_number, encode_attribute
from xdpkit.uapi.netdev import (
    NETDEV_FAMILY_NAME,
    NetdevAttribute,
    NetdevCommand,
    XdpAct,
    XdpRxMetadata,
    XskFlags,
)

_known: dict[str, Family] = {}


@dataclass(frozen=True, slots=True)
class NetdevInfo:
    """What ``NETDEV_CMD_DEV_GET`` says of a device.

    Attributes:
        index: interface index.
        features: what native XDP does. Zero means none, or a driver that does not report.
        zc_max_segs: how many frags an AF_XDP zero-copy frame may have, 1 being a frame without;
            None where there is no zero-copy, or before Linux 6.6.
        rx_metadata: the hints that the metadata kfuncs can give; None before Linux 6.8.
        xsk: what AF_XDP transmit can be asked for; None before Linux 6.8.
    """

    index: int
    features: XdpAct
    zc_max_segs: int | None
    rx_metadata: XdpRxMetadata | None
    xsk: XskFlags | None


def decode_device(payload: bytes) -> NetdevInfo:
    """Return what an answer to ``NETDEV_CMD_DEV_GET``, or a notification, says.

    Raises:
        KernelRefused: EBADMSG: the message is malformed, or tells no interface index.
    """
    _, attributes = genetlink.decode_payload(payload)

    def number(kind: NetdevAttribute) -> int | None:
        value = attributes.get(kind)
        return decode_number(value) if value is not None else None

    index = number(NetdevAttribute.IFINDEX)
    if index is None:
        raise KernelRefused(
            "read NETDEV_CMD_DEV_GET", errno=errno.EBADMSG, cause="the answer has no ifindex"
        )
    rx_metadata = number(NetdevAttribute.XDP_RX_METADATA_FEATURES)
    xsk = number(NetdevAttribute.XSK_FEATURES)
    return NetdevInfo(
        index=index,
        features=XdpAct(number(NetdevAttribute.XDP_FEATURES) or 0),
        zc_max_segs=number(NetdevAttribute.XDP_ZC_MAX_SEGS),
        rx_metadata=XdpRxMetadata(rx_metadata) if rx_metadata is not None else None,
        xsk=XskFlags(xsk) if xsk is not None else None,
    )


def find_family(connection: NetlinkSocket) -> Family | None:
    """Return the ``netdev`` family; None before Linux 6.3.

    Its number is asked for once: the family is part of the kernel itself, and no module's
    (net/core/netdev-genl.c).

    Linux 6.3 (d3d854fd6a1d): "netdev-genl: create a simple family for netdev stuff".
    """
    found = _known.get(NETDEV_FAMILY_NAME)
    if found is None:
        found = genetlink.find_family(connection, NETDEV_FAMILY_NAME)
        if found is not None:
            _known[NETDEV_FAMILY_NAME] = found
    return found


def get_device(connection: NetlinkSocket, family: Family, index: int) -> NetdevInfo | None:
    """Return what the family says of one device of the socket's namespace; None: it is gone.

    Raises:
        KernelRefused: the family refused for another reason.
    """
    try:
        answers = genetlink.ask(
            connection,
            family,
            NetdevCommand.DEV_GET,
            encode_attribute(NetdevAttribute.IFINDEX, struct.pack("=I", index)),
            what=f"ask netdev about interface {index}",
        )
    except KernelRefused as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    return decode_device(answers[0].payload) if answers else None


def dump_devices(connection: NetlinkSocket, family: Family) -> tuple[NetdevInfo, ...]:
    """Return what the family says of all devices of the socket's namespace, by index.

    Raises:
        KernelRefused: EAGAIN: they kept changing.
    """
    answers = genetlink.ask_all(
        connection, family, NetdevCommand.DEV_GET, what="ask netdev about all interfaces"
    )
    devices = (decode_device(message.payload) for message in answers)
    return tuple(sorted(devices, key=lambda device: device.index))
