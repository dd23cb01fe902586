# SPDX-License-Identifier: Apache-2.0
"""Which hook is meant."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.hook.looking import examine
from xdpkit.hook.pins import DEFAULT_ROOT, Pins
from xdpkit.hook.state import HookStatus
from xdpkit.interfaces import Interface, resolve


@dataclass(frozen=True, slots=True)
class Place:
    """An interface's hook.

    Attributes:
        iface: interface name, or index.
        netns: name or path of the interface's network namespace; None: the caller's own.
        pin_root: a mounted bpffs.
    """

    iface: str | int
    netns: str | None = None
    pin_root: str = DEFAULT_ROOT

    @property
    def pins(self) -> Pins:
        return Pins(self.pin_root)

    def resolve(self) -> Interface:
        """Return the interface as it is now.

        Raises:
            UsageError: there is no such interface or namespace.
        """
        return resolve(self.iface, netns=self.netns)

    def look(self) -> HookStatus:
        """Return what is on the hook now.

        Raises:
            UsageError: there is no such interface or namespace.
        """
        (found,) = examine([self.resolve()], self.pins)
        return found
