# SPDX-License-Identifier: Apache-2.0
"""Which instructions of a program read the fields, and what cannot be provided of what they do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from xdpkit.analysis import CauseKind, ContextAccess
from xdpkit.context.fields import BASE, Field, field_at
from xdpkit.context.program import Program

_GAVE_UP = frozenset({CauseKind.TOO_COMPLEX, CauseKind.UNKNOWN_INSTRUCTION})


@dataclass(frozen=True, slots=True)
class Access:
    """A load of a field, or of a part of one.

    Attributes:
        slot: of the instruction.
        field: the field.
        skipped: bytes of it that are before those that are read. size: how many are.
    """

    slot: int
    field: Field
    skipped: int
    size: int


def accesses(program: Program) -> tuple[Access, ...]:
    """Return the loads of fields, by slot.

    Raises:
        RequirementUnmet: the program does with the fields what cannot be provided.
    """
    _require_followed(program)
    _require_no_address(program)
    by_slot: defaultdict[int, list[ContextAccess]] = defaultdict(list)
    for each in program.found.context:
        for origin in each.origins:
            by_slot[origin.slot].append(each)
    return tuple(
        _access(program, slot, kinds)
        for slot, kinds in sorted(by_slot.items())
        if any(each.offset >= BASE for each in kinds)
    )


def _require_followed(program: Program) -> None:
    found = program.found
    gave_up = any(reason.cause.kind in _GAVE_UP for reason in found.actions.unknown)
    if gave_up and program.declared.takes_fields():
        raise program.refusal(
            "which of its instructions read the fields cannot be found out:"
            f" {'; '.join(found.notes)}",
            "if it reads none of them, have its main function take a struct xdp_md",
        )


def _require_no_address(program: Program) -> None:
    """Check that nobody else gets the address of a field: there is nothing."""
    for offset, origins in program.found.addresses.items():
        if offset >= BASE:
            name = _place_name(program, offset) or f"what is at offset {offset} of its context"
            raise program.refusal(
                f"it takes the address of {name} ({program.declared.place(origins[0].slot)})",
                "copy it into a variable, and take the address of that",
            )


def _access(program: Program, slot: int, kinds: list[ContextAccess]) -> Access:
    """Return what an instruction reads, if that is one field and nothing else."""
    kind = kinds[0]
    names = " or ".join(dict.fromkeys(_name(program, each) for each in kinds))
    place = program.declared.place(slot)
    if any(each.is_write for each in kinds):
        raise program.refusal(f"it writes {names} ({place}), which can only be read")
    if len(kinds) > 1:
        raise program.refusal(
            f"it reads {names} with one instruction ({place}), and which of them is not known"
            " beforehand",
            "copy each of them into a volatile variable, and choose between those",
        )
    if slot in program.found.ambiguous:
        function = max(use.slot for use in program.found.functions if use.slot <= slot)
        if function in program.found.generalised:
            raise program.refusal(
                f"{program.declared.name(function)} reads {names} ({place}), and is called in more"
                " ways than can be followed, so that it may be something else that it reads",
                f"read {names} in the main function, and pass its value on",
            )
        raise program.refusal(
            f"it reads {names} or something else with one instruction ({place}), and which of them"
            " is not known beforehand",
            f"copy {names} into a volatile variable, and choose between that and the other",
        )
    field = field_at(kind.offset)
    if field is None:
        raise program.refusal(
            f"it reads {names} ({place}), which this version of xdpkit does not provide",
            "use the version of xdpkit whose xdpkit.h it was compiled with, or a later one",
        )
    if kind.offset + kind.size > field.end:
        raise program.refusal(
            f"it reads {kind.size} bytes at {names} ({place}), and the field ends before that",
            "read each field by itself",
        )
    return Access(slot, field, kind.offset - field.offset, kind.size)


def _name(program: Program, kind: ContextAccess) -> str:
    if kind.offset >= BASE:
        name = _place_name(program, kind.offset)
        return name or f"{kind.size} bytes at offset {kind.offset} of its context"
    return kind.name or "another part of its context"


def _place_name(program: Program, offset: int) -> str | None:
    """Return what is at an offset beyond the kernel's fields."""
    field = field_at(offset)
    return program.declared.field_name(offset) if field is None else field.name
