# SPDX-License-Identifier: Apache-2.0
"""What is concluded of an interface as a port, and said: devices that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_findings import BASICS, OFF, ON, link, seen, veth
from xdpkit.capabilities import Answer
from xdpkit.interfaces import XdpIds
from xdpkit.interfaces.observation import Observation
from xdpkit.negotiation import Outcome, Policy, Verdict, sentence
from xdpkit.ports import fitness, lengths, preparing
from xdpkit.ports.fitness import Facts
from xdpkit.ports.lengths import Lengths
from xdpkit.ports.peers import End
from xdpkit.syscalls.ethtool import Offload
from xdpkit.tables.model import Identity, Preparation
from xdpkit.uapi.netdev import XdpAct

ACCEPTED, DEGRADED, REFUSED = Outcome.ACCEPTED, Outcome.DEGRADED, Outcome.REFUSED
TARGET = BASICS | XdpAct.NDO_XMIT | XdpAct.NDO_XMIT_SG

FIXED = Offload(active=True, changeable=False)
PEER = Identity("veth1", 3, 7, "blue", b"\2\0\0\0\0\1", "veth")
AS_MADE = {
    "tx-checksum-ip-generic": ON,
    "tx-checksum-sctp": ON,
    "tx-vlan-hw-insert": ON,
    "tx-tcp-segmentation": ON,
}


def of_veth(
    features: XdpAct = TARGET, *, end: End | None = None, gro: bool = True, flags: int = 1
) -> Facts:
    about = veth("6.18", features, peer=link("veth1", index=3, kind="veth", flags=flags), gro=gro)
    return Facts(about, end or End(PEER, AS_MADE))


def one(verdicts: tuple[Verdict, ...], capability: str) -> Verdict:
    (found,) = (each for each in verdicts if each.requirement.capability == capability)
    return found


def judged(facts: Facts, capability: str, **how: object) -> Verdict:
    return one(fitness.judge(facts, **how), capability)  # type: ignore[arg-type]


def test_a_port_that_is_as_it_should_be_has_accepted_verdicts_only() -> None:
    finished = End(PEER, dict.fromkeys(AS_MADE, OFF))
    for mode in ("native", "generic"):
        verdicts = fitness.judge(of_veth(end=finished), mode=mode, frags=True)

        assert {each.outcome for each in verdicts} == {ACCEPTED}


def test_checksums_that_are_unfinished_are_told_with_a_command_for_the_peers_namespace() -> None:
    found = judged(of_veth(), "precondition:checksums")

    assert found.outcome is DEGRADED
    assert sentence(found) == (
        "veth0: its peer, veth1, leaves checksums unfinished (ethtool: tx-checksum-ip-generic,"
        " tx-checksum-sctp on), and XDP in native mode does not finish them: the TCP and UDP"
        " packets that sockets send there are dropped by whoever receives them from another port"
    )
    assert found.remedy == (
        "have it prepared (--prepare, prepare=True); or nsenter --net=/run/netns/blue ethtool -K"
        " veth1 tx off"
    )
    assert judged(of_veth(), found.requirement.capability, policy=Policy.STRICT).outcome is REFUSED


def test_vlan_tags_that_are_kept_beside_frames_are_told() -> None:
    found = judged(of_veth(), "precondition:vlan-tags")

    assert found.outcome is DEGRADED
    assert found.why == (
        "its peer, veth1, keeps VLAN tags beside the frames (ethtool: tx-vlan-hw-insert on), and"
        " XDP in native mode forgets them: such frames leave by other ports without a tag"
    )
    assert found.remedy == (
        "have it prepared (--prepare, prepare=True); or nsenter --net=/run/netns/blue ethtool -K"
        " veth1 tx-vlan-hw-insert off"
    )


@pytest.mark.parametrize(("state", "remedy"), [(ON, "ethtool -K eth0 rxvlan off"), (FIXED, None)])
def test_vlan_tags_that_a_nic_takes_out_are_told(state: Offload, remedy: str | None) -> None:
    facts = Facts(seen("igc", "6.18", TARGET), own={"rx-vlan-hw-parse": state})
    found = judged(facts, "precondition:vlan-tags")

    assert found.outcome is DEGRADED
    assert found.why.startswith("eth0 takes VLAN tags out of what it receives (ethtool: rx-vlan-")
    assert found.remedy == remedy


def test_in_generic_mode_it_is_segments_that_get_lost() -> None:
    verdicts = fitness.judge(of_veth(), mode="generic")
    names = {each.requirement.capability for each in verdicts}
    unsegmented = End(PEER, {**AS_MADE, "tx-tcp-segmentation": OFF})
    finished = End(PEER, {**AS_MADE, "tx-checksum-ip-generic": OFF, "tx-checksum-sctp": OFF})

    assert not names & {"precondition:checksums", "precondition:vlan-tags"}
    assert one(verdicts, "precondition:segments").outcome is DEGRADED
    for end in (unsegmented, finished):
        about = judged(of_veth(end=end), "precondition:segments", mode="generic")
        assert about.outcome is ACCEPTED


def test_what_cannot_be_seen_of_a_peer_is_unknown() -> None:
    facts = replace(of_veth(), end=None)
    for mode in ("native", "generic"):
        found = fitness.judge(facts, mode=mode)
        unknown = {each.requirement.capability for each in found if each.answer is Answer.UNKNOWN}
        about = {"checksums", "vlan-tags"} if mode == "native" else {"segments"}

        assert unknown == {f"precondition:{name}" for name in about}
        assert {each.outcome for each in found} == {ACCEPTED}


def test_a_port_that_cannot_run_a_program_is_degraded() -> None:
    facts = Facts(seen("none", "6.18", XdpAct.NDO_XMIT))

    assert judged(facts, "redirect-target").outcome is ACCEPTED
    assert judged(facts, "mode-native").outcome is DEGRADED


@pytest.mark.parametrize(
    ("gro", "flags", "why"),
    [
        (False, 1, "its peer, veth1, has neither a native program nor GRO"),
        (True, 0, "its peer, veth1, has GRO, but is down"),
        (True, 1, "has GRO, but got it while it was down: switch it off and on again"),
    ],
)
def test_why_nothing_gets_to_a_veth_is_told(gro: bool, flags: int, why: str) -> None:
    found = judged(of_veth(BASICS, gro=gro, flags=flags), "redirect-target")

    assert found.outcome is REFUSED
    assert found.why.endswith(why)


def test_a_veth_whose_peer_has_lost_gro_while_it_was_down_is_no_target() -> None:
    found = judged(of_veth(TARGET, gro=False), "redirect-target")

    assert found.outcome is REFUSED
    assert found.why.startswith("netdev: NDO_XMIT set, but its peer, veth1, has neither")
    program = link("veth1", index=3, kind="veth", xdp=XdpIds(native=9))
    with_program: Observation = veth("6.18", TARGET, peer=program)
    assert judged(Facts(with_program), "redirect-target").outcome is ACCEPTED


def test_both_ends_that_are_down_are_told_once() -> None:
    down = of_veth(BASICS, flags=0)
    down = replace(down, seen=replace(down.seen, link=replace(down.seen.link, flags=0)))
    found = judged(down, "precondition:up")

    assert found.why == ("veth0 and veth1 are down: until that changes, frames for veth0 get lost")
    assert found.remedy == (
        "ip link set dev veth0 up; nsenter --net=/run/netns/blue ip link set dev veth1 up"
    )
    assert judged(replace(down, end=None), "precondition:up").remedy is None


@pytest.mark.parametrize(
    ("own", "others", "why"),
    [
        (Lengths("a", 1500, 1500), [], None),
        (Lengths("a", 1500, 1500), [Lengths("b", 1500, 1500)], None),
        (
            Lengths("a", 1500, 1500),
            [Lengths("b", 9000, 9000), Lengths("c", 1500, 1500), Lengths("d", 2000, 1500)],
            "frames longer than MTU 1500, as come in by b, d, cannot leave by a: they get lost"
            " (EMSGSIZE)",
        ),
        (
            Lengths("a", 9000, 9000),
            [Lengths(f"b{number}", 1500, 1500) for number in range(6)],
            "frames of MTU 9000, as come in by a, cannot leave by b0, b1, b2, b3 and 2 more: they"
            " get lost (EMSGSIZE)",
        ),
        (
            Lengths("a", 9000, 1500),
            [Lengths("b", 2000, 2000)],
            "frames longer than MTU 1500, as come in by b, cannot leave by a; frames of MTU 9000,"
            " as come in by a, cannot leave by b: they get lost (EMSGSIZE)",
        ),
    ],
)
def test_frames_that_are_longer_than_the_next_port_takes_are_told(
    own: Lengths, others: list[Lengths], why: str | None
) -> None:
    condition = lengths.condition(own, others)

    assert condition.answer is (Answer.YES if why is None else Answer.NO)
    assert why is None or condition.evidence == why


def test_a_veth_receives_by_its_peers_mtu_and_sends_by_the_smaller_one() -> None:
    about = veth("6.18", TARGET, peer=link("veth1", index=3, kind="veth", mtu=9000))

    assert lengths.of(about) == Lengths("veth0", receives=9000, sends=1500)
    assert lengths.of(seen("igc", "6.18", TARGET)) == Lengths("eth0", 1500, 1500)


def test_nothing_to_require_is_no_refusal() -> None:
    fitness.require((), "add it")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("gro", "GRO on at veth1"),
        ("program", "a program that lets all packets pass at veth1"),
        ("tx-checksum", "checksum offload (tx) off at veth1"),
        ("tx-vlan", "VLAN offload (txvlan) off at veth1"),
    ],
)
def test_preparations_are_told_as_phrases(what: str, text: str) -> None:
    made = Preparation(what, PEER, "")  # type: ignore[arg-type]

    assert preparing.describe(made) == text
