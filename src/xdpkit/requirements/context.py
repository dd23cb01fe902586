# SPDX-License-Identifier: Apache-2.0
"""What a program needs beyond the kernel and the driver: fields of xdpkit's, and a port table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit.btf import Kind
from xdpkit.btf.types import Struct
from xdpkit.context import BASE, field_at

if TYPE_CHECKING:
    from xdpkit.analysis import Analysis
    from xdpkit.analysis import Origin as Found
    from xdpkit.btf import Btf
    from xdpkit.obj import ProgramSpec

PORT_INDEX, PORT_TABLE = "port-index", "port-table"

_FIELD, _SET = "context-field", "port-set"
_PORT_MAPS = frozenset({"xdpkit_ports", "xdpkit_port_numbers", "xdpkit_port_counts"})
_SET_MAP = "xdpkit_set_"
_CONTEXT = "xdpkit_md"
_BITS = 8

Need = tuple[str, tuple["Found", ...]]


def fields_of(analysis: Analysis, spec: ProgramSpec) -> Iterator[Need]:
    """Yield the capabilities that a program's reads of the extended context need, and where.

    A field that a later xdpkit.h declares has the name that the program's own types give it.
    """
    for access in analysis.context:
        field = field_at(access.offset)
        if field is not None and field.name == "port_index":
            yield PORT_INDEX, access.origins
        elif field is None and access.offset >= BASE:
            name = _declared_name(spec.object.btf, access.offset)
            yield f"{_FIELD}:{name}", access.origins


def tables_of(analysis: Analysis) -> Iterator[Need]:
    """Yield the capabilities that a program's use of a port table's maps needs, and where."""
    for name, origins in analysis.maps.items():
        set_name = port_set(name)
        if set_name is not None:
            yield f"{_SET}:{set_name}", origins
        if set_name is not None or name in _PORT_MAPS:
            yield PORT_TABLE, origins


def is_port_map(name: str) -> bool:
    """Whether xdpkit.h calls a map of a port table so."""
    return name in _PORT_MAPS or port_set(name) is not None


def port_set(name: str) -> str | None:
    """Return the set of ports that xdpkit.h calls a map after; None for other maps.

    >>> port_set("xdpkit_set_guests")
    'guests'
    """
    return (name.removeprefix(_SET_MAP) or None) if name.startswith(_SET_MAP) else None


def set_named(capability: str) -> str | None:
    """Return the set of ports that a capability is about; None for other capabilities."""
    family, _, name = capability.partition(":")
    return name if family == _SET else None


def is_of_ports(capability: str) -> bool:
    """Whether a port table offers a capability."""
    return capability in (PORT_INDEX, PORT_TABLE) or set_named(capability) is not None


def field_named(capability: str) -> str | None:
    """Return the field that a capability is about; None for other capabilities."""
    family, _, name = capability.partition(":")
    return name if family == _FIELD else None


def _declared_name(types: Btf | None, offset: int) -> str:
    """Return what a program's types call the place in its context."""
    if types is not None:
        for type_id in types.find(_CONTEXT, Kind.STRUCT):
            declared = types[type_id]
            assert isinstance(declared, Struct)
            before = [each for each in declared.members if each.bit_offset <= offset * _BITS]
            if before and offset < declared.size:
                return max(before, key=lambda each: each.bit_offset).name
    return f"offset {offset}"
