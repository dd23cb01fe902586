# SPDX-License-Identifier: Apache-2.0
"""A folder that is somebody's as long as the process lives: a lock that the kernel releases.

The process makes the folder and locks it (``flock``). However it ends, the lock ends with it, and a
folder that nobody has locked says that its owner has gone without tidying up.
"""

from __future__ import annotations

import fcntl
import os
import weakref

from xdpkit.errors import XdpkitError
from xdpkit.kernel.folder import make_folder, open_trusted, try_lock
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd


class Claim(Closing):
    """That a folder is this process's: a context manager; see :func:`claim`.

    It is this process's alone: in one that is forked off it is closed.
    """

    __slots__ = ("__weakref__", "_folder")

    def __init__(self, folder: Fd) -> None:
        """Take over a folder that is locked."""
        self._folder = folder
        _CLAIMS.add(self)

    @property
    def closed(self) -> bool:
        return self._folder.closed

    def close(self) -> None:
        """Be the owner no longer; closing twice does nothing."""
        if not self.closed:
            # The lock would last as long as the last descriptor, and a process may have inherited
            # one that was forked off without Python's doing.
            fcntl.flock(self._folder.fileno(), fcntl.LOCK_UN)
            self._folder.close()

    def leave_to_parent(self) -> None:
        """Close the descriptor, and leave the lock to the process that has the claim."""
        self._folder.close()


_CLAIMS: weakref.WeakSet[Claim] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for each in list(_CLAIMS):
        each.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


def claim(path: str, what: str) -> Claim | None:
    """Become a folder's owner, as long as what is returned is open; None if somebody else is.

    Args:
        path: the folder, which is made if it is missing. what: what is being tried, for errors.

    Raises:
        RequirementUnmet, MissingPrivilege, KernelRefused: the folder cannot be made, or is not to
            be trusted.
    """
    make_folder(path, what)
    folder = open_trusted(path, what)
    if folder is None or try_lock(folder):
        return Claim(folder) if folder is not None else None
    folder.close()
    return None


def is_claimed(path: str) -> bool:
    """Whether a folder has an owner that lives; a folder that is not there has none."""
    try:
        folder = open_trusted(path, f"see whose {path} is")
    except XdpkitError:
        return False
    if folder is None:
        return False
    with folder:
        return not try_lock(folder)
