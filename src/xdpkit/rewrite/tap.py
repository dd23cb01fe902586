# SPDX-License-Identifier: Apache-2.0
"""Reporting frames with what a program returns for them, without the program's doing.

A prologue keeps the context in 8 bytes of stack, below what the program uses. Wherever the main
function would return, an epilogue looks at the action. Most frames go no further. For the others it
writes a record into a reader's ring buffer: where the frame came in, what was returned, how long
the frame is and what it begins with, as the program left it. The program goes on returning what it
returned (:mod:`xdpkit.rewrite.report`).

**What is thrown** (``bpf_throw()``) is reported as what is returned, where the main function throws
and there is no callback. An exception callback has neither context nor main's stack, and what
subprograms throw returns nowhere: such programs are refused.

**Tail calls** are as for counting, see :mod:`xdpkit.rewrite.tailcalls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Register
from xdpkit.rewrite.body import Body, Step, edit
from xdpkit.rewrite.exceptions import (
    THROWS_IN_A_SUBPROGRAM,
    functions_that_throw,
    return_what_is_thrown,
)
from xdpkit.rewrite.exits import end_by
from xdpkit.rewrite.report import EVENT_SIZE, Report, Reporting, require_sense
from xdpkit.rewrite.stack import CELL, check_room, depths_of
from xdpkit.uapi.attr import XdpMd

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register


@dataclass(frozen=True, slots=True)
class Tapping:
    """A program that reports.

    Attributes:
        body: the program.
        ring_slots, credits_slots, spending_slots: 64-bit loads that are to load these maps.
        moved: where the slots are now that were asked for.
    """

    body: Body
    ring_slots: tuple[int, ...]
    credits_slots: tuple[int, ...]
    spending_slots: tuple[int, ...]
    moved: tuple[int, ...] = ()


def tapping(
    body: Body,
    reporting: Reporting,
    *,
    frags: bool = False,
    throw: int | None = None,
    has_callback: bool = False,
    stack: Sequence[int] | None = None,
    moved: Sequence[int] = (),
) -> Tapping:
    """Return a program that does the same and reports frames.

    Args:
        body: the program; it may be one that counts.
        reporting: what is to be reported.
        frags: whether the program is loaded with BPF_F_XDP_HAS_FRAGS.
        throw: BTF id of ``bpf_throw`` in the kernel, None where there is none.
        has_callback: whether the program has an exception callback of its own.
        stack: as :func:`~xdpkit.rewrite.counting` has it.
        moved: slots of instructions, to be told where they are then.

    Raises:
        RequirementUnmet: it cannot be done; the program is named, and the reason.
        ObjectFormatError: the body contradicts itself.
        UsageError: what is to be reported, the slots or the stack make no sense.
    """
    what = f"report what {reporting.name} returns"
    require_sense(reporting.actions, reporting.snaplen, reporting.sample, what)
    code = edit(body, what=what)
    steps = dict(code.placed())
    if not steps.keys() >= set(moved):
        raise UsageError(what, cause="there is no instruction at a slot that was asked for")
    throwing = functions_that_throw(code, throw)
    if throwing and has_callback:
        raise RequirementUnmet(
            what,
            cause="it throws (bpf_throw), and its exception callback can learn nothing of the"
            " frame",
        )
    if throwing - {code.main}:
        raise RequirementUnmet(
            what, cause=THROWS_IN_A_SUBPROGRAM, remedy="throw in the main function only"
        )
    return_what_is_thrown(code.main, throw)
    depths = depths_of(body, code, what=what, throw=throw, known=stack)
    base = -depths[code.main] - CELL
    check_room(code, depths, {code.main: -base}, what=what)
    code.main.prepend([Step(asm.store(R10, base, R1))])
    epilogues: list[_Epilogue] = []

    def epilogue(first: Step) -> list[Step]:
        epilogues.append(_Epilogue(first, reporting, base, frags))
        return epilogues[-1].steps

    end_by(code.main, epilogue)
    return Tapping(
        code.body(what=what),
        ring_slots=code.slots_of(each.ring for each in epilogues),
        credits_slots=code.slots_of(each.credits for each in epilogues),
        spending_slots=code.slots_of(each.spending for each in epilogues),
        moved=tuple(code.slots_of([steps[slot]])[0] for slot in moved),
    )


class _Epilogue(Report):
    """What a return becomes. The cell has the context first."""

    def __init__(self, first: Step, reporting: Reporting, base: int, frags: bool) -> None:
        super().__init__(reporting, base, asm.mov(R0, R6))
        self._frags = frags
        keep = Step(asm.mov(R6, R0))
        compared = self._compared(R0, keep)
        if compared:
            begin, *others = compared
            first.instruction = begin.instruction
            self._add(*others, asm.exit(), keep)
        else:
            first.instruction = keep.instruction
        self._add(asm.load(R7, R10, base))
        self._write()

    def _ifindex(self) -> Iterable[Instruction]:
        return [asm.load(R1, R7, XdpMd.ingress_ifindex.offset, size=4)]

    def _queue(self) -> Iterable[Instruction]:
        return [asm.load(R1, R7, XdpMd.rx_queue_index.offset, size=4)]

    def _length(self) -> Iterable[Instruction]:
        if self._frags:
            return [asm.mov(R1, R7), asm.call("xdp_get_buff_len"), asm.mov(R4, R0)]
        return [
            asm.load(R4, R7, XdpMd.data_end.offset, size=4),
            asm.load(R1, R7, XdpMd.data.offset, size=4),
            asm.alu(AluOp.SUB, R4, R1),
        ]

    def _copy(self) -> Iterable[Instruction]:
        return [
            asm.mov(R1, R7),
            asm.mov(R2, 0),
            asm.mov(R3, R8),
            asm.alu(AluOp.ADD, R3, EVENT_SIZE),
            asm.call("xdp_load_bytes"),
        ]
