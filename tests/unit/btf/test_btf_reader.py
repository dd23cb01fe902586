# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.btf.blobs import (
    EVERY_KIND,
    build,
    kernel_btf,
    mutated,
    object_sections,
    parse,
    type_graphs,
)
from xdpkit.btf import Btf, Kind, essential_name
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder, encode_type
from xdpkit.btf.format import format_declaration, format_type
from xdpkit.btf.values import codec
from xdpkit.btf.wire import ByteOrder
from xdpkit.errors import ObjectFormatError

BYTEORDERS: tuple[ByteOrder, ...] = ("little", "big")
INT = t.Int("int", 4, 32, encoding=t.IntEncoding.SIGNED)


def exercise(btf: Btf) -> None:
    """Do everything that can be done with each type."""
    for type_id in range(len(btf)):
        attempts = (
            lambda i: btf[i],
            btf.kind,
            btf.name,
            btf.strip,
            btf.sizeof,
            btf.alignof,
            lambda i: format_type(btf, i),
            lambda i: format_declaration(btf, i, "x"),
            lambda i: decode_zeros(btf, i),
            lambda i: btf.find_flavours(btf.name(i)),
        )
        for attempt in attempts:
            with suppress(ObjectFormatError):
                attempt(type_id)
    btf.validate()


def decode_zeros(btf: Btf, type_id: int) -> None:
    of = codec(btf, type_id)
    if of.size < 1 << 12:
        of.decode(bytes(of.size))


def reencoded(btf: Btf, type_id: int) -> bytes:
    """Return the type's record made anew, with the name offsets that the blob has."""
    strings = btf.raw[btf.header.strings_start : btf.header.strings_end]

    def offset_of(name: str) -> int:
        return strings.index(b"\0" + name.encode() + b"\0") + 1

    return encode_type(btf[type_id], offset_of, byteorder=btf.byteorder)


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_every_kind_comes_back_as_it_was_built(byteorder: ByteOrder) -> None:
    btf = parse(*EVERY_KIND, byteorder=byteorder)
    assert tuple(btf) == (t.Void(), *EVERY_KIND)
    assert {each.kind for each in btf} == set(Kind)
    assert btf.byteorder == byteorder
    btf.validate()


@given(type_graphs(), st.sampled_from(BYTEORDERS))
def test_any_types_come_back_as_they_were_built(
    values: tuple[t.Type, ...], byteorder: ByteOrder
) -> None:
    btf = parse(*values, byteorder=byteorder)
    assert tuple(btf)[1:] == values
    assert build(tuple(btf)[1:], byteorder) == btf.raw
    assert [btf.kind(i) for i in range(1, len(btf))] == [value.kind for value in values]


def test_the_kernels_types_are_encoded_bit_by_bit_as_they_were() -> None:
    btf = kernel_btf()
    first_of_each_kind = {btf.kind(i): i for i in range(len(btf) - 1, 0, -1)}
    for type_id in (*first_of_each_kind.values(), *range(1, len(btf), 997)):
        at = btf.offset_of(type_id)
        record = reencoded(btf, type_id)
        assert record == btf.raw[at : at + len(record)], btf[type_id]


def test_a_compilers_types_are_encoded_bit_by_bit_as_they_were() -> None:
    for blob, _ in object_sections().values():
        btf = Btf.parse(blob)
        btf.validate()
        for type_id in range(1, len(btf)):
            at = btf.offset_of(type_id)
            record = reencoded(btf, type_id)
            assert record == blob[at : at + len(record)], btf[type_id]


def test_the_kernels_xdp_md_is_found_and_measured() -> None:
    btf = kernel_btf()
    (xdp_md,) = btf.find("xdp_md", Kind.STRUCT)
    assert btf.sizeof(xdp_md) == 24
    decoded = btf[xdp_md]
    assert isinstance(decoded, t.Struct)
    assert [m.name for m in decoded.members][:3] == ["data", "data_end", "data_meta"]


@given(type_graphs())
def test_no_graph_of_types_leads_to_another_error_or_a_hang(values: tuple[t.Type, ...]) -> None:
    with suppress(ObjectFormatError):
        exercise(parse(*values))


@given(mutated(st.sampled_from([build(EVERY_KIND, order) for order in BYTEORDERS])))
def test_mutated_types_give_a_value_or_a_format_error(blob: bytes) -> None:
    with suppress(ObjectFormatError):
        exercise(Btf.parse(blob))


@given(st.data())
def test_mutated_types_of_a_compiler_give_a_value_or_a_format_error(data: st.DataObject) -> None:
    blobs = [blob for blob, _ in object_sections().values()]
    with suppress(ObjectFormatError):
        exercise(Btf.parse(data.draw(mutated(st.sampled_from(blobs)))))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_format_error(blob: bytes) -> None:
    with suppress(ObjectFormatError):
        exercise(Btf.parse(blob))


def header(
    *,
    magic: int = 0xEB9F,
    version: int = 1,
    flags: int = 0,
    length: int = 24,
    types: tuple[int, int] = (0, 0),
    strings: tuple[int, int] = (0, 1),
) -> bytes:
    return struct.pack("<HBBIIIII", magic, version, flags, length, *types, *strings)


@pytest.mark.parametrize(
    ("blob", "complaint"),
    [
        (b"", "too short"),
        (header(magic=0x7F45) + b"\0", "magic"),
        (header(version=2) + b"\0", "version 2"),
        (header(flags=1) + b"\0", "flags"),
        (header(length=20) + b"\0", "header length 20"),
        (header(length=1 << 31) + b"\0", "header length"),
        (header(length=40) + bytes(12) + b"\1\0\0\0" + b"\0", "fields that are unknown"),
        (header(types=(0, 1 << 31)) + b"\0", "types end at"),
        (header(types=(0xFFFFFFFC, 4)) + b"\0", "types end at"),
        (header(types=(1, 0)) + b"\0", "aligned"),
        (header(types=(0, 6), strings=(8, 1)) + bytes(9), "aligned"),
        (header(strings=(0, 2)) + b"\0", "strings end at"),
        (header(strings=(0, 0)) + b"\0", "no string section"),
        (header(strings=(0, 3)) + b"\0ab", "has no end"),
        (header(strings=(0, 3)) + b"ab\0", "begin with the empty one"),
    ],
)
def test_a_header_that_lies_is_refused(blob: bytes, complaint: str) -> None:
    with pytest.raises(ObjectFormatError, match=complaint) as caught:
        Btf.parse(blob, file="fw.o")
    assert (caught.value.file, caught.value.section) == ("fw.o", ".BTF")
    assert caught.value.offset is not None


def test_a_longer_header_of_zeros_is_accepted() -> None:
    assert len(Btf.parse(header(length=40) + bytes(16) + b"\0")) == 1


def test_a_header_that_describes_the_layout_of_kinds_is_accepted() -> None:
    layout = struct.pack("<BBH", 0, 0, 0) + struct.pack("<BBH", 4, 0, 0)
    record = struct.pack("<IIII", 0, Kind.INT << 24, 4, 32)
    fields = struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, 16, 24, 1, 16, 8)
    assert Btf.parse(fields + record + layout + b"\0")[1] == t.Int("", 4, 32)


def record(
    kind: int, *tail: int, name: int = 0, vlen: int = 0, flag: int = 0, value: int = 0
) -> bytes:
    words = (name, flag << 31 | kind << 24 | vlen, value, *tail)
    return struct.pack(f"<{len(words)}I", *words)


def blob_of(*records: bytes) -> bytes:
    types = b"".join(records)
    strings = b"\0x\0" + b"n" * 5000 + b"\0"
    return header(types=(0, len(types)), strings=(len(types), len(strings))) + types + strings


@pytest.mark.parametrize(
    ("malformed", "complaint"),
    [
        (record(0), "unknown kind 0"),
        (record(20), "unknown kind 20"),
        (record(Kind.STRUCT, vlen=0xFFFFFF, value=4), "past the end"),
        (record(Kind.PTR)[:8], "past the end"),
        (record(Kind.INT, 32, name=9999, value=4), "outside of the strings"),
        (record(Kind.INT, 32, name=3, value=4), "longer than 4095"),
        (record(Kind.INT, 33, value=4), "33 bits"),
        (record(Kind.INT, 8, value=17), "17 bytes"),
        (record(Kind.INT, 0x100 | 8, value=1), "unknown bits"),
        (record(Kind.INT, 8, value=1, vlen=1), "elements"),
        (record(Kind.PTR, name=1), "has a name"),
        (record(Kind.PTR, value=2), "type 2, which does not exist"),
        (record(Kind.TYPEDEF), "has no name"),
        (record(Kind.CONST, flag=1), "kind flag"),
        (record(Kind.ARRAY, 0, 1, 1), "void"),
        (record(Kind.ARRAY, 1, 1, 1, value=1), "has a size"),
        (record(Kind.STRUCT, 0, 0, 0, vlen=1, value=4), "member of type void"),
        (record(Kind.STRUCT, 0, 1, 33, vlen=1, value=4), "bit 33, past its end"),
        (record(Kind.STRUCT, 0, 1, 9 << 24 | 24, vlen=1, value=4, flag=1), "past its end"),
        (record(Kind.UNION, 0, 1, 8, vlen=1, value=4), "not at its start"),
        (record(Kind.ENUM, value=3), "3 bytes"),
        (record(Kind.ENUM64, value=0), "0 bytes"),
        (record(Kind.FWD, name=1, value=1), "has a type"),
        (record(Kind.FUNC, name=1, vlen=3), "linkage 3"),
        (record(Kind.VAR, 3, name=1), "linkage 3"),
        (record(Kind.FUNC_PROTO, 0, 0, 0, 1, vlen=2), "parameter of type void"),
        (record(Kind.FLOAT, name=1, value=3), "3 bytes"),
        (record(Kind.DECL_TAG, 0xFFFFFFFE, name=1), "component -2"),
    ],
)
def test_a_malformed_record_is_refused_where_it_is(malformed: bytes, complaint: str) -> None:
    btf = Btf.parse(blob_of(malformed), file="fw.o")
    with pytest.raises(ObjectFormatError, match=complaint) as caught:
        btf[1]
    assert (caught.value.file, caught.value.section) == ("fw.o", ".BTF")


@pytest.mark.parametrize("type_id", [2, -1, 1 << 40])
def test_an_id_that_does_not_exist_is_refused(type_id: int) -> None:
    btf = parse(INT)
    for access in (btf.__getitem__, btf.kind, btf.name, btf.strip, btf.sizeof, btf.offset_of):
        with pytest.raises(ObjectFormatError, match="there is no type"):
            access(type_id)


@pytest.mark.parametrize(
    "values",
    [
        (t.Typedef("loop", 1),),
        (t.Const(2), t.Typedef("loop", 1)),
        (t.Array(1, 1, 2),),
        (t.Typedef("loop", 2), t.Array(1, 3, 2), INT),
        (t.Struct("loop", 4, (t.Member("self", 1),)),),
        (t.Struct("a", 4, (t.Member("b", 2),)), t.Union("b", 4, (t.Member("a", 1),))),
        (t.Var("loop", 1),),
    ],
)
def test_a_type_that_contains_itself_is_refused_by_validation(values: tuple[t.Type, ...]) -> None:
    with pytest.raises(ObjectFormatError, match="contains itself"):
        parse(*values).validate()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((t.Func("f", 0),), "without a prototype"),
        ((INT, t.Var("v", 1), t.Ptr(2)), "made of a VAR"),
        ((INT, t.Datasec(".data", 0, (t.SectionVar(1, 0, 4),))), "section with a INT"),
        ((INT, t.Struct("s", 3, (t.Member("m", 1),))), "ends before its member m"),
        ((INT, t.Struct("s", 8, (t.Member("m", 1, 0, 33),))), "wider than its type"),
        ((INT, t.DeclTag("tag", 1)), "tag on a INT"),
        ((INT, t.Struct("s", 4, (t.Member("m", 1),)), t.DeclTag("tag", 2, 1)), "member 1 of 1"),
        ((INT, t.Typedef("td", 1), t.DeclTag("tag", 2, 0)), "component 0 of a TYPEDEF"),
        ((INT, t.Fwd("f"), t.Array(2, 1, 1)), "FWD. has no size"),
        ((INT, t.Fwd("f"), t.Var("v", 2)), "FWD. has no size"),
        ((INT, t.Ptr(1), t.Array(1, 2, 1)), "index is not an integer"),
    ],
)
def test_types_that_do_not_fit_each_other_are_refused_by_validation(
    values: tuple[t.Type, ...], complaint: str
) -> None:
    btf = parse(*values)
    with pytest.raises(ObjectFormatError, match=complaint):
        btf.validate()


def test_pointers_close_cycles_that_are_valid() -> None:
    btf = parse(t.Struct("list", 8, (t.Member("next", 2),)), t.Ptr(1))
    btf.validate()
    assert btf.sizeof(1) == 8


@pytest.mark.parametrize(
    "loop", [(t.Const(2), t.Const(1)), tuple(t.Const(i) for i in range(2, 99))]
)
def test_stripping_a_cycle_or_an_endless_chain_ends(loop: tuple[t.Type, ...]) -> None:
    btf = parse(*loop, INT)
    with pytest.raises(ObjectFormatError, match="refers to itself, or is nested too deeply"):
        btf.strip(1)


def test_stripping_goes_through_typedefs_qualifiers_and_tags_only() -> None:
    btf = parse(
        INT,
        t.TypeTag("user", 1),
        t.Restrict(2),
        t.Volatile(3),
        t.Const(4),
        t.Typedef("x", 5),
        t.Ptr(6),
    )
    assert btf.strip(6) == 1
    assert btf.strip(7) == 7
    assert btf.strip(0) == 0


def test_sizes_follow_arrays_and_typedefs() -> None:
    btf = parse(
        INT,
        t.Typedef("i", 1),
        t.Array(2, 1, 3),
        t.Array(3, 1, 5),
        t.Var("v", 4),
        t.Ptr(4),
        t.Array(6, 1, 2),
    )
    assert [btf.sizeof(i) for i in range(1, 8)] == [4, 4, 12, 60, 60, 8, 16]


@pytest.mark.parametrize("value", [t.Fwd("f"), t.FuncProto(0), t.Func("f", 0), t.Const(0)])
def test_an_incomplete_type_has_no_size(value: t.Type) -> None:
    with pytest.raises(ObjectFormatError, match="has no size"):
        parse(value).sizeof(1)


def test_an_array_larger_than_memory_is_refused() -> None:
    arrays = [t.Array(1, 1, 0xFFFFFFFF), *(t.Array(i, 1, 0xFFFFFFFF) for i in range(2, 20))]
    btf = parse(INT, *arrays)
    with pytest.raises(ObjectFormatError, match="larger than 4 GiB"):
        btf.sizeof(len(btf) - 1)


def test_a_machine_with_short_longs_has_short_pointers() -> None:
    assert parse(t.Int("long int", 4, 32), t.Ptr(0)).sizeof(2) == 4
    assert parse(t.Int("long int", 8, 64), t.Ptr(0)).sizeof(2) == 8


@pytest.mark.parametrize(
    ("value", "alignment"),
    [
        (t.Struct("s", 8, (t.Member("a", 1), t.Member("b", 2, 32))), 4),
        (t.Struct("packed", 5, (t.Member("b", 2), t.Member("a", 1, 8))), 1),
        (t.Struct("tail", 5, (t.Member("a", 1), t.Member("b", 2, 32))), 1),
        (t.Struct("bits", 4, (t.Member("a", 1, 0, 3), t.Member("b", 1, 3, 5))), 4),
        (t.Union("u", 4, (t.Member("a", 1), t.Member("b", 2))), 4),
        (t.Array(1, 1, 3), 4),
        (t.Var("v", 1), 4),
        (t.Ptr(0), 8),
        (t.Int("__int128", 16, 128), 8),
    ],
)
def test_alignment_is_as_libbpf_has_it(value: t.Type, alignment: int) -> None:
    assert parse(INT, t.Int("char", 1, 8), value).alignof(3) == alignment


def test_alignment_of_a_cycle_is_refused() -> None:
    btf = parse(t.Struct("loop", 4, (t.Member("self", 1),)))
    with pytest.raises(ObjectFormatError, match="contains itself"):
        btf.alignof(1)


def test_names_are_found_exactly_and_by_kind() -> None:
    btf = parse(
        t.Struct("sk_buff", 0), t.Fwd("sk_buff"), t.Struct("my_sk_buff", 0), t.Typedef("buff", 1)
    )
    assert btf.find("sk_buff") == [1, 2]
    assert btf.find("sk_buff", Kind.FWD) == [2]
    assert btf.find("sk_buff", Kind.FWD, Kind.STRUCT) == [1, 2]
    assert btf.find("buff") == [4]
    assert btf.find("sk_") == btf.find("") == btf.find("sk\0buff") == btf.find("\ud800") == []


def test_a_name_stored_as_the_end_of_another_is_found() -> None:
    btf = Btf.parse(
        header(types=(0, 24), strings=(24, 9))
        + record(Kind.FWD, name=1)
        + record(Kind.FWD, name=4)
        + b"\0sk_buff\0"
    )
    assert (btf.find("sk_buff"), btf.find("buff")) == ([1], [2])


def test_flavours_of_a_name_are_found() -> None:
    names = (
        "task",
        "task___v2",
        "task____v2",
        "task___",
        "task_struct",
        "task___a___b",
        "x_task___v2",
        "task___v3",
    )
    btf = parse(*(t.Struct(name, 0) for name in names), t.Fwd("task___v4"))
    assert btf.find_flavours("task") == [1, 2, 8, 9]
    assert btf.find_flavours("task", Kind.STRUCT) == [1, 2, 8]
    assert btf.find_flavours("task___a") == [6]


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("sk_buff", "sk_buff"),
        ("sk_buff___v2", "sk_buff"),
        ("sk_buff___v_2", "sk_buff"),
        ("a___b___c", "a___b"),
        ("a____b", "a____b"),
        ("a___", "a___"),
        ("___a", "___a"),
    ],
)
def test_the_flavour_is_what_follows_three_underscores(name: str, essential: str) -> None:
    assert essential_name(name) == essential


@given(type_graphs())
def test_the_index_of_names_agrees_with_decoding(values: tuple[t.Type, ...]) -> None:
    btf = parse(*values)
    names = [btf.name(i) for i in range(len(btf))]
    for name in filter(None, names):
        assert btf.find(name) == [i for i, each in enumerate(names) if each == name]
        flavours = [i for i, each in enumerate(names) if name in (each, essential_name(each))]
        assert set(btf.find(name)) <= set(btf.find_flavours(name)) <= set(flavours)


def test_bytes_that_are_not_utf8_are_shown_escaped() -> None:
    btf = Btf.parse(header(strings=(0, 6)) + b"\0caf\xe9\0")
    assert btf.string(1) == "caf\\xe9"


def test_ids_are_listed_by_kind() -> None:
    btf = parse(INT, t.Ptr(1), t.Fwd("f"), t.Ptr(3))
    assert list(btf.ids(Kind.PTR)) == [2, 4]
    assert list(btf.ids()) == [1, 2, 3, 4]


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_split_types_continue_those_of_their_base(byteorder: ByteOrder) -> None:
    base = parse(INT, t.Struct("shared", 4, (t.Member("base_only", 1),)), byteorder=byteorder)
    builder = BtfBuilder(base=base)
    assert builder.add(t.Ptr(2)) == 3
    assert builder.add(t.Struct("shared", 8, (t.Member("own", 3),))) == 4
    assert builder.add(t.Typedef("shared___new", 1)) == 5
    module = Btf.parse(builder.build(), base=base)
    assert (len(module), module.first_id) == (6, 3)
    assert module[2] is base[2]
    assert module[4] == t.Struct("shared", 8, (t.Member("own", 3),))
    assert module.find("shared") == [2, 4]
    assert module.find_flavours("shared") == [2, 4, 5]
    assert list(module.ids(Kind.STRUCT)) == [2, 4]
    assert (module.name(1), module.name(5)) == ("int", "shared___new")
    assert (module.strip(5), module.sizeof(4), module.alignof(4)) == (1, 8, 8)
    module.validate()
    with pytest.raises(ObjectFormatError, match="no type 2 here"):
        module.offset_of(2)
    with pytest.raises(ObjectFormatError, match="there is no type 3"):
        base.kind(3)


def test_split_types_of_another_byte_order_than_their_base_are_refused() -> None:
    with pytest.raises(ObjectFormatError, match="byte order"):
        Btf.parse(build([INT], "big"), base=parse(INT))


def test_a_scan_notices_types_that_end_inside_of_a_record() -> None:
    btf = Btf.parse(blob_of(record(Kind.PTR), record(Kind.ARRAY)))
    with pytest.raises(ObjectFormatError, match="past the end") as caught:
        len(btf)
    assert caught.value.offset == 24 + 12
