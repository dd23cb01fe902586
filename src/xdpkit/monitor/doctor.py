# SPDX-License-Identifier: Apache-2.0
"""What is attached, what has gone wrong since, and what helps.

:func:`examine` looks at everything once; then pure functions, one for each kind of complaint, say
what they make of it (:data:`COMPLAINTS`). What cannot be looked at does not stand in the way of the
rest: it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor.complaints import attached, host, ports, redirected, returned, transmitted
from xdpkit.monitor.complaints.complaint import Complaint, Severity, worst_first
from xdpkit.monitor.complaints.facts import Facts, HookFacts, Member

if TYPE_CHECKING:
    from xdpkit.negotiation import Negotiation

__all__ = ["COMPLAINTS", "Complaint", "Diagnosis", "OnHook", "Severity", "diagnose", "examine"]

COMPLAINTS: tuple[Callable[[Facts], Iterator[Complaint]], ...] = (
    returned.invalid,
    returned.aborted,
    returned.not_done,
    returned.transmitted_to_nobody,
    redirected.redirect_errors,
    transmitted.transmit_drops,
    transmitted.cpumap_drops,
    transmitted.driver_errors,
    ports.troubled_ports,
    ports.unfit_ports,
    ports.egress_programs,
    ports.broadcasts,
    ports.vacant_numbers,
    ports.other_numbers,
    ports.not_counted,
    attached.changed_findings,
    attached.emptied_arrays,
    attached.generic_mode,
    attached.interpreted,
    attached.pending,
    attached.forced,
    attached.others,
    attached.newer_records,
    attached.counting,
    host.jit,
    host.stale_state,
    host.killed_readers,
    host.monitor,
    host.refused_attachments,
    host.elsewhere,
)
"""Every kind of complaint, in the order in which they are told where nothing else decides."""

# What every program needs, or what is about a place and not about the program.
_NO_NEEDS = (
    "mode-",
    "link",
    "action-any",
    "action-code",
    "helper",
    "kfunc",
    "map-type",
    "precondition",
    "redirect-target",
)


@dataclass(frozen=True, slots=True)
class OnHook:
    """A program that was found on an interface.

    Attributes:
        interface: the interface. mode: native, generic or offload.
        program: its name. program_id: the id that it has now.
        queues: the RX queues that have it for their own; None: all, or all that have none.
        owner: whose it is: xdpkit, libxdp or unknown.
        since: when it was attached; of one that others attached, when it was loaded; None: unknown.
        needs: what it needs, in words: "XDP_DROP"; without helpers and map types.
    """

    interface: str
    mode: str
    program: str
    program_id: int
    queues: tuple[int, ...] | None
    owner: str
    since: datetime | None
    needs: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "interface": self.interface,
            "mode": self.mode,
            "program": self.program,
            "program_id": self.program_id,
            "queues": None if self.queues is None else list(self.queues),
            "owner": self.owner,
            "since": self.since.isoformat() if self.since is not None else None,
            "needs": list(self.needs),
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        at: when.
        attached: the programs on the interfaces that were looked at.
        idle: the interfaces that were asked for and have no program.
        complaints: the worst first.
        looked_at: what was looked at, as phrases.
        unseen: what could not be looked at, and why, in sentences.
    """

    at: datetime
    attached: tuple[OnHook, ...]
    idle: tuple[str, ...]
    complaints: tuple[Complaint, ...]
    looked_at: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing was found to be wrong; notes do not count."""
        return all(each.severity is Severity.NOTE for each in self.complaints)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "at": self.at.isoformat(),
            "well": self.is_well,
            "attached": [each.to_dict() for each in self.attached],
            "idle": list(self.idle),
            "complaints": [each.to_dict() for each in self.complaints],
            "looked_at": list(self.looked_at),
            "unseen": list(self.unseen),
        }


def examine(
    netns: str | None = None,
    interfaces: Iterable[str | int] | None = None,
    *,
    pin_root: str = DEFAULT_ROOT,
) -> Diagnosis:
    """Look at interfaces and their programs, and say what is wrong.

    Changes nothing. Most of it takes CAP_SYS_ADMIN; without it there is little to be seen, which
    :attr:`Diagnosis.unseen` says.

    Args:
        netns: name or path of the network namespace; None: the caller's own.
        interfaces: names or indexes; None: all that have a program.
        pin_root: the bpffs in which links are pinned.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    from xdpkit.monitor.complaints.gathering import gather

    return diagnose(gather(netns, interfaces, pin_root))


def diagnose(facts: Facts) -> Diagnosis:
    """Return what is to be said about what was seen; pure."""
    return Diagnosis(
        at=facts.at,
        attached=tuple(_on_hook(hook, member) for hook in facts.hooks for member in hook.members),
        idle=tuple(hook.name for hook in facts.hooks if not hook.status.attached),
        complaints=worst_first(found for complain in COMPLAINTS for found in complain(facts)),
        looked_at=tuple(_looked_at(facts)),
        unseen=facts.unseen,
    )


def _on_hook(hook: HookFacts, member: Member) -> OnHook:
    stored = member.attached.record
    return OnHook(
        interface=hook.name,
        mode=member.attached.mode.value,
        program=member.name,
        program_id=member.attached.program.id,
        queues=member.queues,
        owner=member.attached.owner.value,
        since=member.since,
        needs=_needs(stored.record.negotiation) if stored is not None else (),
    )


def _needs(negotiation: Negotiation | None) -> tuple[str, ...]:
    """Return what a program needs of its interface, without what most programs need."""
    if negotiation is None:
        return ()
    found = (verdict.requirement for verdict in negotiation.verdicts)
    return tuple(
        dict.fromkeys(
            each.label.removeprefix("action ")
            for each in found
            if not each.capability.startswith(_NO_NEEDS)
        )
    )


def _looked_at(facts: Facts) -> Iterator[str]:
    names = [hook.name for hook in facts.hooks]
    if names:
        yield f"the programs on {', '.join(names)}, and what they need"
    else:
        yield "which interfaces have programs: none"
    if facts.snapshot.installed is not None:
        yield "the errors that the kernel reported since 'xdpkit monitor install'"
    counted = [each.interface.name for each in facts.snapshot.returned if each.is_enabled]
    if counted:
        yield f"what the programs on {', '.join(counted)} returned"
    drivers = [each.where.interface for each in facts.snapshot.drivers]
    if drivers:
        yield f"what the drivers of {', '.join(drivers)} count"
    tables = [each.name for each in facts.snapshot.tables]
    if tables:
        yield f"the ports of {', '.join(tables)}"
    if facts.has_jit is not None:
        yield "whether programs are compiled"
    if facts.leftovers is not None:
        yield "what killed commands may have left"
