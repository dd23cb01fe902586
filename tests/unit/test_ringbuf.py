# SPDX-License-Identifier: Apache-2.0
"""Ring buffers as the kernel lays them out, in a file that stands for one."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import UsageError
from xdpkit.kernel import Map
from xdpkit.kernel.ringbuf import RingBuffer
from xdpkit.uapi.bpf import MapType

PAGE = mmap.PAGESIZE
BUSY, DISCARD = 1 << 31, 1 << 30


class Producer:
    """Writes as kernel/bpf/ringbuf.c does; the file has the data twice, as the kernel maps it."""

    def __init__(self, size: int = PAGE, *, start: int = 0) -> None:
        self.type = MapType.RINGBUF
        self.name = "events"
        self.max_entries = size
        self.position = start
        self._file = os.memfd_create("ring", os.MFD_CLOEXEC)
        os.ftruncate(self._file, 2 * PAGE + 2 * size)
        self._put(0, struct.pack("=Q", start))
        self._move(0)

    def fileno(self) -> int:
        return self._file

    def write(self, data: bytes, flags: int = 0) -> int:
        """Add a record; return where its header is."""
        at = self.position % self.max_entries
        record = struct.pack("=II", len(data) | flags, 0) + data
        for index, byte in enumerate(record):
            place = (at + index) % self.max_entries
            for copy in (place, place + self.max_entries):
                self._put(2 * PAGE + copy, bytes([byte]))
        self._move((len(record) + 7) // 8 * 8)
        return at

    def finish(self, at: int, length: int, flags: int = 0) -> None:
        """Take the mark away from a record in the making."""
        for copy in (at, at + self.max_entries):
            self._put(2 * PAGE + copy, struct.pack("=I", length | flags))

    def consumed(self) -> int:
        return int(struct.unpack("=Q", os.pread(self._file, 8, 0))[0])

    def close(self) -> None:
        os.close(self._file)

    def _move(self, by: int) -> None:
        self.position += by
        self._put(PAGE, struct.pack("=Q", self.position))

    def _put(self, at: int, data: bytes) -> None:
        os.pwrite(self._file, data, at)


def reader_of(producer: Producer) -> RingBuffer:
    return RingBuffer(cast(Map, producer))


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.close()


def test_records_come_in_their_order_and_once(producer: Producer) -> None:
    with reader_of(producer) as ring:
        producer.write(b"first")
        producer.write(b"second, longer than eight")
        assert ring.pending == 16 + 40
        assert list(ring.records()) == [b"first", b"second, longer than eight"]
        assert list(ring.records()) == []
        assert ring.pending == 0
        assert producer.consumed() == producer.position


def test_what_was_discarded_is_skipped(producer: Producer) -> None:
    with reader_of(producer) as ring:
        producer.write(b"no", DISCARD)
        producer.write(b"yes")
        producer.write(b"no", DISCARD)
        assert list(ring.records()) == [b"yes"]
        assert ring.pending == 0


def test_reading_ends_before_a_record_in_the_making(producer: Producer) -> None:
    with reader_of(producer) as ring:
        producer.write(b"done")
        at = producer.write(b"half", BUSY)
        producer.write(b"done, too")
        assert list(ring.records()) == [b"done"]
        assert list(ring.records()) == []
        producer.finish(at, 4)
        assert list(ring.records()) == [b"half", b"done, too"]


def test_a_record_in_the_making_may_be_discarded_in_the_end(producer: Producer) -> None:
    with reader_of(producer) as ring:
        at = producer.write(b"half", BUSY)
        producer.finish(at, 4, DISCARD)
        assert list(ring.records()) == []
        assert ring.pending == 0


def test_who_stops_reading_has_lost_nothing(producer: Producer) -> None:
    with reader_of(producer) as ring:
        for number in range(3):
            producer.write(bytes([number]))
        assert next(ring.records()) == b"\0"
        assert list(ring.records()) == [b"\1", b"\2"]


def test_who_goes_on_reading_a_closed_one_is_told(producer: Producer) -> None:
    ring = reader_of(producer)
    producer.write(b"first")
    producer.write(b"second")
    reading = ring.records()
    next(reading)
    ring.close()
    with pytest.raises(UsageError, match="it is closed"):
        next(reading)


def test_what_comes_meanwhile_is_left_for_the_next_time(producer: Producer) -> None:
    with reader_of(producer) as ring:
        producer.write(b"first")
        reading = ring.records()
        assert next(reading) == b"first"
        producer.write(b"second")
        assert list(reading) == []
        assert list(ring.records()) == [b"second"]


def test_a_record_across_the_end_is_in_one_piece() -> None:
    producer = Producer(start=PAGE * 7 - 16)
    with reader_of(producer) as ring:
        producer.write(bytes(range(100)))
        assert list(ring.records()) == [bytes(range(100))]
    producer.close()


def test_it_waits_for_nothing_where_something_is_there(producer: Producer) -> None:
    with reader_of(producer) as ring:
        producer.write(b"x")
        assert ring.wait(0)


def test_positions_go_on_beyond_32_bits() -> None:
    producer = Producer(start=(1 << 32) - 8)
    with reader_of(producer) as ring:
        producer.write(b"over the edge")
        assert list(ring.records()) == [b"over the edge"]
        assert producer.consumed() == (1 << 32) + 16
    producer.close()


@given(st.lists(st.tuples(st.binary(max_size=900), st.booleans()), max_size=40))
def test_what_was_written_is_what_is_read(records: list[tuple[bytes, bool]]) -> None:
    producer = Producer()
    with reader_of(producer) as ring:
        for data, is_discarded in records:
            producer.write(data, DISCARD if is_discarded else 0)
            assert list(ring.records()) == ([] if is_discarded else [data])
    producer.close()


def test_another_map_is_none(producer: Producer) -> None:
    producer.type = MapType.ARRAY
    with pytest.raises(UsageError, match="read the ring buffer events: it is no map of type"):
        reader_of(producer)


def test_a_closed_one_says_so(producer: Producer) -> None:
    ring = reader_of(producer)
    ring.close()
    ring.close()
    for use in (lambda: list(ring.records()), lambda: ring.wait(0), lambda: ring.pending):
        with pytest.raises(UsageError, match="it is closed"):
            use()
