# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations as data: types of an object, types of a target, what becomes of instructions.

The unit tests hold xdpkit to it, the kernel tests libbpf: neither may differ.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xdpkit.btf import types as t
from xdpkit.btf.builder import BtfBuilder
from xdpkit.errors import ObjectFormatError, RequirementUnmet, XdpkitError
from xdpkit.obj.spec import CoreRelocation
from xdpkit.uapi.bpf import CoreReloKind as Kind


class Types:
    """BTF composed as one would write C. Members are laid out by their natural alignment."""

    def __init__(self, *, pointer_size: int = 8) -> None:
        self.builder = BtfBuilder()
        self._sizes = {0: 0}
        self._pointer_size = pointer_size
        # The width of pointers is that of long.
        self.long = self.integer("long", pointer_size, signed=True)
        self.u8 = self.integer("unsigned char", 1)
        self.u16 = self.integer("unsigned short", 2)
        self.u32 = self.integer("unsigned int", 4)
        self.u64 = self.integer("unsigned long long", 8)
        self.u128 = self.integer("unsigned __int128", 16)
        self.s8 = self.integer("signed char", 1, signed=True)
        self.s16 = self.integer("short", 2, signed=True)
        self.s32 = self.integer("int", 4, signed=True)
        self.s64 = self.integer("long long", 8, signed=True)
        self.bool = self.add(t.Int("_Bool", 1, 8, 0, t.IntEncoding.BOOL), 1)

    def add(self, value: t.Type, size: int = 0) -> int:
        type_id = self.builder.add(value)
        self._sizes[type_id] = size
        return type_id

    def integer(self, name: str, size: int, *, signed: bool = False, offset: int = 0) -> int:
        encoding = t.IntEncoding.SIGNED if signed else t.IntEncoding(0)
        return self.add(t.Int(name, size, size * 8 - offset, offset, encoding), size)

    def floating(self, name: str, size: int) -> int:
        return self.add(t.Float(name, size), size)

    def ptr(self, to: int = 0) -> int:
        return self.add(t.Ptr(to), self._pointer_size)

    def array(self, of: int, count: int) -> int:
        return self.add(t.Array(of, self.u32, count), self._sizes[of] * count)

    def typedef(self, name: str, of: int) -> int:
        return self.add(t.Typedef(name, of), self._sizes[of])

    def const(self, of: int) -> int:
        return self.add(t.Const(of), self._sizes[of])

    def fwd(self, name: str, *, union: bool = False) -> int:
        return self.add(t.Fwd(name, union))

    def func(self, returns: int, *params: int) -> int:
        return self.add(t.FuncProto(returns, tuple(t.Param("", param) for param in params)))

    def enum(self, name: str, *values: tuple[str, int], size: int = 4, signed: bool = False) -> int:
        return self.add(t.Enum(name, size, signed, values), size)

    def enum64(self, name: str, *values: tuple[str, int], signed: bool = False) -> int:
        return self.add(t.Enum64(name, 8, signed, values), 8)

    def struct(self, name: str, *members: tuple[str, int] | tuple[str, int, int]) -> int:
        """Each member is (name, type), or (name, type, bits) for a bitfield."""
        laid_out = []
        at = 0
        for member in members:
            bits = member[2] if len(member) == 3 else 0
            size = self._sizes[member[1]]
            if not bits:
                align = min(size, 8) & -min(size, 8) if size else 1
                at = -(-at // (8 * align)) * 8 * align
            laid_out.append(t.Member(member[0], member[1], at, bits))
            at += bits or size * 8
        size = -(-at // 32) * 4
        return self.add(t.Struct(name, size, tuple(laid_out), kind_flag=True), size)

    def union(self, name: str, *members: tuple[str, int]) -> int:
        size = max(self._sizes[type_id] for _, type_id in members)
        laid_out = tuple(t.Member(member, type_id) for member, type_id in members)
        return self.add(t.Union(name, size, laid_out, kind_flag=True), size)


def instruction(opcode: int, offset: int = 0, imm: int = 0, registers: int = 0x21) -> bytes:
    return struct.pack("<BBhi", opcode, registers, offset, imm)


def mov(imm: int) -> bytes:
    return instruction(0xB7, imm=imm, registers=0x01)


def add(imm: int) -> bytes:
    return instruction(0x07, imm=imm, registers=0x01)


def wide(imm: int) -> bytes:
    low, high = struct.unpack("<ii", struct.pack("<Q", imm & (1 << 64) - 1))
    first = instruction(0x18, imm=low, registers=0x01)
    return first + instruction(0, imm=high, registers=0)


_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}


def load(size: int, offset: int) -> bytes:
    return instruction(0x61 | _SIZES[size], offset)


def load_signed(size: int, offset: int) -> bytes:
    return instruction(0x81 | _SIZES[size], offset)


def store(size: int, offset: int) -> bytes:
    return instruction(0x63 | _SIZES[size], offset)


def store_constant(size: int, offset: int, imm: int = 77) -> bytes:
    return instruction(0x62 | _SIZES[size], offset, imm, registers=0x01)


POISONED = instruction(0x85, imm=195896080, registers=0)

Build = Callable[[Types], int]
Question = tuple[Kind, str]


@dataclass(frozen=True)
class Case:
    """One or more relocations of instructions that follow each other.

    Attributes:
        name: what the case shows.
        questions: kind and access string, one for each instruction of ``before``.
        local, target: compose the types; of ``local``, the result is the relocations' root.
        before, after: the instructions; ``after`` may be the error that is raised instead.
        pointer_size: the target's.
        since: the libbpf that first behaved so.
    """

    name: str
    questions: tuple[Question, ...]
    local: Build
    target: Build
    before: tuple[bytes, ...]
    after: tuple[bytes, ...] | type[XdpkitError]
    pointer_size: int = 8
    since: tuple[int, int] = (1, 0)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def compose(self) -> tuple[Types, Types, tuple[CoreRelocation, ...]]:
        """Return the object's types, the target's, and the relocations."""
        local, target = Types(), Types(pointer_size=self.pointer_size)
        root = self.local(local)
        self.target(target)
        return local, target, self.relocations(root)

    def relocations(self, root: int) -> tuple[CoreRelocation, ...]:
        slots = [0]
        for code in self.before:
            slots.append(slots[-1] + len(code) // 8)
        return tuple(
            CoreRelocation(slot, root, access, kind)
            for slot, (kind, access) in zip(slots, self.questions, strict=False)
        )


def case(
    name: str,
    kind: Kind,
    access: str,
    local: Build,
    target: Build,
    before: bytes,
    after: bytes | type[XdpkitError],
    *,
    pointer_size: int = 8,
    since: tuple[int, int] = (1, 0),
) -> Case:
    """Return a case of a single instruction."""
    outcome = (after,) if isinstance(after, bytes) else after
    questions = ((kind, access),)
    return Case(name, questions, local, target, (before,), outcome, pointer_size, since)


def both(*builds: Build) -> Build:
    """Compose several types; the last one is the root."""

    def build(types: Types) -> int:
        return [make(types) for make in builds][-1]

    return build


def _local(types: Types) -> int:
    return types.struct("s", ("a", types.u32), ("b", types.u32))


def _swapped(types: Types) -> int:
    return types.struct("s", ("pad", types.u64), ("b", types.u32), ("a", types.u32))


def _unrelated(types: Types) -> int:
    return types.struct("other", ("a", types.u32))


def _sized(name: str, *, after: int = 0) -> Build:
    """Return a struct whose only field is of the type with that name, ``after`` bytes in."""

    def build(types: Types) -> int:
        pad = types.array(types.u8, after)
        return types.struct("s", ("pad", pad), ("a", getattr(types, name)))

    return build


def _fields() -> Iterable[Case]:
    offset, size, exists = Kind.FIELD_BYTE_OFFSET, Kind.FIELD_BYTE_SIZE, Kind.FIELD_EXISTS
    yield case("a field moves", offset, "0:1", _local, _swapped, mov(4), mov(8))
    yield case("a load follows it", offset, "0:0", _local, _swapped, load(4, 0), load(4, 12))
    yield case("a store follows it", offset, "0:0", _local, _swapped, store(4, 0), store(4, 12))
    yield case(
        "a store of a constant follows it",
        offset,
        "0:0",
        _local,
        _swapped,
        store_constant(4, 0),
        store_constant(4, 12),
    )
    yield case("an addition follows it", offset, "0:1", _local, _swapped, add(4), add(8))
    yield case("a 64-bit load follows it", offset, "0:1", _local, _swapped, wide(4), wide(8))
    yield case("an element of the pointer", offset, "2:1", _local, _swapped, mov(20), mov(40))
    yield case("the whole struct", size, "0", _local, _swapped, mov(8), mov(16))
    yield case("a field exists", exists, "0:0", _local, _swapped, mov(1), mov(1))
    yield case("a struct is absent", exists, "0:0", _local, _unrelated, mov(1), mov(0))
    yield case("an absent offset", offset, "0:1", _local, _unrelated, mov(4), POISONED)
    yield case("an absent size", size, "0:1", _local, _unrelated, mov(4), POISONED)
    yield case("an absent load", offset, "0:1", _local, _unrelated, load(4, 4), POISONED)
    yield case("an absent 64-bit load", offset, "0:1", _local, _unrelated, wide(4), POISONED * 2)
    yield case(
        "a field that the struct lacks",
        exists,
        "0:1",
        _local,
        lambda types: types.struct("s", ("a", types.u32)),
        mov(1),
        mov(0),
    )
    yield case(
        "a struct may become a union",
        offset,
        "0:1:1",
        lambda types: types.struct("s", ("pad", types.u32), ("in", _local(types))),
        lambda types: types.struct(
            "s", ("in", types.union("u", ("x", types.u8), ("b", types.u16)))
        ),
        mov(12),
        mov(0),
    )

    def embedded(types: Types) -> int:
        inner = types.struct("", ("x", types.u16), ("b", types.u32))
        middle = types.union("", ("y", types.u64), ("", inner))
        return types.struct("s", ("pad", types.u64), ("", middle), ("a", types.u32))

    yield case("into an anonymous struct", offset, "0:1", _local, embedded, mov(4), mov(12))
    yield case("out of an anonymous struct", offset, "0:1:1:1", embedded, _local, mov(12), mov(4))
    # It has no name to look for: what remains of the path is the whole struct.
    yield case("an anonymous struct itself", offset, "0:1:1", embedded, _local, mov(8), mov(0))
    yield case(
        "a field of an incompatible type",
        exists,
        "0:0",
        _local,
        lambda types: types.struct("s", ("a", types.ptr())),
        mov(1),
        mov(0),
    )
    yield case(
        "a pointer to something else",
        exists,
        "0:0",
        lambda types: types.struct("s", ("a", types.ptr(types.u8))),
        lambda types: types.struct("s", ("a", types.ptr(_local(types)))),
        mov(1),
        mov(1),
    )
    yield case(
        "an enum of another name",
        exists,
        "0:0",
        lambda types: types.struct("s", ("a", types.enum("e", ("V", 1)))),
        lambda types: types.struct("s", ("a", types.enum("f", ("V", 1)))),
        mov(1),
        mov(0),
    )
    yield case(
        "an enum of another flavour and width",
        size,
        "0:0",
        lambda types: types.struct("s", ("a", types.enum("e___mine", ("V", 1)))),
        lambda types: types.struct("s", ("a", types.enum64("e", ("V", 1)))),
        mov(4),
        mov(8),
    )
    yield case(
        "an anonymous enum",
        exists,
        "0:0",
        lambda types: types.struct("s", ("a", types.enum("e", ("V", 1)))),
        lambda types: types.struct("s", ("a", types.enum("", ("W", 1)))),
        mov(1),
        mov(1),
    )
    yield case(
        "an integer with a gap before it",
        exists,
        "0:0",
        _local,
        lambda types: types.struct("s", ("a", types.integer("old", 4, offset=3))),
        mov(1),
        mov(0),
    )
    yield case(
        "floats of any size",
        size,
        "0:0",
        lambda types: types.struct("s", ("a", types.floating("float", 4))),
        lambda types: types.struct("s", ("a", types.floating("double", 8))),
        mov(4),
        mov(8),
    )
    yield case(
        "typedefs and qualifiers do not count",
        offset,
        "0:1",
        lambda types: types.typedef("s_t", _local(types)),
        lambda types: types.typedef("s_t", types.const(_swapped(types))),
        mov(4),
        mov(8),
    )
    yield case(
        "a typedef is not a struct",
        exists,
        "0:1",
        lambda types: types.typedef("s", _local(types)),
        _swapped,
        mov(1),
        mov(0),
    )
    yield case(
        "a struct is not a union",
        exists,
        "0:0",
        _local,
        lambda types: types.union("s", ("a", types.u32)),
        mov(1),
        mov(0),
    )
    for field, bits in (("s32", 32), ("u32", 32), ("u8", 8), ("bool", 8)):
        number = int(field.startswith("s"))
        yield case(
            f"the sign of {field}",
            Kind.FIELD_SIGNED,
            "0:1",
            _sized("u32"),
            _sized(field),
            mov(0),
            mov(number),
        )
        yield case(
            f"the shifts of {field}",
            Kind.FIELD_LSHIFT_U64,
            "0:1",
            _sized("u16"),
            _sized(field),
            mov(48),
            mov(64 - bits),
        )
    yield case(
        "the sign of an enum",
        Kind.FIELD_SIGNED,
        "0:0",
        lambda types: types.struct("s", ("a", types.enum("e", ("V", 1)))),
        lambda types: types.struct("s", ("a", types.enum("e", ("V", -1), signed=True))),
        mov(0),
        mov(1),
    )
    yield case(
        "the sign of a pointer",
        Kind.FIELD_SIGNED,
        "0:0",
        lambda types: types.struct("s", ("a", types.ptr(types.s32))),
        lambda types: types.struct("s", ("a", types.ptr(types.s32))),
        mov(0),
        mov(0),
        since=(1, 3),
    )


def _resized() -> Iterable[Case]:
    offset = Kind.FIELD_BYTE_OFFSET
    for one, other in (("u32", "u64"), ("u64", "u16"), ("u8", "u32"), ("u16", "bool")):
        before, after = (int(name.strip("u").replace("bool", "8")) // 8 for name in (one, other))
        for make in (load, store, store_constant, load_signed):
            if make is load_signed and 8 in (before, after):
                continue
            yield case(
                f"{make.__name__} of {one} becomes {other}",
                offset,
                "0:1",
                _sized(one),
                _sized(other, after=16),
                make(before, 0),
                make(after, 16),
            )
    for one, other in (("s32", "s64"), ("u32", "s64"), ("s32", "u16")):
        yield case(
            f"a load of {one} cannot become {other}",
            offset,
            "0:1",
            _sized(one),
            _sized(other),
            load(4, 0),
            POISONED,
        )
        yield case(
            f"the offset of {one} may become that of {other}",
            offset,
            "0:1",
            _sized(one),
            _sized(other, after=8),
            mov(0),
            mov(8),
        )
    yield case(
        "a load of the same size may change its sign",
        offset,
        "0:1",
        _sized("s32"),
        _sized("u32", after=4),
        load(4, 0),
        load(4, 4),
    )
    yield case(
        "a pointer shrinks",
        offset,
        "0:1",
        lambda types: types.struct("s", ("pad", types.u64), ("a", types.ptr())),
        lambda types: types.struct("s", ("pad", types.u64), ("a", types.ptr())),
        load(8, 8),
        load(4, 8),
        pointer_size=4,
    )
    yield case(
        "an array may have another length",
        offset,
        "0:1",
        lambda types: types.struct("s", ("pad", types.u64), ("a", types.array(types.u32, 4))),
        lambda types: types.struct("s", ("a", types.array(types.u32, 9))),
        load(4, 8),
        load(4, 0),
        since=(1, 6),
    )
    yield case(
        "an array may not have another element",
        offset,
        "0:0",
        lambda types: types.struct("s", ("a", types.array(types.u32, 4))),
        lambda types: types.struct("s", ("a", types.array(types.u16, 4))),
        load(4, 0),
        POISONED,
    )
    yield case(
        "an element of an array is resized",
        offset,
        "0:0:1",
        lambda types: types.struct("s", ("a", types.array(types.u32, 4))),
        lambda types: types.struct("s", ("a", types.array(types.u16, 4))),
        load(4, 4),
        load(2, 2),
    )
    yield case(
        "no load is as wide as the field",
        offset,
        "0:1",
        _sized("u64"),
        _sized("u128"),
        load(8, 0),
        RequirementUnmet,
    )
    yield case(
        "the load is not as wide as the object's own field",
        offset,
        "0:1",
        _sized("u64"),
        _sized("u32"),
        load(2, 0),
        ObjectFormatError,
    )
    yield case(
        "an offset beyond the reach of a load",
        offset,
        "0:1",
        _sized("u64"),
        _sized("u64", after=32768),
        load(8, 0),
        RequirementUnmet,
    )
    yield case(
        "the last offset within the reach of a load",
        offset,
        "0:1",
        _sized("u64"),
        _sized("u64", after=32760),
        load(8, 0),
        load(8, 32760),
    )


def _arrays() -> Iterable[Case]:
    offset, size, exists = Kind.FIELD_BYTE_OFFSET, Kind.FIELD_BYTE_SIZE, Kind.FIELD_EXISTS

    def array(count: int, *, last: bool = True) -> Build:
        def build(types: Types) -> int:
            element = types.struct("e", ("x", types.u32), ("y", types.u32))
            members = [("pad", types.u32), ("a", types.array(element, count))]
            return types.struct("s", *members, *([] if last else [("end", types.u32)]))

        return build

    yield case("an element", offset, "0:1:2:1", array(4), array(9), mov(28), mov(28))
    yield case("an element out of bounds", exists, "0:1:2:1", array(4), array(2), mov(1), mov(0))
    yield case("a flexible array", offset, "0:1:2:1", array(4), array(0), mov(28), mov(24))
    yield case(
        "a flexible array of the object's", offset, "0:1:7:1", array(0), array(8), mov(64), mov(68)
    )
    yield case(
        "an empty array that is not the last member",
        exists,
        "0:1:2:1",
        array(4),
        array(0, last=False),
        mov(1),
        mov(0),
    )
    yield case("the size of an array", size, "0:1", array(4), array(9), mov(32), mov(72))
    yield case("the size of an element", size, "0:1:3", array(4), array(9), mov(8), mov(8))
    yield case(
        "the sign of an element",
        Kind.FIELD_SIGNED,
        "0:1:3",
        array(4),
        array(9),
        mov(0),
        ObjectFormatError,
    )
    yield case(
        "an array that became a struct",
        exists,
        "0:0:1",
        lambda types: types.struct("s", ("a", types.array(types.u32, 4))),
        lambda types: types.struct("s", ("a", _local(types))),
        mov(1),
        mov(0),
    )
    yield case(
        "two dimensions",
        offset,
        "0:0:1:2",
        lambda types: types.struct("s", ("a", types.array(types.array(types.u32, 3), 2))),
        lambda types: types.struct("s", ("a", types.array(types.array(types.u16, 5), 4))),
        mov(20),
        mov(14),
    )
    yield case(
        "two dimensions became one",
        exists,
        "0:0:1:2",
        lambda types: types.struct("s", ("a", types.array(types.array(types.u32, 3), 2))),
        lambda types: types.struct("s", ("a", types.array(types.u32, 6))),
        mov(1),
        mov(0),
    )


def _bitfields() -> Iterable[Case]:
    def bitfield(name: str, before: int, bits: int) -> Build:
        def build(types: Types) -> int:
            of = getattr(types, name)
            return types.struct("s", ("pad", types.u64, before), ("a", of, bits))

        return build

    answers = (
        # The target's type, bits before it, its bits: offset, size, left and right shift, sign.
        ("u32", 3, 5, (0, 4, 56, 59, 0)),
        ("u32", 30, 4, (0, 8, 30, 60, 0)),
        ("u8", 17, 2, (2, 1, 61, 62, 0)),
        ("u8", 6, 4, (0, 2, 54, 60, 0)),
        ("s16", 20, 9, (2, 2, 51, 55, 1)),
        ("u64", 40, 20, (0, 8, 4, 44, 0)),
        ("bool", 8, 1, (1, 1, 63, 63, 0)),
    )
    kinds = (
        (Kind.FIELD_BYTE_OFFSET, mov(0)),
        (Kind.FIELD_BYTE_SIZE, mov(4)),
        # What the object's own types say of offset, size and left shift may be another compiler's
        # choice: any constant is accepted.
        (Kind.FIELD_LSHIFT_U64, mov(12)),
        (Kind.FIELD_RSHIFT_U64, mov(57)),
        (Kind.FIELD_SIGNED, mov(0)),
    )
    for name, before, bits, numbers in answers:
        for (kind, code), number in zip(kinds, numbers, strict=True):
            yield case(
                f"{kind.name} of {bits} bits of {name} after {before}",
                kind,
                "0:1",
                bitfield("u32", 1, 7),
                bitfield(name, before, bits),
                code,
                mov(number),
            )
    yield case(
        "a bitfield became a field",
        Kind.FIELD_BYTE_SIZE,
        "0:1",
        bitfield("u32", 1, 7),
        _sized("u8", after=4),
        mov(4),
        mov(1),
    )
    yield case(
        "a field became a bitfield and is loaded",
        Kind.FIELD_BYTE_OFFSET,
        "0:1",
        _sized("u32"),
        bitfield("u32", 1, 7),
        load(4, 0),
        POISONED,
    )
    yield case(
        "a bitfield across nine bytes",
        Kind.FIELD_BYTE_SIZE,
        "0:1",
        bitfield("u32", 1, 7),
        bitfield("u64", 60, 10),
        mov(4),
        RequirementUnmet,
    )
    yield case(
        "the right shift of the object's own bitfield is certain",
        Kind.FIELD_RSHIFT_U64,
        "0:1",
        bitfield("u32", 1, 7),
        bitfield("u32", 1, 7),
        mov(56),
        ObjectFormatError,
    )


def _types() -> Iterable[Case]:
    exists, matches = Kind.TYPE_EXISTS, Kind.TYPE_MATCHES
    yield case("a type's size", Kind.TYPE_SIZE, "0", _local, _swapped, mov(8), mov(16))
    yield case("an absent type's size", Kind.TYPE_SIZE, "0", _local, _unrelated, mov(8), mov(0))
    yield case("a type exists", exists, "0", _local, _swapped, mov(1), mov(1))
    yield case("a type is absent", exists, "0", _local, _unrelated, mov(1), mov(0))
    yield case("an absent type's id", Kind.TYPE_ID_TARGET, "0", _local, _unrelated, mov(9), mov(0))
    # Eleven types come before it.
    yield case("the object's own id", Kind.TYPE_ID_LOCAL, "0", _local, _swapped, wide(9), wide(12))
    yield case("the target's id", Kind.TYPE_ID_TARGET, "0", _local, _swapped, wide(9), wide(12))

    def function(*params: str, returns: str = "u32", name: str = "f") -> Build:
        def build(types: Types) -> int:
            proto = types.func(getattr(types, returns), *(getattr(types, p) for p in params))
            return types.typedef(name, types.ptr(proto))

        return build

    def pointer(build: Build) -> Build:
        return lambda types: types.typedef("p", types.ptr(build(types)))

    def named(name: str) -> Build:
        return lambda types: types.typedef("n", getattr(types, name))

    def fwd(*, union: bool = False) -> Build:
        return lambda types: types.fwd("s", union=union)

    def union(types: Types) -> int:
        return types.union("s", ("a", types.u32))

    def holding(build: Build) -> Build:
        return lambda types: types.struct("h", ("one", types.u8), ("in", build(types)))

    def enum(*names: str, wide: bool = False) -> Build:
        values = tuple((name, number) for number, name in enumerate(names))
        return lambda types: (types.enum64 if wide else types.enum)("e", *values)

    def array(count: int) -> Build:
        return lambda types: types.typedef("t", types.array(types.u32, count))

    def alias(types: Types) -> int:
        return types.typedef("n", _local(types))

    smaller: Build = lambda types: types.struct("s", ("a", types.u32))  # noqa: E731
    wider: Build = lambda types: types.struct("s", ("a", types.u64), ("b", types.u32))  # noqa: E731
    flavoured: Build = lambda types: types.struct(  # noqa: E731
        "s___f", ("a___g", types.u32), ("b", types.u32)
    )

    # The object's type, the target's: is it there, does it match?
    pairs: tuple[tuple[str, Build, Build, int, int], ...] = (
        ("the same struct", _local, _local, 1, 1),
        ("a struct with more members", smaller, _swapped, 1, 1),
        ("a struct with fewer members", _local, smaller, 1, 0),
        ("a struct with a wider member", _local, wider, 1, 0),
        ("flavours of struct and member", flavoured, _local, 1, 1),
        ("a struct that is only declared", _local, fwd(), 0, 0),
        ("a declaration of a struct", fwd(), fwd(), 1, 1),
        ("a declaration of a union", fwd(), fwd(union=True), 1, 0),
        ("a pointer to a declared struct", pointer(_local), pointer(fwd()), 0, 1),
        ("a pointer to a struct declared here", pointer(fwd()), pointer(_local), 0, 1),
        ("a pointer to a declared union", pointer(_local), pointer(fwd(union=True)), 0, 0),
        ("a pointer to another struct", pointer(_local), pointer(wider), 1, 1),
        ("a pointer to a struct of another name", pointer(_local), pointer(_unrelated), 1, 0),
        ("a pointer to a union", pointer(_local), pointer(union), 0, 0),
        ("a struct within", holding(_local), holding(_swapped), 1, 1),
        ("another struct within", holding(_local), holding(smaller), 1, 0),
        ("the same function", function("u32"), function("u32"), 1, 1),
        ("a function with a wider parameter", function("u32"), function("u64"), 1, 0),
        ("a function with more parameters", function("u32"), function("u32", "u32"), 0, 0),
        ("a function with a wider result", function(), function(returns="s64"), 1, 0),
        ("the same integer", named("u32"), named("u32"), 1, 1),
        ("an integer of another sign", named("u32"), named("s32"), 1, 0),
        ("an integer of another name", named("u64"), named("s64"), 1, 0),
        ("an integer that became a struct", named("u32"), alias, 0, 0),
        ("the same enum", enum("A", "B"), enum("B", "A"), 1, 1),
        ("an enum with more values", enum("A"), enum("B", "A"), 1, 1),
        ("an enum with fewer values", enum("A", "B"), enum("A"), 1, 0),
        ("an enum with other values", enum("A"), enum("B", "C"), 1, 0),
        ("an enum with flavoured values", enum("A___x"), enum("A"), 1, 1),
        ("an enum of 64 bits", enum("A"), enum("A", wide=True), 1, 0),
        ("the same array", array(4), array(4), 1, 1),
        ("an array of another length", array(4), array(5), 1, 0),
        ("a typedef of a float", lambda t: t.typedef("d", t.floating("double", 8)),
         lambda t: t.typedef("d", t.floating("double", 8)), 0, 0),
        ("a typedef of a void pointer", pointer(lambda _: 0), pointer(lambda _: 0), 1, 1),
        ("a typedef of void", lambda t: t.typedef("v", 0), lambda t: t.typedef("v", 0), 1, 1),
    )  # fmt: skip
    for name, local, target, found, matching in pairs:
        yield case(f"{name} exists", exists, "0", local, target, mov(1), mov(found))
        yield case(f"{name} matches", matches, "0", local, target, mov(1), mov(matching))


def _enumerators() -> Iterable[Case]:
    exists, value = Kind.ENUMVAL_EXISTS, Kind.ENUMVAL_VALUE

    def enum(*values: tuple[str, int], name: str = "e", signed: bool = False) -> Build:
        return lambda types: types.enum(name, *values, signed=signed)

    def enum64(*values: tuple[str, int], signed: bool = False) -> Build:
        return lambda types: types.enum64("e", *values, signed=signed)

    local = enum(("A", 1), ("B", 2))
    renumbered = enum(("X", 1), ("B", 7), ("A", 8))
    yield case("an enumerator", value, "1", local, renumbered, mov(2), mov(7))
    yield case("a 64-bit load of it", value, "1", local, renumbered, wide(2), wide(7))
    yield case("an enumerator exists", exists, "0", local, renumbered, mov(1), mov(1))
    yield case("an enumerator is absent", exists, "0", local, enum(("X", 1)), mov(1), mov(0))
    yield case("an absent enumerator", value, "1", local, enum(("X", 1)), wide(2), POISONED * 2)
    yield case("an absent enum", value, "1", local, enum(("B", 1), name="f"), mov(2), POISONED)
    yield case("an absent enum's value", exists, "1", local, _local, mov(1), mov(0))
    big, small = 0x123456789ABCDEF0, -5
    yield case("a wide value", value, "1", local, enum64(("B", big)), wide(2), wide(big))
    yield case(
        "a wide value in 32 bits", value, "1", local, enum64(("B", big)), mov(2), mov(-0x65432110)
    )
    yield case(
        "a negative value", value, "1", local, enum(("B", small), signed=True), wide(2), wide(small)
    )
    yield case(
        "a negative wide value",
        value,
        "1",
        local,
        enum64(("B", small), signed=True),
        wide(2),
        wide(small),
    )
    # Of an unsigned 32-bit enumerator, the sign is extended all the same.
    yield case("a large value", value, "1", local, enum(("B", 0xFFFFFFFF)), wide(2), wide(-1))
    yield case("narrower again", value, "0", enum64(("A", big)), enum(("A", 3)), wide(big), wide(3))
    flavoured = enum(("A___x", 1), name="e___y")
    yield case("a flavoured enumerator", value, "0", flavoured, renumbered, mov(1), mov(8))
    typedef: Build = lambda types: types.typedef("e_t", local(types))  # noqa: E731
    other: Build = lambda types: types.typedef("e_t", renumbered(types))  # noqa: E731
    yield case("an enum behind a typedef", value, "1", typedef, other, mov(2), mov(7))
    yield case("a struct has no enumerators", value, "0", _local, _local, mov(2), ObjectFormatError)


def _candidates() -> Iterable[Case]:
    offset, exists = Kind.FIELD_BYTE_OFFSET, Kind.FIELD_EXISTS

    def flavour(name: str, pad: int, *fields: str) -> Build:
        def build(types: Types) -> int:
            members = [(field, types.u32) for field in fields]
            return types.struct(name, ("pad", types.array(types.u32, pad)), *members)

        return build

    local = flavour("s", 0, "a", "b")
    questions = "0:1", local
    yield case(
        "one's own flavour", offset, "0:1", flavour("s___x", 0, "a"), _swapped, mov(0), mov(12)
    )
    yield case(
        "flavours of the target", offset, *questions, flavour("s___y", 3, "a"), mov(0), mov(12)
    )
    yield case(
        "four underscores are no flavour",
        exists,
        *questions,
        flavour("s____y", 3, "a"),
        mov(1),
        mov(0),
    )
    yield case(
        "only the last flavour counts",
        exists,
        *questions,
        flavour("s___x___y", 3, "a"),
        mov(1),
        mov(0),
    )
    yield case(
        "candidates that agree",
        offset,
        *questions,
        both(flavour("s", 3, "a", "b"), flavour("s", 3, "a")),
        mov(0),
        mov(12),
    )
    yield case(
        "candidates that contradict each other",
        offset,
        *questions,
        both(flavour("s", 3, "a"), flavour("s", 4, "a")),
        mov(0),
        RequirementUnmet,
    )
    yield case(
        "a field that exists at two offsets",
        exists,
        *questions,
        both(flavour("s", 3, "a"), flavour("s", 4, "a")),
        mov(1),
        RequirementUnmet,
    )
    yield case(
        "two sizes",
        Kind.TYPE_SIZE,
        "0",
        local,
        both(flavour("s", 3, "a"), flavour("s", 4, "a")),
        mov(8),
        RequirementUnmet,
    )
    yield case(
        "two ids",
        Kind.TYPE_ID_TARGET,
        "0",
        local,
        both(flavour("s", 3, "a"), flavour("s", 3, "a")),
        mov(8),
        RequirementUnmet,
    )
    split = both(flavour("s", 3, "a", "b"), flavour("s", 9, "b"))
    yield Case(
        "a candidate that lacks one field is not asked for another",
        ((offset, "0:1"), (offset, "0:2")),
        local,
        split,
        (mov(0), mov(4)),
        (mov(12), mov(16)),
    )
    yield Case(
        "but it is, if it is asked for that one first",
        ((offset, "0:2"), (offset, "0:1")),
        local,
        split,
        (mov(4), mov(0)),
        RequirementUnmet,
    )
    yield Case(
        "a field that nobody has rules out nobody",
        ((exists, "0:3"), (offset, "0:1")),
        flavour("s", 0, "a", "b", "c"),
        both(flavour("s", 3, "a", "b"), flavour("s", 3, "a", "b")),
        (mov(1), mov(0)),
        (mov(0), mov(12)),
    )


def _malformed() -> Iterable[Case]:
    offset, wrong = Kind.FIELD_BYTE_OFFSET, ObjectFormatError

    def broken(name: str, access: str, code: bytes, kind: Kind = offset) -> Case:
        return case(name, kind, access, _local, _swapped, code, wrong)

    yield broken("another constant", "0:1", mov(5))
    yield broken("another 64-bit constant", "0:1", wide(5))
    yield broken("another offset", "0:1", load(4, 5))
    yield broken("existence is not 0", "0:1", mov(0), Kind.FIELD_EXISTS)
    yield broken("an operand in a register", "0:1", instruction(0xBF))
    yield broken("a jump", "0:1", instruction(0x55, imm=4))
    yield broken("a call", "0:1", instruction(0x85, imm=4, registers=0))
    yield broken("a packet load", "0:1", instruction(0x20, imm=4, registers=0))
    yield broken("a map's address", "0:1", instruction(0x18, imm=4, registers=0x11) + bytes(8))
    yield broken("a member out of range", "0:2", mov(4))
    yield broken("into an integer", "0:1:0", mov(4))
    yield broken("no number", "0:x", mov(4))
    yield broken("nothing", "", mov(4))
    yield broken("a colon first", ":0", mov(4))
    yield broken("a colon last", "0:", mov(4))
    yield broken("too many steps", ":".join("0" * 65), mov(4))
    yield broken("a path into a whole type", "0:1", mov(8), Kind.TYPE_SIZE)
    yield case(
        "an anonymous type",
        offset,
        "0:0",
        lambda types: types.struct("", ("a", types.u32)),
        _local,
        mov(0),
        wrong,
    )
    yield case(
        "a declared struct has no members",
        offset,
        "0:0",
        lambda types: types.fwd("s"),
        _local,
        mov(0),
        wrong,
    )
    yield case(
        "an enumerator out of range",
        Kind.ENUMVAL_VALUE,
        "1",
        lambda types: types.enum("e", ("A", 1)),
        lambda types: types.enum("e", ("A", 1)),
        mov(1),
        wrong,
    )


CASES = [
    *_fields(),
    *_resized(),
    *_arrays(),
    *_bitfields(),
    *_types(),
    *_enumerators(),
    *_candidates(),
    *_malformed(),
]
