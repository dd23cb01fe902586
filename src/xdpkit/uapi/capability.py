# SPDX-License-Identifier: Apache-2.0
"""Capabilities that BPF and networking ask for (include/uapi/linux/capability.h)."""

from __future__ import annotations

import ctypes
import enum

LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_CAPBSET_READ = 23  # include/uapi/linux/prctl.h


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


class UserCapHeader(ctypes.Structure):
    """``struct __user_cap_header_struct``."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class UserCapData(ctypes.Structure):
    """``struct __user_cap_data_struct``: 32 capabilities; version 3 takes two of them."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )
