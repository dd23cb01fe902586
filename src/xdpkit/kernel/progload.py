# SPDX-License-Identifier: Apache-2.0
"""Loading one program: as asked, else without what an old kernel lacks, else explained."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet, VerifierError
from xdpkit.kernel import verifier
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import LogBuffer, NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.privilege import lacks
from xdpkit.uapi.bpf import ProgFlags
from xdpkit.uapi.capability import Capability

_FIRST_LOG = 1 << 20
# bpf_verifier_log_attr_valid(): Linux 5.2 and later take logs of up to 1 GiB, older ones 16 MiB.
_LARGEST_LOG = (1 << 30) - 1
_LOG_LEVEL_BRANCHES = 1
# BPF_MAXINSNS: what every kernel takes.
_FEWEST_TOO_MANY = 4096


def load_program(
    new: NewProgram, *, what: str, log_level: int, notes: Callable[[str], None]
) -> tuple[Fd, str]:
    """Load a program; return its descriptor and the verifier's log, which is empty for level 0.

    Args:
        new: the program.
        what: what is tried, for errors.
        log_level: 1: a log of the verifier's branches, 2: of all instructions, 4: statistics.
        notes: told what this kernel made us leave out.

    Raises:
        VerifierError: the verifier refused it; the log is complete.
        KernelRefused: it was refused for another reason.
        MissingPrivilege: the verifier allows it to processes with CAP_PERFMON.
        RequirementUnmet: this kernel lacks what the program cannot do without.
    """
    try:
        return _attempt(new, what, log_level)
    except KernelRefused as error:
        # Its traceback would keep this frame and all its callers', with what is open in them.
        refused = error.with_traceback(None)
    if refused.errno in (errno.EINVAL, errno.E2BIG):
        plain = without_unsupported(new, what)
        if plain != new:
            notes(f"{what}: this kernel takes no {_difference(new, plain)}")
            return load_program(plain, what=what, log_level=log_level, notes=notes)
    if isinstance(refused, VerifierError):
        raise refused
    try:
        return _attempt(new, what, _LOG_LEVEL_BRANCHES)[0], ""
    except VerifierError as error:
        # The log-less attempt has the true errno: a log that did not fit is an ENOSPC.
        raise _verifier_error(what, refused.errno or 0, error.log) from None
    except KernelRefused:
        raise _explained(refused, new) from None


def _attempt(new: NewProgram, what: str, log_level: int) -> tuple[Fd, str]:
    if not log_level:
        return bpf.prog_load(new, what=what), ""
    size = _FIRST_LOG
    while True:
        log = LogBuffer(size)
        try:
            fd = bpf.prog_load(new, what=what, log=log, log_level=log_level)
        except KernelRefused as error:
            if error.errno == errno.ENOSPC and log.is_full and size < _LARGEST_LOG:
                # Linux 6.4 says how much room it takes: "bpf: Add log_true_size output field to
                # return necessary log buffer size".
                size = min(_LARGEST_LOG, max(4 * size, log.true_size))
                continue
            text = log.text()
            if not text.strip():
                raise
            raise _verifier_error(what, error.errno or 0, text) from None
        return fd, log.text()


def _verifier_error(what: str, number: int, log: str) -> VerifierError | MissingPrivilege:
    complaint = verifier.read_log(log)
    if complaint.message and verifier.is_for_lack_of_perfmon(complaint.message):
        names = " and ".join(c.kernel_name for c in lacks((Capability.PERFMON,)))
        if names:
            return MissingPrivilege(
                what,
                cause=f"this process lacks {names}, so the verifier refuses it:"
                f" {complaint.message}",
                remedy=f"run it as root (sudo), or give it {names}",
            )
    lines = "".join(f"\n    {line}" for line in complaint.excerpt)
    return VerifierError(
        what,
        errno=number,
        cause=f"the verifier refuses it:{lines}",
        log=log,
        remedy=complaint.remedy,
    )


def _explained(error: KernelRefused, new: NewProgram) -> KernelRefused:
    """Return the error with a cause, for a refusal that the verifier's log says nothing about."""
    slots = len(new.code) // 8
    cause = error.cause
    if error.errno == errno.E2BIG and not slots:
        cause = "it has no instructions"
    elif error.errno == errno.E2BIG and slots > _FEWEST_TOO_MANY:
        cause = f"it has {slots} instructions, more than this kernel takes"
    return KernelRefused(error.what, errno=error.errno or 0, cause=cause, remedy=error.remedy)


def without_unsupported(new: NewProgram, what: str) -> NewProgram:
    """Return the request without what this kernel certainly does not know.

    Raises:
        RequirementUnmet: it does not know what the program cannot do without.
    """
    from xdpkit.probes import is_absent

    # Linux 5.18, "bpf: introduce BPF_F_XDP_HAS_FRAGS flag in prog_flags loading the ebpf program".
    if new.flags & ProgFlags.XDP_HAS_FRAGS and is_absent("xdp-frags"):
        raise RequirementUnmet(
            what,
            cause="this kernel has no XDP programs for packets in fragments (Linux 5.18)",
            remedy='use SEC("xdp") instead of SEC("xdp.frags")',
        )
    # Linux 5.14, "bpf: Introduce fd_idx".
    if new.fd_array and is_absent("fd-array"):
        raise RequirementUnmet(what, cause="this kernel has no functions in modules (Linux 5.16)")
    # Linux 4.15, "bpf: Add name, load_time, uid and map_ids to bpf_prog_info".
    if new.name and is_absent("program-name"):
        new = replace(new, name="")
    # Linux 4.17, "bpf: Check attach type at prog load time".
    if new.attach_type and not new.attach_btf_id and is_absent("expected-attach-type"):
        new = replace(new, attach_type=0)
    # Linux 5.0, "bpf: Introduce bpf_func_info" and "bpf: Add bpf_line_info support".
    if new.btf_fd and is_absent("btf-func"):
        new = replace(new, btf_fd=0, func_info=b"", line_info=b"")
    return new


def _difference(new: NewProgram, plain: NewProgram) -> str:
    words = {
        "program names": new.name != plain.name,
        "expected attach type": new.attach_type != plain.attach_type,
        "function and line information": new.btf_fd != plain.btf_fd,
    }
    return ", ".join(word for word, dropped in words.items() if dropped)
