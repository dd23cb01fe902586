# SPDX-License-Identifier: Apache-2.0
"""``xdpkit capture``."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

import click

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.duration import duration_callback
from xdpkit.cli.options import interface_argument, pin_root_option
from xdpkit.cli.render import counted, emit, emit_json, message, printable
from xdpkit.errors import UsageError

if TYPE_CHECKING:
    from xdpkit.monitor.capturing import Capture
    from xdpkit.monitor.record import Event

_ACTIONS = ("aborted", "drop", "pass", "tx", "redirect", "invalid")

_ROUND_S = 0.05
_NS = 1_000_000_000

# As many digits as a size in memory has.
_SIZE = re.compile(r"([0-9]{1,20})([KMG]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Show = Callable[[Iterable["Event"]], None]


def _size(_: click.Context, __: click.Parameter, text: str) -> int:
    """Read a size in bytes; what is between two powers of 2 is the larger one.

    Raises:
        UsageError: it is none.
    """
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(
            f"read {text!r} as a size",
            cause="it takes a number of bytes, or a number and a unit (K, M, G)",
            remedy="as in: 512K, 16M",
        )
    size = int(found[1]) * _UNITS[found[2].upper()]
    return 1 << (size - 1).bit_length()


@subcommand(
    "capture",
    examples="""
xdpkit capture eth0
xdpkit capture eth0 --action drop --action aborted --count 20
xdpkit capture eth0 --sample 1000 --duration 1m --pcap eth0.pcapng
xdpkit capture eth0 --pcap - | tshark -r - -Y 'frame.verdict.ebpf_xdp == 1'
""",
)
@interface_argument()
@click.option(
    "--action",
    "actions",
    type=click.Choice(_ACTIONS),
    metavar="ACTION",
    multiple=True,
    help=f"Only frames for which this was returned: {', '.join(_ACTIONS)}. May be repeated.",
)
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Capture 1 in N of these frames.",
)
@click.option(
    "--snaplen",
    metavar="N",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Capture the first N bytes of a frame.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N frames.")
@click.option(
    "--duration",
    metavar="TIME",
    callback=duration_callback,
    help="End after this time (500ms, 60s, 5m, 1h).",
)
@click.option(
    "--buffer",
    metavar="SIZE",
    callback=_size,
    default="8M",
    show_default=True,
    help="Room for frames that are not read yet; what finds none is counted as lost.",
)
@click.option(
    "--pcap",
    "path",
    metavar="FILE",
    type=click.Path(),
    help="Write frames and verdicts to FILE (pcapng) instead; - is standard output.",
)
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    iface: str,
    actions: tuple[str, ...],
    sample: int,
    snaplen: int,
    count: int | None,
    duration: float | None,
    buffer: int,
    path: str | None,
    pin_root: str,
) -> None:
    """Show frames with what the program returned for each, dropped ones among them.

    A frame is shown as the program left it. Programs that xdpkit attached are captured from: for as
    long as it takes, copies of them are in their place, which write frames into a buffer. They do
    not wait for anybody: a frame that finds no room is counted as lost. Ctrl-C ends it.
    """
    if path == "-" and settings.json:
        raise UsageError(
            "capture frames", cause="--pcap - and --json would both write to standard output"
        )
    from xdpkit.hook import Hook
    from xdpkit.monitor.capturing import Capture
    from xdpkit.monitor.pcapng import create

    hook = Hook(iface, netns=settings.netns, pin_root=pin_root)
    with contextlib.ExitStack() as owned:
        # First, as this can wait for a reader: a signal still ends it, and the hook is as it was.
        file = owned.enter_context(create(path)) if path is not None else None
        is_told = owned.enter_context(_told_to_end())
        capture = owned.enter_context(
            Capture(
                hook, actions=actions or _ACTIONS, sample=sample, snaplen=snaplen, buffer=buffer
            )
        )
        _announce(capture)
        with _output(settings, capture, file) as show:
            captured, failure = _run(capture, show, count, duration, is_told)
        _conclude(settings, capture, captured, path)
    if failure is not None:
        raise failure


@contextlib.contextmanager
def _told_to_end() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether Ctrl-C or SIGTERM has come within the ``with`` block.

    The first one interrupts nothing, so that all is brought to its end. The second one does: what
    takes the output may not read it. None interrupts what is undone then. Those that the process
    was told to ignore stay ignored.
    """
    times = 0

    def tell(number: int, _: FrameType | None) -> None:
        nonlocal times
        times += 1
        if times == 2:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, tell)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield lambda: times > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(
    capture: Capture,
    show: Show,
    count: int | None,
    duration: float | None,
    is_told: Callable[[], bool],
) -> tuple[int, UsageError | None]:
    """Show frames until it is to end; return how many there were, and why it had to end."""
    end = math.inf if duration is None else time.monotonic() + duration
    captured = 0

    def chosen() -> Iterator[Event]:
        nonlocal captured
        left = None if count is None else count - captured
        for frame in itertools.islice(capture.frames(), left):
            captured += 1
            yield frame

    failure = None
    while True:
        try:
            show(chosen())
        except UsageError as error:
            # The interface is gone; what was captured is not.
            failure = error
            break
        left = end - time.monotonic()
        if is_told() or captured == count or left <= 0:
            break
        # Not as soon as there is a frame: many at a time cost less than each by itself.
        time.sleep(min(_ROUND_S, left))
    capture.stop()
    show(chosen())
    return captured, failure


@contextlib.contextmanager
def _output(settings: Settings, capture: Capture, file: BinaryIO | None) -> Iterator[Show]:
    """Yield what shows frames, as they are to be shown; ``file``: it gets them instead."""
    if file is not None:
        from xdpkit import __version__
        from xdpkit.monitor.capturing import Recorder

        recorder = Recorder(file, capture, application=f"xdpkit {__version__}")

        def write(frames: Iterable[Event]) -> None:
            recorder.write(frames)
            recorder.flush()

        yield write
        recorder.finish()
    elif settings.json:

        def dump(frames: Iterable[Event]) -> None:
            for frame in frames:
                emit_json(_as_data(capture, frame), pretty=settings.pretty)
            sys.stdout.flush()

        yield dump
    else:

        def tell(frames: Iterable[Event]) -> None:
            emit(_line(capture, frame) for frame in frames)
            sys.stdout.flush()

        yield tell


def _line(capture: Capture, frame: Event) -> str:
    from xdpkit.monitor.headers import summary

    seconds, rest = divmod(capture.time_of(frame), _NS)
    clock = f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{rest // 1000:06}"
    queue = "–" if frame.queue is None else str(frame.queue)
    action = frame.action_name
    if action == "invalid":
        action = f"invalid ({frame.action})"
    length = "–" if frame.length is None else str(frame.length)
    name = printable(capture.program_of(frame))
    return (
        f"{clock}  queue {queue:<2}  {name}  {action:<8}  {length:>5} bytes  {summary(frame.data)}"
    ).rstrip()


def _as_data(capture: Capture, frame: Event) -> dict[str, object]:
    return {
        "time": capture.time_of(frame),
        "cpu": frame.cpu,
        "interface": capture.interface.name,
        "ifindex": frame.ifindex,
        "program": capture.program_of(frame),
        "program_id": frame.program,
        "action": frame.action_name,
        "returned": frame.action,
        "queue": frame.queue,
        "length": frame.length,
        "data": frame.data.hex(),
    }


def _announce(capture: Capture) -> None:
    """Say what is captured from, and what is not."""
    programs = ", ".join(f"{name} ({number})" for number, name in capture.programs.items())
    message(f"capturing on {capture.interface.name}: {programs}")
    for sentence in capture.not_tapped:
        message(sentence)


def _conclude(settings: Settings, capture: Capture, captured: int, path: str | None) -> None:
    """Say how many frames there were, and how many are missing."""
    if settings.json:
        totals = {"captured": captured, "seen": capture.seen, "lost": capture.lost}
        emit_json({"totals": totals}, pretty=settings.pretty)
    where = f" in {path}" if path not in (None, "-") else ""
    message(
        f"{counted(captured, 'frame')} captured{where}, of {capture.seen:,};"
        f" {capture.lost:,} lost for want of room"
        + (", which --buffer gives, or --snaplen or --sample" if capture.lost else "")
    )
