# SPDX-License-Identifier: Apache-2.0
"""What is on an interface's hook: add, replace, delete, look.

Names are imported when they are first used: ``xdpkit status`` has to answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit.hook.add import Add
    from xdpkit.hook.attaching import attach, detach
    from xdpkit.hook.changes import prepare_add, prepare_delete, prepare_replace
    from xdpkit.hook.cleaning import Cleaned, clean
    from xdpkit.hook.delete import Delete, Detached
    from xdpkit.hook.hook import Hook
    from xdpkit.hook.looking import status
    from xdpkit.hook.mode import Mode, Via
    from xdpkit.hook.queues import AllQueues, Queues
    from xdpkit.hook.rearranging import AddBeside, DeleteFrom, ReplaceWithin
    from xdpkit.hook.record import Origin, PortOf, Record, StoredRecord
    from xdpkit.hook.replace import Replace
    from xdpkit.hook.request import Terms
    from xdpkit.hook.state import (
        AttachedProgram,
        HookStatus,
        MapSummary,
        Owner,
        ProgramSummary,
    )
    from xdpkit.hook.taps import Tap, Tapped
    from xdpkit.hook.xdpprog import XdpProg

__all__ = [
    "Add",
    "AddBeside",
    "AllQueues",
    "AttachedProgram",
    "Cleaned",
    "Delete",
    "DeleteFrom",
    "Detached",
    "Hook",
    "HookStatus",
    "MapSummary",
    "Mode",
    "Origin",
    "Owner",
    "PortOf",
    "ProgramSummary",
    "Queues",
    "Record",
    "Replace",
    "ReplaceWithin",
    "StoredRecord",
    "Tap",
    "Tapped",
    "Terms",
    "Via",
    "XdpProg",
    "attach",
    "clean",
    "detach",
    "prepare_add",
    "prepare_delete",
    "prepare_replace",
    "status",
]

_HOMES = {
    "add": ("Add",),
    "attaching": ("attach", "detach"),
    "changes": ("prepare_add", "prepare_delete", "prepare_replace"),
    "cleaning": ("Cleaned", "clean"),
    "delete": ("Delete", "Detached"),
    "hook": ("Hook",),
    "looking": ("status",),
    "mode": ("Mode", "Via"),
    "queues": ("AllQueues", "Queues"),
    "rearranging": ("AddBeside", "DeleteFrom", "ReplaceWithin"),
    "record": ("Origin", "PortOf", "Record", "StoredRecord"),
    "replace": ("Replace",),
    "request": ("Terms",),
    "state": ("AttachedProgram", "HookStatus", "MapSummary", "Owner", "ProgramSummary"),
    "taps": ("Tap", "Tapped"),
    "xdpprog": ("XdpProg",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"xdpkit.hook.{module}"), name)
    globals()[name] = value
    return value
