# SPDX-License-Identifier: Apache-2.0
"""Kernel functions that matter to whoever changes a program's instructions."""

from __future__ import annotations

import sys

from xdpkit.uapi.bpf import PseudoCall

_SLOT = 8
_CALL = 0x85  # BPF_JMP | BPF_CALL
# Where in the registers' byte the source is.
_SHIFT = 4 if sys.byteorder == "little" else 0


def throw_in(code: bytes | bytearray) -> int | None:
    """Return the BTF id of ``bpf_throw`` in the kernel; None if a program cannot call it."""
    if not any(
        code[at] == _CALL and code[at + 1] >> _SHIFT & 0xF == PseudoCall.KFUNC_CALL
        for at in range(0, len(code), _SLOT)
    ):
        return None
    from xdpkit.btf import Kind
    from xdpkit.kernel.btf import vmlinux

    return next(iter(vmlinux().find("bpf_throw", Kind.FUNC)), None)
