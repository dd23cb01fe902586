# SPDX-License-Identifier: Apache-2.0
"""Writing down with a program what a later process needs to know about it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit import __version__
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.record import Origin, Record
from xdpkit.hook.request import Request
from xdpkit.negotiation import Policy

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
) -> tuple[Record | None, str | None]:
    """Bind the record to the program, before it goes on the hook.

    Returns it, or None and a note that says why there is none.
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
    )
    note = records.write(program, record)
    return (record if note is None else None), note


def write_stand_in(
    program: Program, interface: Interface, present: AttachedProgram, revert_after: float
) -> tuple[Record | None, str | None]:
    """Bind a record to what stands in for a program that is being detached, until confirmed.

    Returns it, or None and a note that says why there is none.
    """
    from xdpkit.hook import records

    record = Record(
        program=program.name,
        interface=interface.name,
        ifindex=interface.index,
        netns_cookie=interface.netns_cookie,
        mode=present.mode,
        via=present.via or Via.LINK,
        cookie=0,
        attached_at=time.time_ns(),
        revert_at=deadline(revert_after),
        reverts_to=present.program.id,
        origin=Origin(None, None, {}, Policy.DEFAULT.value, False, __version__),
        negotiation=None,
    )
    note = records.write(program, record)
    return (record if note is None else None), note


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


@contextlib.contextmanager
def forgetting_a_failure(program: Program, record: Record | None) -> Iterator[None]:
    """Remove what was written down with a program if it does not get on the hook in the block.

    A program that the caller loaded lives on, and would seem to have been attached.
    """
    from xdpkit.hook import records

    try:
        yield
    except Exception:
        if record is not None:
            netns_cookie, ifindex = record.hook
            records.clear_for(program.fileno(), netns_cookie=netns_cookie, ifindex=ifindex)
        raise


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
