# SPDX-License-Identifier: Apache-2.0
"""Counting what a program returns, without the program's doing.

Wherever its main function would return, it first adds to a counter::

    map     BPF_MAP_TYPE_PERCPU_ARRAY, one entry for each RX queue
    value   u64 packets[6]; u64 bytes[6] if bytes are counted; see Counts

The program goes on returning what it returned. What a packet costs is one look-up, which the JIT
inlines (Linux 6.10 and later on x86-64), and two memory accesses.

Which RX queue a packet came by, and how long it is, can be learnt only from the context, which is
gone when the program returns. So a prologue keeps them in 8 bytes of stack, below what the program
uses. What was used is free by then: a program that is known to serve one queue, and whose bytes are
not counted, needs no more stack than it has, unless it has none.

**The length** is that of the frame as it came in. ``data_end`` - ``data`` for programs that take no
fragments; for those that do, ``bpf_xdp_get_buff_len()``, as the former is the first fragment only.
A program that is tail-called counts the length that it is entered with, after what its caller
added or removed.

**Exceptions.** What is thrown (``bpf_throw()``) is counted in the program's own exception callback,
which has neither context nor main's stack: the queue must be known then, and no bytes are counted.
Without a callback, a throw of the main function becomes a return, and one of a subprogram is
refused: there is no place where it could be counted.

**Tail calls.** A program that tail-calls from its main function does not return, but the other one
does; see :mod:`xdpkit.rewrite.tailcalls`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Body, Code, Function, Step, edit
from xdpkit.rewrite.exceptions import (
    THROWS_IN_A_SUBPROGRAM,
    functions_that_throw,
    return_what_is_thrown,
)
from xdpkit.rewrite.exits import end_by
from xdpkit.rewrite.stack import CELL, check_room, depths_of, is_used
from xdpkit.uapi.attr import XdpMd
from xdpkit.uapi.bpf import XdpAction

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

COUNTED = (*(action.name.lower() for action in XdpAction), "invalid")
"""What is counted apart, in the order of the counters: each action, and what is none."""

_Value = bytes  # a field of that name hides it
_COUNTERS = len(COUNTED)
_SIZE = 8  # bytes of a counter
_LENGTH, _QUEUE = 0, 4  # what is where in the 8 bytes of stack
_LAST_ACTION = max(XdpAction)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters, each list in the order of :data:`COUNTED`.

    Attributes:
        packets: how many packets. bytes: how many bytes they had, None if that was not counted.
    """

    packets: tuple[int, ...]
    bytes: tuple[int, ...] | None

    @classmethod
    def read(cls, values: Iterable[_Value]) -> Self:
        """Return the sum of an entry's values: those of all CPUs, or of several entries."""
        found = [struct.unpack(f"={len(value) // _SIZE}Q", value) for value in values]
        sums = tuple(sum(column) for column in zip(*found, strict=True))
        return cls(sums[:_COUNTERS], sums[_COUNTERS:] or None)


def value_size(*, count_bytes: bool) -> int:
    """Return the bytes that an entry of the map must have."""
    return _COUNTERS * _SIZE * (2 if count_bytes else 1)


@dataclass(frozen=True, slots=True)
class Counting:
    """A program that counts.

    Attributes:
        body: the program.
        map_slots: 64-bit loads that are to load the map of the counters.
    """

    body: Body
    map_slots: tuple[int, ...]


def counting(
    body: Body,
    *,
    entries: int,
    queue: int | None = None,
    count_bytes: bool = False,
    frags: bool = False,
    throw: int | None = None,
    exception_callback: int | None = None,
    stack: Sequence[int] | None = None,
    name: str = "the program",
) -> Counting:
    """Return a program that does the same and counts what it returns.

    Args:
        body: the program.
        entries: how many entries the map has. The last one also counts for the queues beyond it.
        queue: the one RX queue that the program serves; None: it is asked for each packet.
        count_bytes: whether bytes are counted too.
        frags: whether the program is loaded with BPF_F_XDP_HAS_FRAGS.
        throw: BTF id of ``bpf_throw`` in the kernel, None where there is none.
        exception_callback: slot of the program's own exception callback; see
            :func:`~xdpkit.rewrite.exceptions.exception_callback`.
        stack: bytes of stack that its functions use, in their order, as
            :func:`~xdpkit.rewrite.stack.stack_in_log` has them; None: they are found by analysis,
            which refuses some programs that the verifier's log does not.
        name: of the program, for errors.

    Raises:
        RequirementUnmet: it cannot be done; the program is named, and the reason.
        ObjectFormatError: the body contradicts itself.
        UsageError: the entries, the queue or the stack make no sense.
    """
    what = f"count what {name} returns"
    if entries < 1 or (queue is not None and queue < 0):
        raise UsageError(what, cause=f"no map has {entries} entries for queue {queue}")
    if entries == 1:
        queue = 0
    elif queue is not None:
        queue = min(queue, entries - 1)
    code = edit(body, what=what)
    callback = _end_throws(code, throw, exception_callback, what)
    kept = queue is None or count_bytes
    if callback is not None and kept:
        raise RequirementUnmet(
            what,
            cause="it throws (bpf_throw), and its exception callback can learn neither the RX queue"
            " nor the length of the packet",
            remedy="attach it for a single RX queue, and count no bytes",
        )
    base = -CELL
    if kept:
        depths = depths_of(body, code, what=what, throw=throw, known=stack)
        base -= depths[code.main]
        check_room(code, depths, {code.main: -base}, what=what)
        _keep(code.main, base, None if queue is not None else entries - 1, count_bytes, frags)
    elif len(code.functions) > 1 and not is_used(code.main):
        depths = depths_of(body, code, what=what, throw=throw, known=stack)
        check_room(code, depths, {code.main: max(CELL, depths[code.main])}, what=what)
    loads = []
    for function in (code.main, callback):
        if function is not None:
            loads += _count_exits(function, base, queue, count_bytes)
    return Counting(code.body(what=what), code.slots_of(loads))


def _end_throws(
    code: Code, throw: int | None, callback_slot: int | None, what: str
) -> Function | None:
    """Make returns of what main throws; return the callback, where anything is thrown to it."""
    throwing = functions_that_throw(code, throw)
    if throwing and callback_slot is not None:
        callback = code.function_at(callback_slot)
        if callback is None:
            raise UsageError(what, cause=f"no function begins at slot {callback_slot}")
        return callback
    if throwing - {code.main}:
        raise RequirementUnmet(
            what,
            cause=THROWS_IN_A_SUBPROGRAM,
            remedy="throw in the main function only; or give the program an exception callback"
            " (__exception_cb), attach it for a single RX queue, and count no bytes",
        )
    return_what_is_thrown(code.main, throw)
    return None


def _keep(main: Function, base: int, last: int | None, count_bytes: bool, frags: bool) -> None:
    """Begin by keeping what only the context has; ``last`` is the last entry."""
    steps = []
    if last is not None:
        keep = Step(asm.store(R10, base + _QUEUE, R2, size=4))
        steps += [
            Step(asm.load(R2, R1, XdpMd.rx_queue_index.offset, size=4)),
            Step(asm.branch(JmpOp.JLE, R2, last, 0), keep),
            Step(asm.mov(R2, last)),
            keep,
        ]
    if count_bytes and frags:
        steps += [
            Step(asm.mov(R6, R1)),
            Step(asm.call("xdp_get_buff_len")),
            Step(asm.store(R10, base + _LENGTH, R0, size=4)),
            Step(asm.mov(R1, R6)),
        ]
    elif count_bytes:
        steps += [
            Step(asm.load(R2, R1, XdpMd.data_end.offset, size=4)),
            Step(asm.load(R3, R1, XdpMd.data.offset, size=4)),
            Step(asm.alu(AluOp.SUB, R2, R3)),
            Step(asm.store(R10, base + _LENGTH, R2, size=4)),
        ]
    main.prepend(steps)


def _count_exits(function: Function, base: int, queue: int | None, count_bytes: bool) -> list[Step]:
    """Count at each return of a function; return the loads of the map."""
    used = {step.instruction.dst for step in function.steps}
    # One that the program saves and restores anyway costs nothing more.
    saved = next((each for each in (R6, R7, R8, R9) if each in used), R6)
    loads = []

    def epilogue(first: Step) -> list[Step]:
        loads.append(Step(asm.ld_imm64(R1, 0)))
        return _epilogue(first, loads[-1], saved, base, queue, count_bytes)

    end_by(function, epilogue)
    return loads


def _epilogue(
    first: Step, load: Step, saved: Register, base: int, queue: int | None, count_bytes: bool
) -> list[Step]:
    """Turn a return into the first instruction of counting; return the others."""
    first.instruction = asm.mov(saved, R0)
    leave = Step(asm.mov(R0, saved))
    add = Step(asm.alu(AluOp.LSH, R1, 3))
    steps = [
        Step(asm.mov(R2, R10)),
        Step(asm.alu(AluOp.ADD, R2, base + _QUEUE)),
        load,
        Step(asm.call("map_lookup_elem")),
        Step(asm.branch(JmpOp.JEQ, R0, 0, 0), leave),
        # Only the low 32 bits are the action.
        Step(asm.mov(R1, saved, width=32)),
        Step(asm.branch(JmpOp.JLE, R1, _LAST_ACTION, 0), add),
        Step(asm.mov(R1, _LAST_ACTION + 1)),
        add,
        Step(asm.alu(AluOp.ADD, R0, R1)),
        # XDP runs with soft interrupts off: nobody else counts on this CPU meanwhile.
        Step(asm.load(R1, R0)),
        Step(asm.alu(AluOp.ADD, R1, 1)),
        Step(asm.store(R0, 0, R1)),
    ]
    if queue is not None:
        steps.insert(0, Step(asm.store(R10, base + _QUEUE, queue, size=4)))
    if count_bytes:
        offset = _COUNTERS * _SIZE
        steps += [
            Step(asm.load(R1, R0, offset)),
            Step(asm.load(R2, R10, base + _LENGTH, size=4)),
            Step(asm.alu(AluOp.ADD, R1, R2)),
            Step(asm.store(R0, offset, R1)),
        ]
    return [*steps, leave, Step(asm.exit())]
