# SPDX-License-Identifier: Apache-2.0
"""What is special about a veth: most of it depends on the peer (drivers/net/veth.c).

Packets that come in are what the peer sends, so buffers depend on the peer's MTU and queues on its
queues. Frames that go out, by XDP_TX or redirected, are received by the peer's NAPI, which it has
while it has a program or GRO. XDP_TX wakes that NAPI only if the peer has a program: with GRO alone
the frames lie there until something else wakes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from xdpkit.capabilities import Answer, Finding, Precondition
from xdpkit.interfaces import table
from xdpkit.interfaces.observation import Observation, Peer
from xdpkit.interfaces.preconditions import set_mtu
from xdpkit.syscalls.netns import nsenter
from xdpkit.syscalls.rtnetlink import LinkInfo
from xdpkit.uapi.if_link import IFF_UP

KIND = "veth"

# XDP_PACKET_HEADROOM; sizeof(struct skb_shared_info) in whole cache lines of 64 bytes; ETH_HLEN.
# NET_IP_ALIGN is 0 on x86.
_HEADROOM = 256
_SHARED_INFO = 320
_HEADER = 14

_GRO_SINCE = (5, 14)


def largest_mtu(page_size: int) -> int:
    """Return the largest MTU of the peer, in bytes, that admits a program without frags."""
    return page_size - _HEADROOM - _SHARED_INFO - _HEADER


def findings(seen: Observation, found: dict[str, Finding]) -> Iterator[Finding]:
    """Yield what a veth's peer makes different from what netdev and the table say."""
    if found["mode-native"].answer is Answer.YES:
        yield _tx(seen, found["redirect-target"])
    yield from _targets(seen, found)
    if seen.netdev is not None and not seen.netdev.features:
        why = _why_queues_do_not_match(seen)
        if why is not None:
            for name, finding in found.items():
                if (
                    finding.answer is Answer.NO
                    and finding.evidence == found["mode-native"].evidence
                ):
                    yield Finding(name, Answer.NO, f"netdev: xdp-features 0, because {why}")


def preconditions(seen: Observation) -> Iterator[Precondition]:
    """Yield what veth_xdp_set() checks."""
    peer = seen.peer
    if peer is None:
        gone = seen.link.peer_index is None
        yield Precondition(
            "peer",
            Answer.NO if gone else Answer.UNKNOWN,
            f"the peer of {seen.link.name} is not known: {seen.peer_unknown}",
        )
        return
    yield Precondition("peer", Answer.YES, f"the peer of {seen.link.name} is {_named(peer, seen)}")
    yield _mtu(seen, peer)
    yield _queues(seen, peer)


def _named(peer: Peer, seen: Observation) -> str:
    elsewhere = " in another namespace" if _is_far(seen) else ""
    return f"{peer.link.name}{elsewhere}"


def _is_far(seen: Observation) -> bool:
    return seen.link.peer_netns_id is not None


def _tx(seen: Observation, target: Finding) -> Finding:
    name = "action-tx"
    if seen.peer is None:
        if target.answer is Answer.NO:
            return Finding(name, Answer.NO, f"{target.evidence}: the peer cannot receive frames")
        return Finding(name, Answer.UNKNOWN, f"the peer is not known: {seen.peer_unknown}")
    named = _named(seen.peer, seen)
    if seen.peer.link.xdp.native is not None:
        return Finding(name, Answer.YES, f"the peer, {named}, has a native program")
    if seen.kernel.release is None or seen.kernel.release > table.newest():
        return Finding(name, Answer.UNKNOWN, f"the peer, {named}, has no native program")
    return Finding(
        name,
        Answer.NO,
        f"the peer, {named}, has no native program: frames that XDP_TX sends get lost there"
        " (veth_xdp_flush() in drivers/net/veth.c)",
    )


def _targets(seen: Observation, found: dict[str, Finding]) -> Iterator[Finding]:
    """Yield whether other interfaces can redirect to this one."""
    for name in ("redirect-target", "redirect-target-frags"):
        finding = found[name]
        if seen.netdev is None and finding.answer is not Answer.NO:
            finding = _target_by_peer(seen, name)
        elif seen.netdev is not None and finding.answer is Answer.NO:
            finding = Finding(name, Answer.NO, f"{finding.evidence}; {_why_no_target(seen)}")
        elif finding.answer is Answer.YES and _receives_nothing(seen.peer):
            # veth_set_features() clears NDO_XMIT only while the peer is up.
            finding = Finding(name, Answer.NO, f"{finding.evidence}, but {_why_no_target(seen)}")
        if finding.answer is Answer.YES and seen.peer is not None and not _is_up(seen.peer.link):
            why = f"{finding.evidence}, but the peer, {_named(seen.peer, seen)}, is down"
            finding = Finding(name, Answer.UNKNOWN, why)
        yield finding


def _target_by_peer(seen: Observation, name: str) -> Finding:
    """Return whether frames can be redirected to a veth, in a kernel without the netdev family."""
    peer = seen.peer
    if peer is None:
        return Finding(name, Answer.UNKNOWN, f"the peer is not known: {seen.peer_unknown}")
    named = _named(peer, seen)
    if peer.link.xdp.native is not None:
        return Finding(name, Answer.YES, f"the peer, {named}, has a native program")
    without = f"the peer, {named}, has no native program"
    if not seen.kernel.has(_GRO_SINCE):
        return Finding(name, Answer.UNKNOWN if seen.kernel.backports else Answer.NO, without)
    if peer.gro is None:
        return Finding(name, Answer.UNKNOWN, f"{without}, and whether it has GRO is not known")
    if peer.gro:
        return Finding(name, Answer.YES, f"{without}, but GRO")
    return Finding(name, Answer.NO, f"{without}, and no GRO")


def _receives_nothing(peer: Peer | None) -> bool:
    """Whether a peer certainly has no NAPI: it takes a native program or GRO."""
    return peer is not None and peer.gro is False and peer.link.xdp.native is None


def _why_no_target(seen: Observation) -> str:
    peer = seen.peer
    if peer is None:
        return "its peer has neither a program nor GRO"
    named = _named(peer, seen)
    if not peer.gro:
        return f"its peer, {named}, has neither a native program nor GRO"
    if not _is_up(peer.link):
        return f"its peer, {named}, has GRO, but is down"
    # veth_set_features() sets NDO_XMIT only while the peer is up, and veth_open() does not.
    return f"its peer, {named}, has GRO, but got it while it was down: switch it off and on again"


def _is_up(link: LinkInfo) -> bool:
    return bool(link.flags & IFF_UP)


def _mtu(seen: Observation, peer: Peer) -> Precondition:
    limit = largest_mtu(seen.page_size)
    named, mtu = _named(peer, seen), peer.link.mtu
    if mtu <= limit:
        answer = Answer.YES
    else:
        known = table.has_limits_for(seen.machine, seen.page_size)
        answer = Answer.NO if known else Answer.UNKNOWN
    return Precondition(
        "mtu",
        answer,
        f"the peer, {named}, has MTU {mtu}; without frags a packet of MTU {limit} fits",
        waived_by="frags",
        remedy=None if answer is Answer.YES else _lower_mtu(seen, peer, limit),
    )


def _lower_mtu(seen: Observation, peer: Peer, limit: int) -> str:
    command = set_mtu(peer.link.name, limit)
    if _is_far(seen):
        # The kernel has a number for the peer's namespace, but no way to enter it by that.
        return f"lower the peer's MTU, in its namespace: {command}"
    return f"lower the peer's MTU: {nsenter(seen.interface.netns)}{command}"


def _queues(seen: Observation, peer: Peer) -> Precondition:
    remedy = None
    if seen.channels is None:
        # Linux 5.14 (34829eec3b77): ethtool channels; before, a veth uses all queues it was made
        # with.
        mine, theirs, is_exact = seen.link.rx_queues, peer.link.tx_queues, True
    elif peer.channels is None:
        # Of a peer in another namespace only the largest number that it may use is known.
        mine, theirs, is_exact = seen.channels.rx, peer.link.tx_queues, False
    else:
        mine, theirs, is_exact = seen.channels.rx, peer.channels.tx, True
        command = f"ethtool -L {shlex.quote(peer.link.name)} tx {mine}"
        remedy = f"reduce the peer's queues: {nsenter(seen.interface.netns)}{command}"
    if theirs <= mine or (seen.netdev is not None and seen.netdev.features and not is_exact):
        answer = Answer.YES
    else:
        answer = Answer.NO if is_exact else Answer.UNKNOWN
    return Precondition(
        "queues",
        answer,
        f"{seen.link.name} receives on {_count(mine)}, its peer sends on"
        f" {'' if is_exact else 'at most '}{_count(theirs)}",
        remedy=remedy if answer is Answer.NO else None,
    )


def _count(queues: int) -> str:
    return f"{queues} queue{'' if queues == 1 else 's'}"


def _why_queues_do_not_match(seen: Observation) -> str | None:
    if seen.peer is None:
        return None
    queues = _queues(seen, seen.peer)
    return queues.evidence if queues.answer is Answer.NO else None
