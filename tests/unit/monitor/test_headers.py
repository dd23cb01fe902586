# SPDX-License-Identifier: Apache-2.0
"""What is told of a frame by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from xdpkit.monitor.headers import summary

V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fe80::1", dst="2001:db8::2")
TCP_PORTS = TCP(sport=40000, dport=80)
UDP_PORTS = UDP(sport=53, dport=5353)
HERE, THERE = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        (V4 / TCP_PORTS, "IPv4 TCP 10.0.0.1:40000 > 10.0.0.2:80"),
        (V4 / UDP_PORTS, "IPv4 UDP 10.0.0.1:53 > 10.0.0.2:5353"),
        (V4 / ICMP(type=3, code=4), "IPv4 ICMP type 3 code 4 10.0.0.1 > 10.0.0.2"),
        (IP(src="1.2.3.4", dst="5.6.7.8", proto=99), "IPv4 protocol 99 1.2.3.4 > 5.6.7.8"),
        (
            IP(src="1.2.3.4", dst="5.6.7.8", options=[b"\x01"] * 4) / UDP_PORTS,
            "IPv4 UDP 1.2.3.4:53 > 5.6.7.8:5353",
        ),
        (
            IP(src="1.2.3.4", dst="5.6.7.8", frag=5, proto=17) / Raw(b"payload."),
            "IPv4 UDP 1.2.3.4 > 5.6.7.8",
        ),
        (V6 / TCP_PORTS, "IPv6 TCP [fe80::1]:40000 > [2001:db8::2]:80"),
        (V6 / ICMPv6EchoRequest(), "IPv6 ICMPv6 type 128 code 0 fe80::1 > 2001:db8::2"),
        (
            V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP_PORTS,
            "IPv6 UDP [fe80::1]:53 > [2001:db8::2]:5353",
        ),
        (
            V6 / IPv6ExtHdrFragment(offset=0, m=1) / UDP_PORTS,
            "IPv6 UDP [fe80::1]:53 > [2001:db8::2]:5353",
        ),
        (
            V6 / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(b"payload."),
            "IPv6 UDP fe80::1 > 2001:db8::2",
        ),
        (
            ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
            "ARP who has 10.0.0.2, asks 10.0.0.1",
        ),
        (
            ARP(op=2, psrc="10.0.0.2", hwsrc=HERE),
            f"ARP 10.0.0.2 is at {HERE}",
        ),
        (ARP(op=9), "ARP operation 9"),
        (Dot1Q(vlan=5) / V4 / TCP_PORTS, "VLAN 5 IPv4 TCP 10.0.0.1:40000 > 10.0.0.2:80"),
        (
            Dot1AD(vlan=7) / Dot1Q(vlan=5, prio=3) / V4 / TCP_PORTS,
            "VLAN 7 VLAN 5 IPv4 TCP 10.0.0.1:40000 > 10.0.0.2:80",
        ),
    ],
)
def test_what_a_frame_carries_is_told(packet: Packet, told: str) -> None:
    assert summary(bytes(Ether(src=HERE, dst=THERE) / packet)) == told


def test_of_what_is_not_known_the_addresses_are_told() -> None:
    assert summary(bytes(Ether(src=HERE, dst=THERE, type=0x88B5))) == f"0x88b5 {HERE} > {THERE}"
    assert summary(bytes(Ether(src=HERE, dst=THERE, type=38))) == f"802.3 {HERE} > {THERE}"


def test_of_a_frame_that_was_cut_what_is_there_is_told() -> None:
    frame = bytes(Ether(src=HERE, dst=THERE) / V4 / TCP_PORTS)

    assert summary(frame[:36]) == "IPv4 TCP 10.0.0.1 > 10.0.0.2"
    assert summary(frame[:20]) == f"0x0800 {HERE} > {THERE}"
    assert summary(frame[:5]) == "5 bytes of an Ethernet header"
    assert summary(b"") == ""


def test_a_header_that_contradicts_itself_is_not_believed() -> None:
    ethernet = bytes(Ether(src=HERE, dst=THERE, type=0x0800))
    inside = bytearray(bytes(V4 / UDP_PORTS))
    inside[0] = 0x41
    assert summary(ethernet + inside) == "IPv4 UDP 10.0.0.1 > 10.0.0.2"
    inside[0] = 0x65
    assert summary(ethernet + inside) == f"0x0800 {HERE} > {THERE}"


kinds = st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8"])


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda start, kinds, rest: start + b"".join(kinds) + rest,
        st.binary(min_size=12, max_size=12),
        st.lists(kinds, min_size=1, max_size=8),
        st.binary(max_size=80),
    )
)
def test_any_bytes_are_told_in_one_printable_line(frame: bytes) -> None:
    told = summary(frame)

    assert told.isprintable()
    assert len(told) < 200
