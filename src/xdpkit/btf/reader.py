# SPDX-License-Identifier: Apache-2.0
"""Reading BTF lazily: parsing looks at the header only, a type is decoded when it is asked for.

The kernel's BTF has some 150,000 types. Access by id needs one scan that notes where each record
begins; access by name needs an index of name *offsets*, so that no string is ever decoded for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit.btf import wire
from xdpkit.btf.decode import decode
from xdpkit.btf.types import Kind, Struct, Type, Union, Void
from xdpkit.errors import ObjectFormatError

if TYPE_CHECKING:
    from xdpkit.btf.editor import BtfEditor

_FLAVOUR = re.compile(r"(.*[^_])___[^_]", re.DOTALL)
_MODIFIERS = frozenset(
    (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG),
)
_MAX_SIZE = 0xFFFFFFFF
_LONG = ("long", "long int", "unsigned long", "long unsigned int")
_VOID = memoryview(bytes(12)).cast("I")


def essential_name(name: str) -> str:
    """Return a CO-RE type's name without its flavour: ``sk_buff___v2`` is ``sk_buff``."""
    match = _FLAVOUR.match(name)
    return match[1] if match else name


class Btf:
    """The types of an object file, of the kernel or of a module.

    Ids run from 0 (``void``) to ``len(btf) - 1``. With a base (split BTF), the base's ids come
    first and its types and strings are seen as if they were part of this one.

    Every access raises :class:`~xdpkit.errors.ObjectFormatError` where the bytes are malformed, and
    for an id that does not exist. Each type is checked when it is decoded; what depends on other
    types is checked by :meth:`validate`.
    """

    def __init__(self, raw: bytes, header: wire.Header, base: Btf | None, file: str | None) -> None:
        """Use :meth:`parse`."""
        self._raw = raw
        self._header = header
        self._base = base
        self._file = file
        types = memoryview(raw)[header.types_start : header.types_end]
        self._words = wire.words_view(types, header.byteorder)
        self._first_id = len(base) if base else 1
        self._first_string: int = base.end_of_strings if base else 0
        self._strings_start = header.strings_start
        self._strings_end = header.strings_end
        self._starts: list[int] | None = None
        self._cache: dict[int, Type] = {}
        self._names: dict[int, str] = {}
        self._latest_by_name: dict[int, int] | None = None
        self._earlier: list[int] = []
        self._pointer_size: int | None = None
        self._alignments: dict[int, int] = {}

    @classmethod
    def parse(cls, data: bytes, *, base: Btf | None = None, file: str | None = None) -> Btf:
        """Check the header and return the types, decoding none.

        Args:
            data: the contents of a ``.BTF`` section or of a file in /sys/kernel/btf.
            base: what split BTF (a kernel module's) continues.
            file: the file's name, for errors.

        Raises:
            ObjectFormatError: the header is malformed, or the byte order is not the base's.
        """
        raw = bytes(data)
        try:
            header = wire.parse_header(raw, is_split=base is not None)
        except ObjectFormatError as error:
            raise error.located(file=file) from None
        if base is not None and base.byteorder != header.byteorder:
            raise ObjectFormatError(
                f"byte order is {header.byteorder}, that of the base is {base.byteorder}",
                file=file,
                section=".BTF",
                offset=0,
            )
        return cls(raw, header, base, file)

    @property
    def raw(self) -> bytes:
        """The bytes that were parsed."""
        return self._raw

    @property
    def header(self) -> wire.Header:
        """Byte order, and where the types and strings are in :attr:`raw`."""
        return self._header

    @property
    def byteorder(self) -> wire.ByteOrder:
        """The byte order, "little" or "big"."""
        return self._header.byteorder

    @property
    def base(self) -> Btf | None:
        """What this continues, None if it stands alone."""
        return self._base

    @property
    def file(self) -> str | None:
        """The file's name."""
        return self._file

    @property
    def first_id(self) -> int:
        """The first id that is not the base's: 1 without a base."""
        return self._first_id

    @property
    def first_string(self) -> int:
        """The first string offset that is not the base's: 0 without a base."""
        return self._first_string

    @property
    def end_of_strings(self) -> int:
        """The string offset at which split BTF on top of this one goes on."""
        return self._first_string + self._strings_end - self._strings_start

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer: the size of ``long`` where the types have one, else 8."""
        if self._pointer_size is None:
            longs = (i for name in _LONG for i in self.find(name, Kind.INT))
            self._pointer_size = 4 if any(self.sizeof(i) == 4 for i in longs) else 8
        return self._pointer_size

    def __len__(self) -> int:
        return self._first_id + len(self._scan())

    def __repr__(self) -> str:
        return f"<Btf {self._file or 'bytes'}, {len(self._raw)} bytes>"

    def __iter__(self) -> Iterator[Type]:
        """Yield every type, ``void`` first, those of the base included."""
        return (self[type_id] for type_id in range(len(self)))

    def __getitem__(self, type_id: int) -> Type:
        found = self._cache.get(type_id)
        if found is None:
            if not type_id:
                found = Void()
            elif self._base is not None and 0 < type_id < self._first_id:
                return self._base[type_id]
            else:
                words, at = self.locate(type_id)
                found = decode(self, words, at)
            self._cache[type_id] = found
        return found

    def locate(self, type_id: int) -> tuple[memoryview, int]:
        """Return the words that hold a type's record, and the index of its first.

        For readers in a hurry: ``struct btf_type`` is three words (name, info, size or type), and
        what the kind adds follows. The record's end is checked, its contents are not.

        Raises:
            ObjectFormatError: there is no such type.
        """
        index = type_id - self._first_id
        if index >= 0:
            starts = self._scan()
            if index < len(starts):
                return self._words, starts[index]
        elif not type_id:
            return _VOID, 0
        elif self._base is not None and type_id > 0:
            return self._base.locate(type_id)
        raise self.error(f"there is no type {type_id}")

    def kind(self, type_id: int) -> Kind:
        """Return a type's kind without decoding the type."""
        words, at = self.locate(type_id)
        return Kind(wire.kind_of(words[at + 1]))

    def name(self, type_id: int) -> str:
        """Return a type's name, "" if it has none, without decoding the type."""
        words, at = self.locate(type_id)
        return self.name_at(words[at])

    def string(self, offset: int) -> str:
        """Return the string at ``offset``; bytes that are not UTF-8 appear as ``\\xNN``.

        Raises:
            ObjectFormatError: the offset is outside of the strings.
        """
        return self._string(offset, len(self._raw))

    def name_at(self, offset: int) -> str:
        """Return the string at ``offset``, which must be no longer than a name may be.

        Raises:
            ObjectFormatError: the offset is outside, or the name longer than 4095 bytes.
        """
        name = self._names.get(offset)
        if name is None:
            name = self._names[offset] = self._string(offset, wire.MAX_NAME) if offset else ""
        return name

    def ids(self, *kinds: Kind) -> Iterator[int]:
        """Yield the ids of the types of these kinds (of all), the base's first, without void."""
        if self._base is not None:
            yield from self._base.ids(*kinds)
        words = self._words
        wanted = frozenset(kinds or Kind)
        for type_id, at in enumerate(self._scan(), self._first_id):
            if wire.kind_of(words[at + 1]) in wanted:
                yield type_id

    def find(self, name: str, *kinds: Kind) -> list[int]:
        """Return the ids of the types with this name (and one of these kinds), ascending."""
        return self._select(self._offsets_of(name), kinds)

    def find_flavours(self, name: str, *kinds: Kind) -> list[int]:
        """Return the ids of the types called ``name`` or ``name___anything``, ascending.

        These are CO-RE's candidates; see :func:`essential_name`.
        """
        flavours = (
            offset
            for offset in self._search(name, "___")
            if self._has_type_named_at(offset) and essential_name(self.name_at(offset)) == name
        )
        return self._select((*self._offsets_of(name), *flavours), kinds)

    def strip(self, type_id: int) -> int:
        """Return the id behind typedefs, ``const``, ``volatile``, ``restrict`` and type tags.

        Raises:
            ObjectFormatError: more than 64 levels, or a cycle.
        """
        at_first = type_id
        for _ in range(wire.MAX_DEPTH):
            words, at = self.locate(type_id)
            if wire.kind_of(words[at + 1]) not in _MODIFIERS:
                return type_id
            type_id = words[at + 2]
        raise self.error(f"type {at_first} refers to itself, or is nested too deeply", at_first)

    def sizeof(self, type_id: int) -> int:
        """Return a type's size in bytes; a section's and a variable's, too.

        Raises:
            ObjectFormatError: it has none (``void``, functions, forward declarations), refers to
                itself, or is larger than 4 GiB.
        """
        count = 1
        current = type_id
        for _ in range(wire.MAX_DEPTH):
            current = self.strip(current)
            words, at = self.locate(current)
            kind = wire.kind_of(words[at + 1])
            if kind == Kind.ARRAY:
                current = words[at + 3]
                count *= words[at + 5]
            elif kind == Kind.VAR:
                current = words[at + 2]
            else:
                break
        else:
            raise self.error(f"type {type_id} refers to itself, or is nested too deeply", type_id)
        if kind in wire.WITH_SIZE:
            size = words[at + 2] * count
        elif kind == Kind.PTR:
            size = self.pointer_size * count
        else:
            raise self.error(f"type {type_id} ({Kind(kind).name}) has no size", type_id)
        if size > _MAX_SIZE:
            raise self.error(f"type {type_id} is larger than 4 GiB", type_id)
        return size

    def alignof(self, type_id: int) -> int:
        """Return a type's alignment in bytes; 1 for a packed struct.

        Raises:
            ObjectFormatError: as :meth:`sizeof`.
        """
        return self._alignof(type_id, 0)

    def validate(self) -> None:
        """Check every type, and how types refer to each other.

        Loading does not need it: each access checks what it reads.

        Raises:
            ObjectFormatError: the first type that is wrong.
        """
        from xdpkit.btf.validate import validate

        validate(self)

    def edit(self) -> BtfEditor:
        """Return an editor of a copy."""
        from xdpkit.btf.editor import BtfEditor

        return BtfEditor(self)

    def offset_of(self, type_id: int) -> int:
        """Return where the type's record begins in :attr:`raw`, in bytes; not for the base's types.

        Raises:
            ObjectFormatError: no such type here.
        """
        starts = self._scan()
        index = type_id - self._first_id
        if not 0 <= index < len(starts):
            raise self.error(f"there is no type {type_id} here")
        return self._header.types_start + 4 * starts[index]

    def error(self, cause: str, type_id: int | None = None) -> ObjectFormatError:
        """Return an error about a type, or about the whole, for the caller to raise."""
        offset = None
        if type_id is not None and self._first_id <= type_id < len(self):
            offset = self.offset_of(type_id)
        return ObjectFormatError(cause, file=self._file, section=".BTF", offset=offset)

    def error_at(self, cause: str, word: int) -> ObjectFormatError:
        offset = self._header.types_start + 4 * word
        return ObjectFormatError(cause, file=self._file, section=".BTF", offset=offset)

    def _scan(self) -> list[int]:
        """Return where the records begin, as indices of words."""
        if self._starts is not None:
            return self._starts
        words = self._words
        end = len(words)
        starts: list[int] = []
        append = starts.append
        # Few values of ``info`` are distinct: the length of a record is looked up, not computed.
        lengths: dict[int, int] = {}
        at = 0
        try:
            while at < end:
                append(at)
                info = words[at + 1]
                try:
                    at += lengths[info]
                except KeyError:
                    length = wire.record_words(info)
                    if length is None:
                        raise self.error_at(
                            f"type {self._first_id + len(starts) - 1} is of unknown kind "
                            f"{wire.kind_of(info)}",
                            at,
                        ) from None
                    lengths[info] = length
                    at += length
        except IndexError:
            at = end + 1
        if at != end:
            raise self.error_at("the last type goes past the end of the types", starts[-1])
        self._starts = starts
        return starts

    def _string(self, offset: int, limit: int) -> str:
        base = self._base
        if base is not None and 0 <= offset < self._first_string:
            return base._string(offset, limit)
        strings_end = self._strings_end
        start = self._strings_start + offset - self._first_string
        if not self._strings_start <= start < strings_end:
            raise self._string_error(f"string offset {offset:#x} is outside of the strings")
        end = self._raw.find(b"\0", start, min(strings_end, start + limit + 1))
        if end < 0:
            raise self._string_error(f"the name at {offset:#x} is longer than {limit} bytes")
        return self._raw[start:end].decode("utf-8", "backslashreplace")

    def _string_error(self, cause: str) -> ObjectFormatError:
        return ObjectFormatError(cause, file=self._file, section=".BTF", offset=self._strings_start)

    def _search(self, name: str, tail: str) -> Iterator[int]:
        """Yield each offset at which the strings have ``name`` followed by ``tail``."""
        if self._base is not None:
            yield from self._base._search(name, tail)
        pattern = (name + tail).encode("utf-8", "surrogatepass")
        shift = self._first_string - self._strings_start
        at = self._raw.find(pattern, self._strings_start, self._strings_end)
        while at >= 0:
            yield at + shift
            at = self._raw.find(pattern, at + 1, self._strings_end)

    def _offsets_of(self, name: str) -> Iterator[int]:
        return self._search(name, "\0") if name and "\0" not in name else iter(())

    def _index_names(self) -> dict[int, int]:
        """Return the last type with each name offset; ``_earlier`` chains to those before it."""
        if self._latest_by_name is None:
            words = self._words
            latest: dict[int, int] = {}
            earlier = []
            for index, at in enumerate(self._scan()):
                offset = words[at]
                earlier.append(latest.get(offset, -1))
                latest[offset] = index
            latest.pop(0, None)
            self._earlier = earlier
            self._latest_by_name = latest
        return self._latest_by_name

    def _has_type_named_at(self, offset: int) -> bool:
        if offset in self._index_names():
            return True
        return self._base is not None and self._base._has_type_named_at(offset)

    def _select(
        self, offsets: Iterator[int] | tuple[int, ...], kinds: tuple[Kind, ...]
    ) -> list[int]:
        offsets = tuple(offsets)
        found = self._base._select(offsets, kinds) if self._base is not None else []
        latest = self._index_names()
        own = []
        for offset in offsets:
            index = latest.get(offset, -1)
            while index >= 0:
                own.append(self._first_id + index)
                index = self._earlier[index]
        if kinds:
            own = [type_id for type_id in own if self.kind(type_id) in kinds]
        return found + sorted(own)

    def _alignof(self, type_id: int, depth: int) -> int:
        known = self._alignments.get(type_id)
        if known is not None:
            return known
        if depth > wire.MAX_DEPTH:
            raise self.error(f"type {type_id} contains itself, or is nested too deeply", type_id)
        stripped = self.strip(type_id)
        words, at = self.locate(stripped)
        kind = wire.kind_of(words[at + 1])
        if kind == Kind.ARRAY:
            alignment = self._alignof(words[at + 3], depth + 1)
        elif kind == Kind.VAR:
            alignment = self._alignof(words[at + 2], depth + 1)
        elif kind in (Kind.STRUCT, Kind.UNION):
            alignment = self._alignof_members(stripped, depth)
        else:
            alignment = min(max(self.sizeof(stripped), 1), self.pointer_size)
        self._alignments[type_id] = alignment
        return alignment

    def _alignof_members(self, type_id: int, depth: int) -> int:
        composite = self[type_id]
        assert isinstance(composite, Struct | Union)
        alignment = 1
        for member in composite.members:
            natural = self._alignof(member.type_id, depth + 1)
            if not member.bitfield_size and member.bit_offset % (8 * natural):
                return 1
            alignment = max(alignment, natural)
        return 1 if composite.size % alignment else alignment
