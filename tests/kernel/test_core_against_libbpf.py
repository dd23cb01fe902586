# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations: libbpf makes of each case what the case says, and so does xdpkit of any."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import core_fuzz, core_oracle
from tests.core_cases import CASES, Case
from xdpkit.btf import Btf, types
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.obj.core import relocate
from xdpkit.obj.core.access import SUBJECTS, Subject, Unfit, parse
from xdpkit.uapi.bpf import CoreReloKind

pytestmark = pytest.mark.skipif(
    not core_oracle.available(), reason="libbpf.so.1 is not installed: apt-get install libbpf1"
)


VERSION = core_oracle.version() if core_oracle.available() else (0, 0)


@pytest.mark.parametrize("case", [case for case in CASES if case.since <= VERSION], ids=str)
def test_libbpf_agrees_with_the_case(case: Case, tmp_path: Path) -> None:
    local, target, relocations = case.compose()
    code = b"".join(case.before)
    result = core_oracle.relocated(
        code, relocations, local.builder, target.builder.build(), tmp_path
    )
    expected = b"".join(case.after) if isinstance(case.after, tuple) else None
    assert result == expected


@pytest.mark.parametrize("first", range(0, 4000, 500))
def test_any_relocation_becomes_what_libbpf_makes_of_it(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 500):
        question = core_fuzz.question(seed)
        if _changed_since(question):
            continue
        theirs = core_oracle.relocated(
            question.code,
            [question.relocation],
            question.local.builder,
            question.target.builder.build(),
            tmp_path,
        )
        assert _ours(question) == theirs, f"seed {seed}: {question}"


def _ours(question: core_fuzz.Question) -> bytes | None:
    local = Btf.parse(question.local.builder.build())
    target = Btf.parse(question.target.builder.build())
    code = bytearray(question.code)
    try:
        relocate(code, [question.relocation], local, [target])
    except (ObjectFormatError, RequirementUnmet):
        return None
    return bytes(code)


def _changed_since(question: core_fuzz.Question) -> bool:
    """Whether this libbpf is older than a correction that the question would show."""
    kind, access = CoreReloKind(question.relocation.kind), question.relocation.access
    if SUBJECTS[kind] is not Subject.FIELD:
        return False
    local = Btf.parse(question.local.builder.build())
    try:
        step = parse(local, question.relocation.type_id, access, Subject.FIELD).steps[-1]
    except (ObjectFormatError, Unfit):
        return False
    holder = local[step.type_id]
    if step.name is None:
        return VERSION < (1, 6) and isinstance(holder, types.Array)
    assert isinstance(holder, types.Struct | types.Union)
    field = local[local.strip(holder.members[step.index].type_id)]
    if kind is CoreReloKind.FIELD_SIGNED:
        return VERSION < (1, 3) and not isinstance(field, types.Int | types.Enum | types.Enum64)
    return VERSION < (1, 6) and isinstance(field, types.Array)
