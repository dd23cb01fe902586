# SPDX-License-Identifier: Apache-2.0
"""The interfaces that there are now, in the namespaces where ports are, or in all of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import interface as found_by
from xdpkit.interfaces import namespaces
from xdpkit.syscalls import netns
from xdpkit.syscalls.netlink import Message, NetlinkSocket, decode_attributes
from xdpkit.syscalls.rtnetlink import decode_link, encode_selector
from xdpkit.tables.model import Identity
from xdpkit.uapi.if_link import RouteMessage

_IFINFOMSG_SIZE = 16
_IFLA_ADDRESS = 1  # include/uapi/linux/if_link.h


@dataclass(frozen=True, slots=True)
class Sight:
    """The interfaces of some network namespaces, at one moment.

    Attributes:
        interfaces: all of them.
        places: the namespaces that were looked into: how to enter each, by its cookie.
    """

    interfaces: tuple[Identity, ...]
    places: Mapping[int, str | None]


def identify(iface: str | int, netns_name: str | None) -> Identity:
    """Return what an interface is known by.

    Args:
        iface: its name, an alternative name, or its index.
        netns_name: name or path of its network namespace; None: the caller's own.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    with netns.entered(netns_name), NetlinkSocket() as connection:
        link = found_by.find(connection, iface, netns=netns_name)
        answers = connection.request(
            RouteMessage.GETLINK,
            encode_selector(index=link.index),
            what=f"find interface {iface!r}",
        )
        (found,) = _described(answers, connection.netns_cookie(), netns_name)
    return found


def look(known: Iterable[Identity]) -> Sight:
    """Return the interfaces of the namespaces where some were when they were last seen.

    A namespace that cannot be entered, by what it was called or otherwise, is not among the places.
    """
    called: dict[int, set[str | None]] = {}
    for each in known:
        called.setdefault(each.netns_cookie, set()).add(each.netns)
    places: dict[int, str | None] = {}
    for cookie, names in called.items():
        # The caller's own may be it, too, whatever it was called by whom.
        for name in sorted(names | {None}, key=lambda name: name or ""):
            if _is_at(name, cookie):
                places[cookie] = name
                break
    if len(places) < len(called):
        everywhere = namespaces.reachable()
        for cookie in called.keys() - places.keys() & everywhere.keys():
            places[cookie] = everywhere[cookie].netns
    return _seen_in(places)


def look_everywhere() -> Sight:
    """Return the interfaces of all network namespaces that can be reached."""
    return _seen_in({cookie: place.netns for cookie, place in namespaces.reachable().items()})


@contextlib.contextmanager
def inside(name: str | None, cookie: int) -> Iterator[bool]:
    """Run the ``with`` block in a network namespace; yields whether it is the one with the cookie.

    Names come to mean other namespaces, and these may be out of reach.
    """
    with contextlib.ExitStack() as resources:
        try:
            resources.enter_context(netns.entered(name))
        except XdpkitError:
            is_there = False
        else:
            is_there = netns.cookie() == cookie
        yield is_there


def _is_at(name: str | None, cookie: int) -> bool:
    with inside(name, cookie) as is_there:
        return is_there


def _seen_in(places: Mapping[int, str | None]) -> Sight:
    interfaces: list[Identity] = []
    seen: dict[int, str | None] = {}
    for cookie, name in places.items():
        with inside(name, cookie) as is_there:
            if not is_there:
                continue
            with NetlinkSocket() as connection:
                answers = connection.dump(
                    RouteMessage.GETLINK, encode_selector(), what="list the interfaces"
                )
        interfaces += _described(answers, cookie, name)
        seen[cookie] = name
    return Sight(tuple(interfaces), seen)


def _described(
    answers: Iterable[Message], cookie: int, netns_name: str | None
) -> Iterator[Identity]:
    for message in answers:
        if message.type == RouteMessage.NEWLINK:
            name, ifindex, mac, kind = _marks(message.payload)
            yield Identity(name, ifindex, cookie, netns_name, mac, kind)


@functools.lru_cache(maxsize=4096)
def _marks(payload: bytes) -> tuple[str, int, bytes, str]:
    """Return name, index, address and kind of what an ``RTM_NEWLINK`` describes.

    Whoever looks again and again is mostly told the same again.
    """
    link = decode_link(payload)
    address = decode_attributes(payload[_IFINFOMSG_SIZE:]).get(_IFLA_ADDRESS, b"")
    return link.name, link.index, address, link.kind or ""
