# SPDX-License-Identifier: Apache-2.0
"""What programs cost for each packet, beside another program, in one run.

No machine is quiet, and one program alone may be 5 ns faster or slower from one second to the next.
So the programs run by turns, in many rounds, each round in another order. In each round the
differences to the program beside which they are to be held are taken, and of these the median.

**Test runs** (``BPF_PROG_TEST_RUN``) measure the program and little else. The kernel gives whole
nanoseconds, rounded down; the median is that of data grouped so (``statistics.median_grouped``).
The context says which RX queue the packets came by.

**Live frames** are sent by a program that redirects them into one end of a veth pair; the other end
runs the program, on the same CPU. They come by the RX queue with that CPU's number, 0 here. What
counts is the frames that the veth took.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.kernel.compiled import assembled, returning
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit.interfaces import resolve
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Program, RunResult, XdpContext
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, XdpAction

ROUNDS = 30
RUNS = 200_000
LIVE_ROUNDS = 15
LIVE_FRAMES = 300_000

_FRAME = bytes(64)
_CPU = 0
_WIDTH = 40
_Turn = TypeVar("_Turn")


@dataclass(eq=False, slots=True)
class Candidate:
    """A program that drops all packets, and what was measured.

    Attributes:
        name: for the table.
        program: the program.
        queues: the RX queues by which test-run packets come; each has a turn in each round.
        beside: what it is held beside; None: nothing.
        nanoseconds: for each queue, what a run took in each round.
        rates: how many millions of live frames a second it took, in each round.
    """

    name: str
    program: Program
    queues: tuple[int, ...]
    beside: Candidate | None = None
    nanoseconds: dict[int, list[int]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)

    def added(self, *queues: int) -> list[int]:
        """Return the nanoseconds that it adds, of each round and each of these queues, or all."""
        assert self.beside is not None
        base = [
            round(statistics.median(turn))
            for turn in zip(*self.beside.nanoseconds.values(), strict=True)
        ]
        return [
            taken - other
            for queue in queues or self.queues
            for taken, other in zip(self.nanoseconds[queue], base, strict=True)
        ]


class Place:
    """A veth with many RX queues, and a link that puts programs on its hook."""

    def __init__(self, veth: Veth, connection: Any, link: Fd, sender: Program) -> None:
        self._index = veth.interface.index
        self._connection = connection
        self._link = link
        self._sender = sender

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Run all candidates by turns: test runs first, then live frames."""
        turns = [(each, queue) for each in candidates for queue in each.queues]
        for candidate, queue in turns:
            if self._run(candidate, queue, 1).action is not XdpAction.DROP:
                raise SystemExit(f"bench: {candidate.name} does not drop what comes by {queue}")
            candidate.nanoseconds[queue] = []
        for candidate, queue in _by_turns(turns, ROUNDS):
            candidate.nanoseconds[queue].append(self._run(candidate, queue, RUNS).duration_ns)
        for candidate in _by_turns(candidates, LIVE_ROUNDS):
            candidate.rates.append(self._flood(candidate.program))

    def _run(self, candidate: Candidate, queue: int, repeat: int) -> RunResult:
        context = XdpContext(ingress_ifindex=self._index, rx_queue_index=queue)
        return candidate.program.run(_FRAME, repeat=repeat, context=context)

    def _flood(self, program: Program) -> float:
        bpf.link_update(self._link.fileno(), program.fileno())
        before = self._taken()
        result = self._sender.run(_FRAME, live=True, repeat=LIVE_FRAMES, cpu=_CPU)
        return (self._taken() - before) / LIVE_FRAMES * 1000 / result.duration_ns

    def _taken(self) -> int:
        (link,) = self._connection.link("get", index=self._index)
        return int(link.get_attr("IFLA_STATS64")["rx_packets"])


@contextlib.contextmanager
def place(queues: int) -> Iterator[Place]:
    """Yield a place with so many RX queues; the calling thread is in its namespace meanwhile."""
    with contextlib.ExitStack() as resources:
        netns = resources.enter_context(namespace())
        veth = make_veth(netns, queues=queues)
        connection = resources.enter_context(rtnetlink(netns))
        resources.enter_context(entered(netns))
        # Queues are there for test runs once a program is.
        first = resources.enter_context(returning(XdpAction.DROP))
        link = bpf.link_create(first.fileno(), veth.interface.index, AttachType.XDP)
        resources.enter_context(link)
        code = (
            asm.mov(Register.R1, resolve(veth.peer, netns=netns).index),
            asm.mov(Register.R2, 0),
            asm.call("redirect"),
            asm.exit(),
        )
        sender = resources.enter_context(assembled(*code, name="sending"))
        yield Place(veth, connection, link, sender)


def _by_turns(turns: Sequence[_Turn], rounds: int) -> Iterator[_Turn]:
    chance = random.Random(0)
    for _ in range(rounds):
        yield from chance.sample(turns, len(turns))


def print_table(candidates: Sequence[Candidate]) -> None:
    """Print a line for each candidate."""
    print(
        f"{'':{_WIDTH}}{'ns':>6}{'added':>8}{'quartiles':>14}{'by queue':>19}"
        f"{'Mpps':>8}{'quartiles':>14}"
    )
    for candidate in candidates:
        taken = [number for each in candidate.nanoseconds.values() for number in each]
        line = f"{candidate.name:{_WIDTH}}{statistics.median_grouped(taken):6.1f}"
        if candidate.beside is None:
            line += f"{'–':>8}{_quartiles(taken, '.1f'):>14}{'–':>19}"
        else:
            queues = (
                f"{statistics.median_grouped(candidate.added(queue)):+.1f}"
                for queue in candidate.queues
            )
            added = candidate.added()
            line += f"{statistics.median_grouped(added):+8.1f}{_quartiles(added, '+.1f'):>14}"
            line += f"{' '.join(queues):>19}"
        rates = candidate.rates
        print(f"{line}{statistics.median(rates):8.2f}{_quartiles(rates, '.2f'):>14}")


def _quartiles(numbers: Sequence[float], form: str) -> str:
    low, _, high = statistics.quantiles(numbers, n=4)
    return f"{low:{form}} … {high:{form}}"
