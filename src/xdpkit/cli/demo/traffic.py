# SPDX-License-Identifier: Apache-2.0
"""The demo's traffic: datagrams through ordinary sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from xdpkit.cli.demo.interrupts import Interrupts
from xdpkit.cli.demo.network import End, Network
from xdpkit.syscalls.netns import entered

_PATIENCE_S = 3.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the datagrams to a port."""

    port: int
    sent: int
    received: int

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.received == self.sent:
            return "passed"
        return "partly dropped" if self.received else "dropped"


def send(
    network: Network, count: int, expected: Mapping[int, int], interrupts: Interrupts
) -> list[Delivery]:
    """Send datagrams from the client to ports of the server, and see which arrive.

    Each comes from a port of its own, so that they spread over the queues.

    Args:
        network: the demo's.
        count: how many to send to each port.
        expected: how many of them ought to arrive, by port: so many are waited for.
        interrupts: may end the waiting.
    """
    with ExitStack() as sockets:
        listening = {
            port: sockets.enter_context(_udp_socket(network.server, port)) for port in expected
        }
        for port in expected:
            for number in range(count):
                with _udp_socket(network.client) as sender:
                    sender.sendto(f"datagram {number}".encode(), (network.server.address, port))
        received = dict.fromkeys(expected, 0)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            for port, listener in listening.items():
                received[port] += _drain(listener)
            if all(received[port] >= expected[port] for port in expected):
                break
            interrupts.checkpoint()
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE_S)
    return [Delivery(port, count, received[port]) for port in expected]


def _udp_socket(end: End, port: int = 0) -> socket.socket:
    # A socket stays in the namespace in which it was made.
    with entered(end.netns):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((end.address, port))
    made.setblocking(False)
    return made


def _drain(listener: socket.socket) -> int:
    """Return how many datagrams have arrived."""
    count = 0
    while True:
        try:
            listener.recv(1 << 16)
        except BlockingIOError:
            return count
        count += 1
