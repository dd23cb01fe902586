# SPDX-License-Identifier: Apache-2.0
"""What was learnt, with the evidence for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Answer(enum.Enum):
    """Yes, no, or not known: what could not be asked is never a no."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    @property
    def is_conclusive(self) -> bool:
        return self is not Answer.UNKNOWN


@dataclass(frozen=True, slots=True)
class Finding:
    """What was learnt about an interface or a kernel.

    Attributes:
        capability: its name, see :data:`xdpkit.capabilities.CAPABILITIES`.
        answer: whether it is there.
        evidence: what was asked and what came back ("netdev: NDO_XMIT clear on veth1; its peer has
            no XDP program").
        limit: where the capability is a number (largest MTU in bytes, number of queues), else None.
        remedy: what makes a no a yes, where that is sure.
    """

    capability: str
    answer: Answer
    evidence: str
    limit: int | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Precondition:
    """Something about the interface as it is configured now that attaching depends on.

    Attributes:
        name: a short word for it: "mtu", "queues", "lro", "existing-program", "peer".
        answer: whether it is fulfilled.
        evidence: what was read ("the peer veth1 has MTU 9000; a page holds 3520 bytes").
        modes: the modes in which it matters.
        waived_by: what a program may need that makes it irrelevant ("frags" for an MTU limit), or
            None.
        remedy: what fulfils it, where that is sure.
    """

    name: str
    answer: Answer
    evidence: str
    modes: tuple[str, ...] = ("native",)
    waived_by: str | None = None
    remedy: str | None = None
