# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.btf.blobs import EVERY_KIND, build, object_sections, parse
from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.editor import BtfEditor
from xdpkit.btf.wire import ByteOrder
from xdpkit.errors import ObjectFormatError, UsageError

INT = t.Int("int", 4, 32)
BYTEORDERS: tuple[ByteOrder, ...] = ("little", "big")


def edited(editor: BtfEditor) -> tuple[t.Type, ...]:
    return tuple(Btf.parse(editor.build()))[1:]


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_an_editor_that_changes_nothing_gives_the_same_bytes(byteorder: ByteOrder) -> None:
    btf = parse(*EVERY_KIND, byteorder=byteorder)
    assert btf.edit().build() == btf.raw


def test_a_compilers_bytes_come_out_of_an_editor_as_they_went_in() -> None:
    for blob, _ in object_sections().values():
        assert Btf.parse(blob).edit().build() == blob


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_what_clang_leaves_out_can_be_filled_in(byteorder: ByteOrder) -> None:
    entries = (t.SectionVar(2, 0, 4), t.SectionVar(3, 0, 4))
    btf = parse(
        INT, t.Var("a", 1), t.Var("b", 1), t.Datasec(".data", 0, entries), byteorder=byteorder
    )
    editor = btf.edit()
    editor.set_section(4, 12, (t.SectionVar(2, 8, 4), t.SectionVar(3, 0, 2)))
    expected = t.Datasec(".data", 12, (t.SectionVar(3, 0, 2), t.SectionVar(2, 8, 4)))
    assert edited(editor) == (INT, t.Var("a", 1), t.Var("b", 1), expected)
    assert btf[4] == t.Datasec(".data", 0, entries)


def test_a_section_entry_can_be_led_elsewhere() -> None:
    editor = parse(INT, t.Func("ext", 1), t.Datasec(".ksyms", 0, (t.SectionVar(2, 0, 0),))).edit()
    dummy = editor.add(t.Var("dummy_ksym", 1))
    editor.set_section(3, 4, (t.SectionVar(dummy, 0, 4),))
    assert edited(editor)[2:] == (
        t.Datasec(".ksyms", 4, (t.SectionVar(4, 0, 4),)),
        t.Var("dummy_ksym", 1),
    )
    assert len(editor) == 5


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_linkage_of_functions_and_variables_can_be_set(byteorder: ByteOrder) -> None:
    btf = parse(
        t.FuncProto(0),
        t.Func("f", 1, t.FuncLinkage.GLOBAL),
        t.Var("v", 1, t.VarLinkage.EXTERN),
        byteorder=byteorder,
    )
    editor = btf.edit()
    editor.set_linkage(2, t.FuncLinkage.STATIC)
    editor.set_linkage(3, t.VarLinkage.GLOBAL)
    assert edited(editor)[1:] == (t.Func("f", 1, 0), t.Var("v", 1, 1))


def test_a_type_is_replaced_by_one_of_the_same_length() -> None:
    editor = parse(INT, t.Float("double", 8), t.Var("v", 2)).edit()
    editor.replace(2, t.Struct("", 8))
    editor.replace(3, t.Int("renamed", 1, 8))
    assert edited(editor) == (INT, t.Struct("", 8), t.Int("renamed", 1, 8))


def test_a_replacement_of_another_length_is_refused_and_changes_nothing() -> None:
    btf = parse(INT, t.Ptr(1))
    editor = btf.edit()
    for type_id, value in ((1, t.Ptr(1)), (2, INT)):
        with pytest.raises(UsageError, match="the record has"):
            editor.replace(type_id, value)
    assert edited(editor) == tuple(btf)[1:]


def test_edits_that_a_type_cannot_take_are_refused() -> None:
    editor = parse(INT, t.Ptr(1), t.Datasec(".bss", 0, (t.SectionVar(1, 0, 4),))).edit()
    with pytest.raises(UsageError, match="it is a PTR"):
        editor.set_size(2, 8)
    with pytest.raises(UsageError, match="it is a INT"):
        editor.set_linkage(1, 0)
    with pytest.raises(UsageError, match="it has 1"):
        editor.set_section(3, 4, ())
    with pytest.raises(UsageError, match="does not fit in 32 bits"):
        editor.set_section(3, 4, (t.SectionVar(1, 0, 1 << 32),))
    with pytest.raises(UsageError, match="32 bits"):
        editor.set_size(3, 1 << 32)
    with pytest.raises(ObjectFormatError, match="no type 4"):
        editor.set_size(4, 1)


def test_a_linkage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="3 is none"):
        parse(t.Var("v", 0)).edit().set_linkage(1, 3)


def test_an_editor_reuses_the_strings_that_are_there() -> None:
    btf = parse(t.Typedef("sk_buff", 0))
    editor = btf.edit()
    assert editor.string("sk_buff") == 1
    assert editor.string("buff") == 4
    assert editor.build() == btf.raw
    added = editor.string("new")
    assert editor.string("new") == added
    assert Btf.parse(editor.build()).string(added) == "new"


def test_split_types_are_edited_without_their_base() -> None:
    base = parse(INT)
    builder = BtfBuilder(base=base)
    builder.add(t.Struct("s", 4, (t.Member("m", 1),)))
    module = Btf.parse(builder.build(), base=base)
    editor = module.edit()
    editor.set_size(2, 8)
    assert editor.add(t.Typedef("added", 2)) == 3
    changed = Btf.parse(editor.build(), base=base)
    assert changed[2] == t.Struct("s", 8, (t.Member("m", 1),))
    assert changed[3] == t.Typedef("added", 2)
    with pytest.raises(ObjectFormatError, match="no type 1 here"):
        editor.set_size(1, 8)


def test_a_builder_stores_each_string_once() -> None:
    builder = BtfBuilder()
    assert len(builder) == 1
    assert builder.add(t.Struct("x", 4, (t.Member("x", 2),))) == 1
    assert builder.add(t.Typedef("x", 1)) == 2
    assert len(builder) == 3
    assert builder.build().endswith(b"\0x\0")
    assert builder.string("") == 0


@pytest.mark.parametrize(
    "value",
    [
        t.Void(),
        t.Ptr(1 << 32),
        t.Ptr(-1),
        t.Int("i", 4, 256),
        t.Int("i", 4, 32, -1),
        t.Enum("e", 4, False, (("A", -1),)),
        t.Enum("e", 4, True, (("A", 1 << 31),)),
        t.Enum64("e", 8, True, (("A", 1 << 63),)),
        t.Struct("s", 1 << 22, (t.Member("m", 1, 1 << 24, 1),)),
        t.Struct("s", 4, (t.Member("m", 1, 0, 256),)),
        t.Typedef("nul\0", 1),
        t.Typedef("surrogate\udc80", 1),
        t.Typedef("x" * 4096, 1),
        t.DeclTag("tag", 1, 1 << 31),
    ],
)
def test_what_btf_cannot_express_is_refused(value: t.Type) -> None:
    with pytest.raises(UsageError):
        build([value])
