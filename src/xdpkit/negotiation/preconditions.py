# SPDX-License-Identifier: Apache-2.0
"""The interface as it is configured: MTU, queues, LRO, another program."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.capabilities import Answer, Finding, Precondition
from xdpkit.negotiation.offer import Offer
from xdpkit.negotiation.rules import judge
from xdpkit.negotiation.verdict import Policy, Verdict
from xdpkit.requirements import Requirement, Requirements

_RECOMPILE = 'recompile the program for SEC("xdp.frags")'


def precondition_verdicts(
    requirements: Requirements, offer: Offer, mode: str, policy: Policy
) -> Iterator[Verdict]:
    """Yield the verdict on each precondition that matters in a mode."""
    for condition in (*offer.device.preconditions, *_mtu(offer)):
        if mode in condition.modes:
            yield _verdict(condition, requirements, offer, policy)


def _verdict(
    condition: Precondition, requirements: Requirements, offer: Offer, policy: Policy
) -> Verdict:
    waiver = condition.waived_by
    answer, evidence, remedy = condition.answer, condition.evidence, condition.remedy
    if waiver is not None and answer is not Answer.YES:
        offered = offer.finding(waiver).answer
        if requirements.needs(waiver) and offered is not Answer.NO:
            answer, evidence = Answer.YES, f"{evidence}, but the program takes {waiver}"
        elif waiver == "frags" and offered is Answer.YES:
            remedy = f"{remedy}, or {_RECOMPILE}" if remedy else _RECOMPILE
    name = f"precondition:{condition.name}"
    return judge(
        Requirement(name),
        Finding(name, answer, evidence),
        offer.device.name,
        policy,
        remedy=remedy,
    )


def _mtu(offer: Offer) -> Iterator[Precondition]:
    """Yield the MTU as a precondition, where only its limit is known."""
    device = offer.device
    found = device.findings.get("mtu")
    listed = any(condition.name == "mtu" for condition in device.preconditions)
    if found is None or found.limit is None or listed:
        return
    yield Precondition(
        "mtu",
        Answer.YES if device.mtu <= found.limit else Answer.NO,
        f"MTU {device.mtu}, at most {found.limit} without frags ({found.evidence})",
        waived_by="frags",
        remedy=f"lower the MTU of {device.name} to {found.limit}",
    )
