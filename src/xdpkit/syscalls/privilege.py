# SPDX-License-Identifier: Apache-2.0
"""What this process may do, and why the kernel said EPERM."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable

from xdpkit.errors import KernelRefused, MissingPrivilege, XdpkitError
from xdpkit.uapi.capability import Capability

# include/linux/proc_ns.h: PROC_USER_INIT_INO.
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD


def effective_capabilities() -> int:
    """Return the effective capability mask of this process (CapEff in /proc/self/status)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def last_capability() -> int:
    """Return the highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def in_initial_user_namespace() -> bool:
    """Whether the capabilities of this process count outside of a container's user namespace."""
    return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE


def missing_capabilities(
    needed: Iterable[Capability], *, effective: int, last: int
) -> tuple[Capability, ...]:
    """Return which of the needed capabilities a mask lacks.

    CAP_SYS_ADMIN stands for CAP_BPF, CAP_PERFMON and, in bpf(2), CAP_NET_ADMIN; kernels that do
    not know CAP_BPF ask for it instead.
    """
    if effective >> Capability.SYS_ADMIN & 1:
        return ()
    # Linux 5.8, "bpf: Implement CAP_BPF".
    wanted = {c if c <= last else Capability.SYS_ADMIN for c in needed}
    return tuple(sorted(c for c in wanted if not effective >> c & 1))


def lacks(needed: Iterable[Capability]) -> tuple[Capability, ...]:
    """Return which of the needed capabilities this process lacks."""
    return missing_capabilities(needed, effective=effective_capabilities(), last=last_capability())


def explain_eperm(what: str, needed: tuple[Capability, ...]) -> XdpkitError:
    """Return the error for an EPERM from the kernel: a missing capability, or somebody's policy."""
    missing = lacks(needed)
    if missing:
        names = " and ".join(c.kernel_name for c in missing)
        return MissingPrivilege(
            what,
            cause=f"this process lacks {names}",
            remedy=f"run it as root (sudo), or give it {names}",
        )
    if not in_initial_user_namespace():
        return MissingPrivilege(
            what,
            cause="this process is in a user namespace, whose capabilities do not count for it",
            remedy="run it in the initial user namespace",
        )
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and _charges_memlock(os.uname().release):
        return MissingPrivilege(
            what,
            cause=f"BPF memory is limited to {limit} bytes here (RLIMIT_MEMLOCK)",
            remedy="raise the limit: ulimit -l unlimited",
        )
    return KernelRefused(
        what,
        errno=errno.EPERM,
        cause="the process has the capabilities, so a security policy refuses"
        " (LSM, seccomp, lockdown or the container)",
    )


def _charges_memlock(release: str) -> bool:
    """Whether a kernel release limits BPF memory by RLIMIT_MEMLOCK; to word an error only."""
    # Linux 5.11, "bpf: Eliminate rlimit-based memory accounting for bpf maps".
    major, _, rest = release.partition(".")
    minor = "".join(c for c in rest.partition(".")[0] if c.isdigit())
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) < (5, 11)


def lift_memlock() -> tuple[int, int] | None:
    """Raise RLIMIT_MEMLOCK as far as this process may.

    Returns the limits as they were, for :func:`restore_memlock`; None when nothing changed.
    """
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    soft, hard = before
    if soft == resource.RLIM_INFINITY:
        return None
    for wanted in (resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard):
        if wanted == before:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
        except (OSError, ValueError):
            continue
        return before
    return None


def restore_memlock(before: tuple[int, int]) -> None:
    """Undo :func:`lift_memlock`."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, before)
