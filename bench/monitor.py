# SPDX-License-Identifier: Apache-2.0
"""What watching costs while every packet goes wrong, as fast as the kernel can make packets.

A program that returns XDP_ABORTED for all packets stands on one end of a veth pair; live frames go
into the other end, on one CPU. Each way of watching has a turn in each round, in another order each
time, and is held beside the turn of that round in which nobody watched.

bpftrace, perf and xdp-monitor look at the same flood, in the same rounds. They need tracefs, which
is mounted for them alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import xdpkit
from tests.kernel.attaching import BPFFS
from tests.kernel.compiled import assembled, read
from tests.kernel.net import make_veth, namespace, rtnetlink
from xdpkit import monitor
from xdpkit.interfaces import resolve
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Program, attach_tracepoint, load
from xdpkit.syscalls.netns import entered

ROUNDS = 9
FRAMES = 500_000
SCRAPES = 40
SECONDS = 3.0
# Frames in each hundredth of a second.
FLOWS = {"100 thousand a second": 1_000, "1 million a second": 10_000}

_CPU = 0
_FRAME = bytes(64)
_WIDTH = 44
_UNWATCHED = "unwatched"
_EMPTY = "empty tp_btf program"
_RESIDENT = "monitor install"
_TICKS = os.sysconf("SC_CLK_TCK")
_COUNTING = "tracepoint:xdp:xdp_exception { @[args->ifindex, args->act] = count(); }"
_MOUNTED = """
mount -t tracefs none /sys/kernel/tracing
mount -t debugfs none /sys/kernel/debug
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Flood:
    """A place where every packet goes wrong.

    Attributes:
        iface, netns: the interface with the program. hook: its hook.
        folder: for files. pin_root: for pins.
        sender: sends frames there. taken: says how many have arrived.
    """

    iface: str
    netns: str
    folder: Path
    pin_root: str
    hook: xdpkit.Hook
    sender: Program
    taken: Callable[[], int]

    def send(self, frames: int = FRAMES) -> int:
        """Send frames; return how many nanoseconds each took."""
        with entered(self.netns):
            return self.sender.run(_FRAME, live=True, repeat=frames, cpu=_CPU).duration_ns

    def rate(self) -> float:
        """Send frames; return how many millions of them a second went wrong."""
        before = self.taken()
        duration = self.send()
        return (self.taken() - before) / FRAMES * 1000 / duration


@dataclass(eq=False, slots=True)
class Way:
    """A way of watching, and what was measured.

    Attributes:
        name: for the table.
        begin: watches for as long as the block.
        rates: millions of packets a second, of each round.
        note: what else there is to say.
    """

    name: str
    begin: Callable[[Flood], AbstractContextManager[object]]
    rates: list[float] = field(default_factory=list)
    note: str = ""


def main() -> None:
    """Print the tables."""
    with _flood() as flood:
        ways = list(_ways())
        _measure(flood, ways)
        print()
        _print_user_time(flood)
        print()
        _print_scrapes(flood)


@contextlib.contextmanager
def _flood() -> Iterator[Flood]:
    with ExitStack() as resources:
        root = Path(BPFFS, f"bench-monitor-{os.getpid()}")
        root.mkdir(0o700)
        resources.callback(root.rmdir)
        resources.callback(_remove, root / "xdpkit")
        netns = resources.enter_context(namespace())
        veth = make_veth(netns, queues=1)
        hook = xdpkit.Hook(veth.name, netns=netns, pin_root=str(root))
        hook.add(read("failing").programs["aborts"]).close()
        resources.callback(hook.delete)
        connection = resources.enter_context(rtnetlink(netns))
        code = (
            asm.mov(Register.R1, resolve(veth.peer, netns=netns).index),
            asm.mov(Register.R2, 0),
            asm.call("redirect"),
            asm.exit(),
        )
        sender = resources.enter_context(assembled(*code, name="sending"))
        folder = resources.enter_context(tempfile.TemporaryDirectory())

        def taken() -> int:
            (link,) = connection.get_links(ifname=veth.name)
            return int(link.get_attr("IFLA_STATS64")["rx_packets"])

        yield Flood(veth.name, netns, Path(folder), str(root), hook, sender, taken)


def _remove(folder: Path) -> None:
    if folder.exists():
        folder.rmdir()


# Ways to watch


def _ways() -> Iterator[Way]:
    yield Way(_UNWATCHED, lambda flood: contextlib.nullcontext())
    yield Way("counters enable", _counters)
    yield Way(_EMPTY, _empty)
    yield Way(_RESIDENT, _resident)
    yield Way("events, 100 a second", _events())
    yield Way("events, as many as there is room for", _events("--rate", "1000000"))
    yield Way("events of the interface, with packets", _events(tapped=True))
    yield Way("events, the reader stopped", _stopped)
    yield Way("events, the reader killed", _killed)
    if shutil.which("bpftrace"):
        yield Way("bpftrace, counting", _bpftrace)
    if shutil.which("perf"):
        perf = Way("perf record", lambda flood: _perf(flood, perf))
        yield perf
    if shutil.which("xdp-monitor"):
        yield Way("xdp-monitor", _xdp_monitor)


@contextlib.contextmanager
def _counters(flood: Flood) -> Iterator[None]:
    flood.hook.counters.enable()
    try:
        yield
    finally:
        flood.hook.counters.disable()


@contextlib.contextmanager
def _empty(flood: Flood) -> Iterator[None]:
    with load(read("failing").programs["empty"]) as program, attach_tracepoint(program):
        yield


@contextlib.contextmanager
def _resident(flood: Flood) -> Iterator[None]:
    monitor.install(pin_root=flood.pin_root)
    try:
        yield
    finally:
        monitor.remove(pin_root=flood.pin_root)


def _events(
    *options: str, tapped: bool = False
) -> Callable[[Flood], AbstractContextManager[subprocess.Popen[bytes]]]:
    return lambda flood: _reader(flood, *options, tapped=tapped)


@contextlib.contextmanager
def _reader(flood: Flood, *options: str, tapped: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``xdpkit events``, and wait until it has shown one."""
    where = ("-n", flood.netns, "events", flood.iface) if tapped else ("events",)
    command = (sys.executable, "-m", "xdpkit", *where, *options, "--pin-root", flood.pin_root)
    with _running(flood, "events", *command) as (reader, output):
        _wait(lambda: flood.send(100) > 0 and output.stat().st_size > 0, reader)
        yield reader


@contextlib.contextmanager
def _stopped(flood: Flood) -> Iterator[None]:
    with _reader(flood) as reader:
        reader.send_signal(signal.SIGSTOP)
        # What credit it had is spent before anything is measured.
        flood.send()
        try:
            yield
        finally:
            reader.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _killed(flood: Flood) -> Iterator[None]:
    with _reader(flood, tapped=True) as reader:
        reader.kill()
        reader.wait()
    yield


@contextlib.contextmanager
def _bpftrace(flood: Flood) -> Iterator[None]:
    command = _with_tracefs("bpftrace", "-e", _COUNTING)
    with _running(flood, "bpftrace", *command) as (tracer, output):
        _wait(lambda: "Attach" in output.read_text(), tracer)
        # It says so before it does so.
        time.sleep(1)
        yield
    if not re.search(r"@\[\d+, 0\]: \d{6,}", output.read_text()):
        raise SystemExit(f"bench: bpftrace did not count:\n{output.read_text()}")


@contextlib.contextmanager
def _perf(flood: Flood, way: Way) -> Iterator[None]:
    data = flood.folder / "perf.data"
    command = ("perf", "record", "-q", "-e", "xdp:xdp_exception", "-a", "-o", str(data))
    with _running(flood, "perf", *_with_tracefs(*command)) as (recorder, _):
        _wait(data.exists, recorder)
        time.sleep(1)
        yield
    way.note = f"{data.stat().st_size / 1e6:.0f} MB for {FRAMES / 1e6:.1f} million packets"
    data.unlink()


@contextlib.contextmanager
def _xdp_monitor(flood: Flood) -> Iterator[None]:
    with _running(flood, "xdp-monitor", *_with_tracefs("xdp-monitor", "-s")) as (watcher, output):
        time.sleep(1)
        if watcher.poll() is not None:
            lines = output.read_text().strip().splitlines()
            raise _DoesNotRun(lines[0] if lines else f"status {watcher.returncode}")
        yield


class _DoesNotRun(Exception):
    """A tool ends at once on this kernel; with what it said."""


def _with_tracefs(*command: str) -> tuple[str, ...]:
    return ("unshare", "--mount", "sh", "-c", _MOUNTED, "sh", *command)


@contextlib.contextmanager
def _running(
    flood: Flood, name: str, *command: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a command whose output goes into a file; interrupt it at the end."""
    output = flood.folder / name
    with (
        open(output, "wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as running,
    ):
        try:
            yield running, output
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGINT)
            running.wait()


def _wait(condition: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while not condition():
        if running.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"bench: {running.args!r} does not watch")
        time.sleep(0.05)


# Throughput


def _measure(flood: Flood, ways: list[Way]) -> None:
    print(
        f"A flood of aborted packets: millions a second, medians of {ROUNDS} rounds, by turns;"
        f" {FRAMES:,} packets each"
    )
    chance = random.Random(0)
    for _ in range(ROUNDS):
        for way in chance.sample(ways, len(ways)):
            if way.rates or not way.note:
                _turn(flood, way)
    base = {way.name: way.rates for way in ways}
    print(f"{'':{_WIDTH}}{'Mpps':>6}{'of unwatched':>14}{'quartiles':>16}{'ns an error':>13}")
    for way in ways:
        if not way.rates:
            print(f"{way.name:{_WIDTH}}does not run here: {way.note}")
            continue
        ratios = [a / b for a, b in zip(way.rates, base[_UNWATCHED], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{way.name:{_WIDTH}}{statistics.median(way.rates):6.2f}"
            f"{statistics.median(ratios):14.1%}{f'{low:.1%} … {high:.1%}':>16}"
            f"{_added(way.rates, base[_UNWATCHED]):+13.1f}  {way.note}"
        )
    added = _added(base[_RESIDENT], base[_EMPTY])
    print(f"{_RESIDENT} beside an {_EMPTY}: {added:+.1f} ns for each error")


def _turn(flood: Flood, way: Way) -> None:
    try:
        with way.begin(flood):
            way.rates.append(flood.rate())
    except _DoesNotRun as error:
        way.note = str(error)


def _added(rates: list[float], base: list[float]) -> float:
    """Return the nanoseconds for each packet that a way adds to another one."""
    return statistics.median(1000 / a - 1000 / b for a, b in zip(rates, base, strict=True))


# User space


def _print_user_time(flood: Flood) -> None:
    """Print what the reader of events costs, in a small flow and in one of ten times as much."""
    print(f"xdpkit events: CPU seconds of its own in a flow of {SECONDS:.0f} s or more; memory")
    for title, options in {
        "100 events a second": (),
        "as many as there is room for": ("--rate", "1000000"),
    }.items():
        for name, frames in FLOWS.items():
            with _reader(flood, *options) as reader:
                before = _user_time(reader.pid)
                start = time.monotonic()
                _flow(flood, frames)
                lasted = time.monotonic() - start
                used = _user_time(reader.pid) - before
                memory = _resident_kib(reader.pid) / 1024
            print(f"{title:{_WIDTH}}{name:>24}{used:8.2f} s of {lasted:4.1f}{memory:6.0f} MiB")


def _flow(flood: Flood, frames: int) -> None:
    start = time.monotonic()
    for number in range(round(SECONDS * 100)):
        flood.send(frames)
        time.sleep(max(0.0, start + number / 100 - time.monotonic()))


def _user_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_kib(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


# A scrape


def _print_scrapes(flood: Flood) -> None:
    """Print how long a scrape takes without a flood, and in one."""
    print(f"xdpkit export: a scrape, milliseconds; {SCRAPES} each")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = (sys.executable, "-m", "xdpkit", "-n", flood.netns, "export", "--listen", address)
    with (
        _resident(flood),
        _running(flood, "export", *command, "--pin-root", flood.pin_root) as (server, _),
    ):
        _wait(lambda: _answers(address), server)
        _print_times("idle", address)
        with _flooding(flood):
            _print_times("flood", address)
        print(f"{'memory':{_WIDTH}}{_resident_kib(server.pid) / 1024:.0f} MiB")


def _print_times(title: str, address: str) -> None:
    times = [_scrape(address) for _ in range(SCRAPES)]
    print(f"{title:{_WIDTH}}median {statistics.median(times):6.1f}, longest {max(times):6.1f}")


@contextlib.contextmanager
def _flooding(flood: Flood) -> Iterator[None]:
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            flood.send()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _answers(address: str) -> bool:
    try:
        _scrape(address)
    except OSError:
        return False
    return True


def _scrape(address: str) -> float:
    start = time.perf_counter()
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        answer.read()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
