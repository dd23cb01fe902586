# SPDX-License-Identifier: Apache-2.0
"""What has to be loaded for a program: the maps it refers to, and the programs in those. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xdpkit.errors import ObjectFormatError
from xdpkit.obj import LinkedProgram, MapSpec, Object, ProgramSpec, RelocationKind
from xdpkit.uapi.bpf import MapType

_MAP_KINDS = (RelocationKind.MAP, RelocationKind.MAP_VALUE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be loaded.

    Attributes:
        programs: by name, those asked for first.
        maps: in the order in which they are created.
    """

    programs: dict[str, LinkedProgram]
    maps: tuple[MapSpec, ...]


def plan(obj: Object, specs: Iterable[ProgramSpec]) -> Plan:
    """Return what is needed to load these programs.

    That is the maps they refer to, the maps and programs that those maps' initial contents name,
    what these refer to in turn, and all read-only data, which is bound to every program.

    Raises:
        ObjectFormatError: something refers to a map or program that the object does not have.
    """
    programs: dict[str, LinkedProgram] = {}
    wanted: set[str] = {name for name in obj.maps if is_bound(name)}
    pending = list(specs)
    walked: set[str] = set()
    while pending:
        spec = pending.pop(0)
        if spec.name in programs:
            continue
        linked = programs[spec.name] = spec.link()
        wanted |= {r.name for r in linked.relocations if r.kind in _MAP_KINDS}
        while unwalked := wanted - walked:
            walked |= unwalked
            for name in sorted(unwalked):
                found = _map(obj, name)
                if found.type == MapType.PROG_ARRAY:
                    pending += [_program(obj, found, each) for each in found.values.values()]
                else:
                    wanted |= set(found.values.values())
    return Plan(programs, tuple(obj.maps[name] for name in obj.maps if name in wanted))


def is_bound(name: str) -> bool:
    """Whether a map is bound to every program of its object: metadata is kept in read-only data."""
    return name.startswith(".rodata")


def _map(obj: Object, name: str) -> MapSpec:
    try:
        return obj.maps[name]
    except KeyError:
        raise ObjectFormatError(f"there is no map {name}", file=obj.path) from None


def _program(obj: Object, owner: MapSpec, name: str) -> ProgramSpec:
    try:
        return obj.programs[name]
    except KeyError:
        raise ObjectFormatError(
            f"map {owner.name} holds {name}, which is no program", file=obj.path
        ) from None
