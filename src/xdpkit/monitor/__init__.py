# SPDX-License-Identifier: Apache-2.0
"""Troubleshooting and monitoring: what programs return, what happens then, and what goes wrong.

>>> monitor.install()                   # count what goes wrong, from now on
>>> monitor.take().tracepoints.errors   # what has gone wrong since
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.monitor.capturing import Capture
    from xdpkit.monitor.doctor import examine
    from xdpkit.monitor.events import EventReader
    from xdpkit.monitor.export import Exporter
    from xdpkit.monitor.model import Installed, Snapshot, Tracepoints
    from xdpkit.monitor.ports import PortReport, port_counts
    from xdpkit.monitor.resident import install, installed, remove
    from xdpkit.monitor.snapshot import read, take

__all__ = [
    "Capture",
    "EventReader",
    "Exporter",
    "Installed",
    "PortReport",
    "Snapshot",
    "Tracepoints",
    "examine",
    "install",
    "installed",
    "port_counts",
    "read",
    "remove",
    "take",
]

_HOME = {
    "Capture": "capturing",
    "EventReader": "events",
    "Exporter": "export",
    "Installed": "model",
    "PortReport": "ports",
    "Snapshot": "model",
    "Tracepoints": "model",
    "examine": "doctor",
    "install": "resident",
    "installed": "resident",
    "port_counts": "ports",
    "read": "snapshot",
    "remove": "resident",
    "take": "snapshot",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
