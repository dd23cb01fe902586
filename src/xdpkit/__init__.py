# SPDX-License-Identifier: Apache-2.0
"""XDP from Python: read, load and attach programs for the Linux kernel's receive hook.

::

    obj = xdpkit.read("fw.o")                                    # pure: nothing is loaded
    obj.variables["blocked_port"] = 53
    with xdpkit.attach("eth0", obj.programs["firewall"]) as attached:    # detached at exit
        print(attached.maps["hits"][1])

Names are imported when they are first used, so that a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpkit import monitor, ports
    from xdpkit.capabilities import Device
    from xdpkit.errors import (
        CompileError,
        HookBusy,
        KernelRefused,
        MissingPrivilege,
        ObjectFormatError,
        RequirementUnmet,
        UsageError,
        VerifierError,
        XdpkitError,
    )
    from xdpkit.hook import Hook, Mode, Via, XdpProg, attach, detach, status
    from xdpkit.hook.check import check
    from xdpkit.kernel import Collection, Context, Map, Program, load, load_all
    from xdpkit.monitor.cleaning import clean
    from xdpkit.negotiation import Negotiation, Outcome, Policy
    from xdpkit.obj import MapSpec, Object, ProgramSpec, read
    from xdpkit.ports.table import PortTable
    from xdpkit.uapi.bpf import XdpAction

__version__ = "0.1.0"

__all__ = [
    "Collection",
    "CompileError",
    "Context",
    "Device",
    "Hook",
    "HookBusy",
    "KernelRefused",
    "Map",
    "MapSpec",
    "MissingPrivilege",
    "Mode",
    "Negotiation",
    "Object",
    "ObjectFormatError",
    "Outcome",
    "Policy",
    "PortTable",
    "Program",
    "ProgramSpec",
    "RequirementUnmet",
    "UsageError",
    "VerifierError",
    "Via",
    "XdpAction",
    "XdpProg",
    "XdpkitError",
    "__version__",
    "attach",
    "check",
    "clean",
    "detach",
    "load",
    "load_all",
    "monitor",
    "ports",
    "read",
    "status",
]

_HOMES = {
    "xdpkit.capabilities": ("Device",),
    "xdpkit.errors": (
        "CompileError",
        "HookBusy",
        "KernelRefused",
        "MissingPrivilege",
        "ObjectFormatError",
        "RequirementUnmet",
        "UsageError",
        "VerifierError",
        "XdpkitError",
    ),
    "xdpkit.hook": (
        "Hook",
        "Mode",
        "Via",
        "XdpProg",
        "attach",
        "detach",
        "status",
    ),
    "xdpkit.hook.check": ("check",),
    "xdpkit.kernel": ("Collection", "Context", "Map", "Program", "load", "load_all"),
    "xdpkit.monitor.cleaning": ("clean",),
    "xdpkit.negotiation": ("Negotiation", "Outcome", "Policy"),
    "xdpkit.obj": ("MapSpec", "Object", "ProgramSpec", "read"),
    "xdpkit.ports.table": ("PortTable",),
    "xdpkit.uapi.bpf": ("XdpAction",),
}
_MODULES = frozenset({"monitor", "ports"})
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
