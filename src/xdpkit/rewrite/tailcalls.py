# SPDX-License-Identifier: Apache-2.0
"""Which programs are to count, where programs tail-call one another.

What the kernel gets is what the last of them returns, so that is where it is counted:

- A tail call from a main function does not come back: the program that is called (the *leaf*)
  returns in its place, and its returns are counted as if they were the caller's.
- A tail call from a subprogram ends the subprogram only: the leaf's value goes to the function that
  called it, and must not be counted. The same holds for whatever that leaf tail-calls in turn.

What is said here of counting holds for reporting frames, too (:mod:`xdpkit.rewrite.tap`).

So a leaf that is reached both ways is there twice, as it was and as a copy that counts; and so is
the program array, where the same one is used both ways. The copy that does not count is the program
as it was loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdpkit.analysis import analyse
from xdpkit.isa.opcodes import LD_IMM64
from xdpkit.rewrite.body import Body, edit
from xdpkit.rewrite.subject import subject_of_body
from xdpkit.uapi.bpf import PseudoSrc


@dataclass(frozen=True, slots=True)
class Member:
    """A program that may tail-call, or be tail-called.

    Attributes:
        name: its name.
        body: its instructions, None where they are not to be had: others loaded it.
    """

    name: str
    body: Body | None


@dataclass(frozen=True, slots=True)
class CountingPlan:
    """What is to be done so that each packet is counted once.

    Programs and arrays have the numbers that :func:`plan_counting` was given.

    Attributes:
        counted: programs of which a copy that counts is needed, the first one always.
        uncounted: programs that are called from subprograms, and so are needed as they are. Those
            in both are needed twice.
        arrays: program arrays whose members are to be copies that count, as far as there are any.
        original_arrays: those whose members are to stay as they are. Those in both are needed
            twice.
        loads: for each program that counts, the loads (by slot of its body as it is now) that are
            to load an array of copies that count, and the array that they load now.
        not_counted: what is not counted, in sentences.
    """

    counted: frozenset[int]
    uncounted: frozenset[int]
    arrays: frozenset[int]
    original_arrays: frozenset[int]
    loads: Mapping[int, Mapping[int, int]]
    not_counted: tuple[str, ...]


def plan_counting(
    first: int,
    members: Mapping[int, Member],
    arrays: Mapping[int, Mapping[int, int]],
    *,
    throw: int | None = None,
    verb: str = "counted",
) -> CountingPlan:
    """Return which programs are to count.

    Args:
        first: the program that is run for a packet.
        members: all programs, by number.
        arrays: what is in the program arrays that they use: the program in each slot, by the
            number that the programs' loads have for the array.
        throw: BTF id of ``bpf_throw`` in the kernel, None where there is none.
        verb: what is to be done with what they return, for sentences: "reported", say.

    Raises:
        ObjectFormatError: a body contradicts itself.
        RequirementUnmet: a body has instructions that are not known.
    """
    return _Planner(members, arrays, throw, verb).plan(first)


@dataclass(frozen=True, slots=True)
class _Jump:
    """A tail call: the array, its slots (None: any), and whether the kernel gets what returns."""

    array: int
    slots: frozenset[int] | None
    ends: bool


class _Planner:
    def __init__(
        self,
        members: Mapping[int, Member],
        arrays: Mapping[int, Mapping[int, int]],
        throw: int | None,
        verb: str,
    ) -> None:
        self._verb = verb
        self._members = members
        self._contents = arrays
        self._throw = throw
        self._notes: dict[str, None] = {}
        self._loads: dict[int, dict[int, int]] = {}
        self._jumps: dict[int, list[_Jump]] = {}
        # Programs and arrays; with True as those that count.
        self._programs: set[tuple[int, bool]] = set()
        self._arrays: set[tuple[int, bool]] = set()

    def plan(self, first: int) -> CountingPlan:
        waiting = [(first, True)]
        while waiting:
            number, ends = waiting.pop()
            if (number, ends) in self._programs:
                continue
            member = self._members.get(number)
            if member is None or member.body is None:
                if not ends:
                    continue
                name = f"program {number}" if member is None else f"{member.name} (id {number})"
                self._note(
                    f"What {name} returns is not {self._verb}: its instructions were not kept with"
                    " it."
                )
                continue
            self._programs.add((number, ends))
            waiting += self._reached(number, member, member.body, ends)
        return CountingPlan(
            counted=frozenset(number for number, ends in self._programs if ends),
            uncounted=frozenset(number for number, ends in self._programs if not ends),
            arrays=frozenset(number for number, ends in self._arrays if ends),
            original_arrays=frozenset(number for number, ends in self._arrays if not ends),
            loads={
                number: loads
                for number, loads in self._loads.items()
                if loads and (number, True) in self._programs
            },
            not_counted=tuple(self._notes),
        )

    def _note(self, text: str) -> None:
        # In the order in which they are found, each once.
        self._notes[text] = None

    def _reached(
        self, number: int, member: Member, body: Body, ends: bool
    ) -> Iterator[tuple[int, bool]]:
        if number not in self._jumps:
            self._jumps[number] = list(self._find_jumps(number, member, body))
        for jump in self._jumps[number]:
            counts = ends and jump.ends
            self._arrays.add((jump.array, counts))
            contents = self._contents.get(jump.array)
            if contents is None and counts:
                self._note(
                    f"What {member.name} reaches through program array {jump.array} is not"
                    f" {self._verb}: what is in it is not known."
                )
            for slot, program in (contents or {}).items():
                if jump.slots is None or slot in jump.slots:
                    yield program, counts

    def _find_jumps(self, number: int, member: Member, body: Body) -> Iterator[_Jump]:
        """Yield the tail calls of a program, and take down its loads of arrays that count."""
        calls = analyse(subject_of_body(body, self._throw)).tail_calls
        if not calls:
            return
        code = edit(body, what=f"count what {member.name} returns")
        end = sum(step.instruction.slots for step in code.main.steps)
        loads = {
            slot: step.instruction.imm & 0xFFFFFFFF
            for slot, step in code.placed()
            if step.instruction.opcode == LD_IMM64 and step.instruction.src == PseudoSrc.MAP_FD
        }
        in_main = {slot: array for slot, array in loads.items() if slot < end}
        elsewhere = {array for slot, array in loads.items() if slot >= end}
        ending: set[int] = set()
        others: set[int] = set()
        found: list[_Jump] = []
        for call in calls:
            used = {int(name) for name in call.arrays if name.isdigit()}
            # Where it is not known which array, it may be any that the program has.
            for array in used or set(loads.values()) & self._contents.keys():
                found.append(_Jump(array, call.indices, not call.in_subprogram))
                (others if call.in_subprogram else ending).add(array)
        mixed = ending & others - elsewhere
        for array in mixed:
            self._note(
                f"What {member.name} reaches through program array {array} is not {self._verb}: its"
                " main function hands the array to a subprogram that tail-calls, too."
            )
        self._loads[number] = {
            slot: array for slot, array in in_main.items() if array in ending - mixed
        }
        for jump in found:
            yield _Jump(jump.array, jump.slots, jump.ends and jump.array not in mixed)
