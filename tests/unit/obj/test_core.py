# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations: every rule, as a case."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.core_cases import CASES, Case, Types, mov
from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.obj.core import describe, relocate
from xdpkit.obj.spec import CoreRelocation
from xdpkit.uapi.bpf import CoreReloKind as Kind


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_relocation_becomes_what_libbpf_makes_of_it(case: Case) -> None:
    local_types, target_types, relocations = case.compose()
    local = Btf.parse(local_types.builder.build())
    target = Btf.parse(target_types.builder.build())
    code = bytearray(b"".join(case.before))
    if isinstance(case.after, tuple):
        relocate(code, relocations, local, [target])
        assert code == b"".join(case.after)
    else:
        with pytest.raises(case.after):
            relocate(code, relocations, local, [target])
        assert code == b"".join(case.before)


def _relocated(
    types: Types, targets: list[Btf], relocation: CoreRelocation, code: bytes, where: str = ""
) -> bytes:
    patched = bytearray(code)
    relocate(patched, [relocation], Btf.parse(types.builder.build()), targets, where=where)
    return bytes(patched)


def _module(base: Btf, *fields: str) -> Btf:
    """Return a module's types: a struct ``s`` with 32-bit fields after the ids of its base."""
    builder = BtfBuilder(base=base)
    u32 = base.find("unsigned int")[0]
    members = tuple(t.Member(name, u32, 32 * at) for at, name in enumerate(fields))
    builder.add(t.Struct("s", 4 * len(fields), members))
    return Btf.parse(builder.build(), base=base)


@pytest.fixture
def kernel() -> Btf:
    """Types of a kernel that has no struct ``s``."""
    return Btf.parse(Types().builder.build())


@pytest.fixture
def local() -> Types:
    """Types of an object whose last one is ``struct s { u32 a; }``."""
    types = Types()
    types.struct("s", ("a", types.u32))
    return types


def _offset_of_a(types: Types) -> CoreRelocation:
    return CoreRelocation(0, len(types.builder) - 1, "0:0", Kind.FIELD_BYTE_OFFSET)


def test_modules_are_searched_for_what_the_kernel_lacks(local: Types, kernel: Btf) -> None:
    modules = [_module(kernel, "x"), _module(kernel, "x", "y", "a")]
    result = _relocated(local, [kernel, *modules], _offset_of_a(local), mov(0))
    assert result == mov(8)


def test_modules_are_not_searched_for_what_the_kernel_has(local: Types) -> None:
    types = Types()
    types.struct("s", ("x", types.u32), ("a", types.u32))
    kernel = Btf.parse(types.builder.build())
    module = _module(kernel, "x", "y", "a")
    result = _relocated(local, [kernel, module], _offset_of_a(local), mov(0))
    assert result == mov(4)


def test_modules_that_contradict_each_other_are_refused(local: Types, kernel: Btf) -> None:
    modules = [_module(kernel, "a"), _module(kernel, "x", "a")]
    with pytest.raises(RequirementUnmet, match="contradict each other"):
        _relocated(local, [kernel, *modules], _offset_of_a(local), mov(0))


def test_without_target_types_only_the_object_itself_can_be_asked(local: Types) -> None:
    root = len(local.builder) - 1
    own_id = CoreRelocation(0, root, "0", Kind.TYPE_ID_LOCAL)
    assert _relocated(local, [], own_id, mov(0)) == mov(root)
    with pytest.raises(RequirementUnmet, match="no types of a kernel"):
        _relocated(local, [], _offset_of_a(local), mov(0))


def test_big_endian_code_is_patched_in_its_own_order() -> None:
    builders = []
    for before in (1, 4):
        builder = BtfBuilder(byteorder="big")
        u32 = builder.add(t.Int("unsigned int", 4, 32))
        members = (t.Member("pad", u32, 0, before), t.Member("a", u32, before, 3))
        builder.add(t.Struct("s", 4, members, kind_flag=True))
        builders.append(builder)
    local, target = (Btf.parse(builder.build()) for builder in builders)

    def code(left: int, right: int, wide: int) -> bytearray:
        return bytearray(
            struct.pack(">BBhi", 0x67, 0x10, 0, left)
            + struct.pack(">BBhi", 0x77, 0x10, 0, right)
            + struct.pack(">BBhi", 0x18, 0x10, 0, 0)
            + struct.pack(">BBhi", 0, 0, 0, wide)
        )

    kinds = (Kind.FIELD_LSHIFT_U64, Kind.FIELD_RSHIFT_U64, Kind.FIELD_BYTE_OFFSET)
    relocations = [CoreRelocation(slot, 2, "0:1", kind) for slot, kind in enumerate(kinds)]
    patched = code(33, 61, 0)
    relocate(patched, relocations, local, [target], byteorder="big")
    # The most significant bit comes first: four bits of the struct lie before the field.
    assert patched == code(32 + 4, 61, 0)


def test_one_bad_relocation_leaves_the_code_as_it_was(local: Types) -> None:
    good = _offset_of_a(local)
    bad = CoreRelocation(1, good.type_id, "0:0", Kind.FIELD_BYTE_OFFSET)
    types = Types()
    types.struct("s", ("x", types.u64), ("a", types.u32))
    code = bytearray(mov(0) + mov(99))
    with pytest.raises(ObjectFormatError):
        relocate(
            code,
            [good, bad],
            Btf.parse(local.builder.build()),
            [Btf.parse(types.builder.build())],
        )
    assert code == mov(0) + mov(99)


def test_a_message_names_relocation_type_access_and_place(local: Types) -> None:
    kernel = Btf.parse(local.builder.build())
    with pytest.raises(ObjectFormatError) as raised:
        _relocated(local, [kernel], _offset_of_a(local), mov(7), where="program xdp_fw")
    assert raised.value.cause == (
        "relocation FIELD_BYTE_OFFSET of struct s.a (0:0) at instruction 0 of program xdp_fw: "
        "the instruction holds 7, the object's own types say 0"
    )


def test_a_contradiction_is_told_with_both_answers(local: Types) -> None:
    types = Types()
    first = types.struct("s", ("a", types.u32))
    second = types.struct("s", ("x", types.u32), ("a", types.u32))
    with pytest.raises(RequirementUnmet) as raised:
        _relocated(local, [Btf.parse(types.builder.build())], _offset_of_a(local), mov(0))
    assert raised.value.what == (
        "resolve the relocation FIELD_BYTE_OFFSET of struct s.a (0:0) at instruction 0"
    )
    assert f"type {first} says 0 at bit 0, type {second} says 4 at bit 32" in raised.value.cause


def _described() -> Iterator[tuple[str, CoreRelocation, Btf]]:
    types = Types()
    inner = types.struct("", ("b", types.array(types.u8, 4)))
    root = types.struct("s", ("pad", types.u8), ("", inner), ("c", types.u8, 3))
    enum = types.enum("e", ("A", 1), ("B", 2))
    alias = types.typedef("s_t", root)
    union = types.union("u", ("c", types.u8))
    fwd = types.fwd("later")
    btf = Btf.parse(types.builder.build())
    for expected, kind, type_id, access in (
        ("FIELD_BYTE_OFFSET of struct s.c (0:2)", Kind.FIELD_BYTE_OFFSET, root, "0:2"),
        ("FIELD_EXISTS of struct s.b[3] (0:1:0:3)", Kind.FIELD_EXISTS, root, "0:1:0:3"),
        ("FIELD_BYTE_SIZE of s_t[2].pad (2:0)", Kind.FIELD_BYTE_SIZE, alias, "2:0"),
        ("FIELD_SIGNED of union u.c (0:0)", Kind.FIELD_SIGNED, union, "0:0"),
        ("ENUMVAL_VALUE of enum e::B (1)", Kind.ENUMVAL_VALUE, enum, "1"),
        ("TYPE_SIZE of struct s", Kind.TYPE_SIZE, root, "0"),
        ("TYPE_EXISTS of forward later", Kind.TYPE_EXISTS, fwd, "0"),
        ("FIELD_BYTE_OFFSET of struct s (0:9)", Kind.FIELD_BYTE_OFFSET, root, "0:9"),
        ("FIELD_BYTE_OFFSET of struct (anonymous).b (0:0)", Kind.FIELD_BYTE_OFFSET, inner, "0:0"),
        ("FIELD_BYTE_OFFSET of type 999 (0:9)", Kind.FIELD_BYTE_OFFSET, 999, "0:9"),
        ("kind 13 of type 1", 13, 1, "0"),
    ):
        yield expected, CoreRelocation(0, type_id, access, kind), btf


@pytest.mark.parametrize(("expected", "relocation", "btf"), list(_described()))
def test_a_relocation_can_be_told_in_words(
    expected: str, relocation: CoreRelocation, btf: Btf
) -> None:
    assert describe(relocation, btf) == expected
