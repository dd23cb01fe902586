# SPDX-License-Identifier: Apache-2.0
"""What was to be transmitted, or to go to another CPU, and got lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from xdpkit.capabilities import Answer
from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import Complaint, Severity, first, lost
from xdpkit.monitor.complaints.facts import Facts, HookFacts, Member
from xdpkit.monitor.complaints.lines import returning
from xdpkit.monitor.model import CpumapCount, Reason, TransmitCount, Where
from xdpkit.negotiation.targets import peer_remedy
from xdpkit.uapi.bpf import XdpAction

_DRIVER_ERRORS = {
    "tx_errors": "XDP_TX",
    "xmit_errors": "transmission of redirected frames",
    "redirect_errors": "XDP_REDIRECT",
}
"""Standard names of what drivers count as failed, and what it was that failed."""

_NEEDED = {"tx_errors": "action-tx", "xmit_errors": "redirect-target"}
"""What an interface lacks where such a number grows."""

_EVENTS = {Reason.TX_FAILED: "tx_errors", Reason.REDIRECT_FAILED: "redirect_errors"}


def transmit_drops(facts: Facts) -> Iterator[Complaint]:
    """Frames that an interface did not take (counted with ``--transmit``)."""
    for found in facts.snapshot.tracepoints.transmits:
        if found.dropped and facts.is_asked_for(found.where):
            yield _not_taken(facts, found) if found.source else _not_sent_back(facts, found)


def _not_taken(facts: Facts, found: TransmitCount) -> Complaint:
    why = _why_not_taken(facts, found)
    source = f" from {found.source.title}" if found.source is not None else ""
    return Complaint(
        Severity.WARNING,
        "transmit-drops",
        f"{lost(found.dropped)}: {found.where.interface} did not take what was redirected to it"
        f"{source}",
        found.where.interface,
        cause=why.cause,
        remedy=why.remedy,
        evidence=(_taken(facts, found),),
        packets=found.dropped,
        last_seen=facts.when(found.last_seen),
    )


def _why_not_taken(facts: Facts, found: TransmitCount) -> words.Why:
    """Return why an interface did not take frames; of a port, more is known than the errno says."""
    why, port = words.why_transmit(found.error), facts.port_at(found.where)
    if port is None:
        return why
    idle = next((each for each in port.troubles if each.kind == "no-carrier"), None)
    if idle is not None:
        return words.Why(f"{idle.text}: the other end is down, or not connected")
    # The kernel tells what such a program drops as what the interface did not take, without errno.
    if port.egress is None or found.error:
        return why
    dropped = f"{port.egress}, the egress program of port {port.number}, dropped them"
    return words.Why(dropped if port.xmit_errors == 0 else f"{dropped}; or {why.cause}")


def _not_sent_back(facts: Facts, found: TransmitCount) -> Complaint:
    why, hook = words.why_transmit(found.error), facts.hook_at(found.where)
    senders = _senders(hook, facts.when(found.last_seen)) if hook is not None else []
    cause, remedy = why.cause, why.remedy
    # What a program did that is not there any more cannot be mended.
    severity = Severity.WARNING if senders else Severity.NOTE
    offered = hook.finding("action-tx") if hook is not None and senders else None
    if hook is not None and offered is not None and offered.answer is Answer.NO:
        cause, severity = offered.evidence, Severity.ERROR
        remedy = peer_remedy(hook.device) if hook.device is not None else None
    name = senders[0].name if len(senders) == 1 else ""
    code = [each for member in senders for each in member.code]
    place, them = found.where.interface, "it" if found.dropped == 1 else "them"
    return Complaint(
        severity,
        "transmit-drops",
        f"{lost(found.dropped)}: {name} returned XDP_TX, and {place} could not send {them} back"
        if name
        else f"{lost(found.dropped)}: {place} could not send {them} back (XDP_TX)",
        place,
        name,
        cause=cause,
        remedy=remedy,
        evidence=(_taken(facts, found), *first(returning(code, XdpAction.TX.__eq__))),
        packets=found.dropped,
        last_seen=facts.when(found.last_seen),
    )


def _senders(hook: HookFacts, when: datetime | None = None) -> list[Member]:
    """Return the programs that may return XDP_TX, and were there at a time."""
    return [
        each
        for each in hook.members
        if each.may_return(XdpAction.TX)
        and (when is None or each.since is None or each.since <= when)
    ]


def _taken(facts: Facts, found: TransmitCount) -> str:
    return f"{found.sent:,} were taken{facts.seen(found.last_seen)}"


def cpumap_drops(facts: Facts) -> Iterator[Complaint]:
    """Frames that were lost on their way to another CPU (counted with ``--transmit``)."""
    refused = {
        (each.target.map_id, each.target.index)
        for each in facts.redirect_errors()
        if each.error == "ENOSPC"
    }
    for found in facts.snapshot.tracepoints.cpumaps:
        is_used = facts.uses(found.map_id)
        if not is_used and facts.only is not None:
            continue
        # What programs lose that are not looked at is for those to mend who have them.
        severity = Severity.WARNING if is_used else Severity.NOTE
        name = found.map_name or f"map {found.map_id}"
        # Redirects in generic mode fail with that: they are told of, with the program.
        if found.queue_full and (found.map_id, found.cpu) not in refused:
            yield Complaint(
                severity,
                "cpumap-full",
                f"{lost(found.queue_full)} on the way to CPU {found.cpu} by cpumap {name}",
                cause=f"the queue to CPU {found.cpu} was full: that CPU was slower than the packets"
                " came",
                evidence=_enqueued(facts, found),
                packets=found.queue_full,
                last_seen=facts.when(found.last_seen),
            )
        if found.no_memory:
            yield Complaint(
                severity,
                "cpumap-no-memory",
                f"{lost(found.no_memory)} on CPU {found.cpu}, where cpumap {name} brought them",
                cause="there was no memory for them",
                evidence=_enqueued(facts, found),
                packets=found.no_memory,
                last_seen=facts.when(found.last_seen),
            )


def _enqueued(facts: Facts, found: CpumapCount) -> tuple[str, ...]:
    return (f"map {found.map_id}: {found.enqueued:,} were taken{facts.seen(found.last_seen)}",)


def driver_errors(facts: Facts) -> Iterator[Complaint]:
    """What drivers say that they lost, unless something else tells of it more exactly."""
    told = set(_told(facts))
    for driver in facts.snapshot.drivers:
        for event in _DRIVER_ERRORS if facts.is_asked_for(driver.where) else ():
            value = sum(each.value for each in driver.counts if each.event == event)
            if value and (driver.where.ifindex, event) not in told:
                complaint = _driver_error(facts, driver.where, event, value)
                if complaint is not None:
                    yield complaint


def _told(facts: Facts) -> Iterator[tuple[int, str | None]]:
    """Yield what else tells of what drivers count, by interface and standard name."""
    for error in facts.errors():
        yield error.where.ifindex, _EVENTS.get(error.reason)
    for failed in facts.redirect_errors():
        yield failed.where.ifindex, "redirect_errors"
    for found in facts.snapshot.tracepoints.transmits:
        if found.dropped and facts.is_asked_for(found.where):
            yield found.where.ifindex, "xmit_errors" if found.source else "tx_errors"


def _driver_error(facts: Facts, where: Where, event: str, value: int) -> Complaint | None:
    """Return a complaint about a number that began when the driver did: nobody can reset it.

    So it is a warning only where it is known why it may still grow.
    """
    hook = facts.hook_at(where)
    cause = remedy = None
    if hook is not None and hook.device is not None and event in _NEEDED:
        if event == "tx_errors" and _counted_tx(facts, hook):
            # That complaint names the program.
            return None
        offered = hook.device.finding(_NEEDED[event])
        is_possible = event != "tx_errors" or (bool(_senders(hook)) and not hook.is_generic)
        if offered.answer is Answer.NO and is_possible:
            cause, remedy = offered.evidence, peer_remedy(hook.device)
    return Complaint(
        Severity.NOTE if cause is None else Severity.WARNING,
        "driver-errors",
        f"{lost(value)} by {where.interface} since its driver began to count:"
        f" {_DRIVER_ERRORS[event]} failed",
        where.interface,
        cause=cause,
        remedy=remedy,
        evidence=(f"ethtool -S {where.interface}, standard name {event}",),
        packets=value,
    )


def _counted_tx(facts: Facts, hook: HookFacts) -> bool:
    report = facts.report_of(hook)
    programs = report.programs if report is not None else ()
    return any(each.total.packets[XdpAction.TX] for each in programs)
