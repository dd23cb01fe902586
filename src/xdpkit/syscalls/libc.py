# SPDX-License-Identifier: Apache-2.0
"""The C library, for the system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import functools


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library that the process runs with; its errno is :func:`ctypes.get_errno`.

    The functions are the caller's to declare, and there is one of each: it is declared once.
    """
    return ctypes.CDLL(None, use_errno=True)
