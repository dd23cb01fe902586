# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.btf.blobs import EVERY_KIND, object_sections, parse
from xdpkit.btf import Btf, Kind
from xdpkit.btf import types as t
from xdpkit.btf.sanitize import sanitize
from xdpkit.btf.wire import ByteOrder
from xdpkit.errors import ObjectFormatError

ALL = frozenset(Kind)
# Linux 4.18.
FIRST_KINDS = frozenset(Kind(number) for number in range(12))
INT = t.Int("int", 4, 32)


def sanitized(btf: Btf, *missing: Kind) -> list[t.Type]:
    return list(Btf.parse(sanitize(btf, ALL - set(missing))))[1:]


def test_nothing_changes_for_a_kernel_that_knows_all() -> None:
    btf = parse(*EVERY_KIND)
    assert sanitize(btf, ALL) == btf.raw


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_only_known_kinds_are_left_and_ids_and_lengths_stay(byteorder: ByteOrder) -> None:
    btf = parse(*EVERY_KIND, byteorder=byteorder)
    result = Btf.parse(sanitize(btf, FIRST_KINDS))
    assert {value.kind for value in result} <= FIRST_KINDS
    for type_id in range(1, len(btf)):
        assert result.offset_of(type_id) == btf.offset_of(type_id)
        if btf.kind(type_id) in FIRST_KINDS - {Kind.ENUM}:
            assert result[type_id] == btf[type_id]
    assert list(result)[len(btf) :] == [t.Int("enum64_placeholder", 1, 8)]


@pytest.mark.parametrize("missing", [Kind.VAR, Kind.DATASEC])
def test_sections_become_structs_of_their_variables(missing: Kind) -> None:
    entries = (t.SectionVar(2, 0, 4), t.SectionVar(3, 8, 1))
    btf = parse(INT, t.Var("a", 1), t.Var("b", 1), t.Datasec("?.data.x", 12, entries))
    assert sanitized(btf, missing) == [
        INT,
        t.Int("a", 1, 8),
        t.Int("b", 1, 8),
        t.Struct("__data_x", 12, (t.Member("a", 2), t.Member("b", 3, 64))),
    ]


def test_a_section_whose_variable_is_out_of_reach_is_refused() -> None:
    btf = parse(INT, t.Var("a", 1), t.Datasec(".data", 12, (t.SectionVar(2, 1 << 29, 4),)))
    with pytest.raises(ObjectFormatError, match="a variable at 536870912"):
        sanitize(btf, FIRST_KINDS)


def test_functions_become_typedefs_of_enumerations() -> None:
    btf = parse(INT, t.FuncProto(1, (t.Param("ctx", 1), t.Param("", 1))), t.Func("f", 2, 1))
    assert sanitized(btf, Kind.FUNC) == [
        INT,
        t.Enum("", 4, values=(("ctx", 1), ("arg1", 1))),
        t.Typedef("f", 2),
    ]


def test_tags_and_floats_are_replaced() -> None:
    btf = parse(INT, t.Float("double", 8), t.TypeTag("user", 1), t.Var("v", 1), t.DeclTag("tag", 4))
    assert sanitized(btf, Kind.FLOAT)[1] == t.Struct("", 8)
    assert sanitized(btf, Kind.TYPE_TAG)[2] == t.Const(1)
    assert sanitized(btf, Kind.DECL_TAG)[4] == t.Int("tag", 1, 8)
    assert sanitized(btf, Kind.FLOAT)[2:] == list(btf)[3:]


@pytest.mark.parametrize("missing", [Kind.FUNC, Kind.VAR])
def test_tags_go_with_the_functions_and_variables_that_they_may_be_on(missing: Kind) -> None:
    btf = parse(INT, t.Var("v", 1), t.DeclTag("tag", 2))
    assert sanitized(btf, missing)[2] == t.Int("tag", 1, 8)


def test_enumerations_lose_their_sign_where_the_kernel_knows_none() -> None:
    btf = parse(
        t.Enum("e", 4, True, (("A", -1), ("B", 1))),
        t.Enum64("wide", 8, False, (("C", 1 << 40),)),
    )
    assert sanitized(btf, Kind.ENUM64) == [
        t.Enum("e", 4, False, (("A", 0xFFFFFFFF), ("B", 1))),
        t.Union("wide", 8, (t.Member("C", 3),)),
        t.Int("enum64_placeholder", 1, 8),
    ]
    assert sanitized(btf) == list(btf)[1:]


def test_functions_become_static_where_the_kernel_knows_no_other_linkage() -> None:
    btf = parse(t.FuncProto(0), t.Func("f", 1, t.FuncLinkage.GLOBAL))
    result = Btf.parse(sanitize(btf, ALL, global_functions=False))
    assert result[2] == t.Func("f", 1, t.FuncLinkage.STATIC)


def test_question_marks_are_replaced_where_the_kernel_knows_none() -> None:
    btf = parse(t.Datasec("?.struct_ops", 0), t.Datasec(".data", 0))
    result = Btf.parse(sanitize(btf, ALL, question_marks=False))
    assert list(result)[1:] == [t.Datasec("_.struct_ops", 0), t.Datasec(".data", 0)]


def test_a_compilers_types_can_be_described_to_the_oldest_kernel() -> None:
    for blob, _ in object_sections().values():
        btf = Btf.parse(blob)
        result = Btf.parse(sanitize(btf, FIRST_KINDS))
        assert {value.kind for value in result} <= FIRST_KINDS
        assert len(result) == len(btf)
