# SPDX-License-Identifier: Apache-2.0
"""The program that runs another one for each RX queue.

It finds the queue by comparing, and tail-calls a *constant* slot of one program array, which the
JIT makes a direct jump (Linux 5.5, 428d5df1fa4f "bpf, x86: Emit patchable direct jump as tail
call").
A queue whose slot is empty is served by the global program, if that has a slot; where there is no
program at all, the packet passes, and is counted::

    map     BPF_MAP_TYPE_PERCPU_ARRAY, one entry for each RX queue
    value   u64 packets; u64 bytes; see NoProgram
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Body, Code, Function, Step
from xdpkit.uapi.attr import XdpMd
from xdpkit.uapi.bpf import XdpAction

R0, R1, R2, R3, R6, R10 = (
    Register.R0,
    Register.R1,
    Register.R2,
    Register.R3,
    Register.R6,
    Register.R10,
)

MAX_CALLS = 1024
"""Calls of constant slots that one program can have (``bpf_jit_add_poke_descriptor()``)."""

NO_PROGRAM_SIZE = 16
"""Bytes of an entry of the map that counts packets for which there is no program."""

_Value = bytes  # a field of that name hides it
_COUNTERS = struct.Struct("=QQ")
_WHAT = "dispatch by RX queue"


@dataclass(frozen=True, slots=True)
class NoProgram:
    """Packets for which there was no program, and their bytes."""

    packets: int
    bytes: int

    @classmethod
    def read(cls, values: Iterable[_Value]) -> Self:
        """Return the sum of an entry's values: those of all CPUs, or of several entries."""
        found = [_COUNTERS.unpack(value) for value in values]
        return cls(sum(packets for packets, _ in found), sum(length for _, length in found))


@dataclass(frozen=True, slots=True)
class Root:
    """A root program; it has no type information and needs no licence.

    Attributes:
        body: the program.
        array_slots: 64-bit loads that are to load the program array.
        counter_slots: those that are to load the map of the counters.
    """

    body: Body
    array_slots: tuple[int, ...]
    counter_slots: tuple[int, ...]


def root(
    queues: Mapping[int, int], default: int | None, *, entries: int, frags: bool = False
) -> Root:
    """Return a root program.

    Args:
        queues: the slot of the program array for each RX queue that has one.
        default: the slot of the global program; None: there is none, nor will there be.
        entries: how many entries the map of the counters has. The last one also counts for the
            queues beyond it.
        frags: whether the program is loaded with BPF_F_XDP_HAS_FRAGS, as its members must be.

    Raises:
        RequirementUnmet: the queues take more calls than one program can have. Neighbours with
            the same slot share one.
        UsageError: a queue, a slot or the number of entries is out of range.
    """
    numbers = [*queues, *queues.values(), *(() if default is None else (default,))]
    if entries < 1 or not all(0 <= number < 1 << 31 for number in numbers):
        raise UsageError(_WHAT, cause="a queue, a slot or the number of entries is out of range")
    runs = _runs(queues)
    calls = sum(run.slot is not None for run in runs) + (default is not None)
    if calls > MAX_CALLS:
        raise RequirementUnmet(
            _WHAT,
            cause=f"it takes {calls} programs that are called from one, and the kernel allows"
            f" {MAX_CALLS}",
            remedy="give neighbouring queues the same program",
        )
    return _Builder(default, entries, frags).build(runs)


@dataclass(frozen=True, slots=True)
class _Run:
    """Queues from one up to the next run that have the same slot."""

    start: int
    slot: int | None


def _runs(queues: Mapping[int, int]) -> list[_Run]:
    runs = [_Run(0, None)]
    for queue in sorted({0, *queues, *(served + 1 for served in queues)}):
        slot = queues.get(queue)
        if runs[-1].start == queue:
            runs[-1] = _Run(queue, slot)
        elif runs[-1].slot != slot:
            runs.append(_Run(queue, slot))
    return runs


class _Builder:
    def __init__(self, default: int | None, entries: int, frags: bool) -> None:
        self._default = default
        self._entries = entries
        self._frags = frags
        self._steps: list[Step] = []
        self._arrays: list[Step] = []
        # Where a queue without a program of its own goes on.
        self._otherwise = Step(asm.mov(R1, R6))

    def build(self, runs: list[_Run]) -> Root:
        # The context is needed again where a slot is empty.
        self._add(asm.mov(R6, R1), asm.load(R2, R1, XdpMd.rx_queue_index.offset, size=4))
        self._select(runs)
        self._steps.append(self._otherwise)
        if self._default is not None:
            self._call(self._default)
        counters = self._pass()
        code = Code([Function(0, self._steps)])
        return Root(code.body(what=_WHAT), code.slots_of(self._arrays), code.slots_of([counters]))

    def _select(self, runs: list[_Run]) -> None:
        """Add the comparisons, and the calls for each run."""
        if len(runs) > 1:
            middle = len(runs) // 2
            branch = Step(asm.branch(JmpOp.JGE, R2, runs[middle].start, 0))
            self._steps.append(branch)
            self._select(runs[:middle])
            following = len(self._steps)
            self._select(runs[middle:])
            branch.target = self._steps[following]
            return
        (run,) = runs
        if run.slot is not None:
            # r1 is still the context.
            self._call(run.slot)
        self._steps.append(Step(asm.jump(0), self._otherwise))

    def _call(self, slot: int) -> None:
        load = Step(asm.ld_imm64(R2, 0))
        self._arrays.append(load)
        self._steps.append(load)
        self._add(asm.mov(R3, slot), asm.call("tail_call"))

    def _pass(self) -> Step:
        """Count the packet and let it pass; return the load of the counters' map."""
        load, leave = Step(asm.ld_imm64(R1, 0)), Step(asm.mov(R0, XdpAction.PASS))
        keep = Step(asm.store(R10, -4, R1, size=4))
        self._add(asm.load(R1, R6, XdpMd.rx_queue_index.offset, size=4))
        self._steps += [
            Step(asm.branch(JmpOp.JLT, R1, self._entries, 0), keep),
            Step(asm.mov(R1, self._entries - 1)),
            keep,
        ]
        if self._frags:
            # The ends of the packet are those of its first fragment.
            self._add(asm.mov(R1, R6), asm.call("xdp_get_buff_len"), asm.mov(R6, R0))
        else:
            self._add(
                asm.load(R1, R6, XdpMd.data.offset, size=4),
                asm.load(R6, R6, XdpMd.data_end.offset, size=4),
                asm.alu(AluOp.SUB, R6, R1),
            )
        self._add(asm.mov(R2, R10), asm.alu(AluOp.ADD, R2, -4))
        self._steps.append(load)
        self._add(asm.call("map_lookup_elem"))
        self._steps.append(Step(asm.branch(JmpOp.JEQ, R0, 0, 0), leave))
        self._add(
            asm.load(R1, R0),
            asm.alu(AluOp.ADD, R1, 1),
            asm.store(R0, 0, R1),
            asm.load(R1, R0, 8),
            asm.alu(AluOp.ADD, R1, R6),
            asm.store(R0, 8, R1),
        )
        self._steps += [leave, Step(asm.exit())]
        return load

    def _add(self, *instructions: Instruction) -> None:
        self._steps += [Step(instruction) for instruction in instructions]
