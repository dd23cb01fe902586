# SPDX-License-Identifier: Apache-2.0
"""Reporting frames with what a program returns from outside, where its instructions are not known.

As :mod:`xdpkit.rewrite.watch` does for counting: the kernel runs another program each time the main
function of the one that is listened to has returned. That one writes the records that programs
write themselves (:mod:`xdpkit.rewrite.tap`), about the frames of one interface. The length is
that of the first fragment, and so are the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from xdpkit.errors import UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Code, Function, Step
from xdpkit.rewrite.report import EVENT_SIZE, Report, Reporting, require_sense
from xdpkit.rewrite.stack import CELL
from xdpkit.rewrite.tap import Tapping
from xdpkit.rewrite.watch import ARGUMENT, RETURNED, Layout

R0, R1, R2, R3, R4, R6, R7, R8 = (
    Register.R0,
    Register.R1,
    Register.R2,
    Register.R3,
    Register.R4,
    Register.R6,
    Register.R7,
    Register.R8,
)


def listening(layout: Layout, reporting: Reporting, *, ifindex: int) -> Tapping:
    """Return a program that reports what another one returns for an interface's frames.

    Args:
        layout: of the kernel that is to run it.
        reporting: what is to be reported, with the interface's network namespace.
        ifindex: the interface.

    Raises:
        UsageError: what is to be reported makes no sense.
    """
    what = f"report what {reporting.name} returns from outside"
    require_sense(reporting.actions, reporting.snaplen, reporting.sample, what)
    if not 0 < ifindex < 1 << 31 or not 0 <= reporting.netns < 1 << 32:
        raise UsageError(what, cause="the interface or its namespace makes no sense")
    made = _Listener(layout, reporting, ifindex)
    code = Code([Function(0, made.steps)])
    return Tapping(
        code.body(what=what),
        ring_slots=code.slots_of([made.ring]),
        credits_slots=code.slots_of([made.credits]),
        spending_slots=code.slots_of([made.spending]),
    )


class _Listener(Report):
    def __init__(self, layout: Layout, reporting: Reporting, ifindex: int) -> None:
        # What a program of this kind returns has no meaning, but must be 0.
        super().__init__(reporting, -CELL, asm.mov(R0, 0))
        self._layout = layout
        meant = Step(asm.load(R2, R7, layout.rxq))
        self._add(asm.load(R7, R1, ARGUMENT), asm.load(R6, R1, RETURNED))
        compared = self._compared(R6, meant)
        if compared:
            self._add(*compared, Step(asm.jump(0), self._leave))
        self._add(
            meant,
            asm.load(R2, R2, layout.dev),
            asm.load(R3, R2, layout.ifindex, size=4),
            Step(asm.branch(JmpOp.JNE, R3, ifindex, 0), self._leave),
            asm.load(R2, R2, layout.net),
            asm.load(R2, R2, layout.inum, size=4),
            # An immediate would be extended by its sign.
            asm.mov(R3, reporting.netns, width=32),
            Step(asm.branch(JmpOp.JNE, R2, R3, 0), self._leave),
        )
        self._ifindex_itself = ifindex
        self._write()

    def _ifindex(self) -> Iterable[Instruction]:
        return [asm.mov(R1, self._ifindex_itself)]

    def _queue(self) -> Iterable[Instruction]:
        return [
            asm.load(R1, R7, self._layout.rxq),
            asm.load(R1, R1, self._layout.queue_index, size=4),
        ]

    def _length(self) -> Iterable[Instruction]:
        return [
            asm.load(R4, R7, self._layout.data_end),
            asm.load(R1, R7, self._layout.data),
            asm.alu(AluOp.SUB, R4, R1),
        ]

    def _copy(self) -> Iterable[Instruction]:
        return [
            asm.mov(R1, R8),
            asm.alu(AluOp.ADD, R1, EVENT_SIZE),
            asm.mov(R2, R4),
            asm.load(R3, R7, self._layout.data),
            asm.call("probe_read_kernel"),
        ]
