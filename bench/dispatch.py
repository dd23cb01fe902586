# SPDX-License-Identifier: Apache-2.0
"""What dispatch by RX queue and counting add for each packet.

Roots and programs that count are what :mod:`xdpkit.rewrite` makes. All programs drop their packets
and do nothing else. A root has a slot for each queue, with a program of its own, and one for the
global program; or there is the global program only, and the slots of the queues are empty. Packets
come by the first, the middle and the last queue.

The peer is what others do: a program that tail-calls, with the queue's number for the slot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench.packets import Candidate, place, print_table
from tests.kernel.compiled import assembled
from xdpkit import rewrite
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map, Program, patch
from xdpkit.rewrite import Body
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.attr import XdpMd
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType, PseudoSrc, XdpAction

SIZES = (1, 8, 64, 256, 1023)
"""Queues of the roots."""

ENTRIES = 8
"""Queues that counters are kept for."""

_FRAGS = ProgFlags.XDP_HAS_FRAGS
_DROP = asm.mov(Register.R0, XdpAction.DROP), asm.exit()
_BODY = Body(encode(_DROP, byteorder=sys.byteorder))

AIMS = """\
Aims: dispatch over 8 queues adds at most 3 ns, and at most half of what the variable-index tail
call adds; counting adds at most 4 ns."""


def main() -> None:
    """Print a line for each program, and what is aimed at."""
    print("What dispatch by RX queue and counting add for each packet: medians of rounds, by turns")
    with ExitStack() as resources:
        where = resources.enter_context(place(SIZES[-1]))
        candidates = _candidates(Maker(resources))
        where.measure(candidates)
    print_table(candidates)
    print(AIMS)


def _candidates(make: Maker) -> list[Candidate]:
    direct = Candidate("direct", make.program(), _ends(SIZES[-1]))
    in_frags = Candidate("direct, frags", make.program(flags=_FRAGS), direct.queues, direct)
    found = [direct, in_frags]
    for size in SIZES:
        name = f"root, {size:,} queue{'s' if size > 1 else ''}"
        members = [make.program() for _ in range(size)]
        root, array = make.root(members, direct.program)
        found.append(Candidate(name, root, _ends(size), direct))
        if size == ENTRIES:
            variable = make.variable(array)
            found.append(Candidate("variable-index tail call", variable, _ends(size), direct))
            root, _ = make.root([None] * size, direct.program)
            found.append(Candidate(f"{name}, the global program", root, _ends(size), direct))
    for base, flags in ((direct, 0), (in_frags, _FRAGS)):
        for count_bytes in (False, True):
            for queue in (None, 0):
                name = (
                    f"counting{' and bytes' if count_bytes else ''}, "
                    f"{'all queues' if queue is None else 'one queue'}{', frags' if flags else ''}"
                )
                program = make.counting(queue, count_bytes, flags)
                found.append(Candidate(name, program, _ends(ENTRIES), base))
    for count_bytes in (False, True):
        name = f"root, {ENTRIES} queues, counting{' and bytes' if count_bytes else ''}"
        members = [make.counting(queue, count_bytes) for queue in range(ENTRIES)]
        root, _ = make.root(members, make.counting(None, count_bytes))
        found.append(Candidate(name, root, _ends(ENTRIES), direct))
    return found


def _ends(size: int) -> tuple[int, ...]:
    """Return the first, the middle and the last of so many queues."""
    return tuple(sorted({0, size // 2, size - 1}))


class Maker:
    """Loads programs, which the stack owns."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources

    def program(self, body: Body = _BODY, *, flags: int = 0) -> Program:
        new = NewProgram(
            ProgType.XDP, body.code, "", name="bench", attach_type=AttachType.XDP, flags=flags
        )
        return self._resources.enter_context(Program(bpf.prog_load(new, what="load a program")))

    def root(self, members: Sequence[Program | None], otherwise: Program) -> tuple[Program, Map]:
        """Return a root with a slot for each queue, and its array."""
        size = len(members)
        made = rewrite.root({queue: queue for queue in range(size)}, size, entries=size)
        array = self._map(MapType.PROG_ARRAY, 4, size + 1)
        missing = self._map(MapType.PERCPU_ARRAY, rewrite.NO_PROGRAM_SIZE, size)
        code = bytearray(made.body.code)
        patch.set_map(code, made.array_slots, array.fileno())
        patch.set_map(code, made.counter_slots, missing.fileno())
        root = self.program(replace(made.body, code=bytes(code)))
        for slot, member in enumerate((*members, otherwise)):
            if member is not None:
                array[slot] = member
        return root, array

    def variable(self, array: Map) -> Program:
        code = (
            asm.load(Register.R3, Register.R1, XdpMd.rx_queue_index.offset, size=4),
            asm.ld_imm64(Register.R2, array.fileno(), source=PseudoSrc.MAP_FD),
            asm.call("tail_call"),
            asm.mov(Register.R0, XdpAction.PASS),
            asm.exit(),
        )
        return self._resources.enter_context(assembled(*code, name="variable"))

    def counting(self, queue: int | None, count_bytes: bool, flags: int = 0) -> Program:
        counters = self._map(
            MapType.PERCPU_ARRAY,
            rewrite.value_size(count_bytes=count_bytes),
            ENTRIES if queue is None else 1,
        )
        made = rewrite.counting(
            _BODY,
            entries=counters.max_entries,
            queue=queue,
            count_bytes=count_bytes,
            frags=bool(flags & _FRAGS),
        )
        code = bytearray(made.body.code)
        patch.set_map(code, made.map_slots, counters.fileno())
        return self.program(replace(made.body, code=bytes(code)), flags=flags)

    def _map(self, map_type: MapType, value_size: int, entries: int) -> Map:
        return self._resources.enter_context(
            Map.create(map_type, key_size=4, value_size=value_size, max_entries=entries)
        )


if __name__ == "__main__":
    main()
