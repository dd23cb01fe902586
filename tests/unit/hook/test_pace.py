# SPDX-License-Identifier: Apache-2.0
"""What is done again and again is kept to a share of the time."""

from __future__ import annotations

import pytest

from xdpkit.hook.pace import Pace


def test_what_took_long_is_due_again_when_as_many_times_as_long_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("xdpkit.hook.pace.monotonic", lambda: now)
    pace = Pace(50)
    assert pace.is_due
    with pace.measured():
        now += 0.5
    assert not pace.is_due
    now += 24.9
    assert not pace.is_due
    now += 0.1
    assert pace.is_due
    with pace.measured():
        pass
    assert pace.is_due
