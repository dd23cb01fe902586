# SPDX-License-Identifier: Apache-2.0
"""The example switch beside the Linux bridge, and the router beside the kernel's own forwarding.

Two hosts, each in a network namespace, and between them one that forwards, joined by veth pairs.
The kernel and xdpkit have turns on the same interfaces, in several rounds, each in another order.

**64-byte frames** are sent by a program, as live frames (``BPF_PROG_TEST_RUN``), on one CPU, which
does all the rest, too. A program at the far end drops them. What counts is how many arrived there.
In the kernel's turn GRO is on at the ports, as it is on NICs: a veth takes frames from a program
only with it, or with a program.

**The TCP stream** is of sockets. On a veth nothing ever cuts it into frames: the kernel passes on
64 KB at once, with checksums that nobody has to compute. No NIC does that, and XDP sees frames as
they are on the wire. So the kernel is measured with these, too: with the senders' offloads off, and
with and without GRO to put them together again.
"""

from __future__ import annotations

import contextlib
import random
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.attaching import BPFFS
from tests.kernel.compiled import assembled, returning
from tests.kernel.forwarding import FENCE, Host, Network, datagram, exchange, frame, lan, subnets
from tests.kernel.net import rtnetlink
from xdpkit.examples.forwarding import Forwarding, Setup
from xdpkit.examples.router import Router
from xdpkit.examples.switch import Switch
from xdpkit.interfaces import resolve
from xdpkit.interfaces.observation import GRO
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.kernel import Program, shipped
from xdpkit.syscalls import bpf, ethtool
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, XdpAction

ROUNDS = 9
FRAMES = 500_000
STREAMS = 5
MEGABYTES = 256

_CPU = 0
_MEGABYTE = 1 << 20
_WIDTH = 52
_SIZE = 64
_DISCARD = 9
# What of a frame is written anew before each is sent: forwarders change it.
_HEADERS = 40
_OFFLOADS = (
    "tx-checksum-ip-generic",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
)
_Way = Callable[[Network], AbstractContextManager[object]]


@dataclass(eq=False, slots=True)
class Candidate:
    """A way to forward, and what was measured of it.

    Attributes:
        name: for the table. forward: does it for as long as the block.
        rates: of each round.
    """

    name: str
    forward: _Way
    rates: list[float] = field(default_factory=list)


def main() -> None:
    """Print the tables."""
    _print_frames()
    print()
    _print_streams()


# 64-byte frames


def _print_frames() -> None:
    print(f"{'64-byte frames':{_WIDTH}}{'Mpps':>8}{'quartiles':>15}{'xdpkit is':>14}")
    with lan(2) as network:
        ways = [Candidate("Linux bridge", _bridge), Candidate("xdpkit forward l2", _switch)]
        first, second = network.hosts
        sent = frame(second.mac, first.mac, b"", kind=FENCE).ljust(_SIZE, b"\0")
        _flood_by_turns(network, ways, sent)
    with subnets(2) as network:
        ways = [
            Candidate("kernel forwarding, IPv4", _kernel),
            Candidate("xdpkit forward l3, IPv4", _router),
        ]
        first, second = network.hosts
        exchange(first, second, second.v4)
        _keep_neighbour(network, second)
        packet = datagram(first, second, _DISCARD, bytes(_SIZE - 14 - 20 - 8))
        _flood_by_turns(network, ways, first.gateway + first.mac + b"\x08\0" + packet)


def _flood_by_turns(network: Network, ways: Sequence[Candidate], sent: bytes) -> None:
    first, second = network.hosts
    with ExitStack() as resources:
        drops = resources.enter_context(returning(XdpAction.DROP))
        with entered(second.netns):
            far = resolve(second.iface).index
            resources.enter_context(bpf.link_create(drops.fileno(), far, AttachType.XDP))
        connection = resources.enter_context(rtnetlink(second.netns))
        sender = resources.enter_context(_sender(first, sent))

        def taken() -> int:
            (link,) = connection.get_links(far)
            return int(link.get_attr("IFLA_STATS64")["rx_packets"])

        for way in _by_turns(ways, ROUNDS):
            with way.forward(network), second.wire() as wire:
                # So that it is known where it is.
                wire.send(frame(first.mac, second.mac, b"", kind=FENCE))
                _flood(first, sender, taken, FRAMES // 10)
                way.rates.append(_flood(first, sender, taken, FRAMES))
    _print_rates(ways)


def _flood(first: Host, sender: Program, taken: Callable[[], int], frames: int) -> float:
    """Send frames; return how many millions of them a second have arrived."""
    before = taken()
    with entered(first.netns):
        duration = sender.run(bytes(_SIZE), live=True, repeat=frames, cpu=_CPU).duration_ns
    return (taken() - before) / frames * 1000 / duration


def _sender(first: Host, sent: bytes) -> Program:
    """Load a program that sends a frame out of the first host's interface."""
    data, end, past, value = Register.R2, Register.R3, Register.R4, Register.R5
    stores: list[Instruction] = []
    for offset in range(0, _HEADERS, 8):
        (word,) = struct.unpack_from("=Q", sent, offset)
        stores += (asm.ld_imm64(value, word), asm.store(data, offset, value))
    slots = sum(2 if each.opcode == stores[0].opcode else 1 for each in stores)
    return assembled(
        asm.load(data, Register.R1, 0, size=4),
        asm.load(end, Register.R1, 4, size=4),
        asm.mov(past, data),
        asm.alu(AluOp.ADD, past, _HEADERS),
        asm.branch(JmpOp.JGT, past, end, slots),
        *stores,
        asm.mov(Register.R1, resolve(first.iface, netns=first.netns).index),
        asm.mov(Register.R2, 0),
        asm.call("redirect"),
        asm.exit(),
        name="sending",
    )


def _keep_neighbour(network: Network, host: Host) -> None:
    """Have the middle never ask for a host again, which drops all that comes."""
    index = resolve(host.port, netns=network.netns).index
    with rtnetlink(network.netns) as connection:
        connection.neigh(
            "replace", dst=host.v4, lladdr=host.mac.hex(":"), ifindex=index, state="permanent"
        )


# A TCP stream


def _print_streams() -> None:
    print(f"{'TCP stream':{_WIDTH}}{'Gbit/s':>8}{'quartiles':>15}{'xdpkit is':>14}")
    for network_of, name, by_kernel, ours in (
        (lan, "Linux bridge", _bridge, Candidate("xdpkit forward l2", _switch)),
        (subnets, "kernel forwarding", _kernel, Candidate("xdpkit forward l3", _router)),
    ):
        ways = [
            Candidate(f"{name}, frames of 1500 bytes", _on_the_wire(by_kernel, gro=False)),
            Candidate(f"{name}, frames of 1500 bytes, with GRO", _on_the_wire(by_kernel, gro=True)),
            Candidate(f"{name}, never cut into frames", by_kernel),
            ours,
        ]
        with network_of(2) as network:
            first, second = network.hosts
            for way in _by_turns(ways, STREAMS):
                with way.forward(network):
                    exchange(first, second, second.v4)
                    way.rates.append(_stream(first, second))
        _print_rates(ways)


def _stream(first: Host, second: Host) -> float:
    """Send so much by TCP; return how many gigabits of it a second have arrived."""
    with second.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((second.v4, 0))
        listening.listen()
        receiver = threading.Thread(target=_take, args=(listening,))
        receiver.start()
        with first.socket(socket.AF_INET, socket.SOCK_STREAM) as sending:
            sending.connect(listening.getsockname())
            began = time.perf_counter()
            data = bytes(_MEGABYTE)
            for _ in range(MEGABYTES):
                sending.sendall(data)
        receiver.join()
        return MEGABYTES * _MEGABYTE * 8 / (time.perf_counter() - began) / 1e9


def _take(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    data = bytearray(_MEGABYTE)
    with connection:
        while connection.recv_into(data):
            pass


# Ways to forward


@contextlib.contextmanager
def _kernel(network: Network, *, gro: bool = True) -> Iterator[None]:
    """Leave it to the kernel: the ports are as those of a NIC."""
    with ExitStack() as undo:
        for port in network.ports:
            undo.enter_context(_offloads(network.netns, port, {GRO: gro}))
        yield


@contextlib.contextmanager
def _bridge(network: Network, *, gro: bool = True) -> Iterator[None]:
    with _kernel(network, gro=gro), rtnetlink(network.netns) as connection:
        connection.link("add", ifname="bridge", kind="bridge")
        (bridge,) = connection.link_lookup(ifname="bridge")
        try:
            connection.link("set", index=bridge, state="up")
            for port in network.ports:
                connection.link("set", ifname=port, master=bridge)
            yield
        finally:
            connection.link("del", index=bridge)


def _switch(network: Network) -> AbstractContextManager[Forwarding]:
    return _running(network, lambda setup: Switch(shipped.path("switch.o"), setup))


def _router(network: Network) -> AbstractContextManager[Forwarding]:
    return _running(network, lambda setup: Router(shipped.path("router.o"), setup))


@contextlib.contextmanager
def _running(network: Network, make: Callable[[Setup], Forwarding]) -> Iterator[Forwarding]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BPFFS) as root:
        setup = Setup(network.ports, "bench", network.netns, prepare=True, pin_root=root)
        try:
            with make(setup) as forwarding:
                yield forwarding
        finally:
            for path in sorted(Path(root).rglob("*"), reverse=True):
                path.rmdir()


def _on_the_wire(by_kernel: Callable[..., AbstractContextManager[None]], *, gro: bool) -> _Way:
    """Return a way by the kernel, where the hosts send frames as they are on a wire."""

    @contextlib.contextmanager
    def forward(network: Network) -> Iterator[None]:
        with ExitStack() as undo:
            off = dict.fromkeys(_OFFLOADS, False)
            for host in network.hosts:
                undo.enter_context(_offloads(host.netns, host.iface, {**off, GRO: True}))
            undo.enter_context(by_kernel(network, gro=gro))
            yield

    return forward


@contextlib.contextmanager
def _offloads(netns: str, iface: str, wanted: dict[str, bool]) -> Iterator[None]:
    with entered(netns), NetlinkSocket() as connection:
        found = ethtool.offloads_of(connection, iface, *wanted)
        ethtool.set_offloads(connection, iface, wanted)
    try:
        yield
    finally:
        with entered(netns), NetlinkSocket() as connection:
            before = {name: each.active for name, each in found.items()}
            ethtool.set_offloads(connection, iface, before)


def _by_turns(ways: Sequence[Candidate], rounds: int) -> Iterator[Candidate]:
    chance = random.Random(0)
    for _ in range(rounds):
        yield from chance.sample(ways, len(ways))


def _print_rates(ways: Sequence[Candidate]) -> None:
    """Print a line for each way; the last one is held beside the others."""
    own = ways[-1].rates
    for way in ways:
        low, median, high = statistics.quantiles(way.rates, n=4)
        quartiles = f"{low:.2f} … {high:.2f}"
        line = f"  {way.name:{_WIDTH - 2}}{median:8.2f}{quartiles:>15}"
        if way.rates is not own:
            ratios = [ours / theirs for ours, theirs in zip(own, way.rates, strict=True)]
            line += f"{statistics.median(ratios):8.2f} times"
        print(line)


if __name__ == "__main__":
    main()
