# SPDX-License-Identifier: Apache-2.0
"""An event with names for its numbers, and with what it means in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpkit.monitor.model import Reason, Target, Where
from xdpkit.monitor.record import BY_IFINDEX, Event, Kind
from xdpkit.monitor.snapshot import reason_of, target_of
from xdpkit.monitor.words import Why, why_exception, why_redirect, why_transmit

if TYPE_CHECKING:
    from xdpkit.monitor.places import Places


@dataclass(frozen=True, slots=True)
class Report:
    """Something that went wrong.

    Attributes:
        event: what the kernel's side has written down.
        time: when, in nanoseconds since 1970.
        where: the interface that the packet came in by; None: not known.
        program: the program's name, in full where xdpkit attached it; "" where not known.
        program_id: its id, of a program that xdpkit attached the one it had then; 0: not known.
        reason: why the packet was lost; None where redirects, transmissions or attachments failed.
        target: where it was to be redirected to, None: nowhere.
        why: the likely cause, and what helps, where that is sure.
    """

    event: Event
    time: int
    where: Where | None
    program: str
    program_id: int
    reason: Reason | None
    target: Target | None
    why: Why

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        event = self.event
        return {
            "time": self.time,
            "kind": event.kind.title,
            "cpu": event.cpu,
            **(self.where or Where("", "", 0)).to_dict(),
            "program": self.program,
            "program_id": self.program_id,
            "action": event.action_name,
            "returned": event.action,
            "reason": self.reason.value if self.reason is not None else None,
            "error": event.error_name,
            "target": self.target.to_dict() if self.target is not None else None,
            "queue": event.queue,
            "length": event.length,
            "data": event.data.hex(),
            "sent": event.sent,
            "drops": event.drops,
            "words": str(self.why),
        }


@dataclass(frozen=True, slots=True)
class Known:
    """A program that xdpkit attached: its id then, and its name in full."""

    id: int
    name: str


class Reporter:
    """Makes reports of events.

    Attributes:
        places: where interfaces are looked up; exchanged for what is there now, from time to time.
        programs: what is known of programs, by the ids that they have now.
    """

    def __init__(self, places: Places, programs: Mapping[int, Known]) -> None:
        self.places = places
        self.programs = programs
        # Asked for once, so that events keep their distances.
        self._since_1970 = time.time_ns() - time.monotonic_ns()

    def report(self, event: Event) -> Report:
        """Return what an event means."""
        known = self.programs.get(event.program, Known(event.program, event.program_name))
        reason, target = self._reason(event), self._target(event)
        return Report(
            event=event,
            time=event.time + self._since_1970,
            where=self._where(event.netns, event.ifindex),
            program=known.name,
            program_id=known.id,
            reason=reason,
            target=target,
            why=_why(event, reason, target),
        )

    def _where(self, inode: int, ifindex: int) -> Where | None:
        if not ifindex:
            return None
        return self.places.where(inode, ifindex, "")

    def _reason(self, event: Event) -> Reason | None:
        if event.kind not in (Kind.FRAME, Kind.EXCEPTION):
            return None
        return reason_of(event.action, self.places, event.netns, event.ifindex, in_map=event.in_map)

    def _target(self, event: Event) -> Target | None:
        # It may be in another namespace than the packet.
        where = self._where(event.target_netns or event.netns, event.target)
        if event.kind is Kind.DEVMAP_XMIT and where is not None:
            return Target("interface", where.title, event.target)
        if event.kind not in (Kind.REDIRECT_ERROR, Kind.CPUMAP_ENQUEUE, Kind.CPUMAP_KTHREAD):
            return None
        found = target_of(
            self.places,
            event.netns,
            map_type=event.map_type,
            map_id=0 if event.map_id == BY_IFINDEX else event.map_id,
            index=event.map_index,
            ifindex=event.target,
        )
        return replace(found, name=where.title) if where is not None else found


def _why(event: Event, reason: Reason | None, target: Target | None) -> Why:
    match event.kind:
        case Kind.REDIRECT_ERROR:
            return why_redirect(event.error_name, target.kind if target else "")
        case Kind.DEVMAP_XMIT | Kind.BULK_TX:
            return why_transmit(event.error_name)
        case Kind.CPUMAP_ENQUEUE:
            # kernel/bpf/cpumap.c: bq_flush_to_queue() has no other reason.
            return why_redirect("ENOSPC", "cpumap")
        case Kind.CPUMAP_KTHREAD:
            return Why("the kernel had no memory for these packets")
        case Kind.ATTACH_FAILED:
            return Why(event.text)
    return why_exception(event.action_name, reason or Reason.FAILED, event.action)
