# SPDX-License-Identifier: Apache-2.0
"""Which file system a path is on."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

from xdpkit.syscalls.libc import libc

# include/uapi/linux/magic.h.
BPF_FS_MAGIC = 0xCAFE4A11

# struct statfs is 120 bytes on 64-bit machines, and begins with f_type, a long.
_ROOM = 512


@functools.cache
def _libc_statfs() -> Callable[..., int]:
    statfs = libc().statfs
    statfs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    return statfs


def file_system_type(path: str | os.PathLike[str]) -> int:
    """Return the magic number of the file system that a path is on.

    Raises:
        OSError: there is no such path.
    """
    room = ctypes.create_string_buffer(_ROOM)
    if _libc_statfs()(os.fsencode(path), room) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF


def is_bpffs(path: str | os.PathLike[str]) -> bool:
    """Whether a path exists and is on a bpffs."""
    try:
        return file_system_type(path) == BPF_FS_MAGIC
    except OSError:
        return False
