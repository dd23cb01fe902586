# SPDX-License-Identifier: Apache-2.0
"""Whether an interface can be a port: frames that are redirected have to get out of it, and whole.

What XDP makes of a frame is bytes. What the stack kept beside them is forgotten when an skb becomes
an xdp_frame (veth_xdp_rcv_skb() in drivers/net/veth.c, tun_build_skb() in drivers/net/tun.c), and
what receives the frame does not get it back (__xdp_build_skb_from_frame() in net/core/xdp.c): a
checksum that was to be finished later stays unfinished, and the receiver drops the packet; a VLAN
tag is lost. In generic mode frames stay skbs, and lose neither; but there they can be longer than
any MTU (TSO), which a redirect refuses (xdp_ok_fwd_dev() in include/linux/filter.h).

:func:`observe` asks, :func:`judge` concludes from that and is pure, :func:`negotiate` does both.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from xdpkit.capabilities import Answer, Device, Finding, Precondition
from xdpkit.errors import UsageError
from xdpkit.hook.check import policy_of
from xdpkit.interfaces import device
from xdpkit.interfaces import veth as veths
from xdpkit.interfaces.interface import Interface
from xdpkit.interfaces.observation import Observation
from xdpkit.negotiation import Negotiation, Outcome, Policy, Verdict, refusal, rules
from xdpkit.negotiation.targets import peer_remedy
from xdpkit.ports import lengths, peers, rights
from xdpkit.ports.lengths import Lengths
from xdpkit.ports.peers import End
from xdpkit.requirements import Requirement
from xdpkit.syscalls.ethtool import Offload
from xdpkit.syscalls.netns import nsenter
from xdpkit.tables.model import Identity
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.if_link import IFF_UP

PREPARE = "have it prepared (--prepare, prepare=True)"

_GENERIC = "in generic mode any interface transmits, as it does for the stack"
_TUN = "tun"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was asked about an interface that is to be a port.

    Attributes:
        seen: the interface; the peer of a veth as it is in its own namespace.
        end: the peer of a veth, where it can be reached.
        own: the interface's own offloads that matter.
        others: how long frames are at the other ports.
        lacking: the capabilities for lack of which the peer may not have been reached.
    """

    seen: Observation
    end: End | None = None
    own: Mapping[str, Offload] = field(default_factory=dict)
    others: tuple[Lengths, ...] = ()
    lacking: tuple[Capability, ...] = ()


def negotiate(
    interface: Interface,
    *,
    mode: str = "native",
    others: Iterable[Interface] = (),
    frags: bool = False,
    policy: Policy | str | None = None,
) -> tuple[Verdict, ...]:
    """Return every verdict on an interface as a port.

    Refused is an interface that frames cannot be redirected to. Degraded is one that is a port for
    some frames only, and what happens to the others is said: who sends may do without what gets
    lost. The strict policy refuses that, too.

    Args:
        interface: the interface. others: those of the other ports.
        mode: "native" or "generic": how the programs are attached that redirect.
        frags: whether they take frames that lie in several buffers.
        policy: what becomes of what is not known.

    Raises:
        UsageError: the interface, or its namespace, is not there any more; or there is no such
            mode or policy.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    if mode not in ("native", "generic"):
        raise UsageError(
            f"negotiate {interface.name} as a port",
            cause=f"programs that redirect are attached in native or generic mode, not {mode!r}",
        )
    chosen = policy_of(policy)
    return judge(observe(interface, others), mode=mode, frags=frags, policy=chosen)


def observe(interface: Interface, others: Iterable[Interface] = ()) -> Facts:
    """Ask about an interface, and how long frames are at the other ports.

    Raises:
        UsageError: the interface, or its namespace, is not there any more.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    seen, end = peers.look(interface)
    place = seen.interface.netns_cookie, seen.interface.index
    strangers = [each for each in others if (each.netns_cookie, each.index) != place]
    own = peers.offloads_of(interface, *peers.TAKEN_VLAN_TAGS) if seen.link.kind is None else {}
    lacking = peers.lacking(seen) if end is None else ()
    return Facts(seen, end, own, lengths.of_others(strangers), lacking)


def judge(
    facts: Facts, *, mode: str = "native", frags: bool = False, policy: Policy = Policy.DEFAULT
) -> tuple[Verdict, ...]:
    """Return the verdicts that follow from what was observed; pure."""
    return tuple(_verdicts(facts, mode, frags, policy))


def require(
    verdicts: Iterable[Verdict],
    what: str,
    *,
    policy: Policy | str | None = None,
    force: bool = False,
) -> None:
    """Refuse an interface that cannot be a port.

    Args:
        verdicts: those of :func:`negotiate`.
        what: what is being tried ("add eth1 to port table lan").
        policy: the one that they were made by. force: let it pass all the same.

    Raises:
        RequirementUnmet: a verdict refuses it.
    """
    listed = tuple(verdicts)
    name = listed[0].device if listed else ""
    found = Negotiation(
        program="", device=name, source="live", mode="", policy=policy_of(policy), verdicts=listed
    )
    if not found.is_allowed and not force:
        raise refusal(found, what, most=len(listed))


def _verdicts(facts: Facts, mode: str, frags: bool, policy: Policy) -> Iterator[Verdict]:
    seen = facts.seen
    found = device.judge(seen, mode)
    name = seen.link.name
    is_native = mode == "native"
    for capability in ("redirect-target", *(("redirect-target-frags",) if frags else ())):
        finding = found.finding(capability)
        if not is_native:
            finding = Finding(capability, Answer.YES, _GENERIC)
        is_optional = capability != "redirect-target"
        yield rules.judge(
            Requirement(capability, optional=is_optional),
            finding,
            name,
            policy,
            remedy=None if is_optional else _target_remedy(facts, found),
        )
    if is_native:
        needed = Requirement("mode-native", optional=True)
        yield rules.judge(needed, found.finding("mode-native"), name, policy)
    conditions = [_up(facts), lengths.condition(lengths.of(seen), facts.others)]
    if is_native:
        conditions += [*_checksums(facts), *_vlan_tags(facts)]
    else:
        conditions += _segments(facts)
    for condition in conditions:
        yield _degrading(condition, name, policy)


def _degrading(condition: Precondition, name: str, policy: Policy) -> Verdict:
    """Return the verdict on what costs some frames only."""
    capability = f"precondition:{condition.name}"
    verdict = rules.judge(
        Requirement(capability),
        Finding(capability, condition.answer, condition.evidence),
        name,
        policy,
        remedy=condition.remedy,
    )
    if verdict.outcome is Outcome.REFUSED and policy is not Policy.STRICT:
        return replace(verdict, outcome=Outcome.DEGRADED)
    return verdict


def _target_remedy(facts: Facts, found: Device) -> str | None:
    """Return what makes a veth transmit; a peer that is down has to come up before."""
    by_hand = peer_remedy(found)
    if by_hand is None or (facts.end is None and not facts.lacking):
        return by_hand
    if facts.lacking:
        names = " and ".join(each.kernel_name for each in facts.lacking)
        return f"run it as root (sudo), or give it {names}, and {PREPARE}; or {by_hand}"
    up = _up(facts)
    if up.answer is Answer.NO and up.remedy is not None:
        return f"{up.remedy}; then {PREPARE}"
    return f"{PREPARE}; or {by_hand}"


def _up(facts: Facts) -> Precondition:
    link, peer = facts.seen.link, facts.seen.peer
    down = [(link.name, facts.seen.interface.netns)] if not link.flags & IFF_UP else []
    if peer is not None and not peer.link.flags & IFF_UP:
        end = facts.end
        down.append((peer.link.name, end.identity.netns if end is not None else None))
    if not down:
        return Precondition("up", Answer.YES, f"{link.name} is up")
    names = [name for name, _ in down]
    what = f"{names[0]} is" if len(names) == 1 else f"{' and '.join(names)} are"
    commands = [f"{nsenter(netns)}ip link set dev {shlex.quote(name)} up" for name, netns in down]
    is_sure = facts.end is not None or names == [link.name]
    return Precondition(
        "up",
        Answer.NO,
        f"{what} down: until that changes, frames for {link.name} get lost",
        remedy="; ".join(commands) if is_sure else None,
    )


def _checksums(facts: Facts) -> Iterator[Precondition]:
    """Yield whether the checksums are right that frames have when they come in by the interface."""
    seen, end = facts.seen, facts.end
    name = "checksums"
    if seen.interface.driver == _TUN:
        yield Precondition(
            name,
            Answer.UNKNOWN,
            f"what writes to {seen.link.name} may leave checksums unfinished, as virtual machines"
            " do, and XDP in native mode does not finish them",
        )
    if seen.link.kind != veths.KIND:
        return
    if end is None:
        yield _out_of_reach(name, facts, "leaves the checksums of what it sends unfinished")
        return
    unfinished = end.active(*peers.CHECKSUMS)
    peer = end.identity
    if not unfinished:
        yield Precondition(name, Answer.YES, f"its peer, {peer.name}, finishes checksums itself")
        return
    yield Precondition(
        name,
        Answer.NO,
        f"its peer, {peer.name}, leaves checksums unfinished ({_on(unfinished)}), and XDP in native"
        " mode does not finish them: the TCP and UDP packets that sockets send there are dropped by"
        " whoever receives them from another port",
        remedy=f"{PREPARE}; or {ethtool(peer, 'tx off')}",
    )


def _vlan_tags(facts: Facts) -> Iterator[Precondition]:
    """Yield whether VLAN tags are in the frames that come in by the interface."""
    seen, end = facts.seen, facts.end
    name = "vlan-tags"
    lost = "and XDP in native mode forgets them: such frames leave by other ports without a tag"
    taken = tuple(offload for offload, state in facts.own.items() if state.active)
    if taken:
        is_sure = all(facts.own[offload].changeable for offload in taken)
        own = f"{nsenter(seen.interface.netns)}ethtool -K {shlex.quote(seen.link.name)} rxvlan off"
        yield Precondition(
            name,
            Answer.NO,
            f"{seen.link.name} takes VLAN tags out of what it receives ({_on(taken)}), {lost}",
            remedy=own if is_sure else None,
        )
    if seen.link.kind != veths.KIND:
        return
    if end is None:
        yield _out_of_reach(name, facts, "keeps VLAN tags beside the frames")
        return
    peer, beside = end.identity, end.active(*peers.VLAN_TAGS)
    if not beside:
        yield Precondition(name, Answer.YES, f"its peer, {peer.name}, puts VLAN tags into frames")
        return
    yield Precondition(
        name,
        Answer.NO,
        f"its peer, {peer.name}, keeps VLAN tags beside the frames ({_on(beside)}), {lost}",
        remedy=f"{PREPARE}; or {ethtool(peer, ' '.join(f'{offload} off' for offload in beside))}",
    )


def _segments(facts: Facts) -> Iterator[Precondition]:
    """Yield whether frames come in by the interface that are longer than its peer's MTU."""
    seen, end = facts.seen, facts.end
    name = "segments"
    if seen.link.kind != veths.KIND:
        return
    if end is None:
        yield _out_of_reach(name, facts, "sends what is longer than its MTU")
        return
    peer, longer = end.identity, end.active(*peers.SEGMENTS)
    if not longer or not end.active(*peers.CHECKSUMS):
        # Without offloaded checksums nothing is sent in one piece: harmonize_features().
        yield Precondition(name, Answer.YES, f"its peer, {peer.name}, sends by its MTU")
        return
    yield Precondition(
        name,
        Answer.NO,
        f"its peer, {peer.name}, sends TCP in pieces that are longer than its MTU ({_on(longer)}),"
        " and redirects in generic mode lose them (EMSGSIZE)",
        remedy=f"{PREPARE}; or {ethtool(peer, 'tx off')}",
    )


def _out_of_reach(name: str, facts: Facts, claim: str) -> Precondition:
    seen = facts.seen
    named = f"its peer, {seen.peer.link.name}," if seen.peer is not None else "its peer"
    why = (
        rights.named(facts.lacking)
        if facts.lacking
        else "no name and no process leads to its network namespace"
    )
    return Precondition(name, Answer.UNKNOWN, f"whether {named} {claim} cannot be seen: {why}")


def ethtool(interface: Identity, change: str) -> str:
    """Return the command that switches offloads of an interface, in its namespace."""
    return f"{nsenter(interface.netns)}ethtool -K {shlex.quote(interface.name)} {change}"


def _on(offloads: Iterable[str]) -> str:
    return f"ethtool: {', '.join(offloads)} on"
