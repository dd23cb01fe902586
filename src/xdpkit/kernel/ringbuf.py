# SPDX-License-Identifier: Apache-2.0
"""Reading what programs write into a ring buffer (``BPF_MAP_TYPE_RINGBUF``, Linux 5.8).

The layout is that of kernel/bpf/ringbuf.c (457f44363a88 "bpf: Implement BPF ring buffer and
verifier support for it"). There are two positions that only grow, each alone on a page: the
consumer's, which is ours to write, and the producers'. Behind them is the data, twice in a row, so
that no record is ever in two pieces. A record is a header of 8 bytes, its length and two flags in
the first 4, and its data; it begins at a multiple of 8.

**Order.** A producer first moves its position on, with the record marked as busy, and takes the
mark away when the data is complete; we move ours on when we have copied it. Each of us must see the
other's writes in that order. Python's own loads and stores say nothing about order. They become
plain ones of the machine, which x86 keeps in order but for a store that a later load passes, and
others do not. So a fence stands between each two that must not be exchanged.
"""

from __future__ import annotations

import mmap
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError
from xdpkit.kernel.memory import mapped
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.kernel.maps import Map

# include/uapi/linux/bpf.h
_BUSY = 1 << 31
_DISCARD = 1 << 30
_HEADER_SIZE = 8

_HEADER = struct.Struct("=I")


def room_of(length: int) -> int:
    """Return how many bytes of a ring buffer a record takes that has so many bytes of data."""
    return (_HEADER_SIZE + length + 7) // 8 * 8


class RingBuffer(Closing):
    """The reading end of a ring buffer: a context manager that owns the mapping.

    There can be one at a time: two would take each other's records. The map stays the caller's.
    """

    def __init__(self, of: Map) -> None:
        """Map a ring buffer into memory.

        Raises:
            UsageError: it is none.
            KernelRefused: the kernel refused.
        """
        what = f"read the ring buffer {of.name}"
        if of.type != MapType.RINGBUF:
            raise UsageError(what, cause="it is no map of type RINGBUF")
        self.size = of.max_entries
        self._map = of
        self._lock = threading.Lock()
        self._lock.acquire()
        self._is_closed = False
        page = mmap.PAGESIZE
        with ExitStack() as owned:

            def view(size: int, protection: int, offset: int) -> memoryview:
                memory = mapped(of, size, protection, offset=offset, what=what)
                owned.callback(memory.close)
                return owned.enter_context(memoryview(memory))

            # One mapping cannot have both: what is ours to write, and what is not.
            ours = view(page, mmap.PROT_READ | mmap.PROT_WRITE, 0)
            theirs = view(page + 2 * self.size, mmap.PROT_READ, page)
            self._consumer = owned.enter_context(ours.cast("Q"))
            self._producer = owned.enter_context(owned.enter_context(theirs[:page]).cast("Q"))
            self._data = owned.enter_context(theirs[page:])
            self._owned = owned.pop_all()

    @property
    def pending(self) -> int:
        """How many bytes are waiting to be read, with headers; records in the making count."""
        self._check_open()
        consumer = self._consumer[0]
        return self._producer[0] - consumer

    def records(self) -> Iterator[bytes]:
        """Yield the records that are there now, oldest first; what comes meanwhile is left.

        Each is taken out before it is yielded: who stops in between has lost none. It ends before
        a record that is still in the making; :meth:`wait` returns when that is complete.

        Raises:
            UsageError: this is closed, or was meanwhile.
        """
        self._check_open()
        consumer = self._consumer[0]
        end = self._producer[0]
        while consumer < end:
            self._check_open()
            self._fence()
            at = consumer & (self.size - 1)
            (header,) = _HEADER.unpack_from(self._data, at)
            if header & _BUSY:
                return
            self._fence()
            length = header & ~_DISCARD
            start = at + _HEADER_SIZE
            data = None if header & _DISCARD else bytes(self._data[start : start + length])
            self._fence()
            consumer += room_of(length)
            self._consumer[0] = consumer
            if data is not None:
                yield data

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read; return whether there is.

        Args:
            seconds: how long at most; 0 does not wait.
        """
        # A producer wakes us only if it sees that we had read everything before its record: so our
        # position has to be seen before we look for more.
        self._fence()
        if self.pending:
            return True
        waiting = select.poll()
        waiting.register(self._map.fileno(), select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def fileno(self) -> int:
        """Return the map's descriptor: it polls as readable when there is something."""
        return self._map.fileno()

    def _fence(self) -> None:
        """Let no load and no store pass another one that is on the other side of this.

        Giving a lock back has all that was before it done first, and taking it has all that is
        behind it done later: in this order, they keep the two sides apart. Nobody else has it.
        """
        self._lock.release()
        self._lock.acquire()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError(f"read the ring buffer {self._map.name}", cause="it is closed")

    def close(self) -> None:
        """End the mapping; closing twice does nothing."""
        self._is_closed = True
        self._owned.close()
