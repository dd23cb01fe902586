# SPDX-License-Identifier: Apache-2.0
"""What a hook needs to outlive the process: ``<bpffs>/xdpkit/<netns cookie>-<ifindex>/``.

``link`` keeps the link, and with it the program on the hook. Beside it lie the maps that must
outlive the process too, ``map-<program>-<id>``, named after the program that needs them: the kernel
empties a program array and cancels timers when the map's last descriptor or pin goes, although a
program uses it. Where netlink or somebody else's link holds the program, ``program-<id>`` stands in
the link's place. While one program is replaced by another, there are the pins of both.
``watch-<program>`` keeps the link of a program that counts what another's program returns.

The folder is root's alone (0700): bpffs is world-writable by default, and whoever can replace a pin
decides what the next command detaches.

The folder's name says where the interface was when its program was attached. Interfaces move, and
the link follows: so whose hook a folder is, its link says, and not its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import (
    HookBusy,
    KernelRefused,
    MissingPrivilege,
    RequirementUnmet,
    XdpkitError,
)
from xdpkit.hook.homes import ids_on, is_still_there
from xdpkit.interfaces import Interface
from xdpkit.syscalls import bpf, mounts, privilege
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.mounts import Lifetime
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi import attr
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.kernel import Map, Program

DEFAULT_ROOT = "/sys/fs/bpf"

SETTINGS = "settings"
"""The name of the pin of an interface's settings, in the folder of its hook."""

WATCH = "watch-"
"""How the pins of links begin by which programs are counted from outside."""

BY_NAME = (
    "name the network namespace instead of entering it (xdpkit -n NAME, not ip netns exec NAME"
    " xdpkit)"
)
"""What helps where entering a network namespace has hidden the bpffs."""

# Seconds; a change takes milliseconds, or a hundred where a process is started.
_PATIENCE = 30.0
_FOLDER = "xdpkit"
_LINK = "link"
_PROGRAM = "program-"
_MAP = "map-"
_MAP_NAME = re.compile(r"map-(\d+)-(\d+)")
_HOOK_NAME = re.compile(r"(\d+)-(\d+)(-\d+)?")


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
        return self.ifindex == interface.index and self.program_id in ids_on(interface)


@dataclass(frozen=True, slots=True)
class HookFolder:
    """The pins of one hook, at the moment when they were looked at.

    Attributes:
        path: the folder.
        netns_cookie, ifindex: where the interface was when its program was attached.
        link: the pinned link, None where something else holds the program.
        programs: ids of the programs that stand in the link's place.
        maps: the pinned maps, as the id of the program that each was pinned for and its own.
        settings: path of the pinned settings of the interface, None where it has none.
        watched: ids of the programs of others that are counted from outside.
    """

    path: str
    netns_cookie: int
    ifindex: int
    link: PinnedLink | None
    programs: frozenset[int]
    maps: frozenset[tuple[int, int]]
    settings: str | None = None
    watched: frozenset[int] = frozenset()

    @property
    def is_dead(self) -> bool:
        """Whether it certainly holds nothing: its interface is gone, or a command was killed."""
        if self.link is not None:
            return self.link.ifindex == 0
        return not self.programs and self.settings is None

    @property
    def has_only_settings(self) -> bool:
        """Whether it is that of an interface of which something is set, but nothing attached."""
        return self.settings is not None and self.link is None and not self.programs

    @property
    def has_pins_of(self) -> frozenset[int]:
        """The programs that something is pinned for."""
        return self.programs | {program for program, _ in self.maps}

    def maps_for(self, program_id: int) -> list[tuple[str, int]]:
        """Return path and id of the maps that are pinned for a program."""
        return [
            (f"{self.path}/{_MAP}{program}-{number}", number)
            for program, number in self.maps
            if program == program_id
        ]

    def keeps(self, program_id: int) -> bool:
        """Whether it is this program that the pins keep on its hook."""
        if self.link is not None:
            return program_id == self.link.program_id
        return program_id in self.programs

    def serves(self, interface: Interface) -> bool:
        """Whether the interface's hook is this one."""
        if self.link is not None:
            return self.link.holds(interface)
        return self.is_home_of(interface) and self.has_program_of(interface)

    def has_program_of(self, interface: Interface) -> bool:
        """Whether a program that stands in a link's place is on the interface's hook."""
        return not self.programs.isdisjoint(ids_on(interface))

    def is_home_of(self, interface: Interface) -> bool:
        """Whether the interface was here when its program was attached, and is still."""
        return (self.netns_cookie, self.ifindex) == (interface.netns_cookie, interface.index)


def _has_moved_to(folder: HookFolder, interface: Interface) -> bool:
    """Whether pins that were made elsewhere hold what is on an interface's hook now."""
    if folder.is_home_of(interface):
        return False
    if folder.link is not None:
        # A link follows its interface, and one that holds this program at this index is rare.
        return folder.link.holds(interface) and not is_still_there(
            folder.netns_cookie, folder.ifindex, {folder.link.program_id}
        )
    return folder.has_program_of(interface) and (
        is_still_there(folder.netns_cookie, folder.ifindex, folder.programs) is False
    )


class Pins:
    """The pins of all hooks, below one mount of bpffs."""

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        self.root = root
        self.folder = f"{root.rstrip('/')}/{_FOLDER}"

    def home_of(self, interface: Interface) -> str:
        """Return the folder for an interface's hook."""
        return f"{self.folder}/{interface.netns_cookie}-{interface.index}"

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
        self._require_writable(what, alternative)
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

    def _require_writable(self, what: str, alternative: bool) -> None:
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
        """Hold the lock that serializes changes to pinned hooks.

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
                self._require_writable(what, alternative=False)
                self._lock(descriptor, what)
                if self._is_gone(descriptor):
                    # `clean --all` removed it while this process waited for the lock.
                    continue
                yield True
                return

    def _folder(self, what: str, *, create: bool, lenient: bool) -> Fd | None:
        if create:
            if not is_bpffs(self.root):
                raise self._no_bpffs(what, alternative=False)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.folder, 0o700)
            except OSError as error:
                raise _explained(error, what, self.folder) from error
        try:
            return self.open_folder(what)
        except RequirementUnmet:
            if create or not lenient:
                raise
            return None

    def _lock(self, descriptor: Fd, what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        pause = 0.001
        while True:
            try:
                fcntl.flock(descriptor.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HookBusy(
                        what,
                        cause=f"another process has held the lock on {self.folder} for more than"
                        f" {_PATIENCE:.0f} seconds",
                        remedy=f"see which: fuser -v {self.folder}",
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _is_gone(self, descriptor: Fd) -> bool:
        try:
            return not os.path.samestat(os.fstat(descriptor.fileno()), os.lstat(self.folder))
        except FileNotFoundError:
            return True

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
            if not os.path.isdir(self.root):
                raise self._no_bpffs(what, alternative=False) from error
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

    def folders(self) -> list[HookFolder]:
        """Look at the pins of all hooks. The folder above them has been found trustworthy."""
        return [folder for folder, _ in self._look_at_all() if folder is not None]

    def strangers(self) -> list[tuple[str, str]]:
        """Return what is called like a hook's pins and is none, with what is wrong with it."""
        return [(path, wrong) for folder, (path, wrong) in self._look_at_all() if folder is None]

    def _look_at_all(self) -> Iterator[tuple[HookFolder | None, tuple[str, str]]]:
        try:
            with os.scandir(self.folder) as entries:
                found = [
                    (entry.path, name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if (name := _HOOK_NAME.fullmatch(entry.name))
                ]
        except FileNotFoundError:
            return
        for path, name, is_folder in found:
            if not is_folder:
                yield None, (path, "it is not a folder")
                continue
            try:
                folder = _look(path, int(name[1]), int(name[2]))
            except (KernelRefused, OSError) as error:
                yield None, (path, f"its pins cannot be read: {error}")
                continue
            if folder is not None:
                yield folder, (path, "")

    def folder_of(self, interface: Interface) -> HookFolder | None:
        """Return the pins that hold what is on an interface's hook; None where none do."""
        return self.choose(self.folders(), interface)

    def choose(self, folders: Iterable[HookFolder], interface: Interface) -> HookFolder | None:
        """Return the one of these pins that holds what is on an interface's hook.

        Those of the interface's own place come first. An interface that has moved here is
        recognised by its link or program; but one program can be on several hooks, and the kernel
        does not name a link's namespace: so the pins' own place must have lost the program.
        """
        folders = tuple(folders)
        for folder in folders:
            if folder.is_home_of(interface) and folder.serves(interface):
                return folder
        moved = [folder for folder in folders if _has_moved_to(folder, interface)]
        return moved[0] if len(moved) == 1 else None

    def vacate(self, interface: Interface, what: str) -> None:
        """Make an interface's place free for its pins. Under the lock.

        The pins of an interface that was here before and is elsewhere now move aside.
        """
        home = self.home_of(interface)
        folder = _look(home, interface.netns_cookie, interface.index)
        if folder is None:
            return
        if folder.is_dead:
            remove(folder.path)
            return
        if folder.has_only_settings or folder.serves(interface):
            return
        number = folder.link.link_id if folder.link is not None else min(folder.programs)
        try:
            os.rename(home, f"{home}-{number}")
        except OSError as error:
            raise _explained(error, what, home) from error

    @contextlib.contextmanager
    def keeping(
        self, maps: Iterable[Map], hook: str, what: str, *, program: Program, holder: bool
    ) -> Iterator[None]:
        """Pin maps in a hook's folder; unpin those that were not pinned if the block fails.

        Under the lock. Before the program, so that a packet meets no program without them.

        Args:
            maps: the maps. hook: the folder.
            what: what is being tried, for errors.
            program: the program that they are for.
            holder: pin the program, too: another than our link will hold it.
        """
        pins: dict[str, Map | Program] = {f"{_MAP}{program.id}-{each.id}": each for each in maps}
        if holder:
            pins[f"{_PROGRAM}{program.id}"] = program
        with contextlib.ExitStack() as undo:
            if pins:
                _make_folder(hook, what)
                undo.callback(_remove_if_empty, hook)
            for name, each in pins.items():
                path = f"{hook}/{name}"
                if os.path.lexists(path):
                    continue
                bpf.obj_pin(each.fileno(), path, what=what)
                undo.callback(os.unlink, path)
            yield
            undo.pop_all()


def pin_link(link: Fd, hook: str, what: str) -> str:
    """Pin the link that holds a hook's program; return the pin's path. Under the lock."""
    _make_folder(hook, what)
    path = f"{hook}/{_LINK}"
    bpf.obj_pin(link.fileno(), path, what=what)
    return path


def pin_watch(link: Fd, hook: str, number: int, what: str) -> None:
    """Pin the link by which a program is counted from outside. Under the lock."""
    bpf.obj_pin(link.fileno(), f"{hook}/{WATCH}{number}", what=what)


def watches(hook: str) -> dict[int, str]:
    """Return the programs that are counted from outside, and the pins of the links for that."""
    try:
        names = os.listdir(hook)
    except FileNotFoundError:
        return {}
    return {number: f"{hook}/{WATCH}{number}" for number in sorted(_numbers(names, WATCH))}


def unwatch_others(hook: str, programs: Collection[int | None]) -> None:
    """Count no other programs than these from outside. Under the lock."""
    for number, path in watches(hook).items():
        if number not in programs:
            _unlink(path)


def open_link(path: str) -> Fd | None:
    """Open a pinned link; None where nothing is pinned."""
    return bpf.obj_get(path, what=f"open {path}")


def unpin_others(folder: HookFolder, programs: Collection[int]) -> None:
    """Remove what is pinned for other programs than these. Under the lock."""
    names = [
        f"{_MAP}{program}-{number}" for program, number in folder.maps if program not in programs
    ]
    names += [f"{_PROGRAM}{number}" for number in folder.programs if number not in programs]
    for name in names:
        _unlink(f"{folder.path}/{name}")


def unpin(hook: str, programs: Collection[int]) -> None:
    """Remove what is pinned in a hook's folder for these programs. Under the lock."""
    if not programs:
        return
    prefixes = tuple(f"{_MAP}{number}-" for number in programs)
    names = {f"{_PROGRAM}{number}" for number in programs}
    try:
        found = os.listdir(hook)
    except FileNotFoundError:
        return
    for name in found:
        if name.startswith(prefixes) or name in names:
            _unlink(f"{hook}/{name}")


def remove(hook: str, *, with_settings: bool = False) -> None:
    """Remove a hook's pins. Under the lock.

    The link's goes last: by it a hook that was half removed is recognised.

    Args:
        hook: the folder.
        with_settings: the interface's settings, too, which outlive its programs, and what counts
            programs of others.
    """
    try:
        names = sorted(os.listdir(hook), key=lambda name: name == _LINK)
    except FileNotFoundError:
        return
    for name in names:
        is_settings = with_settings and (name == SETTINGS or name.startswith(WATCH))
        if name == _LINK or name.startswith((_MAP, _PROGRAM)) or is_settings:
            _unlink(f"{hook}/{name}")
    _remove_if_empty(hook)


def _unlink(path: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise _explained(error, f"remove {path}", path) from error


def _or_netlink(alternative: bool) -> str:
    return "; or attach without pins: --netlink" if alternative else ""


def _is_empty_folder(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def _make_folder(hook: str, what: str) -> None:
    """Make a hook's folder if it is missing. Under the lock."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(hook, 0o700)
    except OSError as error:
        raise _explained(error, what, hook) from error


def _remove_if_empty(hook: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(hook)


def _look(path: str, cookie: int, ifindex: int) -> HookFolder | None:
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return HookFolder(
        path=path,
        netns_cookie=cookie,
        ifindex=ifindex,
        link=_pinned_link(f"{path}/{_LINK}") if _LINK in names else None,
        programs=_numbers(names, _PROGRAM),
        maps=frozenset(
            (int(found[1]), int(found[2])) for name in names if (found := _MAP_NAME.fullmatch(name))
        ),
        settings=f"{path}/{SETTINGS}" if SETTINGS in names else None,
        watched=_numbers(names, WATCH),
    )


def _numbers(names: Iterable[str], prefix: str) -> frozenset[int]:
    numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return frozenset(int(number) for number in numbers if number.isdecimal())


def _pinned_link(path: str) -> PinnedLink | None:
    descriptor = open_link(path)
    if descriptor is None:
        return None
    info = attr.XdpLinkInfo()
    with descriptor:
        bpf.get_info(descriptor.fileno(), info)
    return PinnedLink(path, info.id, info.prog_id, info.ifindex)


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
