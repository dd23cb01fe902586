# SPDX-License-Identifier: Apache-2.0
"""The names of what programs need and devices offer, and the answers about them, as values.

A *finding* is what was learnt about one capability; a :class:`Device` is all that is known about an
interface, live or from a profile. Both are plain data: a build server can hold a fleet's.
"""

from __future__ import annotations

from xdpkit.capabilities.device import DEVICE_SCHEMA, Device
from xdpkit.capabilities.finding import Answer, Finding, Precondition
from xdpkit.capabilities.kernel import Kernel, Release, written
from xdpkit.capabilities.modes import in_mode
from xdpkit.capabilities.table import (
    CAPABILITIES,
    FAMILIES,
    CapabilityInfo,
    Scope,
    action_capability,
    capability,
    phrase,
)

__all__ = [
    "CAPABILITIES",
    "DEVICE_SCHEMA",
    "FAMILIES",
    "Answer",
    "CapabilityInfo",
    "Device",
    "Finding",
    "Kernel",
    "Precondition",
    "Release",
    "Scope",
    "action_capability",
    "capability",
    "in_mode",
    "phrase",
    "written",
]
