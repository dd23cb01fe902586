# SPDX-License-Identifier: Apache-2.0
"""What is on an interface's hook: attach, detach, look."""

from __future__ import annotations

from xdpkit.hook.attach import Attached, attach
from xdpkit.hook.detach import Detached, detach
from xdpkit.hook.mode import Mode
from xdpkit.hook.state import (
    AttachedProgram,
    HookStatus,
    MapSummary,
    Owner,
    ProgramSummary,
    Via,
)
from xdpkit.hook.status import status

__all__ = [
    "Attached",
    "AttachedProgram",
    "Detached",
    "HookStatus",
    "MapSummary",
    "Mode",
    "Owner",
    "ProgramSummary",
    "Via",
    "attach",
    "detach",
    "status",
]
