# SPDX-License-Identifier: Apache-2.0
"""Capturing frames, from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.attaching import foreign_link
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, rtnetlink
from tests.kernel.process import COMMAND, POWERLESS, xdpkit_command
from tests.kernel.test_capture import Scene, frame, scene
from xdpkit.cli.app import execute
from xdpkit.cli.pcap import read_packets
from xdpkit.monitor import drivers

__all__ = ["scene"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp", "xdp-frags")

LINE = re.compile(
    r"\d\d:\d\d:\d\d\.\d{6}  queue \d   by_packet  (?P<action>\S+|invalid \(\d+\)) +"
    r"(?P<length>\d+) bytes  (?P<told>.*)"
)


@pytest.fixture
def here(veth: Veth, pin_root: str) -> list[str]:
    return ["-n", veth.netns, "--pin-root", pin_root, veth.name]


@contextlib.contextmanager
def capturing(here: list[str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``xdpkit capture``, from when it captures."""
    with subprocess.Popen(
        [*COMMAND, "capture", *here, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore it, and the command would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            assert running.stderr is not None
            for line in running.stderr:
                if line.startswith(b"xdpkit: capturing on "):
                    break
            else:
                raise AssertionError("it ended before it began")
            yield running
        finally:
            running.kill()


def arrived(veth: Veth) -> int:
    """Return how many frames have met a program, as the driver counts them."""
    found = drivers.read(veth.interface)
    assert found is not None
    return sum(each.value for each in found.counts if each.event == "packets")


def json_lines(text: bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_frames_are_shown_line_by_line_until_there_were_enough(
    scene: Scene, here: list[str]
) -> None:
    (before,) = scene.hook.status().programs
    with capturing(here, "--count", "3") as running:
        scene.send(frame(1), frame(42, length=100), frame(4), frame(0))
        output, messages = running.communicate()

    assert running.returncode == 0
    lines = [LINE.fullmatch(line) for line in output.decode().splitlines()]
    assert [line and line.groups() for line in lines] == [
        ("drop", "64", "0x88b5 00:00:00:00:00:00 > 00:00:00:00:00:00"),
        ("invalid (42)", "100", "0x88b5 00:00:00:00:00:00 > 00:00:00:00:00:00"),
        ("redirect", "64", "0x88b5 00:00:00:00:00:00 > 00:00:00:00:00:00"),
    ]
    assert re.fullmatch(rb"xdpkit: 3 frames captured, of [34]; 0 lost for want of room\n", messages)
    (after,) = scene.hook.status().programs
    assert after.program.tag == before.program.tag


def test_json_has_a_line_for_each_frame_and_the_totals(
    scene: Scene, here: list[str], veth: Veth
) -> None:
    with capturing(here, "-j", "--action", "drop", "--action", "tx", "--count", "2") as running:
        scene.send(frame(2), frame(1, 7), frame(3))
        output, _ = running.communicate()

    first, second, totals = json_lines(output)
    assert running.returncode == 0
    assert first["data"] == frame(1, 7).hex()
    assert (first["interface"], first["program"]) == (veth.name, "by_packet")
    assert (first["action"], first["returned"], first["length"]) == ("drop", 1, 64)
    assert (second["action"], second["returned"]) == ("tx", 3)
    assert second["time"] > first["time"] > 1_700_000_000 * 10**9
    assert totals == {"schema": 1, "totals": {"captured": 2, "seen": 2, "lost": 0}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_everything_that_was_captured(
    scene: Scene, here: list[str], veth: Veth, tmp_path: Path, number: signal.Signals
) -> None:
    (before,) = scene.hook.status().programs
    path = tmp_path / "f.pcapng"
    with capturing(here, "--pcap", str(path)) as running:
        scene.send(*[frame(1)] * 5)
        wait_until(lambda: arrived(veth) == 5)
        running.send_signal(number)
        output, messages = running.communicate()

    assert (running.returncode, output) == (0, b"")
    assert f"5 frames captured in {path}, of 5; 0 lost" in messages.decode()
    assert [each.data for each in read_packets(BytesIO(path.read_bytes()))] == [frame(1)] * 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (after,) = scene.hook.status().programs
    assert after.program.tag == before.program.tag


def test_it_ends_by_itself_after_a_time(scene: Scene, here: list[str]) -> None:
    done = xdpkit_command("capture", *here, "--duration", "100ms", "-j")

    assert done.status == 0
    assert done.json["totals"] == {"captured": 0, "seen": 0, "lost": 0}


def test_what_is_lost_is_said_with_what_helps(scene: Scene, here: list[str], veth: Veth) -> None:
    with capturing(here, "--buffer", "4K", "-j") as running:
        running.send_signal(signal.SIGSTOP)
        scene.send(*[frame(1)] * 100)
        wait_until(lambda: arrived(veth) == 100)
        running.send_signal(signal.SIGCONT)
        running.send_signal(signal.SIGINT)
        output, messages = running.communicate()

    *frames, last = json_lines(output)
    assert last["totals"]["captured"] == len(frames)
    assert last["totals"]["seen"] == 100
    assert last["totals"]["lost"] == 100 - len(frames) > 0
    assert b"lost for want of room, which --buffer gives, or --snaplen or --sample" in messages


@pytest.mark.skipif(shutil.which("tshark") is None, reason="apt-get install tshark")
def test_tshark_reads_what_goes_to_standard_output(scene: Scene, here: list[str]) -> None:
    with capturing(here, "--pcap", "-", "--count", "2") as running:
        scene.send(frame(1), frame(0))
        output, _ = running.communicate()
    shown = subprocess.run(
        ["tshark", "-r", "-", "-T", "fields", "-e", "frame.verdict.ebpf_xdp"],
        input=output,
        check=True,
        capture_output=True,
    )

    assert shown.stdout == b"1\n0\n"


def test_an_interface_that_goes_ends_it_with_an_error_behind_what_was_captured(
    scene: Scene, here: list[str], veth: Veth
) -> None:
    with capturing(here, "-j") as running:
        before = arrived(veth)
        scene.send(*[frame(1)] * 3)
        wait_until(lambda: arrived(veth) == before + 3)
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)
        output, _ = running.communicate()

    assert running.returncode == 2
    *frames, totals, last = json_lines(output)
    assert len(frames) == 3
    assert totals["totals"]["captured"] == 3
    assert last["error"]["kind"] == "UsageError"


def test_a_reader_that_goes_ends_it(scene: Scene, here: list[str]) -> None:
    (before,) = scene.hook.status().programs
    with capturing(here) as running:
        assert running.stdout is not None
        running.stdout.close()
        scene.send(frame(1))
        running.wait()

        assert running.returncode == 128 + signal.SIGPIPE
    (after,) = scene.hook.status().programs
    assert after.program.tag == before.program.tag


def test_a_second_signal_ends_it_where_nobody_reads(
    scene: Scene, here: list[str], tmp_path: Path
) -> None:
    (before,) = scene.hook.status().programs
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with capturing(here, "--pcap", str(pipe)) as running:
            scene.send(*[frame(1, length=1000)] * 1000)

            def is_ended() -> bool:
                running.send_signal(signal.SIGINT)
                return running.poll() is not None

            # Two that come at once are one, and the last one may meet Python on its way out.
            wait_until(is_ended)
            assert running.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    finally:
        os.close(reader)
    (after,) = scene.hook.status().programs
    assert after.program.tag == before.program.tag


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_it_while_it_waits_for_a_reader(
    scene: Scene, here: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    (before,) = scene.hook.status().programs
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [*COMMAND, "capture", *here, "--pcap", str(pipe)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            wait_until(lambda: "wait_for_partner" in waits_in(running.pid))
            (meanwhile,) = scene.hook.status().programs
            running.send_signal(number)
            _, messages = running.communicate()
        finally:
            running.kill()

    assert meanwhile == before
    assert b"capturing on" not in messages
    assert running.returncode in (128 + number, -number)
    assert scene.hook.status().programs == (before,)


def waits_in(pid: int) -> str:
    """Return what function of the kernel a process waits in."""
    return Path(f"/proc/{pid}/wchan").read_text()


def test_one_that_was_killed_is_in_nobodys_way(scene: Scene, here: list[str]) -> None:
    (before,) = scene.hook.status().programs
    with capturing(here) as running:
        running.kill()
        running.wait()

    done = xdpkit_command("capture", *here, "--duration", "1ms")
    assert done.status == 0
    (after,) = scene.hook.status().programs
    assert after.program.tag == before.program.tag


def test_programs_of_others_are_said_not_to_be_captured(veth: Veth, here: list[str]) -> None:
    with foreign_link(veth):
        refused = xdpkit_command("capture", *here)

    assert refused.status == 3
    assert f"capture frames of {veth.name}: What foreign" in refused.messages


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--pcap", "-", "-j"], "--pcap - and --json would both write to standard output"),
        (["--buffer", "much"], "it takes a number of bytes, or a number and a unit (K, M, G)"),
        (["--buffer", "0"], "it takes a number of bytes, or a number and a unit (K, M, G)"),
        (["--buffer", "1000G"], "the size is a power of 2"),
        (["--buffer", "9" * 5000], "it takes a number of bytes, or a number and a unit (K, M, G)"),
        (["--snaplen", "65537"], "0 to 65536 bytes"),
        (["--duration", "soon"], "it takes a number and a unit (ms, s, m, h)"),
        (["--action", "reject"], "'reject' is not one of"),
        (["--pcap", "/nowhere/f"], "No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused(
    scene: Scene,
    here: list[str],
    options: list[str],
    cause: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (before,) = scene.hook.status().programs

    assert execute(["capture", *here, *options]) == 2
    assert cause in "".join(capsys.readouterr())
    assert scene.hook.status().programs == (before,)


def test_capturing_takes_privilege(here: list[str], scene: Scene) -> None:
    refused = xdpkit_command("capture", *here, "-j", by=POWERLESS)

    assert refused.status == 7
    assert refused.json["error"]["kind"] == "MissingPrivilege"
