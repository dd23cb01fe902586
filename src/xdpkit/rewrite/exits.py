# SPDX-License-Identifier: Apache-2.0
"""Doing something more wherever a function returns."""

from __future__ import annotations

from collections.abc import Callable

from xdpkit.isa import asm
from xdpkit.isa.forms import INT16
from xdpkit.isa.opcodes import Class, JmpOp
from xdpkit.rewrite.body import Function, Step

_LONGEST_JUMP = INT16[-1]
_EXIT = Class.JMP | JmpOp.EXIT


def end_by(function: Function, epilogue: Callable[[Step], list[Step]]) -> None:
    """Have a function end by an epilogue.

    The last return is replaced, the others jump there; where that is too far, it is repeated.

    Args:
        function: the function.
        epilogue: turns a return into the first instruction of one, and returns the others.
    """
    places = {}
    slot = 0
    for step in function.steps:
        places[step] = slot
        slot += step.instruction.slots
    epilogues: dict[Step, list[Step]] = {}
    nearest: Step | None = None
    for step in [step for step in reversed(function.steps) if step.instruction.opcode == _EXIT]:
        if nearest is None or places[nearest] - places[step] - 1 > _LONGEST_JUMP:
            epilogues[step] = epilogue(step)
            nearest = step
        else:
            step.instruction = asm.jump(0)
            step.target = nearest
    function.steps = [each for step in function.steps for each in (step, *epilogues.get(step, ()))]
