# SPDX-License-Identifier: Apache-2.0
"""Map definitions: what the ``.maps`` section's types say, and the maps behind global data.

A definition is a variable whose *type* carries the attributes: ``__uint(type, N)`` is a pointer to
an array of N, ``__type(key, T)`` a pointer to T, ``__array(values, T)`` an array of pointers to T.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind, VarLinkage
from xdpkit.btf.wire import kind_of, vlen_of
from xdpkit.errors import ObjectFormatError
from xdpkit.obj import elf
from xdpkit.obj.elf import Image, Section
from xdpkit.obj.spec import MapSpec, Pinning
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN, MapFlags, MapType

_MAP_IN_MAP = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_MAX_NAME = BPF_OBJ_NAME_LEN - 1


@dataclass(slots=True)
class _Definition:
    """The attributes found so far."""

    numbers: dict[str, int] = field(default_factory=dict)
    key_type_id: int = 0
    value_type_id: int = 0
    inner: MapSpec | None = None
    values_at: int | None = None


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a file.

    Attributes:
        specs: by name, in the order in which libbpf creates them.
        at: names by offset in ``.maps``.
        data: names of global data maps by section index.
    """

    specs: dict[str, MapSpec]
    at: dict[int, str]
    data: dict[int, str]


def read_maps(image: Image, btf: Btf | None, object_name: str) -> Maps:
    """Return the maps that a file defines, and those that hold its global data.

    Raises:
        ObjectFormatError: a definition is malformed, or there is no BTF to say what it is.
    """
    found = Maps({}, {}, {})
    section = image.by_name.get(".maps")
    if section is not None and section.size:
        for offset, spec in sorted(_definitions(image, btf, section), key=lambda pair: pair[0]):
            found.specs[spec.name] = spec
            found.at[offset] = spec.name
    for section in image.sections:
        if is_data(section):
            _refuse_pointers(image, section)
            found.data[section.index] = section.name
            found.specs[section.name] = data_map(
                section.name, section.size, btf, image, object_name
            )
    return found


def check_values(image: Image, specs: Mapping[str, MapSpec], programs: Container[str]) -> None:
    """Check that initial values name maps or programs, as the map's type wants.

    Raises:
        ObjectFormatError: one names something else.
    """
    for spec in specs.values():
        wants_program = spec.type == MapType.PROG_ARRAY
        for slot, name in spec.values.items():
            if name not in (programs if wants_program else specs):
                kind = "program" if wants_program else "map"
                raise image.error(
                    f"map {spec.name}: value {slot} is {name!r}, which is not a {kind}",
                    image.by_name[".maps"],
                )


def _refuse_pointers(image: Image, section: Section) -> None:
    offsets, symbols = image.relocations(section)
    if offsets:
        raise image.error(
            f"holds a pointer to {image.symbol(symbols[0]).name!r}, which has no address before "
            "the load",
            section,
            offsets[0],
        )


def is_data(section: Section) -> bool:
    """Whether a section holds global variables."""
    if section.size == 0 or section.is_code:
        return False
    base = ".".join(section.name.split(".", 2)[:2])
    if section.type == elf.SHT_PROGBITS:
        return base in (".data", ".rodata")
    return section.type == elf.SHT_NOBITS and base == ".bss"


def data_map(name: str, size: int, btf: Btf | None, image: Image, object_name: str) -> MapSpec:
    """Return the map behind a section of global data: an array with one value, the section."""
    flags = MapFlags(0)
    if name.startswith((".rodata", ".kconfig")):
        flags |= MapFlags.RDONLY_PROG
    datasec_id = next(iter(btf.find(name, Kind.DATASEC)), 0) if btf else 0
    # libbpf lets user space map the variables into its memory, if any is visible outside.
    if btf and datasec_id and _has_visible(btf, datasec_id, image):
        flags |= MapFlags.MMAPABLE
    return MapSpec(
        name=name,
        kernel_name=_data_map_name(object_name, name),
        type=MapType.ARRAY,
        key_size=4,
        value_size=size,
        max_entries=1,
        flags=flags,
        value_type_id=datasec_id,
        data_section=name,
    )


def _has_visible(btf: Btf, datasec_id: int, image: Image) -> bool:
    datasec = btf[datasec_id]
    assert isinstance(datasec, types.Datasec)
    for entry in datasec.vars:
        variable = btf[entry.type_id]
        if not isinstance(variable, types.Var):
            raise btf.error(f"type {entry.type_id} in {datasec.name} is not a variable", datasec_id)
        if variable.linkage == VarLinkage.STATIC:
            continue
        symbol = image.globals.get(variable.name)
        if symbol is None or not symbol.is_hidden:
            return True
    return False


def _data_map_name(object_name: str, section: str) -> str:
    """Return libbpf's name for a data map: ``xdp_fire.rodata``, or ``.data.custom`` as it is."""
    room = 0 if "." in section[1:] else _MAX_NAME - max(7, len(section))
    name = object_name[: max(room, 0)] + section
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)[
        :_MAX_NAME
    ]


def _definitions(image: Image, btf: Btf | None, section: Section) -> Iterator[tuple[int, MapSpec]]:
    if btf is None:
        raise ObjectFormatError(
            "maps are defined by their types, and the file has no BTF",
            file=image.file,
            section=".maps",
            remedy="compile with -g",
        )
    datasec_ids = btf.find(".maps", Kind.DATASEC)
    if not datasec_ids:
        raise image.error("BTF does not describe the section", section)
    datasec = btf[datasec_ids[0]]
    assert isinstance(datasec, types.Datasec)
    offsets, symbols = image.relocations(section)
    slots = [(offset, image.symbol(index)) for offset, index in zip(offsets, symbols, strict=True)]
    for entry in datasec.vars:
        variable = btf[entry.type_id]
        if not isinstance(variable, types.Var):
            raise image.error(f"type {entry.type_id} is not a variable", section)
        symbol = image.globals.get(variable.name)
        if symbol is None or symbol.section != section.index:
            raise ObjectFormatError(
                f"map {variable.name} is not a global variable",
                file=image.file,
                section=".maps",
                remedy="remove its static",
            )
        start, end = symbol.value, symbol.value + entry.size
        definition = _read_definition(btf, image, section, variable.name, variable.type_id)
        values = {}
        if definition.values_at is not None:
            first = start + definition.values_at
            values = {
                (offset - first) // 8: target.name
                for offset, target in slots
                if first <= offset < end
            }
        yield start, _spec(variable.name, definition, values, image, section)


def _read_definition(
    btf: Btf, image: Image, section: Section, name: str, type_id: int, *, is_inner: bool = False
) -> _Definition:
    found = _Definition()
    for attribute, member_id, at in _attributes(btf, image, section, name, type_id):
        if attribute in ("key", "value"):
            target = _pointee(btf, member_id)
            if target is None:
                raise image.error(f"map {name}: {attribute} is not __type(...)", section)
            size = btf.sizeof(target)
            if found.numbers.setdefault(f"{attribute}_size", size) != size:
                raise image.error(f"map {name}: {attribute} and its size differ", section)
            if attribute == "key":
                found.key_type_id = target
            else:
                found.value_type_id = target
        elif attribute == "values":
            if is_inner:
                raise image.error(f"map {name}: maps in maps in maps are not supported", section)
            found.values_at = at
            found.numbers.setdefault("value_size", 4)
            found.inner = _inner_map(btf, image, section, name, member_id, found)
        elif attribute in _NUMBERS:
            number = _number(btf, member_id)
            if number is None:
                raise image.error(f"map {name}: {attribute} is not a number", section)
            if found.numbers.setdefault(attribute, number) != number:
                raise image.error(f"map {name}: {attribute} and its type differ", section)
        else:
            raise image.error(f"map {name} has an unknown attribute {attribute!r}", section)
    if "type" not in found.numbers:
        raise image.error(f"map {name} has no type", section)
    return found


_SIZES = ("key_size", "value_size", "max_entries")
_NUMBERS = frozenset(("type", *_SIZES, "map_flags", "numa_node", "pinning", "map_extra"))


# A definition's attributes are a dozen types each, used once: they are read from the words, since
# decoding them into values would take a third of the time that a small object takes to load.


def _attributes(
    btf: Btf, image: Image, section: Section, name: str, type_id: int
) -> Iterator[tuple[str, int, int]]:
    """Yield (name, type id, byte offset) of a definition's members."""
    words, at = btf.locate(btf.strip(type_id))
    kind = kind_of(words[at + 1])
    if kind != Kind.STRUCT:
        raise image.error(f"map {name} is defined by a {Kind(kind).name}, not a struct", section)
    members = words[at + 3 : at + 3 + 3 * vlen_of(words[at + 1])].tolist()
    for number in range(0, len(members), 3):
        # A definition has no bitfields, so the offset is in bits whatever the kind flag says.
        offset = members[number + 2] & 0xFFFFFF
        yield btf.name_at(members[number]), members[number + 1], offset // 8


def _pointee(btf: Btf, type_id: int) -> int | None:
    """Return what a pointer points to, None if it is none."""
    words, at = btf.locate(btf.strip(type_id))
    return words[at + 2] if kind_of(words[at + 1]) == Kind.PTR else None


def _number(btf: Btf, type_id: int) -> int | None:
    """Return the number in ``__uint()``: an array's length; in ``__ulong()``: an enumerator."""
    target = _pointee(btf, type_id)
    if target is None:
        enum = btf[btf.strip(type_id)]
        if isinstance(enum, types.Enum | types.Enum64) and len(enum.values) == 1:
            return enum.values[0][1]
        return None
    words, at = btf.locate(target)
    return words[at + 5] if kind_of(words[at + 1]) == Kind.ARRAY else None


def _inner_map(
    btf: Btf,
    image: Image,
    section: Section,
    name: str,
    type_id: int,
    outer: _Definition,
) -> MapSpec | None:
    map_type = outer.numbers.get("type")
    field_type = btf[btf.strip(type_id)]
    element = btf[btf.strip(field_type.element_id)] if isinstance(field_type, types.Array) else None
    if not isinstance(element, types.Ptr) or map_type not in (*_MAP_IN_MAP, MapType.PROG_ARRAY):
        raise image.error(
            f"map {name}: values is for maps of maps and program arrays, as __array(...)", section
        )
    if map_type == MapType.PROG_ARRAY:
        return None
    inner_name = f"{name}.inner"
    inner = _read_definition(btf, image, section, inner_name, element.type_id, is_inner=True)
    return _spec(inner_name, inner, {}, image, section)


def _spec(
    name: str, found: _Definition, values: dict[int, str], image: Image, section: Section
) -> MapSpec:
    numbers = found.numbers
    number = numbers["type"]
    pinning = numbers.get("pinning", 0)
    if pinning not in (0, 1):
        raise image.error(f"map {name}: pinning is {pinning}, not 0 or LIBBPF_PIN_BY_NAME", section)
    return MapSpec(
        name=name,
        kernel_name=name[:_MAX_NAME],
        type=MapType(number) if number in _MAP_TYPES else number,
        key_size=numbers.get("key_size", 0),
        value_size=numbers.get("value_size", 0),
        max_entries=numbers.get("max_entries", 0),
        flags=MapFlags(numbers.get("map_flags", 0)),
        pinning=Pinning(pinning),
        numa_node=numbers.get("numa_node"),
        map_extra=numbers.get("map_extra", 0),
        key_type_id=found.key_type_id,
        value_type_id=found.value_type_id,
        inner=found.inner,
        values=values,
    )


_MAP_TYPES = frozenset(MapType)
