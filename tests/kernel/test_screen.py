# SPDX-License-Identifier: Apache-2.0
"""The live screen, on a terminal: that of tmux."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.fates import guarded
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, rtnetlink
from tests.kernel.process import COMMAND, shipped
from tests.kernel.troubles import added, send
from xdpkit import Hook, monitor
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register

Golden = Callable[[str, str], None]

pytestmark = pytest.mark.needs("bpf-link-xdp")

SMALL, LARGE = (80, 24), (200, 50)
FRAMES = 60
NO_ACTION = guarded(asm.mov(Register.R0, 42), asm.exit())

# What is another one each time; what takes the place of it is as wide.
_CLOCK = re.compile(r"\d\d:\d\d:\d\d")
_FOR = re.compile(r"counting errors for .+?(  .*?)?   +")
_TREND = re.compile(r" [ ▁▂▃▄▅▆▇█]*[▁▂▃▄▅▆▇█]")
_AGO = re.compile(r"(?<=  )(?:now|\d+ s ago|\d+ min(?: \d+ s)? ago)$", re.MULTILINE)
_ID = re.compile(r"\(id \d+\)")


class Tmux:
    """A terminal in which a command runs."""

    def __init__(self, socket: Path, size: tuple[int, int], command: str) -> None:
        self._tmux = ("tmux", "-S", str(socket), "-f", "/dev/null")
        width, height = map(str, size)
        self._call("new-session", "-d", "-x", width, "-y", height, command)

    def _call(self, *words: str) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        environment.pop("TMUX", None)
        done = subprocess.run(
            [*self._tmux, *words], check=True, capture_output=True, env=environment
        )
        return done.stdout.decode()

    def shown(self) -> str:
        """What the terminal shows now."""
        return self._call("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def resize(self, size: tuple[int, int]) -> None:
        width, height = map(str, size)
        self._call("resize-window", "-x", width, "-y", height)

    def wait_for(self, text: str) -> str:
        """Wait until the terminal shows a text, a pattern; return all that it shows."""
        wait_until(lambda: re.search(text, self.shown(), re.MULTILINE), self.shown)
        return self.shown()

    def end(self) -> None:
        self._call("kill-server")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Tmux]]:
    """Run a command in a terminal of its own, which is closed at the end."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux: make test-peers installs it")
    started: list[Tmux] = []

    def start(command: str, size: tuple[int, int] = SMALL) -> Tmux:
        started.append(Tmux(tmp_path / f"tmux{len(started)}", size, command))
        return started[-1]

    yield start
    for terminal in started:
        # It has ended by itself, if nothing runs in it any more.
        with contextlib.suppress(subprocess.CalledProcessError):
            terminal.end()


@pytest.fixture
def v0(netns: str) -> Veth:
    """A veth pair with names that are the same each time, and with one queue."""
    with rtnetlink(netns) as connection:
        connection.link("add", ifname="v0", kind="veth", peer={"ifname": "v1"})
        for name in ("v0", "v1"):
            connection.link("set", ifname=name, state="up")
    return Veth("v0", netns, "v1", netns)


def show(veth: Veth, pin_root: str, *options: str) -> str:
    """The command line that shows the screen of a namespace."""
    words = [*COMMAND, "-n", veth.netns, "monitor", "show", "--pin-root", pin_root]
    return shlex.join([*words, "--interval", "0.2", *options])


@contextlib.contextmanager
def failing(veth: Veth, pin_root: str) -> Iterator[None]:
    """Count errors, and have a program on the interface that returns what is no action."""
    shipped("monitor.o")
    monitor.install(pin_root=pin_root)
    try:
        with added(veth, pin_root, NO_ACTION, "firewall"):
            Hook(veth.name, netns=veth.netns, pin_root=pin_root).counters.enable(count_bytes=True)
            yield
    finally:
        monitor.remove(pin_root=pin_root)


def masked(shown: str) -> str:
    """A frame without what is another one each time."""

    text = _CLOCK.sub("HH:MM:SS", shown)
    text = _FOR.sub(r"counting errors for TIME\1   ", text)
    text = _ID.sub("(id P)", _AGO.sub("TIME", text))
    text = _TREND.sub(lambda found: " ".ljust(len(found[0]), "~"), text)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def test_the_screen_shows_what_goes_wrong_on_terminals_of_all_sizes(
    v0: Veth, pin_root: str, run: Callable[..., Tmux], golden: Golden
) -> None:
    frames = []
    with failing(v0, pin_root):
        terminal = run(show(v0, pin_root, "v0"))
        terminal.wait_for(r"no errors")
        # It happens until it was seen to; then no more, but it did in the last minute.
        sent = 0
        while not re.search(r"^ ! v0 .* returned numbers [^\d\n]* [1-9]", terminal.shown(), re.M):
            assert sent < FRAMES, terminal.shown()
            send(v0, 1)
            sent += 1
        send(v0, FRAMES - sent)
        terminal.wait_for(rf"^ ! v0 .* returned numbers [^\d\n]* 0 +{FRAMES} ")
        terminal.press("t")
        frames.append(terminal.wait_for("totals, by packets"))
        terminal.press("Enter")
        frames.append(terminal.wait_for("> v0 .*(.*\n)*.*driver veth"))
        terminal.press("BSpace", "Tab", "Enter")
        frames.append(terminal.wait_for("Cause: 42 is no action"))
        terminal.press("BSpace", "?")
        frames.append(terminal.wait_for("any key: back"))
        terminal.resize(LARGE)
        terminal.press("x")
        frames.append(terminal.wait_for("packets total(.*\n){40}"))
        terminal.press("Home", "Enter")
        frames.append(terminal.wait_for("what it counts"))
        terminal.press("p")
        terminal.wait_for("PAUSED")
        terminal.press("q")
    golden("screen.txt", "\n".join(map(masked, frames)))


def test_without_resident_programs_it_says_how_to_have_them_and_shows_what_there_is(
    v0: Veth, pin_root: str, run: Callable[..., Tmux]
) -> None:
    with added(v0, pin_root, NO_ACTION, "firewall"):
        terminal = run(show(v0, pin_root))
        terminal.wait_for("errors are not counted: xdpkit monitor install")
        send(v0, FRAMES)
        terminal.press("t")
        terminal.wait_for(rf"^>. v0 +{FRAMES} ")
        terminal.press("Enter")
        terminal.wait_for(r"to count: xdpkit counters enable -n \S+ v0")


# Prints what it finds, runs a command, and prints how that ended and what the terminal is like.
_AROUND = """
before=$(stty -g)
echo begin
{}
echo "status $?"
[ "$before" = "$(stty -g)" ] && echo same || echo changed
cat
"""


def around(command: str) -> str:
    return shlex.join(["sh", "-c", _AROUND.format(command)])


def process_of(text: str) -> int:
    """Return the process that was started with a text among its arguments, once it is there."""
    found: list[int] = []

    def look() -> list[int]:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if text.encode() in words and b"monitor" in words:
                    found[:] = [int(folder.name)]
        return found

    wait_until(look)
    return found[0]


@pytest.mark.parametrize("ending", ["q", "C-c", signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_as_it_was(
    v0: Veth,
    pin_root: str,
    run: Callable[..., Tmux],
    ending: str | signal.Signals,
) -> None:
    terminal = run(around(show(v0, pin_root)))
    terminal.wait_for("q quit")
    assert "begin" not in terminal.shown()
    if isinstance(ending, str):
        terminal.press(ending)
    else:
        os.kill(process_of(v0.netns), ending)
    shown = terminal.wait_for("^(same|changed)")
    assert shown.split() == ["begin", "status", "0", "same"]


def test_the_terminal_is_given_back_after_an_exception(run: Callable[..., Tmux]) -> None:
    failing_later = """
from xdpkit.cli.screen import live
from xdpkit.monitor.model import Snapshot, Tracepoints

rounds = iter([Snapshot(1, None, Tracepoints())])

live.watch(lambda: next(rounds), 0.1, netns=None, asked=())
"""
    command = shlex.join([sys.executable, "-c", failing_later])
    terminal = run(around(f"{command} 2>&1 | tail -n 1"))
    shown = terminal.wait_for("^(same|changed)")
    assert "StopIteration" in shown
    assert "same" in shown.split()


def test_it_can_be_stopped_and_goes_on(v0: Veth, pin_root: str, run: Callable[..., Tmux]) -> None:
    terminal = run("bash --norc --noprofile")
    terminal.press(show(v0, pin_root), "Enter")
    terminal.wait_for("q quit")
    terminal.press("C-z")
    terminal.wait_for("Stopped")
    terminal.press("echo $((6 * 7))", "Enter")
    terminal.wait_for("^42$")
    terminal.press("fg", "Enter")
    terminal.wait_for("^q quit")
    terminal.press("q")
    terminal.wait_for("^42$")


def test_a_round_that_fails_is_said_and_the_next_one_is_shown(
    v0: Veth, pin_root: str, run: Callable[..., Tmux]
) -> None:
    terminal = run(show(v0, pin_root, "v0"))
    terminal.wait_for("^>  v0")
    with rtnetlink(v0.netns) as connection:
        (index,) = connection.link_lookup(ifname="v0")
        connection.link("set", index=index, ifname="other", state="down")
        terminal.wait_for("^! .*v0")
        connection.link("set", index=index, ifname="v0", state="up")
    terminal.wait_for("^q quit")
