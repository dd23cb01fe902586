# SPDX-License-Identifier: Apache-2.0
"""Control flow of a linked program: blocks, their order, and which registers are still needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from xdpkit.analysis.effects import HELPER_EFFECTS, KFUNC_EFFECTS
from xdpkit.analysis.subject import Reference
from xdpkit.errors import ObjectFormatError
from xdpkit.isa import CallKind, Instruction, Kind, iter_slots
from xdpkit.isa.forms import ARGUMENTS, CALLER_SAVED
from xdpkit.isa.opcodes import SLOT_SIZE, AluOp, Class, Source

ALL_REGISTERS = (1 << 11) - 1
_ARGUMENTS = sum(1 << register for register in ARGUMENTS)
_CALLER_SAVED = sum(1 << register for register in CALLER_SAVED)

_NO_REFERENCES: Mapping[int, Reference] = MappingProxyType({})

_MAX_EDGES_APART = 16
_MAX_STEPS_APART = 32

_LSH64 = Class.ALU64 | AluOp.LSH | Source.K
_RSH64 = Class.ALU64 | AluOp.RSH | Source.K
_ARSH64 = Class.ALU64 | AluOp.ARSH | Source.K


class Step(NamedTuple):
    """An instruction at its place.

    Attributes:
        slot: where it is. instruction: what it is.
        kind: what it does; None: nobody knows.
        uses, defines: bit masks of the registers that it reads and that it changes.
    """

    slot: int
    instruction: Instruction
    kind: Kind | None
    uses: int
    defines: int


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions that run one after the other.

    Attributes:
        start: slot of the first one.
        steps: all of them; only the last can be a jump or an exit.
        slots: where the instructions begin, also those that steps has joined into one.
        next: the block that it falls through to, None if it does not.
        target: the block that it can jump to, None if it does not.
    """

    start: int
    steps: tuple[Step, ...]
    slots: tuple[int, ...]
    next: int | None
    target: int | None

    @property
    def successors(self) -> tuple[int, ...]:
        """The blocks that may come after it."""
        return tuple(block for block in (self.next, self.target) if block is not None)


@dataclass(frozen=True, slots=True)
class Body:
    """The blocks of one function.

    Attributes:
        order: position of each block in reverse postorder.
        heads: blocks that an edge leads back to; each cycle has one.
        back_edges: slots of the instructions with such an edge.
        live: bit mask of the registers that are needed from each block on.
        apart: blocks that are worth following once for each block before them. Compilers make
            selections of several branches on the same register, one after the other.
    """

    order: dict[int, int]
    heads: frozenset[int]
    back_edges: frozenset[int]
    live: dict[int, int]
    apart: frozenset[int]


class Graph:
    """The control flow of a linked program.

    Args:
        instructions: the program.
        entries: where functions begin, beside those that are called or whose address is taken.
        references: by slot, what instructions refer to, as far as it is known.

    Raises:
        ObjectFormatError: there are no instructions, a jump or call leads out of the program or
            into the middle of an instruction, no instruction is where a function begins, or control
            runs off the end.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        entries: Iterable[int] = (),
        references: Mapping[int, Reference] = _NO_REFERENCES,
    ) -> None:
        if not instructions:
            raise ObjectFormatError("the program has no instructions", offset=0)
        steps = [
            _step(slot, instruction, references.get(slot))
            for slot, instruction in iter_slots(instructions)
        ]
        self.size = steps[-1].slot + steps[-1].instruction.slots
        """Number of slots."""
        self.entries = {0, *entries}
        """Slots where functions begin."""
        for step in steps:
            target = step.instruction.target(step.slot)
            if target is not None and step.kind in (Kind.CALL, Kind.CONSTANT):
                self.entries.add(target)
        self.blocks = _blocks(steps, self.size, self.entries)
        self._bodies: dict[int, Body] = {}
        self._entering: set[int] = set()

    def body(self, entry: int) -> Body:
        """Return the function that begins at a slot."""
        body = self._bodies.get(entry)
        if body is None:
            self._entering.add(entry)
            body = self._bodies[entry] = self._make_body(entry)
            self._entering.discard(entry)
        return body

    def arguments(self, entry: int) -> int:
        """Return the bit mask of the argument registers that a function reads."""
        return self.body(entry).live[entry] & _ARGUMENTS

    def _make_body(self, entry: int) -> Body:
        postorder: list[int] = []
        visited = {entry}
        path = [(entry, iter(self.blocks[entry].successors))]
        while path:
            block, successors = path[-1]
            following = next((s for s in successors if s not in visited), None)
            if following is None:
                postorder.append(block)
                path.pop()
            else:
                visited.add(following)
                path.append((following, iter(self.blocks[following].successors)))
        order = {block: position for position, block in enumerate(reversed(postorder))}
        back = {
            (block, successor)
            for block in order
            for successor in self.blocks[block].successors
            if order[successor] <= order[block]
        }
        return Body(
            order,
            frozenset(head for _, head in back),
            frozenset(self.blocks[block].steps[-1].slot for block, _ in back),
            self._live(postorder),
            frozenset(self._apart(order)),
        )

    def _apart(self, order: Iterable[int]) -> Iterator[int]:
        before = Counter(
            successor for block in order for successor in self.blocks[block].successors
        )
        for block, edges in before.items():
            if 1 < edges <= _MAX_EDGES_APART and len(self.blocks[block].steps) <= _MAX_STEPS_APART:
                yield block

    def _live(self, postorder: list[int]) -> dict[int, int]:
        masks = {block: self._uses_and_defines(block) for block in postorder}
        live = dict.fromkeys(postorder, 0)
        changed = True
        while changed:
            changed = False
            for block in postorder:
                after = 0
                for successor in self.blocks[block].successors:
                    after |= live[successor]
                uses, defines = masks[block]
                needed = uses | after & ~defines
                if needed != live[block]:
                    live[block] = needed
                    changed = True
        return live

    def _uses_and_defines(self, block: int) -> tuple[int, int]:
        uses = defines = 0
        for step in reversed(self.blocks[block].steps):
            needed = step.uses
            if step.kind is Kind.CALL and step.instruction.src == CallKind.SUBPROGRAM:
                needed = self._callee_arguments(step)
            uses = uses & ~step.defines | needed
            defines |= step.defines
        return uses, defines

    def _callee_arguments(self, step: Step) -> int:
        callee = step.instruction.target(step.slot)
        assert callee is not None
        # A function that calls itself is refused by the verifier, and a deep chain of calls too.
        if callee in self._entering or len(self._entering) > 64:
            return _ARGUMENTS
        return self.arguments(callee)


def _step(slot: int, instruction: Instruction, reference: Reference | None) -> Step:
    form = instruction.form
    if form is None:
        return Step(slot, instruction, None, ALL_REGISTERS, 0)
    fields = {"dst": instruction.dst, "src": instruction.src}
    uses = defines = 0
    for operand in form.uses:
        uses |= 1 << (fields[operand] if isinstance(operand, str) else operand)
    for operand in form.defines:
        defines |= 1 << (fields[operand] if isinstance(operand, str) else operand)
    if form.kind is Kind.CALL:
        arguments = _argument_count(instruction, reference)
        if arguments is not None:
            uses = (2 << arguments) - 2 & _ARGUMENTS
    return Step(slot, instruction, form.kind, uses, defines)


def _argument_count(call: Instruction, reference: Reference | None) -> int | None:
    """Return how many arguments a helper or kernel function takes, None if that is not known."""
    if call.src == CallKind.HELPER:
        effect = HELPER_EFFECTS.get(call.imm)
        return None if effect is None else effect.arguments
    if call.src != CallKind.KFUNC or reference is None:
        return None
    effect = KFUNC_EFFECTS.get(reference.name)
    return reference.arguments if effect is None else effect.arguments


def _blocks(steps: list[Step], size: int, entries: Iterable[int]) -> dict[int, Block]:
    starts = {step.slot for step in steps}
    targets: dict[int, int] = {}
    leaders = set(entries)
    for entry in leaders - starts:
        raise ObjectFormatError(f"a function begins at slot {entry}, where no instruction is")
    for step in steps:
        target = step.instruction.target(step.slot)
        if target is not None:
            if target not in starts:
                raise ObjectFormatError(
                    f"the instruction at slot {step.slot} leads to slot {target}, where none is",
                    offset=step.slot * SLOT_SIZE,
                )
            leaders.add(target)
            if step.kind in (Kind.JUMP, Kind.BRANCH):
                targets[step.slot] = target
        if step.kind in (Kind.JUMP, Kind.BRANCH, Kind.EXIT):
            leaders.add(step.slot + 1)
    _check_end(steps[-1])
    blocks: dict[int, Block] = {}
    part: list[Step] = []
    for step in steps:
        part.append(step)
        following = step.slot + step.instruction.slots
        if following in leaders or following == size:
            falls = step.kind not in (Kind.JUMP, Kind.EXIT) and following < size
            start = part[0].slot
            blocks[start] = Block(
                start,
                tuple(_fused(part)),
                tuple(member.slot for member in part),
                following if falls else None,
                targets.get(step.slot),
            )
            part = []
    return blocks


def _check_end(last: Step) -> None:
    # A call may be of a function that does not return: bpf_throw().
    if last.kind not in (Kind.JUMP, Kind.EXIT, Kind.CALL):
        raise ObjectFormatError(
            "control runs off the end of the program", offset=last.slot * SLOT_SIZE
        )


def _fused(part: Iterable[Step]) -> Iterable[Step]:
    """Yield the steps, with ``r <<= 32; r >>= 32`` as the one move that it is.

    Compilers for instruction sets without 32-bit operations write it so; as two shifts, what a
    branch tells about the result would say nothing about the original.
    """
    waiting: Step | None = None
    for step in part:
        instruction = step.instruction
        if waiting is not None:
            same = instruction.dst == waiting.instruction.dst and instruction.imm == 32
            if same and instruction.opcode in (_RSH64, _ARSH64):
                register = instruction.dst
                if instruction.opcode == _RSH64:
                    move = Instruction(Class.ALU | AluOp.MOV | Source.X, register, register)
                else:
                    move = Instruction(Class.ALU64 | AluOp.MOV | Source.X, register, register, 32)
                yield step._replace(instruction=move)
                waiting = None
                continue
            yield waiting
            waiting = None
        if instruction.opcode == _LSH64 and instruction.imm == 32:
            waiting = step
        else:
            yield step
    if waiting is not None:
        yield waiting
