# SPDX-License-Identifier: Apache-2.0
"""What a veth's driver has counted, under standard names, against what was sent."""

from __future__ import annotations

import errno

import pytest

from tests.kernel.fates import attached, redirecting, returning
from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, make_veth
from xdpkit.errors import KernelRefused
from xdpkit.interfaces import resolve
from xdpkit.monitor import drivers
from xdpkit.syscalls import ethtool
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import XdpAction

QUEUES = 4


def counts_of(veth: Veth) -> dict[tuple[str, int | None], int]:
    """Return what the driver has counted, without zeros."""
    found = drivers.read(veth.interface)
    assert found is not None
    return {(each.event, each.queue): each.value for each in found.counts if each.value}


@pytest.mark.parametrize("action", [XdpAction.DROP, XdpAction.ABORTED, 42])
def test_what_is_dropped_is_counted_by_queue(veth: Veth, action: int) -> None:
    with attached(returning(action), veth.name, veth.netns), line_into(veth) as line:
        for queue in range(QUEUES):
            line.send(queue, queue + 1)
        wait_until(lambda: counts_of(veth).get(("drop", QUEUES - 1)) == QUEUES)

        counts = counts_of(veth)

    expected = {queue: queue + 1 for queue in range(QUEUES)}
    assert {queue: counts["drop", queue] for queue in range(QUEUES)} == expected
    assert {queue: counts["packets", queue] for queue in range(QUEUES)} == expected
    assert counts["bytes", 3] == 4 * counts["bytes", 0] > 0


def test_names_and_raw_values_are_kept_beside(veth: Veth) -> None:
    found = drivers.read(veth.interface, shown_netns="blue")

    assert found is not None
    assert found.driver == "veth"
    assert found.where.title == f"blue/{veth.name}"
    assert "rx_queue_0_xdp_packets" in found.raw
    assert "peer_ifindex" not in found.raw


def test_an_interface_without_a_driver_has_no_statistics(netns: str) -> None:
    assert drivers.read(resolve("lo", netns=netns)) is None


def test_statistics_whose_number_changes_meanwhile_are_read_again(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process changes the number of queues between the questions."""
    real = ethtool._count
    guesses = [3, 100_000]

    def changing(connection: NetlinkSocket, name: str, string_set: int) -> int | None:
        return guesses.pop() if guesses else real(connection, name, string_set)

    monkeypatch.setattr(ethtool, "_count", changing)
    with entered(veth.netns), NetlinkSocket() as connection:
        said = ethtool.statistics_of(connection, veth.name)

    assert guesses == []
    assert dict(said)["rx_queue_3_xdp_drops"] == 0


def test_statistics_whose_number_never_holds_still_are_none(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ethtool, "_count", lambda *asked: 3)

    with entered(veth.netns), NetlinkSocket() as connection:
        assert ethtool.statistics_of(connection, veth.name) == ()


def test_a_driver_that_refuses_is_said(veth: Veth, monkeypatch: pytest.MonkeyPatch) -> None:
    interface = veth.interface

    def refuse(*asked: object) -> bool:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(ethtool, "_ioctl", refuse)
    with pytest.raises(
        KernelRefused, match=f"read the statistics of {veth.name}: Input/output error"
    ):
        drivers.read(interface)


def test_frames_redirected_to_an_interface_are_its_xmit(netns: str) -> None:
    source, target = make_veth(netns), make_veth(netns)
    with (
        # A veth takes redirected frames while its peer has a program.
        attached(returning(XdpAction.DROP), target.peer, netns),
        attached(redirecting(target.interface.index), source.name, netns),
        line_into(source) as line,
    ):
        line.send(0, 5)
        wait_until(lambda: sent_to(target) == 5)

        assert counts_of(source)["redirect", 0] == 5


def sent_to(veth: Veth) -> int:
    return sum(value for (event, _), value in counts_of(veth).items() if event == "xmit")
