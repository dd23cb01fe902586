# SPDX-License-Identifier: Apache-2.0
"""Ring buffers and mapped arrays, against programs that write into them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernel.compiled import assembled
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.kernel import Map, Program, host
from xdpkit.kernel.memory import Memory
from xdpkit.kernel.ringbuf import RingBuffer
from xdpkit.monitor.allowance import Allowance
from xdpkit.monitor.record import Kind
from xdpkit.monitor.ring import ENTRY_SIZE, Ring
from xdpkit.rewrite import EVENT_SIZE
from xdpkit.uapi.bpf import MapFlags, MapType, PseudoSrc, XdpAction

pytestmark = pytest.mark.needs("ringbuf")

R = Register
_SIZE = 4096
_RECORD = 16
_FRAME = bytes(64)

_DISCARD = "ringbuf_discard"
_SUBMIT = "ringbuf_submit"


def ring_map(size: int = _SIZE) -> Map:
    return Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=size, name="ring")


def writer(into: Map, *, end: str = _SUBMIT) -> Program:
    """Load a program that writes 8 bytes, the time, where there is room."""
    code = (
        asm.ld_imm64(R.R1, into.fileno(), source=PseudoSrc.MAP_FD),
        asm.mov(R.R2, 8),
        asm.mov(R.R3, 0),
        asm.call("ringbuf_reserve"),
        asm.branch(JmpOp.JEQ, R.R0, 0, 7),
        asm.mov(R.R6, R.R0),
        asm.call("ktime_get_ns"),
        asm.store(R.R6, 0, R.R0),
        asm.mov(R.R1, R.R6),
        asm.mov(R.R2, 0),
        asm.call(end),
        asm.mov(R.R0, XdpAction.PASS),
        asm.exit(),
    )
    return assembled(*code, name="writer")


@pytest.fixture
def made() -> Iterator[Map]:
    with ring_map() as found:
        yield found


def test_what_programs_write_comes_in_order_and_once(made: Map) -> None:
    with RingBuffer(made) as ring, writer(made) as program:
        assert ring.size == _SIZE
        assert not ring.wait(0)
        program.run(_FRAME, repeat=5)
        assert ring.wait(0)
        assert ring.pending == 5 * _RECORD
        times = [int(struct.unpack("=Q", record)[0]) for record in ring.records()]
        assert len(times) == 5
        assert times == sorted(times)
        assert not ring.wait(0)


def test_it_goes_round_and_round(made: Map) -> None:
    with RingBuffer(made) as ring, writer(made) as program:
        for _ in range(10):
            program.run(_FRAME, repeat=100)
            assert sum(1 for _ in ring.records()) == 100


def test_a_full_one_has_room_again_for_what_was_read(made: Map) -> None:
    room = (_SIZE - 1) // _RECORD
    with RingBuffer(made) as ring, writer(made) as program:
        program.run(_FRAME, repeat=room + 20)
        reading = ring.records()
        next(reading)
        next(reading)
        program.run(_FRAME, repeat=20)
        assert len([*reading, *ring.records()]) == room


def test_what_a_program_discards_is_not_read(made: Map) -> None:
    with RingBuffer(made) as ring, writer(made, end=_DISCARD) as program:
        program.run(_FRAME, repeat=3)
        assert list(ring.records()) == []
        assert ring.pending == 0


def test_other_maps_are_no_ring_buffers() -> None:
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=8, max_entries=1, name="counts") as array,
        pytest.raises(UsageError, match="read the ring buffer counts: it is no map of type"),
    ):
        RingBuffer(array)


# Memory


def array_map(
    *, value_size: int = 16, entries: int = 3, flags: MapFlags = MapFlags.MMAPABLE
) -> Map:
    return Map.create(
        MapType.ARRAY,
        key_size=4,
        value_size=value_size,
        max_entries=entries,
        name="numbers",
        flags=flags,
    )


def test_numbers_in_memory_are_those_of_the_map() -> None:
    with array_map() as numbers, Memory(numbers, writable=True) as memory:
        numbers[1] = struct.pack("=QQ", 7, (1 << 64) - 1)
        assert (memory.get(1), memory.get(1, 1)) == (7, (1 << 64) - 1)
        memory.set(2, 1, 9)
        assert numbers[2] == struct.pack("=QQ", 0, 9)
        assert memory.sum() == 7
        assert memory.sum(1) == (1 << 64) + 8


def test_memory_outlives_the_map_object() -> None:
    numbers = array_map()
    with Memory(numbers) as memory:
        numbers.close()
        assert memory.sum() == 0


def test_a_programs_counting_is_seen() -> None:
    with array_map(value_size=24, entries=1) as numbers, Memory(numbers) as memory:
        code = (
            asm.ld_map_value(R.R1, numbers.fileno(), 16),
            asm.mov(R.R2, 1),
            asm.atomic(Atomic.ADD, R.R1, 0, R.R2),
            asm.mov(R.R0, XdpAction.PASS),
            asm.exit(),
        )
        with assembled(*code) as program:
            program.run(_FRAME, repeat=1000)
        assert [memory.get(0, word) for word in range(3)] == [0, 0, 1000]


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda memory: memory.get(3), "it has 3 entries of 2 numbers"),
        (lambda memory: memory.get(0, 2), "it has 3 entries of 2 numbers"),
        (lambda memory: memory.get(-1), "it has 3 entries of 2 numbers"),
        (lambda memory: memory.set(0, 0, 1), "it was mapped to be read only"),
    ],
)
def test_what_is_not_there_is_refused(use: Callable[[Memory], object], says: str) -> None:
    with array_map() as numbers, Memory(numbers) as memory, pytest.raises(UsageError, match=says):
        use(memory)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_has_64_bits(value: int) -> None:
    with (
        array_map() as numbers,
        Memory(numbers, writable=True) as memory,
        pytest.raises(UsageError, match="is no unsigned number of 64 bits"),
    ):
        memory.set(0, 0, value)


def test_what_cannot_be_mapped_is_refused() -> None:
    with (
        array_map(flags=MapFlags(0)) as plain,
        pytest.raises(UsageError, match="it is no array with BPF_F_MMAPABLE"),
    ):
        Memory(plain)
    with (
        array_map(value_size=12) as odd,
        pytest.raises(UsageError, match="no whole numbers of 64 bits"),
    ):
        Memory(odd)
    with array_map() as frozen:
        frozen.freeze()
        with pytest.raises(KernelRefused, match="EPERM"):
            Memory(frozen, writable=True)
        Memory(frozen).close()


def test_closed_memory_says_so() -> None:
    with array_map() as numbers:
        memory = Memory(numbers)
        memory.close()
        memory.close()
        with pytest.raises(UsageError, match="it is closed"):
            memory.get(0)


# The ring with its credits


def test_what_was_spent_is_granted_anew_a_second_later() -> None:
    allowance = Allowance(10)
    with Ring() as ring, Memory(ring.credits) as credits:
        ring.grant(allowance, 0.0)
        assert credits.sum() == 10 * host.possible_cpus()
        ring.spending[0] = struct.pack("=Q", 4) + bytes(ENTRY_SIZE - 8)
        granted = []
        for now in (0.5, 1.25, 1.5, 9.0):
            ring.grant(allowance, now)
            granted.append(credits.get(0))
        assert granted == [10, 10, 14, 14]
        assert credits.sum() == 10 * host.possible_cpus() + 4


def test_credit_for_the_room_is_what_finds_room_from_each_cpu() -> None:
    with Ring(4096) as ring, Memory(ring.credits) as credits:
        ring.spending[0] = struct.pack("=Q", 7) + bytes(ENTRY_SIZE - 8)
        ring.grant_room(snaplen=100)
        # 8 bytes of a record's head, 88 of the event's, and 100, as whole eights.
        assert credits.get(0) == 7 + 4096 // 200
        assert credits.get(1) == 4096 // 200 if host.possible_cpus() > 1 else True


def test_numbers_are_sums_over_all_cpus() -> None:
    with Ring() as ring:
        cpus = host.possible_cpus()
        for cpu in range(cpus):
            ring.spending[cpu] = struct.pack("=QQQQ", 1, 2, 3, 6).ljust(ENTRY_SIZE, b"\0")
        assert (ring.suppressed, ring.lost, ring.seen) == (2 * cpus, 3 * cpus, 6 * cpus)


def test_records_are_read_as_events() -> None:
    with Ring() as ring:
        code = (
            asm.ld_imm64(R.R1, ring.ring.fileno(), source=PseudoSrc.MAP_FD),
            asm.mov(R.R2, R.R10),
            asm.alu(AluOp.ADD, R.R2, -EVENT_SIZE),
            *_zeroed(EVENT_SIZE),
            asm.mov(R.R3, EVENT_SIZE),
            asm.mov(R.R4, 0),
            asm.call("ringbuf_output"),
            asm.mov(R.R0, XdpAction.PASS),
            asm.exit(),
        )
        with assembled(*code) as program:
            program.run(_FRAME)
        assert ring.wait(0)
        (event,) = ring.events()
        assert event.kind is Kind.FRAME


@pytest.mark.parametrize("size", [0, 1, 2048, 5000, 3 << 12, 1 << 31, 4096.0, "4096"])
def test_a_size_that_makes_no_sense_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="the size is a power of 2"):
        Ring(size)


def _zeroed(size: int) -> tuple[Instruction, ...]:
    clear = asm.mov(R.R5, 0)
    return clear, *(asm.store(R.R10, -offset, R.R5) for offset in range(8, size + 1, 8))
