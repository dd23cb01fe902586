# SPDX-License-Identifier: Apache-2.0
"""Which of the kernel's tracepoints about XDP there are, as its types say.

They came and went: ``xdp_redirect_map_err`` was there from Linux 4.14 on, did not fire any more
from 5.6 on, and has gone since; ``bpf_xdp_link_attach_failed`` came with 6.6. A tracepoint has a
type ``btf_trace_NAME``, a pointer to a function of its arguments (include/trace/bpf_probe.h).
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Literal

from xdpkit.btf import Kind
from xdpkit.btf.types import FuncProto, Ptr, Typedef
from xdpkit.errors import KernelRefused
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel.btf import vmlinux
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.bpf import AttachType, ProgType

_PREFIX = "btf_trace_"
_BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"
_TARGET = 2 * 8  # the third argument


def arguments(name: str) -> int | None:
    """Return how many arguments a tracepoint has; None: this kernel has no such tracepoint.

    Raises:
        RequirementUnmet: the kernel was built without types.
        ObjectFormatError: they contradict themselves.
    """
    types = vmlinux()
    for type_id in types.find(_PREFIX + name, Kind.TYPEDEF):
        found = types[type_id]
        pointer = types[found.type_id] if isinstance(found, Typedef) else None
        proto = types[pointer.type_id] if isinstance(pointer, Ptr) else None
        if isinstance(proto, FuncProto):
            # The first one is what was registered with it.
            return len(proto.params) - 1
    return None


def present(name: str) -> bool:
    """Return whether this kernel has a tracepoint.

    Raises:
        RequirementUnmet, ObjectFormatError: as :func:`arguments`.
    """
    return arguments(name) is not None


@dataclass(frozen=True, slots=True)
class Form:
    """A program for a tracepoint, as the tracepoint is in some kernels.

    Attributes:
        program: its name in the object.
        tracepoint: where it belongs.
        arguments: how many the program takes the tracepoint to have.
        target: whether the program is the one that reads the target of a redirect, or the one that
            does without; None: there is only one.
    """

    program: str
    tracepoint: str
    arguments: int
    target: bool | None = None

    def suits(self) -> bool:
        """Return whether it is for this kernel.

        Raises:
            RequirementUnmet, ObjectFormatError: as :func:`arguments`.
            MissingPrivilege: as :func:`target_is_readable`.
        """
        if arguments(self.tracepoint) != self.arguments:
            return False
        return self.target is None or self.target == target_is_readable()


@functools.cache
def target_is_readable() -> bool:
    """Return whether a program may read the target that xdp_redirect_err tells, a ``const void *``.

    The verifier of older kernels takes that for a pointer to something that is no structure
    (btf_ctx_access() in kernel/bpf/btf.c), so it is tried.

    Raises:
        MissingPrivilege: it takes CAP_BPF and CAP_PERFMON.
    """
    for type_id in vmlinux().find(f"{_PREFIX}xdp_redirect_err", Kind.TYPEDEF):
        code = asm.load(Register.R0, Register.R1, _TARGET), asm.mov(Register.R0, 0), asm.exit()
        program = NewProgram(
            type=ProgType.TRACING,
            code=encode(code, byteorder=_BYTEORDER),
            license="Dual BSD/GPL",
            attach_type=AttachType.TRACE_RAW_TP,
            attach_btf_id=type_id,
        )
        try:
            bpf.prog_load(program, what="probe").close()
        except KernelRefused:
            return False
        return True
    return False
