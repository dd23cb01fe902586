# SPDX-License-Identifier: Apache-2.0
"""What is said about the frames of a capture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import cast

import pytest

from tests.unit.cli.reports import INTERFACE
from xdpkit.monitor.capturing import Capture, Recorder, verdict
from xdpkit.monitor.record import Event, Kind


@dataclass(frozen=True, slots=True)
class Made:
    """As much of a capture as a recorder needs."""

    program: str
    interface = INTERFACE
    sample = 1
    snaplen = 64
    lost = 0

    def program_of(self, _: Event) -> str:
        return self.program

    def time_of(self, frame: Event) -> int:
        return frame.time


def frame(action: int) -> Event:
    return Event(
        time=1,
        kind=Kind.FRAME,
        cpu=0,
        netns=4026531840,
        ifindex=2,
        program=40,
        program_name="firewall",
        action=action,
    )


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (1, "XDP_DROP"),
        (5, "5, which is no action"),
        (0xFFFFFFFF, "4294967295 (-1), which is no action"),
    ],
)
def test_a_number_that_was_negative_is_told_as_both(action: int, said: str) -> None:
    assert verdict(frame(action)) == said


@pytest.mark.parametrize(
    ("name", "said"), [("b\x1b[2J\n", "b\\x1b[2J\\n"), ("naïve\x07", "naïve\\x07")]
)
def test_of_a_name_only_what_a_reader_might_obey_is_escaped(name: str, said: str) -> None:
    file = io.BytesIO()
    recorder = Recorder(file, cast(Capture, Made(name)))
    recorder.write([frame(1)])
    recorder.flush()
    assert f"{said}: XDP_DROP".encode() in file.getvalue()
