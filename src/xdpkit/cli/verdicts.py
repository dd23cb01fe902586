# SPDX-License-Identifier: Apache-2.0
"""A negotiation as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from xdpkit.capabilities import Answer
from xdpkit.cli.render import Column, counted, message, printable, table, width
from xdpkit.negotiation import Negotiation, Outcome, Verdict, sentence

# By the family that the names begin with. Programs need dozens, which every kernel of today has.
_SUMMED_UP = {"helper": "helper", "kfunc": "kernel function", "map-type": "map type"}


def list_verdicts(negotiation: Negotiation) -> Iterator[str]:
    """Yield the lines that show every verdict; what is fine and of the kernel in one line."""
    yield printable(f"{negotiation.device}  {negotiation.mode}  {negotiation.outcome.value}")
    yield ""
    yield from table(
        [
            Column("needs", wraps=True),
            Column("offered"),
            Column("why", wraps=True),
            Column("where"),
        ],
        _rows(negotiation.verdicts),
        width=width(),
        indent="  ",
    )
    if negotiation.notes or negotiation.remedies:
        yield ""
    for note in negotiation.notes:
        yield printable(f"Note: {note}")
    for remedy in negotiation.remedies:
        yield printable(f"Remedy: {remedy}")


def overridden(negotiation: Negotiation) -> None:
    """Say on standard error what ``--force`` overrides."""
    if negotiation.is_allowed:
        return
    for verdict in negotiation.refused:
        message(f"overridden by --force: {sentence(verdict)}")


def tolerated(negotiation: Negotiation) -> None:
    """Say on standard error what an attached program lacks all the same."""
    if negotiation.is_allowed:
        for verdict in negotiation.refused:
            message(f"let in by --policy report: {sentence(verdict)}")
    for verdict in negotiation.degraded:
        message(f"degraded: {sentence(verdict)}")


def _rows(verdicts: Iterable[Verdict]) -> Iterator[list[str]]:
    fine: defaultdict[Answer, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        family = verdict.requirement.capability.partition(":")[0]
        if verdict.outcome is not Outcome.ACCEPTED:
            yield _row(verdict)
        elif family in _SUMMED_UP:
            fine[verdict.answer].append(verdict)
        # A configuration that does not stand in the way is no news.
        elif family != "precondition":
            yield _row(verdict)
    for answer, together in fine.items():
        yield [_summary(together), answer.value, _reason(together), ""]


def _row(verdict: Verdict) -> list[str]:
    requirement = verdict.requirement
    is_code = requirement.capability.startswith("action-code:")
    is_fine = verdict.outcome is Outcome.ACCEPTED
    label = requirement.label
    if requirement.capability.startswith("redirect-target"):
        label = f"{label}: {verdict.device}"
    return [
        label,
        "" if is_code else verdict.answer.value,
        verdict.why,
        "" if is_fine or requirement.origin is None else str(requirement.origin),
    ]


def _summary(verdicts: list[Verdict]) -> str:
    counts: defaultdict[str, int] = defaultdict(int)
    for verdict in verdicts:
        counts[verdict.requirement.capability.partition(":")[0]] += 1
    return ", ".join(
        counted(counts[family], noun) for family, noun in _SUMMED_UP.items() if counts[family]
    )


def _reason(verdicts: list[Verdict]) -> str:
    reasons = {verdict.why for verdict in verdicts}
    if len(reasons) == 1:
        return reasons.pop()
    return "the kernel has them" if verdicts[0].answer is Answer.YES else "not all is known"
