# SPDX-License-Identifier: Apache-2.0
"""Every key that the monitoring commands print is in docs/json.md, in the command's own section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.snapshots import failing
from tests.unit.monitor.snapshots import INSTALLED, where
from xdpkit.monitor.doctor import Complaint, Diagnosis, OnHook, Severity
from xdpkit.monitor.events import Suppressed
from xdpkit.monitor.model import Reason, Target
from xdpkit.monitor.rates import round_to_dict
from xdpkit.monitor.record import Event, Kind
from xdpkit.monitor.report import Report
from xdpkit.monitor.words import Why

DOCS = Path(__file__).parents[3] / "docs"

# Their keys are names of other things, or those of another section.
_NOT_OURS = {"labels", "programs", "raw", "attach_failures", "returned"}

EVENT = Event(
    time=1,
    kind=Kind.FRAME,
    cpu=0,
    netns=4026531840,
    ifindex=2,
    program=40,
    program_name="firewall",
    action=42,
)


def section(page: str, title: str) -> str:
    """Return what a page says under a heading."""
    _, _, rest = (DOCS / page).read_text().partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def keys(data: Any) -> Iterator[str]:
    """Yield the keys of a document."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            if key not in _NOT_OURS:
                yield from keys(value)
    if isinstance(data, list):
        for each in data:
            yield from keys(each)


def documented(text: str) -> set[str]:
    """Return the words that are set as code."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]*)`", text))))


def diagnosis() -> Diagnosis:
    complaint = Complaint(Severity.ERROR, "invalid-action", "packets were dropped")
    on_hook = OnHook("eth0", "native", "firewall", 40, None, "xdpkit", None, ())
    return Diagnosis(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        attached=(on_hook,),
        idle=(),
        complaints=(complaint,),
        looked_at=(),
        unseen=(),
    )


REPORT = Report(
    event=EVENT,
    time=1,
    where=where(),
    program="firewall",
    program_id=40,
    reason=Reason.INVALID,
    target=Target("devmap", "eth1", 3, 9, 1),
    why=Why("42 is no action"),
)


@pytest.mark.parametrize(
    ("page", "title", "data"),
    [
        ("json.md", "monitor", {**INSTALLED.to_dict(), "removed": True}),
        ("json.md", "monitor", {"time": "", **round_to_dict(failing(3), {})}),
        ("json.md", "events", {"type": "event", **REPORT.to_dict()}),
        ("json.md", "events", {"type": "suppressed", **Suppressed(0, 0).to_dict()}),
        ("doctor.md", "JSON", diagnosis().to_dict()),
    ],
)
def test_each_key_is_documented(page: str, title: str, data: dict[str, object]) -> None:
    found = set(keys(data))
    assert len(found) > 1
    assert found - documented(section(page, title)) == set()
