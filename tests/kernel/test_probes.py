# SPDX-License-Identifier: Apache-2.0
"""Probes against the running kernel."""

from __future__ import annotations

import pytest

from xdpkit import probes
from xdpkit.probes import FEATURES, Answer


@pytest.mark.parametrize("name", FEATURES)
def test_every_question_has_an_answer(name: str) -> None:
    finding = probes.probe(name)
    assert finding.answer.is_conclusive, finding.evidence
    assert finding.evidence


def test_newer_features_imply_older_ones() -> None:
    answers = {name: probes.probe(name).answer for name in FEATURES}
    if answers["xdp-frags"] is Answer.YES:
        for name in ("map-name", "btf", "btf-func", "global-data", "map-freeze", "prog-bind-map"):
            assert answers[name] is Answer.YES, name
