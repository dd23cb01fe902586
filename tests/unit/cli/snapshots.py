# SPDX-License-Identifier: Apache-2.0
"""Snapshots of machines, as values: what the screen is to show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tests.unit.cli.reports import INTERFACE, SECOND, program, report
from tests.unit.monitor.snapshots import (
    START,
    cpumap,
    driver,
    error,
    redirect_error,
    snapshot,
    transmit,
    where,
)
from xdpkit.cli.screen.board import Board
from xdpkit.hook.counters import CounterReport
from xdpkit.monitor.model import AttachedInfo, Reason, Snapshot, Target, Tracepoints
from xdpkit.rewrite import Counts

HOSTILE = "\x1b[2J\x07e\u0301vil\n"


def returned(*packets: int) -> Counts:
    """Packets aborted, drop, pass, tx, redirect, invalid; each of 100 bytes."""
    counts = (*packets, *(0,) * (6 - len(packets)))
    return Counts(counts, tuple(100 * each for each in counts))


def counters(
    name: str, programs: Mapping[str, Mapping[int, Counts]], index: int = 2, **fields: Any
) -> CounterReport:
    """The counters of an interface, by program and queue."""
    found = report(
        *(
            replace(program(40 + number, queues, name=each), with_bytes=True)
            for number, (each, queues) in enumerate(programs.items())
        ),
        count_bytes=True,
        **fields,
    )
    return replace(found, interface=replace(INTERFACE, name=name, index=index))


def attached(name: str, programs: Iterable[str], index: int = 2) -> tuple[AttachedInfo, ...]:
    return tuple(
        AttachedInfo(
            where(name, index), "", each, 40 + number, "0123456789abcdef", "native", "xdpkit"
        )
        for number, each in enumerate(programs)
    )


def normal(second: int) -> Snapshot:
    """Two interfaces that do what they are for, one of them with counters."""
    packets = 1000 * second + 100 * (second % 7) ** 2
    queues = {
        queue: returned(0, packets // (queue + 2), packets, 0, 10 * second) for queue in range(4)
    }
    return snapshot(
        at=second,
        returned=(counters("eth0", {"firewall": queues, "balancer": {1: returned(0, 0, second)}}),),
        drivers=(
            driver("eth0", {"packets": [packets] * 4, "drop": [packets // 2] * 4, "xmit": [0] * 4}),
            driver("eth1", {"packets": [second, 0], "drop": [0, 0], "xmit": [40 * second, 0]}, 3),
        ),
        attached=(*attached("eth0", ["firewall", "balancer"]), *attached("eth1", ["pass"], 3)),
    )


def failing(second: int) -> Snapshot:
    """The same, and every kind of error."""
    base = normal(second)
    seen = START + second * SECOND
    tracepoints = Tracepoints(
        errors=(
            error(
                action="invalid",
                reason=Reason.INVALID,
                packets=12 * second,
                returned=0xFFFFFFFF,
                last_seen=seen - SECOND,
            ),
            error(packets=3, last_seen=START - 7200 * SECOND),
            error(
                where("tap0", 9, "blue"),
                program="echo",
                action="tx",
                reason=Reason.UNSUPPORTED,
                packets=second,
            ),
            error(action="redirect", reason=Reason.REDIRECT_FAILED, packets=second),
        ),
        redirect_errors=(
            redirect_error(
                program="balancer",
                target=Target("devmap", "eth1", 3, 77, 1),
                packets=second,
                last_seen=seen,
            ),
            redirect_error(
                program="balancer",
                target=Target("cpumap", "cpu 3", 0, 78, 3),
                error="EINVAL",
                packets=2,
            ),
        ),
        transmits=(
            transmit(
                where(),
                where=where("eth1", 3),
                sent=90 * second,
                dropped=second,
                error="ENXIO",
                last_seen=seen,
            ),
            transmit(None, where=where(), sent=second, dropped=2),
        ),
        cpumaps=(cpumap(1, map_id=78, enqueued=50 * second, queue_full=4),),
        attach_failures={"native and generic XDP can't be active at the same time": 2},
        other=5,
    )
    return replace(base, tracepoints=tracepoints, notes=("The driver of eth7 cannot be read.",))


def flood(second: int) -> Snapshot:
    """Fifteen million packets a second, all of them aborted."""
    packets = 14_880_952 * second
    seen = START + second * SECOND
    return snapshot(
        error(packets=packets, last_seen=seen),
        at=second,
        returned=(counters("eth0", {"firewall": {0: returned(packets)}}),),
        attached=attached("eth0", ["firewall"]),
    )


def nothing_installed(second: int) -> Snapshot:
    """No tracepoints: what drivers and programs say has to do."""
    return replace(
        normal(second),
        installed=None,
        drivers=(driver("eth1", {"packets": [90 * second], "tx_errors": [4 * second]}, 3),),
    )


def many(second: int) -> Snapshot:
    """A hundred interfaces, and one with sixty-four queues."""
    queues = {queue: returned(0, second * queue, second) for queue in range(64)}
    names = [f"veth{number:03}" for number in range(100)]
    return snapshot(
        *(error(where(name, number), packets=number * second) for number, name in enumerate(names)),
        at=second,
        returned=(counters("eth0", {"firewall": queues}),),
        attached=(
            *attached("eth0", ["firewall"]),
            *(each for number, name in enumerate(names) for each in attached(name, ["p"], number)),
        ),
        drivers=tuple(
            driver(name, {"packets": [number * second], "drop": [number]}, number)
            for number, name in enumerate(names)
        ),
    )


def strange(second: int) -> Snapshot:
    """Names that would harm a terminal, or are wider than they are long."""
    place = where(HOSTILE, 7, HOSTILE)
    return snapshot(
        error(place, program=HOSTILE, packets=second),
        at=second,
        returned=(counters("日本語インターフェ", {HOSTILE: {0: returned(0, second, second)}}, 5),),
        attached=attached("日本語インターフェ", [HOSTILE], 5),
        drivers=(driver("日本語インターフェ", {"packets": [second]}, 5, kind=HOSTILE),),
        attach_failures={HOSTILE: 1},
        notes=(HOSTILE,),
    )


@functools.cache
def board(machine: Callable[[int], Snapshot], seconds: int = 20) -> Board:
    """The board of a machine that has been watched for a while."""
    found = Board.of(machine(1))
    for second in range(2, seconds + 1):
        found = found.after(machine(second))
    return found
