# SPDX-License-Identifier: Apache-2.0
"""What a device and its kernel offer, put together for one negotiation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdpkit.capabilities import Answer, Device, Finding, action_capability, phrase
from xdpkit.uapi.bpf import XdpAction

_NOT_PROVIDED = "this version of xdpkit does not provide it"
_NOT_AN_ACTION = "not an action: counted as invalid and dropped"

ACTIONS = tuple(name for action in XdpAction if (name := action_capability(action)) is not None)


@dataclass(frozen=True, slots=True)
class Offer:
    """A device in a mode, with the kernel's own findings behind those of the device."""

    device: Device
    kernel: Mapping[str, Finding]

    def finding(self, name: str) -> Finding:
        """Return what is known about a capability, working out those that follow from others."""
        if name.startswith("action-code:"):
            return Finding(name, Answer.NO, _NOT_AN_ACTION)
        if name.startswith("context-field:"):
            return Finding(name, Answer.NO, _NOT_PROVIDED)
        if name == "action-any":
            return self._any_action()
        found = self.device.findings.get(name) or self.kernel.get(name)
        if found is None and name == "mode-native":
            return self._native_mode()
        return found or self.device.finding(name)

    def _any_action(self) -> Finding:
        missing = [name for name in ACTIONS if self.finding(name).answer is Answer.NO]
        if missing:
            words = ", ".join(phrase(name).removeprefix("action ") for name in missing)
            why = self.finding(missing[0]).evidence
            return Finding("action-any", Answer.NO, f"without {words} ({why})")
        return Finding("action-any", Answer.UNKNOWN, "values that are no action would be dropped")

    def _native_mode(self) -> Finding:
        """A profile that lists actions need not say that they are native."""
        for name in ACTIONS:
            found = self.device.findings.get(name)
            if found is not None and found.answer is Answer.YES:
                return Finding("mode-native", Answer.YES, found.evidence)
        return self.device.finding("mode-native")
