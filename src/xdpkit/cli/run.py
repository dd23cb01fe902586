# SPDX-License-Identifier: Apache-2.0
"""``xdpkit run``."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from xdpkit.cli.assign import assign
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import (
    choose_program,
    keeping_log,
    object_argument,
    pin_root_option,
    program_option,
    set_option,
    verifier_log_option,
)
from xdpkit.cli.pcap import (
    LINKTYPE_ETHERNET,
    RECORD_HEADER,
    Packet,
    PcapWriter,
    read_packets,
)
from xdpkit.cli.progress import Progress
from xdpkit.cli.render import Column, counted, emit, emit_json, message, printable, table, width
from xdpkit.errors import UsageError
from xdpkit.uapi.bpf import ProgFlags, XdpAction

if TYPE_CHECKING:
    from xdpkit.kernel import Context, Given, Program

_KEPT = frozenset({XdpAction.PASS, XdpAction.TX, XdpAction.REDIRECT})


@dataclass(slots=True)
class Tally:
    """What came of the packets.

    Attributes:
        packets: how many met each returned value. nanoseconds: how long they took together.
        too_short, too_long: packets that the kernel does not run this program over.
        cut: packets that had not been captured whole.
        written: packets in the output.
    """

    packets: Counter[int] = field(default_factory=Counter)
    nanoseconds: Counter[int] = field(default_factory=Counter)
    too_short: int = 0
    too_long: int = 0
    cut: int = 0
    written: int = 0


@subcommand(
    "run",
    examples="""
xdpkit run fw.o --input traffic.pcap
xdpkit run fw.o --input traffic.pcapng --set blocked_port=53
xdpkit run fw.o --input traffic.pcap --output passed.pcap
xdpkit run fw.o --input one-packet.pcap --repeat 1000000
xdpkit run switch.o --input traffic.pcap --port-index 2
""",
)
@object_argument
@click.option(
    "--input",
    "input_path",
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="The capture: pcap or pcapng, of Ethernet frames; - for standard input.",
)
@program_option
@set_option
@click.option(
    "--port-index",
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    help="What the program reads as ctx->port_index.",
)
@click.option(
    "--cookie",
    metavar="N",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="What the program reads as ctx->cookie.",
)
@click.option(
    "--repeat",
    metavar="N",
    type=click.IntRange(1, 2**32 - 1),
    default=1,
    show_default=True,
    help="Run it N times over each packet, to measure: each run gets the packet as the one before"
    " left it, and the last one counts.",
)
@click.option(
    "--output",
    "output_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="Write the packets that were not dropped (PASS, TX, REDIRECT), as they came out, as pcap.",
)
@pin_root_option
@verifier_log_option
@pass_settings
def command(
    settings: Settings,
    object_path: str,
    input_path: str,
    program_name: str | None,
    assignments: tuple[str, ...],
    port_index: int | None,
    cookie: int,
    repeat: int,
    output_path: str | None,
    pin_root: str,
    log_path: str | None,
) -> None:
    """Run a program over captured packets, in the kernel but on no interface.

    Shows how often it returned which action, and how long it took per packet. A single run of
    each packet measures cold caches; --repeat measures a busy machine's. What the program does to
    its maps is real: those that are shared by pinning keep it. The maps of a port table are the
    run's own, and no port has an interface.
    """
    from xdpkit.kernel import Context, load
    from xdpkit.kernel.ownports import own_port_maps
    from xdpkit.obj import read
    from xdpkit.syscalls.netns import entered

    what = f"run {object_path}"
    obj = read(object_path)
    spec = choose_program(obj, program_name, what=what)
    assign(obj, assignments)
    context = Context(port_index, cookie=cookie)
    with (
        _opened(input_path) as stream,
        entered(settings.netns),
        keeping_log(log_path),
        own_port_maps(spec, notes=message) as maps,
        load(spec, maps=maps, pin_root=pin_root, context=context) as program,
        _replacing(output_path) as output,
        Progress(f"running {spec.name}", total=os.fstat(stream.fileno()).st_size) as progress,
    ):
        writer = PcapWriter(output) if output is not None else None
        tally = Tally()
        has_frags = bool(spec.flags & ProgFlags.XDP_HAS_FRAGS)
        for packet in read_packets(stream, file=input_path):
            _run_one(program, packet, tally, writer, repeat=repeat, has_frags=has_frags)
            progress.advance(RECORD_HEADER + len(packet.data))
    if settings.json:
        emit_json(
            {
                **_as_json(spec.name, input_path, repeat, tally, output_path),
                "context": _context_as_json(program.context),
                "empty_port_maps": list(maps),
            },
            pretty=settings.pretty,
        )
    else:
        emit(_histogram(spec.name, input_path, repeat, tally))
        for note in (*_notes(tally, output_path), *_not_read(program, context)):
            message(note)
        if maps:
            message(f"no port has an interface in this run: it has empty {', '.join(maps)}")


def _run_one(
    program: Program,
    packet: Packet,
    tally: Tally,
    writer: PcapWriter | None,
    *,
    repeat: int,
    has_frags: bool,
) -> None:
    from xdpkit.kernel.testrun import LINEAR_ROOM, MIN_PACKET

    if packet.linktype != LINKTYPE_ETHERNET:
        raise UsageError(
            f"run {program.name}",
            cause=f"the capture is not of Ethernet frames (link type {packet.linktype})",
        )
    if len(packet.data) < MIN_PACKET:
        tally.too_short += 1
        return
    # Kernels run it all the same, over the beginning of the packet: what no driver would do.
    if not has_frags and len(packet.data) > LINEAR_ROOM:
        tally.too_long += 1
        return
    result = program.run(packet.data, repeat=repeat)
    assert result.action is not None
    tally.packets[result.action] += 1
    tally.nanoseconds[result.action] += result.duration_ns
    tally.cut += packet.is_cut
    if writer is not None and result.action in _KEPT:
        # What was not captured is missing from the output, too.
        missing = max(packet.wire_length - len(packet.data), 0)
        writer.write(Packet(result.packet, packet.timestamp_ns, len(result.packet) + missing))
        tally.written += 1


def _histogram(name: str, input_path: str, repeat: int, tally: Tally) -> Iterator[str]:
    total = tally.packets.total()
    times = f", each {repeat:,} times" if repeat > 1 else ""
    yield printable(f"{name} over {counted(total, 'packet')} of {input_path}{times}")
    if not total:
        return
    yield ""
    yield from table(
        [
            Column("action"),
            Column("packets", right=True),
            Column("%", right=True),
            Column("ns/packet", right=True),
        ],
        [
            [
                _action_name(action),
                f"{packets:,}",
                f"{100 * packets / total:.1f}",
                f"{tally.nanoseconds[action] / packets:,.0f}",
            ]
            for action, packets in tally.packets.most_common()
        ],
        width=width(),
    )


def _action_name(action: int) -> str:
    """Return "XDP_DROP"; what is no action, the kernel counts as one aborted."""
    return action.kernel_name if isinstance(action, XdpAction) else f"{action} (no action)"


def _notes(tally: Tally, output_path: str | None) -> Iterator[str]:
    if tally.too_short:
        yield f"left out {counted(tally.too_short, 'packet')} shorter than an Ethernet header"
    if tally.too_long:
        yield (
            f"left out {counted(tally.too_long, 'packet')} too long for a program without frags"
            " support (section xdp.frags)"
        )
    if tally.cut:
        yield f"{counted(tally.cut, 'packet')} had not been captured whole"
    if output_path is not None:
        yield f"wrote {counted(tally.written, 'packet')} to {output_path}"


def _not_read(program: Program, wanted: Context) -> Iterator[str]:
    fields = () if program.context is None else program.context.fields
    for name, was_given in (
        ("port_index", wanted.port_index is not None),
        ("cookie", wanted.cookie != 0),
    ):
        if was_given and name not in fields:
            yield f"{program.name} does not read {name}"


def _context_as_json(given: Given | None) -> dict[str, object] | None:
    if given is None:
        return None
    return {
        "fields": list(given.fields),
        "port_index": given.port_index,
        "cookie": given.cookie,
    }


def _as_json(
    name: str, input_path: str, repeat: int, tally: Tally, output_path: str | None
) -> dict[str, object]:
    total = tally.packets.total()
    return {
        "program": name,
        "input": input_path,
        "repeat": repeat,
        "packets": total,
        "actions": [
            {
                "action": action.kernel_name if isinstance(action, XdpAction) else None,
                "value": int(action),
                "packets": packets,
                "percent": round(100 * packets / total, 3),
                "ns_per_packet": round(tally.nanoseconds[action] / packets, 1),
            }
            for action, packets in tally.packets.most_common()
        ],
        "left_out": {"too_short": tally.too_short, "too_long": tally.too_long},
        "cut": tally.cut,
        "output": None if output_path is None else {"path": output_path, "packets": tally.written},
    }


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as opened:
        with _usage_errors(f"read {path!r}"):
            stream = opened.enter_context(open(path, "rb"))
        yield stream


@contextlib.contextmanager
def _replacing(path: str | None) -> Iterator[BinaryIO | None]:
    """Yield a file that takes the place of ``path`` at the end, if all went well."""
    if path is None:
        yield None
        return
    what = f"write {path!r}"
    if path == "-":
        raise UsageError(
            what, cause="standard output has the table", remedy="give the packets a file or a pipe"
        )
    with contextlib.ExitStack() as opened:
        # A device or a pipe is written to, not replaced.
        if _is_special(path):
            with _usage_errors(what):
                stream = opened.enter_context(open(path, "wb"))
            yield stream
            return
        target = Path(path).resolve()
        with _usage_errors(what):
            descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=".xdpkit-")
        opened.callback(Path(partial).unlink, missing_ok=True)
        with open(descriptor, "wb") as output:
            yield output
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, target)


def _is_special(path: str) -> bool:
    # The path as it was given: /dev/stdout resolves to a name that no pipe has.
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def _usage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(what, cause=str(error.strerror)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
