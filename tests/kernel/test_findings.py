# SPDX-License-Identifier: Apache-2.0
"""What the running kernel says of interfaces, and what it announces."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.kernel.attaching import attach_by_netlink, foreign_link
from tests.kernel.fates import TunPort, attached, returning, set_gro
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit import capabilities
from xdpkit.capabilities import Answer, Device, Precondition
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.interfaces import Watch, device_of, resolve, watch
from xdpkit.syscalls import ethtool, genetlink, netdev
from xdpkit.syscalls.ethtool import Channels
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered, nsenter
from xdpkit.uapi.bpf import XdpAction
from xdpkit.uapi.if_link import RTNLGRP_LINK
from xdpkit.uapi.netdev import XdpAct
from xdpkit.uapi.netlink import NetlinkProtocol

# A kernel that announces does so at once; the limit only ends a test that has failed anyway.
LONG = 20.0

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN

PASS = returning(XdpAction.PASS)


@pytest.fixture
def generic(netns: str) -> Iterator[NetlinkSocket]:
    """A generic netlink socket in the test's namespace."""
    with entered(netns):
        connection = NetlinkSocket(NetlinkProtocol.GENERIC)
    with connection:
        yield connection


@pytest.fixture
def family(generic: NetlinkSocket) -> genetlink.Family:
    """The netdev family."""
    found = netdev.find_family(generic)
    if found is None:
        pytest.skip("needs the netdev family, which came with Linux 6.3")
    return found


def answer(device: Device, capability: str) -> Answer:
    return device.findings[capability].answer


def condition(device: Device, name: str) -> Precondition:
    (found,) = (each for each in device.preconditions if each.name == name)
    return found


def test_a_family_that_the_kernel_has_not_is_none(generic: NetlinkSocket) -> None:
    assert genetlink.find_family(generic, "no-such-family") is None


def test_netdev_tells_of_one_device_what_it_tells_of_all(
    generic: NetlinkSocket, family: genetlink.Family, veth: Veth
) -> None:
    index = veth.interface.index
    devices = netdev.dump_devices(generic, family)

    assert netdev.get_device(generic, family, index) in devices
    assert [device.index for device in devices] == sorted(device.index for device in devices)


def test_netdev_tells_nothing_of_a_device_that_is_not_there(
    generic: NetlinkSocket, family: genetlink.Family
) -> None:
    assert netdev.get_device(generic, family, 12345) is None


def test_a_veth_has_native_xdp(
    generic: NetlinkSocket, family: genetlink.Family, veth: Veth
) -> None:
    said = netdev.get_device(generic, family, veth.interface.index)

    assert said is not None
    assert XdpAct.BASIC | XdpAct.REDIRECT in said.features


def test_a_group_that_does_not_exist_cannot_be_joined(netns: str) -> None:
    with entered(netns), NetlinkSocket() as connection:
        with pytest.raises(KernelRefused):
            connection.join(100_000)
        connection.join(RTNLGRP_LINK)
        assert connection.notifications() == ()


def test_channels_are_read_where_a_driver_has_them(netns: str) -> None:
    veth = make_veth(netns, queues=4)
    with entered(netns), NetlinkSocket() as connection:
        # Before Linux 5.14 a veth does not say.
        assert ethtool.channels_of(connection, veth.name) in (Channels(4, 4), None)
        assert ethtool.channels_of(connection, "lo") is None
        assert ethtool.channels_of(connection, "no-such-device") is None


def test_offloads_are_read_by_their_kernel_names(veth: Veth) -> None:
    with entered(veth.netns), NetlinkSocket() as connection:
        before = ethtool.offloads_of(connection, veth.name, "rx-gro", "no-such-offload")
        set_gro(veth.netns, veth.name, on=not before["rx-gro"].active)
        after = ethtool.offloads_of(connection, veth.name, "rx-gro")
        gone = ethtool.offloads_of(connection, "no-such-device", "rx-gro")

    assert list(before) == ["rx-gro"]
    assert before["rx-gro"].changeable
    assert after["rx-gro"].active is not before["rx-gro"].active
    assert gone == {}


def test_the_names_of_offloads_are_asked_for_until_an_interface_tells_them(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ethtool, "_names", {})
    with entered(veth.netns), NetlinkSocket() as connection:
        assert ethtool.offloads_of(connection, "no-such-device", "rx-gro") == {}
        first = ethtool.offloads_of(connection, veth.name, "rx-gro", "rx-lro")
        assert set(first) == {"rx-gro", "rx-lro"}
        assert ethtool.offloads_of(connection, veth.name, "rx-gro", "rx-lro") == first


def test_what_changes_between_two_looks_is_seen(veth: Veth) -> None:
    def seen() -> tuple[int, Answer, Answer]:
        device = device_of(veth.name, netns=veth.netns)
        return device.mtu, answer(device, "redirect-target"), condition(device, "mtu").answer

    set_gro(veth.netns, veth.peer, on=False)
    assert seen() == (1500, NO, YES)
    set_gro(veth.netns, veth.peer, on=True)
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, mtu=1400)
        connection.link("set", ifname=veth.peer, mtu=9000)
    assert seen() == (1400, YES, NO)


def test_a_device_is_described(veth: Veth) -> None:
    device = device_of(veth.name, netns=veth.netns)

    assert (device.name, device.driver, device.kind) == (veth.name, "veth", "veth")
    assert (device.mtu, device.rx_queues, device.tx_queues) == (1500, 4, 4)
    assert (device.source, device.mode) == ("live", "native")
    assert device.findings["rx-queues"].limit == 4
    assert device_of(veth.interface.index, netns=veth.netns) == device


def test_a_device_survives_being_written_and_read(veth: Veth) -> None:
    device = device_of(veth.name, netns=veth.netns)

    assert Device.from_dict(device.to_dict()) == device


def test_every_finding_is_a_capability(veth: Veth) -> None:
    for mode in ("native", "generic", "offload"):
        device = device_of(veth.name, mode=mode, netns=veth.netns)
        assert set(device.findings) <= set(capabilities.CAPABILITIES)


def test_an_interface_that_is_not_there_is_a_mistake_of_the_caller(netns: str) -> None:
    with pytest.raises(UsageError, match="no such interface"):
        device_of("no-such-device", netns=netns)
    with pytest.raises(UsageError, match="the modes are"):
        device_of("lo", mode="fast", netns=netns)


def put_right(veth: Veth, name: str, *, by: str = "") -> str:
    """Do what the remedy for a precondition says, which then holds; return its words."""
    before = condition(device_of(veth.name, netns=veth.netns), name)
    words, _, command = str(before.remedy).partition(": ")
    subprocess.run(f"{by}{command}", shell=True, check=True)
    after = condition(device_of(veth.name, netns=veth.netns), name)
    assert (before.answer, after.answer) == (NO, YES)
    return words


def test_the_remedies_for_a_veths_peer_are_commands_that_work(veth: Veth) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.peer, mtu=9000)
    assert put_right(veth, "mtu") == "lower the peer's MTU"

    subprocess.run(f"{nsenter(veth.netns)}ethtool -L {veth.name} rx 2", shell=True, check=True)
    assert put_right(veth, "queues") == "reduce the peer's queues"


def test_the_remedy_for_a_peer_elsewhere_is_a_command_for_its_namespace(netns: str) -> None:
    with namespace() as elsewhere:
        veth = make_veth(netns, elsewhere)
        with rtnetlink(elsewhere) as connection:
            connection.link("set", ifname=veth.peer, mtu=9000)

        words = put_right(veth, "mtu", by=nsenter(elsewhere))

    assert words == "lower the peer's MTU, in its namespace"


def test_a_peer_in_another_namespace_is_seen(netns: str) -> None:
    with namespace() as elsewhere:
        veth = make_veth(netns, elsewhere)
        with rtnetlink(elsewhere) as connection:
            connection.link("set", ifname=veth.peer, mtu=9000)
        without = device_of(veth.name, netns=netns)
        with attached(PASS, veth.peer, elsewhere):
            with_program = device_of(veth.name, netns=netns)

    assert condition(without, "mtu").answer is NO
    assert f"{veth.peer} in another namespace" in condition(without, "peer").evidence
    assert answer(without, "action-tx") is NO
    # Whether the peer has GRO is seen by NDO_XMIT only, so before Linux 6.3 not at all.
    assert answer(without, "redirect-target") in (NO, UNKNOWN)
    assert [answer(with_program, "action-tx"), answer(with_program, "redirect-target")] == [
        YES,
        YES,
    ]


def test_a_target_that_is_down_is_not_known_to_work(veth: Veth) -> None:
    with attached(PASS, veth.peer, veth.netns):
        for end in (veth.peer, veth.name):
            with rtnetlink(veth.netns) as connection:
                connection.link("set", ifname=end, state="down")
            assert answer(device_of(veth.name, netns=veth.netns), "redirect-target") is UNKNOWN
            with rtnetlink(veth.netns) as connection:
                connection.link("set", ifname=end, state="up")
        assert answer(device_of(veth.name, netns=veth.netns), "redirect-target") is YES


def test_a_foreign_program_is_seen(veth: Veth) -> None:
    attach_by_netlink(veth)
    found = [
        each
        for each in device_of(veth.name, netns=veth.netns).preconditions
        if each.name == "existing-program"
    ]

    assert {(each.modes, each.answer) for each in found} == {
        (("native",), YES),
        (("generic",), NO),
    }
    assert all("foreign" in each.evidence for each in found)


def test_a_dispatcher_of_another_tool_is_recognised(veth: Veth) -> None:
    with foreign_link(veth, name="xdp_dispatcher"):
        device = device_of(veth.name, netns=veth.netns)

    evidence = [each.evidence for each in device.preconditions if each.name == "existing-program"]
    assert evidence
    assert all("libxdp" in each for each in evidence)


@pytest.fixture
def watched(veth: Veth) -> Iterator[Watch]:
    """A watch on a veth."""
    with watch(veth.name, netns=veth.netns) as watching:
        yield watching


def test_a_program_on_the_peer_is_announced(veth: Veth, watched: Watch) -> None:
    assert answer(watched.device, "redirect-target") is NO
    with attached(PASS, veth.peer, veth.netns):
        gained = watched.wait(LONG)
        assert gained is not None
        assert answer(gained, "redirect-target") is YES
        assert answer(gained, "action-tx") is YES
    lost = watched.wait(LONG)

    assert lost is not None
    assert answer(lost, "redirect-target") is NO


def test_gro_on_the_peer_is_announced(veth: Veth, watched: Watch) -> None:
    set_gro(veth.netns, veth.peer, on=True)
    if answer(device_of(veth.name, netns=veth.netns), "redirect-target") is NO:
        pytest.skip("needs a veth that receives frames by GRO, which came with Linux 5.14")
    gained = watched.wait(LONG)

    assert gained is not None
    assert answer(gained, "redirect-target") is YES
    assert answer(gained, "action-tx") is NO


@pytest.mark.parametrize("end", ["name", "peer"])
def test_an_mtu_is_announced(veth: Veth, watched: Watch, end: str) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=getattr(veth, end), mtu=9000)
    changed = watched.wait(LONG)

    assert changed is not None
    assert (changed.mtu, condition(changed, "mtu").answer) in ((9000, YES), (1500, NO))


def test_the_mtu_of_a_peer_in_another_namespace_is_announced(netns: str) -> None:
    with namespace() as elsewhere:
        veth = make_veth(netns, elsewhere)
        with watch(veth.name, netns=netns) as watched:
            with rtnetlink(elsewhere) as connection:
                connection.link("set", ifname=veth.peer, mtu=9000)
            changed = watched.wait(LONG)

    assert changed is not None
    assert condition(changed, "mtu").answer is NO


def test_what_changes_no_finding_is_not_announced(veth: Veth, watched: Watch) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("add", ifname="other", kind="bridge")
        index = resolve("other", netns=veth.netns).index
        connection.link("set", index=index, state="up")
        # The announcement behind those of the bridge is the first that matters.
        connection.link("set", ifname=veth.name, mtu=1400)
    changed = watched.wait(LONG)

    assert changed is not None
    assert changed.mtu == 1400


def test_a_watch_ends_when_the_interface_goes(netns: str) -> None:
    with (
        contextlib.closing(TunPort("tap0", netns, tap=True)) as port,
        watch("tap0", netns=netns) as watched,
    ):
        port.close()
        # It may be seen going down first.
        assert [device.name for device in watched] in ([], ["tap0"])
        assert watched.wait() is None


def test_a_watch_can_be_stopped_by_another_thread(watched: Watch) -> None:
    stopper = threading.Thread(target=watched.stop)
    stopper.start()
    try:
        assert list(watched) == []
    finally:
        stopper.join()


def test_waiting_has_an_end(watched: Watch) -> None:
    assert watched.wait(0) is None


def test_an_interface_that_is_not_there_cannot_be_watched(netns: str) -> None:
    with pytest.raises(UsageError):
        watch("no-such-device", netns=netns)
    with pytest.raises(UsageError):
        watch("lo", mode="fast", netns=netns)
