# SPDX-License-Identifier: Apache-2.0
"""What is in an object, as plain data, for ``inspect``. Field names are the keys of its JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.btf.format import format_declaration, format_type
from xdpkit.btf.types import Kind
from xdpkit.btf.values import enum_name
from xdpkit.obj import Extern, LinkedProgram, MapSpec, Object, ProgramSpec, RelocationKind
from xdpkit.obj.variables import Variable


@dataclass(frozen=True, slots=True)
class ProgramDescription:
    """A program; ``instructions`` counts 8-byte slots, those of its subprograms included."""

    name: str
    section: str
    type: str
    attach_type: str
    flags: list[str]
    autoload: bool
    attach_to: str | None
    instructions: int
    maps: list[str]
    subprograms: list[str]
    kernel_symbols: list[str]


@dataclass(frozen=True, slots=True)
class MapDescription:
    """A map; types are C's, None where they are not known; sizes are in bytes."""

    name: str
    kernel_name: str
    type: str
    key_type: str | None
    key_size: int
    value_type: str | None
    value_size: int
    max_entries: int
    flags: list[str]
    pinning: str
    numa_node: int | None
    map_extra: int
    inner: MapDescription | None
    values: dict[int, str]
    data_section: str | None


@dataclass(frozen=True, slots=True)
class VariableDescription:
    """A global variable; ``declaration`` is C's, ``value`` as decoded."""

    name: str
    type: str | None
    declaration: str
    section: str
    offset: int
    size: int
    value: object
    enumerator: str | None


@dataclass(frozen=True, slots=True)
class ExternDescription:
    """What the kernel has to provide."""

    name: str
    kernel_name: str
    kind: str
    declaration: str
    weak: bool


@dataclass(frozen=True, slots=True)
class ObjectDescription:
    """An object."""

    name: str
    path: str | None
    byteorder: str
    license: str
    version: int
    btf: bool
    programs: list[ProgramDescription]
    maps: list[MapDescription]
    variables: list[VariableDescription]
    kernel_symbols: list[ExternDescription]
    skipped_sections: list[str]


def describe(
    obj: Object, programs: Iterable[tuple[ProgramSpec, LinkedProgram]]
) -> ObjectDescription:
    """Return what is in an object.

    Raises:
        ObjectFormatError: a type or a value in it is malformed.
    """
    return ObjectDescription(
        name=obj.name,
        path=obj.path,
        byteorder=obj.byteorder,
        license=obj.license,
        version=obj.version,
        btf=obj.btf is not None,
        programs=[_program(spec, linked) for spec, linked in programs],
        maps=[_map(spec, obj.btf) for spec in obj.maps.values()],
        variables=[_variable(obj, obj.variables.describe(name)) for name in obj.variables],
        kernel_symbols=[_extern(extern, obj.btf) for extern in obj.externs.values()],
        skipped_sections=list(obj.skipped),
    )


def _program(spec: ProgramSpec, linked: LinkedProgram) -> ProgramDescription:
    used: dict[str, None] = {}
    symbols: dict[str, None] = {}
    for relocation in linked.relocations:
        is_map = relocation.kind in (RelocationKind.MAP, RelocationKind.MAP_VALUE)
        (used if is_map else symbols)[relocation.name] = None
    return ProgramDescription(
        name=spec.name,
        section=spec.section,
        type=_lower(spec.type),
        attach_type=_lower(spec.attach_type),
        flags=_flags(spec.flags),
        autoload=spec.autoload,
        attach_to=spec.attach_to,
        instructions=len(linked.code) // 8,
        # In the order of the object: that is the order of the table of maps.
        maps=[name for name in spec.object.maps if name in used],
        subprograms=[name for _, name in linked.functions[1:]],
        kernel_symbols=list(symbols),
    )


def _map(spec: MapSpec, btf: Btf | None) -> MapDescription:
    return MapDescription(
        name=spec.name,
        kernel_name=spec.kernel_name,
        type=_lower(spec.type),
        key_type=_type_name(btf, spec.key_type_id),
        key_size=spec.key_size,
        value_type=_type_name(btf, spec.value_type_id),
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=_flags(spec.flags),
        pinning=spec.pinning.name.lower(),
        numa_node=spec.numa_node,
        map_extra=spec.map_extra,
        inner=_map(spec.inner, btf) if spec.inner else None,
        values=dict(spec.values),
        data_section=spec.data_section,
    )


def _variable(obj: Object, variable: Variable) -> VariableDescription:
    value = obj.variables[variable.name]
    has_type = obj.btf is not None and variable.type_id
    return VariableDescription(
        name=variable.name,
        type=_type_name(obj.btf, variable.type_id),
        declaration=_declaration(obj.btf, variable.type_id, variable.name),
        section=variable.section,
        offset=variable.offset,
        size=variable.size,
        value=value,
        enumerator=enum_name(obj.btf, variable.type_id, value)
        if obj.btf is not None and has_type and isinstance(value, int)
        else None,
    )


def _extern(extern: Extern, btf: Btf | None) -> ExternDescription:
    return ExternDescription(
        name=extern.name,
        kernel_name=extern.kernel_name,
        kind=extern.kind.value,
        declaration=_declaration(btf, extern.type_id, extern.name),
        weak=extern.is_weak,
    )


def type_definitions(obj: Object) -> list[str]:
    """Return the C definitions of the structs, unions and enums that maps and variables hold.

    Raises:
        ObjectFormatError: a type is malformed.
    """
    if obj.btf is None:
        return []
    btf = obj.btf
    specs = [*obj.maps.values(), *(spec.inner for spec in obj.maps.values() if spec.inner)]
    roots = [
        type_id
        for spec in specs
        if spec.data_section is None
        for type_id in (spec.key_type_id, spec.value_type_id)
    ]
    roots += [obj.variables.describe(name).type_id for name in obj.variables]
    found: dict[str, None] = {}
    for root in roots:
        named = _named_aggregate(btf, root)
        if named is not None:
            found[named] = None
    return list(found)


def _named_aggregate(btf: Btf, type_id: int) -> str | None:
    """Return the definition of the struct, union or enum that an element of a type is."""
    typedef: int | None = None
    # A chain of types is as long as there are types; hostile ones go round.
    for _ in range(len(btf)):
        match btf[type_id]:
            case t.Array(element_id=inner):
                type_id = inner
            case t.Const(type_id=inner) | t.Volatile(type_id=inner) | t.Restrict(type_id=inner):
                type_id = inner
            case t.Typedef(type_id=inner):
                typedef, type_id = type_id, inner
            case t.Struct() | t.Union() | t.Enum() | t.Enum64() as aggregate:
                if aggregate.name:
                    return format_type(btf, type_id)
                if typedef is None:
                    return None
                return f"typedef {format_type(btf, type_id)} {btf.name(typedef)}"
            case _:
                return None
    return None


def _type_name(btf: Btf | None, type_id: int) -> str | None:
    if btf is None or not type_id or btf.kind(type_id) is Kind.DATASEC:
        return None
    return _one_line(format_declaration(btf, type_id, ""))


def _declaration(btf: Btf | None, type_id: int, name: str) -> str:
    if btf is None or not type_id:
        return name
    return _one_line(format_declaration(btf, type_id, name))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lower(number: enum.IntEnum | int) -> str:
    return number.name.lower() if isinstance(number, enum.IntEnum) else str(number)


def _flags(flags: enum.IntFlag) -> list[str]:
    """Return the names of the flags that are set, unknown bits in hexadecimal."""
    known = [member for member in type(flags) if member.value and member in flags]
    rest = int(flags) & ~sum(member.value for member in known)
    names = [str(member.name) for member in known]
    return [*names, hex(rest)] if rest else names
