# SPDX-License-Identifier: Apache-2.0
"""What a copy of a program does beside what the program does: count, report frames, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from xdpkit.hook.settings import Counting
from xdpkit.syscalls.bpf import object_name


@dataclass(frozen=True, slots=True)
class Reader:
    """Who wants to have frames reported, and which.

    Attributes:
        ring, credits, spending: the ids of its maps.
        netns: the inode number of the interface's network namespace.
        actions, snaplen, sample: see :class:`xdpkit.rewrite.Reporting`.
        wanted: bytes of each frame that were asked for; ``snaplen`` is 0 where programs cannot copy
            them.
        programs: see :class:`xdpkit.hook.taps.Tap`.
    """

    ring: int
    credits: int
    spending: int
    netns: int
    actions: frozenset[str]
    snaplen: int
    sample: int
    wanted: int
    programs: frozenset[int | str] | None = None

    def wants(self, logical_id: int, name: str) -> bool:
        """Return whether the frames of a program are to be reported."""
        if self.programs is None or logical_id in self.programs:
            return True
        return object_name(name) in {
            object_name(each) for each in self.programs if isinstance(each, str)
        }


@dataclass(frozen=True, slots=True)
class Work:
    """What a copy does.

    Attributes:
        counting: what it counts. reader: whom it reports frames to, None for nobody.
    """

    counting: Counting = Counting.OFF
    reader: Reader | None = None

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return bool(self.counting) or self.reader is not None

    def of(self, logical_id: int, name: str) -> Work:
        """Return what of it the copy of a program does."""
        if self.reader is None or self.reader.wants(logical_id, name):
            return self
        return Work(self.counting)

    @property
    def ring(self) -> int:
        """The id of the ring that it writes to; 0: none."""
        return self.reader.ring if self.reader is not None else 0

    @property
    def verb(self) -> str:
        """What is not done where it cannot be, for sentences."""
        return "reported" if self.reader is not None else "counted"

    def what(self, name: str) -> str:
        """Return what is tried with a program, for errors."""
        return f"{'report' if self.reader is not None else 'count'} what {name} returns"

    def choices(self) -> Iterator[Work]:
        """Yield this, and what is to be had instead where a program leaves no room for all of it.

        Counting goes before reporting, and packets before bytes.
        """
        counting = [self.counting]
        if self.counting.with_bytes:
            counting.append(Counting.PACKETS)
        if self.reader is None:
            yield from map(Work, counting)
            return
        for each in dict.fromkeys((*counting, Counting.OFF)):
            yield replace(self, counting=each)
            yield Work(each)


NOTHING = Work()
