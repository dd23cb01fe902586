# SPDX-License-Identifier: Apache-2.0
"""What the running kernel can do, asked by trying it.

A probe answers yes, no or unknown, with evidence. Only yes and no are remembered, for the life of
the process: what could not be asked now (no privilege, no memory) may be asked again.

>>> probe("xdp-frags")
Finding(name='xdp-frags', answer=<Answer.YES: 'yes'>, evidence='BPF_PROG_LOAD of XDP with ...')
"""

from __future__ import annotations

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.probes.features import FEATURES, Feature
from xdpkit.probes.finding import Answer, Finding

__all__ = ["FEATURES", "Answer", "Feature", "Finding", "forget", "is_absent", "probe"]

_known: dict[str, Finding] = {}


def probe(name: str) -> Finding:
    """Return whether the kernel has a feature (a key of :data:`FEATURES`).

    Raises:
        UsageError: there is no such feature.
    """
    if name in _known:
        return _known[name]
    try:
        feature = FEATURES[name]
    except KeyError:
        raise UsageError(
            f"probe for {name!r}",
            cause="there is no such feature",
            remedy=f"use one of: {', '.join(FEATURES)}",
        ) from None
    try:
        answer, evidence = feature.ask()
    except XdpkitError as error:
        answer, evidence = Answer.UNKNOWN, str(error)
    finding = Finding(name, answer, evidence)
    if answer.is_conclusive:
        _known[name] = finding
    return finding


def is_absent(name: str) -> bool:
    """Whether the kernel certainly lacks a feature: the only reason to do without it."""
    return probe(name).answer is Answer.NO


def forget() -> None:
    """Forget all answers."""
    _known.clear()
