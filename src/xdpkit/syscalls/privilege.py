# SPDX-License-Identifier: Apache-2.0
"""What this process may do, and why the kernel said EPERM."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
from collections.abc import Iterable

from xdpkit.errors import KernelRefused, MissingPrivilege, XdpkitError
from xdpkit.syscalls.libc import libc
from xdpkit.uapi.capability import (
    LINUX_CAPABILITY_VERSION_3,
    PR_CAPBSET_READ,
    Capability,
    UserCapData,
    UserCapHeader,
)

# include/linux/proc_ns.h: PROC_USER_INIT_INO.
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
# What the masks have room for.
_CAPABILITIES = 64


def effective_capabilities() -> int:
    """Return the effective capability mask of the calling thread, by capget(2)."""
    header = UserCapHeader(version=LINUX_CAPABILITY_VERSION_3, pid=0)
    data = (UserCapData * 2)()
    # Not from /proc, which a container may hide.
    if libc().capget(ctypes.byref(header), data) != 0:
        return 0
    low, high = data
    return int(low.effective) | int(high.effective) << 32


@functools.cache
def last_capability() -> int:
    """Return the highest capability number that this kernel knows."""
    prctl = libc().prctl
    return max(n for n in range(_CAPABILITIES) if prctl(PR_CAPBSET_READ, n, 0, 0, 0) >= 0)


def in_initial_user_namespace() -> bool:
    """Whether the capabilities of this process count outside of a container's user namespace.

    Also where that cannot be told, because there is no /proc.
    """
    try:
        return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except OSError:
        return True


def missing_capabilities(
    needed: Iterable[Capability], *, effective: int, last: int
) -> tuple[Capability, ...]:
    """Return which of the needed capabilities a mask lacks for bpf(2).

    CAP_SYS_ADMIN stands for CAP_BPF, CAP_PERFMON and, in bpf(2), CAP_NET_ADMIN; kernels that do
    not know CAP_BPF ask for it instead.
    """
    if effective >> Capability.SYS_ADMIN & 1:
        return ()
    # Linux 5.8, "bpf: Implement CAP_BPF".
    wanted = {c if c <= last else Capability.SYS_ADMIN for c in needed}
    return tuple(sorted(c for c in wanted if not effective >> c & 1))


def lacks(needed: Iterable[Capability]) -> tuple[Capability, ...]:
    """Return which of the needed capabilities this process lacks for bpf(2)."""
    return missing_capabilities(needed, effective=effective_capabilities(), last=last_capability())


def require(what: str, needed: tuple[Capability, ...]) -> None:
    """Refuse what would fail only when it is too late to say so.

    Raises:
        MissingPrivilege: this process lacks a capability, or has it in a user namespace only.
    """
    missing = lacks(needed)
    if missing:
        raise _without(what, missing)
    if not in_initial_user_namespace():
        raise _in_user_namespace(what)


def explain_eperm(
    what: str, needed: tuple[Capability, ...], said: str | None = None
) -> XdpkitError:
    """Return the error for an EPERM: a missing capability, or somebody's policy.

    For system calls in which no capability stands for another: netlink, setns(2).

    Args:
        what: what was tried.
        needed: the capabilities that it takes.
        said: the kernel's own words (extack), None where it gave none.
    """
    effective = effective_capabilities()
    missing = tuple(each for each in needed if not effective >> each & 1)
    if missing:
        return _without(what, missing)
    if said is not None:
        return KernelRefused(what, errno=errno.EPERM, extack=said)
    return _in_user_namespace(what) if not in_initial_user_namespace() else _by_policy(what)


def explain_bpf_eperm(what: str, needed: tuple[Capability, ...]) -> XdpkitError:
    """Return the error for an EPERM from bpf(2).

    There CAP_SYS_ADMIN stands for others, and kernels before 5.11 limit memory.
    """
    missing = lacks(needed)
    if missing:
        return _without(what, missing)
    if not in_initial_user_namespace():
        return _in_user_namespace(what)
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and _charges_memlock(os.uname().release):
        return MissingPrivilege(
            what,
            cause=f"BPF memory is limited to {limit} bytes here (RLIMIT_MEMLOCK)",
            remedy="raise the limit: ulimit -l unlimited",
        )
    return _by_policy(what)


def _without(what: str, missing: tuple[Capability, ...]) -> MissingPrivilege:
    names = " and ".join(each.kernel_name for each in missing)
    return MissingPrivilege(
        what,
        cause=f"this process lacks {names}",
        remedy=f"run it as root (sudo), or give it {names}",
    )


def _in_user_namespace(what: str) -> MissingPrivilege:
    return MissingPrivilege(
        what,
        cause="this process is in a user namespace, whose capabilities do not count for it",
        remedy="run it in the initial user namespace",
    )


def _by_policy(what: str) -> KernelRefused:
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
