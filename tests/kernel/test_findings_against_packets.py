# SPDX-License-Identifier: Apache-2.0
"""Findings against what happens to real packets: a yes that is none, or a no that is none, fails.

Programs are attached without negotiation. ``dummy`` is a module that few test kernels have; lo
stands for the interfaces that have generic mode only.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.kernel import fates
from tests.kernel.fates import (
    SENT,
    Lab,
    adjusting,
    attached,
    bridge_lab,
    ethertype,
    frame,
    lo_lab,
    marking_frags,
    redirecting,
    redirecting_by,
    returning,
    sending_back,
    set_gro,
    tap_lab,
    veth_lab,
    writing,
)
from tests.kernel.net import make_veth, rtnetlink
from xdpkit.capabilities import Answer, Device
from xdpkit.errors import KernelRefused
from xdpkit.interfaces import device_of, resolve
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import MapType, XdpAction

MakeLab = Callable[[str], AbstractContextManager[Lab]]

LABS: dict[str, MakeLab] = {
    "veth": veth_lab,
    "veth, GRO on its peer": functools.partial(veth_lab, gro=True),
    "veth, program on its peer": functools.partial(veth_lab, program=True),
    "tap": tap_lab,
    "bridge": bridge_lab,
    "lo": lo_lab,
}
TARGETS: dict[str, MakeLab] = {
    "veth": veth_lab,
    "veth, GRO on its peer": functools.partial(veth_lab, gro=True),
    "veth, program on its peer": functools.partial(veth_lab, program=True),
}

_GROWN = 10


def _arrives_unchanged(seen: bytes | None) -> bool:
    return seen == frame()


# Capability: the program that needs it, and what becomes of the frame where it is there.
TRIALS: dict[str, tuple[bytes, Callable[[bytes | None], bool]]] = {
    "action-aborted": (returning(XdpAction.ABORTED), lambda seen: seen is None),
    "action-drop": (returning(XdpAction.DROP), lambda seen: seen is None),
    "action-pass": (returning(XdpAction.PASS), _arrives_unchanged),
    "packet-write": (writing(20, 0xEE), lambda seen: seen is not None and seen[20] == 0xEE),
    "adjust-head": (adjusting("xdp_adjust_head", -128, 128), _arrives_unchanged),
    "adjust-meta": (adjusting("xdp_adjust_meta", -8), _arrives_unchanged),
    "adjust-tail-shrink": (
        adjusting("xdp_adjust_tail", -_GROWN),
        lambda seen: seen == frame()[:-_GROWN],
    ),
    "adjust-tail-grow": (
        adjusting("xdp_adjust_tail", _GROWN),
        lambda seen: seen is not None and seen[: len(frame())] == frame() and len(seen) == 110,
    ),
}

labs = pytest.mark.parametrize("lab", LABS, indirect=True)
modes = pytest.mark.parametrize("mode", ["native", "generic"])


@pytest.fixture
def lab(request: pytest.FixtureRequest, netns: str) -> Iterator[Lab]:
    """A place of the parameter's kind."""
    with LABS[request.param](netns) as made:
        yield made


def found(lab: Lab, mode: str) -> Device:
    return device_of(lab.name, mode=mode, netns=lab.netns)


@contextlib.contextmanager
def attached_if_possible(lab: Lab, code: bytes, mode: str) -> Iterator[bool]:
    """Attach a program; yield whether the kernel took it."""
    with contextlib.ExitStack() as resources:
        try:
            resources.enter_context(attached(code, lab.name, lab.netns, mode))
        except KernelRefused:
            yield False
            return
        yield True


def require_agreement(device: Device, capability: str, *, happened: bool) -> None:
    finding = device.findings[capability]
    assert finding.answer is (Answer.YES if happened else Answer.NO), finding


@labs
@modes
@pytest.mark.parametrize("capability", TRIALS)
def test_a_program_does_what_was_found_to_be_possible(lab: Lab, mode: str, capability: str) -> None:
    code, is_as_meant = TRIALS[capability]
    device = found(lab, mode)
    with attached_if_possible(lab, code, mode) as is_attached:
        happened = is_attached and is_as_meant(lab.fate(frame(), lab.inside, patient=False))

    require_agreement(device, capability, happened=happened)


@labs
@modes
def test_a_frame_goes_back_where_xdp_tx_was_found(lab: Lab, mode: str) -> None:
    device = found(lab, mode)
    expected = device.findings["action-tx"].answer is Answer.YES
    # What lo sends it receives, so there the frame passes at its second turn.
    at = lab.inside if lab.name == "lo" else lab.outside
    with attached_if_possible(lab, sending_back(), mode) as is_attached:
        seen = lab.fate(frame(), at, patient=expected) if is_attached else None

    require_agreement(device, "action-tx", happened=seen is not None and ethertype(seen) == SENT)


@labs
@modes
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("by", ["redirect-ifindex", "redirect-devmap"])
def test_a_frame_gets_to_a_target_where_both_ends_were_found_able(
    lab: Lab, mode: str, target: str, by: str
) -> None:
    device = found(lab, mode)
    with TARGETS[target](lab.netns) as other:
        # In generic mode the stack transmits, on whatever interface.
        able = mode == "generic" or (
            device_of(other.name, netns=lab.netns).findings["redirect-target"].answer is Answer.YES
        )
        expected = able and device.findings[by].answer is Answer.YES
        with contextlib.ExitStack() as resources:
            index = resolve(other.name, netns=lab.netns).index
            code = redirecting(index)
            if by == "redirect-devmap":
                targets = resources.enter_context(one_entry(MapType.DEVMAP, index, lab.netns))
                code = redirecting_by(targets)
            is_attached = resources.enter_context(attached_if_possible(lab, code, mode))
            seen = lab.fate(frame(), other.outside, patient=expected) if is_attached else None

    assert (seen == frame()) is expected
    if not is_attached:
        require_agreement(device, "action-redirect", happened=False)


@labs
@modes
def test_a_frame_gets_to_another_cpu_where_cpumap_was_found(lab: Lab, mode: str) -> None:
    device = found(lab, mode)
    expected = device.findings["redirect-cpumap"].answer is Answer.YES
    with (
        one_entry(MapType.CPUMAP, 192, lab.netns) as cpus,
        attached_if_possible(lab, redirecting_by(cpus), mode) as is_attached,
    ):
        seen = lab.fate(frame(), lab.inside, patient=expected) if is_attached else None

    require_agreement(device, "redirect-cpumap", happened=seen == frame())


@contextlib.contextmanager
def one_entry(kind: MapType, value: int, netns: str) -> Iterator[int]:
    """A redirect map whose first entry has a value; yield its descriptor."""
    new = NewMap(kind, key_size=4, value_size=4, max_entries=1)
    with bpf.map_create(new, what="create a redirect map") as made:
        with entered(netns):
            bpf.map_update(made.fileno(), bytes(4), struct.pack("=I", value))
        yield made.fileno()


@labs
@modes
def test_a_program_can_be_attached_in_the_modes_that_were_found(lab: Lab, mode: str) -> None:
    device = found(lab, mode)
    with attached_if_possible(lab, returning(XdpAction.PASS), mode) as is_attached:
        pass

    require_agreement(device, f"mode-{mode}", happened=is_attached)


def test_a_tun_device_has_generic_mode_only(netns: str) -> None:
    with contextlib.closing(fates.TunPort("tun0", netns, tap=False)):
        device = device_of("tun0", netns=netns)
        assert device.findings["mode-native"].answer is Answer.NO
        with (
            pytest.raises(KernelRefused),
            attached(returning(XdpAction.PASS), "tun0", netns, "native"),
        ):
            pass
        with attached(returning(XdpAction.PASS), "tun0", netns, "generic"):
            pass


@pytest.mark.needs("xdp-frags")
def test_on_a_veth_packets_come_in_several_buffers(netns: str) -> None:
    with veth_lab(netns, mtu=9000) as lab:
        device = found(lab, "native")
        with attached(marking_frags(), lab.name, netns, frags=True):
            seen = lab.fate(frame(size=9000), lab.inside, patient=True)

    assert seen is not None
    assert len(seen) == 9000
    require_agreement(device, "frags", happened=ethertype(seen) == SENT)


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_program_with_frags_gets_packets_of_any_size(netns: str, kind: str, mode: str) -> None:
    make = veth_lab if kind == "veth" else tap_lab
    with make(netns, mtu=9000) as lab:
        device = found(lab, mode)
        with attached(marking_frags(), lab.name, netns, mode, frags=True):
            seen = lab.fate(frame(size=9000), lab.inside, patient=True)

    require_agreement(device, "frags", happened=seen is not None and len(seen) == 9000)


@pytest.mark.parametrize("size", [3506, 3507])
@pytest.mark.parametrize("frags", [False, pytest.param(True, marks=pytest.mark.needs("xdp-frags"))])
def test_the_mtu_of_a_veths_peer_admits_what_was_found(netns: str, size: int, frags: bool) -> None:
    veth = make_veth(netns)
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=veth.peer, mtu=size)
    (mtu,) = (
        each for each in device_of(veth.name, netns=netns).preconditions if each.name == "mtu"
    )
    try:
        with attached(returning(XdpAction.PASS), veth.name, netns, frags=frags):
            happened = True
    except KernelRefused:
        happened = False

    if mtu.answer is Answer.UNKNOWN:
        pytest.skip("the limit is known for x86-64 with 4 KiB pages")
    assert happened is (mtu.answer is Answer.YES or frags)


def test_generic_mode_takes_any_mtu(netns: str) -> None:
    with veth_lab(netns, mtu=9000) as lab:
        assert found(lab, "generic").findings["mtu"].answer is Answer.YES
        with attached(returning(XdpAction.PASS), lab.name, netns, "generic"):
            assert lab.fate(frame(size=9000), lab.inside, patient=True) == frame(size=9000)


@pytest.mark.parametrize(("mine", "theirs"), [(1, 2), (2, 1), (2, 2)])
def test_the_queues_of_a_veth_admit_what_was_found(netns: str, mine: int, theirs: int) -> None:
    with rtnetlink(netns) as connection:
        connection.link(
            "add",
            ifname="few",
            kind="veth",
            num_rx_queues=mine,
            num_tx_queues=1,
            peer={"ifname": "many", "num_rx_queues": 1, "num_tx_queues": theirs},
        )
    device = device_of("few", netns=netns)
    (queues,) = (each for each in device.preconditions if each.name == "queues")
    try:
        with attached(returning(XdpAction.PASS), "few", netns):
            happened = True
    except KernelRefused:
        happened = False

    assert queues.answer is (Answer.YES if happened else Answer.NO)
    assert device.findings["mode-native"].answer is Answer.YES or not happened


def test_a_target_is_lost_and_found_with_its_peers_gro(netns: str) -> None:
    with veth_lab(netns) as lab, veth_lab(netns, gro=True) as other:
        assert other.veth is not None
        code = redirecting(resolve(other.name, netns=netns).index)
        for on in (True, False, True):
            set_gro(netns, other.veth.peer, on=on)
            target = device_of(other.name, netns=netns)
            with attached(code, lab.name, netns):
                seen = lab.fate(frame(), other.outside, patient=on)

            require_agreement(target, "redirect-target", happened=seen is not None)
