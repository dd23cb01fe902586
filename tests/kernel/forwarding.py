# SPDX-License-Identifier: Apache-2.0
"""Hosts at the ports of a switch or a router, each in a network namespace, with real sockets.

The host has no static neighbours, and nothing is switched off in it by hand: what it takes for
frames to get through is to be done by those who forward.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit.interfaces import resolve
from xdpkit.interfaces.observation import GRO
from xdpkit.ports.peers import CHECKSUMS
from xdpkit.syscalls.ethtool import Offload, offloads_of
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered, path_of

# For frames that no stack knows (IEEE 802, local experimental): what is tested, and the fence.
TESTED, FENCE = 0x88B5, 0x88B6
# Kinds of VLAN tags: 802.1Q, 802.1ad.
CUSTOMER, SERVICE = 0x8100, 0x88A8
ALL = b"\xff" * 6

# What arrives comes at once; the limit only ends a run that has failed anyway.
_LONG = 20.0
_CHUNK = bytes(range(256)) * 256
_PORT = 5001
_SENT_BY_ITSELF = 4
# include/uapi/linux/if_ether.h, if_addr.h
_EVERY_KIND = 0x0003
_NO_DAD = 0x02


@dataclass(frozen=True, slots=True)
class Host:
    """A host.

    Attributes:
        netns: its namespace. iface: its only interface.
        mac, v4, v6: its addresses.
        port: the interface that it is at. gateway: the address of that.
    """

    netns: str
    iface: str
    mac: bytes
    v4: str
    v6: str
    port: str
    gateway: bytes

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Return a socket of the host's."""
        with entered(self.netns):
            made = socket.socket(family, kind, proto)
        made.settimeout(_LONG)
        return made

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        """Yield access to the frames on the host's interface."""
        with self.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
            packets.bind((self.iface, _EVERY_KIND))
            yield Wire(packets)

    def setting(self, path: str, value: object) -> None:
        """Set one of the host's sysctls."""
        with entered(self.netns):
            Path("/proc/sys/net", path).write_text(str(value))


@dataclass(frozen=True, slots=True)
class Wire:
    """The frames of an interface, as they are on the wire."""

    packets: socket.socket

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self.packets.send(frame)

    def received(self, until: bytes) -> list[bytes]:
        """Return the tested frames that have come until one that ends so; what is sent is none."""
        found: list[bytes] = []
        while True:
            ready, _, _ = select.select([self.packets], [], [], _LONG)
            assert ready, f"the frame that ends with {until!r} does not come"
            frame, (_, kind, packet_type, *_) = self.packets.recvfrom(65535)
            if packet_type == _SENT_BY_ITSELF or kind not in (TESTED, FENCE):
                continue
            if frame.endswith(until):
                return found
            if kind == TESTED:
                found.append(frame)


@dataclass(frozen=True, slots=True)
class Network:
    """Hosts, and the namespace in which the ports are that join them."""

    netns: str
    hosts: tuple[Host, ...]

    @property
    def ports(self) -> tuple[str, ...]:
        """The interfaces that are to be the ports."""
        return tuple(host.port for host in self.hosts)


def frame(
    to: bytes,
    by: bytes,
    text: bytes,
    *,
    kind: int = TESTED,
    vlan: int | None = None,
    tag_kind: int = CUSTOMER,
) -> bytes:
    """Return a frame of at least 60 bytes that ends with a text; with a tag if a VLAN is given."""
    tag = struct.pack("!HH", tag_kind, vlan) if vlan is not None else b""
    return to + by + tag + struct.pack("!H", kind) + text.rjust(46, b"\0")


def datagram(source: Host, destination: Host, port: int, text: bytes) -> bytes:
    """Return an IPv4 packet with a UDP datagram that has no checksum of its own."""
    udp = struct.pack("!HHHH", port, port, 8 + len(text), 0) + text
    fields = (0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP)
    addresses = socket.inet_aton(source.v4) + socket.inet_aton(destination.v4)
    total = sum(struct.unpack("!10H", struct.pack("!BBHHHBBH", *fields, 0) + addresses))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHHBBH", *fields, checksum) + addresses + udp


@contextlib.contextmanager
def lan(count: int) -> Iterator[Network]:
    """Yield hosts of one subnet each: 10.9.0.N and fd09::N."""
    with _network(count, lambda number: (f"10.9.0.{number}", f"fd09::{number:x}")) as found:
        yield found


@contextlib.contextmanager
def subnets(count: int) -> Iterator[Network]:
    """Yield hosts of a subnet of their own each, 10.9.N.2 and fd09:N::2, which route to .1."""
    with _network(count, lambda number: (f"10.9.{number}.2", f"fd09:{number:x}::2")) as found:
        with entered(found.netns):
            for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path("/proc/sys/net", path).write_text("1")
        for number, host in enumerate(found.hosts, 1):
            gateways = f"10.9.{number}.1", f"fd09:{number:x}::1"
            _allow_v6(found.netns, host.port)
            _configure(found.netns, host.port, *gateways)
            with rtnetlink(host.netns) as connection:
                connection.route("add", dst="default", gateway=gateways[0])
                connection.route("add", dst="default", family=socket.AF_INET6, gateway=gateways[1])
        yield found


@contextlib.contextmanager
def _network(count: int, addresses: Callable[[int], tuple[str, str]]) -> Iterator[Network]:
    with contextlib.ExitStack() as resources:
        middle = resources.enter_context(namespace())
        hosts = []
        for number in range(1, count + 1):
            netns = resources.enter_context(namespace())
            veth = make_veth(middle, netns, queues=1)
            v4, v6 = addresses(number)
            _allow_v6(netns, veth.peer)
            _configure(netns, veth.peer, v4, v6)
            hosts.append(_host(veth, v4, v6))
        yield Network(middle, tuple(hosts))


def _host(veth: Veth, v4: str, v6: str) -> Host:
    mac, gateway = _mac(veth.peer_netns, veth.peer), _mac(veth.netns, veth.name)
    return Host(veth.peer_netns, veth.peer, mac, v4, v6, veth.name, gateway)


def _mac(netns: str, iface: str) -> bytes:
    with rtnetlink(netns) as connection:
        (link,) = connection.get_links(ifname=iface)
    return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))


def _allow_v6(netns: str, iface: str) -> None:
    with entered(netns):
        # Without looking for duplicates first: nobody could send for a second.
        for name, value in (("accept_dad", 0), ("dad_transmits", 0), ("disable_ipv6", 0)):
            Path("/proc/sys/net/ipv6/conf", iface, name).write_text(f"{value}")


def _configure(netns: str, iface: str, v4: str, v6: str) -> None:
    index = resolve(iface, netns=netns).index
    with rtnetlink(netns) as connection:
        connection.addr("add", index=index, address=v4, prefixlen=24)
        connection.addr("add", index=index, address=v6, prefixlen=64, flags=_NO_DAD)


def unplug(network: Network, host: Host) -> None:
    """Delete the port that a host is at, and with it the host's interface."""
    with rtnetlink(network.netns) as connection:
        connection.link("del", ifname=host.port)


def plug_in(network: Network, host: Host) -> None:
    """Make both again, as they were: with the same names, and the host's address."""
    with open(path_of(host.netns), "rb") as place, rtnetlink(network.netns) as connection:
        peer = {"ifname": host.iface, "address": host.mac.hex(":"), "net_ns_fd": place.fileno()}
        connection.link("add", ifname=host.port, kind="veth", peer=peer)
    _allow_v6(host.netns, host.iface)
    for netns, iface in ((host.netns, host.iface), (network.netns, host.port)):
        with rtnetlink(netns) as connection:
            connection.link("set", ifname=iface, state="up")
    _configure(host.netns, host.iface, host.v4, host.v6)


def exchange(client: Host, server: Host, address: str) -> None:
    """Send a datagram from one host to an address of the other, and an answer back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        server.socket(family, socket.SOCK_DGRAM) as listening,
        client.socket(family, socket.SOCK_DGRAM) as asking,
    ):
        listening.bind((address, _PORT))
        asking.sendto(b"question", (address, _PORT))
        said, back = listening.recvfrom(100)
        assert said == b"question"
        listening.sendto(b"answer", back)
        assert asking.recv(100) == b"answer"


def offloads(host: Host) -> dict[str, Offload]:
    """Return those settings of a host's interface that preparing it changes."""
    with entered(host.netns), NetlinkSocket() as connection:
        return offloads_of(connection, host.iface, GRO, *CHECKSUMS)


def transfer(client: Host, server: Host, address: str, megabytes: int) -> None:
    """Send so much by TCP from one host to an address of the other; all has to arrive as it was."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    chunks = megabytes * (1 << 20) // len(_CHUNK)
    arrived: list[tuple[int, int]] = []

    with server.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((address, _PORT))
        listening.listen()
        receiver = threading.Thread(target=lambda: arrived.append(_take(listening)))
        receiver.start()
        try:
            with client.socket(family, socket.SOCK_STREAM) as sending:
                sending.connect((address, _PORT))
                for _ in range(chunks):
                    sending.sendall(_CHUNK)
        finally:
            receiver.join()
    checksum = 0
    for _ in range(chunks):
        checksum = zlib.crc32(_CHUNK, checksum)
    assert arrived == [(chunks * len(_CHUNK), checksum)]


def _take(listening: socket.socket) -> tuple[int, int]:
    """Return how many bytes came by the first connection, and their checksum."""
    connection, _ = listening.accept()
    size = checksum = 0
    with connection:
        connection.settimeout(_LONG)
        while data := connection.recv(1 << 18):
            size += len(data)
            checksum = zlib.crc32(data, checksum)
    return size, checksum


def forwarded_by_stack(netns: str) -> dict[str, int]:
    """Return how many packets the network stack of a namespace has forwarded: v4 and v6."""
    with entered(netns):
        v6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return {"v4": _ip_counter(netns, "ForwDatagrams"), "v6": int(v6["Ip6OutForwDatagrams"])}


def received_by_stack(netns: str) -> int:
    """Return how many IPv4 packets for it or through it the stack of a namespace has got."""
    return _ip_counter(netns, "InReceives")


def _ip_counter(netns: str, name: str) -> int:
    with entered(netns):
        names, values = Path("/proc/net/snmp").read_text().splitlines()[:2]
    return int(dict(zip(names.split(), values.split(), strict=True))[name])
