# SPDX-License-Identifier: Apache-2.0
"""The network namespaces that this process can reach, to find where an interface went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.interfaces.interface import Interface, resolve
from xdpkit.syscalls import netns, proc

_OWN = "/proc/thread-self/ns/net"


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace.

    Attributes:
        netns: how to enter it: None for the one that the caller was in, its name in /run/netns, or
            a process's file, ``/proc/1234/ns/net``, which lasts as long as the process.
        cookie: its number, see :func:`xdpkit.syscalls.netns.cookie`. A name or a process's number
            can come to mean another namespace: compare the cookie once inside.
    """

    netns: str | None
    cookie: int


@dataclass(frozen=True, slots=True)
class Reachable(Mapping[int, Place]):
    """Network namespaces by cookie.

    Attributes:
        places: the namespaces.
        unseen: how many files of namespaces (of names, of processes) may not be looked at or
            entered; what they stand for may be among the places all the same.
    """

    places: Mapping[int, Place]
    unseen: int

    def __getitem__(self, cookie: int) -> Place:
        return self.places[cookie]

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def reachable() -> Reachable:
    """Return the caller's network namespace, those with a name, and those of processes.

    Each is entered once, however many processes are in it. One that ends meanwhile is left out.
    """
    places: dict[int, Place] = {}
    seen: set[tuple[int, int]] = set()
    unseen = 0
    for name, path in _candidates():
        try:
            status = os.stat(path)
        except PermissionError:
            unseen += 1
            continue
        except OSError:
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        with contextlib.ExitStack() as inside:
            try:
                inside.enter_context(netns.entered(name))
            except UsageError:
                continue
            except XdpkitError:
                seen.add(identity)
                unseen += 1
                continue
            seen.add(identity)
            cookie = netns.cookie()
        places.setdefault(cookie, Place(name, cookie))
    return Reachable(places, unseen)


def find(ifindex: int, program_id: int) -> list[tuple[Place, Interface]]:
    """Return the interfaces with this index and program, in all reachable namespaces.

    The index alone says little: it is unique within a namespace only. An interface keeps it when it
    moves, unless it is taken there.
    """
    found = []
    for place in reachable().values():
        interface = _look(place, ifindex)
        if interface is None:
            continue
        on_hooks = (interface.xdp.native, interface.xdp.generic, interface.xdp.offload)
        if program_id in on_hooks:
            found.append((place, interface))
    return found


def _look(place: Place, ifindex: int) -> Interface | None:
    """Return a namespace's interface; None if there is none, or another namespace is there now."""
    with contextlib.ExitStack() as inside:
        try:
            inside.enter_context(netns.entered(place.netns))
        except XdpkitError:
            return None
        if netns.cookie() != place.cookie:
            return None
        try:
            return replace(resolve(ifindex), netns=place.netns)
        except UsageError:
            return None


def _candidates() -> Iterator[tuple[str | None, str]]:
    """Yield how to enter namespaces, and the files that stand for them, the best way first."""
    yield None, _OWN
    try:
        names = sorted(os.listdir(netns.NAMED_FOLDER))
    except OSError:
        names = []
    for name in names:
        yield name, netns.path_of(name)
    for pid in proc.pids():
        path = f"/proc/{pid}/ns/net"
        yield path, path
