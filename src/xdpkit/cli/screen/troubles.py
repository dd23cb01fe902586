# SPDX-License-Identifier: Apache-2.0
"""What has gone wrong: one trouble for each kind, in a few words, and explained.

Where the tracepoints are not counted, what programs returned and drivers say has to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.monitor.model import Reason
from xdpkit.monitor.rates import Series
from xdpkit.monitor.samples import (
    ATTACH_FAILURES,
    CPUMAP_DROPS,
    DRIVER,
    ERRORS,
    MISSED,
    OTHER,
    REDIRECT_ERRORS,
    RETURNED,
    TRANSMIT_DROPS,
)

if TYPE_CHECKING:
    from xdpkit.monitor.model import (
        CpumapCount,
        ErrorCount,
        RedirectErrorCount,
        Snapshot,
        Tracepoints,
        TransmitCount,
    )

DRIVER_ERRORS = ("aborted", "invalid_action", "tx_errors", "redirect_errors", "xmit_errors")
"""What a driver counts, by its standard name, that is an error."""

_SECOND = 10**9
_RECENT_S = 60
_MOST_NUMBERS = 4


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of thing that went wrong.

    Attributes:
        series: the counter of it.
        netns, interface: where, "" for the whole machine.
        what: what went wrong, in a few words.
        packets: how many packets, or times. unit: what is counted, in the singular: "packet".
        last_seen: how long before the snapshot that was, in seconds; None: not known.
        details: names and values, for a closer look.
        cause: why, as a phrase. remedy: what helps, None where that is not sure.
    """

    series: Series
    netns: str
    interface: str
    what: str
    packets: int
    unit: str = "packet"
    last_seen: float | None = None
    details: tuple[tuple[str, str], ...] = ()
    cause: str = ""
    remedy: str | None = None

    @property
    def is_recent(self) -> bool:
        """Whether it is known to have been there in the last minute."""
        return self.last_seen is not None and self.last_seen < _RECENT_S

    @property
    def title(self) -> str:
        """What to call the place."""
        if not self.interface:
            return "all"
        return f"{self.netns}/{self.interface}" if self.netns else self.interface


def troubles(snapshot: Snapshot) -> tuple[Trouble, ...]:
    """Return what has gone wrong, most packets first."""
    found = _counted(snapshot) if snapshot.installed is not None else _guessed(snapshot)
    return tuple(
        sorted(
            (each for each in found if each.packets),
            key=lambda each: (-each.packets, each.title, each.what),
        )
    )


def _counted(snapshot: Snapshot) -> Iterator[Trouble]:
    counted = snapshot.tracepoints
    now = snapshot.taken_at
    errors: dict[Series, list[ErrorCount]] = {}
    for error in counted.errors:
        where = error.where.netns, error.where.interface
        kind = error.program, error.action, error.reason.value
        errors.setdefault(Series(ERRORS.name, (*where, *kind)), []).append(error)
    for series, group in errors.items():
        yield _exception(series, group, now)
    redirects: dict[Series, list[RedirectErrorCount]] = {}
    for failed in counted.redirect_errors:
        where = failed.where.netns, failed.where.interface
        how = failed.program, failed.target.name, failed.error
        redirects.setdefault(Series(REDIRECT_ERRORS.name, (*where, *how)), []).append(failed)
    for series, failures in redirects.items():
        yield _redirect(series, failures, now)
    transmits: dict[Series, list[TransmitCount]] = {}
    for sent in counted.transmits:
        source = sent.source.title if sent.source is not None else ""
        place = sent.where.netns, sent.where.interface, source
        transmits.setdefault(Series(TRANSMIT_DROPS.name, place), []).append(sent)
    for series, bulks in transmits.items():
        yield _transmit(series, bulks, now)
    yield from _cpumaps(counted, now)
    for text, times in counted.attach_failures.items():
        yield Trouble(
            series=Series(ATTACH_FAILURES.name, (text,)),
            netns="",
            interface="",
            what=f"attach refused: {text or 'without a word'}",
            packets=times,
            unit="time",
            cause="the kernel did not attach an XDP program by a link; it does not say for whom",
        )
    yield Trouble(
        series=Series(OTHER.name),
        netns="",
        interface="",
        what="errors of further kinds",
        packets=counted.other,
        cause="there were more kinds of errors than are told apart; these are only counted",
        remedy="to begin anew: xdpkit monitor remove, then xdpkit monitor install",
    )
    yield Trouble(
        series=Series(MISSED.name),
        netns="",
        interface="",
        what="errors not counted",
        packets=counted.missed,
        unit="event",
        cause="these came while an error was being counted on the same CPU",
    )


def _exception(series: Series, group: list[ErrorCount], now: int) -> Trouble:
    from xdpkit.monitor.words import returned_number, why_exception

    first = max(group, key=lambda each: each.last_seen)
    packets = sum(each.packets for each in group)
    returned = returned_number(first.returned)
    name = first.program or "a program"
    no_action = f"returned {returned}: no action"
    if first.reason is Reason.INVALID and packets > 1:
        # Only the last number is known.
        returned = f"at last {returned}"
        no_action = f"returned numbers that are no action, {returned}"
    words = {
        Reason.ABORTED: f"{name} aborted",
        Reason.INVALID: f"{name} {no_action}",
        Reason.UNSUPPORTED: f"{name}: no {first.action} in the driver",
        Reason.TX_FAILED: f"{name}: tx failed",
        Reason.REDIRECT_FAILED: f"{name}: redirect failed",
        Reason.FAILED: f"{name}: {first.action} failed",
    }
    why = why_exception(first.action, first.reason, first.returned)
    return Trouble(
        series=series,
        netns=first.where.netns,
        interface=first.where.interface,
        what=words[first.reason],
        packets=packets,
        last_seen=_ago(first.last_seen, now),
        details=(
            ("program", _named(name, (each.program_id for each in group))),
            ("action", first.action),
            ("returned", returned),
            ("reason", first.reason.value),
        ),
        cause=why.cause,
        remedy=why.remedy,
    )


def _redirect(series: Series, group: list[RedirectErrorCount], now: int) -> Trouble:
    from xdpkit.monitor.words import why_redirect

    first = max(group, key=lambda each: each.last_seen)
    target = first.target
    name = first.program or "a program"
    why = why_redirect(first.error, target.kind)
    details = [("program", _named(name, (each.program_id for each in group)))]
    if target.name:
        details.append(("target", target.name))
    if target.map_id:
        details.append((target.kind or "map", f"id {target.map_id}, entry {target.index}"))
    details.append(("error", first.error))
    return Trouble(
        series=series,
        netns=first.where.netns,
        interface=first.where.interface,
        what=f"{name} → {target.name or '?'}: {first.error}",
        packets=sum(each.packets for each in group),
        last_seen=_ago(first.last_seen, now),
        details=tuple(details),
        cause=why.cause,
        remedy=why.remedy,
    )


def _transmit(series: Series, group: list[TransmitCount], now: int) -> Trouble:
    from xdpkit.monitor.words import why_transmit

    first = max(group, key=lambda each: each.last_seen)
    error = next((each.error for each in group if each.error), "")
    what, whence = "could not send back", ("by", "tx")
    if first.source is not None:
        what, whence = f"not sent, from {first.source.title}", ("from", first.source.title)
    why = why_transmit(error)
    return Trouble(
        series=series,
        netns=first.where.netns,
        interface=first.where.interface,
        what=f"{what}: {error}" if error else what,
        packets=sum(each.dropped for each in group),
        unit="frame",
        last_seen=_ago(first.last_seen, now),
        details=(
            whence,
            ("sent", f"{sum(each.sent for each in group):,} frames"),
            *((("error", error),) if error else ()),
        ),
        cause=why.cause,
        remedy=why.remedy,
    )


def _cpumaps(counted: Tracepoints, now: int) -> Iterator[Trouble]:
    groups: dict[tuple[str, int], list[CpumapCount]] = {}
    for count in counted.cpumaps:
        groups.setdefault((count.map_name, count.cpu), []).append(count)
    told = _told_as_redirects(counted.redirect_errors)
    for (map_name, cpu), group in groups.items():
        name = map_name or "cpumap"
        labels = map_name, str(cpu)
        last_seen = _ago(max(each.last_seen for each in group), now)
        details = (
            ("cpumap", _named(name, (each.map_id for each in group))),
            ("cpu", str(cpu)),
            ("enqueued", f"{sum(each.enqueued for each in group):,} frames"),
        )
        yield Trouble(
            series=Series(CPUMAP_DROPS.name, (*labels, "queue_full")),
            netns="",
            interface="",
            what=f"{name}, cpu {cpu}: queue full",
            packets=sum(max(each.queue_full - told[each.map_id, cpu], 0) for each in group),
            unit="frame",
            last_seen=last_seen,
            details=details,
            cause="that CPU takes frames from its queue more slowly than they come",
            remedy="spread them over more CPUs, or make the entry's queue longer (qsize)",
        )
        yield Trouble(
            series=Series(CPUMAP_DROPS.name, (*labels, "no_memory")),
            netns="",
            interface="",
            what=f"{name}, cpu {cpu}: no memory",
            packets=sum(each.no_memory for each in group),
            unit="frame",
            last_seen=last_seen,
            details=details,
            cause="that CPU had no memory to give the frames to the network stack",
        )


def _told_as_redirects(errors: Iterable[RedirectErrorCount]) -> Counter[tuple[int, int]]:
    """Return how many frames that found a cpumap's queue full are redirect errors, too.

    By map and CPU. In generic mode the kernel tells of each of them twice
    (``cpu_map_generic_redirect`` in kernel/bpf/cpumap.c); here, the interface and the program are
    known.
    """
    told = Counter[tuple[int, int]]()
    for each in errors:
        if each.target.kind == "cpumap" and each.error == "ENOSPC":
            told[each.target.map_id, each.target.index] += each.packets
    return told


def _guessed(snapshot: Snapshot) -> Iterator[Trouble]:
    """Yield what is known to have gone wrong without the tracepoints."""
    remedy = None
    if snapshot.unread is None:
        remedy = "to know more of those to come: xdpkit monitor install"
    for report in snapshot.returned:
        here = "", report.interface.name
        for name in dict.fromkeys(program.name for program in report.programs):
            same = [program.total for program in report.programs if program.name == name]
            for action in ("aborted", "invalid"):
                yield Trouble(
                    series=Series(RETURNED.name, (*here, None, name, action)),
                    netns="",
                    interface=report.interface.name,
                    what=f"{name} returned {action}",
                    packets=sum(_of(counts.packets, action) for counts in same),
                    details=(("program", name), ("action", action)),
                    cause=_RETURNED[action],
                )
    for driver in snapshot.drivers:
        where = driver.where
        for event in DRIVER_ERRORS:
            counts = [each for each in driver.counts if each.event == event]
            whole = [each for each in counts if each.queue is None]
            yield Trouble(
                series=Series(DRIVER.name, (where.netns, where.interface, None, None, event)),
                netns=where.netns,
                interface=where.interface,
                what=f"driver: {event}",
                packets=sum(each.value for each in whole or counts),
                details=(("driver", driver.driver), ("event", event)),
                cause="this is what the driver says; why is not known without the tracepoints",
                remedy=remedy,
            )


_RETURNED = {
    "aborted": "the program gave these packets up (XDP_ABORTED); they were dropped",
    "invalid": "the program returned a number that is no action; the packets were dropped",
}


def _of(packets: tuple[int, ...], action: str) -> int:
    from xdpkit.rewrite import COUNTED

    return packets[COUNTED.index(action)]


def _ago(last_seen: int, now: int) -> float | None:
    return max(now - last_seen, 0) / _SECOND if last_seen else None


def _row(items: Iterable[str]) -> str:
    found = list(items)
    shown = ", ".join(found[:_MOST_NUMBERS])
    return f"{shown}, …" if len(found) > _MOST_NUMBERS else shown


def _named(name: str, ids: Iterable[int]) -> str:
    numbers = _row(map(str, sorted(set(ids))))
    return f"{name} (id {numbers})"
