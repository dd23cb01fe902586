# SPDX-License-Identifier: Apache-2.0
"""Port tables: ports to which frames get lost, and programs that have another port by now."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.hook.record import PortOf
from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import Complaint, Severity, first, lost, packets
from xdpkit.monitor.complaints.facts import Facts, HookFacts, Member
from xdpkit.monitor.model import Group, Reason
from xdpkit.monitor.portcounts import EGRESS, PortCounts, PortError, PortState, TableCounts
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
        yield Complaint(
            _UNFIT.get(about, Severity.WARNING),
            "port-unfit",
            f"{title}: {sentence(verdict)}",
            _interface(port),
            remedy=verdict.remedy,
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
    """Broadcasts that failed as a whole."""
    for table in facts.snapshot.tables:
        for error in table.broadcast_errors if facts.only is None else ():
            yield Complaint(
                Severity.WARNING,
                "broadcast-failed",
                f"{lost(error.frames)} that were to go to several ports of {table.name}"
                f" ({error.reason})",
                cause=words.why_redirect(error.reason, "devmap").cause
                + ". In generic mode, a broadcast ends at the first port that fails",
                packets=error.frames,
                last_seen=facts.when(error.last_seen),
            )


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
