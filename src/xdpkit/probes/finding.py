# SPDX-License-Identifier: Apache-2.0
"""An answer of a probe, with the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.capabilities import Answer

__all__ = ["Answer", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was learnt about the running kernel.

    Attributes:
        name: the feature.
        answer: whether the kernel has it.
        evidence: what was asked and what came back ("BPF_MAP_CREATE with BPF_F_MMAPABLE: EINVAL").
    """

    name: str
    answer: Answer
    evidence: str
