# SPDX-License-Identifier: Apache-2.0
"""What changes about a device with the mode: in generic mode the stack offers, not the driver."""

from __future__ import annotations

from dataclasses import replace

from xdpkit.capabilities import generic
from xdpkit.capabilities.device import Device
from xdpkit.capabilities.finding import Answer, Finding
from xdpkit.capabilities.kernel import Kernel
from xdpkit.capabilities.table import CAPABILITIES, Scope

_OFFLOADED = "the driver's findings are not about programs on the NIC"
_SAME_IN_ALL_MODES = generic.OF_THE_INTERFACE | {"mode-generic"}


def in_mode(device: Device, mode: str) -> Device:
    """Return the device with findings about another mode.

    In generic mode the network stack does what drivers otherwise do, on any interface and with any
    MTU, as far as the device's kernel has it; offloaded, nothing is known without asking the NIC.
    """
    if device.mode == mode:
        return device
    findings = {
        name: found
        for name, found in device.findings.items()
        if name in _SAME_IN_ALL_MODES
        or (name not in CAPABILITIES or CAPABILITIES[name].scope is not Scope.DRIVER)
    }
    if mode == "generic":
        findings |= generic.findings(Kernel.parse(device.kernel or ""))
    else:
        findings |= {
            name: Finding(name, Answer.UNKNOWN, _OFFLOADED)
            for name, info in CAPABILITIES.items()
            if info.scope is Scope.DRIVER and name not in {*_SAME_IN_ALL_MODES, "action-any", "mtu"}
        }
    return replace(device, mode=mode, findings=findings, otherwise=Answer.UNKNOWN)
