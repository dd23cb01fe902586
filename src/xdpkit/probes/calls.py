# SPDX-License-Identifier: Apache-2.0
"""Helpers and kernel functions that XDP programs can call, asked of the verifier.

The program of the question calls the function with whatever is in the registers. The verifier looks
first at whether the function may be called at all, and says in its log if not; any other complaint
is about the arguments.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from xdpkit.btf import Btf, Kind
from xdpkit.errors import KernelRefused, MissingPrivilege, ObjectFormatError, errno_name
from xdpkit.isa import Instruction, asm
from xdpkit.probes.ask import RETURN_0, Reply, ask, load, machine_code
from xdpkit.probes.finding import Answer
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import LogBuffer, NewProgram
from xdpkit.uapi.bpf import AttachType, ProgType
from xdpkit.uapi.helpers import HELPERS

TYPES = "/sys/kernel/btf"

# kernel/bpf/verifier.c: check_helper_call(), in the words of Linux 4.10 to 6.18.
_NO_HELPER = (
    "invalid func ",
    "unknown func ",
    "program of this type cannot use helper ",
    "helper call is not allowed",
)
# fetch_kfunc_meta(), add_kfunc_call(); before Linux 5.13 the instruction itself is what is refused.
_NO_KFUNC = ("calling kernel function", "BPF_CALL uses reserved fields")
_LOG_SIZE = 16384


def ask_helper(name: str) -> Reply:
    """Ask whether XDP programs can call a helper, by its name without ``bpf_``."""
    name = name.removeprefix("bpf_")
    if name not in HELPERS or name == "unspec":
        return Answer.UNKNOWN, f"{name} is not in the list of helpers, which ends with Linux 6.2"
    question = f"BPF_PROG_LOAD of XDP that calls bpf_{name}()"
    return _ask_call(question, asm.call(HELPERS.index(name)), _NO_HELPER)


def ask_kfunc(name: str) -> Reply:
    """Ask whether XDP programs can call a kernel function; of a module's, whether it is there."""
    try:
        types = _vmlinux()
        found = types.find(name, Kind.FUNC)
        if not found:
            return _ask_modules(name, types)
    except OSError as error:
        return Answer.UNKNOWN, f"{error.filename}: {error.strerror}"
    except ObjectFormatError as error:
        return Answer.UNKNOWN, str(error)
    question = f"BPF_PROG_LOAD of XDP that calls {name}()"
    return _ask_call(question, asm.call_kfunc(found[0]), _NO_KFUNC)


def _ask_call(question: str, call: Instruction, refusals: tuple[str, ...]) -> Reply:
    program = NewProgram(
        type=ProgType.XDP,
        code=machine_code(call, asm.exit()),
        license="GPL",
        attach_type=AttachType.XDP,
    )
    log = LogBuffer(_LOG_SIZE)
    try:
        bpf.prog_load(program, what="load a probe program", log=log, log_level=1).close()
    except MissingPrivilege as error:
        return Answer.UNKNOWN, f"{question}: {error.cause}"
    except KernelRefused as error:
        return _read_log(question, error, log.text(), refusals)
    return Answer.YES, f"{question}: accepted"


def _read_log(question: str, error: KernelRefused, log: str, refusals: tuple[str, ...]) -> Reply:
    for line in log.splitlines():
        if any(refusal in line for refusal in refusals):
            return Answer.NO, f"{question}: {line.strip()}"
    if not log.strip():
        return Answer.UNKNOWN, f"{question}: {errno_name(error.errno or 0)}"
    return Answer.YES, f"{question}: the verifier knows it"


def _ask_modules(name: str, types: Btf) -> Reply:
    for module, own in _modules(types):
        if own.find(name, Kind.FUNC):
            return Answer.YES, f"BTF of module {module}"
    return Answer.NO, "neither the kernel's BTF nor a loaded module's has it"


@functools.cache
def _vmlinux() -> Btf:
    with open(f"{TYPES}/vmlinux", "rb") as file:
        return Btf.parse(file.read(), file=file.name)


def _modules(base: Btf) -> Iterator[tuple[str, Btf]]:
    for module in sorted(os.listdir(TYPES)):
        if module != "vmlinux":
            with open(f"{TYPES}/{module}", "rb") as file:
                yield module, Btf.parse(file.read(), base=base, file=file.name)


def ask_tracing() -> Reply:
    """Ask whether programs of type tracing load: here for the tracepoint xdp_exception."""
    question = "BPF_PROG_LOAD of BPF_PROG_TYPE_TRACING for xdp_exception"
    try:
        found = _vmlinux().find("btf_trace_xdp_exception", Kind.TYPEDEF)
    except OSError as error:
        return Answer.NO, f"{error.filename}: {error.strerror}"
    except ObjectFormatError as error:
        return Answer.UNKNOWN, str(error)
    if not found:
        return Answer.UNKNOWN, "the kernel's BTF does not have the tracepoint xdp_exception"
    program = NewProgram(
        type=ProgType.TRACING,
        code=machine_code(*RETURN_0),
        license="GPL",
        attach_type=AttachType.TRACE_RAW_TP,
        attach_btf_id=found[0],
    )
    return ask(question, lambda: load(program).close())
