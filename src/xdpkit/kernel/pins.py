# SPDX-License-Identifier: Apache-2.0
"""Pinning: giving a BPF object a path on a bpffs, where it outlives the process."""

from __future__ import annotations

import errno
import os

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError, XdpkitError
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.statfs import is_bpffs

_WORDS = {
    ObjectKind.MAP: "a map",
    ObjectKind.PROGRAM: "a program",
    ObjectKind.LINK: "a link",
    ObjectKind.BTF: "BTF",
}


def pin(fd: Fd, path: str | os.PathLike[str], *, what: str) -> None:
    """Pin an object.

    Raises:
        UsageError: there is something at the path already, or the name has a dot.
        RequirementUnmet: the path is not on a bpffs.
    """
    what = f"pin {what} at {os.fspath(path)}"
    problem = _problem(path, what)
    if problem is not None:
        raise problem
    try:
        bpf.obj_pin(fd.fileno(), path, what=what)
    except KernelRefused as error:
        if error.errno == errno.EEXIST:
            raise UsageError(what, cause="there is something at that path already") from None
        raise


def _problem(path: str | os.PathLike[str], what: str) -> XdpkitError | None:
    """Say why nothing can be pinned at a path; the kernel's EPERM and ENOENT do not."""
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        return UsageError(what, cause=f"there is no folder {folder}")
    if not is_bpffs(folder):
        return RequirementUnmet(
            what,
            cause=f"{folder} is not on a bpffs",
            remedy="mount one: mount -t bpf bpf /sys/fs/bpf",
        )
    # bpf_lookup() in kernel/bpf/inode.c keeps such names for itself.
    if "." in name:
        return UsageError(what, cause="names on a bpffs have no dots")
    return None


def open_pin(path: str | os.PathLike[str], kind: ObjectKind) -> Fd:
    """Open what is pinned at a path.

    Raises:
        UsageError: nothing is pinned there, or something of another kind.
    """
    what = f"open {os.fspath(path)}"
    fd = bpf.obj_get(path, what=what)
    if fd is None:
        raise UsageError(what, cause="nothing is pinned there")
    return checked(fd, kind, what)


def open_id(kind: ObjectKind, number: int) -> Fd:
    """Open an object by its id.

    Raises:
        UsageError: there is none with this id.
        MissingPrivilege: without CAP_SYS_ADMIN.
    """
    fd = bpf.fd_by_id(kind, number)
    if fd is None:
        raise UsageError(f"open {kind.value} {number}", cause="there is none with this id")
    return fd


def checked(fd: Fd, kind: ObjectKind, what: str) -> Fd:
    """Return the descriptor if it is of the kind, else close it and raise UsageError."""
    found = bpf.kind_of(fd.fileno())
    if found is kind:
        return fd
    fd.close()
    is_what = _WORDS[found] if found else "no BPF object"
    raise UsageError(what, cause=f"it is {is_what}, not {_WORDS[kind]}")
