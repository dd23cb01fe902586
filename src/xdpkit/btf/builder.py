# SPDX-License-Identifier: Apache-2.0
"""Composing BTF from scratch."""

from __future__ import annotations

from xdpkit.btf import types as t
from xdpkit.btf.encode import encode_name, encode_type
from xdpkit.btf.reader import Btf
from xdpkit.btf.wire import ByteOrder, compose

__all__ = ["BtfBuilder", "encode_type"]


class BtfBuilder:
    """Adds types and strings one by one.

    A type may refer to ids that are added later: ``len(builder)`` is the next one.

    >>> builder = BtfBuilder()
    >>> u32 = builder.add(Int("unsigned int", 4, 32))
    >>> builder.add(Ptr(u32))
    2
    """

    def __init__(self, *, byteorder: ByteOrder = "little", base: Btf | None = None) -> None:
        """Begin, with the ids and string offsets that follow the base's if there is one."""
        self._byteorder: ByteOrder = base.byteorder if base else byteorder
        self._first_string = base.end_of_strings if base else 0
        self._types = bytearray()
        self._strings = bytearray() if base else bytearray(1)
        self._offsets = {"": 0}
        self._next_id = len(base) if base else 1

    def __len__(self) -> int:
        """Return the number of types with ``void`` and the base's: the id of the next type."""
        return self._next_id

    def string(self, text: str) -> int:
        """Store a string, once, and return its offset.

        Raises:
            UsageError: it cannot be stored.
        """
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._first_string + len(self._strings)
            self._strings += encode_name(text)
            self._offsets[text] = offset
        return offset

    def add(self, value: t.Type) -> int:
        """Append a type and return its id.

        Raises:
            UsageError: a number does not fit its field.
        """
        self._types += encode_type(value, self.string, byteorder=self._byteorder)
        type_id = self._next_id
        self._next_id += 1
        return type_id

    def build(self) -> bytes:
        """Return the BTF."""
        return compose(self._types, self._strings, self._byteorder)
