# SPDX-License-Identifier: Apache-2.0
"""Finding a place of the object's types in a candidate of the target's."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.btf import Btf, essential_name
from xdpkit.btf.types import Array, Enum, Enum64, Member, Struct, Union
from xdpkit.obj.core.access import MAX_STEPS, Access, Step, is_flexible, size_of
from xdpkit.obj.core.relation import Relation


def find_field(local: Access, target: Btf, root_id: int, relation: Relation) -> Access | None:
    """Return where the candidate ``root_id`` has the field, or None if it has not.

    Raises:
        Unfit: a type on the way has no size.
    """
    at = root_id
    bits = 0
    steps: list[Step] = []
    for step in local.steps:
        at = target.strip(at)
        if step.name is None:
            # The first step is along the pointer: the candidate is the element itself.
            if steps:
                array = target[at]
                if not isinstance(array, Array):
                    return None
                if step.index >= array.count and not is_flexible(target, steps[-1], array.count):
                    return None
                at = target.strip(array.element_id)
            steps.append(Step(at, step.index))
            bits += step.index * size_of(target, at) * 8
        else:
            found = _Search(_member(local.btf, step), local.btf, target, relation).within(at, 0)
            if found is None:
                return None
            steps.append(found.step)
            bits += found.bit_offset
            at = found.type_id
    return Access(target, root_id, tuple(steps), bits)


def find_enumerator(local: Access, target: Btf, root_id: int) -> Access | None:
    """Return where the candidate has the enumerator, or None if it has not."""
    holder_id = target.strip(root_id)
    holder = target[holder_id]
    if not isinstance(holder, Enum | Enum64):
        return None
    wanted = essential_name(local.steps[0].name or "")
    for index, (name, _) in enumerate(holder.values):
        if name.startswith(wanted) and essential_name(name) == wanted:
            return Access(target, root_id, (Step(holder_id, index, name),))
    return None


def _member(btf: Btf, step: Step) -> Member:
    holder = btf[step.type_id]
    assert isinstance(holder, Struct | Union)
    return holder.members[step.index]


@dataclass(frozen=True, slots=True)
class _Found:
    step: Step
    type_id: int
    bit_offset: int


class _Search:
    """Looks for one member by name, through anonymous structs and unions."""

    def __init__(self, wanted: Member, local: Btf, target: Btf, relation: Relation) -> None:
        self._wanted = wanted
        self._local = local
        self._target = target
        self._relation = relation
        # An anonymous type that lacks the member lacks it wherever it is embedded: types that
        # embed each other many times over cost no more than their number.
        self._without: set[int] = set()

    def within(self, type_id: int, depth: int) -> _Found | None:
        """Return the member of a struct or union; of one that is not compatible, None."""
        type_id = self._target.strip(type_id)
        if type_id in self._without:
            return None
        if depth == MAX_STEPS:
            raise self._target.error(f"type {type_id} is embedded too deeply", type_id)
        found = self._scan(type_id, depth)
        if found is None:
            self._without.add(type_id)
        return found

    def _scan(self, type_id: int, depth: int) -> _Found | None:
        holder = self._target[type_id]
        if not isinstance(holder, Struct | Union):
            return None
        for index, member in enumerate(holder.members):
            if not member.name:
                found = self.within(member.type_id, depth + 1)
                if found is not None:
                    return _Found(found.step, found.type_id, found.bit_offset + member.bit_offset)
            elif member.name == self._wanted.name:
                if self._relation.fields_compatible(self._wanted.type_id, member.type_id):
                    step = Step(type_id, index, member.name)
                    return _Found(step, member.type_id, member.bit_offset)
                return None
        return None
