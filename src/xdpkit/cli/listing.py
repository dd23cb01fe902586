# SPDX-License-Identifier: Apache-2.0
"""Linked code as a listing: functions, source lines, instructions with the names they refer to."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.btf import Btf
from xdpkit.btf.format import format_declaration
from xdpkit.isa import Instruction, decode, format_instruction, iter_slots
from xdpkit.isa.forms import CallKind
from xdpkit.obj import ExternKind, LinkedProgram, Object, Relocation, RelocationKind
from xdpkit.obj.spec import KCONFIG
from xdpkit.uapi.bpf import PseudoCall, PseudoSrc

_SOURCES = {
    RelocationKind.MAP: PseudoSrc.MAP_FD,
    RelocationKind.MAP_VALUE: PseudoSrc.MAP_VALUE,
    RelocationKind.KSYM: PseudoSrc.BTF_ID,
    RelocationKind.KFUNC: PseudoCall.KFUNC_CALL,
}
# struct bpf_line_info: insn_off, file_name_off, line_off, line_col.
_LINE_INFO_FIELDS = 4
_COLUMN_BITS = 10


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of C: ``column`` counts from 1; the text is what the compiler put into the BTF."""

    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class ListedInstruction:
    """An instruction: ``slot`` counts 8-byte slots; ``source`` where a line of C begins here."""

    slot: int
    text: str
    source: SourceLine | None


@dataclass(frozen=True, slots=True)
class ListedFunction:
    """A function of a linked program; ``declaration`` is C's where there is BTF."""

    name: str
    declaration: str
    instructions: list[ListedInstruction]


def list_program(obj: Object, linked: LinkedProgram) -> list[ListedFunction]:
    """Return the functions of a linked program, the program's own first.

    Raises:
        ObjectFormatError: the code is not made of instructions, or a line record is malformed.
    """
    lines = source_lines(obj, linked)
    names = _names(linked)
    variables = _variables(obj, linked)
    starts = dict(linked.functions)
    functions: list[ListedFunction] = []
    for slot, instruction in iter_slots(_filled(obj, linked)):
        if slot in starts:
            name = starts[slot]
            functions.append(ListedFunction(name, _declaration(obj.btf, name), []))
        text = format_instruction(instruction, symbol=_symbol(instruction, slot, names, starts))
        if slot in variables:
            text = f"{text}  ; {variables[slot]}"
        functions[-1].instructions.append(ListedInstruction(slot, text, lines.get(slot)))
    return functions


def source_lines(obj: Object, linked: LinkedProgram) -> dict[int, SourceLine]:
    """Return the lines of C by the slot of their first instruction."""
    if obj.btf is None:
        return {}
    words = array("I", linked.line_info)
    rows = (words[at : at + _LINE_INFO_FIELDS] for at in range(0, len(words), _LINE_INFO_FIELDS))
    return {
        slot: SourceLine(
            file=obj.btf.string(file).removeprefix("./"),
            line=line_and_column >> _COLUMN_BITS,
            column=line_and_column & ((1 << _COLUMN_BITS) - 1),
            text=obj.btf.string(text).strip(),
        )
        for slot, file, text, line_and_column in rows
    }


def format_listing(functions: list[ListedFunction]) -> Iterator[str]:
    """Yield the lines of a listing; a source line is said once for its run of instructions."""
    for function in functions:
        yield f"{function.declaration}:"
        said = None
        for instruction in function.instructions:
            source = instruction.source
            # Line 0: the compiler made this up.
            if source is not None and source.line and (source.file, source.line) != said:
                said = (source.file, source.line)
                yield f"      ; {source.text}  @ {source.file}:{source.line}"
            yield f"{instruction.slot:>5}: {instruction.text}"


def _filled(obj: Object, linked: LinkedProgram) -> tuple[Instruction, ...]:
    """Return the instructions with the pseudo-sources that a loader would fill in."""
    byteorder = "little" if obj.byteorder == "little" else "big"
    kinds = {slot: relocation for relocation in linked.relocations for slot in relocation.slots}
    instructions = decode(linked.code, byteorder=byteorder)
    return tuple(
        _with_source(instruction, kinds[slot]) if slot in kinds else instruction
        for slot, instruction in iter_slots(instructions)
    )


def _with_source(instruction: Instruction, relocation: Relocation) -> Instruction:
    source = _SOURCES[relocation.kind]
    imm = relocation.offset << 32 if relocation.kind is RelocationKind.MAP_VALUE else 0
    return dataclasses.replace(instruction, src=source, imm=imm)


def _names(linked: LinkedProgram) -> dict[int, str]:
    return {slot: relocation.name for relocation in linked.relocations for slot in relocation.slots}


def _variables(obj: Object, linked: LinkedProgram) -> dict[int, str]:
    """Return the names of the variables that instructions refer to, by slot."""
    places = {
        (found.section, found.offset): found.name
        for found in map(obj.variables.describe, obj.variables)
    }
    for extern in obj.externs.values():
        if extern.kind is ExternKind.KCONFIG:
            places[KCONFIG, extern.offset] = extern.name
    return {
        slot: places[relocation.name, relocation.offset]
        for relocation in linked.relocations
        if relocation.kind is RelocationKind.MAP_VALUE
        and (relocation.name, relocation.offset) in places
        for slot in relocation.slots
    }


def _symbol(
    instruction: Instruction, slot: int, names: dict[int, str], starts: dict[int, str]
) -> str | None:
    if slot in names:
        return names[slot]
    if instruction.call_kind is CallKind.SUBPROGRAM or instruction.src == PseudoSrc.FUNC:
        target = instruction.target(slot)
        return starts.get(target) if target is not None else None
    return None


def _declaration(btf: Btf | None, name: str) -> str:
    """Return a function's declaration; its bare name where BTF does not know it, or not only it."""
    from xdpkit.btf.types import Func, Kind

    found = btf.find(name, Kind.FUNC) if btf is not None else []
    if btf is None or len(found) != 1:
        return name
    function = btf[found[0]]
    assert isinstance(function, Func)
    return " ".join(format_declaration(btf, function.type_id, name).split())
