# SPDX-License-Identifier: Apache-2.0
"""Candidates for the object's types, and what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.btf import Btf, Kind, essential_name
from xdpkit.btf.types import Int, IntEncoding, Ptr
from xdpkit.errors import ObjectFormatError
from xdpkit.obj.core.access import SUBJECTS, Access, Subject, Unfit, parse
from xdpkit.obj.core.match import find_enumerator, find_field
from xdpkit.obj.core.relation import Relation, family
from xdpkit.obj.core.value import Value, absent, evaluate
from xdpkit.uapi.bpf import CoreReloKind

if TYPE_CHECKING:
    from xdpkit.obj.spec import CoreRelocation


@dataclass(frozen=True, slots=True)
class Candidate:
    """A type of the target that may be the object's."""

    btf: Btf
    type_id: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an instruction has to become.

    Attributes:
        value: what to write, unsigned, 64 bits; None to poison.
        expected: what the instruction must hold now; None if it is not known.
        sizes: for a load or store, bytes of the field in the object's types and in the target's.
        is_resizable: whether a load or store of the one size may become one of the other: widened
            with zeros, an unsigned integer or a pointer stays what it is.
    """

    value: int | None
    expected: int | None = None
    sizes: tuple[int, int] = (0, 0)
    is_resizable: bool = True


_POISONED = Outcome(None)


class Resolver:
    """Resolves the relocations of one object against one set of targets.

    It remembers candidates and outcomes: a relocation that repeats costs a look-up.
    """

    def __init__(self, local: Btf, targets: Sequence[Btf]) -> None:
        self._local = local
        self._targets = targets
        self._relations: dict[Btf, Relation] = {}
        self._found: dict[tuple[str, tuple[Kind, ...]], tuple[Candidate, ...]] = {}
        # By local type: the candidates that no relocation has ruled out so far.
        self._remaining: dict[int, tuple[Candidate, ...]] = {}
        self._outcomes: dict[tuple[int, str, int], Outcome] = {}

    def resolve(self, relocation: CoreRelocation) -> Outcome:
        """Return what the relocation's instruction has to become.

        Raises:
            ObjectFormatError: the relocation is malformed.
            Unfit: the target's types give no usable answer.
        """
        key = (relocation.type_id, relocation.access, relocation.kind)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._resolve(relocation)
        return outcome

    def _resolve(self, relocation: CoreRelocation) -> Outcome:
        try:
            kind = CoreReloKind(relocation.kind)
        except ValueError:
            raise ObjectFormatError("unknown kind of CO-RE relocation") from None
        try:
            access = parse(self._local, relocation.type_id, relocation.access, SUBJECTS[kind])
            ours = evaluate(kind, access)
        except Unfit as unfit:
            raise ObjectFormatError(unfit.cause) from unfit
        if kind is CoreReloKind.TYPE_ID_LOCAL:
            return Outcome(ours.number)
        found = self._ask(kind, access)
        if found is None:
            theirs = absent(kind)
            return _POISONED if theirs is None else _outcome(ours, theirs)
        place, theirs = found
        return _outcome(ours, theirs, _is_resizable(access, ours, place, theirs))

    def _ask(self, kind: CoreReloKind, access: Access) -> tuple[Access, Value] | None:
        """Return the answer that all candidates which have the place agree on."""
        answer: tuple[Access, Value] | None = None
        fitting = []
        for candidate in self._candidates(access.root_id):
            place = self._place(kind, access, candidate)
            if place is None:
                continue
            fitting.append(candidate)
            try:
                value = evaluate(kind, place)
            except ObjectFormatError as error:
                raise Unfit(error.cause) from error
            if answer is None:
                answer = place, value
            elif (place.bit_offset, value.number) != (answer[0].bit_offset, answer[1].number):
                raise Unfit(_contradiction(fitting[0], answer, candidate, (place, value)))
        if fitting:
            self._remaining[access.root_id] = tuple(fitting)
        return answer

    def _place(self, kind: CoreReloKind, access: Access, candidate: Candidate) -> Access | None:
        target, type_id = candidate.btf, candidate.type_id
        match SUBJECTS[kind]:
            case Subject.FIELD:
                return find_field(access, target, type_id, self._relation(target))
            case Subject.ENUMERATOR:
                return find_enumerator(access, target, type_id)
            case Subject.TYPE:
                relation = self._relation(target)
                corresponds = (
                    relation.types_match
                    if kind is CoreReloKind.TYPE_MATCHES
                    else relation.types_compatible
                )
                found = corresponds(access.root_id, type_id)
                return Access(target, type_id) if found else None

    def _relation(self, target: Btf) -> Relation:
        relation = self._relations.get(target)
        if relation is None:
            relation = self._relations[target] = Relation(self._local, target)
        return relation

    def _candidates(self, type_id: int) -> tuple[Candidate, ...]:
        remaining = self._remaining.get(type_id)
        if remaining is None:
            name = essential_name(self._local.name(type_id))
            if not name:
                raise ObjectFormatError("an anonymous type cannot be looked up")
            key = name, family(self._local.kind(type_id))
            if key not in self._found:
                self._found[key] = self._search(*key)
            remaining = self._remaining[type_id] = self._found[key]
        return remaining

    def _search(self, name: str, kinds: tuple[Kind, ...]) -> tuple[Candidate, ...]:
        if not self._targets:
            raise Unfit("no types of a kernel (BTF) were given to look it up in")
        # One by one: to have a module's types may cost a system call, and a privilege.
        targets = iter(self._targets)
        kernel = next(targets)
        found = tuple(Candidate(kernel, type_id) for type_id in kernel.find_flavours(name, *kinds))
        return found or tuple(
            Candidate(module, type_id)
            for module in targets
            for type_id in module.find_flavours(name, *kinds)
            if type_id >= module.first_id
        )


def _outcome(ours: Value, theirs: Value, is_resizable: bool = True) -> Outcome:
    return Outcome(
        theirs.number,
        ours.number if ours.is_exact else None,
        (ours.memory_size, theirs.memory_size),
        is_resizable,
    )


def _is_resizable(access: Access, ours: Value, place: Access, theirs: Value) -> bool:
    match access.btf[ours.memory_type], place.btf[theirs.memory_type]:
        case Ptr(), Ptr():
            return True
        case Int(encoding=one), Int(encoding=other):
            return IntEncoding.SIGNED not in (one, other)
        case _:
            return False


def _contradiction(
    first: Candidate,
    first_answer: tuple[Access, Value],
    other: Candidate,
    answer: tuple[Access, Value],
) -> str:
    def told(candidate: Candidate, place: Access, value: Value) -> str:
        at = f" at bit {place.bit_offset}" if place.steps and place.steps[-1].name else ""
        return f"type {candidate.type_id} says {value.number}{at}"

    return (
        f"the target has several types of this name that contradict each other: "
        f"{told(first, *first_answer)}, {told(other, *answer)}"
    )
