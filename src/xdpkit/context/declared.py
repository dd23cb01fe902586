# SPDX-License-Identifier: Apache-2.0
"""What a program's type and line information says: names, parameters and places in the source."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xdpkit.btf import Btf, types
from xdpkit.btf.types import FuncLinkage, Kind
from xdpkit.context.fields import BASE
from xdpkit.rewrite.body import Body, function_records

_LINE_INFO = struct.Struct("=IIII")
# The kernel is told that it is its own.
_STRUCTS = ("xdpkit_md", "xdp_md")


class Declared:
    """What is known of a program beside its instructions: nothing at all, perhaps.

    Args:
        body: the program.
        btf: what its records refer to, None without.

    Raises:
        ObjectFormatError: a record refers to what is not there. All methods do.
    """

    def __init__(self, body: Body, btf: Btf | None) -> None:
        self._btf = btf
        self._lines = body.line_info
        self._functions = {} if btf is None else _functions(body, btf)

    def name(self, slot: int) -> str:
        """Return what a function is called, by where it begins."""
        function = self._functions.get(slot)
        return f"the function at slot {slot}" if function is None else function.name

    def is_global(self, slot: int) -> bool:
        """Return whether a function is verified by itself."""
        function = self._functions.get(slot)
        return function is not None and function.linkage == FuncLinkage.GLOBAL

    def parameters(self, slot: int) -> tuple[int, ...] | None:
        """Return the type ids of a function's parameters, None if nothing is known of it."""
        function = self._functions.get(slot)
        if function is None or self._btf is None:
            return None
        prototype = self._btf[function.type_id]
        if not isinstance(prototype, types.FuncProto):
            return None
        return tuple(parameter.type_id for parameter in prototype.params)

    def place(self, slot: int) -> str:
        """Return where in the source an instruction is, as "fw.c:12"."""
        found = f"slot {slot}"
        if self._btf is not None:
            for start, file, _, place in _LINE_INFO.iter_unpack(self._lines):
                if start > slot:
                    break
                # The upper 22 bits are the line. Line 0 is a compiler's, for what has none.
                if line := place >> 10:
                    found = f"{self._btf.string(file).rpartition('/')[2]}:{line}"
        return found

    def field_name(self, offset: int) -> str | None:
        """Return what the program calls the field at an offset of the context."""
        for members in self._contexts():
            for member in members:
                if member.bit_offset == 8 * offset:
                    return member.name
        return None

    def takes_fields(self) -> bool:
        """Return whether the main function is declared to take a context that has the fields."""
        btf, parameters = self._btf, self.parameters(0)
        if btf is None or not parameters:
            return False
        pointer = btf[btf.strip(parameters[0])]
        if not isinstance(pointer, types.Ptr):
            return False
        context = btf[btf.strip(pointer.type_id)]
        return isinstance(context, types.Struct) and any(
            member.bit_offset >= 8 * BASE for member in context.members
        )

    def _contexts(self) -> Iterator[tuple[types.Member, ...]]:
        if self._btf is not None:
            for name in _STRUCTS:
                for type_id in self._btf.find(name, Kind.STRUCT):
                    found = self._btf[type_id]
                    if isinstance(found, types.Struct):
                        yield found.members


def _functions(body: Body, btf: Btf) -> dict[int, types.Func]:
    found = {slot: btf[type_id] for slot, type_id in function_records(body).items()}
    return {slot: each for slot, each in found.items() if isinstance(each, types.Func)}
