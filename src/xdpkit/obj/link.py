# SPDX-License-Identifier: Apache-2.0
"""Joining a program with the subprograms that it calls.

The kernel loads one program at a time and knows nothing of sections, so each program gets its own
copy of every function it can reach, in the order in which libbpf appends them: depth first, by
first reference. The order matters: the program's tag is a hash over its instructions.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind
from xdpkit.errors import ObjectFormatError
from xdpkit.obj.code import CALL, Code, Function, Records, Target, as_long, ones
from xdpkit.obj.spec import CoreRelocation, LinkedProgram, ProgramSpec, Relocation
from xdpkit.uapi.bpf import PseudoCall, PseudoSrc

# How a declaration tag on a program names the function that bpf_throw() continues in.
EXCEPTION_CALLBACK = "exception_callback:"


def link(spec: ProgramSpec) -> LinkedProgram:
    """Return a program joined with the subprograms it calls; see :meth:`ProgramSpec.link`."""
    code, btf = spec.object.code, spec.object.btf
    layout = _Layout(code)
    layout.place(spec.function)
    callback = exception_callback(spec)
    if callback is not None:
        layout.place(callback)
    layout.resolve()
    return LinkedProgram(
        code=bytes(layout.code),
        functions=tuple((base, function.name) for function, base in layout.bases.items()),
        relocations=tuple(
            Relocation(target.kind, target.name, target.offset, tuple(slots))
            for target, slots in layout.slots.items()
        ),
        core=tuple(_core_relocations(layout, btf)) if btf else (),
        func_info=_moved(layout, code.func_info),
        line_info=_moved(layout, code.line_info),
    )


@dataclass(slots=True)
class _Layout:
    """Linked code as it grows.

    Attributes:
        bases: the first slot of each function placed, in order.
        slots: where each target is referred to.
        branches: (slot, opcode, function) of each call or load of an address to be resolved.
    """

    source: Code
    code: bytearray = field(default_factory=bytearray)
    bases: dict[Function, int] = field(default_factory=dict)
    slots: defaultdict[Target, list[int]] = field(default_factory=lambda: defaultdict(list))
    branches: list[tuple[int, int, Function]] = field(default_factory=list)

    def place(self, function: Function) -> None:
        """Append a function and, depth first, what it refers to, unless it is there already."""
        if function in self.bases:
            return
        # A stack of our own: a hostile file may nest calls deeper than Python's stack.
        pending = [iter(self._append(function))]
        while pending:
            callee = next(pending[-1], None)
            if callee is None:
                pending.pop()
            elif callee not in self.bases:
                pending.append(iter(self._append(callee)))

    def resolve(self) -> None:
        """Fill in the distances of calls and function addresses (RFC 9669, section 4.3.2)."""
        for slot, opcode, function in self.branches:
            pseudo = PseudoCall.CALL if opcode == CALL else PseudoSrc.FUNC
            self._set_source(slot, pseudo)
            mark = "<i" if self.source.image.byteorder == "little" else ">i"
            struct.pack_into(mark, self.code, slot * 8 + 4, self.bases[function] - slot - 1)

    def _append(self, function: Function) -> list[Function]:
        base = len(self.code) // 8
        shift = base - function.offset // 8
        self.bases[function] = base
        section = self.source.image.sections[function.section]
        data = section.data
        self.code += data[function.offset : function.end]
        references = self.source.references(section)
        branches: list[tuple[int, Function]] = []
        slots = self.slots
        for offset, target in references.between(function.offset, function.end):
            if isinstance(target, Target):
                slots[target].append((offset >> 3) + shift)
            else:
                branches.append((offset, target))
        branches += [
            (offset, self._callee(function, offset))
            for offset in self._local_calls(data, function)
            if offset not in references
        ]
        branches.sort(key=lambda branch: branch[0])
        self.branches += [
            (offset // 8 + shift, data[offset], target) for offset, target in branches
        ]
        return [target for _, target in branches]

    def _local_calls(self, data: bytes, function: Function) -> Iterator[int]:
        """Yield where a function has a call of another BPF function, found without decoding."""
        little = self.source.image.byteorder == "little"
        call = bytes((CALL, PseudoCall.CALL << 4 if little else PseudoCall.CALL))
        at = data.find(call, function.offset, function.end)
        while at >= 0:
            if at % 8 == 0:
                yield at
            at = data.find(call, at + 1, function.end)

    def _callee(self, caller: Function, offset: int) -> Function:
        # A call within a section needs no relocation: the distance is in the instruction.
        section = self.source.image.sections[caller.section]
        mark = "<i" if self.source.image.byteorder == "little" else ">i"
        distance = struct.unpack_from(mark, section.data, offset + 4)[0]
        return self.source.function_at(section, offset + (distance + 1) * 8, offset)

    def _set_source(self, slot: int, source: int) -> None:
        registers = self.code[slot * 8 + 1]
        if self.source.image.byteorder == "little":
            self.code[slot * 8 + 1] = registers & 0x0F | source << 4
        else:
            self.code[slot * 8 + 1] = registers & 0xF0 | source


def exception_callback(spec: ProgramSpec) -> Function | None:
    """Return the function that a program's ``__exception_cb`` tag names.

    Nothing calls it: the kernel finds it through the tag (Linux 6.7, b9ae0c9dd0ac "bpf: Add support
    for custom exception callbacks").
    """
    btf = spec.object.btf
    if btf is None or EXCEPTION_CALLBACK.encode() not in btf.raw:
        return None
    owners = set(btf.find(spec.name, Kind.FUNC))
    for type_id in btf.ids(Kind.DECL_TAG):
        tag = btf[type_id]
        assert isinstance(tag, types.DeclTag)
        if tag.type_id in owners and tag.value.startswith(EXCEPTION_CALLBACK):
            name = tag.value.removeprefix(EXCEPTION_CALLBACK)
            found = [f for f in spec.object.code.functions.values() if f.name == name]
            if not found:
                raise ObjectFormatError(
                    f"the exception callback {name!r} of {spec.name} is not defined",
                    file=spec.object.code.image.file,
                )
            return found[0]
    return None


def _moved(layout: _Layout, tables: Mapping[int, Records]) -> bytes:
    """Return the func_info or line_info records of linked code.

    In a file they are by section and count bytes; the kernel wants one list, counted in slots.
    They are moved a function at a time, because there is one for every other instruction.
    """
    moved = array("I")
    for function, base in layout.bases.items():
        table = tables.get(function.section)
        if table is None:
            continue
        part = table.between(function.offset, function.end)
        fields = table.fields
        rows = table.words[part.start * fields : part.stop * fields]
        rows[::fields] = _slots(table.offsets[part], base - function.offset // 8)
        moved += rows
    return moved.tobytes()


def _slots(offsets: array[int], shift: int) -> array[int]:
    """Return ``offset // 8 + shift`` of ascending multiples of 8.

    All at once, as one long integer: no digit of it borrows from its neighbour, since each offset
    is a multiple of 8 and none is less than the first, for which shift was chosen.
    """
    moved = (as_long(offsets) >> 3) + shift * as_long(ones(len(offsets)))
    return array("I", moved.to_bytes(len(offsets) * 4, sys.byteorder))


def _core_relocations(layout: _Layout, btf: Btf) -> Iterator[CoreRelocation]:
    for function, base in layout.bases.items():
        table = layout.source.core.get(function.section)
        if table is None:
            continue
        part = table.between(function.offset, function.end)
        for at in range(part.start, part.stop):
            offset, type_id, access, kind = table.words[4 * at : 4 * at + 4]
            slot = base + (offset - function.offset) // 8
            yield CoreRelocation(slot, type_id, btf.string(access), kind)
