# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces, each at the far end of a veth, joined by programs that redirect."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pyroute2 import NetlinkError

from tests.kernel.fates import BYTEORDER, attached
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit.capabilities import Kernel
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.syscalls.ethtool import offloads_of
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered

_PROBE, _FENCE = b"probe", b"fence"
_PORT = 7000
# What arrives comes at once; the limit only ends a run that has failed anyway.
_LONG = 10.0
_SO_NO_CHECK = 11  # include/uapi/asm-generic/socket.h
_UDP_SEGMENT = 103  # include/uapi/linux/udp.h


@dataclass(frozen=True, slots=True)
class Joined:
    """Two veths of one namespace, whose peers are each in a namespace of its own.

    Attributes:
        netns: where the ports are. one, other: the ports.
    """

    netns: str
    one: Veth
    other: Veth

    @contextlib.contextmanager
    def redirecting(self, mode: str = "native") -> Iterator[None]:
        """Have all that comes in by one port leave by the other, both ways."""
        with contextlib.ExitStack() as resources:
            for veth, target in ((self.one, self.other), (self.other, self.one)):
                code = _redirecting_all(target.interface.index)
                resources.enter_context(attached(code, veth.name, self.netns, mode))
            yield

    def passes(self) -> bool:
        """Whether a datagram of a socket gets from one end to the other."""
        with self._sockets() as (sending, receiving):
            sending.sendto(_PROBE, (ADDRESSES[1], _PORT))
            return _PROBE in _until_fence(sending, receiving)

    def passes_segments(self) -> bool:
        """Whether datagrams do that the sender's kernel leaves in one long piece if it can."""
        segment = bytes(1000)
        with self._sockets() as (sending, receiving):
            sending.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(segment))
            sending.sendto(3 * segment, (ADDRESSES[1], _PORT))
            sending.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
            return segment in _until_fence(sending, receiving)

    def transfer(self, size: int) -> int:
        """Send as many bytes by TCP from one end to the other; return how many came."""
        received = []
        with entered(self.other.peer_netns):
            server = socket.create_server((ADDRESSES[1], _PORT))
        with entered(self.one.peer_netns):
            client = socket.socket()
        with server, client:
            server.settimeout(_LONG)
            client.settimeout(_LONG)

            def serve() -> None:
                accepted, _ = server.accept()
                with accepted:
                    accepted.settimeout(_LONG)
                    while data := accepted.recv(1 << 16):
                        received.append(len(data))

            serving = threading.Thread(target=serve)
            serving.start()
            client.connect((ADDRESSES[1], _PORT))
            client.sendall(bytes(size))
            client.shutdown(socket.SHUT_WR)
            serving.join()
        return sum(received)

    @contextlib.contextmanager
    def _sockets(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        with contextlib.ExitStack() as resources:
            ends = []
            for veth in (self.one, self.other):
                with entered(veth.peer_netns):
                    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                ends.append(resources.enter_context(end))
                end.settimeout(_LONG)
            ends[1].bind((ADDRESSES[1], _PORT))
            yield ends[0], ends[1]


needs_gro = pytest.mark.skipif(
    not Kernel.parse(os.uname().release).has((5, 14)),
    reason="needs GRO that makes a veth receive, which came with Linux 5.14",
)

ADDRESSES = ("192.0.2.1", "192.0.2.2")


@contextlib.contextmanager
def joined(netns: str) -> Iterator[Joined]:
    """Two ports, and a namespace with an address at the far end of each; nothing redirects yet."""
    with namespace() as first, namespace() as second:
        ports = [make_veth(netns, far, queues=1) for far in (first, second)]
        for veth, address in zip(ports, ADDRESSES, strict=True):
            with rtnetlink(veth.peer_netns) as connection:
                (index,) = connection.link_lookup(ifname=veth.peer)
                connection.addr("add", index=index, address=address, prefixlen=24)
        yield Joined(netns, *ports)


def offloads(netns: str, name: str, *wanted: str) -> dict[str, bool]:
    """Return which of an interface's offloads are on."""
    with entered(netns), NetlinkSocket() as connection:
        return {
            offload: state.active
            for offload, state in offloads_of(connection, name, *wanted).items()
        }


def set_link(netns: str, name: str, **what: object) -> None:
    """Change an interface: ``state="down"``, ``mtu=9000``."""
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=name, **what)


def delete(netns: str, name: str) -> None:
    """Delete an interface, if it is there."""
    with rtnetlink(netns) as connection, contextlib.suppress(NetlinkError):
        connection.link("del", ifname=name)


def _until_fence(sending: socket.socket, receiving: socket.socket) -> list[bytes]:
    """Return what arrives before a datagram that nothing can be wrong with: it has no checksum."""
    sending.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
    sending.sendto(_FENCE, (ADDRESSES[1], _PORT))
    seen = []
    while (data := receiving.recv(1 << 16)) != _FENCE:
        seen.append(data)
    return seen


def _redirecting_all(index: int) -> bytes:
    r = Register
    return encode(
        (asm.mov(r.R1, index), asm.mov(r.R2, 0), asm.call("redirect"), asm.exit()),
        byteorder=BYTEORDER,
    )
