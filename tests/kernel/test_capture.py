# SPDX-License-Identifier: Apache-2.0
"""Frames that are captured with what was returned for them, against those that were sent.

Frames are sent by the other end of a veth pair, and say themselves what a program is to return.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import foreign_link
from tests.kernel.compiled import read
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth
from xdpkit import Hook
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.monitor import capturing
from xdpkit.monitor.capturing import Capture, Recorder
from xdpkit.monitor.pcapng import create
from xdpkit.monitor.record import Event
from xdpkit.syscalls.netns import entered

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp", "xdp-frags")

RETURNED = {
    0: "aborted",
    1: "drop",
    2: "pass",
    3: "tx",
    4: "redirect",
    5: "invalid",
    255: "invalid",
}
NUMBER = struct.Struct("=I")
AT = 16
"""Where a frame has its number, behind what it says to the program."""

many = pytest.mark.parametrize(
    "count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["few", "many"]
)


def frame(action: int, number: int = 0, *, length: int = 64) -> bytes:
    """Return a frame that says what is to be returned for it, and which one it is."""
    return (bytes(12) + b"\x88\xb5" + bytes([action, 0]) + NUMBER.pack(number)).ljust(length, b"\0")


def number_of(found: Event) -> int:
    (number,) = NUMBER.unpack_from(found.data, AT)
    return int(number)


@dataclass(frozen=True, slots=True)
class Scene:
    """A hook with a program that does what frames say, and what sends frames to it."""

    hook: Hook
    sender: socket.socket

    def send(self, *frames: bytes) -> None:
        for each in frames:
            self.sender.send(each)


@pytest.fixture
def scene(veth: Veth, pin_root: str) -> Iterator[Scene]:
    with entered(veth.peer_netns):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sender:
        sender.bind((veth.peer, 0))
        hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
        hook.add(read("counted").programs["by_packet"]).close()
        yield Scene(hook, sender)


def all_of(capture: Capture, count: int) -> list[Event]:
    """Return this many frames, and fail if more come."""
    found: list[Event] = []

    def come() -> bool:
        found.extend(capture.frames())
        return len(found) >= count

    wait_until(come, lambda: f"of {count} frames {len(found)} came")
    assert len(found) == count
    return found


# What is captured


def test_a_frame_of_each_action_is_captured_with_its_verdict(scene: Scene, veth: Veth) -> None:
    sent = [frame(action, length=60 + at) for at, action in enumerate(RETURNED)]
    with Capture(scene.hook) as capture:
        scene.send(*sent)
        found = all_of(capture, len(sent))

        assert {each.action: each.action_name for each in found} == RETURNED
        assert [each.data for each in found] == sent
        assert [each.length for each in found] == [len(each) for each in sent]
        assert {each.queue for each in found} <= set(range(4))
        assert {each.ifindex for each in found} == {veth.interface.index}
        assert {capture.program_of(each) for each in found} == {"by_packet"}
        assert list(capture.programs.values()) == ["by_packet"]
        assert capture.not_tapped == ()
        assert (capture.seen, capture.lost) == (len(sent), 0)


def test_times_are_those_of_the_sending(scene: Scene) -> None:
    with Capture(scene.hook) as capture:
        before = time.time_ns()
        scene.send(frame(1))
        (found,) = all_of(capture, 1)
        after = time.time_ns()

        # The clock may be set a little meanwhile.
        slack = 1_000_000_000
        assert capture.started - slack <= before
        assert before - slack <= capture.time_of(found) <= after + slack


def test_only_actions_that_were_asked_for_are_captured(scene: Scene) -> None:
    with Capture(scene.hook, actions={"drop", "invalid"}) as capture:
        scene.send(*map(frame, RETURNED))
        found = all_of(capture, 3)

        assert Counter(each.action for each in found) == {1: 1, 5: 1, 255: 1}
        assert capture.seen == 3


def test_a_frame_is_cut_and_its_length_is_not(scene: Scene) -> None:
    with Capture(scene.hook, snaplen=20) as capture:
        scene.send(frame(1, length=1000), frame(2, length=61))
        found = all_of(capture, 2)

        assert [(each.data, each.length) for each in found] == [
            (frame(1, length=20), 1000),
            (frame(2, length=20), 61),
        ]


def test_frames_can_be_captured_without_their_bytes(scene: Scene) -> None:
    with Capture(scene.hook, snaplen=0) as capture:
        scene.send(frame(1))
        (found,) = all_of(capture, 1)

        assert (found.data, found.length) == (b"", 64)


def test_one_in_so_many_is_captured(scene: Scene) -> None:
    with Capture(scene.hook, sample=10) as capture, on_one_cpu():
        scene.send(*[frame(1)] * 100)
        wait_until(lambda: capture.seen == 100)
        found = list(capture.frames())

        assert len(found) == 10
        assert (capture.seen, capture.lost) == (100, 0)


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """Send from one CPU: the frames are received there, too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_a_program_that_comes_meanwhile_is_captured_from(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "_LOOK_EVERY", 0.0)
    with Capture(scene.hook) as capture:
        scene.hook.replace(read("counted").programs["leaf"]).close()
        assert list(capture.frames()) == []
        scene.send(frame(1))
        (found,) = all_of(capture, 1)

        assert capture.program_of(found) == "leaf"
        assert "leaf" in capture.programs.values()


def test_programs_of_rx_queues_are_captured_from_each_under_its_name(
    scene: Scene, veth: Veth
) -> None:
    scene.hook.queues[1].add(read("counted").programs["leaf"]).close()
    with Capture(scene.hook) as capture:
        assert sorted(capture.programs.values()) == ["by_packet", "leaf"]


# What is lost, and what is not


@many
def test_nothing_is_lost_where_there_is_room_for_all(scene: Scene, count: int) -> None:
    with Capture(scene.hook, snaplen=20, buffer=1 << (count * 128).bit_length()) as capture:
        for number in range(count):
            scene.send(frame(number % 3, number))
        wait_until(lambda: capture.seen == count, lambda: f"{capture.seen} were seen")
        capture.stop()
        found = list(capture.frames())

        assert Counter(number_of(each) for each in found) == Counter(range(count))
        assert all(each.action == number_of(each) % 3 for each in found)
        assert (capture.seen, capture.lost) == (count, 0)


@many
def test_what_is_lost_is_counted_to_the_frame(scene: Scene, count: int) -> None:
    with Capture(scene.hook, buffer=64 << 10) as capture:
        scene.send(*(frame(1, number) for number in range(count)))
        wait_until(lambda: capture.seen == count, lambda: f"{capture.seen} were seen")
        capture.stop()
        found = list(capture.frames())

        assert 100 < len(found) < count
        assert capture.lost == count - len(found)
        # It is full once and for all: what was captured came first.
        assert {number_of(each) for each in found} == set(range(len(found)))


def test_what_is_read_makes_room(scene: Scene) -> None:
    with Capture(scene.hook, snaplen=20, buffer=4096) as capture:
        for number in range(500):
            scene.send(frame(1, number))
            (found,) = all_of(capture, 1)
            assert number_of(found) == number
        assert capture.lost == 0


# How it ends


def test_the_plain_program_comes_back(scene: Scene) -> None:
    (before,) = scene.hook.status().programs
    with Capture(scene.hook) as capture:
        (meanwhile,) = scene.hook.status().programs
        scene.send(frame(1))
        wait_until(lambda: capture.seen == 1)
        capture.stop()
        (after,) = scene.hook.status().programs
        scene.send(frame(1))

        assert len(list(capture.frames())) == capture.seen == 1
        capture.stop()
    assert meanwhile.program.tag != before.program.tag
    assert after.program.tag == before.program.tag
    assert after.logical_id == before.program.id


def test_without_a_program_there_is_nothing_to_capture(veth: Veth, pin_root: str) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with pytest.raises(
        RequirementUnmet, match=f"capture frames of {veth.name}: there is no program on its hook"
    ):
        Capture(hook)


def test_from_a_program_of_others_nothing_is_captured_and_the_reason_said(
    veth: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with foreign_link(veth), pytest.raises(RequirementUnmet, match=r"What foreign .* returns"):
        Capture(hook)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"actions": {"reject"}}, "there is no action 'reject'"),
        ({"actions": ()}, "no action is named"),
        ({"sample": 0}, "1 in 0 frames cannot be chosen"),
        ({"sample": "few"}, "1 in few frames cannot be chosen"),
        ({"snaplen": -200}, "0 to 65536 bytes"),
        ({"snaplen": 1.5}, "0 to 65536 bytes"),
        ({"buffer": 5000}, "the size is a power of 2"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    scene: Scene, options: dict[str, object], cause: str
) -> None:
    (before,) = scene.hook.status().programs
    with pytest.raises(UsageError, match=cause):
        Capture(scene.hook, **options)  # type: ignore[arg-type]

    assert scene.hook.status().programs == (before,)


# The file


@pytest.mark.skipif(shutil.which("tshark") is None, reason="apt-get install tshark")
def test_tshark_shows_verdicts_queues_and_comments(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "f.pcapng"
    sent = [frame(action, length=60 + at) for at, action in enumerate(RETURNED)]
    with Capture(scene.hook, snaplen=20) as capture, create(str(path)) as file:
        recorder = Recorder(file, capture, application=f"xdpkit {xdpkit.__version__}")
        scene.send(*sent)
        wait_until(lambda: capture.seen == len(sent))
        recorder.write(capture.frames())
        recorder.finish()

    rows = tshark(
        path,
        "frame.verdict.ebpf_xdp",
        "frame.comment",
        "frame.len",
        "frame.cap_len",
        "frame.interface_name",
        "frame.interface_description",
        "eth.type",
    )
    assert [row[0] for row in rows] == [str(action) for action in RETURNED]
    assert [row[1] for row in rows] == [
        "by_packet: XDP_ABORTED",
        "by_packet: XDP_DROP",
        "by_packet: XDP_PASS",
        "by_packet: XDP_TX",
        "by_packet: XDP_REDIRECT",
        "by_packet: 5, which is no action",
        "by_packet: 255, which is no action",
    ]
    assert [row[2] for row in rows] == [str(len(each)) for each in sent]
    assert {tuple(row[3:]) for row in rows} == {
        ("20", capture.interface.name, "frames as XDP programs left them", "0x88b5")
    }
    (queues,) = zip(*tshark(path, "frame.interface_queue"), strict=True)
    assert set(queues) <= {"0", "1", "2", "3"}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="apt-get install tshark")
def test_tshark_shows_where_frames_are_missing(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "f.pcapng"
    with Capture(scene.hook, buffer=4096) as capture, create(str(path)) as file:
        recorder = Recorder(file, capture)
        scene.send(*[frame(1)] * 50)
        wait_until(lambda: capture.seen == 50)
        recorder.write(capture.frames())
        scene.send(frame(2))
        wait_until(lambda: capture.seen == 51)
        recorder.write(capture.frames())
        recorder.finish()

        lost = capture.lost
    rows = tshark(path, "frame.verdict.ebpf_xdp", "frame.drop_count")
    assert lost == 50 - (len(rows) - 1) > 0
    assert rows[-1] == ["2", str(lost)]
    assert {tuple(row) for row in rows[:-1]} == {("1", "")}


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """Return fields of each frame, as tshark shows them."""
    asked = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-r", str(path), "-T", "fields", *asked],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]
