# SPDX-License-Identifier: Apache-2.0
"""Requirements × findings × policy → verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xdpkit.capabilities import Answer, Device, Finding, Scope, capability, in_mode
from xdpkit.negotiation.broadcasts import broadcast_verdicts
from xdpkit.negotiation.offer import Offer
from xdpkit.negotiation.preconditions import precondition_verdicts
from xdpkit.negotiation.rules import judge
from xdpkit.negotiation.targets import peer_remedy, target_verdicts
from xdpkit.negotiation.verdict import Negotiation, Outcome, Policy, Target, Verdict
from xdpkit.requirements import Requirement, Requirements

_GENERIC_REMEDY = "attach in generic mode (--mode generic), at the cost of an skb per packet"
_NATIVE_REMEDY = "attach in native mode (--mode native)"

_NOTHING_KNOWN: Mapping[str, Finding] = {}


def negotiate(
    requirements: Requirements,
    device: Device,
    *,
    kernel: Mapping[str, Finding] = _NOTHING_KNOWN,
    mode: str = "native",
    policy: Policy = Policy.DEFAULT,
    targets: Sequence[Target] = (),
) -> Negotiation:
    """Return the verdict on everything that a program needs of a device.

    Args:
        requirements: what the program needs.
        device: the interface it is to be attached to, live or a profile.
        kernel: findings about the kernel, by capability; those of the device come first.
        mode: "native", "generic" or "offload".
        policy: what becomes of what is not known.
        targets: the interfaces that packets are redirected to, as far as they are known.
    """
    verdicts = tuple(_verdicts(requirements, device, kernel, mode, policy, targets))
    if any(_wants_remedy(verdict) for verdict in verdicts):
        other = _other_mode(requirements, device, kernel, mode, policy, targets)
        verdicts = tuple(
            replace(verdict, remedy=other) if _wants_remedy(verdict) else verdict
            for verdict in verdicts
        )
    return Negotiation(
        program=requirements.program,
        device=device.name,
        source=device.source,
        mode=mode,
        policy=policy,
        verdicts=verdicts,
        notes=requirements.notes,
    )


def _verdicts(
    requirements: Requirements,
    device: Device,
    kernel: Mapping[str, Finding],
    mode: str,
    policy: Policy,
    targets: Sequence[Target],
) -> Iterator[Verdict]:
    offer = Offer(in_mode(device, mode), kernel)
    name = offer.device.name
    yield judge(Requirement(f"mode-{mode}"), offer.finding(f"mode-{mode}"), name, policy)
    # A bpf_link is what programs are attached by; unlike the rest it matters only if it is missing.
    link = offer.finding("link")
    if link.answer is Answer.NO:
        yield judge(Requirement("link"), link, name, policy)
    for requirement in requirements:
        finding = offer.finding(requirement.capability)
        remedy = _veth_remedy(requirement, offer)
        yield judge(requirement, finding, name, policy, remedy=remedy)
    yield from broadcast_verdicts(requirements, offer, mode, policy)
    yield from target_verdicts(requirements, mode, policy, targets)
    yield from precondition_verdicts(requirements, offer, mode, policy)


def _veth_remedy(requirement: Requirement, offer: Offer) -> str | None:
    """Return what makes a veth send: XDP_TX wakes its peer only if that has a program."""
    is_native = offer.finding("mode-native").answer is Answer.YES
    if requirement.capability == "action-tx" and offer.device.mode == "native" and is_native:
        return peer_remedy(offer.device)
    return None


def _wants_remedy(verdict: Verdict) -> bool:
    """Whether another mode may help: the driver refuses, and nothing nearer does help."""
    if verdict.outcome is not Outcome.REFUSED or verdict.remedy is not None:
        return False
    name = verdict.requirement.capability
    return name.startswith("mode-") or capability(name).scope is Scope.DRIVER


def _other_mode(
    requirements: Requirements,
    device: Device,
    kernel: Mapping[str, Finding],
    mode: str,
    policy: Policy,
    targets: Sequence[Target],
) -> str | None:
    """Return the advice to use another mode, if nothing is refused in it."""
    choices = {"native": ("generic", _GENERIC_REMEDY), "offload": ("native", _NATIVE_REMEDY)}
    if mode not in choices:
        return None
    other, remedy = choices[mode]
    found = _verdicts(requirements, device, kernel, other, policy, targets)
    return None if any(verdict.outcome is Outcome.REFUSED for verdict in found) else remedy
