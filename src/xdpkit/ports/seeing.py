# SPDX-License-Identifier: Apache-2.0
"""The interfaces that there are now: where ports were, or in all network namespaces.

Where a port was, the kernel is asked for what has its index or its name. That costs little, and
says the same whatever else is there, and however fast that changes. Only for what is missing all
namespaces are looked through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import interface as found_by
from xdpkit.interfaces import namespaces
from xdpkit.syscalls import netns, rtnetlink
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.rtnetlink import LinkInfo
from xdpkit.tables.model import Identity

# Each namespace has a loopback device, with this index. So one that was looked into is seen to be
# there, also if it has nothing that was looked for.
_LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class Sight:
    """Interfaces of some network namespaces, at one moment.

    Attributes:
        interfaces: those that were seen; each once.
        places: the namespaces that were looked into: how to enter each, by its cookie.
        unseen: how many others there may be that could not be.
    """

    interfaces: tuple[Identity, ...]
    places: Mapping[int, str | None]
    unseen: int = 0

    def then(self, later: Sight) -> Sight:
        """Return what was seen before, and then."""
        # As it was called by whoever added it.
        found = {each.place: each for each in (*later.interfaces, *self.interfaces)}
        return Sight(tuple(found.values()), {**later.places, **self.places}, later.unseen)


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
        return _identity(link, connection.netns_cookie(), netns_name)


def look(known: Collection[Identity]) -> Sight:
    """Return what has the index or the name of interfaces where they were when last seen.

    A namespace is entered by what it was called. If another one is called so now, what has the
    name there is seen, too.
    """
    called: dict[str | None, set[str]] = {None: set()}
    for each in known:
        called.setdefault(each.netns, set()).add(each.name)
    interfaces: list[Identity] = []
    places: dict[int, str | None] = {}
    there = _by_namespace(known)
    # The caller's own may be it, whatever it was called by whom.
    for name in sorted(called, key=lambda name: name or ""):
        with contextlib.suppress(XdpkitError), netns.entered(name):
            cookie = netns.cookie()
            # A path may be any process's by now.
            names = called[name] if name is not None and "/" not in name else ()
            if cookie in places or not (cookie in there or names):
                continue
            interfaces += _asked(cookie, name, there.get(cookie, ()), names)
            places[cookie] = name
    return Sight(tuple(interfaces), places)


def look_everywhere(known: Collection[Identity] = (), *, foreign: bool = False) -> Sight:
    """Return the interfaces of all network namespaces that can be reached.

    Not those of other user namespaces: what is there has any name and address that somebody gave
    it, be it those of a port. Of these, only what :func:`look` would return.

    Args:
        known: interfaces as they were when they were last seen.
        foreign: what has the index or the name of any of these is returned from there, too.
    """
    reachable = namespaces.reachable()
    there = _by_namespace(known)
    interfaces: list[Identity] = []
    places: dict[int, str | None] = {}
    for cookie, place in reachable.items():
        wanted = known if foreign else there.get(cookie, ())
        if place.is_foreign and not wanted:
            continue
        with inside(place.netns, cookie) as is_there, contextlib.suppress(XdpkitError):
            if is_there:
                if place.is_foreign:
                    interfaces += _asked(cookie, place.netns, wanted)
                else:
                    interfaces += _listed(cookie, place.netns)
                places[cookie] = place.netns
    return Sight(tuple(interfaces), places, reachable.unseen)


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


def _by_namespace(known: Iterable[Identity]) -> dict[int, list[Identity]]:
    found: dict[int, list[Identity]] = {}
    for each in known:
        found.setdefault(each.netns_cookie, []).append(each)
    return found


def _asked(
    cookie: int, netns_name: str | None, wanted: Iterable[Identity], names: Collection[str] = ()
) -> Iterator[Identity]:
    """Yield what has an index or a name of these, in the calling thread's namespace."""
    what = "look for the interfaces of ports"
    wanted = tuple(wanted)
    with NetlinkSocket() as connection:
        links = rtnetlink.find_links(
            connection, {_LOOPBACK, *(each.ifindex for each in wanted)}, what=what
        )
        missing = {each.name for each in wanted}.union(names)
        for name in missing.difference([link.name for link in links.values()]):
            link = rtnetlink.find_link(connection, name=name, what=what)
            if link is not None:
                links[link.index] = link
    for link in links.values():
        yield _identity(link, cookie, netns_name)


def _listed(cookie: int, netns_name: str | None) -> Iterator[Identity]:
    """Yield the interfaces of the calling thread's namespace."""
    with NetlinkSocket() as connection:
        links = rtnetlink.links_now(connection)
    for link in links.values():
        yield _identity(link, cookie, netns_name)


def _identity(link: LinkInfo, cookie: int, netns_name: str | None) -> Identity:
    return Identity(link.name, link.index, cookie, netns_name, link.mac, link.kind or "")
