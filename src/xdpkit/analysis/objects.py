# SPDX-License-Identifier: Apache-2.0
"""Programs of object files as subjects."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from xdpkit.analysis.subject import ByteOrder, Function, Reference, Subject, SubjectMap
from xdpkit.btf import Btf, types
from xdpkit.btf.types import FuncLinkage, Kind
from xdpkit.errors import UsageError
from xdpkit.isa import CallKind, Instruction, decode, iter_slots
from xdpkit.obj.code import Function as LinkedFunction
from xdpkit.obj.core import relocate
from xdpkit.obj.link import exception_callback
from xdpkit.obj.spec import (
    Extern,
    ExternKind,
    LinkedProgram,
    MapSpec,
    Object,
    Pinning,
    ProgramSpec,
    RelocationKind,
)
from xdpkit.uapi.bpf import MapType

_FUNC_INFO = struct.Struct("=II")
_LINE_INFO = struct.Struct("=IIII")


def subject_of(
    spec: ProgramSpec,
    target: Btf | Sequence[Btf] | None = None,
    *,
    open_maps: AbstractSet[str] = frozenset(),
) -> Subject:
    """Return a program of an object file, linked, with its variables as they are set now.

    Constants are what is in ``.rodata``: what the kernel fills in (``.kconfig``) or anybody can
    change (``.data``, ``.bss``) is not. Programs that the object puts into its program arrays are
    taken to stay there; what else is in an array that is shared through a pin is not known.

    Args:
        spec: the program.
        target: types of the kernel (then of its modules) that it is to run on. None: relocations
            are left as the compiler made them, and whether the kernel has a weak symbol is open.
        open_maps: names of maps that may hold something else than the object puts there.

    Raises:
        ObjectFormatError: the program cannot be linked, or a relocation is malformed.
        RequirementUnmet: the target's types give no usable answer to a relocation.
    """
    targets = (target,) if isinstance(target, Btf) else tuple(target or ())
    return _Reader(spec.object, targets, open_maps).subject(spec)


def kfuncs_of(obj: Object, linked: LinkedProgram) -> dict[int, Reference]:
    """Return the kernel functions that a linked program calls, by the slot of the call.

    Raises:
        ObjectFormatError: the type of one is malformed.
    """
    return {
        slot: Reference(relocation.kind, extern.kernel_name, arguments=_arguments(extern, obj.btf))
        for relocation in linked.relocations
        if relocation.kind is RelocationKind.KFUNC
        and (extern := obj.externs.get(relocation.name)) is not None
        for slot in relocation.slots
    }


class _Reader:
    """Makes subjects of one object's programs, each once."""

    def __init__(self, obj: Object, targets: tuple[Btf, ...], open_maps: AbstractSet[str]) -> None:
        self._object = obj
        self._open_maps = open_maps
        self._byteorder: ByteOrder = "little" if obj.byteorder == "little" else "big"
        self._targets = targets
        self._subjects: dict[str, Subject] = {}
        self._programs: dict[str, dict[int, Subject]] = {
            name: {}
            for name, found in obj.maps.items()
            if found.values
            and found.type == MapType.PROG_ARRAY
            and found.pinning is not Pinning.BY_NAME
            and name not in open_maps
        }
        self._maps = {name: self._map(found) for name, found in obj.maps.items()}

    def subject(self, spec: ProgramSpec) -> Subject:
        """Return a program, and fill the program arrays that it can reach."""
        first = self._make(spec)
        waiting = [first]
        while waiting:
            member = waiting.pop()
            for name in {reference.name for reference in member.references.values()}:
                array = self._programs.get(name)
                if not array and array is not None:
                    waiting += self._fill(name, array)
        return first

    def _fill(self, name: str, array: dict[int, Subject]) -> list[Subject]:
        made = []
        for slot, program in self._object.maps[name].values.items():
            spec = self._object.programs.get(program)
            if spec is None:
                raise UsageError(
                    f"analyse the programs in {name}", cause=f"there is no program {program}"
                )
            if program not in self._subjects:
                made.append(self._make(spec))
            array[slot] = self._subjects[program]
        return made

    def _make(self, spec: ProgramSpec) -> Subject:
        linked = spec.link()
        code = bytearray(linked.code)
        local = self._object.btf
        if self._targets and linked.core and local is not None:
            relocate(
                code,
                linked.core,
                local,
                self._targets,
                byteorder=self._byteorder,
                where=f"program {spec.name}",
            )
        functions = tuple(self._functions(linked))
        subject = Subject(
            name=spec.name,
            instructions=tuple(self._instructions(code, linked)),
            functions=functions,
            references=self._references(linked),
            maps=self._maps,
            byteorder=self._byteorder,
            type=spec.type,
            attach_type=spec.attach_type,
            flags=spec.flags,
            exception_callback=_slot_of(exception_callback(spec), functions),
            line_of=_Lines(linked.line_info, local),
        )
        self._subjects[spec.name] = subject
        return subject

    def _instructions(self, code: bytearray, linked: LinkedProgram) -> Iterator[Instruction]:
        # The compiler writes a call of a kernel function like one of a subprogram.
        kfuncs = {
            slot
            for relocation in linked.relocations
            if relocation.kind is RelocationKind.KFUNC
            for slot in relocation.slots
        }
        for slot, instruction in iter_slots(decode(code, byteorder=self._byteorder)):
            if slot in kfuncs and instruction.is_call:
                yield replace(instruction, src=CallKind.KFUNC, imm=0)
            else:
                yield instruction

    def _functions(self, linked: LinkedProgram) -> list[Function]:
        btf, code = self._object.btf, self._object.code
        linkage: dict[int, FuncLinkage | int] = {}
        if btf is not None:
            for slot, type_id in _FUNC_INFO.iter_unpack(linked.func_info):
                function = btf[type_id]
                if isinstance(function, types.Func):
                    linkage[slot] = function.linkage
        # The loader makes hidden functions static.
        local = {f.name for f in code.functions.values() if f.is_local or f.is_hidden}
        return [
            Function(slot, name, linkage.get(slot) == FuncLinkage.GLOBAL and name not in local)
            for slot, name in linked.functions
        ]

    def _references(self, linked: LinkedProgram) -> dict[int, Reference]:
        references = {}
        for relocation in linked.relocations:
            extern = self._object.externs.get(relocation.name)
            is_kernels = relocation.kind in (RelocationKind.KFUNC, RelocationKind.KSYM)
            if is_kernels and extern is not None:
                reference = Reference(
                    relocation.kind,
                    extern.kernel_name,
                    is_there=self._is_there(extern),
                    arguments=_arguments(extern, self._object.btf),
                )
            else:
                reference = Reference(relocation.kind, relocation.name, relocation.offset)
            references.update(dict.fromkeys(relocation.slots, reference))
        return references

    def _is_there(self, extern: Extern) -> bool | None:
        if not extern.is_weak:
            return True
        if not self._targets or not extern.type_id:
            return None
        kind = Kind.FUNC if extern.kind is ExternKind.KFUNC else Kind.VAR
        return any(target.find(extern.kernel_name, kind) for target in self._targets)

    def _map(self, spec: MapSpec) -> SubjectMap:
        section = spec.data_section
        is_constant = (
            spec.is_frozen
            and section is not None
            and section.startswith(".rodata")
            and spec.name not in self._open_maps
        )
        return SubjectMap(
            name=spec.name,
            type=spec.type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            data=self._object.variables.data(section) if is_constant and section else None,
            programs=self._programs.get(spec.name),
        )


def _arguments(extern: Extern, btf: Btf | None) -> int | None:
    """Return how many arguments the prototype of a kernel function has, None if it has none."""
    if extern.kind is not ExternKind.KFUNC or not extern.type_id or btf is None:
        return None
    prototype = btf[extern.type_id]
    return len(prototype.params) if isinstance(prototype, types.FuncProto) else None


def _slot_of(callback: LinkedFunction | None, functions: Sequence[Function]) -> int | None:
    if callback is None:
        return None
    return next((each.slot for each in functions if each.name == callback.name), None)


class _Lines:
    """Source lines of a linked program (``struct bpf_line_info``), looked up when asked for."""

    def __init__(self, records: bytes, btf: Btf | None) -> None:
        self._btf = btf
        self._records = records if btf is not None else b""
        self._slots: list[int] | None = None

    def __call__(self, slot: int) -> str | None:
        if self._slots is None:
            self._slots = [record[0] for record in _LINE_INFO.iter_unpack(self._records)]
        at = bisect_right(self._slots, slot) - 1
        while at >= 0 and self._btf is not None:
            _, file, _, place = _LINE_INFO.unpack_from(self._records, at * _LINE_INFO.size)
            # The upper 22 bits are the line, the lower 10 the column. Line 0 is a compiler's that
            # made one instruction of several lines: the line before says more.
            if line := place >> 10:
                return f"{self._btf.string(file).rpartition('/')[2]}:{line}"
            at -= 1
        return None
