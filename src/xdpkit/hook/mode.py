# SPDX-License-Identifier: Apache-2.0
"""How a program sits on an interface's hook."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Self

from xdpkit.errors import UsageError
from xdpkit.uapi.if_link import XdpFlags

_ALIASES = {"skb": "generic"}


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
    def parse(cls, text: str) -> Self:
        """Return the mode with this name; ``skb`` is another one for generic.

        Raises:
            UsageError: there is none.
        """
        name = text.lower()
        try:
            return cls(_ALIASES.get(name, name))
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise UsageError(
                f"use mode {text!r}", cause=f"the modes are {known} (or skb, for generic)"
            ) from None

    @classmethod
    def choice(cls, mode: Mode | str | Sequence[Mode] | None) -> tuple[Mode, ...]:
        """Return the modes to be tried, in their order: "native,generic" are two.

        Raises:
            UsageError: there is no such mode, none at all, or one twice.
        """
        if mode is None:
            return (cls.parse("native"),)
        if isinstance(mode, str):
            modes: tuple[Mode, ...] = tuple(cls.parse(part.strip()) for part in mode.split(","))
        else:
            modes = (mode,) if isinstance(mode, Mode) else tuple(mode)
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
