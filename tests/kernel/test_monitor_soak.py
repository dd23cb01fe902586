# SPDX-License-Identifier: Apache-2.0
"""Ten million packets lost in each way, and none of them miscounted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.failing import CASES, Failure, title
from tests.kernel.process import shipped
from tests.kernel.test_monitor_counts import lose, place
from xdpkit import monitor
from xdpkit.monitor.model import Installed

__all__ = ["place"]

pytestmark = [pytest.mark.soak, pytest.mark.needs("live-frames", "bpf-link-xdp")]

PACKETS = 10_000_000


@pytest.fixture
def installed() -> Iterator[Installed]:
    """The resident programs, anew for each test: in this time much else goes wrong on a machine."""
    shipped("monitor.o")
    if monitor.installed() is not None:
        pytest.skip("this machine counts errors itself: xdpkit monitor remove")
    yield monitor.install(transmit=True)
    monitor.remove()


@pytest.mark.parametrize(("failure", "mode"), CASES, ids=title)
def test_ten_million_lost_packets_are_counted_once_under_their_labels(
    failure: Failure, mode: str, place: str, installed: Installed
) -> None:
    lose(failure, mode, place, installed, PACKETS)
