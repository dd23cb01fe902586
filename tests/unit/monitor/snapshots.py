# SPDX-License-Identifier: Apache-2.0
"""Snapshots and what is in them, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.unit.cli.reports import SECOND, counts, program, report, without_program
from xdpkit.hook.counters import CounterReport
from xdpkit.monitor.model import (
    AttachedInfo,
    CpumapCount,
    DriverCount,
    DriverCounts,
    ErrorCount,
    Group,
    Installed,
    Reason,
    RedirectErrorCount,
    Snapshot,
    Target,
    Tracepoints,
    TransmitCount,
    Where,
)
from xdpkit.monitor.portcounts import (
    PortCounts,
    PortError,
    PortState,
    PortTrouble,
    TableCounts,
)

START = 5000 * SECOND
HERE = Where("", "eth0", 2)
THERE = Where("blue", "veth1", 7)

INSTALLED = Installed(
    groups=frozenset(Group),
    tracepoints=("xdp_exception", "xdp_redirect_err"),
    absent=("xdp_redirect_map",),
    rate=100,
    slots=1024,
    since=1000 * SECOND,
    program_ids=(50, 51),
)


def where(name: str = "eth0", index: int = 2, netns: str = "") -> Where:
    return Where(netns, name, index)


def error(
    where: Where = HERE,
    *,
    program: str = "firewall",
    program_id: int = 40,
    action: str = "aborted",
    reason: Reason = Reason.ABORTED,
    packets: int = 1,
    returned: int = 0,
    last_seen: int = 0,
) -> ErrorCount:
    return ErrorCount(where, program, program_id, action, reason, packets, returned, last_seen)


def redirect_error(
    where: Where = HERE,
    *,
    program: str = "firewall",
    target: str | Target = "eth1",
    error: str = "ENETDOWN",
    packets: int = 1,
    last_seen: int = 0,
) -> RedirectErrorCount:
    to = target if isinstance(target, Target) else Target("interface", target, ifindex=3)
    return RedirectErrorCount(where, program, 40, to, error, packets, last_seen)


def transmit(
    source: Where | None,
    *,
    where: Where = THERE,
    sent: int,
    dropped: int,
    error: str = "",
    last_seen: int = 0,
) -> TransmitCount:
    return TransmitCount(source, where, sent, dropped, error, last_seen)


def cpumap(
    cpu: int,
    *,
    map_id: int = 9,
    map_name: str = "cpus",
    enqueued: int = 0,
    queue_full: int = 0,
    no_memory: int = 0,
) -> CpumapCount:
    return CpumapCount(
        map_id=map_id,
        map_name=map_name,
        cpu=cpu,
        enqueued=enqueued,
        queue_full=queue_full,
        processed=enqueued,
        no_memory=no_memory,
        passed=0,
        dropped=0,
        redirected=0,
        last_seen=0,
    )


def attached(where: Where = HERE, *, name: str = "firewall", number: int = 40) -> AttachedInfo:
    return AttachedInfo(where, "", name, number, "0123456789abcdef", "native", "xdpkit")


def driver(
    name: str, events: Mapping[str, Sequence[int]], index: int = 2, kind: str = "veth"
) -> DriverCounts:
    """What a driver says: for each event a number for each queue."""
    counts = tuple(
        DriverCount(event, queue, value)
        for event, values in events.items()
        for queue, value in enumerate(values)
    )
    return DriverCounts(where(name, index), kind, counts, {})


def snapshot(
    *errors: ErrorCount,
    at: float = 0,
    installed: Installed | None = INSTALLED,
    unread: str | None = None,
    drivers: tuple[DriverCounts, ...] = (),
    returned: tuple[CounterReport, ...] = (),
    attached: tuple[AttachedInfo, ...] = (),
    notes: tuple[str, ...] = (),
    **counted: Any,
) -> Snapshot:
    """A snapshot so many seconds after the start, with these errors, and what else is named.

    ``counted``: fields of :class:`~xdpkit.monitor.model.Tracepoints`.
    """
    return Snapshot(
        taken_at=START + round(at * SECOND),
        installed=installed,
        unread=unread,
        tracepoints=Tracepoints(errors=errors, **counted),
        drivers=drivers,
        returned=returned,
        attached=attached,
        notes=notes,
    )


def full() -> Snapshot:
    """A snapshot with something of everything."""
    tracepoints = Tracepoints(
        errors=(
            error(packets=3),
            error(program_id=41, packets=4),
            error(THERE, program="", action="redirect", reason=Reason.UNSUPPORTED, packets=5),
            error(action="redirect", reason=Reason.REDIRECT_FAILED, packets=6),
        ),
        redirect_errors=(redirect_error(packets=6), redirect_error(target="cpu 3", error="ENOSPC")),
        transmits=(
            transmit(None, sent=10, dropped=0),
            transmit(HERE, sent=20, dropped=2),
            transmit(Where("red", "eth9", 9), sent=30, dropped=3),
        ),
        cpumaps=(cpumap(3, enqueued=100, queue_full=7), cpumap(1, no_memory=8)),
        attach_failures={"Underlying driver does not support XDP in native mode": 2},
        other=11,
        missed=12,
    )
    driver = DriverCounts(
        where=HERE,
        driver="veth",
        counts=(
            DriverCount("drop", 0, 13),
            DriverCount("drop", 1, 14),
            DriverCount("tx", None, 1),
            DriverCount("bytes", 0, 1300),
        ),
        raw={"rx_queue_0_xdp_drops": 13},
    )
    returned = report(
        program(40, {0: counts(drop=1, passed=2, length=100), 3: counts(invalid=1, length=60)}),
        program(42, {0: counts(passed=5)}, name="capture"),
        no_program=without_program(q5=(10, 640)),
    )
    return Snapshot(
        taken_at=1,
        installed=INSTALLED,
        tracepoints=tracepoints,
        drivers=(driver,),
        returned=(returned,),
        attached=(attached(), attached(THERE, name="capture", number=42)),
        tables=(lan(),),
    )


def lan() -> TableCounts:
    """A port table with a port of each state, and something of everything."""
    return TableCounts(
        name="lan",
        size=64,
        ports=(
            PortCounts(
                0,
                "uplink",
                PortState.UP,
                HERE,
                egress="mark",
                received=1_000_000,
                received_bytes=64_000_000,
                sent=2_000,
                sent_bytes=128_000,
                errors=(PortError("EMSGSIZE", 7), PortError("aborted", 2)),
                transmit_drops=5,
                xmit_errors=3,
                troubles=(
                    PortTrouble("mtu", "eth0 has MTU 1400, and port 1 has 1500", "EMSGSIZE"),
                ),
            ),
            PortCounts(
                1,
                "veth1",
                PortState.DOWN,
                THERE,
                prepared=("GRO on at veth1p",),
                received=0,
                received_bytes=0,
                sent=0,
                sent_bytes=0,
                errors=(PortError("ENETDOWN", 4),),
                transmit_drops=0,
                troubles=(PortTrouble("down", "veth1 is down", "ENETDOWN"),),
            ),
            PortCounts(
                2,
                "eth2",
                PortState.ABSENT,
                Where("", "eth2", 9),
                errors=(PortError("absent", 11),),
                troubles=(PortTrouble("absent", "its interface eth2 is absent", "absent"),),
            ),
            PortCounts(5, "kept", PortState.VACANT),
        ),
        sets={"guests": (1, 2), "none": ()},
        broadcast_errors=(PortError("ENOMEM", 6),),
        unassigned={7: 9, 8: 1},
    )
