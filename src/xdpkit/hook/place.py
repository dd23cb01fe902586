# SPDX-License-Identifier: Apache-2.0
"""Which hook is meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from xdpkit.errors import UsageError
from xdpkit.hook.looking import examine
from xdpkit.hook.pins import Pins
from xdpkit.hook.state import HookStatus
from xdpkit.interfaces import Interface, resolve
from xdpkit.kernel.folder import DEFAULT_ROOT

StrPath = str | os.PathLike[str]


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

    @classmethod
    def named(cls, iface: str | int, netns: StrPath | None, pin_root: StrPath) -> Self:
        """Return the hook that a caller names.

        Raises:
            UsageError: something is neither a name nor, of an interface, an index.
        """
        what = f"name the hook of {iface!r}"
        if isinstance(iface, bool) or not isinstance(iface, str | int):
            raise UsageError(what, cause="an interface is named by its name or by its index")
        try:
            return cls(iface, None if netns is None else os.fsdecode(netns), os.fsdecode(pin_root))
        except TypeError as error:
            raise UsageError(
                what, cause=f"names and paths are text: netns={netns!r}, pin_root={pin_root!r}"
            ) from error

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
        return self._look_at(self.resolve())

    def resolve_again(self, seen: Interface) -> Interface:
        """Return an interface that was seen here as it is now, by whatever name.

        Raises:
            UsageError: it is not there any more.
        """
        now = resolve(seen.index, netns=self.netns)
        if now.netns_cookie != seen.netns_cookie:
            raise UsageError(
                f"find interface {seen.name!r} again",
                cause="it was seen in another network namespace than the one that is meant now",
            )
        return now

    def look_again(self, seen: Interface) -> HookStatus:
        """Return what is on the hook of an interface that was seen here, by whatever name.

        Raises:
            UsageError: it is not there any more.
        """
        return self._look_at(self.resolve_again(seen))

    def _look_at(self, interface: Interface) -> HookStatus:
        (found,) = examine([interface], self.pins)
        return found
