# SPDX-License-Identifier: Apache-2.0
"""Writing a record about a frame into a reader's ring buffer: the instructions for it.

::

    ring        BPF_MAP_TYPE_RINGBUF: an Event and what was captured, always of the same size
    credits     BPF_MAP_TYPE_ARRAY, an entry of 64 bytes for each CPU: u64 granted
    spending    likewise, a Spending; nobody else writes it

So nobody who can have frames dropped makes this expensive. The reader grants credits; where they
are spent, or the reader is gone and grants none, the frame is only counted.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable
from ctypes import Structure, c_char, c_int32, c_uint32, c_uint64, sizeof
from dataclasses import dataclass

from xdpkit.errors import UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Step
from xdpkit.rewrite.count import COUNTED
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN, XdpAction

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

_LAST_ACTION = max(XdpAction)
_ALL = (1 << len(COUNTED)) - 1
# By these the tracepoint xdp_exception fires, too: COUNTED has them first and last.
_FAILING = 1 << XdpAction.ABORTED | 1 << _LAST_ACTION + 1
_FRAME = 0  # Event.kind
# What an XDP frame can be at most, fragments included; more need not be taken.
_LONGEST = 1 << 16
_WORD = 8


class Event(Structure):
    """What a record in the ring begins with; the captured bytes of the frame follow.

    ``time`` is CLOCK_MONOTONIC in nanoseconds, ``netns`` the inode number of the namespace,
    ``program`` the id that the program had when it was attached, ``action`` all that it returned
    (32 bits).
    """

    _fields_ = [
        ("time", c_uint64),
        ("kind", c_uint32),
        ("cpu", c_uint32),
        ("netns", c_uint32),
        ("ifindex", c_uint32),
        ("program", c_uint32),
        ("action", c_uint32),
        ("error", c_int32),
        ("queue", c_uint32),
        ("length", c_uint32),
        ("captured", c_uint32),
        ("target", c_uint32),
        ("map_id", c_uint32),
        ("map_type", c_uint32),
        ("map_index", c_uint32),
        ("drops", c_uint32),
        ("unused", c_uint32),
        ("name", c_char * BPF_OBJ_NAME_LEN),
    ]


class Spending(Structure):
    """What became of the frames with actions that are asked for, on one CPU.

    ``seen`` are all of them; of those that sampling chose, ``spent`` had credit, and of these
    ``lost`` found no room in the ring; ``suppressed`` had no credit. ``noted`` is for who listens
    to the tracepoint ``xdp_exception``, too: where the last frame came in that was aborted, or met
    with no action at all, ``netns << 32 | ifindex``.
    """

    _fields_ = [
        ("spent", c_uint64),
        ("suppressed", c_uint64),
        ("lost", c_uint64),
        ("seen", c_uint64),
        ("noted", c_uint64),
        ("pad", c_uint64 * 3),
    ]


EVENT_SIZE = sizeof(Event)
"""Bytes of a record, without what is captured of the frame."""


@dataclass(frozen=True, slots=True)
class Reporting:
    """What is reported.

    Attributes:
        program: its logical id. name: its name.
        netns: the inode number of the network namespace that it serves.
        actions: names of :data:`~xdpkit.rewrite.COUNTED`.
        snaplen: bytes of each frame, 0 for none. More takes ``bpf_xdp_load_bytes`` (Linux 5.18,
            3f364222d032 "net: xdp: introduce bpf_xdp_pointer utility routine").
        sample: report 1 in this many of the frames with these actions, on each CPU.
    """

    program: int
    name: str
    netns: int
    actions: frozenset[str]
    snaplen: int = 64
    sample: int = 1

    @property
    def mask(self) -> int:
        """The actions as bits."""
        return sum(1 << COUNTED.index(action) for action in self.actions)


def require_sense(actions: frozenset[str], snaplen: int, sample: int, what: str) -> None:
    """Refuse what cannot be reported.

    Raises:
        UsageError: there is no such action, or none; or a number is out of range.
    """
    unknown = sorted(actions.difference(COUNTED))
    if unknown or not actions:
        raise UsageError(
            what,
            cause=f"there is no action {unknown[0]!r}" if unknown else "no action is named",
            remedy=f"name some of: {', '.join(COUNTED)}",
        )
    if type(snaplen) is not int or not 0 <= snaplen <= _LONGEST:
        raise UsageError(
            what, cause=f"of a frame 0 to {_LONGEST} bytes can be reported, not {snaplen}"
        )
    if type(sample) is not int or not 1 <= sample < 1 << 31:
        raise UsageError(what, cause=f"1 in {sample} frames cannot be chosen")


class Report(abc.ABC):
    """Instructions that report a frame, wherever they stand.

    Registers keep, from where it is certain that the frame is meant: R6 what was returned, R7 where
    to learn about the frame, R8 the record, R9 the CPU's spending. A cell of the stack keeps the
    CPU.

    Attributes:
        steps: the instructions.
        ring, credits, spending: those that load a map.
    """

    def __init__(self, reporting: Reporting, base: int, leave: Instruction) -> None:
        """Begin without instructions.

        Args:
            reporting: what is reported.
            base: of the cell, from R10.
            leave: what is done before the exit.
        """
        self.ring, self.credits, self.spending = (Step(asm.ld_imm64(R1, 0)) for _ in range(3))
        self.steps: list[Step] = []
        self._reporting = reporting
        self._base = base
        self._submit = Step(asm.mov(R1, R8))
        self._leave = Step(leave)

    @abc.abstractmethod
    def _ifindex(self) -> Iterable[Instruction]:
        """Return what loads the interface's index into R1."""

    @abc.abstractmethod
    def _queue(self) -> Iterable[Instruction]:
        """Return what loads the RX queue into R1."""

    @abc.abstractmethod
    def _length(self) -> Iterable[Instruction]:
        """Return what loads the frame's length into R4; it may change R0 to R5."""

    @abc.abstractmethod
    def _copy(self) -> Iterable[Instruction]:
        """Return what copies as many bytes as R4 says behind the record; R0 is 0 if it could."""

    def _write(self) -> None:
        """Add all that is done with a frame that is meant."""
        self._begin()
        self._choose()
        self._note()
        self._spend()
        self._reserve()
        self._fill()
        self._capture()
        self._add(
            self._submit,
            asm.mov(R2, 0),
            asm.call("ringbuf_submit"),
            self._leave,
            asm.exit(),
        )

    def _add(self, *steps: Step | Instruction) -> None:
        self.steps += [step if isinstance(step, Step) else Step(step) for step in steps]

    def _compared(self, returned: Register, meant: Step) -> list[Step]:
        """Return what goes to a step if the action is asked for; empty if all are."""
        if self._reporting.mask == _ALL:
            return []
        choose = Step(asm.mov(R2, self._reporting.mask))
        return [
            # Only the low 32 bits are the action.
            Step(asm.mov(R1, returned, width=32)),
            Step(asm.branch(JmpOp.JLE, R1, _LAST_ACTION, 0), choose),
            Step(asm.mov(R1, _LAST_ACTION + 1)),
            choose,
            Step(asm.alu(AluOp.RSH, R2, R1)),
            Step(asm.branch(JmpOp.JSET, R2, 1, 0), meant),
        ]

    def _begin(self) -> None:
        """Keep the CPU, and find its spending."""
        self._add(
            asm.call("get_smp_processor_id"),
            asm.store(R10, self._base, R0, size=4),
        )
        self._look_up(self.spending)
        self._add(asm.mov(R9, R0))

    def _look_up(self, table: Step) -> None:
        """Find the CPU's entry of a map: R0."""
        self._add(
            table,
            asm.mov(R2, R10),
            asm.alu(AluOp.ADD, R2, self._base),
            asm.call("map_lookup_elem"),
            Step(asm.branch(JmpOp.JEQ, R0, 0, 0), self._leave),
        )

    def _count(self, offset: int) -> None:
        # XDP runs with soft interrupts off: nobody else counts on this CPU meanwhile.
        self._add(
            asm.load(R1, R9, offset),
            asm.alu(AluOp.ADD, R1, 1),
            asm.store(R9, offset, R1),
        )

    def _choose(self) -> None:
        """Count the frame, and return unless it is the first of as many as sampling is by."""
        self._count(Spending.seen.offset)
        if self._reporting.sample > 1:
            self._add(
                asm.alu(AluOp.SUB, R1, 1),
                asm.alu(AluOp.MOD, R1, self._reporting.sample),
                Step(asm.branch(JmpOp.JNE, R1, 0, 0), self._leave),
            )

    def _note(self) -> None:
        """Say where the frame came in, if the tracepoint is going to tell of it, too."""
        mask = self._reporting.mask
        if not mask & _FAILING:
            return
        note, *more = map(Step, self._ifindex())
        if mask & ~_FAILING:
            self._add(
                asm.mov(R1, R6, width=32),
                Step(asm.branch(JmpOp.JEQ, R1, XdpAction.ABORTED, 0), note),
                Step(asm.branch(JmpOp.JLE, R1, _LAST_ACTION, 0), self.credits),
            )
        self._add(
            note,
            *more,
            asm.ld_imm64(R2, self._reporting.netns << 32),
            asm.alu(AluOp.OR, R1, R2),
            asm.store(R9, Spending.noted.offset, R1),
        )

    def _spend(self) -> None:
        """Take one of the reader's credits, or count the frame and return."""
        spend = Step(asm.alu(AluOp.ADD, R2, 1))
        self._look_up(self.credits)
        self._add(
            asm.load(R1, R0),
            asm.load(R2, R9, Spending.spent.offset),
            Step(asm.branch(JmpOp.JLT, R2, R1, 0), spend),
        )
        self._count(Spending.suppressed.offset)
        self._add(
            Step(asm.jump(0), self._leave),
            spend,
            asm.store(R9, Spending.spent.offset, R2),
        )

    def _reserve(self) -> None:
        """Get a record, or count the frame and return."""
        keep = Step(asm.mov(R8, R0))
        self._add(
            self.ring,
            asm.mov(R2, EVENT_SIZE + self._reporting.snaplen),
            asm.mov(R3, 0),
            asm.call("ringbuf_reserve"),
            Step(asm.branch(JmpOp.JNE, R0, 0, 0), keep),
        )
        self._count(Spending.lost.offset)
        self._add(Step(asm.jump(0), self._leave), keep)

    def _fill(self) -> None:
        """Write what is known of the frame; its length stays in R4."""
        name = self._reporting.name.encode()[: BPF_OBJ_NAME_LEN - 1].ljust(BPF_OBJ_NAME_LEN, b"\0")
        words = [name[at : at + _WORD] for at in range(0, len(name), _WORD)]
        self._add(
            asm.call("ktime_get_ns"),
            asm.store(R8, Event.time.offset, R0),
            asm.store(R8, Event.kind.offset, _FRAME, size=4),
            asm.load(R1, R10, self._base, size=4),
            asm.store(R8, Event.cpu.offset, R1, size=4),
            *self._ifindex(),
            asm.store(R8, Event.ifindex.offset, R1, size=4),
            *self._queue(),
            asm.store(R8, Event.queue.offset, R1, size=4),
            asm.store(R8, Event.action.offset, R6, size=4),
        )
        for at, number in (
            (Event.netns.offset, self._reporting.netns),
            (Event.program.offset, self._reporting.program),
        ):
            self._add(asm.mov(R1, number, width=32), asm.store(R8, at, R1, size=4))
        for field in ("error", "target", "map_id", "map_type", "map_index", "drops", "unused"):
            self._add(asm.store(R8, getattr(Event, field).offset, 0, size=4))
        for number, word in enumerate(words):
            self._add(
                asm.ld_imm64(R1, int.from_bytes(word, sys.byteorder)),
                asm.store(R8, Event.name.offset + number * _WORD, R1),
            )
        self._add(*self._length(), asm.store(R8, Event.length.offset, R4, size=4))

    def _capture(self) -> None:
        """Copy what the frame begins with, and write how much that is; R4 has its length."""
        snaplen = self._reporting.snaplen
        if not snaplen:
            self._add(asm.store(R8, Event.captured.offset, 0, size=4))
            return
        none = Step(asm.store(R8, Event.captured.offset, 0, size=4))
        copy = Step(asm.mov(R9, R4))
        self._add(
            asm.mov(R4, R4, width=32),
            # The verifier wants to see that it is not 0, and not too much.
            Step(asm.branch(JmpOp.JLT, R4, 1, 0), none),
            Step(asm.branch(JmpOp.JLE, R4, snaplen, 0), copy),
            asm.mov(R4, snaplen),
            copy,
            *self._copy(),
            asm.store(R8, Event.captured.offset, R9, size=4),
            Step(asm.branch(JmpOp.JEQ, R0, 0, 0), self._submit),
            none,
        )
