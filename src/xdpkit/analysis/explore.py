# SPDX-License-Identifier: Apache-2.0
"""Following a program: through its blocks until nothing new is learnt, and through its calls.

A function is followed anew for each different set of arguments (a *context*), up to a bound, and
from then on once for all. States join where paths meet; after some rounds, loops widen.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence

from xdpkit.analysis.calls import TAIL_CALL, THROW, Calls, LeafOf, TooComplex, map_names, reached
from xdpkit.analysis.cfg import ALL_REGISTERS, Block, Body, Graph, Step
from xdpkit.analysis.machine import Machine, forget_everything
from xdpkit.analysis.state import (
    CONTEXT,
    FRAME_POINTER,
    HAVOC,
    REGISTERS,
    UNSET,
    Frame,
    Region,
    RegionKind,
    State,
    Value,
    is_on_stack,
    pointer,
    value_key,
)
from xdpkit.analysis.subject import Subject
from xdpkit.analysis.usage import Recorder
from xdpkit.analysis.values import (
    TOP,
    Cause,
    CauseKind,
    constant,
    truncate,
    unknown,
)
from xdpkit.errors import ObjectFormatError
from xdpkit.isa import CallKind, Kind
from xdpkit.isa.opcodes import SLOT_SIZE, Class, Register

_WIDEN_AFTER = 8
_MAX_CONTEXTS = 24
_MAX_DEPTH = 16  # the verifier allows 8 (MAX_CALL_FRAMES)
_LEAST_BUDGET = 100_000
_BUDGET_PER_SLOT = 30

_OWN = value_key(pointer(CONTEXT))

_ANY_BLOCK = -1
_Point = tuple[int, int]
"""A block, and the block before it for those that are followed apart, else -1."""


class Activation:
    """A function while it is followed.

    Attributes:
        entry: its first slot.
        is_main: whether what it returns is an action.
        exit: what is known where it returns: r0, and the frames of its callers; None: nowhere.
    """

    __slots__ = ("entry", "exit", "is_main")

    def __init__(self, entry: int, *, is_main: bool) -> None:
        self.entry = entry
        self.is_main = is_main
        self.exit: State | None = None

    def leave(self, state: State, result: Value) -> None:
        """Take down a return."""
        regs = [UNSET] * REGISTERS
        regs[0] = result._replace(id=0)
        left = State(regs, state.copy().frames[:-1])
        if self.exit is None:
            self.exit = left
        else:
            self.exit.join(left)


class Explorer:
    """Follows one subject.

    Args:
        subject: the program. graph: its control flow.
        leaf_of: what is known of a program in a program array (so far).
    """

    def __init__(self, subject: Subject, graph: Graph, leaf_of: LeafOf) -> None:
        self.subject = subject
        self.recorder = Recorder()
        self._graph = graph
        self._leaf_of = leaf_of
        self._prepare()

    def _prepare(self) -> None:
        self._machine = Machine(self.subject, self.recorder)
        self._calls = Calls(self.subject, self.recorder, self._enter)
        self._known: dict[object, State | None] = {}
        self._contexts: defaultdict[int, int] = defaultdict(int)
        self._chain: list[int] = []
        self._budget = _LEAST_BUDGET + _BUDGET_PER_SLOT * self._graph.size
        self._follows_calls = True

    def explore(self) -> Recorder:
        """Return what was found.

        Raises:
            ObjectFormatError: control runs off the end of the program.
        """
        state = State([UNSET] * REGISTERS, (Frame(0, self.subject.byteorder),))
        state.regs[Register.R1] = pointer(CONTEXT)
        state.regs[FRAME_POINTER] = pointer(Region(RegionKind.STACK, number=0))
        try:
            self._run(0, state, is_main=True)
        except TooComplex as problem:
            self._give_up(Cause(CauseKind.TOO_COMPLEX, "", 0), str(problem))
        except _UnknownInstruction as problem:
            cause = Cause(CauseKind.UNKNOWN_INSTRUCTION, "", problem.slot)
            text = f"the instruction at slot {problem.slot} is not known, so anything can happen"
            self._give_up(cause, text)
        return self.recorder

    def _run(self, entry: int, state: State, *, is_main: bool = False) -> State | None:
        """Follow a function; return what is known where it returns."""
        if entry in self._chain:
            raise TooComplex(f"{self.subject.function_name(entry)} calls itself")
        if len(self._chain) >= _MAX_DEPTH:
            raise TooComplex("too many functions call one another")
        self._chain.append(entry)
        self.recorder.bodies.add(entry)
        activation = Activation(entry, is_main=is_main)
        body = self._graph.body(entry)
        state.keep_only(body.live[entry])
        states: dict[_Point, State] = {(entry, _ANY_BLOCK): state}
        rounds: Counter[_Point] = Counter()
        waiting: list[tuple[int, _Point]] = [(body.order[entry], (entry, _ANY_BLOCK))]
        queued = {(entry, _ANY_BLOCK)}
        while waiting:
            _, point = heapq.heappop(waiting)
            queued.discard(point)
            block = self._graph.blocks[point[0]]
            self._spend(len(block.steps))
            for successor, outcome in self._block(block, states[point].copy(), activation):
                following = (successor, block.start if successor in body.apart else _ANY_BLOCK)
                if self._arrive(states, following, outcome, body, rounds) and (
                    following not in queued
                ):
                    heapq.heappush(waiting, (body.order[successor], following))
                    queued.add(following)
        self._chain.pop()
        return activation.exit

    def _spend(self, steps: int) -> None:
        self._budget -= steps
        if self._budget < 0:
            raise TooComplex("it takes too many steps to follow")

    def _arrive(
        self,
        states: dict[_Point, State],
        point: _Point,
        state: State,
        body: Body,
        rounds: Counter[_Point],
    ) -> bool:
        """Join a state into that of a block; return whether the block has to be followed again."""
        start = point[0]
        state.keep_only(body.live[start])
        known = states.get(point)
        if known is None:
            states[point] = state
            return True
        widening = start in body.heads and rounds[point] >= _WIDEN_AFTER
        if not known.join(state, widening=widening):
            return False
        rounds[point] += 1
        return True

    def _block(self, block: Block, state: State, activation: Activation) -> list[tuple[int, State]]:
        """Follow a block; return the blocks that come after it, each with its state."""
        self.recorder.blocks.add(block.start)
        for step in block.steps:
            if not self._step(step, state, activation):
                return []
        last = block.steps[-1]
        if block.target is None:
            if block.next is None:
                raise ObjectFormatError(
                    "control runs off the end of the program", offset=last.slot * SLOT_SIZE
                )
            return [(block.next, state)]
        if last.kind is Kind.JUMP:
            return [(block.target, state)]
        outcomes = []
        for successor, taken in ((block.next, False), (block.target, True)):
            after = state.copy()
            if successor is not None and self._machine.branch(
                after, last.instruction, taken=taken, slot=last.slot
            ):
                outcomes.append((successor, after))
        return outcomes

    def _step(self, step: Step, state: State, activation: Activation) -> bool:
        """Apply an instruction; return whether it goes on."""
        kind, instruction, slot = step.kind, step.instruction, step.slot
        if kind is Kind.ALU:
            self._machine.alu(state, instruction, slot)
        elif kind is Kind.LOAD:
            self._machine.load(state, instruction, slot)
            if instruction.opcode & 7 == Class.LD:
                # LD_ABS and LD_IND return 0 where the packet is too short.
                self._leave(activation, state, Value(constant(0, slot)), slot)
        elif kind is Kind.STORE:
            self._machine.store(state, instruction, slot)
        elif kind is Kind.CONSTANT:
            self._machine.constant(state, instruction, slot)
        elif kind is Kind.ATOMIC:
            self._machine.atomic(state, instruction, slot)
        elif kind is Kind.CALL:
            return self._call(step, state, activation)
        elif kind is Kind.EXIT:
            self._leave(activation, state, state.regs[Register.R0], slot)
            return False
        elif kind is None and self._follows_calls:
            raise _UnknownInstruction(slot)
        return True

    def _leave(self, activation: Activation, state: State, result: Value, slot: int) -> None:
        if activation.is_main:
            self.recorder.returns(result, slot)
        activation.leave(state, result)

    def _call(self, step: Step, state: State, activation: Activation) -> bool:
        instruction, slot = step.instruction, step.slot
        if instruction.src == CallKind.SUBPROGRAM:
            return self._call_subprogram(step, state, activation)
        if instruction.src == CallKind.KFUNC:
            reference = self.subject.references.get(slot)
            name = f"kernel function {instruction.imm}" if reference is None else reference.name
            if name == THROW:
                self._throw(state, slot)
                return False
            self._calls.kfunc(state, name, None if reference is None else reference.arguments, slot)
        elif instruction.imm == TAIL_CALL:
            self._tail_call(state, activation, slot)
        else:
            self._calls.helper(state, instruction.imm, slot)
        return True

    def _call_subprogram(self, step: Step, state: State, activation: Activation) -> bool:
        entry = step.instruction.target(step.slot)
        assert entry is not None
        arguments = state.regs[1:6]
        if self.subject.is_replaceable(entry):
            # The verifier looks at it by itself, and so takes no field's address for it.
            read = self._graph.arguments(entry)
            for register, argument in enumerate(arguments, start=1):
                if read >> register & 1:
                    self.recorder.took_address(argument, step.slot)
        result = self._enter(entry, state, arguments)
        if self.subject.is_foreign and self.subject.is_replaceable(entry):
            if any(is_on_stack(argument) for argument in arguments):
                forget_everything(state)
            name = self.subject.function_name(entry)
            result = Value(unknown(64, Cause(CauseKind.REPLACEABLE, name, step.slot)))
        if result is None:
            return False
        state.regs[Register.R0] = result
        for register in range(Register.R1, Register.R6):
            state.regs[register] = UNSET
        return True

    def _enter(self, entry: int, state: State, arguments: Sequence[Value]) -> Value | None:
        """Follow a function of the program; see :class:`xdpkit.analysis.calls.Enter`."""
        if self._chain:
            self.recorder.calls[self._chain[-1]].add(entry)
            if self._chain[-1] in self.recorder.generalised:
                # It may be called with anything.
                self.recorder.generalised.add(entry)
        if not self._follows_calls:
            forget_everything(state)
            return HAVOC
        read = self._graph.arguments(entry)
        regs = [UNSET] * REGISTERS
        for register, argument in enumerate(arguments, start=1):
            if read >> register & 1:
                regs[register] = argument
        sees_stack = any(is_on_stack(value) for value in regs)
        frames = state.copy().frames if sees_stack else []
        depth = len(frames)
        inner = State(regs, [*frames, Frame(entry, self.subject.byteorder)])
        inner.regs[FRAME_POINTER] = pointer(Region(RegionKind.STACK, number=depth))
        key: object = (entry, inner.key(ALL_REGISTERS))
        if key not in self._known and self._contexts[entry] >= _MAX_CONTEXTS:
            return self._enter_generally(entry, inner, state, sees_stack)
        if key not in self._known:
            self._contexts[entry] += 1
            self._known[key] = self._run(entry, inner)
        outcome = self._known[key]
        if outcome is None:
            return None
        if sees_stack:
            state.replace_frames(outcome.copy().frames)
            state.forget_copies()
        return _returned(outcome, depth)

    def _enter_generally(
        self, entry: int, special: State, state: State, sees_stack: bool
    ) -> Value | None:
        """Follow a function once for all contexts, but for which arguments are the program's own.

        Args:
            special: the context for which this is done.
            state: the caller's. sees_stack: whether the function may change its stack.
        """
        self.recorder.generalised.add(entry)
        own = pointer(CONTEXT)
        regs = [own if value_key(value) == _OWN else HAVOC for value in special.regs]
        key = (entry, tuple(value is own for value in regs))
        if key not in self._known:
            inner = State(regs, (Frame(entry, self.subject.byteorder),))
            inner.regs[FRAME_POINTER] = pointer(Region(RegionKind.STACK, number=0))
            self._known[key] = self._run(entry, inner)
        if sees_stack:
            forget_everything(state)
        outcome = self._known[key]
        return None if outcome is None else _returned(outcome, 0)

    def _tail_call(self, state: State, activation: Activation, slot: int) -> None:
        self.recorder.helpers[TAIL_CALL].add(slot)
        arrays = map_names(state.regs[Register.R2])
        index = truncate(state.regs[Register.R3].scalar or TOP, 32)
        self.recorder.tail_called(slot, arrays, index, activation.entry)
        leaf = reached(self.subject, arrays, index, slot, self._leaf_of)
        if leaf.returned is not None:
            # What the program that is called returns, this function's caller gets.
            self._leave(activation, state, Value(leaf.returned), slot)
            if leaf.throws:
                self.recorder.returns(Value(leaf.returned), slot)
        for register in range(Register.R0, Register.R6):
            state.regs[register] = UNSET

    def _throw(self, state: State, slot: int) -> None:
        self.recorder.kfuncs[THROW].add(slot)
        thrown = state.regs[Register.R1]
        self.recorder.threw(slot, truncate(thrown.scalar or TOP, 32))
        callback = self.subject.exception_callback
        if callback is None:
            self.recorder.returns(thrown, slot)
            return
        self.recorder.callbacks[callback].add(slot)
        result = self._enter(callback, State([UNSET] * REGISTERS, ()), [thrown])
        if result is not None:
            self.recorder.returns(result, slot)

    def _give_up(self, cause: Cause, text: str) -> None:
        """Take every instruction to run with anything in the registers."""
        self.recorder = Recorder()
        self._prepare()
        self._follows_calls = False
        self.recorder.note(text)
        self.recorder.unknown.add(cause)
        self.recorder.returned = unknown(64, cause)
        entries = sorted(self._graph.entries)
        for block in self._graph.blocks.values():
            entry = entries[bisect_right(entries, block.start) - 1]
            self.recorder.bodies.add(entry)
            self.recorder.blocks.add(block.start)
            self._chain = [entry]
            state = State([HAVOC] * REGISTERS, (Frame(entry, self.subject.byteorder),))
            state.regs[FRAME_POINTER] = pointer(Region(RegionKind.STACK, number=0))
            activation = Activation(entry, is_main=False)
            for step in block.steps:
                self._step_anyhow(step, state, activation)

    def _step_anyhow(self, step: Step, state: State, activation: Activation) -> None:
        function = step.instruction.target(step.slot) if step.kind is Kind.CONSTANT else None
        if function is not None:
            self.recorder.callbacks[function].add(step.slot)
            self.recorder.calls[activation.entry].add(function)
        try:
            self._step(step, state, activation)
        except TooComplex:
            state.regs[: Register.R6] = [HAVOC] * Register.R6


class _UnknownInstruction(Exception):
    def __init__(self, slot: int) -> None:
        self.slot = slot
        super().__init__(slot)


def _returned(outcome: State, depth: int) -> Value:
    """Return what a function returned, without addresses of its own frame."""
    value = outcome.regs[Register.R0]
    if any(
        region.kind is RegionKind.STACK and region.number >= depth for region, _ in value.pointers
    ):
        return HAVOC
    return value._replace(id=0)
