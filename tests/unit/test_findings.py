# SPDX-License-Identifier: Apache-2.0
"""What is concluded from what was observed: kernels and devices that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpkit.capabilities import CAPABILITIES, Answer, Device, Kernel, Scope
from xdpkit.errors import UsageError
from xdpkit.interfaces import Interface, XdpIds, profile
from xdpkit.interfaces.device import judge
from xdpkit.interfaces.observation import GRO_HW, LRO, Observation, Peer
from xdpkit.syscalls.ethtool import Channels, Offload
from xdpkit.syscalls.netdev import NetdevInfo
from xdpkit.syscalls.rtnetlink import LinkInfo
from xdpkit.uapi.netdev import XdpAct, XdpRxMetadata

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN

BASICS = XdpAct.BASIC | XdpAct.REDIRECT | XdpAct.RX_SG
FOUR = Channels(4, 4)
ON, OFF = Offload(active=True, changeable=True), Offload(active=False, changeable=True)


def link(name: str = "eth0", **changed: object) -> LinkInfo:
    plain = LinkInfo(
        index=2,
        hardware_type=1,
        name=name,
        flags=1,
        mtu=1500,
        kind=None,
        rx_queues=4,
        tx_queues=4,
        peer_index=None,
        peer_netns_id=None,
        xdp=XdpIds(),
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def seen(
    driver: str | None,
    kernel: str,
    features: XdpAct | None = None,
    *,
    of: LinkInfo | None = None,
    **changed: object,
) -> Observation:
    """An observation of a device; features None: a kernel that cannot be asked."""
    about = of or link()
    interface = Interface(
        index=about.index,
        name=about.name,
        netns=None,
        netns_cookie=1,
        driver=driver,
        kind=about.kind,
        mtu=about.mtu,
        rx_queues=about.rx_queues,
        tx_queues=about.tx_queues,
        xdp=about.xdp,
    )
    plain = Observation(
        interface=interface,
        link=about,
        kernel=Kernel.parse(kernel),
        machine="x86_64",
        page_size=4096,
        netdev=NetdevInfo(about.index, features, None, None, None)
        if features is not None
        else None,
        channels=FOUR,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def veth(
    kernel: str,
    features: XdpAct | None = None,
    *,
    peer: LinkInfo | None = None,
    gro: bool | None = False,
    channels: Channels | None = FOUR,
    peer_netns_id: int | None = None,
    **changed: object,
) -> Observation:
    """An observation of a veth and its peer."""
    own = link("veth0", kind="veth", peer_index=3, peer_netns_id=peer_netns_id)
    other = peer or link("veth1", index=3, kind="veth", peer_index=2)
    return seen(
        "veth", kernel, features, of=own, peer=Peer(other, channels=channels, gro=gro), **changed
    )


def answer(device: Device, capability: str) -> Answer:
    return device.findings[capability].answer


def condition(device: Device, name: str) -> Answer:
    (found,) = (each for each in device.preconditions if each.name == name)
    return found.answer


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_every_capability_of_a_driver_has_a_finding_with_evidence(mode: str) -> None:
    for observed in (
        seen("igc", "6.18", BASICS),
        seen("igc", "5.4"),
        seen("no-such-driver", "6.18", XdpAct(0)),
        seen(None, "5.4"),
    ):
        device = judge(observed, mode)
        for name, info in CAPABILITIES.items():
            # The limit of an unlisted driver is not known, and action-any follows from the others.
            if info.scope is Scope.DRIVER and name not in ("action-any", "mtu"):
                assert device.findings[name].evidence


def test_what_netdev_says_comes_before_the_table() -> None:
    device = judge(seen("ixgbe", "6.18", XdpAct.BASIC))

    assert answer(device, "action-tx") is YES
    assert answer(device, "action-redirect") is NO
    assert device.findings["action-redirect"].evidence == "netdev: REDIRECT clear"


def test_a_kernel_that_cannot_be_asked_is_looked_up() -> None:
    device = judge(seen("ixgbe", "5.4.0"))

    assert answer(device, "action-redirect") is YES
    assert answer(device, "frags") is NO
    assert "table of drivers" in device.findings["action-redirect"].evidence


def test_an_unlisted_driver_on_an_old_kernel_is_unknown_and_not_missing() -> None:
    device = judge(seen("somebodys", "5.10"))

    assert answer(device, "mode-native") is UNKNOWN
    assert answer(device, "adjust-meta") is UNKNOWN
    assert answer(device, "mode-generic") is YES


def test_a_driver_that_is_known_to_have_none_has_none() -> None:
    device = judge(seen("r8169", "5.10"))

    assert answer(device, "mode-native") is NO
    assert answer(device, "action-drop") is NO
    assert answer(judge(seen("r8169", "99.0")), "mode-native") is UNKNOWN


def test_a_driver_that_keeps_silent_is_believed_to_the_table() -> None:
    # fbnic sets no xdp_features at all.
    device = judge(seen("fbnic", "6.18", XdpAct(0), takes_programs=(YES, "accepted")))

    assert answer(device, "action-drop") is YES
    assert answer(device, "frags") is YES
    assert answer(device, "action-redirect") is NO


def test_a_driver_that_spoke_later_is_believed_until_then() -> None:
    assert answer(judge(seen("fec", "6.4", XdpAct(0))), "action-drop") is YES
    assert answer(judge(seen("fec", "6.5", XdpAct(0))), "action-drop") is NO


def test_a_driver_that_says_too_much_is_not_believed() -> None:
    # nfp handles XDP_REDIRECT for AF_XDP zero-copy sockets only.
    device = judge(seen("nfp", "6.12", BASICS))

    assert answer(device, "action-redirect") is UNKNOWN


def test_native_xdp_that_the_configuration_forbids_is_missing_and_says_why() -> None:
    lro = {LRO: ON, GRO_HW: OFF}
    device = judge(seen("mlx5_core", "6.12", XdpAct(0), offloads=lro))

    assert answer(device, "mode-native") is NO
    assert "LRO" in device.findings["mode-native"].evidence
    assert condition(device, "lro") is NO


def test_a_driver_without_an_operation_for_programs_has_no_native_xdp() -> None:
    refused = (NO, "BPF_PROG_LOAD of a program bound to br0: EOPNOTSUPP")
    device = judge(seen("bridge", "6.18", XdpAct(0), takes_programs=refused))

    assert answer(device, "mode-native") is NO
    assert "EOPNOTSUPP" in device.findings["mode-native"].evidence


def test_silence_of_a_driver_that_takes_programs_proves_nothing() -> None:
    device = judge(seen("out-of-tree", "6.18", XdpAct(0), takes_programs=(YES, "accepted")))

    assert answer(device, "mode-native") is UNKNOWN
    assert answer(device, "action-drop") is UNKNOWN


def test_a_tun_has_no_native_xdp_but_a_tap_has() -> None:
    tap, tun = link(kind="tun"), link(kind="tun", hardware_type=65534)

    assert answer(judge(seen("tun", "5.10", of=tap)), "action-tx") is YES
    assert answer(judge(seen("tun", "5.10", of=tun)), "action-tx") is NO
    assert answer(judge(seen("tun", "6.12", XdpAct(0), of=tun)), "action-tx") is NO


@pytest.mark.parametrize(
    ("limits", "mtu", "expected"),
    [("x86_64", 3498, YES), ("x86_64", 3499, NO), ("arm64", 9000, UNKNOWN)],
)
def test_an_mtu_limit_holds_for_the_machine_that_it_was_computed_for(
    limits: str, mtu: int, expected: Answer
) -> None:
    device = judge(seen("mlx5_core", "6.12", BASICS, of=link(mtu=mtu), machine=limits))

    assert condition(device, "mtu") is expected
    assert device.findings["mtu"].limit == 3498


def test_an_mtu_limit_that_depends_on_more_is_no_proof() -> None:
    device = judge(seen("i40e", "6.12", BASICS, of=link(mtu=9000)))

    assert condition(device, "mtu") is UNKNOWN


def test_frags_waive_the_limit_on_the_mtu() -> None:
    device = judge(seen("mlx5_core", "6.12", BASICS, of=link(mtu=9000)))
    (mtu,) = (each for each in device.preconditions if each.name == "mtu")

    assert mtu.waived_by == "frags"
    assert mtu.remedy == "ip link set dev eth0 mtu 3498"


def test_a_command_that_helps_is_one_for_the_interfaces_namespace() -> None:
    plain = seen("mlx5_core", "6.12", BASICS, of=link("a;b", mtu=9000), offloads={LRO: ON})
    there = replace(plain, interface=replace(plain.interface, netns="blue"))
    remedies = {each.name: each.remedy for each in judge(there).preconditions}

    enter = "nsenter --net=/run/netns/blue "
    assert remedies["mtu"] == f"{enter}ip link set dev 'a;b' mtu 3498"
    assert remedies["lro"] == f"{enter}ethtool -K 'a;b' rx-lro off"


def test_an_offload_that_cannot_be_switched_has_no_remedy() -> None:
    fixed = {LRO: Offload(active=True, changeable=False), GRO_HW: ON}
    device = judge(seen("mlx5_core", "6.12", BASICS, offloads=fixed))
    (lro,) = (each for each in device.preconditions if each.name == "lro")

    assert (lro.answer, lro.remedy) == (NO, None)


@pytest.mark.parametrize(
    ("offload", "expected"),
    [(ON, YES), (OFF, YES), (Offload(active=True, changeable=False), NO)],
)
def test_a_host_that_merges_packets_must_let_itself_be_stopped(
    offload: Offload, expected: Answer
) -> None:
    device = judge(seen("virtio_net", "6.12", BASICS, offloads={GRO_HW: offload}))

    assert condition(device, "guest-offloads") is expected


def test_a_rule_that_cannot_be_looked_at_is_unknown_and_says_so() -> None:
    device = judge(seen("ixgbe", "6.12", BASICS))

    assert condition(device, "sriov") is UNKNOWN


def test_hints_are_as_netdev_says_and_before_that_as_the_table_has_them() -> None:
    says = NetdevInfo(2, BASICS, None, XdpRxMetadata.HASH, None)
    now = judge(seen("igc", "6.18", BASICS, netdev=says))
    between = judge(seen("igc", "6.6", BASICS))
    before = judge(seen("igc", "6.1"))

    assert [answer(now, "rx-hash"), answer(now, "rx-timestamp")] == [YES, NO]
    assert answer(between, "rx-timestamp") is YES
    assert answer(before, "rx-timestamp") is NO


@pytest.mark.parametrize(("segments", "expected"), [(1, NO), (17, YES), (None, UNKNOWN)])
def test_zero_copy_takes_frags_where_it_takes_more_than_one(
    segments: int | None, expected: Answer
) -> None:
    says = NetdevInfo(2, BASICS | XdpAct.XSK_ZEROCOPY, segments, None, None)
    device = judge(seen("ice", "6.12", BASICS, netdev=says))

    assert answer(device, "zero-copy-frags") is expected


def test_a_driver_that_transmits_only_with_a_program_says_so() -> None:
    # mlx5_core sets NDO_XMIT at all times, and refuses frames without a program.
    idle = judge(seen("mlx5_core", "6.12", BASICS | XdpAct.NDO_XMIT))
    busy = judge(seen("mlx5_core", "6.12", BASICS | XdpAct.NDO_XMIT, of=link(xdp=XdpIds(native=7))))

    assert answer(idle, "redirect-target") is NO
    assert answer(busy, "redirect-target") is YES


def test_an_interface_that_is_down_may_transmit_later() -> None:
    down = judge(seen("tun", "6.18", BASICS | XdpAct.NDO_XMIT, of=link(flags=0)))

    assert answer(down, "redirect-target") is UNKNOWN


@pytest.mark.parametrize("kernel", ["5.10", "6.18"])
def test_a_veth_sends_by_xdp_tx_only_if_its_peer_has_a_program(kernel: str) -> None:
    features = BASICS if kernel == "6.18" else None
    program = link("veth1", index=3, kind="veth", xdp=XdpIds(native=7))
    generic = link("veth1", index=3, kind="veth", xdp=XdpIds(generic=7))

    assert answer(judge(veth(kernel, features)), "action-tx") is NO
    assert answer(judge(veth(kernel, features, gro=True)), "action-tx") is NO
    assert answer(judge(veth(kernel, features, peer=generic)), "action-tx") is NO
    assert answer(judge(veth(kernel, features, peer=program)), "action-tx") is YES


def test_a_veth_whose_peer_is_out_of_sight_is_unknown() -> None:
    hidden = replace(
        veth("6.18", BASICS | XdpAct.NDO_XMIT), peer=None, peer_unknown="it may not be seen"
    )
    device = judge(hidden)

    assert answer(device, "action-tx") is UNKNOWN
    assert condition(device, "peer") is UNKNOWN
    # Without NDO_XMIT the peer has neither a program nor GRO, seen or not.
    nothing = replace(hidden, netdev=NetdevInfo(2, BASICS, None, None, None))
    assert answer(judge(nothing), "action-tx") is NO


@pytest.mark.parametrize(
    ("kernel", "gro", "expected"),
    [
        ("5.10", True, NO),
        ("5.10", False, NO),
        ("6.1", True, YES),
        ("6.1", False, NO),
        ("6.1", None, UNKNOWN),
    ],
)
def test_before_netdev_a_veth_is_a_target_if_its_peer_receives_frames(
    kernel: str, gro: bool | None, expected: Answer
) -> None:
    assert answer(judge(veth(kernel, gro=gro)), "redirect-target") is expected


def test_before_netdev_a_program_on_the_peer_makes_a_veth_a_target() -> None:
    program = link("veth1", index=3, kind="veth", xdp=XdpIds(native=7))

    assert answer(judge(veth("5.10", peer=program)), "redirect-target") is YES


@pytest.mark.parametrize(("mtu", "expected"), [(3506, YES), (3507, NO)])
def test_the_mtu_of_a_veths_peer_counts_and_not_its_own(mtu: int, expected: Answer) -> None:
    device = judge(veth("6.18", BASICS, peer=link("veth1", index=3, kind="veth", mtu=mtu)))

    assert condition(device, "mtu") is expected
    assert "mtu" not in device.findings


def test_a_veth_needs_a_queue_for_each_that_its_peer_sends_on() -> None:
    few = judge(veth("6.1", channels=Channels(1, 8)))
    enough = judge(veth("6.1", channels=Channels(8, 4)))

    assert condition(few, "queues") is NO
    assert condition(enough, "queues") is YES


def test_a_veth_without_channels_uses_all_queues_that_it_was_made_with() -> None:
    wide = link("veth1", index=3, kind="veth", tx_queues=8)

    assert condition(judge(replace(veth("5.10", peer=wide), channels=None)), "queues") is NO
    assert condition(judge(replace(veth("5.10"), channels=None)), "queues") is YES


def test_of_a_peer_elsewhere_the_largest_number_of_queues_is_a_bound() -> None:
    wide = link("veth1", index=3, kind="veth", tx_queues=8)
    narrow = link("veth1", index=3, kind="veth", tx_queues=4)
    nsid = 0

    assert (
        condition(judge(veth("6.1", peer=wide, channels=None, peer_netns_id=nsid)), "queues")
        is UNKNOWN
    )
    assert (
        condition(judge(veth("6.1", peer=narrow, channels=None, peer_netns_id=nsid)), "queues")
        is YES
    )
    # netdev reports features only while the queues match.
    matched = judge(veth("6.18", BASICS, peer=wide, channels=None, peer_netns_id=nsid))
    assert condition(matched, "queues") is YES


def test_a_program_of_one_mode_is_in_the_way_of_the_other() -> None:
    observed = seen("ice", "6.18", BASICS, of=link(xdp=XdpIds(native=7)), program_names={7: "fw"})
    found = {
        each.modes: each
        for each in judge(observed).preconditions
        if each.name == "existing-program"
    }

    assert found["native",].answer is YES
    assert found["generic",].answer is NO
    assert "program 7, fw, is attached in native mode" in found["generic",].evidence


def test_a_program_with_the_dispatchers_name_is_said_to_have_that() -> None:
    names = {7: "xdp_dispatcher"}
    observed = seen("ice", "6.18", BASICS, of=link(xdp=XdpIds(native=7)), program_names=names)

    evidence = [
        each.evidence for each in judge(observed).preconditions if each.name == "existing-program"
    ]
    words = "program 7, called xdp_dispatcher as the dispatcher of libxdp and xdp-loader is,"
    assert [each.startswith(f"{words} is attached") for each in evidence] == [True, True]


def test_generic_mode_is_the_same_on_every_interface() -> None:
    poor = judge(seen("r8169", "6.18", XdpAct(0)), "generic")
    rich = judge(seen("ice", "6.18", BASICS), "generic")

    for name in ("action-tx", "redirect-cpumap", "adjust-meta", "frags"):
        assert poor.findings[name] == rich.findings[name]
        assert answer(poor, name) is YES
    assert answer(poor, "rx-hash") is NO
    assert answer(poor, "zero-copy") is NO


def test_generic_mode_grew_over_the_releases() -> None:
    old = judge(seen("ice", "4.13"), "generic")

    assert answer(old, "action-drop") is YES
    assert answer(old, "action-redirect") is NO
    assert answer(judge(seen("ice", "5.14"), "generic"), "redirect-cpumap") is NO
    assert answer(judge(seen("ice", "5.15"), "generic"), "redirect-cpumap") is YES


def test_of_the_offload_mode_only_its_absence_is_known() -> None:
    with_it = judge(seen("nfp", "6.18", BASICS | XdpAct.HW_OFFLOAD), "offload")
    without = judge(seen("ice", "6.18", BASICS), "offload")

    assert answer(with_it, "mode-offload") is YES
    assert with_it.finding("action-drop").answer is UNKNOWN
    assert answer(without, "action-drop") is NO


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("mlx5@6.1", "action-redirect", YES),
        ("mlx5@6.1", "redirect-target", UNKNOWN),
        ("mlx5@6.1", "frags", UNKNOWN),
        ("mlx5@6.4", "frags", YES),
        ("ixgbevf@6.12", "action-redirect", NO),
        ("virtio@5.4", "adjust-meta", NO),
        ("veth@6.18", "action-tx", UNKNOWN),
        ("tun@6.18", "redirect-target", YES),
        ("r8169@6.1", "mode-native", NO),
        ("r8169@6.1", "mode-generic", YES),
        ("r8169@99.1", "mode-native", UNKNOWN),
        ("ena@5.2", "mode-native", NO),
    ],
)
def test_a_profile_is_a_driver_in_a_release(name: str, capability: str, expected: Answer) -> None:
    assert answer(profile(name), capability) is expected


def test_a_profile_survives_being_written_and_read() -> None:
    device = profile("mlx5@6.1")

    assert Device.from_dict(device.to_dict()) == device
    assert device.source == "profile mlx5@6.1"
    assert device.driver == "mlx5_core"


@pytest.mark.parametrize("name", ["mlx5", "mlx5@", "mlx5@new", "@6.1", "mxl5_core@6.1"])
def test_what_is_no_profile_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        profile(name)


def test_a_misspelt_driver_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean mlx5_core"):
        profile("mxl5_core@6.1")
