# SPDX-License-Identifier: Apache-2.0
"""What was redirected, or transmitted, and got lost on the way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.capabilities import Answer
from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import Complaint, Severity, listed, lost, packets
from xdpkit.monitor.complaints.facts import Facts, HookFacts, TargetState, called
from xdpkit.monitor.model import Reason, RedirectErrorCount, Where
from xdpkit.negotiation.targets import peer_remedy
from xdpkit.syscalls.netns import nsenter
from xdpkit.uapi.bpf import XdpAction

_DRIVER_ERRORS = {
    "tx_errors": "XDP_TX",
    "xmit_errors": "transmission of redirected frames",
    "redirect_errors": "XDP_REDIRECT",
}
"""Standard names of what drivers count as failed, and what it was that failed."""

_NEEDED = {"tx_errors": "action-tx", "xmit_errors": "redirect-target"}
"""What an interface lacks where such a number grows."""

_REASONS = {"tx_errors": Reason.TX_FAILED, "redirect_errors": Reason.REDIRECT_FAILED}
_REMEDY = ". Remedy: "


def redirect_errors(facts: Facts) -> Iterator[Complaint]:
    """Redirects that the kernel refused, with the state of the target now."""
    for error in facts.redirect_errors():
        blamed = facts.blamed(error)
        what = f"redirected to {error.target.name}, and that failed with {error.error}"
        cause, _, advice = words.explain_redirect(error.error, error.target.kind).partition(_REMEDY)
        if not blamed:
            yield Complaint(
                Severity.NOTE,
                "redirect-failed",
                f"{lost(error.packets)} on {error.where.interface} by {error.program}, which is not"
                f" there now: it {what}",
                error.where.interface,
                error.program,
                cause=cause,
                evidence=(_seen(error),),
            )
            continue
        state = facts.targets.get((error.target.ifindex, error.target.map_id, error.target.index))
        troubles = _troubles(facts, error, state) if state is not None else []
        # The one that makes redirects fail in just this way comes first.
        troubles.sort(key=lambda each: error.error not in each.errors)
        if troubles:
            cause += f"; now {listed(each.text for each in troubles)}"
        elif state is not None:
            cause += f"; now nothing is seen to be wrong with {error.target.name}"
        remedy = troubles[0].remedy if troubles else advice
        yield Complaint(
            Severity.ERROR,
            "redirect-failed",
            f"{lost(error.packets)}: {called(error.program, blamed)} {what}",
            error.where.interface,
            blamed[0].name if len(blamed) == 1 else "",
            cause=cause,
            remedy=remedy or None,
            evidence=(_seen(error),),
        )


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What is wrong with a target now.

    Attributes:
        text: as a phrase. errors: the errnos with which redirects fail then.
        remedy: what helps.
    """

    text: str
    errors: tuple[str, ...]
    remedy: str | None = None


def _troubles(facts: Facts, error: RedirectErrorCount, state: TargetState) -> list[_Trouble]:
    """Return what is wrong with a target now.

    The errnos are those of xdp_do_redirect() in net/core/filter.c, and of xdp_ok_fwd_dev() in
    include/linux/filter.h.
    """
    target, device = error.target, state.device
    found = []
    if state.has_entry is False:
        text = f"the map with id {target.map_id} has no entry {target.index}"
        found.append(_Trouble(text, ("EINVAL", "ENOENT")))
    if state.is_gone:
        found.append(_Trouble(f"there is no interface with index {target.ifindex}", ("EINVAL",)))
    if device is None:
        return found
    if state.is_up is False:
        command = f"{nsenter(facts.netns)}ip link set dev {shlex.quote(device.name)} up"
        found.append(_Trouble(f"{device.name} is down", ("ENETDOWN", "ENXIO"), command))
    hook = facts.hook_at(error.where)
    transmits = device.finding("redirect-target")
    if transmits.answer is Answer.NO and (hook is None or not hook.is_generic):
        text = f"{device.name} takes no redirected frames ({transmits.evidence})"
        found.append(_Trouble(text, ("EOPNOTSUPP", "ENXIO"), peer_remedy(device)))
    if error.error == "EMSGSIZE":
        found.append(_Trouble(f"the MTU of {device.name} is {device.mtu}", ("EMSGSIZE",)))
    return found


def _seen(error: RedirectErrorCount) -> str:
    text = f"tracepoint xdp_redirect_err: {packets(error.packets)} by program {error.program_id}"
    if error.target.map_id:
        text += f", map {error.target.map_id}"
    return text


def transmit_drops(facts: Facts) -> Iterator[Complaint]:
    """Redirected frames that an interface did not take (counted with ``--transmit``)."""
    for found in facts.snapshot.tracepoints.transmits:
        if not found.dropped or not facts.is_asked_for(found.where):
            continue
        cause, _, advice = words.explain_transmit(found.error).partition(_REMEDY)
        source = f" from {found.source.title}" if found.source is not None else ""
        yield Complaint(
            Severity.WARNING,
            "transmit-drops",
            f"{lost(found.dropped)}: {found.where.interface} did not take what was redirected to it"
            f"{source}",
            found.where.interface,
            cause=cause,
            remedy=advice or None,
            evidence=(f"{found.sent:,} were taken",),
        )


def cpumap_drops(facts: Facts) -> Iterator[Complaint]:
    """Frames that were lost on their way to another CPU (counted with ``--transmit``)."""
    for found in facts.snapshot.tracepoints.cpumaps if facts.only is None else ():
        name = found.map_name or f"map {found.map_id}"
        evidence = (f"{found.enqueued:,} were taken",)
        if found.queue_full:
            yield Complaint(
                Severity.WARNING,
                "cpumap-full",
                f"{lost(found.queue_full)} on the way to CPU {found.cpu} by cpumap {name}",
                cause=f"the queue to CPU {found.cpu} was full: that CPU was slower than the packets"
                " came",
                evidence=evidence,
            )
        if found.no_memory:
            yield Complaint(
                Severity.WARNING,
                "cpumap-no-memory",
                f"{lost(found.no_memory)} on CPU {found.cpu}, where cpumap {name} brought them",
                cause="there was no memory for them",
                evidence=evidence,
            )


def driver_errors(facts: Facts) -> Iterator[Complaint]:
    """What drivers say that they lost, unless something else tells of it more exactly."""
    told = {(each.where.ifindex, each.reason) for each in facts.errors()}
    told |= {(each.where.ifindex, Reason.REDIRECT_FAILED) for each in facts.redirect_errors()}
    for driver in facts.snapshot.drivers:
        for event in _DRIVER_ERRORS if facts.is_asked_for(driver.where) else ():
            value = sum(each.value for each in driver.counts if each.event == event)
            if value and (driver.where.ifindex, _REASONS.get(event)) not in told:
                complaint = _driver_error(facts, driver.where, event, value)
                if complaint is not None:
                    yield complaint


def _driver_error(facts: Facts, where: Where, event: str, value: int) -> Complaint | None:
    """Return a complaint about a number that began when the driver did: nobody can reset it.

    So it is a warning only where it may still grow.
    """
    hook = facts.hook_at(where)
    cause = remedy = None
    if hook is not None and hook.device is not None and event in _NEEDED:
        if event == "tx_errors" and _counted_tx(facts, hook):
            # That complaint names the program.
            return None
        offered = hook.device.finding(_NEEDED[event])
        is_possible = event != "tx_errors" or (
            hook.may_return(XdpAction.TX) and not hook.is_generic
        )
        if offered.answer is Answer.NO and is_possible:
            cause, remedy = offered.evidence, peer_remedy(hook.device)
    is_past = cause is None and facts.snapshot.installed is not None
    return Complaint(
        Severity.NOTE if is_past else Severity.WARNING,
        "driver-errors",
        f"{lost(value)} by {where.interface} since its driver began to count:"
        f" {_DRIVER_ERRORS[event]} failed",
        where.interface,
        cause=cause,
        remedy=remedy,
        evidence=(f"ethtool -S {where.interface}, standard name {event}",),
    )


def _counted_tx(facts: Facts, hook: HookFacts) -> bool:
    report = facts.report_of(hook)
    programs = report.programs if report is not None else ()
    return any(each.total.packets[XdpAction.TX] for each in programs)
