# SPDX-License-Identifier: Apache-2.0
"""Which types of an object correspond to which of the target.

Three relations, each stricter than the one before:

fields compatible
    A member of the one may be accessed as a member of the other: structs and unions are not looked
    into, integers may differ in size and sign, any pointer is a pointer.
types compatible (``TYPE_EXISTS``, ``TYPE_SIZE``, ``TYPE_ID_TARGET``)
    The same kinds all the way down through pointers, arrays and functions; names are not compared.
types match (``TYPE_MATCHES``)
    Names, sizes and members too: every member and enumerator of the object's type is in the
    target's. Behind a pointer, only the names and kinds of structs are compared.

Typedefs and qualifiers never count. Rules: ``bpf_core_fields_are_compat``,
``bpf_core_types_are_compat`` and ``bpf_core_types_match`` of libbpf.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdpkit.btf import Btf, Kind, essential_name
from xdpkit.btf.types import (
    Array,
    Enum,
    Enum64,
    Float,
    FuncProto,
    Fwd,
    Int,
    Ptr,
    Struct,
    Type,
    Union,
    Void,
)
from xdpkit.errors import ObjectFormatError

_ENUMS = (Kind.ENUM, Kind.ENUM64)
_MAX_DEPTH = 32


def family(kind: Kind) -> tuple[Kind, ...]:
    """Return the kinds that stand for each other: enumerations of 32 and 64 bits."""
    return _ENUMS if kind in _ENUMS else (kind,)


class Relation:
    """The relations between the types of an object and those of one target.

    What was found is kept: each pair of types is compared once, however often members repeat.
    """

    def __init__(self, local: Btf, target: Btf) -> None:
        self._local = local
        self._target = target
        self._compatible: dict[tuple[int, int], bool] = {}
        self._matching: dict[tuple[int, int, bool], bool] = {}
        self._members: dict[int, Mapping[str, list[int]]] = {}

    def fields_compatible(self, local_id: int, target_id: int) -> bool:
        """Whether a member of the object's type may be read from one of the target's."""
        for _ in range(_MAX_DEPTH):
            ours, theirs = self._stripped(local_id, target_id)
            if not (isinstance(ours, Array) and isinstance(theirs, Array)):
                return _accessible(ours, theirs)
            local_id, target_id = ours.element_id, theirs.element_id
        raise self._too_deep(local_id)

    def types_compatible(self, local_id: int, target_id: int) -> bool:
        """Whether the target's type is of the same make as the object's."""
        same_kind = self._target.kind(target_id) in family(self._local.kind(local_id))
        return same_kind and self._are_compatible(local_id, target_id, _MAX_DEPTH)

    def types_match(self, local_id: int, target_id: int) -> bool:
        """Whether the target's type has all that the object's has."""
        return self._do_match(local_id, target_id, False, _MAX_DEPTH)

    def _stripped(self, local_id: int, target_id: int) -> tuple[Type, Type]:
        return (
            self._local[self._local.strip(local_id)],
            self._target[self._target.strip(target_id)],
        )

    def _too_deep(self, local_id: int) -> ObjectFormatError:
        return self._local.error(f"type {local_id} is nested too deeply to compare", local_id)

    def _are_compatible(self, local_id: int, target_id: int, depth: int) -> bool:
        if not depth:
            raise self._too_deep(local_id)
        key = (local_id, target_id)
        if key not in self._compatible:
            self._compatible[key] = self._compare_makes(local_id, target_id, depth)
        return self._compatible[key]

    def _compare_makes(self, local_id: int, target_id: int, depth: int) -> bool:
        for _ in range(_MAX_DEPTH):
            match self._stripped(local_id, target_id):
                case Ptr() as ours, Ptr() as theirs:
                    local_id, target_id = ours.type_id, theirs.type_id
                case Array() as ours, Array() as theirs:
                    local_id, target_id = ours.element_id, theirs.element_id
                case FuncProto() as ours, FuncProto() as theirs:
                    if len(ours.params) != len(theirs.params) or not all(
                        self._are_compatible(one.type_id, other.type_id, depth - 1)
                        for one, other in zip(ours.params, theirs.params, strict=True)
                    ):
                        return False
                    local_id, target_id = ours.return_id, theirs.return_id
                case Int() as ours, Int() as theirs:
                    return not ours.offset and not theirs.offset
                case (Void() | Struct() | Union() | Fwd() | Enum() | Enum64()) as ours, theirs:
                    return theirs.kind in family(ours.kind)
                case _:
                    return False
        raise self._too_deep(local_id)

    def _do_match(self, local_id: int, target_id: int, behind_pointer: bool, depth: int) -> bool:
        if not depth:
            raise self._too_deep(local_id)
        key = (local_id, target_id, behind_pointer)
        if key not in self._matching:
            self._matching[key] = self._compare(local_id, target_id, behind_pointer, depth)
        return self._matching[key]

    def _compare(self, local_id: int, target_id: int, behind_pointer: bool, depth: int) -> bool:
        for _ in range(_MAX_DEPTH):
            local_id = self._local.strip(local_id)
            target_id = self._target.strip(target_id)
            if _name(self._local, local_id) != _name(self._target, target_id):
                return False
            match self._local[local_id], self._target[target_id]:
                case Ptr() as ours, Ptr() as theirs:
                    behind_pointer = True
                    local_id, target_id = ours.type_id, theirs.type_id
                case Array() as ours, Array() as theirs if ours.count == theirs.count:
                    local_id, target_id = ours.element_id, theirs.element_id
                case FuncProto() as ours, FuncProto() as theirs:
                    if len(ours.params) != len(theirs.params) or not all(
                        self._do_match(one.type_id, other.type_id, behind_pointer, depth - 1)
                        for one, other in zip(ours.params, theirs.params, strict=True)
                    ):
                        return False
                    local_id, target_id = ours.return_id, theirs.return_id
                case Int() as ours, Int() as theirs:
                    return (ours.size, ours.is_signed) == (theirs.size, theirs.is_signed)
                case (Enum() | Enum64()) as ours, (Enum() | Enum64()) as theirs:
                    return _enum_matches(ours, theirs)
                case (Struct() | Union()) as ours, (Struct() | Union()) as theirs:
                    if ours.kind != theirs.kind:
                        return False
                    return behind_pointer or self._members_match(ours, theirs, target_id, depth)
                case (Struct() | Union()) as ours, Fwd() as theirs:
                    return behind_pointer and isinstance(ours, Union) == theirs.is_union
                case Fwd() as ours, (Struct() | Union()) as theirs:
                    return behind_pointer and ours.is_union == isinstance(theirs, Union)
                case Fwd() as ours, Fwd() as theirs:
                    return ours.is_union == theirs.is_union
                case Void(), Void():
                    return True
                case _:
                    return False
        raise self._too_deep(local_id)

    def _members_match(
        self, ours: Struct | Union, theirs: Struct | Union, target_id: int, depth: int
    ) -> bool:
        if len(ours.members) > len(theirs.members):
            return False
        by_name = self._members_by_name(theirs, target_id)
        return all(
            any(
                self._do_match(member.type_id, other_id, False, depth - 1)
                for other_id in by_name.get(essential_name(member.name), ())
            )
            for member in ours.members
        )

    def _members_by_name(self, theirs: Struct | Union, target_id: int) -> Mapping[str, list[int]]:
        by_name = self._members.get(target_id)
        if by_name is None:
            collected: dict[str, list[int]] = {}
            for member in theirs.members:
                collected.setdefault(essential_name(member.name), []).append(member.type_id)
            by_name = self._members[target_id] = collected
        return by_name


def _name(btf: Btf, type_id: int) -> str:
    return essential_name(btf.name(type_id))


def _accessible(ours: Type, theirs: Type) -> bool:
    match ours, theirs:
        case (Struct() | Union(), Struct() | Union()) | (Ptr(), Ptr()) | (Float(), Float()):
            return True
        case ((Enum() | Enum64()) as one, (Enum() | Enum64()) as other) | (
            Fwd() as one,
            Fwd() as other,
        ):
            names = essential_name(one.name), essential_name(other.name)
            return not all(names) or names[0] == names[1]
        case Int() as one, Int() as other:
            # An integer that begins with a gap is a bitfield of an old compiler.
            return not one.offset and not other.offset
        case _:
            return False


def _enum_matches(ours: Enum | Enum64, theirs: Enum | Enum64) -> bool:
    if ours.size != theirs.size or len(ours.values) > len(theirs.values):
        return False
    names = {essential_name(name) for name, _ in theirs.values}
    return all(essential_name(name) in names for name, _ in ours.values)
