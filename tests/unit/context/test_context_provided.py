# SPDX-License-Identifier: Apache-2.0
"""Programs that were provided with fields do what they would do if the context had them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.context.interpreter import Machine, Packet
from tests.unit.context.programs import Source, compiled
from xdpkit.context import FIELDS, NO_PORT, Field, field_at, provide, stand_in
from xdpkit.errors import RequirementUnmet
from xdpkit.isa import Instruction, asm, iter_slots
from xdpkit.isa.opcodes import AluOp, JmpOp, Register

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

# In r6 each function has its context, in r7 a number that all that it does goes into.
_CONTEXT, _SUM = R6, R7


@dataclass(frozen=True, slots=True)
class Read:
    """Add a part of a field to the sum."""

    field: Field
    skipped: int
    size: int
    is_signed: bool
    register: Register

    def instructions(self) -> Iterator[Instruction]:
        place = self.field.offset + self.skipped
        yield asm.load(self.register, _CONTEXT, place, size=self.size, signed=self.is_signed)
        yield from _mixed_in(self.register)


@dataclass(frozen=True, slots=True)
class Remember:
    """Write the sum to the stack, and read it back."""

    place: int

    def instructions(self) -> Iterator[Instruction]:
        yield asm.store(R10, self.place, _SUM)
        yield asm.load(R2, R10, self.place)
        yield from _mixed_in(R2)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function, and add what it returns to the sum."""

    callee: int
    count: int

    def instructions(self) -> Iterator[Instruction]:
        yield asm.mov(R1, _CONTEXT)
        for register in range(2, self.count + 1):
            yield asm.mov(Register(register), _SUM)
            yield asm.alu(AluOp.ADD, Register(register), register)
        # The callee, until it is known where that is.
        yield asm.call_subprogram(self.callee)
        yield from _mixed_in(R0)


Simple = Read | Remember | Call


@dataclass(frozen=True, slots=True)
class Branch:
    """Do something if the sum is large."""

    steps: tuple[Simple, ...]

    def instructions(self) -> Iterator[Instruction]:
        inner = [each for step in self.steps for each in step.instructions()]
        yield asm.branch(JmpOp.JGT, _SUM, 1 << 30, sum(each.slots for each in inner))
        yield from inner


Statement = Simple | Branch


def _mixed_in(register: Register) -> Iterator[Instruction]:
    yield asm.alu(AluOp.MUL, _SUM, 31)
    yield asm.alu(AluOp.ADD, _SUM, register)


def function(number: int, count: int, statements: tuple[Statement, ...]) -> Source:
    # Any number of 64 bits, as far as can be told beforehand: so each branch may be taken.
    steps = [asm.mov(_CONTEXT, R1), asm.load(_SUM, _CONTEXT, 16, size=4)]
    steps.append(asm.alu(AluOp.MUL, _SUM, -1))
    steps.append(asm.alu(AluOp.ADD, _SUM, number))
    for register in range(2, count + 1):
        steps += _mixed_in(Register(register))
    steps += [each for statement in statements for each in statement.instructions()]
    return Source(f"f{number}" if number else "fw", count, [*steps, asm.mov(R0, _SUM), asm.exit()])


def linked(functions: list[Source]) -> list[Source]:
    """Have calls lead to what they call."""
    starts = [sum(each.size for each in functions[:index]) for index in range(len(functions))]
    done = []
    for start, each in zip(starts, functions, strict=True):
        slot, steps = start, []
        for instruction in each.instructions:
            if instruction.is_call:
                steps.append(asm.call_subprogram(starts[instruction.imm] - slot - 1))
            else:
                steps.append(instruction)
            slot += instruction.slots
        done.append(replace(each, instructions=steps))
    return done


def reads() -> st.SearchStrategy[Read]:
    def parts(each: Field) -> st.SearchStrategy[Read]:
        sizes = [size for size in (1, 2, 4, 8) if size <= each.size]
        return st.sampled_from(sizes).flatmap(
            lambda size: st.builds(
                Read,
                st.just(each),
                st.sampled_from(range(0, each.size, size)),
                st.just(size),
                st.booleans() if size < 8 else st.just(False),
                st.sampled_from([R0, R2, R5, R8, R9]),
            )
        )

    return st.sampled_from(FIELDS).flatmap(parts)


@st.composite
def programs(draw: st.DrawFn) -> list[Source]:
    """Return programs whose functions are all called, each by functions before it."""
    counts = [1, *draw(st.lists(st.integers(1, 5), max_size=3))]
    bodies = []
    for number in range(len(counts)):
        simple: st.SearchStrategy[Simple] = reads() | st.builds(
            Remember, st.sampled_from(range(-64, 0, 8))
        )
        callees = range(number + 1, len(counts))
        if callees:
            simple |= st.sampled_from(callees).map(lambda callee: Call(callee, counts[callee]))
        branch = st.lists(simple, min_size=1, max_size=2).map(lambda steps: Branch(tuple(steps)))
        bodies.append(draw(st.lists(simple | branch, max_size=4)))
    for callee in range(1, len(counts)):
        caller = draw(st.sampled_from(range(callee)))
        bodies[caller].append(Call(callee, counts[callee]))
    return linked(
        [
            function(number, count, tuple(statements))
            for number, (count, statements) in enumerate(zip(counts, bodies, strict=True))
        ]
    )


def needing(sources: list[Source], fields: set[Field]) -> list[Source]:
    """Return the subprograms that read some fields, or call one that does."""
    starts = [sum(each.size for each in sources[:index]) for index in range(len(sources))]
    found: dict[int, Source] = {}
    # A function calls only what comes after it.
    for start, source in reversed([*zip(starts, sources, strict=True)]):
        for slot, each in iter_slots(source.instructions):
            reads = each.is_load and field_at(each.offset) in fields
            if reads or (each.is_call and each.target(start + slot) in found):
                found[start] = source
    return [source for start, source in found.items() if start]


PORTS = st.none() | st.integers(0, NO_PORT)


@given(
    sources=programs(),
    frags=st.booleans(),
    length=st.integers(14, 9000),
    port=PORTS,
    is_constant=st.booleans(),
    looked_up=st.sampled_from(["ingress_ifindex", "egress_ifindex"]),
    cookie=st.integers(0, (1 << 64) - 1),
)
def test_a_program_reads_what_it_would_read_in_the_context(
    sources: list[Source],
    frags: bool,
    length: int,
    port: int | None,
    is_constant: bool,
    looked_up: str,
    cookie: int,
) -> None:
    body, types = compiled(*sources)
    constants = {"cookie": cookie}
    if port is not None and is_constant:
        constants["port_index"] = port
    ifindex = 2 if looked_up == "ingress_ifindex" else 3
    first = length if not frags else min(length, 3000)
    packet = Packet(
        fields={
            "port_index": NO_PORT if port is None else port,
            "frame_len": length,
            "cookie": cookie,
        },
        first=first,
        length=length,
        ports={} if port is None else {ifindex: port},
    )
    terms: dict[str, Any] = {
        "constants": constants,
        "looked_up": looked_up,
        "frags": frags,
        "types": types,
        "throw": None,
    }
    kept = {field for field in FIELDS if field.name not in constants}
    if any(source.arguments == 5 for source in needing(sources, kept)):
        with pytest.raises(RequirementUnmet, match="has 5 arguments, which is the most"):
            provide(body, **terms)
        return
    found = provide(body, **terms)
    without = replace(packet, fields=None)
    assert Machine(found.body, without, found.map_slots).run() == Machine(body, packet).run()
    assert bool(found.map_slots) == ("port_index" in found.fields and "port_index" not in constants)
    if not found.fields:
        assert found.body is body


@given(
    sources=programs(),
    byte=st.integers(0, 255),
    port=PORTS,
    cookie=st.integers(0, (1 << 64) - 1),
)
def test_a_stand_in_does_what_the_program_does_with_other_numbers(
    sources: list[Source], byte: int, port: int | None, cookie: int
) -> None:
    body, types = compiled(*sources)
    # Of which each part is the same: what a stand-in reads for a field is of another one.
    number = byte * 0x01010101
    constants = {"cookie": cookie} | ({} if port is None else {"port_index": port})
    fields = {"port_index": number, "frame_len": number, **constants}
    found = stand_in(body, constants=constants, types=types, throw=None)
    packet = Packet(fields=fields, queue=number)
    without = replace(packet, fields=None)
    assert Machine(found, without).run() == Machine(body, packet).run()
