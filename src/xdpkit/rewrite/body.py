# SPDX-License-Identifier: Apache-2.0
"""A program as the kernel is given it, and the form in which its instructions can be moved.

In a :class:`Body` everything is numbers that count slots. In :class:`Code` a jump refers to the
instruction that it leads to, a call to the function, and the records about functions and source
lines belong to what they are about: instructions can be put in and taken away, and the numbers are
worked out again at the end.
"""

from __future__ import annotations

import itertools
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.isa import Instruction, decode, encode, format_instruction, iter_slots
from xdpkit.isa.forms import INT16
from xdpkit.isa.opcodes import LD_IMM64, SLOT_SIZE
from xdpkit.uapi.bpf import PseudoSrc

_FUNC_INFO = struct.Struct("=II")
_LINE_INFO = struct.Struct("=IIII")

_MAPS = (PseudoSrc.MAP_FD, PseudoSrc.MAP_VALUE)


@dataclass(frozen=True, slots=True)
class Body:
    """What ``BPF_PROG_LOAD`` is told of a program's instructions, in this machine's byte order.

    Attributes:
        code: the instructions, main function first. What loads of maps refer to their maps by
            (descriptors, ids) is left as it is.
        func_info: ``struct bpf_func_info``, 8 bytes each. line_info: ``struct bpf_line_info``, 16
            bytes each. Both are empty for a program without type information.
    """

    code: bytes
    func_info: bytes = b""
    line_info: bytes = b""


@dataclass(slots=True, eq=False)
class Step:
    """An instruction at its place.

    Attributes:
        instruction: what it is; what it says about distances is worked out from the target.
        target: what it leads to: a step for a jump, a function for a call or the load of a
            function's address.
        line: the file, the line's text and its number, as the line record that begins here has
            them.
    """

    instruction: Instruction
    target: Step | Function | None = None
    line: tuple[int, int, int] | None = None


@dataclass(slots=True, eq=False)
class Function:
    """A function of a program.

    Attributes:
        slot: where it was in the body.
        steps: its instructions.
        type_id: of its function record, None without.
    """

    slot: int
    steps: list[Step] = field(default_factory=list)
    type_id: int | None = None

    def prepend(self, steps: Iterable[Step]) -> None:
        """Put steps before the first one; jumps to the first one still lead there."""
        added = list(steps)
        if added:
            # The kernel wants a line record where a function begins.
            added[0].line = self.steps[0].line
            self.steps[:0] = added

    @property
    def callees(self) -> list[Function]:
        """The functions that it calls, or takes the address of; each as often as it does."""
        return [step.target for step in self.steps if isinstance(step.target, Function)]


@dataclass(slots=True, eq=False)
class Code:
    """A program that is being changed: its functions, main first."""

    functions: list[Function]

    @property
    def main(self) -> Function:
        return self.functions[0]

    def function_at(self, slot: int) -> Function | None:
        """Return the function that began at a slot of the body, None if none did."""
        return next((each for each in self.functions if each.slot == slot), None)

    def slots_of(self, steps: Iterable[Step]) -> tuple[int, ...]:
        """Return where steps are now."""
        wanted = set(steps)
        return tuple(slot for slot, step in self.placed() if step in wanted)

    def body(self, *, what: str) -> Body:
        """Return the program as the kernel takes it.

        Args:
            what: what is tried, for errors.

        Raises:
            RequirementUnmet: a jump does not reach its target any more.
        """
        slots: dict[Step | Function, int] = {step: slot for slot, step in self.placed()}
        slots |= {function: slots[function.steps[0]] for function in self.functions}
        instructions = [
            step.instruction
            if step.target is None
            else _aimed(step.instruction, slots[step], slots[step.target], what)
            for function in self.functions
            for step in function.steps
        ]
        return Body(
            encode(instructions, byteorder=sys.byteorder),
            b"".join(
                _FUNC_INFO.pack(slots[function], function.type_id)
                for function in self.functions
                if function.type_id is not None
            ),
            b"".join(
                _LINE_INFO.pack(slot, *step.line)
                for slot, step in self.placed()
                if step.line is not None
            ),
        )

    def placed(self) -> Iterator[tuple[int, Step]]:
        """Yield the steps, each with the slot where it is now."""
        slot = 0
        for function in self.functions:
            for step in function.steps:
                yield slot, step
                slot += step.instruction.slots


def edit(body: Body, *, what: str) -> Code:
    """Return a program in the form in which it can be changed.

    Args:
        body: the program.
        what: what is tried, for errors.

    Raises:
        RequirementUnmet: it has an instruction that is not known.
        ObjectFormatError: a jump leads out of its function or into the middle of an instruction, or
            a record is about what is no instruction. The verifier takes none of these.
    """
    steps: dict[int, Step] = {}
    jumps: dict[int, int] = {}
    others: dict[int, int] = {}
    for slot, instruction in iter_slots(decode(body.code, byteorder=sys.byteorder)):
        form = instruction.form
        if form is None:
            text = format_instruction(instruction)
            raise RequirementUnmet(
                what,
                cause="this version of xdpkit does not know the instruction at slot"
                f" {slot}: {text}",
            )
        steps[slot] = Step(instruction)
        target = instruction.target(slot) if form.displacement else None
        if target is not None:
            (jumps if instruction.is_jump else others)[slot] = target
    if not steps:
        raise ObjectFormatError("the program has no instructions")
    functions = _functions(body, steps, others.values())
    starts = sorted(functions)
    for slot, step in steps.items():
        functions[starts[bisect_right(starts, slot) - 1]].steps.append(step)
    for slot, target in others.items():
        steps[slot].target = functions[target]
    for slot, target in jumps.items():
        if target not in steps or bisect_right(starts, slot) != bisect_right(starts, target):
            raise ObjectFormatError(
                f"the jump at slot {slot} leads to slot {target}, which is no instruction of its"
                " function",
                offset=slot * SLOT_SIZE,
            )
        steps[slot].target = steps[target]
    for slot, *line in _records(_LINE_INFO, body.line_info, "line"):
        if slot not in steps:
            raise _misplaced("a line record", slot)
        steps[slot].line = (line[0], line[1], line[2])
    return Code([functions[start] for start in starts])


def maps_of(body: Body) -> frozenset[int]:
    """Return the maps that a program's loads refer to, by the numbers that they have there.

    The kernel lets a program use 64 (``MAX_USED_MAPS``).

    Raises:
        ObjectFormatError: the code ends within an instruction.
    """
    numbers = map(map_of, decode(body.code, byteorder=sys.byteorder))
    return frozenset(number for number in numbers if number is not None)


def map_of(instruction: Instruction) -> int | None:
    """Return the number of the map that an instruction loads, or an address in its value."""
    if instruction.opcode == LD_IMM64 and instruction.src in _MAPS:
        return instruction.imm & 0xFFFFFFFF
    return None


def function_records(body: Body) -> dict[int, int]:
    """Return the type id of each function that has a record, by slot.

    Raises:
        ObjectFormatError: the records are cut off, or out of order.
    """
    return {record[0]: record[1] for record in _records(_FUNC_INFO, body.func_info, "function")}


def _functions(
    body: Body, steps: Mapping[int, Step], callees: Iterable[int]
) -> dict[int, Function]:
    records = function_records(body)
    entries = {0, *records, *callees}
    for entry in entries:
        if entry not in steps:
            raise _misplaced("a function", entry)
    return {entry: Function(entry, type_id=records.get(entry)) for entry in sorted(entries)}


def _records(layout: struct.Struct, data: bytes, what: str) -> Sequence[tuple[int, ...]]:
    if len(data) % layout.size:
        raise ObjectFormatError(f"the {what} records are no multiple of {layout.size} bytes")
    records = list(layout.iter_unpack(data))
    slots = [record[0] for record in records]
    if any(second <= first for first, second in itertools.pairwise(slots)):
        raise ObjectFormatError(f"the {what} records are not in the order of the instructions")
    return records


def _misplaced(what: str, slot: int) -> ObjectFormatError:
    return ObjectFormatError(
        f"{what} is at slot {slot}, where no instruction begins", offset=slot * SLOT_SIZE
    )


def _aimed(instruction: Instruction, slot: int, target: int, what: str) -> Instruction:
    distance = target - slot - 1
    if instruction.opcode == LD_IMM64:
        return replace(instruction, imm=instruction.imm >> 32 << 32 | distance & 0xFFFFFFFF)
    form = instruction.form
    assert form is not None
    if form.displacement == "imm":
        return replace(instruction, imm=distance)
    if distance in INT16:
        return replace(instruction, offset=distance)
    raise RequirementUnmet(
        what,
        cause=f"the jump at slot {slot} would have to reach {distance:+d} instructions, and a jump"
        f" reaches {INT16[-1]}",
    )
