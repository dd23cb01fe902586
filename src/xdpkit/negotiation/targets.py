# SPDX-License-Identifier: Apache-2.0
"""Where packets are redirected to: a redirect is no better than the interface that transmits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.negotiation.rules import judge
from xdpkit.negotiation.verdict import Policy, Target, Verdict
from xdpkit.requirements import Requirement, Requirements

_TO_INTERFACES = ("redirect-devmap", "redirect-ifindex")

# net/core/filter.c: xdp_do_generic_redirect()
_GENERIC = "in generic mode any interface transmits, as it does for the stack"
_NOT_NAMED = "nobody said which interfaces they are"
_NAME_THEM = "name the interfaces that are redirected to (--target IFACE)"


def target_verdicts(
    requirements: Requirements, mode: str, policy: Policy, targets: Sequence[Target]
) -> Iterator[Verdict]:
    """Yield the verdict on each interface that the program redirects to, once for each origin."""
    for requirement in requirements:
        if requirement.capability in _TO_INTERFACES:
            serving = [target for target in targets if target.serves(requirement)]
            if serving:
                for target in serving:
                    yield from _transmits(requirement, target, requirements, mode, policy)
            elif mode == "native":
                yield _not_named(requirement, policy)


def _transmits(
    requirement: Requirement,
    target: Target,
    requirements: Requirements,
    mode: str,
    policy: Policy,
) -> Iterator[Verdict]:
    device = target.device
    yield judge(
        _needed("redirect-target", requirement, optional=target.optional),
        _finding(target, "redirect-target", mode),
        device.name,
        policy,
        remedy=peer_remedy(target.device),
    )
    if requirements.needs("frags"):
        yield judge(
            _needed("redirect-target-frags", requirement, optional=True),
            _finding(target, "redirect-target-frags", mode),
            device.name,
            policy,
        )


def _finding(target: Target, name: str, mode: str) -> Finding:
    if mode == "generic" and not target.is_absent:
        return Finding(name, Answer.YES, _GENERIC)
    return target.device.finding(name)


def _not_named(requirement: Requirement, policy: Policy) -> Verdict:
    where = "the target"
    if requirement.map is not None:
        where = f"what is in {requirement.map}"
    elif requirement.ifindex is not None:
        where = f"interface {requirement.ifindex}"
    return judge(
        _needed("redirect-target", requirement),
        Finding("redirect-target", Answer.UNKNOWN, _NOT_NAMED),
        where,
        policy,
        remedy=_NAME_THEM,
    )


def _needed(name: str, redirect: Requirement, *, optional: bool = False) -> Requirement:
    return Requirement(
        name,
        origins=redirect.origins,
        optional=optional,
        map=redirect.map,
        ifindex=redirect.ifindex,
    )


def peer_remedy(device: Device) -> str | None:
    """Return what makes a veth receive frames from XDP: its peer's NAPI, which a program starts."""
    if device.kind != "veth":
        return None
    return f"attach a program to the veth peer of {device.name}; one that returns XDP_PASS will do"
