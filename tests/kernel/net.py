# SPDX-License-Identifier: Apache-2.0
"""Private network namespaces and veth pairs, with names that no other process uses.

IPv6 is off in them, so that only what a test sends is seen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xdpkit.interfaces import Interface, resolve
from xdpkit.syscalls.netns import entered, path_of

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Veth:
    """One end of a veth pair, up, and where its peer is."""

    name: str
    netns: str
    peer: str
    peer_netns: str

    @property
    def interface(self) -> Interface:
        """The interface as it is now."""
        return resolve(self.name, netns=self.netns)


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """Make a network namespace and yield its name."""
    from pyroute2 import netns

    name = f"xdpkit-test-{os.getpid()}-{next(_numbers)}"
    netns.create(name)
    try:
        with entered(name):
            for scope in ("all", "default"):
                off = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                if off.exists():
                    off.write_text("1")
        yield name
    finally:
        netns.remove(name)


@contextlib.contextmanager
def rtnetlink(netns: str) -> Iterator[Any]:
    """Yield pyroute2's connection to a namespace."""
    from pyroute2 import IPRoute

    with entered(netns):
        connection = IPRoute()
    with connection:
        yield connection


def make_veth(netns: str, peer_netns: str | None = None, *, queues: int = 4) -> Veth:
    """Make a veth pair with as many RX and TX queues on both ends; it goes with its namespace."""
    name = f"xk{os.getpid()}-{next(_numbers)}"
    peer = f"{name}p"
    peer_netns = peer_netns or netns
    counts = {"num_rx_queues": queues, "num_tx_queues": queues}
    with open(path_of(peer_netns), "rb") as place, rtnetlink(netns) as connection:
        connection.link(
            "add",
            ifname=name,
            kind="veth",
            **counts,
            peer={"ifname": peer, "net_ns_fd": place.fileno(), **counts},
        )
    for end, where in ((name, netns), (peer, peer_netns)):
        with rtnetlink(where) as connection:
            connection.link("set", ifname=end, state="up")
    return Veth(name, netns, peer, peer_netns)


def swap_names(one: Veth, other: Veth) -> None:
    """Give two interfaces of a namespace each other's name, and leave them down."""
    first, second = one.interface.index, other.interface.index
    with rtnetlink(one.netns) as connection:
        for index, name in ((first, f"{one.name}s"), (second, one.name), (first, other.name)):
            connection.link("set", index=index, state="down")
            connection.link("set", index=index, ifname=name)


@pytest.fixture
def netns() -> Iterator[str]:
    """The name of a network namespace of the test's own."""
    with namespace() as name:
        yield name


@pytest.fixture
def veth(netns: str) -> Veth:
    """A veth pair with four queues, both ends in the test's own namespace."""
    return make_veth(netns)
