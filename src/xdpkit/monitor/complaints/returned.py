# SPDX-License-Identifier: Apache-2.0
"""What programs returned that is no action, that means failure, or that the driver could not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer
from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import (
    Complaint,
    Severity,
    first,
    listed,
    lost,
    packets,
)
from xdpkit.monitor.complaints.facts import Code, Facts, HookFacts, Member, called
from xdpkit.monitor.complaints.lines import action_name, is_invalid, only_value, returning
from xdpkit.monitor.complaints.ports import absent_to
from xdpkit.monitor.complaints.shell import quoted
from xdpkit.monitor.model import ErrorCount, Reason
from xdpkit.uapi.bpf import XdpAction

if TYPE_CHECKING:
    from xdpkit.hook.counters import ProgramCounts

_KINDS = {
    Reason.INVALID: "invalid-action",
    Reason.ABORTED: "aborted",
    Reason.UNSUPPORTED: "unsupported-action",
    Reason.TX_FAILED: "tx-failed",
    Reason.FAILED: "driver-failed",
    Reason.REDIRECT_FAILED: "redirect-failed",
}


@dataclass(frozen=True, slots=True)
class _Told:
    """What the tracepoint told of a program: errors that only differ in ids, as of its copies.

    Attributes:
        errors: the errors; there is one at least.
        members: the programs that they may be of; none: it has left.
    """

    errors: tuple[ErrorCount, ...]
    members: tuple[Member, ...]

    @property
    def first(self) -> ErrorCount:
        return self.errors[0]

    @property
    def count(self) -> int:
        return sum(each.packets for each in self.errors)

    @property
    def last_seen(self) -> int:
        return max(each.last_seen for each in self.errors)

    @property
    def last(self) -> int:
        """What was returned last, as far as that is known."""
        return max(self.errors, key=lambda each: each.last_seen).returned

    @property
    def name(self) -> str:
        """What to call the program."""
        return called(self.first.program, self.members)

    def may_be_of(self, program: ProgramCounts) -> bool:
        """Whether it may be that program's."""
        ids = {program.program.id, program.logical_id}
        return any(
            ids & each.ids or program.name in (each.name, *(code.name for code in each.code))
            for each in self.members
        )

    def evidence(self, facts: Facts) -> str:
        """Where the number is from."""
        text = f"tracepoint xdp_exception: {packets(self.count)}"
        if self.first.reason is Reason.INVALID:
            text += f", at last {action_name(self.last)}"
        return text + facts.seen(self.last_seen)


def invalid(facts: Facts) -> Iterator[Complaint]:
    """Numbers that are no action: the driver drops the packet."""
    yield from _returned(facts, Reason.INVALID, "invalid", is_invalid)


def aborted(facts: Facts) -> Iterator[Complaint]:
    """XDP_ABORTED, by which a program says that it failed."""
    yield from _returned(facts, Reason.ABORTED, "aborted", XdpAction.ABORTED.__eq__)


def not_done(facts: Facts) -> Iterator[Complaint]:
    """Valid actions that the driver does not have, or that failed in it."""
    with_causes = {(each.where, each.program_id) for each in facts.redirect_errors()}
    for told in _told(
        facts,
        (
            each
            for each in facts.errors()
            if each.reason not in (Reason.INVALID, Reason.ABORTED)
            # The same packets are told of with the cause.
            and (
                each.reason is not Reason.REDIRECT_FAILED
                or (each.where, each.program_id) not in with_causes
            )
        ),
    ):
        hook = facts.hook_at(told.first.where)
        if hook is not None and told.members:
            yield _not_done(facts, told, hook)
        else:
            yield _past(facts, told)


def transmitted_to_nobody(facts: Facts) -> Iterator[Complaint]:
    """XDP_TX where it cannot be done: on some drivers nothing fires then."""
    known = {each.where.ifindex for each in facts.errors() if each.action == "tx"}
    for hook in facts.hooks:
        offered, report = hook.finding("action-tx"), facts.report_of(hook)
        if report is None or offered is None or offered.answer is not Answer.NO:
            continue
        index = hook.status.interface.index
        # What was counted when they were transmitted tells of the same packets.
        if index in known or any(facts.not_sent_back(index)):
            continue
        for program in report.programs:
            count = program.total.packets[XdpAction.TX]
            if count:
                yield Complaint(
                    Severity.ERROR,
                    "tx-lost",
                    f"{lost(count)}: {program.name} returned XDP_TX, which {hook.name} cannot do",
                    hook.name,
                    program.name,
                    cause=offered.evidence,
                    remedy=_transmit_remedy(hook),
                    evidence=first(returning(_code_of(hook, program), XdpAction.TX.__eq__)),
                    packets=count,
                )


def _told(facts: Facts, errors: Iterable[ErrorCount]) -> list[_Told]:
    groups: dict[object, list[ErrorCount]] = {}
    members: dict[object, tuple[Member, ...]] = {}
    for error in errors:
        blamed = facts.blamed(error)
        ids = tuple(each.attached.program.id for each in blamed)
        where = (error.where.netns, error.where.ifindex)
        key = (*where, called(error.program, blamed), error.reason, error.action, ids)
        groups.setdefault(key, []).append(error)
        members[key] = blamed
    return [_Told(tuple(found), members[key]) for key, found in groups.items()]


def _returned(
    facts: Facts, reason: Reason, name: str, wanted: Callable[[int], bool]
) -> Iterator[Complaint]:
    """Yield a complaint for each program that returned such a value, however that is known."""
    told = _told(facts, (each for each in facts.errors() if each.reason is reason))
    for hook in facts.hooks:
        here = [each for each in told if each.members and hook.is_at(each.first.where)]
        counted = list(_counted(facts, hook, name))
        programs = [program for program, _ in counted]
        for program, count in counted:
            mine = [each for each in here if each.may_be_of(program)]
            if len(counted) == 1:
                # What the tracepoint tells began earlier, or is of several programs.
                count = max(count, sum(each.count for each in mine))
            else:
                mine = [each for each in mine if sum(map(each.may_be_of, programs)) == 1]
            yield _by_counters(facts, hook, program, count, reason, wanted, mine)
        for each in here:
            if not any(map(each.may_be_of, programs)):
                yield _by_tracepoint(facts, hook, each, wanted)
    yield from (_past(facts, each) for each in told if not each.members)


def _counted(facts: Facts, hook: HookFacts, name: str) -> Iterator[tuple[ProgramCounts, int]]:
    from xdpkit.rewrite import COUNTED

    report = facts.report_of(hook)
    for program in report.programs if report is not None else ():
        count = program.total.packets[COUNTED.index(name)]
        if count:
            yield program, count


def _by_counters(
    facts: Facts,
    hook: HookFacts,
    program: ProgramCounts,
    count: int,
    reason: Reason,
    wanted: Callable[[int], bool],
    told: list[_Told],
) -> Complaint:
    code = _code_of(hook, program)
    members = [each for each in hook.members if program.program.id in each.ids]
    absent, remedy = absent_to(facts, members) if reason is Reason.ABORTED else ((), None)
    last = max(told, key=lambda each: each.last_seen, default=None)
    return Complaint(
        Severity.ERROR,
        _KINDS[reason],
        _sentence(program.name, count, reason, code, last.last if last is not None else None),
        hook.name,
        program.name,
        cause=listed(returning(code, wanted)) or None,
        remedy=_correction(facts, hook, program.logical_id) if reason is Reason.INVALID else remedy,
        evidence=(_seen(program, reason), *first(each.evidence(facts) for each in told), *absent),
        packets=count,
        last_seen=facts.when(last.last_seen) if last is not None else None,
    )


def _by_tracepoint(
    facts: Facts, hook: HookFacts, told: _Told, wanted: Callable[[int], bool]
) -> Complaint:
    code = [each for member in told.members for each in member.code]
    is_clear = len(told.members) == 1
    is_abort = told.first.reason is Reason.ABORTED
    absent, remedy = absent_to(facts, told.members) if is_abort else ((), None)
    return Complaint(
        Severity.ERROR,
        _KINDS[told.first.reason],
        _sentence(told.name, told.count, told.first.reason, code, told.last),
        hook.name,
        told.name if is_clear else "",
        cause=listed(returning(code, wanted)) or None,
        remedy=_correction(facts, hook, told.members[0].attached.program.id)
        if is_clear and told.first.reason is Reason.INVALID
        else remedy,
        evidence=(told.evidence(facts), *absent),
        packets=told.count,
        last_seen=facts.when(told.last_seen),
    )


def _sentence(name: str, count: int, reason: Reason, code: Iterable[Code], last: int | None) -> str:
    """Return what a program did.

    Only the last of the numbers is known: it is that of all where the code allows no other.
    """
    dropped = lost(count, "dropped")
    if reason is Reason.ABORTED:
        return f"{dropped}: {name} returned XDP_ABORTED"
    number = only_value(code, is_invalid)
    if count == 1 and last is not None:
        number = last
    if number is not None and last in (None, number):
        return f"{dropped}: {name} returned {action_name(number)}, which is no action"
    at_last = f", at last {action_name(last)}" if last is not None else ""
    return f"{dropped}: {name} returned numbers that are no action{at_last}"


def _seen(program: ProgramCounts, reason: Reason) -> str:
    from xdpkit.hook.scope import describe
    from xdpkit.rewrite import COUNTED

    at = COUNTED.index(reason.value)
    queues = frozenset(queue for queue, each in program.per_queue.items() if each.packets[at])
    return f"counters: {packets(program.total.packets[at])} of {describe(queues)}"


def _past(facts: Facts, told: _Told) -> Complaint:
    """Return a note on what a program did that is not there any more."""
    error = told.first
    return Complaint(
        Severity.NOTE,
        _KINDS[error.reason],
        f"{lost(told.count)} on {error.where.interface} by {error.program}, which is not there now",
        error.where.interface,
        error.program,
        cause=words.why_exception(error.action, error.reason, told.last).cause,
        evidence=(told.evidence(facts),),
        packets=told.count,
        last_seen=facts.when(told.last_seen),
    )


def _not_done(facts: Facts, told: _Told, hook: HookFacts) -> Complaint:
    error = told.first
    verb = "does not have" if error.reason is Reason.UNSUPPORTED else "failed to do"
    why = words.why_exception(error.action, error.reason, error.returned)
    cause = why.cause
    offered = hook.finding(f"action-{error.action}")
    if offered is not None and offered.answer is Answer.NO:
        cause = offered.evidence
    remedy = _transmit_remedy(hook) if error.action == "tx" else None
    code = [each for member in told.members for each in member.code]
    action = action_name(error.returned)
    return Complaint(
        Severity.ERROR,
        _KINDS[error.reason],
        f"{lost(told.count)}: {hook.name} {verb} {action}, which {told.name} returned",
        hook.name,
        told.name if len(told.members) == 1 else "",
        cause=cause,
        remedy=remedy or why.remedy,
        evidence=(told.evidence(facts), *first(returning(code, error.returned.__eq__))),
        packets=told.count,
        last_seen=facts.when(told.last_seen),
    )


def _transmit_remedy(hook: HookFacts) -> str | None:
    from xdpkit.negotiation.targets import peer_remedy

    return peer_remedy(hook.device) if hook.device is not None else None


def _code_of(hook: HookFacts, program: ProgramCounts) -> tuple[Code, ...]:
    """Return the code of a program alone: what it tail-calls is counted by itself."""
    ids = (program.program.id, program.logical_id)
    found = [each for member in hook.members for each in member.code]
    exact = [each for each in found if each.id in ids]
    return tuple(exact or (each for each in found if each.name == program.name))[:1]


def _correction(facts: Facts, hook: HookFacts, program_id: int) -> str | None:
    """Return how to put a corrected program in its place, where its file is known."""
    member = next((each for each in hook.members if program_id in each.ids), None)
    stored = member.attached.record if member is not None else None
    if member is None or stored is None or stored.record.origin.path is None:
        return None
    options = ["--program", stored.record.program]
    if member.queues is not None:
        from xdpkit.hook.scope import ranges

        options += ["--queue", ranges(member.queues)]
    command = facts.command("replace", hook, *options)
    return f"correct it, and: {command} {quoted(stored.record.origin.path)}"
