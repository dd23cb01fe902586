# SPDX-License-Identifier: Apache-2.0
"""Verdicts in sentences, and a refusal as the error that it is."""

from __future__ import annotations

from xdpkit.capabilities import Answer
from xdpkit.errors import RequirementUnmet
from xdpkit.negotiation.verdict import Negotiation, Verdict

_MOST = 4
# What a program does, and not what it needs, is in the words for these.
_DEEDS = (
    "action-any",
    "action-code",
    "context-field",
    "port-index",
    "port-set",
    "port-table",
    "redirect-broadcast-frags",
)


def sentence(verdict: Verdict) -> str:
    """Return a verdict in words: what is needed and where, and what is known about it.

    "it needs action XDP_TX at fw.c:41, which eth0 does not offer (netdev: BASIC clear)"
    """
    requirement, device, why = verdict.requirement, verdict.device, verdict.why
    name = requirement.capability
    place = f" at {requirement.origin}" if requirement.origin else ""
    if name.startswith("precondition:"):
        return why if device in why else f"{device}: {why}"
    if name.partition(":")[0] in _DEEDS:
        return f"it {requirement.label}{place}: {why}"
    needed, offered = f"it needs {requirement.label}{place}", "offers that"
    if name.startswith("redirect-target"):
        # Of a port nobody knows yet who redirects to it.
        needed = f"it redirects{place}" if place else "frames are redirected there"
        offered = "transmits it" if place else "transmits them"
        if name.endswith("frags"):
            offered = "transmits packets in several buffers"
    match verdict.answer:
        case Answer.YES:
            return f"{needed}, and {device} {offered} ({why})"
        case Answer.NO:
            return f"{needed}, and {device} {_denied(offered)} ({why})"
        case Answer.UNKNOWN:
            return f"{needed}; whether {device} {offered} is {why}"


def _denied(claim: str) -> str:
    verb, _, rest = claim.partition(" ")
    return f"does not {verb.removesuffix('s')} {rest}"


def refusal(negotiation: Negotiation, what: str, *, most: int = _MOST) -> RequirementUnmet:
    """Return the error that a refused program raises.

    Args:
        negotiation: one that refuses something.
        what: what was tried ("attach fw to eth0 in native mode").
        most: how many reasons to give.
    """
    refused = negotiation.refused
    # A driver without native XDP lacks everything, for one and the same reason.
    different = {verdict.why: verdict for verdict in reversed(refused)}
    shown = [sentence(verdict) for verdict in refused if different[verdict.why] is verdict][:most]
    if len(refused) > len(shown):
        shown.append(f"and {len(refused) - len(shown)} more, which 'xdpkit check' lists")
    remedies = negotiation.remedies
    return RequirementUnmet(
        what,
        cause="; ".join(shown),
        remedy="; ".join(remedies) if remedies else None,
    )
