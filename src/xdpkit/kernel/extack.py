# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about a refusal, where the system call gives back an errno only.

A ``bpf_link`` gets no extended acknowledgement. But the text passes two tracepoints, and a small
program in them keeps what concerns the calling thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from xdpkit.errors import XdpkitError
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType, ProgType

# include/trace/events/netlink.h, xdp.h: both have the message as their only argument. The first
# knows every literal text, the second (Linux 6.6) also formatted ones, for links only.
_TRACEPOINTS = ("netlink_extack", "bpf_xdp_link_attach_failed")

_TEXT_SIZE = 256
_KEY = bytes(4)
_BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"


class KernelWords:
    """What the kernel said last to this thread."""

    def __init__(self, heard: Fd | None) -> None:
        self._heard = heard

    @property
    def is_listening(self) -> bool:
        """Whether a text would be heard; without CAP_PERFMON, or before Linux 5.7, none is."""
        return self._heard is not None

    def last(self) -> str | None:
        """Return the text; None where there was none, or nobody could listen."""
        if self._heard is None:
            return None
        value = bpf.map_lookup(self._heard.fileno(), _KEY, _TEXT_SIZE)
        text = (value or b"").partition(b"\0")[0].decode("utf-8", "backslashreplace").strip()
        return text or None


@contextmanager
def listening() -> Iterator[KernelWords]:
    """Listen to the kernel's texts for this thread during the ``with`` block.

    It takes CAP_PERFMON, and Linux 5.7. Without them nothing is heard, and nothing fails.
    """
    with ExitStack() as resources:
        try:
            heard = _listen(resources)
        except (XdpkitError, OSError):
            heard = None
        yield KernelWords(heard)


def _listen(resources: ExitStack) -> Fd:
    what = "listen to what the kernel says"
    heard = resources.enter_context(
        bpf.map_create(
            NewMap(MapType.ARRAY, 4, _TEXT_SIZE, 1, name="xdpkit_extack"),
            what=what,
        )
    )
    code = encode(_program(heard.fileno()), byteorder=_BYTEORDER)
    program = resources.enter_context(
        bpf.prog_load(
            NewProgram(ProgType.RAW_TRACEPOINT, code, license="GPL", name="xdpkit_extack"),
            what=what,
        )
    )
    attached = 0
    for tracepoint in _TRACEPOINTS:
        try:
            link = bpf.raw_tracepoint_open(program.fileno(), tracepoint, what=what)
        except XdpkitError:
            continue
        resources.enter_context(link)
        attached += 1
    if not attached:
        raise XdpkitError(what, cause="this kernel has none of the tracepoints")
    return heard


def _program(heard: int) -> list[Instruction]:
    """Return the program: if it is this thread, copy the message into the map."""
    r0, r1, r2, r3, r4 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R4
    message, stack = Register.R6, Register.R10
    # The number that this process knows the thread by holds in its PID namespace only.
    namespace = os.stat("/proc/self/ns/pid")
    thread = int(os.readlink("/proc/thread-self").rpartition("/")[2])
    copy = [
        asm.ld_map_value(r1, heard, 0),
        asm.mov(r2, _TEXT_SIZE),
        asm.mov(r3, message),
        asm.call("probe_read_kernel_str"),
    ]
    # struct bpf_pidns_info: __u32 pid, tgid.
    check = [
        asm.load(message, r1),
        asm.ld_imm64(r1, namespace.st_dev),
        asm.ld_imm64(r2, namespace.st_ino),
        asm.mov(r3, stack),
        asm.alu(AluOp.ADD, r3, -8),
        asm.mov(r4, 8),
        asm.call("get_ns_current_pid_tgid"),
        asm.branch(JmpOp.JNE, r0, 0, 2 + sum(part.slots for part in copy)),
        asm.load(r1, stack, -8, size=4),
        asm.branch(JmpOp.JNE, r1, thread, sum(part.slots for part in copy)),
    ]
    return [*check, *copy, asm.mov(r0, 0), asm.exit()]
