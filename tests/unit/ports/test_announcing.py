# SPDX-License-Identifier: Apache-2.0
"""Which ports an announcement of the kernel is about."""

from __future__ import annotations

import struct
from dataclasses import replace

from xdpkit.ports.announcing import NOTHING, understood
from xdpkit.syscalls.netlink import Message, encode_attribute
from xdpkit.tables.model import Identity
from xdpkit.uapi.if_link import Ifla, RouteMessage

PORT = Identity("eth1", 7, 1, None, b"\2\0\0\0\0\1", "veth")
STRANGER = Identity("eth2", 8, 1, None, b"\2\0\0\0\0\2", "veth")


def about(interface: Identity, kind: int = RouteMessage.NEWLINK) -> Message:
    payload = struct.pack("=BxHiII", 0, 1, interface.ifindex, 0, 0)
    payload += encode_attribute(Ifla.IFNAME, interface.name.encode() + b"\0")
    payload += encode_attribute(Ifla.ADDRESS, interface.mac)
    return Message(kind, 0, 0, 0, payload)


def test_what_has_the_index_the_name_or_the_address_of_an_interface_may_concern_it() -> None:
    for kind in (RouteMessage.NEWLINK, RouteMessage.DELLINK):
        for one in (
            replace(STRANGER, ifindex=7),
            replace(STRANGER, name="eth1"),
            replace(STRANGER, mac=PORT.mac),
        ):
            assert understood([about(STRANGER), about(one, kind)]).concerns(PORT)
    assert not understood([about(STRANGER)]).concerns(PORT)
    assert understood([about(STRANGER)]).is_anything


def test_an_address_of_zeros_is_nobodys() -> None:
    loopback = replace(PORT, mac=bytes(6))
    assert not understood([about(replace(STRANGER, mac=bytes(6)))]).concerns(loopback)


def test_what_is_announced_of_other_things_is_nothing() -> None:
    assert understood([about(PORT, 24)]) == NOTHING
    assert not NOTHING.is_anything
    assert not NOTHING.concerns(PORT)
