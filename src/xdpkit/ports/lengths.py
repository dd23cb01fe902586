# SPDX-License-Identifier: Apache-2.0
"""How long the frames are that come in by a port, and how long they may be to leave by it.

What comes in by a veth is as long as its peer's MTU allows. What is longer than the MTU of the
interface that it is redirected to gets lost (EMSGSIZE, xdp_ok_fwd_dev() in include/linux/filter.h);
of a veth, the peer's MTU counts too (veth_xdp_xmit() in drivers/net/veth.c).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from xdpkit.capabilities import Answer, Precondition
from xdpkit.errors import XdpkitError
from xdpkit.interfaces import veth as veths
from xdpkit.interfaces.interface import Interface
from xdpkit.interfaces.observation import Observation
from xdpkit.syscalls import netns, rtnetlink
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.rtnetlink import LinkInfo

_MOST = 4

_WHAT = "see how long frames are at other ports"

_REMEDY = "give all ports the same MTU, and the peers of those that are a veth"


@dataclass(frozen=True, slots=True)
class Lengths:
    """MTUs, in bytes without the Ethernet header.

    Attributes:
        name: the interface.
        receives: what comes in by it is not longer. sends: what is longer does not leave by it.
    """

    name: str
    receives: int
    sends: int


def of(seen: Observation) -> Lengths:
    """Return the lengths of an interface that was observed."""
    return _of(seen.link, seen.peer.link if seen.peer is not None else None)


def of_others(interfaces: Iterable[Interface]) -> tuple[Lengths, ...]:
    """Return the lengths of interfaces; those that are not there any more are left out."""
    by_namespace: dict[str | None, list[int]] = {}
    for each in interfaces:
        by_namespace.setdefault(each.netns, []).append(each.index)
    found: list[Lengths] = []
    for name, indexes in by_namespace.items():
        with contextlib.suppress(XdpkitError):
            with netns.entered(name):
                route = NetlinkSocket()
            with route:
                found += _asked(route, indexes)
    return tuple(found)


def _asked(route: NetlinkSocket, indexes: Collection[int]) -> Iterator[Lengths]:
    links = rtnetlink.find_links(route, indexes, what=_WHAT)
    near = {
        link.peer_index
        for link in links.values()
        if link.kind == veths.KIND and link.peer_index is not None and link.peer_netns_id is None
    }
    peers = links | rtnetlink.find_links(route, near - links.keys(), what=_WHAT)
    for link in links.values():
        yield _of(link, _peer(route, link, peers))


def _peer(route: NetlinkSocket, link: LinkInfo, near: Mapping[int, LinkInfo]) -> LinkInfo | None:
    if link.kind != veths.KIND or link.peer_index is None:
        return None
    if link.peer_netns_id is None:
        return near.get(link.peer_index)
    try:
        return rtnetlink.get_link(
            route, index=link.peer_index, netns_id=link.peer_netns_id, what=_WHAT
        )
    except XdpkitError:
        # Looking into its namespace takes a capability there.
        return None


def _of(link: LinkInfo, peer: LinkInfo | None) -> Lengths:
    if peer is None:
        return Lengths(link.name, link.mtu, link.mtu)
    return Lengths(link.name, peer.mtu, min(link.mtu, peer.mtu))


def condition(own: Lengths, others: Iterable[Lengths]) -> Precondition:
    """Return whether all that comes in by one port can leave by the others. Pure.

    Args:
        own: those of the interface that is asked about. others: those of the other ports.
    """
    known = tuple(others)
    longer = [each.name for each in known if each.receives > own.sends]
    shorter = [each.name for each in known if each.sends < own.receives]
    told = []
    if longer:
        told.append(
            f"frames longer than MTU {own.sends}, as come in by {_listed(longer)}, cannot leave by"
            f" {own.name}"
        )
    if shorter:
        told.append(
            f"frames of MTU {own.receives}, as come in by {own.name}, cannot leave by"
            f" {_listed(shorter)}"
        )
    if not told:
        return Precondition("mtu", Answer.YES, f"MTU {own.sends}")
    lost = f"{'; '.join(told)}: they get lost (EMSGSIZE)"
    return Precondition("mtu", Answer.NO, lost, remedy=_REMEDY)


def _listed(names: Sequence[str]) -> str:
    if len(names) > _MOST:
        return f"{', '.join(names[:_MOST])} and {len(names) - _MOST} more"
    return ", ".join(names)
