# SPDX-License-Identifier: Apache-2.0
"""The folder that all pins of xdpkit are below, ``<bpffs>/xdpkit``, and how folders are handled.

It is root's alone (0700): bpffs is world-writable by default, and whoever can replace a pin decides
what the next command detaches, or where a port's frames go.

A folder is also a lock (``flock``), which the kernel releases with the process that holds it. The
one of this folder serializes changes to hooks; below it others may have locks of their own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from xdpkit.errors import (
    HookBusy,
    KernelRefused,
    MissingPrivilege,
    RequirementUnmet,
    XdpkitError,
)
from xdpkit.syscalls import mounts, privilege
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.mounts import Lifetime
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi.capability import Capability

DEFAULT_ROOT = "/sys/fs/bpf"
"""Where bpffs is mounted, if nobody says otherwise."""

BY_NAME = (
    "name the network namespace instead of entering it (xdpkit -n NAME, not ip netns exec NAME"
    " xdpkit)"
)
"""What helps where entering a network namespace has hidden the bpffs."""

# Seconds; a change takes milliseconds, or a hundred where a process is started.
_PATIENCE = 30.0
_FOLDER = "xdpkit"


class Folder:
    """The folder of all pins, below one mount of bpffs."""

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        self.root = root
        self.folder = f"{root.rstrip('/')}/{_FOLDER}"

    def require_lasting(self, what: str, *, alternative: bool = True) -> str | None:
        """Refuse a root that cannot hold pins, or not for longer than this process.

        Returns a note where they last, but not until they are removed.

        Args:
            what: what is being tried, for errors.
            alternative: whether it can be done without pins, by netlink.

        Raises:
            RequirementUnmet: it is no bpffs, is read-only, or is this process's alone.
            MissingPrivilege: it is another user's.
        """
        if not is_bpffs(self.root):
            raise self._no_bpffs(what, alternative)
        self._require_own(what)
        self.require_writable(what, alternative=alternative)
        match mounts.outlives(self.root):
            case Lifetime.PRIVATE:
                raise RequirementUnmet(
                    what,
                    cause=f"{self.root} is in a mount namespace that ends with this process, and"
                    " a pin in it with it",
                    remedy=BY_NAME + _or_netlink(alternative),
                )
            case Lifetime.COMPANIONS:
                return (
                    f"{self.root} is in a mount namespace of its own: the pin goes when the last"
                    " process in it ends"
                )
            case Lifetime.SHARED:
                return None

    def require_writable(self, what: str, *, alternative: bool = False) -> None:
        """Refuse a root that is mounted read-only.

        Raises:
            RequirementUnmet: it is.
        """
        if mounts.is_read_only(self.root):
            raise RequirementUnmet(
                what,
                cause=f"{self.root} is mounted read-only, so pins can neither be made nor removed",
                remedy=f"mount -o remount,rw {self.root}" + _or_netlink(alternative),
            )

    def _require_own(self, what: str) -> None:
        """Refuse to be the one who made root's folder: root's commands would not trust it."""
        user = os.geteuid()
        if user == 0 or os.path.lexists(self.folder) or os.stat(self.root).st_uid == user:
            return
        remedy = "run it as root (sudo)"
        if not privilege.lacks((Capability.BPF, Capability.NET_ADMIN)):
            remedy += ", or name a folder of your own on a BPF file system: --pin-root"
        raise MissingPrivilege(
            what,
            cause=f"{self.root} belongs to another user, and so do the pins below it",
            remedy=remedy,
        )

    def _no_bpffs(self, what: str, alternative: bool) -> RequirementUnmet:
        cause = f"{self.root} is not a BPF file system, and only one can hold pins"
        remedy = "name one: --pin-root" + _or_netlink(alternative)
        if self.root == DEFAULT_ROOT and mounts.hidden_bpffs():
            cause += "; it is hidden here, as by ip netns exec"
            remedy = BY_NAME + _or_netlink(alternative)
        elif self.root == DEFAULT_ROOT or _is_empty_folder(self.root):
            # What is in another folder would be hidden by the mount.
            remedy = f"mount -t bpf bpf {self.root}" + _or_netlink(alternative)
        return RequirementUnmet(what, cause=cause, remedy=remedy)

    @contextlib.contextmanager
    def locked(self, what: str, *, create: bool, lenient: bool = False) -> Iterator[bool]:
        """Hold the lock that serializes changes to what is pinned.

        Yields whether there is a folder; without one there is neither a lock nor any pin.

        Args:
            what: what is being tried, for errors.
            create: make the folder if it is missing.
            lenient: take a folder that cannot be written, or that somebody else made, for none.
                What netlink holds can be changed without pins, and must not be at the mercy of
                whoever makes a folder.

        Raises:
            RequirementUnmet: the root is no bpffs or read-only, or somebody else made the folder.
            MissingPrivilege: only root may.
            HookBusy: another process has held the lock for a long time.
        """
        while True:
            descriptor = self._folder(what, create=create, lenient=lenient)
            if descriptor is None:
                yield False
                return
            with descriptor:
                if lenient and mounts.is_read_only(self.root):
                    yield False
                    return
                self.require_writable(what)
                with locked(descriptor, self.folder, what):
                    if is_gone(descriptor, self.folder):
                        # `clean --all` removed it while this process waited for the lock.
                        continue
                    yield True
                    return

    def _folder(self, what: str, *, create: bool, lenient: bool) -> Fd | None:
        if create:
            if not is_bpffs(self.root):
                raise self._no_bpffs(what, alternative=False)
            make_folder(self.folder, what)
        try:
            return self.open_folder(what)
        except RequirementUnmet:
            if create or not lenient:
                raise
            return None

    def open_folder(self, what: str) -> Fd | None:
        """Open the folder if it is one to be trusted; None when there is none.

        Raises:
            RequirementUnmet: somebody else made it.
            MissingPrivilege: only root may look.
        """
        if os.path.exists(self.root) and not os.path.isdir(self.root):
            raise self._no_bpffs(what, alternative=False)
        return open_trusted(self.folder, what)


def open_trusted(path: str, what: str) -> Fd | None:
    """Open a folder of pins if it is one to be trusted; None when there is none.

    Args:
        path: the folder. what: what is being tried, for errors.

    Raises:
        RequirementUnmet: somebody else made it, or others may use it.
        MissingPrivilege: only root may look.
    """
    try:
        descriptor = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise _distrusted(path, what, "it is not a folder") from error
    except OSError as error:
        raise explained(error, what, path) from error
    distrust = _distrust(os.fstat(descriptor.fileno()))
    if distrust is not None:
        descriptor.close()
        raise _distrusted(path, what, distrust)
    return descriptor


@contextlib.contextmanager
def locked(folder: Fd, path: str, what: str) -> Iterator[None]:
    """Hold the lock of an open folder.

    Args:
        folder: the folder. path: its path. what: what is being tried, for errors.

    Raises:
        HookBusy: another process has held the lock for a long time.
    """
    _lock(folder, path, what)
    try:
        yield
    finally:
        # To close it is not enough: a process that was forked off meanwhile has it open, too.
        fcntl.flock(folder.fileno(), fcntl.LOCK_UN)


def _lock(folder: Fd, path: str, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    pause = 0.001
    while not try_lock(folder):
        if time.monotonic() > deadline:
            raise HookBusy(
                what,
                cause=f"another process has held the lock on {path} for more than"
                f" {_PATIENCE:.0f} seconds",
                remedy=f"see which: fuser -v {path}",
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def try_lock(folder: Fd) -> bool:
    """Lock an open folder unless somebody else has; return whether it is locked now."""
    try:
        fcntl.flock(folder.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_gone(folder: Fd, path: str) -> bool:
    """Whether an open folder was removed, so that a lock on it is worth nothing any more."""
    try:
        return not os.path.samestat(os.fstat(folder.fileno()), os.lstat(path))
    except FileNotFoundError:
        return True


def make_folder(path: str, what: str) -> None:
    """Make a folder of pins if it is missing.

    Raises:
        MissingPrivilege, RequirementUnmet, KernelRefused: it cannot be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except OSError as error:
        raise explained(error, what, path) from error


def remove_if_empty(path: str) -> None:
    """Remove a folder that nothing is in; leave any other."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def unlink(path: str) -> None:
    """Remove a pin, if it is there.

    Raises:
        MissingPrivilege, RequirementUnmet, KernelRefused: it cannot be removed.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise explained(error, f"remove {path}", path) from error


def explained(error: OSError, what: str, path: str) -> XdpkitError:
    """Return the exception of ours for what a system call said of a path."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return MissingPrivilege(
            what, cause=f"{path} is not accessible to this user", remedy="run it as root"
        )
    if error.errno == errno.EROFS:
        return RequirementUnmet(what, cause=f"{path} is on a file system mounted read-only")
    return KernelRefused(what, errno=error.errno or errno.EIO, cause=f"{path} cannot be used")


def _distrusted(path: str, what: str, why: str) -> RequirementUnmet:
    return RequirementUnmet(
        what,
        cause=f"{path} was not made by xdpkit: {why}",
        remedy=f"see what is in it and who uses it, then remove it: rm -r {path}",
    )


def _distrust(status: os.stat_result) -> str | None:
    """Return why a folder with this status is not to be trusted, None if it is."""
    if status.st_uid not in (0, os.geteuid()):
        return f"user {status.st_uid} owns it"
    if status.st_mode & 0o077:
        return f"others may use it (mode {stat.S_IMODE(status.st_mode):04o}, not 0700)"
    return None


def _or_netlink(alternative: bool) -> str:
    return "; or attach without pins: --netlink" if alternative else ""


def _is_empty_folder(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False
