# SPDX-License-Identifier: Apache-2.0
"""Snapshots, as values."""

from __future__ import annotations

from typing import Any

from tests.unit.cli.reports import counts, program, report, without_program
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

HERE = Where("", "eth0", 2)
THERE = Where("blue", "veth1", 7)

INSTALLED = Installed(
    groups=frozenset(Group),
    tracepoints=("xdp_exception", "xdp_redirect_err"),
    absent=("xdp_redirect_map",),
    rate=100,
    slots=1024,
    since=1,
    program_ids=(50, 51),
)


def error(
    where: Where = HERE,
    *,
    program: str = "firewall",
    program_id: int = 40,
    action: str = "aborted",
    reason: Reason = Reason.ABORTED,
    packets: int = 1,
) -> ErrorCount:
    return ErrorCount(where, program, program_id, action, reason, packets, returned=0, last_seen=0)


def redirect_error(
    where: Where = HERE, *, target: str = "eth1", error: str = "ENETDOWN", packets: int = 1
) -> RedirectErrorCount:
    to = Target("interface", target, ifindex=3)
    return RedirectErrorCount(where, "firewall", 40, to, error, packets, last_seen=0)


def transmit(source: Where | None, *, sent: int, dropped: int) -> TransmitCount:
    return TransmitCount(source, THERE, sent, dropped, error="", last_seen=0)


def cpumap(cpu: int, *, enqueued: int = 0, queue_full: int = 0, no_memory: int = 0) -> CpumapCount:
    return CpumapCount(
        map_id=9,
        map_name="cpus",
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


def snapshot(*errors: ErrorCount, notes: tuple[str, ...] = (), **counted: Any) -> Snapshot:
    """A snapshot with these errors, and no more than what is named."""
    return Snapshot(
        taken_at=0,
        installed=INSTALLED,
        tracepoints=Tracepoints(errors=errors, **counted),
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
    )
