# SPDX-License-Identifier: Apache-2.0
"""Reports of counters, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xdpkit.hook import ProgramSummary
from xdpkit.hook.counters import CounterReport, ProgramCounts
from xdpkit.interfaces import Interface
from xdpkit.rewrite import Counts, NoProgram
from xdpkit.syscalls.rtnetlink import XdpIds

SECOND = 10**9

INTERFACE = Interface(
    index=2,
    name="eth0",
    netns="blue",
    netns_cookie=4,
    driver="e1000e",
    kind=None,
    mtu=1500,
    rx_queues=8,
    tx_queues=8,
    xdp=XdpIds(native=40),
)


def counts(
    *, drop: int = 0, passed: int = 0, invalid: int = 0, length: int | None = None
) -> Counts:
    """Counters of packets that are all of the same length, None: bytes are not counted."""
    packets = 0, drop, passed, 0, 0, invalid
    return Counts(packets, None if length is None else tuple(each * length for each in packets))


def program(
    number: int,
    per_queue: Mapping[int, Counts] | None = None,
    *,
    name: str = "firewall",
    logical: int | None = None,
    queues: tuple[int, ...] | None = None,
    called_by: tuple[int, ...] = (),
) -> ProgramCounts:
    return ProgramCounts(
        program=ProgramSummary(number, name[:15]),
        name=name,
        logical_id=number if logical is None else logical,
        queues=queues,
        called_by=called_by,
        per_queue=per_queue or {},
    )


def report(*programs: ProgramCounts, seconds: float = 0, **fields: Any) -> CounterReport:
    given: dict[str, Any] = {
        "interface": INTERFACE,
        "is_enabled": True,
        "count_bytes": False,
        "programs": programs,
        "no_program": {},
        "not_counted": (),
        "taken_at": 1000 * SECOND + round(seconds * SECOND),
    }
    return CounterReport(**{**given, **fields})


def without_program(**queues: tuple[int, int]) -> dict[int, NoProgram]:
    """Packets and bytes for which there was no program: ``without_program(q3=(10, 600))``."""
    return {int(name.removeprefix("q")): NoProgram(*found) for name, found in queues.items()}
