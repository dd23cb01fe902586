# SPDX-License-Identifier: Apache-2.0
"""What a hook needs to outlive the process: ``<bpffs>/xdpkit/<netns cookie>-<ifindex>/``.

``link`` keeps the link, and with it the program on the hook. Beside it lie the maps that must
outlive the process too, ``map-<program>-<id>``, named after the program that needs them: the kernel
empties a program array and cancels timers when the map's last descriptor or pin goes, although a
program uses it. Where netlink or somebody else's link holds the program, ``program-<id>`` stands in
the link's place. While one program is replaced by another, there are the pins of both.
``watch-<program>`` keeps the link of a program that counts what another's program returns.

It is in a folder that is root's alone (:mod:`xdpkit.kernel.folder`).

The folder's name says where the interface was when its program was attached. Interfaces move, and
the link follows: so whose hook a folder is, its link says, and not its name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused
from xdpkit.hook.homes import ids_on, is_still_there
from xdpkit.interfaces import Interface
from xdpkit.kernel.folder import Folder, explained, make_folder, remove_if_empty, unlink
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi import attr

if TYPE_CHECKING:
    from xdpkit.kernel import Map, Program

SETTINGS = "settings"
"""The name of the pin of an interface's settings, in the folder of its hook."""

WATCH = "watch-"
"""How the pins of links begin by which programs are counted from outside."""

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


class Pins(Folder):
    """The pins of all hooks, below one mount of bpffs."""

    def home_of(self, interface: Interface) -> str:
        """Return the folder for an interface's hook."""
        return f"{self.folder}/{interface.netns_cookie}-{interface.index}"

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
            raise explained(error, what, home) from error

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
                make_folder(hook, what)
                undo.callback(remove_if_empty, hook)
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
    make_folder(hook, what)
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
            unlink(path)


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
        unlink(f"{folder.path}/{name}")


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
            unlink(f"{hook}/{name}")


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
            unlink(f"{hook}/{name}")
    remove_if_empty(hook)


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
