# SPDX-License-Identifier: Apache-2.0
"""A place in a type, and the compiler's way to write it down: the access string.

``"0:1:2"`` is read as ``&p[0]``, member 1 of what ``p`` points to, then member (or element) 2 of
that. For an enumerator the string is its index; for a whole type it is ``"0"``.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from xdpkit.btf import Btf
from xdpkit.btf.types import Array, Enum, Enum64, Struct, Union
from xdpkit.errors import ObjectFormatError
from xdpkit.uapi.bpf import CoreReloKind

MAX_STEPS = 64
_MAX_INDEX = 0x7FFFFFFF
_MAX_BITS = 0xFFFFFFFF
# Ten digits hold every index that is allowed.
_ACCESS = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})*")


class Unfit(Exception):
    """Types that are well-formed have no usable answer to the question.

    Who is to blame depends on whose types they are: the caller knows.
    """

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


class Subject(enum.Enum):
    """What a relocation is about."""

    FIELD = "field"
    TYPE = "type"
    ENUMERATOR = "enumerator"


_SUBJECTS_BY_PREFIX = {
    "FIELD": Subject.FIELD,
    "TYPE": Subject.TYPE,
    "ENUMVAL": Subject.ENUMERATOR,
}
SUBJECTS = {kind: _SUBJECTS_BY_PREFIX[kind.name.partition("_")[0]] for kind in CoreReloKind}


@dataclass(frozen=True, slots=True)
class Step:
    """One step into a type, as a person would write it: ``.name`` or ``[index]``.

    Attributes:
        type_id: the struct, union or enum that has the member or enumerator; of an element, its
            own type. Never a typedef or qualifier.
        index: number of the member, enumerator or element.
        name: the member's or enumerator's; None for an element.
    """

    type_id: int
    index: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A place in a type.

    Attributes:
        btf: where the types are.
        root_id: the type it starts from, as the relocation names it (a typedef, maybe).
        steps: the way to a field, beginning with the element of what the pointer points to;
            anonymous structs and unions are no step. A single step for an enumerator. Empty for a
            whole type.
        bit_offset: from the pointer.
    """

    btf: Btf
    root_id: int
    steps: tuple[Step, ...] = ()
    bit_offset: int = 0


def parse(btf: Btf, type_id: int, text: str, subject: Subject) -> Access:
    """Return the place that an access string means.

    Raises:
        ObjectFormatError: the string or a type is malformed, or an index is out of range.
        Unfit: the type has no size.
    """
    path = _numbers(text)
    if subject is Subject.TYPE:
        btf.kind(type_id)
        if path != (0,):
            raise ObjectFormatError(f"access {text!r} of a whole type is not '0'")
        return Access(btf, type_id)
    if subject is Subject.ENUMERATOR:
        return _enumerator(btf, type_id, path)
    return _field(btf, type_id, path)


def size_of(btf: Btf, type_id: int) -> int:
    """Return a type's size in bytes.

    Raises:
        Unfit: it has none.
    """
    try:
        return btf.sizeof(type_id)
    except ObjectFormatError as error:
        raise Unfit(error.cause) from error


def is_flexible(btf: Btf, step: Step, count: int) -> bool:
    """Whether an array of ``count`` elements that ``step`` led to has as many as one likes.

    So it is when it has none and is the last member; anywhere else, 0 means 0.
    """
    holder = btf[step.type_id]
    return (
        not count
        and step.name is not None
        and isinstance(holder, Struct | Union)
        and step.index == len(holder.members) - 1
    )


def _numbers(text: str) -> tuple[int, ...]:
    if not _ACCESS.fullmatch(text):
        raise ObjectFormatError(f"malformed access {_shortened(text)}")
    path = tuple(map(int, text.split(":")))
    if len(path) > MAX_STEPS:
        raise ObjectFormatError(f"access has {len(path)} steps, more than {MAX_STEPS}")
    if max(path) > _MAX_INDEX:
        raise ObjectFormatError(f"index {max(path)} is out of range")
    return path


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 64 else f"{text[:64]!r}…"


def _enumerator(btf: Btf, type_id: int, path: tuple[int, ...]) -> Access:
    holder_id = btf.strip(type_id)
    holder = btf[holder_id]
    if not isinstance(holder, Enum | Enum64):
        raise ObjectFormatError(f"{btf.kind(holder_id).name} has no enumerators")
    if len(path) != 1:
        raise ObjectFormatError("access of an enumerator has more than one step")
    index = path[0]
    if index >= len(holder.values):
        raise ObjectFormatError(f"enumerator {index} of {len(holder.values)} does not exist")
    return Access(btf, type_id, (Step(holder_id, index, holder.values[index][0]),))


def _field(btf: Btf, type_id: int, path: tuple[int, ...]) -> Access:
    at = btf.strip(type_id)
    steps = [Step(at, path[0])]
    bits = path[0] * size_of(btf, at) * 8
    for index in path[1:]:
        at = btf.strip(at)
        holder = btf[at]
        if isinstance(holder, Struct | Union):
            if index >= len(holder.members):
                raise ObjectFormatError(f"member {index} of {len(holder.members)} does not exist")
            member = holder.members[index]
            bits += member.bit_offset
            if member.name:
                steps.append(Step(at, index, member.name))
            at = member.type_id
        elif isinstance(holder, Array):
            if index >= holder.count and not is_flexible(btf, steps[-1], holder.count):
                raise ObjectFormatError(f"element {index} of {holder.count} does not exist")
            at = btf.strip(holder.element_id)
            steps.append(Step(at, index))
            bits += index * size_of(btf, at) * 8
        else:
            raise ObjectFormatError(f"{btf.kind(at).name} has neither members nor elements")
    if bits > _MAX_BITS:
        raise ObjectFormatError(f"offset of {bits} bits is out of range")
    return Access(btf, type_id, tuple(steps), bits)
