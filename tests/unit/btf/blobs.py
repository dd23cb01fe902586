# SPDX-License-Identifier: Apache-2.0
"""BTF to test with: one blob with every kind, real ones, and random ones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import strategies as st

from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.wire import ByteOrder

VMLINUX = Path("/sys/kernel/btf/vmlinux")
ENCODING = t.IntEncoding

EVERY_KIND: tuple[t.Type, ...] = (
    t.Int("int", 4, 32, encoding=ENCODING.SIGNED),  # 1
    t.Int("char", 1, 8, encoding=ENCODING.SIGNED),
    t.Int("_Bool", 1, 8, encoding=ENCODING.BOOL),
    t.Int("__int128", 16, 128, encoding=ENCODING.SIGNED),
    t.Int("unsigned long", 8, 64),  # 5
    t.Ptr(0),
    t.Array(2, 1, 16),
    t.Struct("pair", 16, (t.Member("a", 1, 0), t.Member("b", 5, 64))),
    t.Struct("bits", 4, (t.Member("low", 1, 0, 3), t.Member("high", 1, 3, 29))),
    t.Union("either", 8, (t.Member("word", 5), t.Member("bytes", 7 + 6))),  # 10
    t.Enum("colour", 4, False, (("RED", 0), ("BLUE", 0xFFFFFFFF))),
    t.Enum("sign", 4, True, (("MINUS", -1), ("PLUS", 1))),
    t.Array(2, 1, 8),
    t.Enum64("wide", 8, False, (("HUGE", 1 << 63),)),
    t.Enum64("negative", 8, True, (("LOWEST", -(1 << 63)),)),  # 15
    t.Fwd("opaque"),
    t.Fwd("opaque_union", is_union=True),
    t.Typedef("u64", 5),
    t.Volatile(18),
    t.Const(19),  # 20
    t.Ptr(2),
    t.Restrict(21),
    t.TypeTag("user", 2),
    t.TypeTag("address_space(1)", 2, is_attribute=True),
    t.FuncProto(1, (t.Param("ctx", 6), t.Param("", 0))),  # 25
    t.Func("main", 25, t.FuncLinkage.GLOBAL),
    t.Var("counter", 20, t.VarLinkage.STATIC),
    t.Datasec(".data", 16, (t.SectionVar(27, 8, 8),)),
    t.Float("double", 8),
    t.DeclTag("kernel", 8, 1),  # 30
    t.DeclTag("nonnull", 26, -1, is_attribute=True),
)


def build(values: Iterable[t.Type], byteorder: ByteOrder = "little") -> bytes:
    builder = BtfBuilder(byteorder=byteorder)
    for value in values:
        builder.add(value)
    return builder.build()


def parse(*values: t.Type, byteorder: ByteOrder = "little") -> Btf:
    return Btf.parse(build(values, byteorder))


@cache
def kernel_btf() -> Btf:
    try:
        return Btf.parse(VMLINUX.read_bytes(), file=str(VMLINUX))
    except OSError as error:
        pytest.skip(f"{error}: needs a kernel with CONFIG_DEBUG_INFO_BTF")


@cache
def object_sections() -> dict[str, tuple[bytes, bytes]]:
    """Return .BTF and .BTF.ext of the objects that libxdp ships, by file name."""
    sections = {}
    for path in sorted(Path("/usr/lib").glob("*/bpf/*.o")):
        with path.open("rb") as file:
            elf = ELFFile(file)
            found = {section.name: section.data() for section in elf.iter_sections()}
            sections[path.name] = (found[".BTF"], found[".BTF.ext"])
    if not sections:
        pytest.skip("libxdp's objects are not installed: make test-peers")
    return sections


_identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,12}", fullmatch=True)
_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_u32 = st.integers(0, (1 << 32) - 1)
_optional = st.just("") | _identifiers


@st.composite
def _integers(draw: st.DrawFn) -> t.Int:
    size = draw(st.sampled_from((1, 2, 4, 8, 16)))
    bits = draw(st.integers(0, 8 * size))
    offset = draw(st.integers(0, 8 * size - bits))
    return t.Int(draw(_optional), size, bits, offset, t.IntEncoding(draw(st.integers(0, 15))))


@st.composite
def _composites(draw: st.DrawFn, ids: st.SearchStrategy[int]) -> t.Struct | t.Union:
    size = draw(st.integers(1, 1 << 16))
    with_bits = draw(st.booleans())
    is_union = draw(st.booleans())
    members = []
    for name in draw(st.lists(_optional, max_size=5)):
        offset = 0 if is_union else draw(st.integers(0, 8 * size - 1))
        bits = draw(st.integers(0, min(255, 8 * size - offset))) if with_bits else 0
        members.append(t.Member(name, draw(ids), offset, bits))
    kind = t.Union if is_union else t.Struct
    return kind(draw(_optional), size, tuple(members), with_bits)


@st.composite
def _enums(draw: st.DrawFn) -> t.Enum | t.Enum64:
    bits = draw(st.sampled_from((32, 64)))
    signed = draw(st.booleans())
    low = -(1 << bits - 1) if signed else 0
    numbers = st.integers(low, low + (1 << bits) - 1)
    values = draw(st.lists(st.tuples(_identifiers, numbers), max_size=5))
    kind = t.Enum if bits == 32 else t.Enum64
    return kind(draw(_optional), draw(st.sampled_from((1, 2, 4, 8))), signed, tuple(values))


@st.composite
def type_graphs(draw: st.DrawFn) -> tuple[t.Type, ...]:
    """Generate types whose records are right; how they refer to each other is left to chance."""
    count = draw(st.integers(1, 20))
    ids = st.integers(0, count)
    nonzero = st.integers(1, count)
    params = st.lists(st.builds(t.Param, _optional, nonzero), max_size=4)
    kinds = st.one_of(
        _integers(),
        _composites(nonzero),
        _enums(),
        st.builds(t.Ptr, ids),
        st.builds(t.Array, nonzero, nonzero, _u32),
        st.builds(t.Fwd, _identifiers, st.booleans()),
        st.builds(t.Typedef, _identifiers, ids),
        st.builds(t.Volatile, ids),
        st.builds(t.Const, ids),
        st.builds(t.Restrict, ids),
        st.builds(t.TypeTag, _texts, ids, st.booleans()),
        st.builds(t.Func, _identifiers, ids, st.integers(0, 2)),
        st.builds(t.FuncProto, ids, params.map(tuple)),
        st.builds(t.Var, _identifiers, ids, st.integers(0, 2)),
        st.builds(
            t.Datasec,
            _identifiers,
            _u32,
            st.lists(st.builds(t.SectionVar, ids, _u32, _u32), max_size=4).map(tuple),
        ),
        st.builds(t.Float, _identifiers, st.sampled_from((2, 4, 8, 12, 16))),
        st.builds(t.DeclTag, _texts, ids, st.integers(-1, 9), st.booleans()),
    )
    return tuple(draw(kinds) for _ in range(count))


@st.composite
def mutated(draw: st.DrawFn, blobs: st.SearchStrategy[bytes]) -> bytes:
    """Generate what is left of a blob after some bytes are changed and the end is cut off."""
    blob = bytearray(draw(blobs))
    places = st.integers(0, len(blob) - 1)
    interesting = st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255)
    for place, value in draw(st.lists(st.tuples(places, interesting), min_size=1, max_size=8)):
        blob[place] = value
    return bytes(blob[: draw(st.just(len(blob)) | places)])
