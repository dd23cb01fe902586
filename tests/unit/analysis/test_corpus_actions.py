# SPDX-License-Identifier: Apache-2.0
"""Programs with known answers: every answer is found, and few come out as "any value"."""

from __future__ import annotations

import pytest

from tests.corpus import build
from tests.corpus_actions import cases
from tests.corpus_actions.cases import Case
from xdpkit.analysis import Actions, analyse, subject_of

# What a compiler makes of these is too much: a remainder becomes a multiplication by a reciprocal.
TOO_HARD = {"arithmetic.by_remainder"}

BUILT = [
    pytest.param(case, compiler, id=f"{case}-{compiler.name}")
    for case in cases.cases()
    for compiler in cases.compilers()
    if build.suits(case.source, compiler)
]


def analysed(case: Case, compiler: build.Compiler) -> Actions:
    return analyse(subject_of(cases.read(case.source, compiler).programs[case.name])).actions


@pytest.mark.parametrize(("case", "compiler"), BUILT)
def test_the_answer_is_found(case: Case, compiler: build.Compiler) -> None:
    found = analysed(case, compiler)
    if case.actions is None:
        assert found.any
    elif not (found.any and str(case) in TOO_HARD):
        assert not found.any, [str(why) for why in found.unknown]
        assert found.values == case.actions


def test_the_corpus_is_big_enough() -> None:
    assert len(cases.cases()) >= 60
    assert len({str(case) for case in cases.cases()}) == len(cases.cases())


@pytest.mark.parametrize("compiler", cases.compilers(), ids=lambda compiler: compiler.name)
def test_at_most_one_in_ten_fixed_answers_is_any_value(compiler: build.Compiler) -> None:
    fixed = [
        case
        for case in cases.cases()
        if case.actions is not None and build.suits(case.source, compiler)
    ]
    missed = [str(case) for case in fixed if analysed(case, compiler).any]
    assert len(missed) * 10 <= len(fixed), missed
