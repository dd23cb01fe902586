# SPDX-License-Identifier: Apache-2.0
"""Port tables: interfaces with numbers that stay theirs, and maps that follow the interfaces.

::

    with xdpkit.PortTable.create("lan") as lan:
        lan.add("eth1")
        lan.add("eth2")
    with xdpkit.ports.watch() as watched:
        for change in watched:
            print(change)

Names are imported when they are first used, so that a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.ports.destroying import sweep
    from xdpkit.ports.fitness import negotiate
    from xdpkit.ports.planning import Change, Event
    from xdpkit.ports.table import PortTable, tables
    from xdpkit.ports.watching import Watch, watch
    from xdpkit.tables.model import Identity, Port, PortSet, Preparation, Table

__all__ = [
    "Change",
    "Event",
    "Identity",
    "Port",
    "PortSet",
    "PortTable",
    "Preparation",
    "Table",
    "Watch",
    "negotiate",
    "sweep",
    "tables",
    "watch",
]

_HOMES = {
    "xdpkit.ports.destroying": ("sweep",),
    "xdpkit.ports.fitness": ("negotiate",),
    "xdpkit.ports.planning": ("Change", "Event"),
    "xdpkit.ports.table": ("PortTable", "tables"),
    "xdpkit.ports.watching": ("Watch", "watch"),
    "xdpkit.tables.model": ("Identity", "Port", "PortSet", "Preparation", "Table"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value
