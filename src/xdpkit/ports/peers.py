# SPDX-License-Identifier: Apache-2.0
"""The other end of a veth: where it is, and what it says of itself there.

rtnetlink names a peer in another network namespace by a number that does not lead there. So the
namespaces that can be reached are asked whose number it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import namespaces
from xdpkit.interfaces import veth as veths
from xdpkit.interfaces.interface import Interface
from xdpkit.interfaces.observation import Observation, observe, peer_seen_from
from xdpkit.ports import rights, seeing
from xdpkit.ports.recognising import recognise
from xdpkit.ports.seeing import Sight
from xdpkit.syscalls import ethtool, netns, nsid, rtnetlink
from xdpkit.syscalls.ethtool import Offload
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.tables.model import Identity
from xdpkit.uapi.capability import Capability

CHECKSUMS = (
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "tx-checksum-sctp",
)
"""What an interface's stack leaves unfinished on what it sends, if on: checksums."""

VLAN_TAGS = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")
"""If on, VLAN tags are kept beside the frames that it sends, and not in them."""

SEGMENTS = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")
"""If on, it sends what is longer than its MTU."""

TAKEN_VLAN_TAGS = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
"""If on, a NIC takes VLAN tags out of the frames that it receives."""


@dataclass(frozen=True, slots=True)
class End:
    """The peer of a veth, where it can be reached.

    Attributes:
        identity: what it is, and how its namespace is entered.
        offloads: those of its offloads that matter here, by kernel name.
    """

    identity: Identity
    offloads: Mapping[str, Offload]

    def active(self, *names: str) -> tuple[str, ...]:
        """Return those of some offloads that are on."""
        return tuple(name for name in names if name in self.offloads and self.offloads[name].active)


def look(interface: Interface) -> tuple[Observation, End | None]:
    """Return what is observed of an interface, and its peer where it is a veth.

    The peer is looked at in its own namespace, if that can be reached; else there is no end.

    Raises:
        UsageError: the interface, or its namespace, is not there any more.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    seen = observe(interface.index, netns_name=interface.netns)
    if seen.link.kind != veths.KIND or seen.peer is None:
        return seen, None
    where = _namespace_of_peer(seen)
    if where is None:
        return seen, None
    place, cookie = where
    index = seen.peer.link.index
    with seeing.inside(place, cookie) as is_there:
        if not is_there:
            return seen, None
        try:
            identity = replace(seeing.identify(index, None), netns=place)
            with NetlinkSocket() as route:
                link = rtnetlink.get_link(route, index=index, what="look at a veth's peer")
                peer = peer_seen_from(route, link)
                offloads = ethtool.offloads_of(route, index, *CHECKSUMS, *VLAN_TAGS, *SEGMENTS)
        except XdpkitError:
            # It has gone, or moved on.
            return seen, None
    return replace(seen, peer=peer), End(identity, offloads)


def lacking(seen: Observation) -> tuple[Capability, ...]:
    """Return the capabilities for lack of which a veth's peer may not have been reached.

    Args:
        seen: what :func:`look` returned without an end.
    """
    if seen.link.kind != veths.KIND or seen.link.peer_netns_id is None:
        return ()
    # rtnetlink says of another namespace what CAP_NET_ADMIN there may know.
    to_ask = () if seen.peer is not None else (Capability.NET_ADMIN,)
    return rights.lacking(*to_ask, Capability.SYS_ADMIN)


def offloads_of(interface: Interface, *names: str) -> Mapping[str, Offload]:
    """Return the state of some of an interface's offloads, by kernel name.

    Raises:
        UsageError: its namespace is not there any more.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    with netns.entered(interface.netns), NetlinkSocket() as route:
        return ethtool.offloads_of(route, interface.index, *names)


def find_again(before: Identity) -> tuple[Identity | None, int]:
    """Return an interface as it is now, and how many namespaces could not be searched for it.

    None: it is not there. Another one that only has got its name does not count.
    """
    found = _recognised(before, seeing.look([before]))
    if found is not None:
        return found, 0
    sight = seeing.look_everywhere([before], foreign=True)
    return _recognised(before, sight), sight.unseen


def _recognised(before: Identity, sight: Sight) -> Identity | None:
    found = recognise({0: before}, sight.interfaces).get(0)
    if found is None or (found.place != before.place and found.mac != before.mac):
        return None
    return found


def _namespace_of_peer(seen: Observation) -> tuple[str | None, int] | None:
    """Return how to enter the namespace of a veth's peer, and its cookie; None: it is not known."""
    own = seen.interface
    if seen.link.peer_netns_id is None:
        return own.netns, own.netns_cookie
    with netns.entered(own.netns):
        route = NetlinkSocket()
    with route:
        for place in namespaces.reachable().values():
            if _is_number(route, place, seen.link.peer_netns_id):
                return place.netns, place.cookie
    return None


def _is_number(route: NetlinkSocket, place: namespaces.Place, number: int) -> bool:
    """Whether a namespace is the one that the socket's namespace has a number for."""
    try:
        with netns.entered(place.netns), netns.own("find a veth's peer") as descriptor:
            return nsid.netns_id_of(route, descriptor.fileno()) == number
    except XdpkitError:
        return False
