# SPDX-License-Identifier: Apache-2.0
"""How fast counters go: two readings of them, as packets and bits per second.

Pure. A rate is unknown, never guessed, where the earlier reading has nothing to compare with: the
program was not on the hook, or its counters began anew. They have 64 bits for each CPU, which no
machine lives to see wrap: a counter that is lower than it was is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport, ProgramCounts
    from xdpkit.rewrite import Counts

_BITS = 8  # of a byte
_SECOND = 10**9  # nanoseconds


@dataclass(frozen=True, slots=True)
class Rate:
    """How many packets, and bits, a second.

    Attributes:
        packets: by action, in the order of :data:`xdpkit.rewrite.COUNTED`.
        bits: likewise, None if bytes were not counted all the time.
    """

    packets: tuple[float, ...]
    bits: tuple[float, ...] | None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        from xdpkit.rewrite import COUNTED

        return {
            "packets": dict(zip(COUNTED, self.packets, strict=True)),
            "bits": None if self.bits is None else dict(zip(COUNTED, self.bits, strict=True)),
        }


@dataclass(frozen=True, slots=True)
class ProgramRates:
    """What one program returned, a second; ``per_queue`` by RX queue, those with packets only."""

    total: Rate
    per_queue: Mapping[int, Rate]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "total": self.total.to_dict(),
            "per_queue": {str(queue): rate.to_dict() for queue, rate in self.per_queue.items()},
        }


@dataclass(frozen=True, slots=True)
class NoProgramRate:
    """Packets for which there was no program, and their bits, a second."""

    packets: float
    bits: float

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {"packets": self.packets, "bits": self.bits}


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the counters of an interface went.

    Attributes:
        nanoseconds: between the two readings.
        programs: one for each of the later reading, in its order; None where that is not known.
        no_program: by RX queue, as in the later reading; those that are known.
    """

    nanoseconds: int
    programs: tuple[ProgramRates | None, ...]
    no_program: Mapping[int, NoProgramRate]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "nanoseconds": self.nanoseconds,
            "programs": [rate.to_dict() if rate is not None else None for rate in self.programs],
            "no_program": {str(queue): rate.to_dict() for queue, rate in self.no_program.items()},
        }


def rates(before: CounterReport, after: CounterReport) -> Rates | None:
    """Return how fast counters went between two readings of them; None if no time went by."""
    elapsed = after.taken_at - before.taken_at
    if elapsed <= 0:
        return None
    earlier = {_identity(program): program for program in before.programs}
    counts_bytes = before.count_bytes and after.count_bytes
    programs = tuple(
        _program(earlier.get(_identity(program)), program, elapsed, counts_bytes)
        for program in after.programs
    )
    no_program = {}
    for queue, now in after.no_program.items():
        then = before.no_program.get(queue)
        packets = now.packets - (then.packets if then is not None else 0)
        length = now.bytes - (then.bytes if then is not None else 0)
        if packets >= 0 and length >= 0:
            no_program[queue] = NoProgramRate(
                _per_second(packets, elapsed), _per_second(length * _BITS, elapsed)
            )
    return Rates(elapsed, programs, no_program)


def _identity(program: ProgramCounts) -> tuple[int, bool]:
    """Return what a program keeps while copies of it take its place."""
    return program.logical_id, program.queues is None


def _program(
    before: ProgramCounts | None, after: ProgramCounts, elapsed: int, counts_bytes: bool
) -> ProgramRates | None:
    if before is None:
        return None
    total = _rate(before.total, after.total, elapsed, counts_bytes)
    per_queue = {
        queue: _rate(before.per_queue.get(queue), now, elapsed, counts_bytes)
        for queue, now in after.per_queue.items()
    }
    known = {queue: rate for queue, rate in per_queue.items() if rate is not None}
    # What began anew in one queue did so in all.
    is_same = len(known) == len(per_queue) and before.per_queue.keys() <= after.per_queue.keys()
    return ProgramRates(total, known) if is_same and total is not None else None


def _rate(before: Counts | None, after: Counts, elapsed: int, counts_bytes: bool) -> Rate | None:
    packets = _grown(before.packets if before is not None else None, after.packets)
    if packets is None:
        return None
    bits = None
    if counts_bytes and after.bytes is not None:
        length = _grown(before.bytes if before is not None else None, after.bytes)
        if length is not None:
            bits = tuple(_per_second(number * _BITS, elapsed) for number in length)
    return Rate(tuple(_per_second(number, elapsed) for number in packets), bits)


def _grown(before: tuple[int, ...] | None, after: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return by how much counters rose, None if one fell; those that were not there were 0."""
    if before is None:
        return after
    grown = tuple(now - then for then, now in zip(before, after, strict=True))
    return grown if min(grown) >= 0 else None


def _per_second(number: int, elapsed: int) -> float:
    return number * _SECOND / elapsed
