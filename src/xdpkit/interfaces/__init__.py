# SPDX-License-Identifier: Apache-2.0
"""Network interfaces: what they are called, what drives them, what they offer to XDP.

Findings are imported when they are first used: a list of interfaces does without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from xdpkit.interfaces.interface import Interface, list_all, resolve
from xdpkit.syscalls.rtnetlink import XdpIds

if TYPE_CHECKING:
    from xdpkit.interfaces.device import device_of
    from xdpkit.interfaces.profiles import profile
    from xdpkit.interfaces.watching import Watch, watch

__all__ = [
    "Interface",
    "Watch",
    "XdpIds",
    "device_of",
    "list_all",
    "profile",
    "resolve",
    "watch",
]

_HOME = {
    "Watch": "xdpkit.interfaces.watching",
    "device_of": "xdpkit.interfaces.device",
    "profile": "xdpkit.interfaces.profiles",
    "watch": "xdpkit.interfaces.watching",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value
