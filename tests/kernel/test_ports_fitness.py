# SPDX-License-Identifier: Apache-2.0
"""What is found of an interface as a port, against what becomes of frames that are sent there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.kernel.fates import (
    BYTEORDER,
    PASS,
    PacketPort,
    TunPort,
    attached,
    frame,
    redirecting,
    set_gro,
    veth_lab,
)
from tests.kernel.joined import Joined, joined, needs_gro, offloads, set_link
from tests.kernel.net import Veth, make_veth, namespace
from xdpkit.capabilities import Answer
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.interfaces import resolve
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.negotiation import Outcome, Policy, Verdict
from xdpkit.ports import fitness, peers
from xdpkit.syscalls import bpf
from xdpkit.syscalls.ethtool import set_offloads
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, ProgType

PASSING = encode(PASS, byteorder=BYTEORDER)

ACCEPTED, DEGRADED, REFUSED = Outcome.ACCEPTED, Outcome.DEGRADED, Outcome.REFUSED


def switch(netns: str, name: str, **wanted: bool) -> None:
    """Switch offloads, named with underscores."""
    named = {offload.replace("_", "-"): on for offload, on in wanted.items()}
    with entered(netns), NetlinkSocket() as connection:
        set_offloads(connection, name, named)


def verdict(veth: Veth, capability: str, mode: str = "native", **how: object) -> Verdict:
    verdicts = fitness.negotiate(veth.interface, mode=mode, **how)  # type: ignore[arg-type]
    (found,) = (each for each in verdicts if each.requirement.capability == capability)
    return found


@pytest.fixture
def ports(netns: str) -> Iterator[Joined]:
    """Two ports whose peers receive, and leave checksums unfinished as is the default."""
    with joined(netns) as made, contextlib.ExitStack() as resources:
        for veth in (made.one, made.other):
            resources.enter_context(attached(PASSING, veth.peer, veth.peer_netns))
        yield made


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("unfinished", [True, False])
def test_packets_of_sockets_arrive_as_the_verdict_on_checksums_says(
    ports: Joined, mode: str, unfinished: bool
) -> None:
    if not unfinished:
        peer = ports.one.peer
        switch(ports.one.peer_netns, peer, tx_checksum_ip_generic=False, tx_checksum_sctp=False)

    if mode == "native":
        expected = DEGRADED if unfinished else ACCEPTED
        assert verdict(ports.one, "precondition:checksums").outcome is expected
    with ports.redirecting(mode):
        assert ports.passes() is (mode == "generic" or not unfinished)


@pytest.mark.parametrize("offloaded", [True, False])
def test_in_generic_mode_segments_arrive_as_the_verdict_says(
    ports: Joined, offloaded: bool
) -> None:
    peer, far = ports.one.peer, ports.one.peer_netns
    # Which ones there are differs by release.
    on = [name for name, is_on in offloads(far, peer, *peers.SEGMENTS).items() if is_on]
    if not offloaded:
        switch(far, peer, **{name.replace("-", "_"): False for name in on})
    found = verdict(ports.one, "precondition:segments", "generic")

    with ports.redirecting("generic"):
        arrived = ports.passes_segments()

    assert found.outcome is (DEGRADED if offloaded else ACCEPTED)
    assert arrived is not (offloaded and "tx-udp-segmentation" in on)


def test_in_native_mode_no_segments_are_sent_that_could_get_lost(ports: Joined) -> None:
    for end in (ports.one, ports.other):
        switch(end.peer_netns, end.peer, tx_checksum_ip_generic=False)

    with ports.redirecting():
        assert ports.transfer(300_000) == 300_000
        on = offloads(ports.one.peer_netns, ports.one.peer, *peers.SEGMENTS)
        assert set(on.values()) == {False}


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("beside", [True, False])
def test_vlan_tags_arrive_as_the_verdict_says(ports: Joined, mode: str, beside: bool) -> None:
    peer, far = ports.one.peer, ports.one.peer_netns
    switch(far, peer, tx_vlan_hw_insert=beside)
    if mode == "native":
        if not beside:
            switch(far, peer, tx_vlan_stag_hw_insert=False)
        expected = DEGRADED if beside else ACCEPTED
        assert verdict(ports.one, "precondition:vlan-tags").outcome is expected

    with (
        ports.redirecting(mode),
        pushing_tags(far, peer),
        packets(ports.other.peer_netns, ports.other.peer) as receiving,
        packets(far, peer) as sending,
    ):
        sending.send(frame())
        has_tag = tag_of_next(receiving)

    assert has_tag is (mode == "generic" or not beside)


@contextlib.contextmanager
def pushing_tags(netns: str, name: str) -> Iterator[None]:
    """Have a tag put on all that is sent by an interface, as the stack's VLAN devices do."""
    r = Register
    body = (
        asm.mov(r.R2, int.from_bytes(b"\x81\x00", BYTEORDER)),
        asm.mov(r.R3, 7),
        asm.call("skb_vlan_push"),
        asm.mov(r.R0, 0),
        asm.exit(),
    )
    new = bpf.NewProgram(
        type=ProgType.SCHED_CLS, code=encode(body, byteorder=BYTEORDER), license="GPL", name="tags"
    )
    with contextlib.ExitStack() as resources:
        program = resources.enter_context(bpf.prog_load(new, what="load a tc program"))
        with entered(netns):
            try:
                index = resolve(name).index
                link = bpf.link_create(program.fileno(), index, AttachType.TCX_EGRESS)
            except KernelRefused:
                pytest.skip("needs tcx, which came with Linux 6.6")
        with link:
            yield


@contextlib.contextmanager
def packets(netns: str, name: str) -> Iterator[socket.socket]:
    """A packet socket that is told the tags."""
    with entered(netns):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with opened:
        opened.bind((name, 0x0003))
        opened.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
        opened.settimeout(10)
        yield opened


def tag_of_next(receiving: socket.socket) -> bool:
    """Return whether the tested frame that comes next has a tag."""
    while True:
        data, told, _, _ = receiving.recvmsg(1 << 16, 256)
        if data[:12] == frame()[:12]:
            status = int.from_bytes(told[0][2][:4], BYTEORDER)
            # TP_STATUS_VLAN_VALID, or the tag in the frame.
            return bool(status & 1 << 4) or data[12:14] == b"\x81\x00"


PEERS = (
    "nothing",
    "a program",
    *(
        pytest.param(by, marks=needs_gro)
        for by in ("GRO", "GRO since it was down", "GRO until it was down")
    ),
)


@pytest.mark.parametrize("by", PEERS)
def test_frames_get_to_a_port_as_the_verdict_says(netns: str, by: str) -> None:
    port = make_veth(netns, queues=1)
    with veth_lab(netns) as lab, contextlib.ExitStack() as resources:
        if by == "a program":
            resources.enter_context(attached(PASSING, port.peer, netns))
        elif by != "nothing":
            set_gro(netns, port.peer, on=by != "GRO since it was down")
        if by.endswith("down"):
            set_link(netns, port.peer, state="down")
            set_gro(netns, port.peer, on=by == "GRO since it was down")
            set_link(netns, port.peer, state="up")
        found = verdict(port, "redirect-target")
        resources.enter_context(attached(redirecting(port.interface.index), lab.name, netns))
        outside = resources.enter_context(contextlib.closing(PacketPort(port.peer, netns)))
        arrived = lab.fate(frame(), outside, patient=found.outcome is ACCEPTED)

    assert found.outcome is (REFUSED if arrived is None else ACCEPTED), found


def test_in_generic_mode_any_interface_is_a_target(veth: Veth) -> None:
    assert verdict(veth, "redirect-target").outcome is REFUSED
    assert verdict(veth, "redirect-target", "generic").outcome is ACCEPTED


@pytest.mark.needs("xdp-frags")
def test_frames_in_several_buffers_are_asked_about_where_programs_take_them(veth: Veth) -> None:
    asked = {each.requirement.capability for each in fitness.negotiate(veth.interface)}

    assert verdict(veth, "redirect-target-frags", frags=True).outcome is DEGRADED
    assert "redirect-target-frags" not in asked


@pytest.mark.parametrize("size", [1500, 1600])
def test_frames_that_are_too_long_get_lost_as_the_verdict_on_the_mtu_says(
    netns: str, size: int
) -> None:
    port = make_veth(netns, queues=1)
    with veth_lab(netns, mtu=1600) as lab, contextlib.ExitStack() as resources:
        assert lab.veth is not None
        resources.enter_context(attached(PASSING, port.peer, netns))
        for end in (port.name, port.peer):
            set_link(netns, end, mtu=size)
        found = verdict(port, "precondition:mtu", others=[lab.veth.interface])
        resources.enter_context(attached(redirecting(port.interface.index), lab.name, netns))
        outside = resources.enter_context(contextlib.closing(PacketPort(port.peer, netns)))
        long = frame(size=1614)
        arrived = lab.fate(long, outside, patient=found.outcome is ACCEPTED)

    assert found.outcome is (ACCEPTED if size == 1600 else DEGRADED)
    assert arrived == (long if size == 1600 else None)
    if size == 1500:
        assert found.why == (
            f"frames longer than MTU 1500, as come in by {lab.name}, cannot leave by {port.name}:"
            " they get lost (EMSGSIZE)"
        )


def test_the_mtu_of_a_veths_peer_counts_in_another_namespace_too(netns: str) -> None:
    with namespace() as far:
        port, other = make_veth(netns, far), make_veth(netns)
        set_link(far, port.peer, mtu=1400)
        found = verdict(port, "precondition:mtu", others=[port.interface, other.interface])

    assert found.why == (
        f"frames longer than MTU 1400, as come in by {other.name}, cannot leave by {port.name}:"
        " they get lost (EMSGSIZE)"
    )


def test_an_interface_that_is_down_says_so_and_how_it_comes_up(netns: str) -> None:
    with namespace() as far:
        port = make_veth(netns, far)
        set_link(far, port.peer, state="down")
        found = verdict(port, "precondition:up")
        target = verdict(port, "redirect-target")

    assert found.outcome is DEGRADED
    assert found.why == (
        f"{port.peer} is down: until that changes, frames for {port.name} get lost"
    )
    up = f"nsenter --net=/run/netns/{far} ip link set dev {port.peer} up"
    assert found.remedy == up
    assert target.remedy == f"{up}; then have it prepared (--prepare, prepare=True)"


def test_a_port_without_a_native_program_can_still_be_sent_to(netns: str) -> None:
    with contextlib.closing(TunPort("tap0", netns, tap=True)):
        verdicts = fitness.negotiate(resolve("tap0", netns=netns))
    found = {each.requirement.capability: each for each in verdicts}

    assert found["redirect-target"].outcome is ACCEPTED
    # Virtual machines may leave checksums unfinished, and nobody can see whether they do.
    assert found["precondition:checksums"].outcome is ACCEPTED
    assert found["precondition:checksums"].answer is Answer.UNKNOWN


def test_what_may_get_lost_is_refused_by_the_strict_policy_only(ports: Joined) -> None:
    relaxed = fitness.negotiate(ports.one.interface)
    strict = fitness.negotiate(ports.one.interface, policy="strict")

    fitness.require(relaxed, "add it")
    with pytest.raises(RequirementUnmet, match="leaves checksums unfinished") as refused:
        fitness.require(strict, "add it", policy="strict")
    assert "have it prepared (--prepare, prepare=True)" in str(refused.value.remedy)
    fitness.require(strict, "add it", policy=Policy.REPORT)
    fitness.require(strict, "add it", policy="strict", force=True)


def test_a_port_that_nothing_gets_to_is_refused_with_cause_and_remedy(veth: Veth) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        fitness.require(fitness.negotiate(veth.interface), f"add {veth.name} to port table lan")

    assert str(refused.value).startswith(
        f"add {veth.name} to port table lan: frames are redirected there, and {veth.name} does not"
        " transmit them ("
    )
    assert f" peer, {veth.peer}, has " in refused.value.cause
    assert refused.value.remedy == (
        "have it prepared (--prepare, prepare=True); or attach a program to the veth peer of"
        f" {veth.name}; one that returns XDP_PASS will do"
    )


def test_only_modes_with_redirects_are_asked_about(veth: Veth) -> None:
    with pytest.raises(UsageError, match="native or generic mode, not 'offload'"):
        fitness.negotiate(veth.interface, mode="offload")
