# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit monitor`` says of what it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.cli.commands import run
from tests.unit.monitor.snapshots import INSTALLED, snapshot
from xdpkit import monitor
from xdpkit.monitor.model import Installed, Snapshot


def test_what_there_is_to_say_about_the_resident_programs_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def install(**_: Any) -> Installed:
        return replace(INSTALLED, notes=("They end with the container.", "And so on."))

    monkeypatch.setattr(monitor, "install", install, raising=False)
    done = run("monitor", "install")
    assert done.messages == "xdpkit: They end with the container.\nxdpkit: And so on.\n"
    assert done.output.startswith("counted on the whole machine: ")
    assert run("monitor", "install", "-j").json["notes"] == [
        "They end with the container.",
        "And so on.",
    ]


def test_counters_that_cannot_be_read_are_not_taken_for_missing_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take(**_: Any) -> Snapshot:
        note = "What goes wrong cannot be read: it takes CAP_BPF."
        return snapshot(installed=None, unread="it takes CAP_BPF", notes=(note,))

    monkeypatch.setattr(monitor, "take", take, raising=False)
    done = run("monitor", "show", "--count", 2, "--interval", "0.1")
    assert done.messages == (
        "xdpkit: What goes wrong cannot be read: it takes CAP_BPF.\n"
        "xdpkit: no interface has an XDP program, or packets that a driver counts for XDP\n"
    )
