# SPDX-License-Identifier: Apache-2.0
"""What is on the hooks, and whether it is still as it was when it was attached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer
from xdpkit.hook.mode import Mode
from xdpkit.hook.state import Owner
from xdpkit.monitor.complaints.complaint import Complaint, Severity, listed, packets
from xdpkit.monitor.complaints.facts import Code, Facts, HookFacts, Member
from xdpkit.monitor.complaints.shell import quoted
from xdpkit.negotiation import Negotiation, Outcome, Verdict, sentence

if TYPE_CHECKING:
    from xdpkit.analysis import TailCall

_RANK = {Outcome.ACCEPTED: 0, Outcome.DEGRADED: 1, Outcome.REFUSED: 2}
_SEVERITIES = {Outcome.DEGRADED: Severity.WARNING, Outcome.REFUSED: Severity.ERROR}
_Key = tuple[str, str | None, int | None, str]


def changed_findings(facts: Facts) -> Iterator[Complaint]:
    """What the interface offered when the program was attached, and does not now."""
    for hook in facts.hooks:
        for member in hook.members:
            before = _negotiated(member)
            if before is None or member.now is None:
                continue
            known = {_key(each): each.outcome for each in before.verdicts}
            for verdict in _worse(known, member.now):
                since = " as it was when it was attached"
                if _key(verdict) not in known:
                    needed = verdict.requirement.map
                    since = f" that {verdict.device} is in {needed}" if needed else ""
                yield Complaint(
                    _SEVERITIES[verdict.outcome],
                    "findings-changed",
                    f"{member.name} would not be accepted on {hook.name} now{since}:"
                    f" {sentence(verdict)}",
                    hook.name,
                    member.name,
                    remedy=verdict.remedy,
                    evidence=_lines(verdict),
                )


def forced(facts: Facts) -> Iterator[Complaint]:
    """What was refused when the program was attached, and overridden."""
    for hook in facts.hooks:
        for member in hook.members:
            now = member.now
            if now is None or not now.refused:
                continue
            before = _negotiated(member)
            known = {_key(each): each.outcome for each in before.verdicts} if before else {}
            still = [each for each in now.refused if known.get(_key(each)) is Outcome.REFUSED]
            if still:
                yield Complaint(
                    Severity.NOTE,
                    "forced",
                    f"{member.name} was attached although {hook.name} cannot do what it needs:"
                    f" {listed(map(sentence, still))}",
                    hook.name,
                    member.name,
                    remedy=next((each.remedy for each in still if each.remedy), None),
                )


def _negotiated(member: Member) -> Negotiation | None:
    record = member.attached.record
    return record.record.negotiation if record is not None else None


def _key(verdict: Verdict) -> _Key:
    needed = verdict.requirement
    return needed.capability, needed.map, needed.ifindex, verdict.device


def _worse(known: Mapping[_Key, Outcome], now: Negotiation) -> Iterator[Verdict]:
    """Yield the verdicts that are worse than they were; what is new counts as accepted before.

    What is new are targets that were put into a map since.
    """
    for verdict in now.verdicts:
        was = known.get(_key(verdict), Outcome.ACCEPTED)
        if _RANK[verdict.outcome] > _RANK[was]:
            yield verdict


def _lines(verdict: Verdict) -> tuple[str, ...]:
    origins = verdict.requirement.origins
    return (f"needed at {listed(map(str, origins))}",) if len(origins) > 1 else ()


def generic_mode(facts: Facts) -> Iterator[Complaint]:
    """Programs in generic mode, at the cost of an skb per packet, that could be in the driver."""
    for hook in facts.hooks:
        native = hook.device.finding("mode-native") if hook.device is not None else None
        if native is None or native.answer is not Answer.YES:
            continue
        for member in hook.members:
            if member.attached.mode is not Mode.GENERIC:
                continue
            if member.natively is not None and member.natively.refused:
                continue
            is_sure = member.natively is not None
            yield Complaint(
                Severity.WARNING if is_sure else Severity.NOTE,
                "generic-mode",
                f"{member.name} is attached to {hook.name} in generic mode, although the driver has"
                " native mode",
                hook.name,
                member.name,
                cause="in generic mode each packet becomes an skb first",
                remedy=_go_native(facts, hook, member) if is_sure else None,
                evidence=(native.evidence,),
            )


def _go_native(facts: Facts, hook: HookFacts, member: Member) -> str | None:
    record = member.attached.record
    path = record.record.origin.path if record is not None else None
    if path is None or record is None or len(hook.members) > 1:
        return None
    attach = facts.command("attach", hook, "--program", record.record.program, "--mode", "native")
    return f"{facts.command('detach', hook)} && {attach} {quoted(path)}"


def interpreted(facts: Facts) -> Iterator[Complaint]:
    """Programs that the kernel runs instruction by instruction."""
    for hook in facts.hooks:
        programs = {each.attached.program.id: each.attached.program for each in hook.members}
        for program in programs.values():
            if program.jited is False:
                yield Complaint(
                    Severity.WARNING,
                    "interpreted",
                    f"{program.name or program.id} on {hook.name} runs as"
                    " interpreted instructions, which is several times slower",
                    hook.name,
                    program.name or "",
                    cause="the JIT was off when it was loaded",
                    remedy="sysctl net.core.bpf_jit_enable=1, and load it anew (xdpkit replace)",
                )


def emptied_arrays(facts: Facts) -> Iterator[Complaint]:
    """Tail calls that go nowhere, as nothing is in the slot."""
    for hook in facts.hooks:
        seen: set[tuple[int, str]] = set()
        for member in hook.members:
            for code in member.code:
                for complaint, key in _dead_calls(hook, member, code):
                    if key not in seen:
                        seen.add(key)
                        yield complaint


def _dead_calls(
    hook: HookFacts, member: Member, code: Code
) -> Iterator[tuple[Complaint, tuple[int, str]]]:
    for call in code.analysis.tail_calls if code.analysis is not None else ():
        for name in call.arrays:
            array = code.arrays.get(name)
            if array is None:
                continue
            slots = range(array.size) if call.indices is None else sorted(call.indices)
            wanted = {slot for slot in slots if slot < array.size}
            lost = (wanted & array.loaded_with) - array.filled
            empty = wanted - array.filled
            # Which slot is called may depend on the packet: some of them are empty on purpose.
            if lost or (empty and empty == wanted):
                complaint = _dead_call(hook, member, code, call, name, lost or empty, bool(lost))
                yield complaint, (array.id, str(call.origin))


def _dead_call(
    hook: HookFacts,
    member: Member,
    code: Code,
    call: TailCall,
    name: str,
    slots: set[int],
    was_filled: bool,
) -> Complaint:
    array = code.arrays[name]
    where = f"slot {listed(map(str, sorted(slots)))}"
    if not array.filled and call.indices is None:
        where = "any slot"
    # An array is emptied when nothing holds it any more, even while programs use it.
    severity = Severity.NOTE if array.filled else Severity.WARNING
    cause = f"the tail call at {call.origin} goes nowhere, and {code.name} goes on behind it"
    if was_filled:
        severity = Severity.ERROR
        cause += "; its object file fills that slot when it is loaded"
    return Complaint(
        severity,
        "emptied-array",
        f"the program array {name} of {code.name} on {hook.name} has no program in {where}",
        hook.name,
        member.name,
        cause=cause,
        evidence=(f"map {array.id}: {len(array.filled)} of {array.size} slots are used",),
    )


def pending(facts: Facts) -> Iterator[Complaint]:
    """Changes that are undone unless somebody confirms them, or that should have been."""
    for hook in facts.hooks:
        for attached in hook.status.attached:
            left = attached.seconds_to_revert
            if left is None:
                continue
            confirm = facts.command("confirm", hook)
            if left >= 0:
                yield Complaint(
                    Severity.NOTE,
                    "revert-pending",
                    f"a change of {hook.name} is undone in {round(left)} s unless it is confirmed",
                    hook.name,
                    remedy=f"to keep it: {confirm}",
                )
            else:
                yield Complaint(
                    Severity.WARNING,
                    "revert-missed",
                    f"a change of {hook.name} was to be undone {round(-left)} s ago and was not",
                    hook.name,
                    cause="the process that was to do it was killed, or refused (the system's log"
                    " says why)",
                    remedy=f"to keep it: {confirm}",
                )


def others(facts: Facts) -> Iterator[Complaint]:
    """Programs that other tools attached."""
    for hook in facts.hooks:
        for attached in hook.status.attached:
            if attached.owner is Owner.LIBXDP:
                count = len(attached.dispatcher.programs) if attached.dispatcher else 0
                behind = f", with {count} program{'' if count == 1 else 's'}" if count else ""
                yield Complaint(
                    Severity.NOTE,
                    "libxdp-dispatcher",
                    f"libxdp's dispatcher is on {hook.name}{behind}: xdp-loader and others change"
                    " it, xdpkit leaves it alone",
                    hook.name,
                    attached.program.name or "",
                )
            # Whose it is can only be told where it could be looked at; else that is said elsewhere.
            elif (
                attached.owner is Owner.UNKNOWN and attached.note is None and attached.program.name
            ):
                yield Complaint(
                    Severity.NOTE,
                    "foreign-program",
                    f"another tool attached {attached.program.name} (id"
                    f" {attached.program.id}) to {hook.name}: what it needs is not known here",
                    hook.name,
                    attached.program.name,
                )


def newer_records(facts: Facts) -> Iterator[Complaint]:
    """Programs with which a later version wrote down what this one does not understand."""
    for hook in facts.hooks:
        for member in hook.members:
            stored = member.attached.record
            if stored is not None and stored.unknown:
                yield Complaint(
                    Severity.NOTE,
                    "newer-record",
                    f"xdpkit {stored.record.origin.xdpkit} attached {member.name} to {hook.name},"
                    " and wrote down what this version does not understand",
                    hook.name,
                    member.name,
                )


def counting(facts: Facts) -> Iterator[Complaint]:
    """What of the programs' results is not counted, and packets that met no program."""
    for hook in facts.hooks:
        report = facts.report_of(hook)
        if report is None or not hook.status.attached:
            continue
        if report.is_enabled is False:
            yield Complaint(
                Severity.NOTE,
                "counters-off",
                f"what the programs on {hook.name} return is not counted",
                hook.name,
                remedy=facts.command("counters enable", hook),
            )
        else:
            for text in report.not_counted:
                yield Complaint(Severity.NOTE, "not-counted", text.removesuffix("."), hook.name)
        for queue, found in report.no_program.items():
            if found.packets:
                yield Complaint(
                    Severity.NOTE,
                    "no-program",
                    f"{packets(found.packets)} of RX queue {queue} of {hook.name} met no program,"
                    " and passed",
                    hook.name,
                    cause="the queue has no program of its own, and there is none for all others",
                    packets=found.packets,
                )
