# SPDX-License-Identifier: Apache-2.0
"""Each packet that is lost is counted once, where it was lost and under the reason for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.failing import CASES, Counts, Failure, Scene, scene, title
from tests.kernel.killing import wait_until
from tests.kernel.net import namespace
from tests.kernel.process import shipped
from xdpkit import monitor
from xdpkit.monitor.model import Installed, Snapshot, Tracepoints
from xdpkit.monitor.samples import samples
from xdpkit.monitor.words import why_exception, why_redirect, why_transmit

# The resident programs count for the whole machine, and have so many slots for it.
pytestmark = [pytest.mark.needs("live-frames", "bpf-link-xdp"), pytest.mark.alone]

PACKETS = 500


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """The resident programs; they count until the last test here."""
    shipped("monitor.o")
    if monitor.installed() is not None:
        pytest.skip("this machine counts errors itself: xdpkit monitor remove")
    yield monitor.install(transmit=True)
    monitor.remove()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A network namespace for all of them: each makes its own interfaces in it."""
    with namespace() as name:
        yield name


def counted(scene: Scene, installed: Installed) -> Counts:
    """Return what has been counted of a scene, without what is 0."""
    found = monitor.read(netns=scene.netns)
    assert found is not None
    snapshot = Snapshot(taken_at=0, installed=installed, tracepoints=found)
    return {
        (sample.metric, sample.labels): sample.value
        for sample in samples(snapshot)
        if sample.value and scene.owns(sample.labelled)
    }


def explained(scene: Scene, found: Tracepoints) -> set[str]:
    """Return what is said about what has been counted of a scene."""
    words = {
        str(why_exception(each.action, each.reason, each.returned))
        for each in found.errors
        if scene.has(each.where.interface)
    }
    words |= {
        str(why_redirect(each.error, each.target.kind))
        for each in found.redirect_errors
        if scene.has(each.where.interface)
    }
    return words | {
        str(why_transmit(each.error))
        for each in found.transmits
        if each.dropped and scene.has(each.where.interface)
    }


def lose(failure: Failure, mode: str, place: str, installed: Installed, packets: int) -> None:
    """Lose packets, and find each of them counted once, and explained."""
    with scene(place, mode) as staged:
        expected = failure.stage(staged)
        send = staged.send_by_socket if failure.by_socket else staged.send
        met = send(packets, failure.size)
        # Unless the machine is so busy that the ring of the veth runs over, that is all of them.
        assert met > packets * 0.9
        wait_until(lambda: staged.met() == met, lambda: f"{staged.met()} of {met} were received")

        def should_be() -> Counts:
            counts = {**staged.sending(), **expected(met)}
            return {series: number for series, number in counts.items() if number}

        # What is queued for another CPU is counted when that takes it.
        wait_until(
            lambda: counted(staged, installed) == should_be(),
            lambda: _difference(should_be(), counted(staged, installed)),
        )
        found = monitor.read(netns=place)
        assert found is not None
        said = explained(staged, found)
        if failure.words:
            assert any(failure.words in each for each in said), said
        else:
            assert not said


def _difference(expected: Counts, found: Counts) -> str:
    lines = [
        f"{metric.name}{labels}: {found.get((metric, labels), 0)},"
        f" not {expected.get((metric, labels), 0)}"
        for metric, labels in expected.keys() | found.keys()
        if expected.get((metric, labels)) != found.get((metric, labels))
    ]
    return "\n".join(["counted:", *sorted(lines)])


@pytest.mark.parametrize(("failure", "mode"), CASES, ids=title)
def test_each_lost_packet_is_counted_once_under_its_labels(
    failure: Failure, mode: str, place: str, installed: Installed
) -> None:
    lose(failure, mode, place, installed, PACKETS)
