# SPDX-License-Identifier: Apache-2.0
"""The demo's network: two namespaces, joined by a veth pair with several queues."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpkit.errors import KernelRefused, errno_name
from xdpkit.syscalls.netns import entered, path_of

QUEUES = 4

_PREFIX_LENGTH = 24
_WHAT = "set up the demo's network"


@dataclass(frozen=True, slots=True)
class End:
    """One end of the pair: the namespace, and the interface in it."""

    netns: str
    interface: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Network:
    """The two ends."""

    client: End
    server: End


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make the network; at the end nothing is left of it.

    Raises:
        KernelRefused: the kernel does not make namespaces or veth pairs here.
    """
    # TEST-NET-1 (RFC 5737), and locally administered addresses. The names are this process's own.
    name = f"xdpkit-demo-{os.getpid()}"
    client = End(f"{name}-client", "client0", "192.0.2.1", "02:00:00:00:00:01")
    server = End(name, "fw0", "192.0.2.2", "02:00:00:00:00:02")
    with contextlib.ExitStack() as undo:
        try:
            for end in (client, server):
                undo.callback(_remove_namespace, end.netns)
                _make_namespace(end.netns)
            _join(client, server)
            for end, peer in ((client, server), (server, client)):
                _bring_up(end, peer)
        except (OSError, _netlink_error()) as error:
            number = getattr(error, "code", None) or getattr(error, "errno", None) or 0
            raise KernelRefused(
                _WHAT, errno=number, cause=f"{error} ({errno_name(number)})"
            ) from error
        yield Network(client, server)


def _netlink_error() -> type[Exception]:
    from pyroute2 import NetlinkError

    kind: type[Exception] = NetlinkError
    return kind


def _make_namespace(name: str) -> None:
    from pyroute2 import netns

    netns.create(name)
    with entered(name), contextlib.suppress(OSError):
        # So that the only packets are the demo's. Read-only in some containers: no matter.
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")


def _remove_namespace(name: str) -> None:
    from pyroute2 import netns

    if os.path.exists(path_of(name)):
        netns.remove(name)


@contextlib.contextmanager
def _rtnetlink(netns: str) -> Iterator[Any]:
    from pyroute2 import IPRoute

    # The socket stays in the namespace in which it was made.
    with entered(netns):
        connection = IPRoute()
    with connection:
        yield connection


def _join(client: End, server: End) -> None:
    queues = {"num_rx_queues": QUEUES, "num_tx_queues": QUEUES}
    with open(path_of(client.netns), "rb") as place, _rtnetlink(server.netns) as connection:
        connection.link(
            "add",
            ifname=server.interface,
            kind="veth",
            address=server.mac,
            **queues,
            peer={
                "ifname": client.interface,
                "address": client.mac,
                "net_ns_fd": place.fileno(),
                **queues,
            },
        )


def _bring_up(end: End, peer: End) -> None:
    with _rtnetlink(end.netns) as connection:
        (index,) = connection.link_lookup(ifname=end.interface)
        connection.addr("add", index=index, address=end.address, prefixlen=_PREFIX_LENGTH)
        connection.link("set", index=index, state="up")
        # Known in advance, so that no ARP is among the packets that are counted.
        connection.neigh("add", index=index, dst=peer.address, lladdr=peer.mac, state="permanent")
