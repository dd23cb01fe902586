# SPDX-License-Identifier: Apache-2.0
"""The network namespaces that this process can reach, to find where an interface went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.interfaces.interface import Interface, resolve
from xdpkit.syscalls import netns, proc

_OWN = "/proc/thread-self/ns/net"
_OWN_DEVICES = "/proc/thread-self/net/dev"


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace.

    Attributes:
        netns: how to enter it: None for the one that the caller was in, its name in /run/netns, or
            a process's file, ``/proc/1234/ns/net``, which lasts as long as the process.
        cookie: its number, see :func:`xdpkit.syscalls.netns.cookie`. A name or a process's number
            can come to mean another namespace: compare the cookie once inside.
        is_foreign: whether it is one of another user namespace, and not the one that the caller is
            in; see :func:`xdpkit.syscalls.netns.is_foreign`.
    """

    netns: str | None
    cookie: int
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Reachable(Mapping[int, Place]):
    """Network namespaces by cookie.

    Attributes:
        places: the namespaces.
        unseen: how many files of namespaces (of names, of processes) may not be entered and may
            stand for others than these; processes that are hidden, as all outside a container
            are, count as one. 0: no other namespace has a name or a process.
    """

    places: Mapping[int, Place]
    unseen: int

    def __getitem__(self, cookie: int) -> Place:
        return self.places[cookie]

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class _Candidate(NamedTuple):
    """What a namespace can be found by.

    Attributes:
        netns: how to enter it. path: the file that stands for it.
        devices: where the process is that it was found by, the list of devices that this one sees.
    """

    netns: str | None
    path: str
    devices: str | None = None


def reachable() -> Reachable:
    """Return the caller's network namespace, those with a name, and those of processes.

    Each is entered once, however many processes are in it. One that ends meanwhile is left out.
    What only a thread is in, or an open file or a mount elsewhere keeps, is not found or counted.
    """
    places: dict[int, Place] = {}
    seen: set[tuple[int, int]] = set()
    lists: set[int] = set()
    closed: list[_Candidate] = []
    for candidate in _candidates():
        try:
            status = os.stat(candidate.path)
        except PermissionError:
            closed.append(candidate)
            continue
        except OSError:
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        with contextlib.ExitStack() as inside:
            try:
                inside.enter_context(netns.entered(candidate.netns))
            except UsageError:
                continue
            except XdpkitError:
                seen.add(identity)
                closed.append(candidate)
                continue
            seen.add(identity)
            cookie = netns.cookie()
            is_foreign = candidate.netns is not None and netns.is_foreign()
            with contextlib.suppress(OSError):
                lists.add(os.stat(_OWN_DEVICES).st_ino)
        places.setdefault(cookie, Place(candidate.netns, cookie, is_foreign))
    unseen = sum(_may_be_another(candidate, lists) for candidate in closed)
    return Reachable(places, unseen + (not proc.shows_all()))


def _may_be_another(candidate: _Candidate, lists: set[int]) -> bool:
    """Whether what cannot be entered may be a namespace other than those that were.

    The namespace of a process takes the right to trace it. Its list of devices does not, and each
    namespace has one, a file with a number of its own (fs/proc/proc_net.c; since Linux 5.0,
    1fde6f21d90f, also after the process moved).

    Args:
        candidate: what cannot be entered. lists: the numbers of the entered namespaces' lists.
    """
    if candidate.devices is None or not lists:
        return True
    try:
        return os.stat(candidate.devices).st_ino not in lists
    except (FileNotFoundError, ProcessLookupError):
        # It has ended, even if it is still there for its parent to see.
        return False
    except OSError:
        return True


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


def _candidates() -> Iterator[_Candidate]:
    """Yield what namespaces can be found by, the best way first."""
    yield _Candidate(None, _OWN)
    try:
        names = sorted(os.listdir(netns.NAMED_FOLDER))
    except OSError:
        names = []
    for name in names:
        yield _Candidate(name, netns.path_of(name))
    for pid in proc.pids():
        path = f"/proc/{pid}/ns/net"
        yield _Candidate(path, path, f"/proc/{pid}/net/dev")
