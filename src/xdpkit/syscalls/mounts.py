# SPDX-License-Identifier: Apache-2.0
"""Mounts, and how long what is pinned in one of them lasts.

A mount namespace ends with its last process, and a file system with its last mount: what was pinned
there is gone. ``ip netns exec NAME COMMAND`` and ``unshare -m COMMAND`` run the command in such a
namespace.

:func:`parse` is pure; the rest reads /proc.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
from dataclasses import dataclass

from xdpkit.errors import KernelRefused, MissingPrivilege, UsageError, XdpkitError
from xdpkit.syscalls import proc
from xdpkit.syscalls.statfs import is_bpffs

BPFFS = "/sys/fs/bpf"

_OF_THIS_THREAD = "thread-self"
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/PID/mountinfo, as far as xdpkit uses it.

    Attributes:
        id: unique among all mounts of the system, and reused. parent: what it is mounted on.
        device: major and minor number; file systems without a disk have one of their own, too.
        root: the part of the file system that is mounted.
        path: where, as seen from the process's root.
        kind: file system type ("bpf").
    """

    id: int
    parent: int
    device: tuple[int, int]
    root: str
    path: str
    kind: str


class Lifetime(enum.Enum):
    """How long a mount lasts; see :func:`outlives`."""

    SHARED = "shared"
    COMPANIONS = "companions"
    PRIVATE = "private"


def parse(data: bytes) -> tuple[Mount, ...]:
    """Return the mounts in the contents of a mountinfo file, in its order.

    Bytes of paths that are not UTF-8 become lone surrogates, as in :func:`os.fsdecode`.

    Raises:
        KernelRefused: EBADMSG: a line does not follow the format (proc_pid_mountinfo(5)).
    """
    return tuple(_parse_line(line) for line in data.split(b"\n") if line)


def _parse_line(line: bytes) -> Mount:
    fields = line.split(b" ")
    try:
        # What follows the sixth field are optional ones, in any number, and a dash.
        kind = fields[fields.index(b"-", 6) + 1]
        number, parent, device, root, path, _options = fields[:6]
        major, minor = device.split(b":")
        return Mount(
            id=int(number),
            parent=int(parent),
            device=(int(major), int(minor)),
            root=_unescape(root),
            path=_unescape(path),
            kind=_unescape(kind),
        )
    except (ValueError, IndexError) as error:
        raise KernelRefused(
            "read mountinfo",
            errno=errno.EBADMSG,
            cause=f"a line does not follow the format: {os.fsdecode(line)!r}",
        ) from error


def _unescape(field: bytes) -> str:
    # mangle_path() in fs/seq_file.c: blanks, backslashes and hashes, as three octal digits.
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))


def has_device(data: bytes, device: tuple[int, int]) -> bool:
    """Return whether a device is among the mounts in the contents of a mountinfo file.

    It is one search: a host can have thousands of mounts.
    """
    return re.search(rb"^\d+ \d+ %d:%d " % device, data, re.MULTILINE) is not None


def outlives(path: str | os.PathLike[str]) -> Lifetime:
    """Return how long the file system that a path is on lasts.

    SHARED: as long as the system, or the container: it is mounted in the namespace of process 1.
    Also where that cannot be told, because process 1 is hidden. COMPANIONS: it is not there, but
    other processes have it mounted or share this mount namespace, or the namespace is bound to a
    file (``unshare --mount=FILE``); it lasts as long as they do. PRIVATE: only this process has it,
    so it ends with the process.

    Other processes are looked at only if process 1 does not settle it. The threads of this process
    are not others. What else keeps a mount is not seen: open files in it, descriptors of the
    namespace.

    Raises:
        UsageError: there is no such path.
        MissingPrivilege: the path may not be looked at.
    """
    own = _namespace(_OF_THIS_THREAD)
    device = _device(path)
    if own is not None and own == _namespace(1):
        return Lifetime.SHARED
    try:
        mounts = _mountinfo(1)
    except OSError:
        return Lifetime.SHARED
    if has_device(mounts, device):
        return Lifetime.SHARED
    if any((mount.kind, mount.root) == ("nsfs", f"mnt:[{own}]") for mount in parse(mounts)):
        return Lifetime.COMPANIONS
    return Lifetime.COMPANIONS if _others_have(device, own) else Lifetime.PRIVATE


def is_read_only(path: str | os.PathLike[str]) -> bool:
    """Whether nothing can be made on the file system that a path is on: mounted so, or made so.

    Raises:
        UsageError: there is no such path.
        MissingPrivilege: the path may not be looked at.
    """
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise _no_access(path, error) from error


def hidden_bpffs() -> bool:
    """Whether /sys/fs/bpf is a bpffs for process 1, but not here.

    So it is within ``ip netns exec``, which mounts another /sys over the one with the bpffs.
    """
    if is_bpffs(BPFFS):
        return False
    try:
        mounts = parse(_mountinfo(1))
    except OSError:
        return False
    # One that is mounted over another comes after it.
    return [mount.kind for mount in mounts if mount.path == BPFFS][-1:] == ["bpf"]


def _others_have(device: tuple[int, int], own: int | None) -> bool:
    """Whether another process is in our mount namespace, or has a device mounted in its own."""
    this = proc.own_pid()
    seen = set()
    for pid in proc.pids():
        if pid == this:
            continue
        namespace = _namespace(pid)
        if namespace is not None and namespace == own:
            return True
        if namespace in seen:
            continue
        # A process that ends, or has ended and is not yet waited for, keeps nothing.
        with contextlib.suppress(OSError):
            if has_device(_mountinfo(pid), device):
                return True
            if namespace is not None:
                seen.add(namespace)
    return False


def _device(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        number = os.stat(path).st_dev
    except OSError as error:
        raise _no_access(path, error) from error
    return os.major(number), os.minor(number)


def _namespace(process: int | str) -> int | None:
    """Return the number of a process's mount namespace, None where it may not be seen.

    That takes the right to trace the process; to read its mountinfo, seeing it is enough.
    """
    try:
        return os.stat(f"/proc/{process}/ns/mnt").st_ino
    except OSError:
        return None


def _mountinfo(process: int) -> bytes:
    with open(f"/proc/{process}/mountinfo", "rb", buffering=0) as file:
        return file.read()


def _no_access(path: str | os.PathLike[str], error: OSError) -> XdpkitError:
    what = f"look at the file system of {os.fspath(path)}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UsageError(what, cause="there is no such path")
    if isinstance(error, PermissionError):
        return MissingPrivilege(
            what, cause="a folder on the way may not be searched", remedy="run it as root"
        )
    return KernelRefused(what, errno=error.errno or errno.EIO)
