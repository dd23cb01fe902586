# SPDX-License-Identifier: Apache-2.0
"""Where links are pinned: ``<bpffs>/xdpkit/<netns cookie>-<ifindex>/link``.

Beside a link lie the maps that must outlive the process with it: the kernel empties a program
array and cancels timers when the map's last descriptor or pin goes, although a program uses it.

A pin in bpffs keeps a link, and with it the program on the hook, when the process ends. The folder
is root's alone (0700): bpffs is world-writable by default, and whoever can replace a pin decides
what the next command detaches.

The kernel detaches a link when its interface goes; the pin stays and holds a link to nothing. Such
pins are swept away by the next change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet, XdpkitError
from xdpkit.interfaces import Interface
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi import attr

if TYPE_CHECKING:
    from xdpkit.kernel import Map

DEFAULT_ROOT = "/sys/fs/bpf"

_FOLDER = "xdpkit"
_LINK = "link"
_MAP = "map-"
_HOOK_NAME = re.compile(r"\d+-\d+")


def root_of(path: str) -> str:
    """Return the bpffs below which a link is pinned."""
    return os.path.dirname(os.path.dirname(os.path.dirname(path)))


@dataclass(frozen=True, slots=True)
class PinnedLink:
    """A pinned link, at the moment when it was looked at.

    Attributes:
        path: the pin.
        link_id: the link's id. program_id: the program that it holds on the hook.
        ifindex: its interface, in whichever namespace that is now; 0 when the interface is gone or
            the link was detached.
    """

    path: str
    link_id: int
    program_id: int
    ifindex: int

    def holds(self, interface: Interface) -> bool:
        """Whether the link is what is on the interface's hook now."""
        xdp = interface.xdp
        return self.ifindex == interface.index and self.program_id in (
            xdp.native,
            xdp.generic,
            xdp.offload,
        )


class Pins:
    """The pins of all hooks, below one mount of bpffs."""

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        self.root = root
        self.folder = f"{root.rstrip('/')}/{_FOLDER}"

    def path_of(self, interface: Interface) -> str:
        """Return where the link of an interface's hook is pinned."""
        return f"{self.folder}/{interface.netns_cookie}-{interface.index}/{_LINK}"

    def require_bpffs(self, what: str) -> None:
        """Refuse a root that is no bpffs.

        Raises:
            RequirementUnmet: it is none, or not there.
        """
        if not is_bpffs(self.root):
            raise RequirementUnmet(
                what,
                cause=f"{self.root} is not a BPF file system, and only one can hold pins",
                remedy=f"mount -t bpf bpf {self.root}" if os.path.isdir(self.root) else None,
            )

    @contextlib.contextmanager
    def locked(self, what: str, *, create: bool) -> Iterator[bool]:
        """Hold the lock that serializes changes to pinned hooks.

        Yields whether there is a folder; without one there is neither a lock nor any pin.

        Args:
            what: what is being tried, for errors.
            create: make the folder if it is missing.

        Raises:
            RequirementUnmet: the root is no bpffs, or somebody else made the folder.
            MissingPrivilege: only root may.
        """
        if create:
            self.require_bpffs(what)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.folder, 0o700)
            except OSError as error:
                raise _explained(error, what, self.folder) from error
        descriptor = self.open_folder(what)
        if descriptor is None:
            yield False
            return
        with descriptor:
            fcntl.flock(descriptor.fileno(), fcntl.LOCK_EX)
            yield True

    def open_folder(self, what: str) -> Fd | None:
        """Open the folder if it is one to be trusted; None when there is none.

        Raises:
            RequirementUnmet: somebody else made it.
            MissingPrivilege: only root may look.
        """
        try:
            descriptor = Fd(os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise self._distrusted(what, "it is not a folder") from error
        except OSError as error:
            raise _explained(error, what, self.folder) from error
        distrust = _distrust(os.fstat(descriptor.fileno()))
        if distrust is not None:
            descriptor.close()
            raise self._distrusted(what, distrust)
        return descriptor

    def _distrusted(self, what: str, why: str) -> RequirementUnmet:
        return RequirementUnmet(
            what,
            cause=f"{self.folder} was not made by xdpkit: {why}",
            remedy=f"see what is in it and who uses it, then remove it: rm -r {self.folder}",
        )

    def pin(self, link: Fd, interface: Interface, what: str) -> str:
        """Pin a link as the one on an interface's hook; return the pin's path. Under the lock.

        Raises:
            KernelRefused: the pin is taken by the link of an interface that was here before and
                is in another namespace now (EEXIST), or bpffs refused otherwise.
        """
        path = self.path_of(interface)
        self._make_folder(path, what)
        try:
            bpf.obj_pin(link.fileno(), path, what=what)
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            raise KernelRefused(
                what,
                errno=errno.EEXIST,
                cause=f"{path} holds the link of an interface that had number {interface.index}"
                " here and has moved to another network namespace",
                remedy=f"detach that one: bpftool link detach pinned {path}",
            ) from error
        return path

    @contextlib.contextmanager
    def keeping(self, maps: Iterable[Map], interface: Interface, what: str) -> Iterator[None]:
        """Pin maps beside the link that is about to be; unpin them if the block fails.

        Under the lock. Before the link, so that a packet meets no program without them.
        """
        link = self.path_of(interface)
        with contextlib.ExitStack() as undo:
            for each in maps:
                self._make_folder(link, what)
                path = f"{os.path.dirname(link)}/{_MAP}{each.id}"
                bpf.obj_pin(each.fileno(), path, what=what)
                undo.callback(os.unlink, path)
            yield
            undo.pop_all()

    def _make_folder(self, path: str, what: str) -> None:
        folder = os.path.dirname(path)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        except OSError as error:
            raise _explained(error, what, folder) from error

    def open(self, interface: Interface) -> tuple[Fd, PinnedLink] | None:
        """Return the link that is pinned for an interface's hook, None where there is none.

        The caller closes the descriptor. Whether the link is still what is on the hook is for
        :meth:`PinnedLink.holds` to say.
        """
        return _open_link(self.path_of(interface))

    def remove(self, interface: Interface) -> None:
        """Unpin the link of an interface's hook, and its maps. Under the lock."""
        _remove(os.path.dirname(self.path_of(interface)))

    def sweep(self) -> None:
        """Remove pins whose links hold nothing, and empty folders. Under the lock."""
        with os.scandir(self.folder) as entries:
            hooks = [entry.path for entry in entries if _HOOK_NAME.fullmatch(entry.name)]
        for hook in hooks:
            opened = _open_link(f"{hook}/{_LINK}")
            if opened is None:
                # Of an attach or a detach that was killed half-way.
                _remove(hook)
                continue
            descriptor, pinned = opened
            with descriptor:
                if pinned.ifindex == 0:
                    _remove(hook)


def _open_link(path: str) -> tuple[Fd, PinnedLink] | None:
    descriptor = bpf.obj_get(path, what=f"open {path}")
    if descriptor is None:
        return None
    info = attr.XdpLinkInfo()
    try:
        bpf.get_info(descriptor.fileno(), info)
    except BaseException:
        descriptor.close()
        raise
    return descriptor, PinnedLink(path, info.id, info.prog_id, info.ifindex)


def _remove(hook: str) -> None:
    """Remove a hook's pins: the link's last, by which a half-removed hook is recognised."""
    with os.scandir(hook) as entries:
        names = sorted((entry.name for entry in entries), key=lambda name: name == _LINK)
    for name in names:
        if name == _LINK or name.startswith(_MAP):
            os.unlink(f"{hook}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(hook)


def _distrust(status: os.stat_result) -> str | None:
    """Return why a folder with this status is not to be trusted, None if it is."""
    if status.st_uid not in (0, os.geteuid()):
        return f"user {status.st_uid} owns it"
    if status.st_mode & 0o077:
        return f"others may use it (mode {stat.S_IMODE(status.st_mode):04o}, not 0700)"
    return None


def _explained(error: OSError, what: str, path: str) -> XdpkitError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return MissingPrivilege(
            what, cause=f"{path} is not accessible to this user", remedy="run it as root"
        )
    if error.errno == errno.EROFS:
        return RequirementUnmet(what, cause=f"{path} is on a file system mounted read-only")
    return KernelRefused(what, errno=error.errno or errno.EIO, cause=f"{path} cannot be used")
