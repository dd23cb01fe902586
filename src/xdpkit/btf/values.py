# SPDX-License-Identifier: Apache-2.0
"""Values of BTF types: bytes to Python objects and back.

===============================  =================================================================
type                             value
===============================  =================================================================
integer, enumeration, pointer    ``int``; ``bool`` for ``_Bool``; an enumerator's name is taken, too
array of characters              ``bytes``, all of it; shorter ones and ``str`` are taken, too,
                                 and filled up with NUL
other array                      ``list``
struct, union, section           ``dict`` by member (variable) name, anonymous members flattened
floating point                   ``float``; ``bytes`` where Python has no such size
===============================  =================================================================

Characters are integers of one byte but for ``signed char`` and ``_Bool``.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from reprlib import repr as short

from xdpkit.btf import types as t
from xdpkit.btf.reader import Btf
from xdpkit.btf.types import Kind
from xdpkit.btf.wire import MAX_DEPTH, ByteOrder, prefix
from xdpkit.errors import UsageError

_MAX_BYTES = 1 << 30
_FLOATS = {2: "e", 4: "f", 8: "d"}


def decode_value(btf: Btf, type_id: int, data: bytes) -> object:
    """Return the value of a type that the bytes hold.

    Raises:
        ObjectFormatError: the type has no values (a function, ``void``), or is hostile.
        UsageError: ``data`` is not as long as the type.
    """
    return codec(btf, type_id).decode(data)


def encode_value(btf: Btf, type_id: int, value: object) -> bytes:
    """Return the bytes that hold a value. Members that a mapping leaves out are zero.

    Raises:
        ObjectFormatError: the type has no values (a function, ``void``), or is hostile.
        UsageError: the value does not fit the type; members of a union disagree.
    """
    return codec(btf, type_id).encode(value)


def enum_name(btf: Btf, type_id: int, value: int) -> str | None:
    """Return the first enumerator with this value; None if there is none, or no enumeration."""
    enum = btf[btf.strip(type_id)]
    if not isinstance(enum, t.Enum | t.Enum64):
        return None
    return next((name for name, number in enum.values if number == value), None)


class Codec(ABC):
    """Decodes and encodes values of one type: for many values of a type, cheaper than by id.

    Attributes:
        size: bytes of a value.
        weight: how many Python objects a value becomes at most, roughly.
    """

    def __init__(self, size: int, weight: int = 1) -> None:
        self.size = size
        self.weight = weight

    def decode(self, data: bytes) -> object:
        """Return the value; see :func:`decode_value`."""
        if len(data) != self.size:
            raise UsageError(
                "decode a value", cause=f"{len(data)} bytes given, the type has {self.size}"
            )
        return self.read(data, 0)

    def encode(self, value: object) -> bytes:
        """Return the bytes; see :func:`encode_value`."""
        data = bytearray(self.size)
        self.write(data, 0, value)
        return bytes(data)

    @abstractmethod
    def read(self, data: bytes | bytearray, at: int) -> object:
        """Return the value that begins at byte ``at``."""

    @abstractmethod
    def write(self, data: bytearray, at: int, value: object) -> None:
        """Store a value at byte ``at``; raises UsageError if it does not fit."""


def codec(btf: Btf, type_id: int) -> Codec:
    """Return what decodes and encodes a type's values.

    Raises:
        ObjectFormatError: the type has no values, contains itself, has more than 1 GiB, or
            describes the same bytes over and over (nested unions grow exponentially).
    """
    size = btf.sizeof(type_id)
    if size > _MAX_BYTES:
        raise btf.error(f"type {type_id} has {size} bytes, more than a value may have", type_id)
    made = _Compiler(btf).compile(type_id)
    if made.weight > (1 << 16) + 64 * size:
        raise btf.error(f"type {type_id} describes its bytes {made.weight} times", type_id)
    return made


class _Compiler:
    """Makes codecs, each type's once, with a limit to what a hostile type can make it do."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._fields_left = 1 << 18
        self._made: dict[int, Codec] = {}
        self._depth = 0

    def compile(self, type_id: int) -> Codec:
        stripped = self._btf.strip(type_id)
        made = self._made.get(stripped)
        if made is None:
            if self._depth >= MAX_DEPTH:
                raise self._btf.error(
                    f"type {type_id} contains itself, or is nested too deeply", type_id
                )
            self._depth += 1
            made = self._made[stripped] = self._compile(stripped)
            self._depth -= 1
        return made

    def _compile(self, type_id: int) -> Codec:
        btf = self._btf
        order = btf.byteorder
        match btf[type_id]:
            case t.Int() as value:
                if value.is_bool:
                    return _Bool(value.size, order)
                shift = value.offset
                if order == "big":
                    shift = 8 * value.size - value.offset - value.bits
                return _Integer(value.size, value.bits, shift, value.is_signed, order)
            case t.Ptr():
                size = btf.pointer_size
                return _Integer(size, 8 * size, 0, False, order)
            case t.Enum(_, size, signed, values) | t.Enum64(_, size, signed, values):
                return _Enumeration(size, signed, order, dict(values))
            case t.Float(_, size):
                if size in _FLOATS:
                    return _Float(size, f"{prefix(order)}{_FLOATS[size]}")
                return _Opaque(size)
            case t.Array(element, _, count):
                inner = self.compile(element)
                if _is_character(btf[btf.strip(element)]):
                    return _Characters(count)
                return _List(inner, count)
            case t.Struct(_, size, members) | t.Union(_, size, members):
                return _Record(size, self._fields(type_id, members, size))
            case t.Var(_, inner_id):
                return self.compile(inner_id)
            case t.Datasec(_, size, entries):
                variables = (
                    t.Member(btf.name(entry.type_id), entry.type_id, 8 * entry.offset)
                    for entry in entries
                    if btf.kind(entry.type_id) == Kind.VAR
                )
                return _Record(size, self._fields(type_id, tuple(variables), size))
            case other:
                raise btf.error(f"a {other.kind.name} has no values", type_id)

    def _fields(self, type_id: int, members: tuple[t.Member, ...], size: int) -> tuple[_Field, ...]:
        fields: list[_Field] = []
        for member in members:
            inner = self.compile(member.type_id)
            at, shift = divmod(member.bit_offset, 8)
            if member.bitfield_size or shift:
                at, inner = self._bitfield(type_id, member, size)
            elif at + inner.size > size:
                if not isinstance(inner, _Integer) or not inner.is_narrow:
                    raise self._btf.error(
                        f"type {type_id} ends before its member {member.name}", type_id
                    )
                at, inner = self._bitfield(type_id, member, size)
            if member.name:
                fields.append(_Field(member.name, at, inner))
            elif isinstance(inner, _Record):
                fields += [_Field(f.name, at + f.at, f.codec) for f in inner.fields]
            if len(fields) > self._fields_left:
                raise self._btf.error(f"type {type_id} has too many members", type_id)
        self._fields_left -= len(fields)
        return tuple(fields)

    def _bitfield(self, type_id: int, member: t.Member, size: int) -> tuple[int, Codec]:
        """Return the first byte that a bitfield touches, and what reads its bits from there."""
        value = self._btf[self._btf.strip(member.type_id)]
        if not isinstance(value, t.Int | t.Enum | t.Enum64):
            raise self._btf.error(f"member {member.name} cannot be a bitfield", type_id)
        start, bits = member.bit_offset, member.bitfield_size
        if not bits and isinstance(value, t.Int):
            start, bits = start + value.offset, value.bits
        elif not bits:
            bits = 8 * value.size
        at, end = start // 8, (start + bits + 7) // 8
        if end > size or bits > 8 * value.size:
            raise self._btf.error(f"type {type_id} ends before its member {member.name}", type_id)
        order = self._btf.byteorder
        shift = start - 8 * at if order == "little" else 8 * end - start - bits
        signed = value.is_signed if isinstance(value, t.Int) else value.signed
        if isinstance(value, t.Enum | t.Enum64):
            names = dict(value.values)
            return at, _Enumeration(end - at, signed, order, names, bits, shift)
        if value.is_bool:
            return at, _Bool(end - at, order, bits, shift)
        return at, _Integer(end - at, bits, shift, signed, order)


def _is_character(value: t.Type) -> bool:
    if not isinstance(value, t.Int) or value.size != 1 or value.bits != 8 or value.is_bool:
        return False
    return value.name == "char" or not value.is_signed or bool(value.encoding & t.IntEncoding.CHAR)


class _Integer(Codec):
    """``bits`` of a number of ``size`` bytes, ``shift`` from its least significant bit.

    The rest of the bytes is left alone: other bitfields may be there.
    """

    def __init__(self, size: int, bits: int, shift: int, signed: bool, order: ByteOrder) -> None:
        super().__init__(size)
        self.bits = bits
        self.shift = shift
        self.order: ByteOrder = order
        self.low = -(1 << bits - 1) if signed and bits else 0
        self.high = self.low + (1 << bits)
        self.mask = (1 << bits) - 1

    @property
    def is_narrow(self) -> bool:
        return self.bits < 8 * self.size

    def read(self, data: bytes | bytearray, at: int) -> int:
        raw = int.from_bytes(data[at : at + self.size], self.order)
        number = raw >> self.shift & self.mask
        return number - (1 << self.bits) if number >= self.high else number

    def write(self, data: bytearray, at: int, value: object) -> None:
        number = self.number(value)
        if not self.low <= number < self.high:
            raise UsageError(f"store {number}", cause=f"it is not in {self.low} … {self.high - 1}")
        end = at + self.size
        kept = int.from_bytes(data[at:end], self.order) & ~(self.mask << self.shift)
        data[at:end] = (kept | (number & self.mask) << self.shift).to_bytes(self.size, self.order)

    def number(self, value: object) -> int:
        if isinstance(value, int):
            return int(value)
        raise UsageError(f"store {short(value)}", cause="an integer is expected")


class _Bool(_Integer):
    def __init__(
        self, size: int, order: ByteOrder, bits: int | None = None, shift: int = 0
    ) -> None:
        super().__init__(size, 8 * size if bits is None else bits, shift, False, order)

    def read(self, data: bytes | bytearray, at: int) -> bool:
        return bool(super().read(data, at))

    def number(self, value: object) -> int:
        if value in (0, 1):
            return int(bool(value))
        raise UsageError(f"store {short(value)}", cause="True or False is expected")


class _Enumeration(_Integer):
    def __init__(
        self,
        size: int,
        signed: bool,
        order: ByteOrder,
        names: Mapping[str, int],
        bits: int | None = None,
        shift: int = 0,
    ) -> None:
        super().__init__(size, 8 * size if bits is None else bits, shift, signed, order)
        self.names = names

    def number(self, value: object) -> int:
        if not isinstance(value, str):
            return super().number(value)
        if value not in self.names:
            known = ", ".join(list(self.names)[:8])
            raise UsageError(f"store {value!r}", cause=f"no such enumerator; there are {known}")
        return self.names[value]


class _Float(Codec):
    def __init__(self, size: int, layout: str) -> None:
        super().__init__(size)
        self.struct = struct.Struct(layout)

    def read(self, data: bytes | bytearray, at: int) -> object:
        return self.struct.unpack_from(data, at)[0]

    def write(self, data: bytearray, at: int, value: object) -> None:
        try:
            self.struct.pack_into(data, at, value)
        except (struct.error, OverflowError):
            raise UsageError(
                f"store {short(value)}", cause=f"it does not fit in {self.size} bytes"
            ) from None


class _Opaque(Codec):
    """Bytes as they are."""

    def read(self, data: bytes | bytearray, at: int) -> bytes:
        return bytes(data[at : at + self.size])

    def write(self, data: bytearray, at: int, value: object) -> None:
        if not isinstance(value, bytes | bytearray | memoryview) or len(value) != self.size:
            raise UsageError(f"store {short(value)}", cause=f"{self.size} bytes are expected")
        data[at : at + self.size] = value


class _Characters(_Opaque):
    def write(self, data: bytearray, at: int, value: object) -> None:
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogatepass")
        elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            try:
                value = bytes(value)
            except (TypeError, ValueError):
                raise UsageError(f"store {short(value)}", cause="bytes are expected") from None
        if not isinstance(value, bytes | bytearray | memoryview) or len(value) > self.size:
            raise UsageError(
                f"store {short(value)}", cause=f"at most {self.size} bytes are expected"
            )
        super().write(data, at, bytes(value).ljust(self.size, b"\0"))


class _List(Codec):
    def __init__(self, element: Codec, count: int) -> None:
        # Elements without bytes are not worth a list: there may be four billion of them.
        self.count = count if element.size else 0
        self.element = element
        super().__init__(self.count * element.size, 1 + self.count * element.weight)

    def read(self, data: bytes | bytearray, at: int) -> list[object]:
        read, size = self.element.read, self.element.size
        return [read(data, at + i * size) for i in range(self.count)]

    def write(self, data: bytearray, at: int, value: object) -> None:
        if not isinstance(value, Sequence) or len(value) != self.count:
            raise UsageError(f"store {short(value)}", cause=f"a list of {self.count} is expected")
        for i, each in enumerate(value):
            self.element.write(data, at + i * self.element.size, each)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    at: int
    codec: Codec


class _Record(Codec):
    def __init__(self, size: int, fields: tuple[_Field, ...]) -> None:
        super().__init__(size, 1 + sum(field.codec.weight for field in fields))
        self.fields = fields
        by_place = sorted(fields, key=lambda field: field.at)
        self.overlaps = any(a.at + a.codec.size > b.at for a, b in pairwise(by_place))
        self.by_name = {field.name: field for field in fields}

    def read(self, data: bytes | bytearray, at: int) -> dict[str, object]:
        return {field.name: field.codec.read(data, at + field.at) for field in self.fields}

    def write(self, data: bytearray, at: int, value: object) -> None:
        if not isinstance(value, Mapping):
            raise UsageError(f"store {short(value)}", cause="a mapping by member is expected")
        for name, each in value.items():
            self._write(data, at, name, each)
        if self.overlaps:
            # Written again, nothing changes, unless two members claim the same bits.
            end = at + self.size
            written = data[at:end]
            for name, each in value.items():
                self._write(data, at, name, each)
                if data[at:end] != written:
                    raise UsageError(
                        f"store member {name}",
                        cause="another member of the same union, which is given too, disagrees",
                        remedy="give one of them only",
                    )

    def _write(self, data: bytearray, at: int, name: object, value: object) -> None:
        field = self.by_name.get(name) if isinstance(name, str) else None
        if field is None:
            known = ", ".join(list(self.by_name)[:8])
            raise UsageError(f"store member {short(name)}", cause=f"no such member; has {known}")
        try:
            field.codec.write(data, at + field.at, value)
        except UsageError as error:
            raise UsageError(
                f"{error.what} in {name}", cause=error.cause, remedy=error.remedy
            ) from None
