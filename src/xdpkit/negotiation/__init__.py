# SPDX-License-Identifier: Apache-2.0
"""What a program needs, held against what a device offers. Values in, values out.

Every requirement gets its verdict, not only the first that fails::

    negotiation = negotiate(requirements, device, mode="native")
    for verdict in negotiation.verdicts:
        print(verdict.outcome.value, verdict.requirement.label, verdict.why)
"""

from __future__ import annotations

from xdpkit.negotiation.explain import refusal, sentence
from xdpkit.negotiation.negotiate import negotiate
from xdpkit.negotiation.verdict import Negotiation, Outcome, Policy, Target, Verdict

__all__ = [
    "Negotiation",
    "Outcome",
    "Policy",
    "Target",
    "Verdict",
    "negotiate",
    "refusal",
    "sentence",
]
