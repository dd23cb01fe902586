# SPDX-License-Identifier: Apache-2.0
"""One packet for every interface of a map: the kernel copies it, but not if it is in pieces."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.capabilities import Answer, Finding
from xdpkit.negotiation.offer import Offer
from xdpkit.negotiation.rules import judge
from xdpkit.negotiation.verdict import Policy, Verdict
from xdpkit.requirements import Requirement, Requirements

_CAPABILITY = "redirect-broadcast-frags"
# dev_map_enqueue_clone() in kernel/bpf/devmap.c calls it, Linux 6.18.
_TORN = (
    "the kernel copies the first buffer only (xdpf_clone() in net/core/xdp.c), and sends garbage"
    " for the others"
)
_REMEDY = "broadcast from a program without frags"


def broadcast_verdicts(
    requirements: Requirements, offer: Offer, mode: str, policy: Policy
) -> Iterator[Verdict]:
    """Yield the verdict on broadcasts of a program that gets packets in several buffers."""
    # The network stack copies a whole skb: dev_map_redirect_clone() in kernel/bpf/devmap.c.
    if mode == "generic" or offer.finding("frags").answer is Answer.NO:
        return
    if requirements.needs("frags"):
        for broadcast in requirements.of("redirect-broadcast"):
            yield judge(
                Requirement(_CAPABILITY, origins=broadcast.origins),
                Finding(_CAPABILITY, Answer.NO, _TORN),
                offer.device.name,
                policy,
                remedy=_REMEDY,
            )
