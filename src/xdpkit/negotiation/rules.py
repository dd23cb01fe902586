# SPDX-License-Identifier: Apache-2.0
"""The verdict on one requirement."""

from __future__ import annotations

from xdpkit.capabilities import Answer, Finding
from xdpkit.negotiation.verdict import Outcome, Policy, Verdict
from xdpkit.requirements import Requirement

# What may never happen, or to some packets only: the rest of the program works.
_NOT_FOR_ALL = ("action-any", "redirect-broadcast-frags")


def judge(
    requirement: Requirement,
    finding: Finding,
    device: str,
    policy: Policy,
    *,
    remedy: str | None = None,
) -> Verdict:
    """Return the verdict; a remedy is kept for one that needs it, without one the finding's."""
    outcome, why = _decide(requirement, finding, policy)
    return Verdict(
        requirement=requirement,
        finding=finding,
        device=device,
        outcome=outcome,
        why=why,
        remedy=(remedy or finding.remedy) if outcome is not Outcome.ACCEPTED else None,
    )


def _decide(requirement: Requirement, finding: Finding, policy: Policy) -> tuple[Outcome, str]:
    name, evidence = requirement.capability, finding.evidence
    if name.startswith("action-code:"):
        return Outcome.DEGRADED, evidence
    if name == "frags" and requirement.optional and finding.answer is not Answer.YES:
        # A program that can take packets in several buffers runs just as well without them.
        return Outcome.ACCEPTED, f"packets in one buffer are taken, too ({evidence})"
    unmet = Outcome.DEGRADED if requirement.optional else Outcome.REFUSED
    match finding.answer:
        case Answer.YES:
            return Outcome.ACCEPTED, evidence
        case Answer.NO if name in _NOT_FOR_ALL:
            return unmet if policy is Policy.STRICT else Outcome.DEGRADED, evidence
        case Answer.NO:
            without = "frames for it are lost" if name == "redirect-target" else "done without"
            return unmet, f"{without}: {evidence}" if requirement.optional else evidence
        case Answer.UNKNOWN:
            strict = policy is Policy.STRICT
            return unmet if strict else Outcome.ACCEPTED, f"not known: {evidence}"
