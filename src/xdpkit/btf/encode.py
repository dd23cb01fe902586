# SPDX-License-Identifier: Apache-2.0
"""Encoding one type as BTF."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from xdpkit.btf import types as t
from xdpkit.btf.wire import KIND_FLAG, MAX_NAME, MAX_VLEN, ByteOrder, prefix
from xdpkit.errors import UsageError


def encode_name(name: str) -> bytes:
    """Return a name as it is stored, with its terminator.

    Raises:
        UsageError: it holds NUL or a surrogate, or is longer than 4095 bytes.
    """
    try:
        encoded = name.encode() + b"\0"
    except UnicodeEncodeError:
        raise UsageError(f"store the name {name!r} in BTF", cause="it is not Unicode") from None
    if encoded.index(0) != len(encoded) - 1:
        raise UsageError(f"store the name {name!r} in BTF", cause="it contains NUL")
    if len(encoded) > MAX_NAME + 1:
        raise UsageError(
            f"store the name {name[:32]!r}… in BTF", cause=f"it is longer than {MAX_NAME} bytes"
        )
    return encoded


def encode_type(
    value: t.Type, intern: Callable[[str], int], *, byteorder: ByteOrder = "little"
) -> bytes:
    """Return the record of a type.

    Args:
        value: any type but ``void``, which has no record.
        intern: gives the string offset of a name; not called for the empty one.
        byteorder: "little" or "big".

    Raises:
        UsageError: a number does not fit its field.
    """

    def named(name: str) -> int:
        return intern(name) if name else 0

    def record(head: int, *tail: int, name: str = "", vlen: int = 0, flag: bool = False) -> bytes:
        if vlen > MAX_VLEN:
            raise UsageError(f"encode a {value.kind.name}", cause=f"{vlen} elements are too many")
        info = value.kind << 24 | vlen | (KIND_FLAG if flag else 0)
        words = (named(name), info, head, *tail)
        try:
            return struct.pack(f"{prefix(byteorder)}{len(words)}I", *words)
        except struct.error:
            raise UsageError(
                f"encode {value!r}"[:200], cause="a number does not fit in 32 bits"
            ) from None

    match value:
        case t.Int(name, size, bits, offset, encoding):
            _fits(value, bits, 8)
            _fits(value, offset, 8)
            _fits(value, encoding, 4)
            return record(size, bits | offset << 16 | encoding << 24, name=name)
        case t.Array(element, index, count):
            return record(0, element, index, count)
        case t.Struct() | t.Union():
            flag = value.kind_flag or any(m.bitfield_size for m in value.members)
            tail = []
            for member in value.members:
                _fits(value, member.bit_offset, 24 if flag else 32)
                _fits(value, member.bitfield_size, 8)
                bits = member.bitfield_size << 24 | member.bit_offset
                tail += [named(member.name), member.type_id, bits]
            return record(value.size, *tail, name=value.name, vlen=len(value.members), flag=flag)
        case t.Enum(name, size, signed, values):
            numbers = _unsigned(value, (number for _, number in values), 32, signed)
            pairs = zip((named(each) for each, _ in values), numbers, strict=True)
            flat = (word for pair in pairs for word in pair)
            return record(size, *flat, name=name, vlen=len(values), flag=signed)
        case t.Enum64(name, size, signed, values):
            numbers = _unsigned(value, (number for _, number in values), 64, signed)
            tail = []
            for (each, _), number in zip(values, numbers, strict=True):
                tail += [named(each), number & 0xFFFFFFFF, number >> 32]
            return record(size, *tail, name=name, vlen=len(values), flag=signed)
        case t.Fwd(name, is_union):
            return record(0, name=name, flag=is_union)
        case t.Ptr(to) | t.Volatile(to) | t.Const(to) | t.Restrict(to):
            return record(to)
        case t.Typedef(name, to):
            return record(to, name=name)
        case t.TypeTag(name, to, is_attribute):
            return record(to, name=name, flag=is_attribute)
        case t.Func(name, to, linkage):
            return record(to, name=name, vlen=linkage)
        case t.FuncProto(returned, params):
            tail = [word for p in params for word in (named(p.name), p.type_id)]
            return record(returned, *tail, vlen=len(params))
        case t.Var(name, to, linkage):
            return record(to, linkage, name=name)
        case t.Datasec(name, size, entries):
            tail = [word for v in entries for word in (v.type_id, v.offset, v.size)]
            return record(size, *tail, name=name, vlen=len(entries))
        case t.Float(name, size):
            return record(size, name=name)
        case t.DeclTag(text, to, component, is_attribute):
            (index,) = _unsigned(value, (component,), 32, True)
            return record(to, index, name=text, flag=is_attribute)
        case t.Void():
            raise UsageError("encode void", cause="it has no record: it is type id 0")


def _fits(value: t.Type, number: int, bits: int) -> None:
    if number >> bits:
        raise UsageError(
            f"encode a {value.kind.name}", cause=f"{number} does not fit in {bits} bits"
        )


def _unsigned(value: t.Type, numbers: Iterable[int], bits: int, signed: bool) -> list[int]:
    """Return the numbers in two's complement."""
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    result = []
    for number in numbers:
        if not low <= number < high:
            sign = "signed" if signed else "unsigned"
            raise UsageError(
                f"encode a {value.kind.name}",
                cause=f"{number} does not fit in {bits} bits, {sign}",
            )
        result.append(number % (1 << bits))
    return result
