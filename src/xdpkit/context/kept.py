# SPDX-License-Identifier: Apache-2.0
"""Fields whose value is found out for each packet: when main is entered, it keeps them.

They are in a block of main's stack, below what the program uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdpkit.context.fields import NO_PORT, Field
from xdpkit.isa import asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Function, Step
from xdpkit.rewrite.stack import CELL
from xdpkit.uapi.attr import XdpMd

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

INTERFACE_INDEX = MappingProxyType(
    {
        "ingress_ifindex": XdpMd.ingress_ifindex.offset,
        "egress_ifindex": XdpMd.egress_ifindex.offset,
    }
)
"""By which fields of the kernel's a port can be looked up, and where they are."""


@dataclass(frozen=True, slots=True)
class Block:
    """Where in main's stack the fields are kept.

    Attributes:
        start: the offset of its first byte from main's frame pointer, a multiple of 8.
        places: by name of the field, the bytes before it.
    """

    start: int
    places: MappingProxyType[str, int]

    @classmethod
    def below(cls, depth: int, fields: Iterable[Field]) -> Self:
        """Lay a block out below what main uses, of its stack, in bytes."""
        places, size = {}, 0
        # The largest first, so that all are aligned.
        for field in sorted(fields, key=lambda each: (-each.size, each.offset)):
            places[field.name] = size
            size += field.size
        return cls(-depth - -(-size // CELL) * CELL, MappingProxyType(places))


def keep(main: Function, block: Block, *, looked_up: str | None, frags: bool) -> list[Step]:
    """Have main begin with keeping the fields of a block.

    Args:
        main: the main function. It finds its registers as the kernel sets them.
        block: where the fields are kept.
        looked_up: the field of the kernel's by which the port is looked up.
        frags: whether the program takes packets in fragments.

    Returns:
        The loads of the map in which ports are looked up.
    """
    loads: list[Step] = []
    calls = (frags and "frame_len" in block.places) or "port_index" in block.places
    context = _saved(main) if calls else R1
    steps = [Step(asm.mov(context, R1))] if calls else []
    for name, place in block.places.items():
        at = block.start + place
        if name == "frame_len":
            steps += _frame_len(context, at, frags=frags)
        elif looked_up is not None:
            loads.append(Step(asm.ld_imm64(R1, 0)))
            steps += _port_index(context, at, INTERFACE_INDEX[looked_up], loads[-1])
    if calls:
        steps.append(Step(asm.mov(R1, context)))
    main.prepend(steps)
    return loads


def _saved(main: Function) -> Register:
    """Return a register that calls leave alone."""
    used = {step.instruction.dst for step in main.steps}
    # One that the program saves and restores anyway costs nothing more.
    return next((each for each in (R6, R7, R8, R9) if each in used), R6)


def _frame_len(context: Register, at: int, *, frags: bool) -> list[Step]:
    if frags:
        return [
            Step(asm.mov(R1, context)),
            Step(asm.call("xdp_get_buff_len")),
            Step(asm.store(R10, at, R0, size=4)),
        ]
    return [
        Step(asm.load(R2, context, XdpMd.data_end.offset, size=4)),
        Step(asm.load(R3, context, XdpMd.data.offset, size=4)),
        Step(asm.alu(AluOp.SUB, R2, R3)),
        Step(asm.store(R10, at, R2, size=4)),
    ]


def _port_index(context: Register, at: int, ifindex: int, load: Step) -> list[Step]:
    keep_it = Step(asm.store(R10, at, R1, size=4))
    return [
        Step(asm.load(R2, context, ifindex, size=4)),
        # The key is where its value will be.
        Step(asm.store(R10, at, R2, size=4)),
        Step(asm.mov(R2, R10)),
        Step(asm.alu(AluOp.ADD, R2, at)),
        load,
        Step(asm.call("map_lookup_elem")),
        Step(asm.mov(R1, NO_PORT, width=32)),
        Step(asm.branch(JmpOp.JEQ, R0, 0, 0), keep_it),
        Step(asm.load(R1, R0, size=4)),
        keep_it,
    ]
