# SPDX-License-Identifier: Apache-2.0
"""Which interface is meant by the number of a namespace and an index, which tracepoints tell.

The number is the namespace's cookie, which is never used again, or the inode number of its file, as
``ls -L -i /run/netns`` shows it, which the kernel gives to another one soon after a namespace has
ended.
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import Interface, list_all
from xdpkit.monitor.model import Where
from xdpkit.syscalls import netns, proc

if TYPE_CHECKING:
    from xdpkit.capabilities import Answer


class _Namespace(NamedTuple):
    """A network namespace.

    Attributes:
        netns: how to enter it: None for the caller's own, its name, or the file of a process.
        title: what to call it.
    """

    netns: str | None
    title: str


class Places:
    """The interfaces of this machine's network namespaces, at one moment.

    Namespaces other than the one that was asked for are looked for when the first is needed, and
    entered when their interfaces are.

    Attributes:
        netns: the namespace that was asked for, None: the caller's own.
        number: its number.
        by_cookie: whether numbers are cookies.
    """

    def __init__(self, name: str | None = None, *, by_cookie: bool = False) -> None:
        """Look from a namespace.

        Args:
            name: name or path of a network namespace; None: the caller's own.
            by_cookie: whether numbers are cookies, or inode numbers.

        Raises:
            UsageError: there is no such namespace.
            MissingPrivilege: entering another one takes CAP_SYS_ADMIN.
            RequirementUnmet: there is no /proc.
        """
        self.netns = name
        self.by_cookie = by_cookie
        with netns.entered(name):
            self.number = self._number()
        self._interfaces: dict[int, dict[int, Interface]] = {}
        self._answers: dict[tuple[int, int, str], Answer] = {}

    def title(self, number: int) -> str:
        """Return what to call a namespace: "" for the one that was asked for."""
        if number == self.number:
            return ""
        found = self._others.get(number)
        if found is not None:
            return found.title
        return f"gone:[{number}]" if self.by_cookie else f"net:[{number}]"

    def where(self, number: int, ifindex: int, name: str) -> Where:
        """Return an interface.

        Args:
            number: of its namespace. ifindex: its index there.
            name: what it was called once, for one that is gone or out of reach; "": not known.
        """
        found = self.interface(number, ifindex)
        if found is None or (name and not self.by_cookie and name != found.name):
            # An inode number may be another namespace's by now, where the index is, too.
            return Where(self.title(number), name or f"interface {ifindex}", ifindex)
        return Where(self.title(number), found.name, ifindex)

    def interface(self, number: int, ifindex: int) -> Interface | None:
        """Return an interface, None if it is gone or its namespace out of reach."""
        if number not in self._interfaces:
            self._interfaces[number] = self._look(number)
        return self._interfaces[number].get(ifindex)

    def has(self, number: int, ifindex: int, capability: str) -> Answer:
        """Return whether an interface has a capability; unknown if it is gone or out of reach."""
        from xdpkit.capabilities import Answer

        key = (number, ifindex, capability)
        if key not in self._answers:
            self._answers[key] = Answer.UNKNOWN
            interface = self.interface(number, ifindex)
            if interface is not None:
                from xdpkit.interfaces import device_of

                mode = "generic" if interface.xdp.generic is not None else "native"
                with contextlib.suppress(XdpkitError):
                    found = device_of(ifindex, mode=mode, netns=interface.netns)
                    self._answers[key] = found.finding(capability).answer
        return self._answers[key]

    def _look(self, number: int) -> dict[int, Interface]:
        if number == self.number:
            place = _Namespace(self.netns, "")
        elif number in self._others:
            place = self._others[number]
        else:
            return {}
        # It can end, and its name or the number of its process come to mean another, meanwhile.
        with contextlib.suppress(XdpkitError):
            with netns.entered(place.netns):
                if self._number() != number:
                    return {}
            return {each.index: each for each in list_all(netns=place.netns)}
        return {}

    @cached_property
    def _others(self) -> dict[int, _Namespace]:
        """The namespaces that have a name or a process, by number."""
        found: dict[int, _Namespace] = {}
        seen: set[int] = set()
        for path, title in _files():
            try:
                inode = os.stat(path).st_ino
            except OSError:
                continue
            if inode in seen:
                continue
            seen.add(inode)
            place = _Namespace(path, title or f"net:[{inode}]")
            if not self.by_cookie:
                found[inode] = place
                continue
            with contextlib.suppress(XdpkitError), netns.entered(path):
                found[netns.cookie()] = place
        return found

    def _number(self) -> int:
        """Return the number of the namespace that the calling thread is in."""
        if self.by_cookie:
            return netns.cookie()
        with netns.own("tell network namespaces apart") as own:
            return os.fstat(own.fileno()).st_ino


def _files() -> list[tuple[str, str]]:
    """Return the files of namespaces, with their names; "" for those of processes."""
    try:
        names = sorted(os.listdir(netns.NAMED_FOLDER))
    except OSError:
        names = []
    return [
        *((netns.path_of(name), name) for name in names),
        *((f"/proc/{pid}/ns/net", "") for pid in proc.pids()),
    ]
