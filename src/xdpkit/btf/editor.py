# SPDX-License-Identifier: Apache-2.0
"""Changing BTF in place: what a loader must fill in before the kernel takes an object's types.

Clang leaves sections without size and offsets, and old kernels lack kinds. Ids never change.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from xdpkit.btf import types as t
from xdpkit.btf.encode import encode_name, encode_type
from xdpkit.btf.reader import Btf
from xdpkit.btf.types import Kind
from xdpkit.btf.wire import MAX_VLEN, WITH_SIZE, compose, prefix
from xdpkit.errors import UsageError


class BtfEditor:
    """Edits a copy; what it was made from stays as it is.

    Types of a base cannot be edited. Each method raises
    :class:`~xdpkit.errors.ObjectFormatError` for an id that is not there, and
    :class:`~xdpkit.errors.UsageError` where the type is of a kind that it cannot be applied to.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._order = prefix(btf.byteorder)
        header = btf.header
        self._types_start = header.types_start
        self._types_end = header.types_end
        self._types = bytearray(btf.raw[header.types_start : header.types_end])
        self._strings = bytearray(btf.raw[header.strings_start : header.strings_end])
        self._added_strings: dict[str, int] = {}
        self._next_id = len(btf)

    def __len__(self) -> int:
        """Return the number of types with ``void``: the id of the next added type."""
        return self._next_id

    def set_size(self, type_id: int, size: int) -> None:
        """Set the size in bytes of a section, struct, union, enumeration, integer or float."""
        at = self._at(type_id, WITH_SIZE)
        self._write(at + 8, size)

    def set_linkage(self, type_id: int, linkage: int) -> None:
        """Set the linkage of a function or variable."""
        at = self._at(type_id, (Kind.FUNC, Kind.VAR))
        if linkage not in tuple(t.FuncLinkage):
            raise UsageError(f"set the linkage of type {type_id}", cause=f"{linkage} is none")
        if self._info(at) >> 24 & 0x7F == Kind.VAR:
            self._write(at + 12, linkage)
        else:
            self._write(at + 4, Kind.FUNC << 24 | linkage)

    def set_section(self, type_id: int, size: int, entries: Sequence[t.SectionVar]) -> None:
        """Set a section's size in bytes and all its entries, sorted by offset as the kernel wants.

        Raises:
            UsageError: the number of entries is not what it was.
        """
        at = self._at(type_id, (Kind.DATASEC,))
        count = self._info(at) & MAX_VLEN
        if len(entries) != count:
            raise UsageError(
                f"set {len(entries)} entries of section type {type_id}", cause=f"it has {count}"
            )
        words = [size]
        for entry in sorted(entries, key=lambda entry: entry.offset):
            words += (entry.type_id, entry.offset, entry.size)
        try:
            struct.pack_into(f"{self._order}{len(words)}I", self._types, at + 8, *words)
        except struct.error:
            raise UsageError("edit BTF", cause="a number does not fit in 32 bits") from None

    def replace(self, type_id: int, value: t.Type) -> None:
        """Put another type in the place of one whose record has the same length.

        Raises:
            UsageError: the lengths differ, or a number does not fit its field.
        """
        at = self._at(type_id, None)
        record = encode_type(value, self.string, byteorder=self._btf.byteorder)
        length = self._length(type_id, at)
        if len(record) != length:
            raise UsageError(
                f"replace type {type_id} by a {value.kind.name}",
                cause=f"the record has {length} bytes, the new one {len(record)}",
            )
        self._types[at : at + length] = record

    def add(self, value: t.Type) -> int:
        """Append a type and return its id."""
        self._types += encode_type(value, self.string, byteorder=self._btf.byteorder)
        type_id = self._next_id
        self._next_id += 1
        return type_id

    def string(self, text: str) -> int:
        """Return the offset of a string, stored if it is not yet there."""
        offset = self._added_strings.get(text)
        if offset is None:
            encoded = encode_name(text)
            index = self._strings.find(encoded)
            if index < 0:
                index = len(self._strings)
                self._strings += encoded
            offset = self._added_strings[text] = self._btf.first_string + index
        return offset

    def build(self) -> bytes:
        """Return the edited BTF; a header newer than the first kernels' is replaced by theirs."""
        return compose(self._types, self._strings, self._btf.byteorder)

    def _at(self, type_id: int, kinds: tuple[Kind, ...] | frozenset[Kind] | None) -> int:
        at = self._btf.offset_of(type_id) - self._types_start
        kind = self._info(at) >> 24 & 0x7F
        if kinds is not None and kind not in kinds:
            raise UsageError(f"edit type {type_id}", cause=f"it is a {Kind(kind).name}")
        return at

    def _length(self, type_id: int, at: int) -> int:
        if type_id + 1 < len(self._btf):
            return self._btf.offset_of(type_id + 1) - self._types_start - at
        return self._types_end - self._types_start - at

    def _info(self, at: int) -> int:
        info: int = struct.unpack_from(f"{self._order}I", self._types, at + 4)[0]
        return info

    def _write(self, at: int, value: int) -> None:
        try:
            struct.pack_into(f"{self._order}I", self._types, at, value)
        except struct.error:
            raise UsageError("edit BTF", cause=f"{value} does not fit in 32 bits") from None
