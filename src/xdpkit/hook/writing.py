# SPDX-License-Identifier: Apache-2.0
"""Writing down with a program what a later process needs to know about it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpkit import __version__
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.record import Origin, Record
from xdpkit.hook.request import Request
from xdpkit.hook.scope import Scope
from xdpkit.hook.settings import Counting
from xdpkit.negotiation import Policy
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind

if TYPE_CHECKING:
    from xdpkit.hook.state import AttachedProgram
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Negotiation


def write_record(
    program: Program,
    request: Request,
    mode: Mode,
    via: Via,
    negotiation: Negotiation,
    *,
    revert_after: float | None = None,
    reverts_to: int = 0,
    queues: Scope = None,
    logical_id: int = 0,
    counting: Counting = Counting.OFF,
) -> tuple[Record | None, str | None]:
    """Bind the record to the program, before it goes on the hook.

    Returns it, or None and a note that says why there is none.

    Args:
        program: the program. request: how it was asked for. mode, via: how it is attached.
        negotiation: what came of holding it against the interface.
        revert_after: seconds after which it is undone. reverts_to: the program that is put back.
        queues: the RX queues that it was asked to serve; None: all that no other program serves.
        logical_id: the program that it is a copy of, 0 for none. counting: what it counts.
    """
    from xdpkit.hook import records

    record = Record(
        program=program.name,
        interface=request.interface.name,
        ifindex=request.interface.index,
        netns_cookie=request.interface.netns_cookie,
        mode=mode,
        via=via,
        cookie=request.cookie,
        attached_at=time.time_ns(),
        revert_at=deadline(revert_after),
        reverts_to=reverts_to if revert_after is not None else 0,
        origin=_origin(request),
        negotiation=negotiation,
        queues=None if queues is None else tuple(sorted(queues)),
        port=request.port,
        logical_id=logical_id,
        counting=counting,
    )
    note = records.write(program, record)
    return (record if note is None else None), note


def write_own(
    program: Program,
    interface: Interface,
    mode: Mode,
    via: Via,
    *,
    revert_after: float | None = None,
    reverts_to: int = 0,
) -> tuple[Record | None, str | None]:
    """Bind a record to a program of xdpkit's own, before it goes on the hook.

    Returns it, or None and a note that says why there is none.
    """
    from xdpkit.hook import records

    record = Record(
        program=program.name,
        interface=interface.name,
        ifindex=interface.index,
        netns_cookie=interface.netns_cookie,
        mode=mode,
        via=via,
        cookie=0,
        attached_at=time.time_ns(),
        revert_at=deadline(revert_after),
        reverts_to=reverts_to if revert_after is not None else 0,
        origin=Origin(None, None, {}, Policy.DEFAULT.value, False, __version__),
        negotiation=None,
    )
    note = records.write(program, record)
    return (record if note is None else None), note


def settle(present: AttachedProgram) -> bool:
    """Let a change stay that would be undone by time, if there is one; return whether there was."""
    from xdpkit.hook import records

    if present.seconds_to_revert is None or present.record is None:
        return False
    settled = replace(present.record.record, revert_at=0, reverts_to=0)
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, present.program.id)
    if descriptor is not None:
        with descriptor:
            records.edit(descriptor.fileno(), present.record, settled)
    return True


def forget(present: AttachedProgram, program: int | None) -> None:
    """Remove what was written down with a program that has left its hook; it can live on.

    Args:
        present: the program as it was on the hook.
        program: its descriptor, None where this process could not open it.
    """
    from xdpkit.hook import records

    if program is not None and present.record is not None:
        netns_cookie, ifindex = present.record.record.hook
        records.clear_for(program, netns_cookie=netns_cookie, ifindex=ifindex)


def forget_member(number: int, interface: Interface) -> None:
    """Remove what was written down with a program that a root runs no more; it can live on."""
    from xdpkit.hook import records

    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    if descriptor is not None:
        with descriptor:
            records.clear_for(
                descriptor.fileno(), netns_cookie=interface.netns_cookie, ifindex=interface.index
            )


def deadline(seconds: float | None) -> int:
    """Return a point in time from now, in nanoseconds of CLOCK_BOOTTIME; 0 for none."""
    if seconds is None:
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + round(seconds * 1e9)


def _origin(request: Request) -> Origin:
    obj = request.spec.object if request.spec is not None else None
    return Origin(
        path=os.path.abspath(obj.path) if obj is not None and obj.path is not None else None,
        sha256=obj.sha256 if obj is not None else None,
        variables=obj.variables.changed() if obj is not None else {},
        policy=request.policy.value,
        was_forced=request.force,
        xdpkit=__version__,
    )
