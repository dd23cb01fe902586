# SPDX-License-Identifier: Apache-2.0
"""``xdpkit events``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.duration import duration_callback
from xdpkit.cli.options import pin_root_option
from xdpkit.cli.render import counted, emit, emit_json, message, printable
from xdpkit.errors import UsageError
from xdpkit.monitor.limits import DEFAULT_RATE, DEFAULT_SNAPLEN, MAX_RATE, MAX_SNAPLEN
from xdpkit.monitor.record import ACTIONS

if TYPE_CHECKING:
    from xdpkit.monitor.events import EventReader
    from xdpkit.monitor.model import Target
    from xdpkit.monitor.pcapng import Writer
    from xdpkit.monitor.report import Report

_TURN = 0.1
_DIGITS = 10  # of an id, which is a u32


@subcommand(
    "events",
    examples="""
xdpkit events
xdpkit events eth0 --rate 10
xdpkit events eth0 --action invalid --pcap invalid.pcapng
xdpkit events --program firewall -j > events.jsonl
""",
)
@click.argument("ifaces", metavar="[IFACE]...", nargs=-1, shell_complete=complete.interfaces)
@click.option(
    "--program",
    "programs",
    metavar="NAME|ID",
    multiple=True,
    help="Only of this program, by its name or id. May be repeated.",
)
@click.option(
    "--action",
    "actions",
    metavar="ACTION",
    type=click.Choice(ACTIONS),
    multiple=True,
    help=f"Only where the program returned this: {', '.join(ACTIONS)}. May be repeated.",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(1, MAX_RATE),
    default=DEFAULT_RATE,
    show_default=True,
    help="At most so many a second, on each CPU; the others are only counted.",
)
@click.option(
    "--snaplen",
    metavar="BYTES",
    type=click.IntRange(0, MAX_SNAPLEN),
    default=DEFAULT_SNAPLEN,
    show_default=True,
    help="How much of each packet is kept, for --json and --pcap.",
)
@click.option(
    "--no-frames",
    is_flag=True,
    help="Leave the programs on the interfaces alone: no RX queue, no length, no packet.",
)
@click.option(
    "--transmit",
    is_flag=True,
    help="Tell also of redirected frames that are lost when they are transmitted. This costs"
    " something for those that are not lost, too.",
)
@click.option(
    "--pcap",
    "pcap_path",
    metavar="FILE",
    help="Write the packets to a capture, too (pcapng); - is standard output, and no lines.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N events.")
@click.option(
    "--duration",
    metavar="TIME",
    callback=duration_callback,
    help="End after this time (500ms, 60s, 5m, 1h).",
)
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    ifaces: tuple[str, ...],
    programs: tuple[str, ...],
    actions: tuple[str, ...],
    rate: int,
    snaplen: int,
    no_frames: bool,
    transmit: bool,
    pcap_path: str | None,
    count: int | None,
    duration: float | None,
    pin_root: str,
) -> None:
    """Show each packet that goes wrong, as it happens, until Ctrl-C.

    That is what programs abort, or return without its being an action; what drivers cannot do, or
    fail at; and what cannot be redirected. Of all XDP programs of the machine, whoever attached
    them; or of the interfaces that are named.

    The RX queue, the length and the packet are known of programs that xdpkit attached, on
    interfaces that are named: each of these programs is replaced meanwhile by a copy that tells
    them, in one step.
    """
    from xdpkit.cli.watching import rounds
    from xdpkit.monitor.events import EventReader

    with contextlib.ExitStack() as during:
        # First, as this can wait for who reads it: a signal still ends it.
        output = _Output(settings, during, pcap_path, snaplen)
        # A signal waits from here on, so that whatever is begun is also ended in order.
        turns = rounds(0, None)
        next(turns)
        reader = during.enter_context(
            EventReader(
                netns=settings.netns,
                interfaces=ifaces or None,
                programs=[_named(each) for each in programs] or None,
                actions=actions or None,
                rate=rate,
                snaplen=snaplen,
                frames=not no_frames,
                transmit=transmit,
                pin_root=pin_root,
            )
        )
        _introduce(reader, settings, ifaces, rate)
        end = None if duration is None else time.monotonic() + duration
        not_tapped = reader.not_tapped
        for _ in turns:
            left = _TURN if end is None else min(_TURN, end - time.monotonic())
            if left <= 0 or output.shown == count:
                break
            output.read(reader, left, count)
            if reader.not_tapped != not_tapped:
                not_tapped = reader.not_tapped
                _say_not_tapped(not_tapped)
        reader.stop()
        output.read(reader, 0, count)
        output.finish(reader)


def _named(program: str) -> int | str:
    """Return the id or the name that a program is named by.

    Raises:
        UsageError: it is a number that no id can be.
    """
    if not (program.isascii() and program.isdecimal()):
        return program
    if len(program) > _DIGITS:
        raise UsageError(
            "watch events",
            cause=f"--program has a number of {len(program):,} digits, and an id has {_DIGITS} at"
            " most",
        )
    return int(program)


class _Output:
    """Shows events, and writes them into a capture where that was asked for.

    Attributes:
        shown: how many events.
    """

    def __init__(
        self,
        settings: Settings,
        during: contextlib.ExitStack,
        pcap_path: str | None,
        snaplen: int,
    ) -> None:
        self.shown = 0
        self._settings = settings
        self._capture = None
        self._has_lines = pcap_path != "-"
        if pcap_path is not None:
            from xdpkit.monitor import pcapng

            file = during.enter_context(pcapng.create(pcap_path))
            self._capture = _Capture(pcapng.Writer(file), snaplen)

    def read(self, reader: EventReader, seconds: float, count: int | None) -> None:
        """Show what there is to read, up to a number of events in all."""
        from xdpkit.monitor.events import Suppressed

        for each in reader.read(seconds):
            if isinstance(each, Suppressed):
                self._tell_suppressed(each.count, each.lost)
            elif self.shown != count:
                self.shown += 1
                self._show(each)
        if self._capture is not None:
            self._capture.writer.flush()

    def finish(self, reader: EventReader) -> None:
        """Say what there was in all."""
        if self._settings.json and self._has_lines:
            total = {
                "seen": reader.seen,
                "shown": self.shown,
                "suppressed": reader.suppressed,
                "lost": reader.lost,
            }
            self._emit_json("total", total)
        message(
            f"{counted(self.shown, 'event')} shown,"
            f" {reader.suppressed:,} suppressed, {reader.lost:,} lost"
        )

    def _show(self, report: Report) -> None:
        if self._capture is not None:
            self._capture.write(report)
        if not self._has_lines:
            return
        if self._settings.json:
            self._emit_json("event", report.to_dict())
        else:
            emit([line(report)])

    def _tell_suppressed(self, suppressed: int, lost: int) -> None:
        if self._settings.json and self._has_lines:
            self._emit_json("suppressed", {"suppressed": suppressed, "lost": lost})
        if suppressed:
            message(f"{counted(suppressed, 'event')} suppressed: more than --rate allows")
        if lost:
            message(f"{counted(lost, 'event')} lost: there was no room for more in the buffer")

    def _emit_json(self, kind: str, data: Mapping[str, object]) -> None:
        emit_json({"type": kind, **data}, pretty=self._settings.pretty)


class _Capture:
    """Writes the packets of events; of one that is not known there is the comment only."""

    def __init__(self, writer: Writer, snaplen: int) -> None:
        self.writer = writer
        self._snaplen = snaplen
        self._interfaces: dict[str, int] = {}

    def write(self, report: Report) -> None:
        """Write an event, if it is of one packet."""
        event = report.event
        if event.is_transmit or report.where is None:
            return
        name = report.where.title
        if name not in self._interfaces:
            self._interfaces[name] = self.writer.interface(name, snaplen=self._snaplen)
        self.writer.packet(
            self._interfaces[name],
            report.time,
            event.data,
            length=event.length,
            comment=f"{_program(report)}: {_what(report)}: {report.why}",
            queue=event.queue,
            verdict=event.action,
        )


def _introduce(reader: EventReader, settings: Settings, ifaces: tuple[str, ...], rate: int) -> None:
    """Say what is watched, and which programs are not tapped."""
    if ifaces:
        where = ", ".join(ifaces)
    elif settings.netns is not None:
        where = f"all interfaces of {settings.netns}"
    else:
        where = "all interfaces of the machine"
    message(
        f"watching {where}, at most {counted(rate, 'event')} a second and CPU"
        f" ({', '.join(reader.tracepoints)})"
    )
    for name, programs in reader.tapped.items():
        message(f"{name}: RX queue and packet are told by {', '.join(programs)}")
    _say_not_tapped(reader.not_tapped)
    if reader.absent:
        message(f"this kernel has no tracepoint {', '.join(reader.absent)}")


def _say_not_tapped(sentences: tuple[str, ...]) -> None:
    for sentence in sentences:
        message(sentence)


def line(report: Report) -> str:
    """Return an event as a line."""
    clock = datetime.fromtimestamp(report.time // 1_000_000_000)
    when = f"{clock:%H:%M:%S}.{report.time // 1_000 % 1_000_000:06}"
    text = f"{'  '.join([when, *_parts(report)])}: {report.why.cause}"
    return printable(text)


def _parts(report: Report) -> Iterator[str]:
    event = report.event
    if report.where is not None:
        yield report.where.title
    if event.queue is not None:
        yield f"queue {event.queue}"
    if report.program_id:
        yield _program(report)
    yield _what(report)
    if event.length is not None:
        yield counted(event.length, "byte")


def _program(report: Report) -> str:
    return f"{report.program or '?'} ({report.program_id})"


def _what(report: Report) -> str:
    """Return what went wrong, in a few words."""
    from xdpkit.monitor.model import Reason
    from xdpkit.monitor.record import Kind

    event = report.event
    because = f" ({event.error_name})" if event.errno else ""
    to = _to(report.target)
    match event.kind:
        case Kind.REDIRECT_ERROR:
            return f"redirect{to} failed{because}"
        case Kind.DEVMAP_XMIT | Kind.BULK_TX | Kind.CPUMAP_ENQUEUE | Kind.CPUMAP_KTHREAD:
            return f"{event.drops} of {event.drops + event.sent} frames{to} lost{because}"
        case Kind.ATTACH_FAILED:
            return "an XDP link was not attached"
    match report.reason:
        case Reason.ABORTED | Reason.INVALID | None:
            return event.action_name
        case Reason.UNSUPPORTED:
            return f"{event.action_name} unsupported"
    return f"{event.action_name} failed"


def _to(target: Target | None) -> str:
    """Return where frames were to go, beginning with a space; "" where nowhere."""
    if target is None or not target.kind:
        return ""
    # Where it is no interface, the map says which.
    of = f" of map {target.map_id}" if target.map_id and not target.ifindex else ""
    return f" to {target.name}{of}"
