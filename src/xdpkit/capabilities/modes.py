# SPDX-License-Identifier: Apache-2.0
"""What changes about a device with the mode: in generic mode the stack offers, not the driver."""

from __future__ import annotations

from dataclasses import replace

from xdpkit.capabilities.device import Device
from xdpkit.capabilities.finding import Answer, Finding
from xdpkit.capabilities.table import CAPABILITIES, Scope

_GENERIC = "generic mode, net/core/dev.c: do_xdp_generic()"
_BOUND = (
    "the metadata kfuncs take a program that is bound to a device, and such programs do not run in"
    " generic mode"
)
_SOCKETS_COPY = "generic mode copies what AF_XDP sockets get"
_OFFLOADED = "the driver's findings are not about programs on the NIC"

_ABSENT_GENERICALLY = {
    "rx-timestamp": _BOUND,
    "rx-hash": _BOUND,
    "rx-vlan": _BOUND,
    "zero-copy": _SOCKETS_COPY,
    "zero-copy-frags": _SOCKETS_COPY,
}
# True of the interface, whatever runs on it.
_SAME_IN_ALL_MODES = frozenset(
    {
        "mode-native",
        "mode-generic",
        "mode-offload",
        "redirect-target",
        "redirect-target-frags",
        "rx-queues",
    }
)


def in_mode(device: Device, mode: str) -> Device:
    """Return the device with findings about another mode.

    In generic mode the network stack does what drivers otherwise do, on any interface and with any
    MTU; offloaded, nothing is known without asking the NIC.
    """
    if device.mode == mode:
        return device
    findings = {
        name: found
        for name, found in device.findings.items()
        if name in _SAME_IN_ALL_MODES
        or (name not in CAPABILITIES or CAPABILITIES[name].scope is Scope.KERNEL)
    }
    others = [
        name
        for name, info in CAPABILITIES.items()
        if info.scope is Scope.DRIVER and name not in {*_SAME_IN_ALL_MODES, "action-any", "mtu"}
    ]
    if mode == "generic":
        findings["mode-generic"] = Finding("mode-generic", Answer.YES, _GENERIC)
        findings |= {name: _generically(name) for name in others}
    else:
        findings |= {name: Finding(name, Answer.UNKNOWN, _OFFLOADED) for name in others}
    return replace(device, mode=mode, findings=findings, otherwise=Answer.UNKNOWN)


def _generically(name: str) -> Finding:
    absent = _ABSENT_GENERICALLY.get(name)
    return Finding(name, Answer.NO if absent else Answer.YES, absent or _GENERIC)
