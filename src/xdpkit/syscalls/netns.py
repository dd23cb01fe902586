# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: enter one for a while, and tell them apart.

A namespace belongs to a thread, not to the process: :func:`entered` moves the calling thread only.
Threads that it starts inside begin in the other namespace and stay there; threads that exist
already, and an event loop's executor among them, do not follow. The mount namespace stays, so that
/sys/fs/bpf is the same inside (``ip netns exec`` hides it).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shlex
import socket
import struct
from collections.abc import Iterator

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet, UsageError
from xdpkit.syscalls import privilege
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.libc import libc
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.nsfs import NS_GET_USERNS

NAMED_FOLDER = "/run/netns"

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
_OF_THIS_THREAD = "/proc/thread-self/ns/net"
_OWN_USERS = "/proc/thread-self/ns/user"


def path_of(name: str | os.PathLike[str]) -> str:
    """Return the file that stands for a namespace: a path is taken as it is, a name is looked up.

    Names are those of ``ip netns``, in /run/netns. What contains a slash is a path.

    Raises:
        UsageError: the name is empty, or not one that a file can have.
    """
    text = os.fspath(name)
    if "/" in text and _is_possible(text):
        return text
    if text in ("", ".", "..") or not _is_possible(text):
        raise UsageError(
            f"find network namespace {text!r}", cause="that cannot be a namespace's name"
        )
    return f"{NAMED_FOLDER}/{text}"


def nsenter(name: str | None) -> str:
    """Return what makes a shell run the command after it in a network namespace; "" for None."""
    return "" if name is None else f"nsenter --net={shlex.quote(path_of(name))} "


@contextlib.contextmanager
def entered(name: str | os.PathLike[str] | None) -> Iterator[None]:
    """Run the ``with`` block in another network namespace; with None, stay.

    The calling thread comes back at the end, whatever happens in the block, or before it: a
    signal's exception (KeyboardInterrupt) can come at any time.

    Args:
        name: a name in /run/netns, or a path (``/proc/1234/ns/net``).

    Raises:
        UsageError: there is no such namespace, or the file is none.
        RequirementUnmet: there is no /proc, without which there is no way back.
        MissingPrivilege: entering takes CAP_SYS_ADMIN.
        KernelRefused: the kernel refused otherwise.
    """
    if name is None:
        yield
        return
    path = path_of(name)
    what = f"enter network namespace {os.fspath(name)}"
    with _open(path, what) as target, own(what) as home:
        try:
            try:
                _setns(target, what, path)
                yield
                _leave(home, name)
            except BaseException:
                _leave_if_inside(home, name)
                raise
        except BaseException:
            # Where a signal's exception came just before the first time.
            _leave_if_inside(home, name)
            raise


def cookie() -> int:
    """Return a number that identifies the calling thread's network namespace until reboot.

    Before Linux 5.14 it is the inode number of the namespace's file instead, which the kernel gives
    to another namespace when this one has ended.

    Raises:
        RequirementUnmet: before Linux 5.14, there is no /proc.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        return cookie_by(any_socket)


def cookie_by(own_socket: socket.socket) -> int:
    """Return :func:`cookie`, by a socket that was made in the calling thread's namespace.

    Raises:
        RequirementUnmet: before Linux 5.14, there is no /proc.
    """
    try:
        value = own_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError as error:
        # Linux 5.14 (e8b9eab99232): SO_NETNS_COOKIE.
        if error.errno != errno.ENOPROTOOPT:
            raise
        with own("tell network namespaces apart") as namespace:
            return os.fstat(namespace.fileno()).st_ino
    (number,) = struct.unpack("=Q", value)
    return int(number)


def has_cookies() -> bool:
    """Return whether the kernel tells the cookies of network namespaces (Linux 5.14)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return False
    return True


def is_foreign() -> bool:
    """Whether the calling thread's network namespace is one of another user namespace.

    Any user can make such a pair (``unshare -Urn``), and whoever did is root in it: makes
    interfaces there with any name, index and address, and as many as he likes. A namespace of a
    user namespace above this process's is none of these.

    Linux 4.9 (6786741dbf99): NS_GET_USERNS. Where it cannot be asked, it is not.
    """
    try:
        with (
            Fd(os.open(_OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)) as namespace,
            # EPERM: it is one above.
            Fd(fcntl.ioctl(namespace.fileno(), NS_GET_USERNS)) as users,
        ):
            return not os.path.samestat(os.fstat(users.fileno()), os.stat(_OWN_USERS))
    except OSError:
        return False


def has_interface(index: int) -> bool:
    """Whether the calling thread's network namespace has an interface with this index."""
    try:
        socket.if_indextoname(index)
    except OSError:
        return False
    return True


def own(what: str) -> Fd:
    """Open the calling thread's network namespace.

    Args:
        what: what it is for, for errors.

    Raises:
        RequirementUnmet: there is no /proc.
    """
    try:
        return Fd(os.open(_OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RequirementUnmet(
            what,
            cause="there is no /proc here, by which a process finds its own network namespace",
            remedy="mount -t proc proc /proc",
        ) from error


def _is_possible(text: str) -> bool:
    """Whether a file can have such a path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _open(path: str, what: str) -> Fd:
    try:
        # Opening a FIFO would wait for its writer.
        return Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise UsageError(what, cause=f"{path} does not exist") from error
    except PermissionError as error:
        raise MissingPrivilege(
            what, cause=f"{path} may not be opened", remedy="run it as root"
        ) from error
    except OSError as error:
        raise KernelRefused(
            what, errno=error.errno or errno.EIO, cause=f"{path} cannot be opened"
        ) from error


def _leave_if_inside(home: Fd, name: str | os.PathLike[str]) -> None:
    """Go back to a namespace, unless the thread is there: that would take CAP_SYS_ADMIN, too."""
    with contextlib.suppress(OSError):
        # /proc may be gone by now.
        if os.path.samestat(os.fstat(home.fileno()), os.stat(_OF_THIS_THREAD)):
            return
    _leave(home, name)


def _leave(home: Fd, name: str | os.PathLike[str]) -> None:
    _setns(home, f"return from network namespace {os.fspath(name)}", _OF_THIS_THREAD)


def _setns(fd: Fd, what: str, path: str) -> None:
    # os.setns came with Python 3.12.
    if libc().setns(fd.fileno(), _CLONE_NEWNET) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:
        raise UsageError(what, cause=f"{path} is not a network namespace")
    if number == errno.EPERM:
        raise privilege.explain_eperm(what, (Capability.SYS_ADMIN,))
    raise KernelRefused(what, errno=number)
