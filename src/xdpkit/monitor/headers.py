# SPDX-License-Identifier: Apache-2.0
"""What a frame begins with, in a few words: enough to recognise it.

Any bytes will do, cut off anywhere: what is told is what is there. All of it is made of numbers, so
there is nothing in it that could harm a terminal.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

_ETHERNET = struct.Struct("!6s6sH")
_TAG = struct.Struct("!HH")
_TAGS = {0x8100, 0x88A8, 0x9100}
_MOST_TAGS = 4
_LEAST_ETHERTYPE = 0x600  # below, it is a length: IEEE 802.3

_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_ARP_FIELDS = struct.Struct("!HHBBH6s4s6s4s")

_FRAGMENT_OFFSET = 0x1FFF
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "ICMPv6"}
_PROTOCOLS |= {89: "OSPF", 132: "SCTP"}
_WITH_PORTS = {6, 17, 132}
_WITH_TYPE = {1, 58}

# Headers that can be before what an IPv6 packet carries (RFC 8200), without fragments.
_EXTENSIONS = {0, 43, 60}
_FRAGMENT = 44


def summary(frame: bytes) -> str:
    """Return what an Ethernet frame is: ``IPv4 TCP 10.0.0.1:40000 > 10.0.0.2:80``."""
    if len(frame) < _ETHERNET.size:
        return f"{len(frame)} bytes of an Ethernet header" if frame else ""
    target, source, kind = _ETHERNET.unpack_from(frame)
    at = _ETHERNET.size
    tags = ""
    for _ in range(_MOST_TAGS):
        if kind not in _TAGS or len(frame) < at + _TAG.size:
            break
        control, kind = _TAG.unpack_from(frame, at)
        at += _TAG.size
        tags += f"VLAN {control & 0xFFF} "
    rest = frame[at:]
    told = ""
    if kind == _IPV4:
        told = _ipv4(rest)
    elif kind == _IPV6:
        told = _ipv6(rest)
    elif kind == _ARP:
        told = _arp(rest)
    name = f"{kind:#06x}" if kind >= _LEAST_ETHERTYPE else "802.3"
    return tags + (told or f"{name} {source.hex(':')} > {target.hex(':')}")


def _ipv4(packet: bytes) -> str:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return ""
    source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    (fragment,) = struct.unpack_from("!H", packet, 6)
    start = (packet[0] & 0xF) * 4
    inner = packet[start:] if start >= 20 and not fragment & _FRAGMENT_OFFSET else b""
    return _carried("IPv4", packet[9], f"{source}", f"{target}", inner)


def _ipv6(packet: bytes) -> str:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return ""
    source, target = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    protocol, inner = packet[6], packet[40:]
    while protocol in _EXTENSIONS and len(inner) >= 8:
        protocol, inner = inner[0], inner[(inner[1] + 1) * 8 :]
    if protocol == _FRAGMENT and len(inner) >= 8:
        (offset,) = struct.unpack_from("!H", inner, 2)
        protocol, inner = inner[0], b"" if offset >> 3 else inner[8:]
    return _carried("IPv6", protocol, f"{source}", f"{target}", inner)


def _carried(version: str, protocol: int, source: str, target: str, inner: bytes) -> str:
    name = f"{version} {_PROTOCOLS.get(protocol, f'protocol {protocol}')}"
    if protocol in _WITH_PORTS and len(inner) >= 4:
        ports = struct.unpack_from("!HH", inner)
        form = "[{}]:{}" if version == "IPv6" else "{}:{}"
        source, target = form.format(source, ports[0]), form.format(target, ports[1])
    if protocol in _WITH_TYPE and len(inner) >= 2:
        name += f" type {inner[0]} code {inner[1]}"
    return f"{name} {source} > {target}"


def _arp(packet: bytes) -> str:
    if len(packet) < _ARP_FIELDS.size:
        return ""
    _, protocol, _, _, operation, hardware, sender, _, wanted = _ARP_FIELDS.unpack_from(packet)
    if protocol != _IPV4:
        return ""
    if operation == 1:
        return f"ARP who has {IPv4Address(wanted)}, asks {IPv4Address(sender)}"
    if operation == 2:
        return f"ARP {IPv4Address(sender)} is at {hardware.hex(':')}"
    return f"ARP operation {operation}"
