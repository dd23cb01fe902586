# SPDX-License-Identifier: Apache-2.0
"""What has gone wrong, and what went how, at one moment: as values.

All numbers are totals since the counting began. What a program *returned* is in
:attr:`Snapshot.returned`; what *happened* then is in the others.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport
    from xdpkit.monitor.portcounts import TableCounts


class Reason(enum.StrEnum):
    """Why a packet was lost whose program had run (label ``reason`` of ``xdpkit_errors``).

    Attributes:
        ABORTED: the program returned XDP_ABORTED: it failed, by its own account.
        INVALID: it returned a number that is no action.
        UNSUPPORTED: it returned an action that the driver does not have, and lets fall through.
        TX_FAILED: it returned XDP_TX, and the driver could not transmit.
        REDIRECT_FAILED: it returned XDP_REDIRECT, and the driver gave the packet up without a
            redirect error, which would have the cause.
        FAILED: it returned XDP_PASS or XDP_DROP, and the driver could not do even that.
    """

    ABORTED = "aborted"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    TX_FAILED = "tx_failed"
    REDIRECT_FAILED = "redirect_failed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Where:
    """An interface, of any network namespace.

    Attributes:
        netns: the namespace: "" for the one that was asked for, else its name in /run/netns,
            ``net:[4026531840]`` where it has none, ``gone:[4711]`` (its cookie) where it is gone.
        interface: its name; that which it had when it was first counted, if it is gone.
        ifindex: its index, unique within the namespace.
    """

    netns: str
    interface: str
    ifindex: int

    @property
    def title(self) -> str:
        """What to call it: ``eth0``, or ``blue/eth0`` in another namespace."""
        return f"{self.netns}/{self.interface}" if self.netns else self.interface

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {"netns": self.netns, "interface": self.interface, "ifindex": self.ifindex}


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Packets that a driver gave up: the tracepoint ``xdp:xdp_exception``.

    Without those of which a redirect error tells, too.

    Attributes:
        where: the interface. For a program of a devmap, that which was transmitted to.
        program: name of the program on the hook (of a root, ``xdpkit_root``), in full where it is
            on an interface that was looked at, else at most 15 characters. program_id: its id.
        action: what it returned: a name of :data:`xdpkit.rewrite.COUNTED`.
        reason: why they were lost.
        packets: how many.
        returned: what it returned last, as a number: tells one invalid action from another.
        last_seen: when that was last, in nanoseconds of CLOCK_MONOTONIC; in a flood, a little
            before (see :attr:`Installed.rate`).
        in_map: whether the program is that of an entry of a devmap or cpumap.
    """

    where: Where
    program: str
    program_id: int
    action: str
    reason: Reason
    packets: int
    returned: int
    last_seen: int
    in_map: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            **self.where.to_dict(),
            "program": self.program,
            "program_id": self.program_id,
            "action": self.action,
            "reason": self.reason.value,
            "packets": self.packets,
            "returned": self.returned,
            "last_seen": self.last_seen,
            "in_map": self.in_map,
        }


@dataclass(frozen=True, slots=True)
class Target:
    """Where a packet was to be redirected to.

    Attributes:
        kind: "interface", "devmap", "cpumap", "xskmap", or "" where the program named none.
        name: what to call it: the interface's name, or ``cpu 3``, ``queue 3``; "other" where there
            were too many to be told apart.
        ifindex: the interface, 0 where it is none or not known.
        map_id: the map, 0 without. index: the key in the map.
    """

    kind: str
    name: str
    ifindex: int = 0
    map_id: int = 0
    index: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "ifindex": self.ifindex,
            "map_id": self.map_id,
            "index": self.index,
        }


@dataclass(frozen=True, slots=True)
class RedirectErrorCount:
    """Packets that could not be redirected: the tracepoint ``xdp:xdp_redirect_err``.

    Attributes:
        where, program, program_id: as of :class:`ErrorCount`.
        target: where they were to go.
        error: the errno's name, ``ENETDOWN``.
        packets, last_seen: as of :class:`ErrorCount`.
    """

    where: Where
    program: str
    program_id: int
    target: Target
    error: str
    packets: int
    last_seen: int

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            **self.where.to_dict(),
            "program": self.program,
            "program_id": self.program_id,
            "target": self.target.to_dict(),
            "error": self.error,
            "packets": self.packets,
            "last_seen": self.last_seen,
        }


@dataclass(frozen=True, slots=True)
class TransmitCount:
    """Frames that were handed to an interface for transmission, in bulks; counted on request.

    Attributes:
        source: where they came in; None: on the interface itself (XDP_TX on a veth).
        where: the interface that was to transmit them.
        sent, dropped: how many it took, and how many it did not.
        error: the errno's name of the last bulk that failed as a whole, "" without.
        last_seen: when frames were last dropped, as of :class:`ErrorCount`.
    """

    source: Where | None
    where: Where
    sent: int
    dropped: int
    error: str
    last_seen: int

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "source": self.source.to_dict() if self.source is not None else None,
            **self.where.to_dict(),
            "sent": self.sent,
            "dropped": self.dropped,
            "error": self.error,
            "last_seen": self.last_seen,
        }


@dataclass(frozen=True, slots=True)
class CpumapCount:
    """Frames that went through a cpumap; counted on request.

    Attributes:
        map_id: the map. map_name: its name, "" if it is gone.
        cpu: the CPU that they were sent to.
        enqueued, queue_full: how many its queue took, and for how many it had no room.
        processed, no_memory: how many that CPU took from it, and for how many it had no memory.
        passed, dropped, redirected: what the entry's own program did with them.
        last_seen: when frames were last lost, as of :class:`ErrorCount`.
    """

    map_id: int
    map_name: str
    cpu: int
    enqueued: int
    queue_full: int
    processed: int
    no_memory: int
    passed: int
    dropped: int
    redirected: int
    last_seen: int

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class DriverCount:
    """One standard number of a driver's own statistics (``ethtool -S``).

    Attributes:
        event: its standard name, see :data:`xdpkit.monitor.drivers.EVENTS`.
        queue: of which RX queue (of TX queue, for ``xmit``), None: of all together.
        value: how many.
        includes: standard names of what this number counts, too.
    """

    event: str
    queue: int | None
    value: int
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverCounts:
    """What a driver says has happened.

    Attributes:
        where: the interface. driver: the driver.
        counts: under standard names.
        raw: everything that has to do with XDP, under the driver's names.
    """

    where: Where
    driver: str
    counts: tuple[DriverCount, ...]
    raw: Mapping[str, int]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            **self.where.to_dict(),
            "driver": self.driver,
            "counts": [
                {
                    "event": each.event,
                    "queue": each.queue,
                    "value": each.value,
                    "includes": list(each.includes),
                }
                for each in self.counts
            ],
            "raw": dict(self.raw),
        }


class Group(enum.StrEnum):
    """What the resident programs count.

    Attributes:
        ERRORS: what went wrong; costs only the packets that did.
        TRANSMIT: transmission too: fires for each bulk of redirected frames, lost or not.
    """

    ERRORS = "errors"
    TRANSMIT = "transmit"


@dataclass(frozen=True, slots=True)
class Installed:
    """The resident programs.

    Attributes:
        groups: what they count.
        tracepoints: where they are attached. absent: tracepoints that this kernel does not have.
        rate: how often a second the time of each kind of error is noted, on each CPU; beyond that
            they are only counted.
        slots: how many different errors each CPU can tell apart.
        since: when they were installed, in nanoseconds of CLOCK_BOOTTIME.
        program_ids: their ids.
        notes: what else there was to say when they were installed, in sentences.
    """

    groups: frozenset[Group]
    tracepoints: tuple[str, ...]
    absent: tuple[str, ...]
    rate: int
    slots: int
    since: int
    program_ids: tuple[int, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "groups": sorted(group.value for group in self.groups),
            "tracepoints": list(self.tracepoints),
            "absent": list(self.absent),
            "rate": self.rate,
            "slots": self.slots,
            "since": self.since,
            "program_ids": list(self.program_ids),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Tracepoints:
    """What the resident programs have counted.

    Attributes:
        errors, redirect_errors, transmits, cpumaps: see their types; those with packets only.
        attach_failures: attachments of XDP links that the kernel refused, by its text.
        other: errors that could not be told apart any more, as there were more kinds than slots.
        missed: events for which a program did not run, as it was running already on that CPU.
    """

    errors: tuple[ErrorCount, ...] = ()
    redirect_errors: tuple[RedirectErrorCount, ...] = ()
    transmits: tuple[TransmitCount, ...] = ()
    cpumaps: tuple[CpumapCount, ...] = ()
    attach_failures: Mapping[str, int] = field(default_factory=dict)
    other: int = 0
    missed: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "errors": [each.to_dict() for each in self.errors],
            "redirect_errors": [each.to_dict() for each in self.redirect_errors],
            "transmits": [each.to_dict() for each in self.transmits],
            "cpumaps": [each.to_dict() for each in self.cpumaps],
            "attach_failures": dict(self.attach_failures),
            "other": self.other,
            "missed": self.missed,
        }


@dataclass(frozen=True, slots=True)
class AttachedInfo:
    """A program on an interface, with what changes from load to load (``xdpkit_program_info``).

    Attributes:
        where: the interface. queue: the RX queue that it serves, "" for all others.
        program: its name, in full where that is known. program_id: its id. tag: its tag.
        mode: native, generic or offload. owner: whose it is: xdpkit, libxdp or unknown.
    """

    where: Where
    queue: str
    program: str
    program_id: int
    tag: str
    mode: str
    owner: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is counted, at one moment.

    Attributes:
        taken_at: when, in nanoseconds of CLOCK_MONOTONIC.
        installed: the resident programs; None where none are installed, or that cannot be seen.
        unread: why what they have counted cannot be read, None where it could be.
        tracepoints: what they have counted, of all namespaces.
        drivers: what drivers say, of the interfaces that were asked for.
        returned: what programs returned, of the interfaces with counters.
        attached: the programs on these interfaces.
        tables: the port tables, of all namespaces, with what is counted for their ports.
        notes: what could not be read, and why, in sentences.
    """

    taken_at: int
    installed: Installed | None
    tracepoints: Tracepoints
    drivers: tuple[DriverCounts, ...] = ()
    returned: tuple[CounterReport, ...] = ()
    attached: tuple[AttachedInfo, ...] = ()
    tables: tuple[TableCounts, ...] = ()
    notes: tuple[str, ...] = ()
    unread: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "taken_at": self.taken_at,
            "installed": self.installed.to_dict() if self.installed is not None else None,
            "unread": self.unread,
            "tracepoints": self.tracepoints.to_dict(),
            "drivers": [each.to_dict() for each in self.drivers],
            "returned": [each.to_dict() for each in self.returned],
            "tables": [each.to_dict() for each in self.tables],
            "notes": list(self.notes),
        }
