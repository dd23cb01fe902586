# SPDX-License-Identifier: Apache-2.0
"""What was redirected, and refused by the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.monitor import words
from xdpkit.monitor.complaints.complaint import Complaint, Severity, listed, lost, packets
from xdpkit.monitor.complaints.facts import Facts, Member, called
from xdpkit.monitor.complaints.targets import Trouble, troubles
from xdpkit.monitor.layout import INDEX_ALL, TARGETS
from xdpkit.monitor.model import RedirectErrorCount
from xdpkit.monitor.snapshot import OTHER

_MINUTE, _HOUR = 60, 3_600

ENDS_EARLY = ", and in generic mode a broadcast ends at the first port that fails"
"""What follows the cause of a broadcast that failed."""

_OTHERS = f"each CPU tells {TARGETS} targets apart for each program and errno; these are the others"


@dataclass(frozen=True, slots=True)
class _Failed:
    """Redirects that failed in one way, of one program and its copies.

    Attributes:
        errors: what was counted, by copy and target; there is one at least.
        members: the programs that they may be of; none: it has left.
        troubles: what is wrong now, by target; None where that is not known.
    """

    errors: tuple[RedirectErrorCount, ...]
    members: tuple[Member, ...]
    troubles: tuple[tuple[Trouble, ...] | None, ...]

    @property
    def first(self) -> RedirectErrorCount:
        return self.errors[0]

    @property
    def count(self) -> int:
        return sum(each.packets for each in self.errors)

    @property
    def last_seen(self) -> int:
        return max(each.last_seen for each in self.errors)

    @property
    def targets(self) -> str:
        """The targets, "" where the program named none."""
        names = (each.target.name for each in self.errors if each.target.kind)
        return listed(names, between=", ")

    @property
    def what(self) -> str:
        """What it did, as it follows the program's name."""
        targets = "other targets" if _is_other(self.first) else self.targets
        if not targets:
            return f"returned XDP_REDIRECT, and the redirect failed ({self.first.error})"
        return f"redirected to {targets}, and that failed with {self.first.error}"

    @property
    def is_broadcast(self) -> bool:
        """Whether frames were to go to all entries of a devmap."""
        return self.first.target.index == INDEX_ALL

    @property
    def is_well_now(self) -> bool:
        """Whether the targets were looked at, and nothing is wrong with them."""
        return all(each == () for each in self.troubles)

    @property
    def now(self) -> str:
        """How the targets are now, as what follows the cause; "" where that is not known."""
        if self.is_well_now:
            return f"; now nothing is seen to be wrong with {self.targets}"
        texts = [trouble.text for found in self.troubles for trouble in found or ()]
        return f"; now {listed(texts)}" if texts else ""

    @property
    def remedy(self) -> str | None:
        """What helps, where what is wrong with the targets says that."""
        firsts = (found[0] for found in self.troubles if found)
        return listed(each.remedy for each in firsts if each.remedy is not None) or None

    def evidence(self, facts: Facts) -> tuple[str, ...]:
        """Where the numbers are from."""
        programs = listed((str(each.program_id) for each in self.errors), between=", ")
        maps = [f"map {each.target.map_id}" for each in self.errors if each.target.map_id]
        text = f"tracepoint xdp_redirect_err: {packets(self.count)} by program {programs}"
        if maps:
            text += f", {listed(maps, between=', ')}"
        text += facts.seen(self.last_seen)
        return (text, _OTHERS) if _is_other(self.first) else (text,)


def redirect_errors(facts: Facts) -> Iterator[Complaint]:
    """Redirects that the kernel refused, with the state of the targets now."""
    for failed in _failed(facts):
        error, why = failed.first, words.why_redirect(failed.first.error, failed.first.target.kind)
        name = called(error.program, failed.members)
        if failed.members:
            what = f"{lost(failed.count)}: {name} {failed.what}"
        else:
            place = f"on {error.where.interface} by {name}, which is not there now"
            what = f"{lost(failed.count)} {place}: it {failed.what}"
        is_looked_at = any(found is not None for found in failed.troubles)
        yield Complaint(
            _severity(facts, failed),
            "redirect-failed",
            what,
            error.where.interface,
            name if len(failed.members) < 2 else "",
            cause=why.cause
            + (ENDS_EARLY if failed.is_broadcast else "")
            + (failed.now if failed.members else ""),
            # What is known of the target says more than what the error may mean.
            remedy=(failed.remedy if is_looked_at else why.remedy) if failed.members else None,
            evidence=failed.evidence(facts),
            packets=failed.count,
            last_seen=facts.when(failed.last_seen),
        )


def _severity(facts: Facts, failed: _Failed) -> Severity:
    """Return how bad it is: what has been mended is a warning for an hour, and then a note."""
    if not failed.members:
        return Severity.NOTE
    if failed.is_well_now and facts.is_older(failed.last_seen, _HOUR):
        return Severity.NOTE
    if failed.is_well_now and facts.is_older(failed.last_seen, _MINUTE):
        return Severity.WARNING
    return Severity.ERROR


def _failed(facts: Facts) -> Iterator[_Failed]:
    """Yield what failed in one way: targets are told together that are in one state."""
    groups: dict[object, list[tuple[RedirectErrorCount, tuple[Trouble, ...] | None]]] = {}
    members: dict[object, tuple[Member, ...]] = {}
    for error in facts.redirect_errors():
        blamed = facts.blamed(error)
        state = troubles(facts, error) if blamed else None
        key: object = (
            (error.where.netns, error.where.ifindex),
            called(error.program, blamed),
            tuple(each.attached.program.id for each in blamed),
            error.error,
            (error.target.kind, error.target.index == INDEX_ALL, _is_other(error)),
            None if state is None else tuple(each.kind for each in state),
        )
        groups.setdefault(key, []).append((error, state))
        members[key] = blamed
    for key, found in groups.items():
        found.sort(key=lambda each: -each[0].packets)
        yield _Failed(
            tuple(error for error, _ in found), members[key], tuple(state for _, state in found)
        )


def _is_other(error: RedirectErrorCount) -> bool:
    """Whether it stands for all the targets that were too many."""
    return not error.target.kind and error.target.name == OTHER
