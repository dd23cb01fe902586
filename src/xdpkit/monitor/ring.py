# SPDX-License-Identifier: Apache-2.0
"""A ring buffer for events, and the credit without which nothing is written into it.

The reader grants credit, the kernel's side spends it: a record each. So what an attacker can
trigger without end costs no more than the reader wants to read, and nothing when it stopped
reading. Each of the two numbers has one writer, and each CPU its own pair. Without credit, or
without room, the kernel's side only counts.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack

from xdpkit.errors import UsageError
from xdpkit.kernel import Map, host
from xdpkit.kernel.memory import Memory
from xdpkit.kernel.ringbuf import RingBuffer, room_of
from xdpkit.monitor.allowance import Allowance
from xdpkit.monitor.record import HEAD, Event, decode
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.bpf import MapFlags, MapType

DEFAULT_SIZE = 1 << 20
"""Bytes of a ring buffer, if nothing else is asked for: some six thousand events."""

LARGEST_SIZE = 1 << 30

ENTRY_SIZE = 64
"""Bytes of an entry of both maps: a line of the CPU's cache, so that no CPU slows another one."""

# The words of an entry of `spending`; `credits` has one only.
_SPENT, _SUPPRESSED, _LOST, _SEEN = range(4)


class Ring(Closing):
    """Where the kernel's side writes events: a context manager that owns the three maps.

    Attributes:
        ring: the ring buffer. credits: what was granted, by CPU; only user space writes it.
        spending: what became of it, by CPU; only the kernel's side writes it.
    """

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        """Make the maps. Nothing is granted yet.

        Args:
            size: of the buffer, in bytes: a power of 2, whole pages.

        Raises:
            UsageError: the size makes no sense.
            RequirementUnmet, MissingPrivilege, KernelRefused: the maps cannot be made.
        """
        if not _is_size(size):
            raise UsageError(
                f"make a ring buffer of {size} bytes",
                cause=f"the size is a power of 2, from {mmap.PAGESIZE} to {LARGEST_SIZE}",
            )
        with ExitStack() as owned:
            self.ring = owned.enter_context(
                Map.create(
                    MapType.RINGBUF, key_size=0, value_size=0, max_entries=size, name="events"
                )
            )
            self.credits = owned.enter_context(_by_cpu("credits"))
            self.spending = owned.enter_context(_by_cpu("spending"))
            self._granted = owned.enter_context(Memory(self.credits, writable=True))
            self._spending = owned.enter_context(Memory(self.spending))
            self._buffer = owned.enter_context(RingBuffer(self.ring))
            self._owned = owned.pop_all()

    def grant(self, allowance: Allowance, now: float) -> None:
        """Grant each CPU as many records as it is allowed.

        Args:
            allowance: always the same one. now: seconds of CLOCK_MONOTONIC.
        """
        cpus = range(self._granted.entries)
        spent = [self._spending.get(cpu, _SPENT) for cpu in cpus]
        for cpu, granted in zip(cpus, allowance.granted(now, spent), strict=True):
            self._granted.set(cpu, 0, granted)

    def grant_room(self, snaplen: int) -> None:
        """Grant each CPU as many records as there is room for now, if the others write none.

        What finds no room is spent all the same. So if nobody reads or grants any more, each CPU
        soon has no credit left, and does not go on asking for room.

        Args:
            snaplen: how many bytes of a packet a record has.
        """
        room = (self._buffer.size - self._buffer.pending) // room_of(HEAD.size + snaplen)
        for cpu in range(self._granted.entries):
            self._granted.set(cpu, 0, self._spending.get(cpu, _SPENT) + room)

    def events(self) -> Iterator[Event]:
        """Yield the events that are there now, of each CPU in their order.

        Raises:
            ObjectFormatError: a record is none of ours.
        """
        return map(decode, self._buffer.records())

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read; return whether there is."""
        return self._buffer.wait(seconds)

    def fileno(self) -> int:
        """Return a descriptor that polls as readable when there is something to read."""
        return self._buffer.fileno()

    @property
    def seen(self) -> int:
        """How many events there were."""
        return self._spending.sum(_SEEN)

    @property
    def suppressed(self) -> int:
        """How many were not written, as there was no credit for them."""
        return self._spending.sum(_SUPPRESSED)

    @property
    def lost(self) -> int:
        """How many were not written, as the buffer was full."""
        return self._spending.sum(_LOST)

    def close(self) -> None:
        """Close the maps; closing twice does nothing. Programs that have them keep them."""
        self._owned.close()


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not size & (size - 1) and mmap.PAGESIZE <= size <= LARGEST_SIZE


def _by_cpu(name: str) -> Map:
    return Map.create(
        MapType.ARRAY,
        key_size=4,
        value_size=ENTRY_SIZE,
        max_entries=host.possible_cpus(),
        name=name,
        flags=MapFlags.MMAPABLE,
    )
