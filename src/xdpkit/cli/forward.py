# SPDX-License-Identifier: Apache-2.0
"""``xdpkit forward``: the examples at work, with what they do shown as it happens."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.duration import LONGEST_S, duration_callback, seconds_callback
from xdpkit.cli.options import pin_root_option
from xdpkit.cli.render import (
    BLANK,
    Column,
    counted,
    emit_json,
    message,
    printable,
    scaled,
    table,
    width,
)
from xdpkit.errors import UsageError
from xdpkit.syscalls import privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.examples.forwarding import Forwarding, Setup
    from xdpkit.monitor.portcounts import PortCounts, TableCounts

_FEWEST = 2
_MOST = 1024
_BITS = 8

# The router subtracts pointers, which the verifier takes for a leak without CAP_PERFMON.
_NEEDED = {
    "l2": (Capability.BPF, Capability.NET_ADMIN),
    "l3": (Capability.BPF, Capability.NET_ADMIN, Capability.PERFMON),
}

# What has happened last is shown on a terminal.
_RECENT = 4

# What becomes of broadcasts in generic mode (dev_map_redirect_multi() in kernel/bpf/devmap.c).
_ENDED = {
    "down": ": a broadcast ends here, and ports behind it get none",
    "mtu": ": a longer broadcast ends here, and ports behind it get none",
}

_COLUMNS = (
    Column("port", right=True),
    Column("interface"),
    Column("state"),
    Column("in/s", right=True),
    Column("out/s", right=True),
    Column("in bit/s", right=True),
    Column("out bit/s", right=True),
    Column("MACs", right=True),
    Column("errors", wraps=True),
)


@subcommand(
    "forward",
    examples="""
xdpkit forward l2 eth1 eth2 eth3
xdpkit forward l3 eth1 eth2 --prepare
xdpkit -n lab forward l2 veth1 veth2 --prepare --duration 60s -j > rates.jsonl
""",
)
@click.argument("kind", metavar="l2|l3", type=click.Choice(["l2", "l3"]))
@click.argument(
    "ifaces", metavar="IFACE...", nargs=-1, required=True, shell_complete=complete.interfaces
)
@click.option(
    "--table",
    "name",
    metavar="NAME",
    help="What to call the table of its ports; l2 or l3 if it is not said.",
)
@click.option(
    "--prepare",
    is_flag=True,
    help="Do what it takes for the interfaces to be sent to, at the other end of a veth, too;"
    " undone at the end.",
)
@click.option(
    "--mode",
    type=click.Choice(["native", "generic", "skb"]),
    metavar="MODE",
    default="native",
    show_default=True,
    help="native: in the driver; generic, or skb: in the network stack.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    default="1",
    show_default=True,
    callback=seconds_callback,
    help="How long to wait between two rounds.",
)
@click.option(
    "--ageing",
    metavar="SECONDS",
    type=click.IntRange(0, LONGEST_S),
    help="l2: when to forget a station that keeps silent.  [default: 300]",
)
@click.option(
    "--duration", metavar="TIME", callback=duration_callback, help="End after this time (60s, 5m)."
)
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    kind: str,
    ifaces: tuple[str, ...],
    name: str | None,
    prepare: bool,
    mode: str,
    interval: float,
    ageing: int | None,
    duration: float | None,
    pin_root: str,
) -> None:
    """Forward frames between interfaces in XDP, until Ctrl-C or SIGTERM.

    l2 is a switch that learns where stations are. l3 is a router that goes by the kernel's routes
    and neighbours, and leaves to the kernel's stack what is not simply forwarded; forwarding has to
    be on (sysctl net.ipv4.ip_forward, net.ipv6.conf.all.forwarding).

    The interfaces become ports of a table that ends with the command. It shows what goes in and out
    of each of them, and what gets lost. Their programs, and whatever else was changed, are put back
    at the end.

    In generic mode, the kernel ends a broadcast at the first port that is down or whose MTU the
    frame exceeds: the ports behind it get none of it. In native mode it goes on with the next.
    """
    from xdpkit.examples.forwarding import Setup

    what = f"forward between {len(ifaces)} interfaces"
    if not _FEWEST <= len(ifaces) <= _MOST:
        raise UsageError(what, cause=f"it takes {_FEWEST} to {_MOST:,}")
    if ageing is not None and kind != "l2":
        raise UsageError(what, cause="--ageing is for stations, and a router (l3) learns none")
    privilege.require(what, _NEEDED[kind])
    setup = Setup(
        interfaces=ifaces,
        table=name or kind,
        netns=settings.netns,
        mode="generic" if mode == "skb" else mode,
        prepare=prepare,
        pin_root=pin_root,
    )
    with _endings_held_back(), _forwarding(kind, setup, ageing) as forwarding:
        _show(settings, forwarding, interval, duration)


def _forwarding(kind: str, setup: Setup, ageing: int | None) -> Forwarding:
    from xdpkit.kernel import shipped

    if kind == "l3":
        from xdpkit.examples.router import Router

        return Router(shipped.path("router.o"), setup)
    from xdpkit.examples.switch import Switch

    path = shipped.path("switch.o")
    return Switch(path, setup) if ageing is None else Switch(path, setup, ageing=ageing)


@contextlib.contextmanager
def _endings_held_back() -> Iterator[None]:
    """Let nothing interrupt what is being set up or put back.

    A terminal that is closed is as good as Ctrl-C. What the process was told to ignore is ignored.
    """
    ending = {signal.SIGINT, signal.SIGTERM}
    with contextlib.ExitStack() as undo:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
        undo.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
            undo.callback(signal.signal, signal.SIGHUP, signal.SIG_DFL)
        yield


@dataclass(frozen=True, slots=True)
class Round:
    """What was counted at a moment.

    Attributes:
        taken_at: seconds of CLOCK_MONOTONIC. clock: the time on the wall.
        counts: of the ports.
        mode: in which programs are attached.
        stations: how many are known behind each port; None: it is not a switch.
    """

    taken_at: float
    clock: datetime
    counts: TableCounts
    mode: str
    stations: Mapping[int, int] | None


def _show(
    settings: Settings, forwarding: Forwarding, interval: float, duration: float | None
) -> None:
    from xdpkit.cli.portlist import not_counted
    from xdpkit.cli.watching import Screen, rounds

    count = None
    if duration is not None:
        parts = max(math.ceil(duration / interval), 1)
        interval, count = duration / parts, parts + 1
    screen = Screen()
    recent: deque[str] = deque(maxlen=_RECENT)
    before: Round | None = None
    for _ in rounds(interval, count):
        forwarding.refresh()
        report = forwarding.counts()
        (counts,) = report.tables
        now = _take(forwarding, counts)
        news = forwarding.news()
        if before is None and (note := not_counted(report.groups)) is not None:
            news.append(note)
        columns = width()
        if settings.json or columns is None:
            for each in news:
                message(each)
        recent.extend(news)
        if settings.json:
            emit_json({**to_dict(now, before), "news": news}, pretty=settings.pretty)
            sys.stdout.flush()
        elif columns is None:
            screen.show([*lines(now, before, None)])
        else:
            # A message in between would be written over.
            screen.show([*lines(now, before, columns), *happened(recent, columns)])
        before = now


def _take(forwarding: Forwarding, counts: TableCounts) -> Round:
    from xdpkit.examples.switch import Switch

    stations = forwarding.stations() if isinstance(forwarding, Switch) else None
    clock = datetime.now().astimezone()
    return Round(time.monotonic(), clock, counts, forwarding.setup.mode, stations)


# What is shown; pure


def lines(now: Round, before: Round | None, width: int | None) -> Iterator[str]:
    """Yield the lines that show a round.

    Args:
        now: the round. before: the one before it, None for the first: then there are no rates.
        width: columns of the terminal, None: as many as it takes.
    """
    counts = now.counts
    yield f"{counted(len(counts.ports), 'port')} of table {counts.name}, at {now.clock:%H:%M:%S}"
    yield ""
    rows = [_row(port, rates(port, now, before), now.stations) for port in counts.ports]
    yield from table(_COLUMNS, rows, width=width)
    for port in counts.ports:
        for trouble in port.troubles:
            # In generic mode any interface transmits.
            if trouble.kind != "no-transmit" or now.mode == "native":
                fate = _ENDED.get(trouble.kind, "") if now.mode == "generic" else ""
                yield f"! port {port.number}: {printable(trouble.text)}{fate}"
    if counts.broadcast_errors:
        yield f"! broadcasts that failed: {', '.join(_failed(counts, before))}"


def happened(news: Iterable[str], width: int) -> Iterator[str]:
    """Yield the lines that show what has happened, each of them no wider than the terminal."""
    for each in news:
        yield ""
        for line in printable(each, keep="\n").splitlines():
            yield from textwrap.wrap(line, width, break_on_hyphens=False)


def _row(
    port: PortCounts, speed: Rates | None, stations: Mapping[int, int] | None
) -> tuple[str, ...]:
    interface = port.where.interface if port.where is not None else port.name
    known = speed or Rates()
    errors = errors_of(port)
    return (
        str(port.number),
        interface,
        port.state.value,
        _scaled(known.received),
        _scaled(known.sent),
        _scaled(known.received_bits),
        _scaled(known.sent_bits),
        BLANK if stations is None else f"{stations.get(port.number, 0):,}",
        ", ".join(_error(reason, errors[reason], known) for reason in errors) or BLANK,
    )


def _error(reason: str, frames: int, speed: Rates) -> str:
    rate = speed.errors.get(reason)
    return f"{reason} {frames:,}" + (f" ({_scaled(rate)}/s)" if rate else "")


def _failed(counts: TableCounts, before: Round | None) -> Iterator[str]:
    """Yield how many broadcasts have failed, by reason, and how many of them since the last."""
    earlier = before.counts.broadcast_errors if before is not None else ()
    known = {each.reason: each.frames for each in earlier}
    for each in counts.broadcast_errors:
        new = each.frames - known.get(each.reason, 0) if before is not None else 0
        yield f"{each.reason} {each.frames:,}" + (f" ({new:,} new)" if new > 0 else "")


def _scaled(number: float | None) -> str:
    if number is None:
        return ""
    number, prefix = scaled(number)
    return f"{number:.3g} {prefix}".rstrip()


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a port's counters go, a second; None: not known.

    Attributes:
        received, sent: frames. received_bits, sent_bits: bits of them.
        errors: lost frames by reason, as far as it is known.
    """

    received: float | None = None
    sent: float | None = None
    received_bits: float | None = None
    sent_bits: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return them as plain data, for JSON."""
        return {
            "received": self.received,
            "sent": self.sent,
            "received_bits": self.received_bits,
            "sent_bits": self.sent_bits,
            "errors": dict(self.errors),
        }


def errors_of(port: PortCounts) -> dict[str, int]:
    """Return the frames to a port that got lost, by reason."""
    found = {each.reason: each.frames for each in port.errors}
    for reason in ("transmit_drops", "xmit_errors"):
        frames = getattr(port, reason)
        if frames:
            found[reason] = frames
    return found


def rates(port: PortCounts, now: Round, before: Round | None) -> Rates | None:
    """Return how fast the counters of a port went; None if there is nothing to compare with.

    An interface that came back counts anew: what went down is not known.
    """
    earlier = next((each for each in _ports(before) if each.number == port.number), None)
    if earlier is None or before is None:
        return None
    elapsed = now.taken_at - before.taken_at

    def speed(new: int | None, old: int | None, unit: int = 1) -> float | None:
        if new is None or old is None or new < old:
            return None
        return (new - old) * unit / elapsed

    known = errors_of(earlier)
    errors = {
        reason: rate
        for reason, frames in errors_of(port).items()
        if (rate := speed(frames, known.get(reason, 0))) is not None
    }
    return Rates(
        received=speed(port.received, earlier.received),
        sent=speed(port.sent, earlier.sent),
        received_bits=speed(port.received_bytes, earlier.received_bytes, _BITS),
        sent_bits=speed(port.sent_bytes, earlier.sent_bytes, _BITS),
        errors=errors,
    )


def _ports(found: Round | None) -> tuple[PortCounts, ...]:
    return found.counts.ports if found is not None else ()


def to_dict(now: Round, before: Round | None) -> dict[str, object]:
    """Return a round as plain data, for JSON."""
    whole = now.counts.to_dict()
    whole["ports"] = [_port_to_dict(port, now, before) for port in now.counts.ports]
    return {"time": now.clock.isoformat(), "table": whole}


def _port_to_dict(port: PortCounts, now: Round, before: Round | None) -> dict[str, object]:
    speed = rates(port, now, before)
    return {
        **port.to_dict(),
        "stations": None if now.stations is None else now.stations.get(port.number, 0),
        "per_second": speed.to_dict() if speed is not None else None,
    }
