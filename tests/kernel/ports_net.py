# SPDX-License-Identifier: Apache-2.0
"""What tests of port tables share: ports that can be sent to, and frames that are sent to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import xdpkit
from tests.corpus import headed
from tests.kernel.compiled import returning
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, rtnetlink
from xdpkit import PortTable
from xdpkit.syscalls.linkstats import dump_statistics
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered, path_of
from xdpkit.tables import entries, store
from xdpkit.tables.model import Port
from xdpkit.uapi.bpf import XdpAction

# As many frames as fit into the ring of a veth's queue, whoever empties it and when.
BURST = 64
_FRAME = b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x88\xb5" + bytes(46)


def source(name: str) -> xdpkit.Object:
    """Return the object of a source in ``c/``."""
    return headed.read(Path(__file__).parent / "c" / f"{name}.c")


def egress(action: XdpAction = XdpAction.PASS) -> xdpkit.ProgramSpec:
    """Return a program for what is sent, which returns an action."""
    obj = source("egress").snapshot()
    obj.variables["action"] = int(action)
    return obj.programs["egress"]


@contextlib.contextmanager
def receiving(*veths: Veth) -> Iterator[None]:
    """Meanwhile, what is sent out of these is received by their peers, and dropped there."""
    with returning(XdpAction.DROP, name="receives") as program:
        for veth in veths:
            with rtnetlink(veth.peer_netns) as connection:
                connection.link("set", ifname=veth.peer, xdp_fd=program.fileno())
        yield


def received(veth: Veth) -> int:
    """Return how many frames a peer has received."""
    with entered(veth.peer_netns), NetlinkSocket() as connection:
        found = dump_statistics(connection).values()
    return next(each.received for each in found if each.link.name == veth.peer)


class Sender:
    """Sends frames to a port of a table, by a program that looks it up in the table's map."""

    def __init__(self, table: PortTable, port: int) -> None:
        obj = source("ported").snapshot()
        obj.variables["port"] = port
        self._program = table.load(obj.programs["to_port"])

    def send(self, count: int = BURST) -> None:
        """Send frames, at most as many as fit into a ring."""
        self._program.run(_FRAME, repeat=count, live=True)

    def reach(self, veth: Veth, count: int = BURST) -> None:
        """Send frames, and wait until an interface's peer has received each of them."""
        before = received(veth)
        self.send(count)
        wait_until(lambda: received(veth) >= before + count, lambda: f"{veth.peer} gets too few")
        assert received(veth) == before + count

    def close(self) -> None:
        self._program.close()


@contextlib.contextmanager
def sending(table: PortTable, port: int) -> Iterator[Sender]:
    """Yield what sends frames to a port."""
    with contextlib.closing(Sender(table, port)) as sender:
        yield sender


def in_map(table: PortTable, name: str = "xdpkit_ports") -> dict[int, tuple[int, int]]:
    """Return the entries of a table's device map, or of a set's."""
    return entries.entries(table.maps[name])


def numbers(table: PortTable) -> dict[int, int]:
    """Return which port is found for which index."""
    return entries.port_numbers(table.maps["xdpkit_port_numbers"])


def left(pin_root: str) -> Mapping[str, tuple[Port, ...]]:
    """Return the tables that there are, and their ports."""
    found = {}
    for name in store.names(pin_root):
        with PortTable.open(name, pin_root=pin_root) as table:
            found[name] = table.state().ports
    return found


def delete(veth: Veth) -> None:
    """Delete a veth pair."""
    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)


def make_again(veth: Veth) -> None:
    """Make a veth pair of the same names, and bring it up."""
    with rtnetlink(veth.netns) as connection:
        connection.link("add", ifname=veth.name, kind="veth", peer={"ifname": veth.peer})
        for name in (veth.name, veth.peer):
            connection.link("set", ifname=name, state="up")


def set_link(netns: str, name: str, **change: object) -> None:
    """Change an interface, as ``ip link set`` does."""
    with rtnetlink(netns) as connection:
        (index,) = connection.link_lookup(ifname=name)
        connection.link("set", index=index, **change)


def move(veth: Veth, netns: str) -> Veth:
    """Move an interface to another namespace, and bring it up there; return it as it is then."""
    with open(path_of(netns), "rb") as place:
        set_link(veth.netns, veth.name, net_ns_fd=place.fileno())
    set_link(netns, veth.name, state="up")
    return Veth(veth.name, netns, veth.peer, veth.peer_netns)


def make_with_indexes(netns: str, indexes: Mapping[str, int]) -> None:
    """Make interfaces that have these indexes."""
    with rtnetlink(netns) as connection:
        for name, index in indexes.items():
            connection.link(
                "add", ifname=name, kind="veth", index=index, peer={"ifname": f"{name}p"}
            )
