# SPDX-License-Identifier: Apache-2.0
"""Providing a program with the fields that it reads.

**Constants** (``cookie``; ``port_index`` of a program that serves one port) take the place of the
loads: no load, no branch, and the verifier drops what is not for them.

**Kept** fields (``frame_len``; ``port_index`` of a program that serves several ports) are found out
when the program is entered, only those that are read. Main keeps them in its stack, and each load
becomes one from there; subprograms get the address (:mod:`xdpkit.context.subprograms`).

Where the analysis says that an instruction reads a field *and nothing else*, it is rewritten.
The verifier is no help in that: it sees only what came out, in which the context is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from xdpkit.analysis import Reference
from xdpkit.btf import Btf
from xdpkit.context import loads
from xdpkit.context.accesses import Access, accesses
from xdpkit.context.fields import FIELDS, may_read
from xdpkit.context.kept import INTERFACE_INDEX, Block, keep
from xdpkit.context.program import Program
from xdpkit.context.subprograms import argument_registers, hand_over
from xdpkit.errors import UsageError
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.rewrite import Body
from xdpkit.rewrite.body import Code, Function, Step, edit
from xdpkit.rewrite.stack import CELL, check_room, depths_of
from xdpkit.uapi.bpf import MAX_BPF_STACK

R10 = Register.R10

_NO_KFUNCS: Mapping[int, Reference] = MappingProxyType({})

_GIVE_A_PORT = (
    "attach it to an interface that is a port (xdpkit ports); to load it elsewhere, say which"
    " port it is to be: port_index, in 'xdpkit run' --port-index"
)


@dataclass(frozen=True, slots=True)
class Provided:
    """A program that has the fields that it reads.

    Attributes:
        body: the program.
        fields: those that it reads, by offset; empty: none, and the program is as it was.
        map_slots: 64-bit loads that are to load the map in which ports are looked up.
    """

    body: Body
    fields: tuple[str, ...]
    map_slots: tuple[int, ...]


def provide(
    body: Body,
    *,
    constants: Mapping[str, int],
    looked_up: str | None,
    frags: bool,
    types: Btf | None,
    throw: int | None,
    kfuncs: Mapping[int, Reference] = _NO_KFUNCS,
    stack: Sequence[int] | None = None,
    name: str = "the program",
) -> Provided:
    """Return a program that has the fields of the extended context that it reads.

    Args:
        body: the program.
        constants: what fields are for every packet, by name.
        looked_up: ``ingress_ifindex`` or ``egress_ifindex``: by which of the kernel's fields a port
            that is no constant is looked up; None: it is not. The map is a hash with keys and
            values of 4 bytes; what it does not have is :data:`~xdpkit.context.fields.NO_PORT`.
        frags: whether the program is loaded with ``BPF_F_XDP_HAS_FRAGS``.
        types: what the records of the body refer to, as the kernel is given it; None without.
        throw: BTF id of ``bpf_throw`` in the kernel, None where there is none.
        kfuncs: the kernel functions that it calls, by slot; of others nothing is known.
        stack: bytes of stack that its functions use, in their order, as
            :func:`~xdpkit.rewrite.stack.stack_in_log` has them for what :func:`stand_in` returns;
            None: they are found by analysis, which has to take the most for a place that is chosen
            at run time.
        name: of the program, for errors.

    Raises:
        RequirementUnmet: it cannot be done; the reason says in which function, and where.
        ObjectFormatError: the body contradicts itself.
        UsageError: the constants or what is looked up make no sense.
    """
    what = f"provide the extended context of {name}"
    _check(constants, looked_up, what)
    if not may_read(body.code):
        return Provided(body, (), ())
    program = Program.of(body, types, throw, kfuncs, what=what)
    found = accesses(program)
    if not found:
        return Provided(body, (), ())
    code = edit(body, what=what)
    kept = _without_constants(code, found, constants)
    lookups: list[Step] = []
    if kept:
        _require_source(program, kept.values(), looked_up)
        block, registers, depths = _room(program, code, kept, stack)
        _read_kept(code, kept, block, hand_over(code, registers, block, depths))
        lookups = keep(code.main, block, looked_up=looked_up, frags=frags)
    read = {access.field for access in found}
    return Provided(
        code.body(what=what),
        tuple(field.name for field in FIELDS if field in read),
        code.slots_of(lookups),
    )


def stand_in(
    body: Body,
    *,
    constants: Mapping[str, int],
    types: Btf | None,
    throw: int | None,
    kfuncs: Mapping[int, Reference] = _NO_KFUNCS,
    name: str = "the program",
) -> Body:
    """Return a program that uses its stack as this one does, and that the kernel can load.

    What it reads for fields is wrong, but for constants: the verifier takes it for any number, and
    so goes every way that the program may go. Its log tells how much stack is used.

    The arguments, and errors, are those of :func:`provide`.
    """
    what = f"provide the extended context of {name}"
    program = Program.of(body, types, throw, kfuncs, what=what)
    code = edit(body, what=what)
    unknown = _without_constants(code, accesses(program), constants)
    for function in code.functions:
        steps = []
        for step in function.steps:
            steps.append(step)
            if step in unknown:
                first, *others = loads.unforeseeable(step.instruction, unknown[step])
                step.instruction = first
                steps += map(Step, others)
        function.steps = steps
    return code.body(what=what)


def _without_constants(
    code: Code, found: Iterable[Access], constants: Mapping[str, int]
) -> dict[Step, Access]:
    """Put constants in their places; return the other loads of fields."""
    steps = dict(code.placed())
    others = {}
    for access in found:
        step, value = steps[access.slot], constants.get(access.field.name)
        if value is None:
            others[step] = access
        else:
            step.instruction = loads.constant(step.instruction, access, value)
    return others


def _check(constants: Mapping[str, int], looked_up: str | None, what: str) -> None:
    sizes = {field.name: field.size for field in FIELDS}
    for name, value in constants.items():
        if name not in sizes:
            raise UsageError(what, cause=f"it has no field {name}")
        if not 0 <= value < 1 << 8 * sizes[name]:
            raise UsageError(what, cause=f"{name} has {sizes[name]} bytes, and is not {value}")
    if looked_up is not None and looked_up not in INTERFACE_INDEX:
        raise UsageError(what, cause=f"no port can be looked up by {looked_up}")


def _require_source(program: Program, found: Iterable[Access], looked_up: str | None) -> None:
    """Check that it is known where the values of fields come from that are no constants."""
    for access in found:
        name, place = access.field.name, program.declared.place(access.slot)
        if name == "port_index" and looked_up is None:
            raise program.refusal(
                f"it reads port_index ({place}), and has no port", remedy=_GIVE_A_PORT
            )
        if name == "cookie":
            raise UsageError(program.what, cause=f"it reads cookie ({place}), which is not given")


def _room(
    program: Program, code: Code, kept: Mapping[Step, Access], stack: Sequence[int] | None
) -> tuple[Block, dict[Function, Register], dict[Function, int]]:
    """Find room for the block in main's stack, and for its address in that of subprograms."""
    what = program.what
    readers = {
        function: f"{kept[step].field.name} ({program.declared.place(kept[step].slot)})"
        for function in code.functions[1:]
        for step in function.steps
        if step in kept
    }
    registers = argument_registers(program, code, readers)
    depths = depths_of(program.body, code, what=what, throw=program.throw, known=stack)
    block = Block.below(depths[code.main], {access.field for access in kept.values()})
    deeper = {function: depths[function] + CELL for function in registers}
    for function, depth in deeper.items():
        if depth > MAX_BPF_STACK:
            name = program.declared.name(function.slot)
            raise program.refusal(
                f"{CELL} more bytes of stack are needed in {name}, which uses all {MAX_BPF_STACK}"
            )
    check_room(code, depths, {code.main: -block.start, **deeper}, what=what)
    return block, registers, depths


def _read_kept(
    code: Code, kept: Mapping[Step, Access], block: Block, addresses: Mapping[Function, int]
) -> None:
    """Have the instructions that read fields read them from the block."""
    for function in code.functions:
        steps = []
        for step in function.steps:
            steps.append(step)
            access = kept.get(step)
            if access is None:
                continue
            place = block.places[access.field.name]
            if function is code.main:
                step.instruction = loads.kept(step.instruction, access, R10, block.start + place)
                continue
            dst = Register(step.instruction.dst)
            steps.append(Step(loads.kept(step.instruction, access, dst, place)))
            step.instruction = asm.load(dst, R10, addresses[function])
        function.steps = steps
