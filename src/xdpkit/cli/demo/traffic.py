# SPDX-License-Identifier: Apache-2.0
"""The demo's traffic: datagrams through ordinary sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

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
    with _Exchange(network, expected) as exchange:
        for port in expected:
            for _ in range(count):
                exchange.send(port)
        exchange.wait(expected, interrupts)
        return exchange.deliveries()


@contextlib.contextmanager
def sending(
    network: Network, passes: Mapping[int, bool], interrupts: Interrupts
) -> Iterator[list[Delivery]]:
    """Keep sending datagrams to ports of the server while the ``with`` block runs.

    The list that it yields is filled at the end: what became of them.

    Args:
        network: the demo's.
        passes: whether they ought to arrive, by port: those are waited for.
        interrupts: may end the waiting.
    """
    deliveries: list[Delivery] = []
    begun, ended = threading.Event(), threading.Event()
    with _Exchange(network, passes) as exchange, ThreadPoolExecutor(1) as thread:

        def keep_sending() -> None:
            is_over = False
            try:
                while not is_over:
                    # Once more after the end, so that there is traffic before and behind.
                    is_over = ended.wait(_PAUSE_S / 10)
                    for port in passes:
                        exchange.send(port)
                    exchange.collect()
                    begun.set()
            finally:
                begun.set()

        sender = thread.submit(keep_sending)
        begun.wait()
        try:
            yield deliveries
        finally:
            ended.set()
        sender.result()
        exchange.wait(
            {port: exchange.sent[port] for port, does in passes.items() if does}, interrupts
        )
        deliveries += exchange.deliveries()


class _Exchange:
    """Sockets that listen at ports of the server, and what the client has sent to them."""

    def __init__(self, network: Network, ports: Iterable[int]) -> None:
        self._network = network
        self.sent = dict.fromkeys(ports, 0)
        self._received = dict.fromkeys(self.sent, 0)
        self._listeners = {port: _udp_socket(network.server, port) for port in self.sent}

    def send(self, port: int) -> None:
        """Send one datagram."""
        with _udp_socket(self._network.client) as sender:
            text = f"datagram {self.sent[port]}".encode()
            sender.sendto(text, (self._network.server.address, port))
        self.sent[port] += 1

    def collect(self) -> None:
        """Take what has arrived, before the sockets are full."""
        for port, listener in self._listeners.items():
            self._received[port] += _drain(listener)

    def wait(self, expected: Mapping[int, int], interrupts: Interrupts) -> None:
        """Wait until so many have arrived, by port; not for ever."""
        deadline = time.monotonic() + _PATIENCE_S
        self.collect()
        while any(self._received[port] < count for port, count in expected.items()):
            interrupts.checkpoint()
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE_S)
            self.collect()

    def deliveries(self) -> list[Delivery]:
        """Return what became of all that was sent."""
        return [Delivery(port, sent, self._received[port]) for port, sent in self.sent.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for listener in self._listeners.values():
            listener.close()


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
