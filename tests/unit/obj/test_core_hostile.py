# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations of malformed objects: an error that names it, soon, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import core_fuzz
from tests.core_cases import CASES, Types, mov, wide
from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.obj.core import describe, relocate
from xdpkit.obj.spec import CoreRelocation
from xdpkit.uapi.bpf import CoreReloKind as Kind

EXPECTED = (ObjectFormatError, RequirementUnmet)

# A walk that visits every path, instead of every type, doubles its work this many times.
_MANY = 30


def _kernel() -> tuple[Btf, int]:
    types = Types()
    root = types.struct("s", ("a", types.u32), ("b", types.u64))
    return Btf.parse(types.builder.build()), root


def _relocate(code: bytes, *relocations: CoreRelocation) -> None:
    btf, _ = _kernel()
    relocate(bytearray(code), relocations, btf, [btf])


@given(access=st.text(max_size=20) | st.text("0123456789:-+ x", max_size=200))
def test_any_access_string_is_understood_or_refused(access: str) -> None:
    _, root = _kernel()
    for kind in Kind:
        relocation = CoreRelocation(0, root, access, kind)
        with suppress(*EXPECTED):
            _relocate(mov(0), relocation)


@pytest.mark.parametrize(
    "access",
    [
        "",
        ":",
        "0:",
        ":0",
        "-1",
        "0:-1",
        "+0",
        " 0",
        "0 ",
        "0:0x1",
        "٣",
        "0\n",
        "9" * 5000,
        "0:" * 999,
    ],
)
def test_a_malformed_access_string_is_refused(access: str) -> None:
    _, root = _kernel()
    with pytest.raises(ObjectFormatError, match=r"access|out of range"):
        _relocate(mov(0), CoreRelocation(0, root, access, Kind.FIELD_BYTE_OFFSET))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("type_id", [-1, 10**6, 2**32 - 1])
def test_a_type_out_of_range_is_refused(type_id: int, kind: Kind) -> None:
    with pytest.raises(ObjectFormatError, match="there is no type"):
        _relocate(mov(0), CoreRelocation(0, type_id, "0", kind))


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.TYPE_ID_LOCAL])
def test_void_is_refused(kind: Kind) -> None:
    with pytest.raises(ObjectFormatError):
        _relocate(mov(0), CoreRelocation(0, 0, "0", kind))


@pytest.mark.parametrize("kind", [-1, 13, 2**32 - 1])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(ObjectFormatError, match="unknown kind"):
        _relocate(mov(0), CoreRelocation(0, 1, "0", kind))


@pytest.mark.parametrize("slot", [-1, 1, 2**60])
@pytest.mark.parametrize("access", ["0:0", "0:1"])
def test_a_slot_out_of_range_is_refused(slot: int, access: str) -> None:
    _, root = _kernel()
    with pytest.raises(ObjectFormatError, match="there is no instruction"):
        _relocate(mov(0), CoreRelocation(slot, root, access, Kind.FIELD_EXISTS))


@pytest.mark.parametrize("name", ["s", "absent"])
def test_half_of_a_64_bit_load_is_refused(name: str) -> None:
    types = Types()
    root = types.struct(name, ("a", types.u32))
    relocation = CoreRelocation(0, root, "0:0", Kind.FIELD_BYTE_OFFSET)
    code = bytearray(wide(0)[:8])
    with pytest.raises(ObjectFormatError, match="second half"):
        relocate(code, [relocation], Btf.parse(types.builder.build()), [_kernel()[0]])
    assert code == wide(0)[:8]


@pytest.mark.parametrize("opcode", [op for op in range(256) if op & 7 in (0, 5, 6) and op != 0x18])
def test_an_instruction_without_a_constant_is_refused(opcode: int) -> None:
    _, root = _kernel()
    code = bytes((opcode,)) + bytes(7)
    with pytest.raises(ObjectFormatError, match="no constant"):
        _relocate(code, CoreRelocation(0, root, "0:0", Kind.FIELD_BYTE_OFFSET))


def test_an_offset_of_4_gib_is_refused() -> None:
    types = Types()
    root = types.struct("s", ("a", types.array(types.u64, 1000)))
    relocation = CoreRelocation(0, root, f"{2**31 - 1}:0", Kind.FIELD_BYTE_OFFSET)
    btf = Btf.parse(types.builder.build())
    with pytest.raises(ObjectFormatError, match="out of range"):
        relocate(bytearray(mov(0)), [relocation], btf, [btf])


def _typedef_of_itself(types: Types) -> int:
    own_id = len(types.builder)
    return types.add(t.Typedef("s", own_id))


def _struct_within_itself(types: Types) -> int:
    own_id = len(types.builder)
    return types.add(t.Struct("s", 4, (t.Member("a", own_id), t.Member("b", types.u32))))


def _anonymous_within_itself(types: Types) -> int:
    own_id = len(types.builder)
    types.add(t.Struct("", 4, (t.Member("", own_id),)))
    return types.struct("s", ("", own_id), ("a", types.u32))


def _array_of_itself(types: Types) -> int:
    own_id = len(types.builder)
    types.add(t.Array(own_id, types.u32, 1))
    return types.add(t.Struct("s", 4, (t.Member("a", own_id),)))


def _pointer_to_itself(types: Types) -> int:
    own_id = len(types.builder)
    types.ptr(own_id)
    return types.typedef("s", own_id)


def _function_of_itself(types: Types) -> int:
    own_id = len(types.builder)
    types.func(types.u32, own_id)
    return types.typedef("s", own_id)


def _result_of_itself(types: Types) -> int:
    own_id = len(types.builder)
    types.func(own_id, types.u32)
    return types.typedef("s", own_id)


def _many_anonymous(types: Types) -> int:
    at = types.struct("", ("z", types.u8))
    for _ in range(_MANY):
        at = types.add(t.Union("", 4, (t.Member("", at), t.Member("", at))))
    return types.struct("s", ("", at), ("a", types.u32))


def _many_members(types: Types) -> int:
    at = types.struct("in", ("a", types.u8))
    for _ in range(_MANY):
        at = types.add(t.Union("in", 4, (t.Member("a", at), t.Member("a", at))))
    return types.struct("s", ("a", at))


def _many_parameters(types: Types) -> int:
    at = types.func(types.u32)
    for _ in range(_MANY):
        at = types.func(at, at, at)
    return types.typedef("s", at)


_ENTANGLED: list[Callable[[Types], int]] = [
    _typedef_of_itself,
    _struct_within_itself,
    _anonymous_within_itself,
    _array_of_itself,
    _pointer_to_itself,
    _function_of_itself,
    _result_of_itself,
    _many_anonymous,
    _many_members,
    _many_parameters,
]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("make", _ENTANGLED)
def test_types_that_contain_themselves_or_each_other_end(
    make: Callable[[Types], int], kind: Kind
) -> None:
    types = Types()
    root = make(types)
    btf = Btf.parse(types.builder.build())
    for access in ("0", "0:0", "0:1", "0:0:0"):
        with suppress(*EXPECTED):
            relocate(bytearray(mov(0)), [CoreRelocation(0, root, access, kind)], btf, [btf])


def test_a_wide_hostile_type_costs_no_more_than_its_members() -> None:
    many = 20_000
    types = Types()
    members = tuple(t.Member(f"m{number}", types.u8) for number in range(many))
    root = types.add(t.Union("s", 1, members))
    values = tuple((f"V{number}", number) for number in range(many))
    enum = types.enum("e", *values)
    btf = Btf.parse(types.builder.build())
    code = bytearray(mov(1) * 2)
    relocations = [
        CoreRelocation(at, of, "0", Kind.TYPE_MATCHES) for at, of in ((0, root), (1, enum))
    ]
    relocate(code, relocations, btf, [btf])
    assert code == mov(1) * 2


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_corrupt_types_are_refused_or_answered(first: int) -> None:
    for seed in range(first, first + 50):
        question = core_fuzz.question(seed)
        target = Btf.parse(question.target.builder.build())
        for data in core_fuzz.corruptions(question.local.builder.build(), seed):
            with suppress(*EXPECTED):
                local = Btf.parse(data)
                relocate(bytearray(question.code), [question.relocation], local, [target, local])


@given(code=st.binary(max_size=24), kind=st.integers(0, 13), slot=st.integers(-1, 3))
def test_any_bytes_are_patched_or_refused(code: bytes, kind: int, slot: int) -> None:
    btf, root = _kernel()
    patched = bytearray(code)
    try:
        relocate(patched, [CoreRelocation(slot, root, "0:1", kind)], btf, [btf])
    except EXPECTED:
        assert patched == code
    assert len(patched) == len(code)


@given(
    type_id=st.integers(-1, 2**32),
    access=st.text(max_size=300),
    kind=st.integers(-1, 20),
)
def test_describing_never_fails(type_id: int, access: str, kind: int) -> None:
    btf, _ = _kernel()
    assert describe(CoreRelocation(0, type_id, access, kind), btf)


def test_the_cases_are_told_apart_by_their_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
