# SPDX-License-Identifier: Apache-2.0
"""Counters as text: what was counted, how fast it goes, and what is not counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.cli.queues import format_queues
from xdpkit.cli.render import BLANK, Column, printable, scaled, table, width
from xdpkit.hook.rates import NoProgramRate, ProgramRates, Rate, Rates
from xdpkit.hook.scope import describe, require
from xdpkit.rewrite import COUNTED, Counts, NoProgram

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport, ProgramCounts

_NOTHING = (0,) * len(COUNTED)


def headline(report: CounterReport) -> str:
    """Return what is counted on an interface."""
    if report.is_enabled is None:
        what = "whether its programs are counted cannot be seen here"
    elif not report.is_enabled:
        what = "nothing is counted now"
    elif report.count_bytes:
        what = "packets and bytes are counted"
    else:
        what = "packets are counted"
    return f"{printable(report.interface.name)}: {what}"


def listed(report: CounterReport) -> Iterator[str]:
    """Yield which programs are counted, and what is not."""
    yield headline(report)
    for program in sorted(report.programs, key=_place):
        parts = [program.name, f"program {program.program.id}", *_how(program, report)]
        yield printable(f"  {', '.join(parts)}")
    if not report.programs and not report.has_uncounted:
        yield "  no program yet; those that are attached will be counted"
    yield from not_counted(report)


def tabulated(report: CounterReport, speed: Rates | None, *, by_queue: bool) -> Iterator[str]:
    """Yield a table of what was counted, and below it what was not.

    Args:
        report: the counters.
        speed: how fast they went; None: that is not shown.
        by_queue: whether each RX queue has a row of its own.
    """
    rows = list((_by_queue if by_queue else _totals)(report, speed))
    if rows:
        columns = [
            Column("program"),
            Column("id", right=True),
            Column("queue", right=True) if by_queue else Column("queues"),
            Column("called by"),
            *(Column(title, right=True) for title in (*COUNTED, "packets", "bytes")),
        ]
        cells = [line for row in rows for line in _cells(row, report, speed)]
        yield from table(columns, cells, width=width())
    else:
        is_empty = not (report.programs or report.has_uncounted or by_queue)
        yield "no program" if is_empty else "nothing has been counted"
    yield from not_counted(report)


def only(report: CounterReport, queues: frozenset[int]) -> CounterReport:
    """Return what was counted for some RX queues.

    Raises:
        UsageError: the interface has no such queue.
        RequirementUnmet: no program can have such a queue for itself.
    """
    require(queues, report.interface, "show counters")
    programs = []
    for program in report.programs:
        served = program.queues
        kept = dataclasses.replace(
            program,
            queues=None if served is None else tuple(sorted(queues.intersection(served))),
            per_queue={each: found for each, found in program.per_queue.items() if each in queues},
        )
        if kept.queues or kept.per_queue:
            programs.append(kept)
    no_program = {each: found for each, found in report.no_program.items() if each in queues}
    return dataclasses.replace(report, programs=tuple(programs), no_program=no_program)


def _how(program: ProgramCounts, report: CounterReport) -> Iterator[str]:
    """Yield which packets a program gets, if it does not get all."""
    if program.queues is not None:
        yield describe(frozenset(program.queues))
    elif _serves_others(program, report):
        yield describe(None)
    if program.called_by:
        yield f"called by program {_callers(program, report)}"


def _serves_others(program: ProgramCounts, report: CounterReport) -> bool:
    """Whether it gets the packets of all RX queues that have no program of their own."""
    is_global = program.queues is None and not program.called_by
    return is_global and any(each.queues for each in report.programs)


def _callers(program: ProgramCounts, report: CounterReport) -> str:
    """Return the ids of a program's callers, as they run now."""
    running = {each.logical_id: each.program.id for each in report.programs}
    return ", ".join(str(running.get(each, each)) for each in program.called_by)


def not_counted(report: CounterReport) -> Iterator[str]:
    """Yield what is not counted, in sentences, behind an empty line."""
    if report.not_counted:
        yield ""
    yield from map(printable, report.not_counted)


@dataclass(frozen=True, slots=True)
class _Row:
    """What there is of a program, or of packets for which there was none.

    Attributes:
        program: the program, or None.
        queues: the RX queues, as text.
        counts: what was counted. rate: how fast it went, None if that is not known.
    """

    program: ProgramCounts | None
    queues: str
    counts: Counts | NoProgram
    rate: Rate | NoProgramRate | None


def _totals(report: CounterReport, speed: Rates | None) -> Iterator[_Row]:
    for program, rates in _with_rates(report, speed):
        if report.is_enabled or any(program.total.packets):
            is_global = _serves_others(program, report)
            queues = "others" if is_global else format_queues(program.queues or ())
            yield _Row(program, queues, program.total, rates.total if rates is not None else None)
    if report.no_program:
        found = report.no_program.values()
        counts = NoProgram(sum(each.packets for each in found), sum(each.bytes for each in found))
        rate = None
        if speed is not None and speed.no_program.keys() == report.no_program.keys():
            known = speed.no_program.values()
            rate = NoProgramRate(
                sum(each.packets for each in known), sum(each.bits for each in known)
            )
        yield _Row(None, "", counts, rate)


def _by_queue(report: CounterReport, speed: Rates | None) -> Iterator[_Row]:
    served: set[int] = set()
    if report.is_enabled:
        served.update(*(program.queues or () for program in report.programs))
    counted = served.union(report.no_program, *(each.per_queue for each in report.programs))
    lengths = _NOTHING if report.count_bytes else None
    nothing, no_rate = Counts(_NOTHING, lengths), Rate(_NOTHING, lengths)
    for queue in sorted(counted):
        for program, rates in _with_rates(report, speed):
            still = queue in served.intersection(program.queues or ())
            counts = program.per_queue.get(queue, nothing if still else None)
            if counts is not None:
                known = rates.per_queue.get(queue, no_rate) if rates is not None else None
                yield _Row(program, str(queue), counts, known)
        if queue in report.no_program:
            rate = speed.no_program.get(queue) if speed is not None else None
            yield _Row(None, str(queue), report.no_program[queue], rate)


def _with_rates(
    report: CounterReport, speed: Rates | None
) -> Iterator[tuple[ProgramCounts, ProgramRates | None]]:
    rates = speed.programs if speed is not None else (None,) * len(report.programs)
    pairs = zip(report.programs, rates, strict=True)
    return iter(sorted(pairs, key=lambda pair: _place(pair[0])))


def _place(program: ProgramCounts) -> tuple[bool, bool, tuple[int, ...]]:
    """Return where a program is shown: those of RX queues come first, what they call comes last."""
    return bool(program.called_by), program.queues is None, program.queues or ()


def _cells(row: _Row, report: CounterReport, speed: Rates | None) -> Iterator[list[str]]:
    """Yield the cells of a row, and of the one below it that says how fast it goes."""
    identity = ["no program", "", row.queues, ""]
    if row.program is not None:
        number, callers = str(row.program.program.id), _callers(row.program, report)
        identity = [row.program.name, number, row.queues, callers]
    yield [*identity, *(f"{number:,}" if number is not None else "" for number in _of(row.counts))]
    if speed is not None:
        *packets, bits = _of(row.rate) if row.rate is not None else (None,) * (len(COUNTED) + 2)
        blank = [BLANK] * (len(identity) - 1)
        yield ["  per second", *blank, *map(_speed, packets), _speed(bits, "bit")]


def _of(found: Counts | NoProgram | Rate | NoProgramRate) -> list[float | None]:
    """Return packets by action, packets in all, and bytes or bits in all."""
    match found:
        case Counts(packets, length) | Rate(packets, length):
            return [*packets, sum(packets), sum(length) if length is not None else None]
        case NoProgram(number, size) | NoProgramRate(number, size):
            return [*(None for _ in COUNTED), number, size]


def _speed(number: float | None, unit: str = "") -> str:
    """Return what there is of something in a second: "14.9 M", "1.2 Gbit"."""
    if number is None:
        return ""
    number, prefix = scaled(number)
    return f"{number:.3g} {prefix}{unit}".rstrip()
