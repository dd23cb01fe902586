# SPDX-License-Identifier: Apache-2.0
"""Decoding one type's record, with all checks that need no other type's contents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpkit.btf import types as t
from xdpkit.btf.types import Kind
from xdpkit.btf.wire import KIND_FLAG, MAX_VLEN, kind_of

if TYPE_CHECKING:
    from xdpkit.btf.reader import Btf
    from xdpkit.errors import ObjectFormatError

# Bits of ``info`` that must be zero: the kind flag and the number of elements, where a kind has
# neither. FUNC keeps its linkage in place of the number.
_BOTH = KIND_FLAG | MAX_VLEN
_ALLOWED: dict[int, int] = {
    Kind.STRUCT: _BOTH,
    Kind.UNION: _BOTH,
    Kind.ENUM: _BOTH,
    Kind.ENUM64: _BOTH,
    Kind.FUNC_PROTO: MAX_VLEN,
    Kind.DATASEC: MAX_VLEN,
    Kind.FUNC: MAX_VLEN,
    Kind.FWD: KIND_FLAG,
    Kind.DECL_TAG: KIND_FLAG,
    Kind.TYPE_TAG: KIND_FLAG,
}
_NAMELESS = frozenset(
    map(int, (Kind.PTR, Kind.ARRAY, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.FUNC_PROTO))
)
_NAMED = frozenset(
    map(
        int,
        (
            Kind.FWD,
            Kind.TYPEDEF,
            Kind.FUNC,
            Kind.VAR,
            Kind.DATASEC,
            Kind.FLOAT,
            Kind.DECL_TAG,
            Kind.TYPE_TAG,
        ),
    )
)
_INT_WORD = 0x0FFF00FF
_ENCODINGS = tuple(map(t.IntEncoding, range(16)))


class _Record:
    """A record under decoding: its words, and how to complain about it."""

    __slots__ = ("at", "btf", "end", "flag", "kind", "name", "value", "vlen", "words")

    def __init__(self, btf: Btf, words: memoryview, at: int) -> None:
        self.btf = btf
        self.words = words
        self.at = at
        self.end = len(btf)
        info = words[at + 1]
        self.value: int = words[at + 2]
        self.kind = kind = kind_of(info)
        self.vlen = info & MAX_VLEN
        self.flag = bool(info & KIND_FLAG)
        self.name = btf.name_at(words[at])
        if info & _BOTH & ~_ALLOWED.get(kind, 0):
            raise self.error("has a kind flag or elements")
        if self.name:
            if kind in _NAMELESS:
                raise self.error("has a name")
        elif kind in _NAMED:
            raise self.error("has no name")

    def error(self, complaint: str) -> ObjectFormatError:
        return self.btf.error_at(f"a {Kind(self.kind).name} {complaint}", self.at)

    def reference(self, type_id: int) -> int:
        if type_id >= self.end:
            raise self.error(f"refers to type {type_id}, which does not exist")
        return type_id

    def tail(self, words: int) -> list[int]:
        start = self.at + 3
        return self.words[start : start + words].tolist()

    def elements(self, words: int) -> tuple[list[int], ...]:
        """Return the elements by column: all first words, all second words, …"""
        flat = self.tail(self.vlen * words)
        return tuple(flat[i::words] for i in range(words))


def _int(record: _Record) -> t.Int:
    (word,) = record.tail(1)
    bits, offset, size = word & 0xFF, word >> 16 & 0xFF, record.value
    if word & ~_INT_WORD:
        raise record.error("has unknown bits set")
    if not 1 <= size <= 16:
        raise record.error(f"has {size} bytes")
    if bits + offset > 8 * size:
        raise record.error(f"has {bits} bits at {offset} in {size} bytes")
    return t.Int(record.name, size, bits, offset, _ENCODINGS[word >> 24])


def _ptr(record: _Record) -> t.Ptr:
    return t.Ptr(record.reference(record.value))


def _array(record: _Record) -> t.Array:
    element, index, count = record.tail(3)
    if record.value:
        raise record.error("has a size")
    if not (element and index):
        raise record.error("has void as element or index")
    return t.Array(record.reference(element), record.reference(index), count)


def _members(record: _Record) -> tuple[t.Member, ...]:
    names, ids, offsets = record.elements(3)
    name_at, end = record.btf.name_at, 8 * record.value
    members = []
    for name, type_id, offset in zip(names, ids, offsets, strict=True):
        bits = 0
        if record.flag:
            bits, offset = offset >> 24, offset & 0xFFFFFF
        if offset + bits > end:
            raise record.error(f"has a member at bit {offset}, past its end")
        if not type_id:
            raise record.error("has a member of type void")
        members.append(t.Member(name_at(name), record.reference(type_id), offset, bits))
    return tuple(members)


def _struct(record: _Record) -> t.Struct:
    return t.Struct(record.name, record.value, _members(record), record.flag)


def _union(record: _Record) -> t.Union:
    members = _members(record)
    if any(m.bit_offset for m in members):
        raise record.error("has a member that is not at its start")
    return t.Union(record.name, record.value, members, record.flag)


def _enum(record: _Record) -> t.Enum:
    if record.value not in (1, 2, 4, 8):
        raise record.error(f"has {record.value} bytes")
    names, values = record.elements(2)
    if record.flag:
        values = [value - (value >> 31 << 32) for value in values]
    named = zip(map(record.btf.name_at, names), values, strict=True)
    return t.Enum(record.name, record.value, record.flag, tuple(named))


def _enum64(record: _Record) -> t.Enum64:
    if record.value not in (1, 2, 4, 8):
        raise record.error(f"has {record.value} bytes")
    names, low, high = record.elements(3)
    values = [lo | hi << 32 for lo, hi in zip(low, high, strict=True)]
    if record.flag:
        values = [value - (value >> 63 << 64) for value in values]
    named = zip(map(record.btf.name_at, names), values, strict=True)
    return t.Enum64(record.name, record.value, record.flag, tuple(named))


def _fwd(record: _Record) -> t.Fwd:
    if record.value:
        raise record.error("has a type")
    return t.Fwd(record.name, record.flag)


def _typedef(record: _Record) -> t.Typedef:
    return t.Typedef(record.name, record.reference(record.value))


def _volatile(record: _Record) -> t.Volatile:
    return t.Volatile(record.reference(record.value))


def _const(record: _Record) -> t.Const:
    return t.Const(record.reference(record.value))


def _restrict(record: _Record) -> t.Restrict:
    return t.Restrict(record.reference(record.value))


def _type_tag(record: _Record) -> t.TypeTag:
    return t.TypeTag(record.name, record.reference(record.value), record.flag)


def _func(record: _Record) -> t.Func:
    if record.vlen > t.FuncLinkage.EXTERN:
        raise record.error(f"has linkage {record.vlen}")
    return t.Func(record.name, record.reference(record.value), record.vlen)


def _func_proto(record: _Record) -> t.FuncProto:
    names, ids = record.elements(2)
    if not all(ids[:-1]):
        raise record.error("has a parameter of type void")
    params = map(t.Param, map(record.btf.name_at, names), map(record.reference, ids))
    return t.FuncProto(record.reference(record.value), tuple(params))


def _var(record: _Record) -> t.Var:
    (linkage,) = record.tail(1)
    if linkage > t.VarLinkage.EXTERN:
        raise record.error(f"has linkage {linkage}")
    return t.Var(record.name, record.reference(record.value), linkage)


def _datasec(record: _Record) -> t.Datasec:
    ids, offsets, sizes = record.elements(3)
    entries = zip(map(record.reference, ids), offsets, sizes, strict=True)
    return t.Datasec(record.name, record.value, tuple(t.SectionVar(*entry) for entry in entries))


def _float(record: _Record) -> t.Float:
    if record.value not in (2, 4, 8, 12, 16):
        raise record.error(f"has {record.value} bytes")
    return t.Float(record.name, record.value)


def _decl_tag(record: _Record) -> t.DeclTag:
    (component,) = record.tail(1)
    component -= component >> 31 << 32
    if component < -1:
        raise record.error(f"is on component {component}")
    return t.DeclTag(record.name, record.reference(record.value), component, record.flag)


_DECODERS: dict[int, Callable[[_Record], t.Type]] = {
    Kind.INT: _int,
    Kind.PTR: _ptr,
    Kind.ARRAY: _array,
    Kind.STRUCT: _struct,
    Kind.UNION: _union,
    Kind.ENUM: _enum,
    Kind.FWD: _fwd,
    Kind.TYPEDEF: _typedef,
    Kind.VOLATILE: _volatile,
    Kind.CONST: _const,
    Kind.RESTRICT: _restrict,
    Kind.FUNC: _func,
    Kind.FUNC_PROTO: _func_proto,
    Kind.VAR: _var,
    Kind.DATASEC: _datasec,
    Kind.FLOAT: _float,
    Kind.DECL_TAG: _decl_tag,
    Kind.TYPE_TAG: _type_tag,
    Kind.ENUM64: _enum64,
}


def decode(btf: Btf, words: memoryview, at: int) -> t.Type:
    """Return the type whose record begins at word ``at``.

    Raises:
        ObjectFormatError: the record is not as its kind must be, or refers to what does not exist.
    """
    return _DECODERS[kind_of(words[at + 1])](_Record(btf, words, at))
