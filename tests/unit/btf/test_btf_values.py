# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.btf.blobs import EVERY_KIND, kernel_btf, parse
from xdpkit.btf import Btf, Kind
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.values import codec, decode_value, encode_value, enum_name
from xdpkit.btf.wire import ByteOrder
from xdpkit.errors import ObjectFormatError, UsageError

BYTEORDERS: tuple[ByteOrder, ...] = ("little", "big")
SIGNED, BOOL = t.IntEncoding.SIGNED, t.IntEncoding.BOOL
INT = t.Int("int", 4, 32, encoding=SIGNED)
CHAR = t.Int("char", 1, 8, encoding=SIGNED)
U64 = t.Int("unsigned long", 8, 64)


@dataclass(frozen=True)
class Shape:
    """A type in a builder, with the values that it can have."""

    type_id: int
    size: int
    values: st.SearchStrategy[object]
    bits: int = 0


def integer_values(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low = -(1 << bits - 1) if signed else 0
    return st.integers(low, low + (1 << bits) - 1)


@st.composite
def shapes(draw: st.DrawFn, builder: BtfBuilder, depth: int = 3) -> Shape:
    leaves = ("int", "bool", "enum", "enum64", "float", "pointer", "chars")
    match draw(st.sampled_from(leaves + ("array", "struct", "anonymous") * (depth > 0))):
        case "bool":
            return Shape(builder.add(t.Int("_Bool", 1, 8, encoding=BOOL)), 1, st.booleans())
        case "enum":
            size, signed = draw(st.sampled_from((1, 2, 4))), draw(st.booleans())
            values = integer_values(8 * size, signed)
            return Shape(builder.add(t.Enum("e", size, signed)), size, values)
        case "enum64":
            return Shape(builder.add(t.Enum64("e", 8, True)), 8, integer_values(64, True))
        case "float":
            floats = st.floats(width=32, allow_nan=False)
            return Shape(builder.add(t.Float("float", 4)), 4, floats)
        case "pointer":
            return Shape(builder.add(t.Ptr(0)), 8, integer_values(64, False))
        case "chars":
            count = draw(st.integers(0, 9))
            char = builder.add(CHAR)
            chars = builder.add(t.Array(char, char, count))
            return Shape(chars, count, st.binary(min_size=count, max_size=count))
        case "array":
            inner = draw(shapes(builder, depth - 1).filter(lambda shape: shape.size > 0))
            count = draw(st.integers(0, 4))
            size = count * inner.size
            # An array of characters is bytes, not a list.
            wrapped = builder.add(t.Struct("one", inner.size, (t.Member("x", inner.type_id),)))
            each = inner.values.map(lambda value: {"x": value})
            items = st.lists(each, min_size=count, max_size=count)
            return Shape(builder.add(t.Array(wrapped, wrapped, count)), size, items)
        case "struct" | "anonymous":
            return draw(structs(builder, depth))
        case _:
            size, signed = draw(st.sampled_from((1, 2, 4, 8, 16))), draw(st.booleans())
            encoding = SIGNED if signed else t.IntEncoding(0)
            number = builder.add(t.Int("number", size, 8 * size, encoding=encoding))
            return Shape(number, size, integer_values(8 * size, signed))


@st.composite
def structs(draw: st.DrawFn, builder: BtfBuilder, depth: int) -> Shape:
    members: list[t.Member] = []
    values: dict[str, st.SearchStrategy[object]] = {}
    at = 0
    for index in range(draw(st.integers(0, 4))):
        name = f"m{depth}_{index}"
        if draw(st.booleans()):
            signed = draw(st.booleans())
            encoding = SIGNED if signed else t.IntEncoding(0)
            number = builder.add(t.Int("number", 8, 64, encoding=encoding))
            bits = draw(st.integers(1, 64))
            members.append(t.Member(name, number, at, bits))
            values[name] = integer_values(bits, signed)
            at += bits
        else:
            inner = draw(shapes(builder, depth - 1))
            at = (at + 7) // 8 * 8
            members.append(t.Member(name, inner.type_id, at))
            values[name] = inner.values
            at += 8 * inner.size
    size = (at + 7) // 8
    inner_id = builder.add(t.Struct("", size, tuple(members)))
    if draw(st.booleans()):
        inner_id = builder.add(t.Struct("outer", size, (t.Member("", inner_id),)))
    return Shape(inner_id, size, st.fixed_dictionaries(values))


@given(st.data(), st.sampled_from(BYTEORDERS))
def test_any_value_comes_back_as_it_was_encoded(data: st.DataObject, byteorder: ByteOrder) -> None:
    builder = BtfBuilder(byteorder=byteorder)
    shape = data.draw(shapes(builder))
    btf = Btf.parse(builder.build())
    value = data.draw(shape.values)
    encoded = encode_value(btf, shape.type_id, value)
    assert len(encoded) == shape.size == btf.sizeof(shape.type_id)
    assert decode_value(btf, shape.type_id, encoded) == value


@pytest.mark.parametrize("byteorder", BYTEORDERS)
@pytest.mark.parametrize(
    ("value", "layout", "number"),
    [
        (INT, "i", -2),
        (U64, "Q", 1 << 63),
        (t.Enum("e", 2, True), "h", -3),
        (t.Float("float", 4), "f", 0.5),
        (t.Float("double", 8), "d", 0.1),
        (t.Ptr(0), "Q", 0xFFFF888000000000),
        (t.Int("_Bool", 1, 8, encoding=BOOL), "?", True),
    ],
)
def test_scalars_are_laid_out_as_c_does(
    value: t.Type, layout: str, number: float, byteorder: ByteOrder
) -> None:
    btf = parse(value, byteorder=byteorder)
    raw = struct.pack((">" if byteorder == "big" else "<") + layout, number)
    assert encode_value(btf, 1, number) == raw
    decoded = decode_value(btf, 1, raw)
    assert decoded == number
    assert type(decoded) is type(number)


BITS = t.Struct(
    "bits", 4, (t.Member("a", 1, 0, 3), t.Member("b", 1, 3, 11), t.Member("c", 1, 14, 18))
)


# What clang and gcc do with struct { int a : 3, b : 11, c : 18; } and {-1, 5, -7}.
@pytest.mark.parametrize(("byteorder", "raw"), [("little", "2f40feff"), ("big", "e017fff9")])
def test_bitfields_are_laid_out_as_c_does(byteorder: ByteOrder, raw: str) -> None:
    btf = parse(INT, BITS, byteorder=byteorder)
    value = {"a": -1, "b": 5, "c": -7}
    assert encode_value(btf, 2, value).hex() == raw
    assert decode_value(btf, 2, bytes.fromhex(raw)) == value


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_bitfields_of_old_compilers_read_the_same(byteorder: ByteOrder) -> None:
    old = (
        t.Int("int", 4, 3, encoding=SIGNED),
        t.Int("int", 4, 11, encoding=SIGNED),
        t.Int("int", 4, 18, 6, encoding=SIGNED),
        t.Struct("bits", 4, (t.Member("a", 1, 0), t.Member("b", 2, 3), t.Member("c", 3, 8))),
    )
    value = {"a": -1, "b": 5, "c": -7}
    encoded = encode_value(parse(INT, BITS, byteorder=byteorder), 2, value)
    assert decode_value(parse(*old, byteorder=byteorder), 4, encoded) == value


def test_arrays_of_characters_are_bytes() -> None:
    btf = parse(CHAR, t.Array(1, 1, 4), t.Int("unsigned char", 1, 8), t.Array(3, 1, 4))
    for type_id in (2, 4):
        assert decode_value(btf, type_id, b"ab\0\xff") == b"ab\0\xff"
        assert encode_value(btf, type_id, "é") == b"\xc3\xa9\0\0"
        assert encode_value(btf, type_id, b"abcd") == b"abcd"
        assert encode_value(btf, type_id, [1, 2, 3, 4]) == b"\1\2\3\4"


def test_arrays_of_signed_numbers_are_lists() -> None:
    btf = parse(t.Int("signed char", 1, 8, encoding=SIGNED), t.Array(1, 1, 2), t.Array(2, 1, 2))
    assert decode_value(btf, 2, b"\xff\x01") == [-1, 1]
    assert encode_value(btf, 3, [(1, 2), [3, -4]]) == b"\1\2\3\xfc"


def test_members_of_anonymous_structs_and_unions_are_flattened() -> None:
    btf = parse(
        INT,
        CHAR,
        t.Array(2, 1, 4),
        t.Union("", 4, (t.Member("number", 1), t.Member("bytes", 3))),
        t.Struct("s", 8, (t.Member("first", 1), t.Member("", 4, 32))),
    )
    raw = bytes.fromhex("0100000002000000")
    value = {"first": 1, "number": 2, "bytes": b"\2\0\0\0"}
    assert decode_value(btf, 5, raw) == value
    assert encode_value(btf, 5, value) == raw
    assert encode_value(btf, 5, {"first": 1, "number": 2}) == raw
    assert encode_value(btf, 5, {"bytes": b"\2"}) == bytes.fromhex("0000000002000000")


def test_members_of_a_union_that_disagree_are_refused() -> None:
    btf = parse(INT, t.Int("short", 2, 16), t.Union("u", 4, (t.Member("a", 1), t.Member("b", 2))))
    with pytest.raises(UsageError, match="disagrees"):
        encode_value(btf, 3, {"a": 1, "b": 2})
    assert encode_value(btf, 3, {"a": 0x10002, "b": 2}) == b"\2\0\1\0"


def test_enumerators_are_taken_by_name_and_named() -> None:
    btf = parse(t.Enum("e", 4, False, (("A", 1), ("B", 2), ("ALSO_B", 2))), t.Typedef("e_t", 1))
    assert encode_value(btf, 2, "B") == b"\2\0\0\0"
    assert decode_value(btf, 2, b"\2\0\0\0") == 2
    assert (enum_name(btf, 2, 2), enum_name(btf, 2, 3), enum_name(parse(INT), 1, 2)) == (
        "B",
        None,
        None,
    )
    with pytest.raises(UsageError, match="no such enumerator; there are A, B"):
        encode_value(btf, 1, "C")


def test_a_section_is_a_dict_of_its_variables() -> None:
    entries = (t.SectionVar(2, 4, 4), t.SectionVar(3, 0, 4))
    btf = parse(INT, t.Var("a", 1), t.Var("b", 1), t.Datasec(".data", 8, entries))
    assert decode_value(btf, 4, bytes.fromhex("0200000001000000")) == {"a": 1, "b": 2}
    assert encode_value(btf, 2, 3) == b"\3\0\0\0"


def test_a_float_that_python_lacks_is_bytes() -> None:
    btf = parse(t.Float("long double", 16))
    assert encode_value(btf, 1, decode_value(btf, 1, bytes(range(16)))) == bytes(range(16))


@pytest.mark.parametrize(
    ("type_id", "value"),
    [
        (1, 1 << 31),
        (1, "1"),
        (1, 1.0),
        (2, 128),
        (3, 2),
        (3, "yes"),
        (4, 1 << 127),
        (5, -1),
        (7, b"x" * 17),
        (7, "x" * 17),
        (7, [256] * 16),
        (7, 7),
        (8, {"c": 1}),
        (8, {1: 1}),
        (8, [1, 2]),
        (9, {"low": 4}),
        (11, None),
        (29, "pi"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(type_id: int, value: object) -> None:
    with pytest.raises(UsageError):
        encode_value(parse(*EVERY_KIND), type_id, value)


def test_the_error_names_the_member() -> None:
    btf = parse(
        INT, t.Struct("in", 4, (t.Member("x", 1),)), t.Struct("out", 4, (t.Member("y", 2),))
    )
    with pytest.raises(UsageError, match="store 2147483648 in x in y"):
        encode_value(btf, 3, {"y": {"x": 1 << 31}})


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="a list of 3"):
        encode_value(parse(INT, t.Array(1, 1, 3)), 2, [1, 2])


def test_data_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="3 bytes given, the type has 4"):
        decode_value(parse(INT), 1, b"abc")


@pytest.mark.parametrize("type_id", [0, 16, 25, 26, 30])
def test_what_has_no_values_is_refused(type_id: int) -> None:
    with pytest.raises(ObjectFormatError, match="has no size"):
        decode_value(parse(*EVERY_KIND), type_id, b"")


def test_a_struct_that_contains_itself_is_refused() -> None:
    btf = parse(t.Struct("loop", 4, (t.Member("self", 1),)))
    with pytest.raises(ObjectFormatError, match="contains itself"):
        codec(btf, 1)


@pytest.mark.parametrize("name", ["", "named"])
def test_unions_that_grow_exponentially_are_refused(name: str) -> None:
    values: list[t.Type] = [INT]
    for depth in range(1, 12):
        members = tuple(t.Member(name and f"{name}{i}", depth) for i in range(50))
        values.append(t.Union("", 4, members))
    values[1] = t.Union("", 4, tuple(t.Member(f"m{i}", 1) for i in range(50)))
    with pytest.raises(ObjectFormatError, match=r"too many members|times"):
        codec(parse(*values), len(values))


def test_arrays_of_nothing_cost_nothing() -> None:
    btf = parse(INT, t.Struct("empty", 0), t.Array(2, 1, 0xFFFFFFFF), t.Array(3, 1, 0xFFFFFFFF))
    assert decode_value(btf, 4, b"") == []
    assert encode_value(btf, 4, []) == b""


def test_a_value_of_gigabytes_is_refused() -> None:
    with pytest.raises(ObjectFormatError, match="more than a value may have"):
        codec(parse(CHAR, t.Array(1, 1, 0x7FFFFFFF)), 2)


def test_the_kernels_structs_can_be_read() -> None:
    btf = kernel_btf()
    for name in ("xdp_md", "bpf_prog_info", "sk_buff", "task_struct", "iphdr"):
        (type_id,) = btf.find(name, Kind.STRUCT)
        of = codec(btf, type_id)
        assert of.encode(of.decode(bytes(of.size))) == bytes(of.size)
