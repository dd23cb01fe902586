# SPDX-License-Identifier: Apache-2.0
"""What is set for an interface, whatever is on its hook: whether its programs are counted.

It is kept in an array of one entry, pinned beside the link (docs/records.md), and stays there until
it is removed or the interface has gone. It follows an interface that moves, as long as something
on the hook tells where that is now; see :func:`follow`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from ctypes import Structure, c_uint32
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit import __version__
from xdpkit.errors import (
    KernelRefused,
    MissingPrivilege,
    ObjectFormatError,
    RequirementUnmet,
    XdpkitError,
)
from xdpkit.hook.pins import SETTINGS
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.syscalls import bpf, mounts
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.uapi import sized
from xdpkit.uapi.bpf import MapType
from xdpkit.uapi.sized import HEAD, Part

if TYPE_CHECKING:
    from xdpkit.hook.pins import Pins
    from xdpkit.interfaces import Interface
    from xdpkit.syscalls.fd import Fd

SETTINGS_MAP = "xdpkit_settings"

_MAGIC = int.from_bytes(b"xdpS", sys.byteorder)
_KIND = "setting"
_INDEX = struct.pack("=I", 0)
# Room for what later versions append.
_SIZE = 256
_LARGEST = 1 << 16
# A look can meet a write half-way, but not each time.
_READS = 3


class Counting(enum.IntFlag):
    """What is counted of the packets that programs return, by action.

    Attributes:
        PACKETS: how many. BYTES: their lengths, too.
    """

    OFF = 0
    PACKETS = 1 << 0
    BYTES = 1 << 1

    @classmethod
    def of(cls, *, count_bytes: bool) -> Counting:
        """Return what is counted with or without bytes."""
        return cls.PACKETS | cls.BYTES if count_bytes else cls.PACKETS

    @property
    def with_bytes(self) -> bool:
        return Counting.BYTES in self

    @property
    def word(self) -> str:
        """What to call it: "off", "packets" or "packets+bytes"."""
        return (
            "+".join(each.name.lower() for each in Counting if each in self and each.name) or "off"
        )


KNOWN_COUNTING = int(Counting.PACKETS | Counting.BYTES)
"""All bits that this version knows."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set for an interface.

    Attributes:
        counting: what its programs are to count.
        unknown: whether something is set that this version does not know: then it may be shown,
            but not changed.
        xdpkit: the version that wrote it.
    """

    counting: Counting
    unknown: bool = False
    xdpkit: str = __version__


class _Layout(Structure):
    _fields_ = [*HEAD, ("counting", c_uint32), ("flags", c_uint32), ("xdpkit", Part)]


def read(folder: str) -> Settings | None:
    """Return what is set for the interface of a hook's folder; None: nothing is.

    Raises:
        ObjectFormatError: what is pinned there is no setting.
        MissingPrivilege: only root may look.
        KernelRefused: the kernel refused.
    """
    with _opened(folder) as found:
        return None if found is None else _read(found, folder)


def places(pins: Pins, interface: Interface, pinned: str | None = None) -> tuple[str, ...]:
    """Return the folders in which an interface's settings can be, the one that counts first.

    An interface that has moved leaves them where its program is pinned.

    Args:
        pins: all pins. interface: the interface.
        pinned: where the link of the program on its hook is pinned, if that is known.

    Raises:
        KernelRefused: the kernel refused.
    """
    home = pins.home_of(interface)
    if pinned is not None:
        return tuple(dict.fromkeys((os.path.dirname(pinned), home)))
    folder = pins.folder_of(interface)
    return tuple(dict.fromkeys((folder.path, home))) if folder is not None else (home,)


def first(folders: Iterable[str]) -> Settings | None:
    """Return what is set in the first of these folders in which something is.

    Raises:
        ObjectFormatError, MissingPrivilege, KernelRefused: as :func:`read`.
    """
    return next((found for each in folders if (found := read(each)) is not None), None)


def are_hidden(pins: Pins) -> bool:
    """Whether settings cannot be seen from here, as in ``ip netns exec``, but may be there."""
    return pins.root == DEFAULT_ROOT and mounts.hidden_bpffs()


def follow(pins: Pins, interface: Interface, what: str) -> None:
    """Move the settings of an interface that has moved to where it is now. Under the lock.

    Its pins stay where they are as long as they hold its program, but no longer.

    Raises:
        RequirementUnmet, MissingPrivilege, KernelRefused: it is impossible.
    """
    folder, home = pins.folder_of(interface), pins.home_of(interface)
    if folder is None or folder.path == home or folder.settings is None:
        return
    pins.vacate(interface, what)
    _make_folder(home)
    try:
        os.rename(folder.settings, f"{home}/{SETTINGS}")
    except OSError as error:
        raise _explained(error, f"move {folder.settings} to {home}", home) from error


def write(folder: str, settings: Settings) -> None:
    """Set something for the interface of a hook's folder, which is made if missing. Under the lock.

    Raises:
        RequirementUnmet: a later version set something that this one does not know.
        ObjectFormatError: what is pinned there is no setting.
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    data = sized.pack(
        _Layout(magic=_MAGIC),
        {"counting": settings.counting, "flags": 0},
        {"xdpkit": sized.text(settings.xdpkit, "the version")},
        b"",
    )
    with _opened(folder) as found:
        if found is not None:
            _require_known(_read(found, folder), "change")
            size = int(bpf.map_info(found.fileno()).value_size)
            bpf.map_update(found.fileno(), _INDEX, data.ljust(size, b"\0"))
            return
    new = NewMap(type=MapType.ARRAY, key_size=4, value_size=_SIZE, max_entries=1, name=SETTINGS_MAP)
    _make_folder(folder)
    with bpf.map_create(new, what=f"create map {SETTINGS_MAP}") as made:
        bpf.map_update(made.fileno(), _INDEX, data.ljust(_SIZE, b"\0"))
        bpf.obj_pin(
            made.fileno(), f"{folder}/{SETTINGS}", what="keep what is set for the interface"
        )


def remove(folder: str) -> None:
    """Set nothing any more for the interface of a hook's folder, which goes if it is empty then.

    Under the lock.

    Raises:
        RequirementUnmet: a later version set something that this one does not know.
        ObjectFormatError: what is pinned there is no setting.
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    with _opened(folder) as found:
        if found is None:
            return
        _require_known(_read(found, folder), "remove")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/{SETTINGS}")
    except OSError as error:
        raise _explained(error, f"remove {folder}/{SETTINGS}", folder) from error
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _make_folder(folder: str) -> None:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    except OSError as error:
        raise _explained(error, f"make {folder}", folder) from error


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[Fd | None]:
    """Open the map, if one is pinned."""
    path = f"{folder}/{SETTINGS}"
    try:
        found = bpf.obj_get(path, what=_looking_at(folder))
    except KernelRefused as error:
        # What lies there and is no BPF object, as another file system has it.
        if error.errno in (errno.EINVAL, errno.ENOTDIR):
            found = None
        else:
            raise
    if found is None:
        yield None
        return
    with found:
        if bpf.kind_of(found.fileno()) is not ObjectKind.MAP:
            raise _no_setting(folder, "it is no map")
        yield found


def _read(found: Fd, folder: str) -> Settings:
    info = bpf.map_info(found.fileno())
    if info.type != MapType.ARRAY or info.max_entries != 1 or info.value_size > _LARGEST:
        raise _no_setting(folder, "it is another map than it would be kept in")
    problem = ObjectFormatError("it is empty", file=_KIND)
    for _ in range(_READS):
        data = bpf.map_lookup(found.fileno(), _INDEX, info.value_size) or b""
        try:
            return _decode(data)
        except ObjectFormatError as error:
            problem = error.with_traceback(None)
    raise _no_setting(folder, problem.cause)


def _decode(data: bytes) -> Settings:
    found = sized.unpack(_KIND, _MAGIC, _Layout, data)
    counting = found.fields.counting
    unknown = any(found.tail) or bool(counting & ~KNOWN_COUNTING) or bool(found.fields.flags)
    return Settings(Counting(counting & KNOWN_COUNTING), unknown, found.text("xdpkit"))


def _require_known(settings: Settings, verb: str) -> None:
    if settings.unknown:
        raise RequirementUnmet(
            f"{verb} what is set for the interface",
            cause=f"xdpkit {settings.xdpkit} set something that this version does not know",
            remedy=f"use xdpkit {settings.xdpkit}",
        )


def _no_setting(folder: str, why: str) -> ObjectFormatError:
    path = f"{folder}/{SETTINGS}"
    return ObjectFormatError(f"what is pinned there is no {_KIND}: {why}", file=path)


def _looking_at(folder: str) -> str:
    return f"look at what is set for the interface ({folder}/{SETTINGS})"


def _explained(error: OSError, what: str, folder: str) -> XdpkitError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return MissingPrivilege(
            what, cause=f"{folder} is not accessible to this user", remedy="run it as root"
        )
    return KernelRefused(what, errno=error.errno or errno.EIO, cause=error.strerror)
