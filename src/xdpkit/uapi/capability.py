# SPDX-License-Identifier: Apache-2.0
"""Capabilities that BPF and networking ask for (include/uapi/linux/capability.h)."""

from __future__ import annotations

import enum


class Capability(enum.IntEnum):
    """``CAP_*``: bit numbers in the masks of /proc/PID/status."""

    NET_ADMIN = 12
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    PERFMON = 38
    BPF = 39

    @property
    def kernel_name(self) -> str:
        """The name with its prefix, ``CAP_BPF``."""
        return f"CAP_{self.name}"
