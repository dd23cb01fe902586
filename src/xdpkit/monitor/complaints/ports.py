# SPDX-License-Identifier: Apache-2.0
"""Port tables: ports to which frames get lost, and programs that have another port by now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xdpkit.hook.record import PortOf
from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import (
    Complaint,
    Severity,
    first,
    listed,
    lost,
    packets,
)
from xdpkit.monitor.complaints.facts import Facts, HookFacts, Member
from xdpkit.monitor.complaints.redirected import ENDS_EARLY
from xdpkit.monitor.model import Group, Reason
from xdpkit.monitor.portcounts import (
    ABSENT,
    EGRESS,
    PortCounts,
    PortError,
    PortState,
    TableCounts,
    is_broadcast,
)
from xdpkit.negotiation import Outcome, Verdict, sentence

# What a verdict on a port is about that a trouble tells of, too, by the trouble's kind.
_SAME = {
    "down": "precondition:up",
    "no-carrier": "precondition:up",
    "no-transmit": "redirect-target",
    "mtu": "precondition:mtu",
}
_SEVERITIES = {
    "no-transmit": Severity.ERROR,
    "mtu": Severity.NOTE,
}
# Commands in one remedy: one for each port.
_REMEDIES = 8
# Most networks have no tags.
_UNFIT = {"precondition:vlan-tags": Severity.NOTE}
# What is not known is no complaint.
_BAD = (Outcome.REFUSED, Outcome.DEGRADED)


def troubled_ports(facts: Facts) -> Iterator[Complaint]:
    """Ports to which frames get lost now, or which a broadcast skips."""
    for table, port in facts.ports():
        verdicts = facts.fitness.get((table.name, port.number), ())
        for trouble in port.troubles:
            about = _SAME.get(trouble.kind)
            verdict = next((each for each in verdicts if _is_about(each, about)), None)
            fates = []
            if trouble.counted:
                which = "longer frames" if trouble.kind == "mtu" else "frames"
                fates.append(f"{which} to it are lost, and counted as {trouble.counted}")
            if trouble.is_skipped:
                fates.append("a broadcast in native mode skips it, which nothing counts")
            yield Complaint(
                _SEVERITIES.get(trouble.kind, Severity.WARNING),
                f"port-{trouble.kind}",
                f"{_title(table, port)}: {trouble.text}",
                _interface(port),
                cause=verdict.why if verdict is not None else None,
                remedy=_remedy(facts, table, port, trouble.kind, verdict),
                evidence=(*fates, *_counted(port, trouble.counted)),
                packets=sum(e.frames for e in port.errors if e.reason == trouble.counted),
            )


def unfit_ports(facts: Facts) -> Iterator[Complaint]:
    """Ports that are some frames' only: what comes in by them, or goes out, is not whole."""
    groups: dict[tuple[str, str], list[tuple[str, PortCounts, Verdict]]] = {}
    for table, port in facts.ports():
        told = {_SAME.get(trouble.kind) for trouble in port.troubles}
        for verdict in facts.fitness.get((table.name, port.number), ()):
            about = verdict.requirement.capability
            if verdict.outcome in _BAD and about not in told:
                found = _title(table, port), port, verdict
                groups.setdefault((table.name, about), []).append(found)
    for (_, about), each in groups.items():
        (title, port, verdict), *others = each
        remedies = (verdict.remedy for _, _, verdict in each if verdict.remedy is not None)
        yield Complaint(
            _UNFIT.get(about, Severity.WARNING),
            "port-unfit",
            f"{title}: {sentence(verdict)}",
            _interface(port),
            # Each port has an interface of its own to be mended.
            remedy=listed(remedies, most=_REMEDIES) or None,
            evidence=first(f"the same is true of {other}" for other, _, _ in others),
        )


def egress_programs(facts: Facts) -> Iterator[Complaint]:
    """Programs of ports that fail on what is sent."""
    for table, port in facts.ports():
        for error in port.errors:
            if error.reason in EGRESS:
                yield _egress(facts, table, port, error)


def _egress(facts: Facts, table: TableCounts, port: PortCounts, error: PortError) -> Complaint:
    reason = Reason(error.reason)
    did = {
        Reason.ABORTED: "returned XDP_ABORTED",
        Reason.INVALID: "returned a number that is no action",
    }.get(reason, "returned an action that there is not for what is sent")
    name = port.egress or "a program that is not there now"
    return Complaint(
        Severity.ERROR if port.egress is not None else Severity.NOTE,
        "port-egress",
        f"{lost(error.frames, 'dropped')}: {name}, of what {_title(table, port)} sends, {did}",
        _interface(port),
        port.egress or "",
        evidence=(f"tracepoint xdp_exception: {packets(error.frames)}",),
        packets=error.frames,
        last_seen=facts.when(error.last_seen),
    )


def broadcasts(facts: Facts) -> Iterator[Complaint]:
    """Broadcasts that failed as a whole, as far as no redirect error of a program tells of them."""
    for table in facts.snapshot.tables:
        told = Counter[str]()
        for failed in facts.redirect_errors():
            if is_broadcast(failed, table.maps):
                told[failed.error] += failed.packets
        for error in table.broadcast_errors if facts.only is None else ():
            frames = error.frames - told[error.reason]
            if frames <= 0:
                continue
            yield Complaint(
                Severity.WARNING,
                "broadcast-failed",
                f"{lost(frames)} that were to go to several ports of {table.name} ({error.reason})",
                cause=words.why_redirect(error.reason, "devmap").cause + ENDS_EARLY,
                packets=frames,
                last_seen=facts.when(error.last_seen),
            )


def vacant_numbers(facts: Facts) -> Iterator[Complaint]:
    """Frames to numbers that have no interface, where that is nobody's fault but the sender's."""
    for table in facts.snapshot.tables if facts.is_whole_host else ():
        for absence in _absences(facts, table):
            if not absence.is_gone:
                yield Complaint(
                    Severity.NOTE,
                    "port-unassigned",
                    f"{lost(absence.frames, 'sent')} to {absence.where}",
                    cause="a program sends to a number without an interface",
                    remedy=absence.remedy,
                    packets=absence.frames,
                )


@dataclass(frozen=True, slots=True)
class _Absence:
    """Frames that were sent to where there was no interface.

    Attributes:
        frames: how many. where: the port, and why it has none, as a phrase.
        remedy: what helps; None: it has an interface again.
        is_gone: whether the interface has gone by itself.
    """

    frames: int
    where: str
    remedy: str | None
    is_gone: bool = False


def _absences(facts: Facts, table: TableCounts) -> Iterator[_Absence]:
    """Yield which numbers of a table frames were sent to that had no interface."""

    def adding(number: int) -> str:
        command = facts.host_command("ports add", table.name, "IFACE", "--number", str(number))
        return f"give it an interface: {command}"

    for port in table.ports:
        if not port.absent:
            continue
        title = _title(table, port)
        if port.state is PortState.VACANT:
            where = f"{title}, whose interface was removed"
            yield _Absence(port.absent, where, adding(port.number))
        elif any(each.counted == ABSENT for each in port.troubles):
            command = facts.host_command("ports watch", table.name)
            remedy = f"once its interface is there, have it followed: {command}"
            yield _Absence(port.absent, f"{title}, whose interface is gone", remedy, is_gone=True)
        else:
            where = f"{title}, which had no interface for a time"
            yield _Absence(port.absent, where, None, is_gone=True)
    for number, frames in table.unassigned.items():
        where = f"number {number} of {table.name}, which no port has"
        yield _Absence(frames, where, adding(number))


def absent_to(facts: Facts, members: Iterable[Member]) -> tuple[tuple[str, ...], str | None]:
    """Return which ports without interface the tables of programs were asked for, and what helps.

    A redirect to such a port makes a program return XDP_ABORTED.
    """
    used = frozenset[int]().union(*(each.map_ids for each in members))
    found = [
        absence
        for table in facts.snapshot.tables
        if not used.isdisjoint(table.maps)
        for absence in _absences(facts, table)
    ]
    remedies = (each.remedy for each in found if each.remedy is not None)
    texts = first(f"{packets(each.frames)} to {each.where}" for each in found)
    return texts, listed(remedies, most=_REMEDIES) or None


def other_numbers(facts: Facts) -> Iterator[Complaint]:
    """Programs with the number of a port in their instructions that is another one's by now."""
    tables = {table.name: table for table in facts.snapshot.tables}
    for hook in facts.hooks:
        for member in hook.members:
            stored = member.attached.record
            of = stored.record.port if stored is not None else None
            if of is None or of.number is None or not of.table:
                continue
            now = _now(tables.get(of.table), hook, of)
            if now is not None:
                yield _other_number(facts, hook, member, of, now)


def _now(table: TableCounts | None, hook: HookFacts, of: PortOf) -> str | None:
    """Return which port an interface is now, as a phrase; None: the one that the program knows."""
    if table is None:
        return "there is no such table any more"
    here = [each for each in table.ports if each.where is not None and hook.is_at(each.where)]
    if any(each.number == of.number for each in here):
        return None
    if not here:
        return f"{hook.name} is no port of it any more"
    return f"{hook.name} is port {here[0].number} now"


def _other_number(facts: Facts, hook: HookFacts, member: Member, of: PortOf, now: str) -> Complaint:
    return Complaint(
        Severity.ERROR,
        "port-number",
        f"{member.name} on {hook.name} takes itself for {of}, and {now}",
        hook.name,
        member.name,
        cause="the number is in its instructions since it was attached",
        remedy=f"detach it, and attach it again: {facts.command('detach', hook)}",
    )


def not_counted(facts: Facts) -> Iterator[Complaint]:
    """Losses of ports that nothing counts."""
    installed = facts.snapshot.installed
    if facts.snapshot.tables and installed is not None and Group.TRANSMIT not in installed.groups:
        yield Complaint(
            Severity.NOTE,
            "transmit-not-counted",
            "frames that the interfaces of ports do not take are not counted, but by their drivers",
            remedy=facts.host_command("monitor install", "--transmit"),
        )


def _is_about(verdict: Verdict, capability: str | None) -> bool:
    return verdict.outcome in _BAD and verdict.requirement.capability == capability


def _title(table: TableCounts, port: PortCounts) -> str:
    return f"port {port.number} ({port.name}) of {table.name}"


def _interface(port: PortCounts) -> str:
    return port.where.interface if port.where is not None else ""


def _counted(port: PortCounts, reason: str) -> Iterator[str]:
    for error in port.errors:
        if error.reason == reason:
            yield f"counted so far: {packets(error.frames)}"


def _remedy(
    facts: Facts, table: TableCounts, port: PortCounts, kind: str, verdict: Verdict | None
) -> str | None:
    if kind == "out-of-step":
        command = facts.host_command("ports watch", table.name)
        return f"have it followed: {command}"
    if kind == "absent":
        command = facts.host_command("ports remove", table.name, str(port.number))
        return f"if it is not to come back: {command}"
    if verdict is not None and verdict.remedy is not None:
        return verdict.remedy
    if kind == "down" and port.state is PortState.DOWN and port.where is not None:
        return None if port.where.netns else facts.ip_link_set(port.where.interface, "up")
    return None
