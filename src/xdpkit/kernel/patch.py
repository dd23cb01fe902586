# SPDX-License-Identifier: Apache-2.0
"""Writing into instructions what only the running kernel knows. Pure.

Instructions are 8 bytes in this machine's byte order: opcode, registers, a 16-bit offset and a
32-bit immediate; a 64-bit immediate load takes two (RFC 9669, sections 3 and 5.4).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable

from xdpkit.uapi.bpf import PseudoCall, PseudoSrc

_OFFSET_AND_IMM = struct.Struct("=hi")
_IMM = struct.Struct("=I")
# Where the registers' byte has the destination, and how far up the source is.
_DESTINATION, _SHIFT = (0x0F, 4) if sys.byteorder == "little" else (0xF0, 0)


def set_map(code: bytearray, slots: Iterable[int], fd: int) -> None:
    """Make 64-bit loads load a map."""
    _set_load(code, slots, PseudoSrc.MAP_FD, fd, 0)


def set_map_value(code: bytearray, slots: Iterable[int], fd: int, offset: int) -> None:
    """Make 64-bit loads load the address ``offset`` bytes into a map's first value."""
    _set_load(code, slots, PseudoSrc.MAP_VALUE, fd, offset)


def set_kernel_object(code: bytearray, slots: Iterable[int], type_id: int, btf_fd: int) -> None:
    """Make 64-bit loads load the address of a kernel variable or function, by its BTF id."""
    _set_load(code, slots, PseudoSrc.BTF_ID, type_id, btf_fd)


def set_number(code: bytearray, slots: Iterable[int], number: int) -> None:
    """Make 64-bit loads load a number."""
    _set_load(code, slots, 0, number & 0xFFFFFFFF, number >> 32)


def set_kfunc(code: bytearray, slots: Iterable[int], type_id: int, module: int) -> None:
    """Make calls call a kernel function; ``module`` is an index of fd_array, 0 for the kernel."""
    source = PseudoCall.KFUNC_CALL << _SHIFT
    for slot in slots:
        at = 8 * slot
        code[at + 1] = code[at + 1] & _DESTINATION | source
        _OFFSET_AND_IMM.pack_into(code, at + 2, module, type_id)


def _set_load(code: bytearray, slots: Iterable[int], source: int, low: int, high: int) -> None:
    source <<= _SHIFT
    first, second = _IMM.pack(low), _IMM.pack(high)
    for slot in slots:
        at = 8 * slot
        code[at + 1] = code[at + 1] & _DESTINATION | source
        code[at + 4 : at + 8] = first
        code[at + 12 : at + 16] = second
