# SPDX-License-Identifier: Apache-2.0
"""Which interface is meant by the number of a namespace and an index, which tracepoints tell.

The number of a namespace is the inode number of its file, as ``ls -L -i /run/netns`` shows it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import Interface, list_all
from xdpkit.monitor.model import Where
from xdpkit.syscalls import netns, proc

if TYPE_CHECKING:
    from xdpkit.capabilities import Answer


class Places:
    """The interfaces of this machine's network namespaces, at one moment.

    Attributes:
        netns: the namespace that was asked for, None: the caller's own.
        inode: its number.
    """

    def __init__(self, name: str | None = None) -> None:
        """Look from a namespace.

        Args:
            name: name or path of a network namespace; None: the caller's own.

        Raises:
            UsageError: there is no such namespace.
            MissingPrivilege: entering another one takes CAP_SYS_ADMIN.
            RequirementUnmet: there is no /proc.
        """
        self.netns = name
        with netns.entered(name), netns.own("tell network namespaces apart") as own:
            self.inode = os.fstat(own.fileno()).st_ino
        self._interfaces: dict[int, dict[int, Interface]] = {}
        self._transmits: dict[tuple[int, int, str], Answer] = {}

    def title(self, inode: int) -> str:
        """Return what to call a namespace: "" for the one that was asked for."""
        if inode == self.inode:
            return ""
        return _named().get(inode, f"net:[{inode}]")

    def where(self, inode: int, ifindex: int, name: str) -> Where:
        """Return an interface.

        Args:
            inode: number of its namespace. ifindex: its index there.
            name: what it was called once, for one that is gone or out of reach.
        """
        found = self.interface(inode, ifindex)
        return Where(self.title(inode), found.name if found is not None else name, ifindex)

    def interface(self, inode: int, ifindex: int) -> Interface | None:
        """Return an interface, None if it is gone or its namespace out of reach."""
        if inode not in self._interfaces:
            self._interfaces[inode] = self._look(inode)
        return self._interfaces[inode].get(ifindex)

    def has(self, inode: int, ifindex: int, capability: str) -> Answer:
        """Return whether an interface has a capability; unknown if it is gone or out of reach."""
        from xdpkit.capabilities import Answer

        key = (inode, ifindex, capability)
        if key not in self._transmits:
            self._transmits[key] = Answer.UNKNOWN
            interface = self.interface(inode, ifindex)
            if interface is not None:
                from xdpkit.interfaces import device_of

                mode = "generic" if interface.xdp.generic is not None else "native"
                with contextlib.suppress(XdpkitError):
                    found = device_of(ifindex, mode=mode, netns=interface.netns)
                    self._transmits[key] = found.finding(capability).answer
        return self._transmits[key]

    def _look(self, inode: int) -> dict[int, Interface]:
        name = self.netns if inode == self.inode else _file_of(inode)
        if name is None and inode != self.inode:
            return {}
        # It can end, and its name or the number of its process come to mean another, meanwhile.
        with contextlib.suppress(XdpkitError):
            with netns.entered(name), netns.own("tell network namespaces apart") as own:
                if os.fstat(own.fileno()).st_ino != inode:
                    return {}
            return {each.index: each for each in list_all(netns=name)}
        return {}


def _named() -> dict[int, str]:
    """Return the names of ``ip netns`` by the numbers of their namespaces."""
    found = {}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(netns.NAMED_FOLDER), reverse=True):
            with contextlib.suppress(OSError):
                found[os.stat(netns.path_of(name)).st_ino] = name
    return found


def _file_of(inode: int) -> str | None:
    """Return how to enter a namespace: its name, or the file of a process; None: none is known."""
    name = _named().get(inode)
    if name is not None:
        return name
    for pid in proc.pids():
        path = f"/proc/{pid}/ns/net"
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == inode:
                return path
    return None
