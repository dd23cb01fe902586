# SPDX-License-Identifier: Apache-2.0
"""How a program sits on an interface's hook."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Self

from xdpkit.errors import UsageError
from xdpkit.uapi.if_link import XdpFlags


class Mode(enum.Enum):
    """The modes of XDP.

    One is never silently taken for another: a driver without native XDP is a refusal, not a reason
    to run generically.
    """

    NATIVE = "native"
    """In the driver, before the kernel makes an skb."""
    GENERIC = "generic"
    """In the network stack, on an skb; any interface can do it, more slowly. Also called skb."""
    OFFLOAD = "offload"
    """On the NIC."""

    @classmethod
    def parse(cls, text: Mode | str) -> Self:
        """Return the mode with this name; ``skb`` is another one for generic. A mode is itself.

        Raises:
            UsageError: there is none.
        """
        name = text.strip().lower() if isinstance(text, str) else text
        try:
            return cls(Mode.GENERIC if name == "skb" else name)
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise UsageError(
                f"use mode {text!r}", cause=f"the modes are {known} (or skb, for generic)"
            ) from None

    @classmethod
    def choice(cls, mode: Mode | str | Sequence[Mode | str] | None) -> tuple[Mode, ...]:
        """Return the modes to be tried, in their order: "native,generic" are two. None is native.

        Raises:
            UsageError: there is no such mode, none at all, or one twice.
        """
        if mode is None:
            mode = Mode.NATIVE
        elif isinstance(mode, str):
            mode = mode.split(",")
        modes = tuple(map(cls.parse, mode if isinstance(mode, Iterable) else [mode]))
        if not modes or len(set(modes)) != len(modes):
            names = ", ".join(each.value for each in modes) or "none"
            raise UsageError(
                "choose from several modes", cause=f"each is to be named once, not {names}"
            )
        return modes

    @property
    def flag(self) -> XdpFlags:
        """The mode's ``XDP_FLAGS_*_MODE``, for links and netlink alike."""
        return _FLAGS[self]


_FLAGS = {
    Mode.NATIVE: XdpFlags.DRV_MODE,
    Mode.GENERIC: XdpFlags.SKB_MODE,
    Mode.OFFLOAD: XdpFlags.HW_MODE,
}


class Via(enum.Enum):
    """What holds a program on its hook."""

    LINK = "link"
    NETLINK = "netlink"

    @classmethod
    def parse(cls, text: Via | str) -> Self:
        """Return the way with this name. A way is itself.

        Raises:
            UsageError: there is none.
        """
        try:
            return cls(text.strip().lower() if isinstance(text, str) else text)
        except ValueError:
            raise UsageError(
                f"hold a program by {text!r}", cause="a link or netlink holds it: link, netlink"
            ) from None
