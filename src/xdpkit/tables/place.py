# SPDX-License-Identifier: Apache-2.0
"""The folder of a port table, ``<bpffs>/xdpkit/ports/<table>``: how it comes, is locked and goes.

A folder without a record is no table: it is one that is being created or destroyed, by whoever has
it locked, or what is left of one by a command that was killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.errors import (
    MissingPrivilege,
    ObjectFormatError,
    RequirementUnmet,
    UsageError,
    XdpkitError,
)
from xdpkit.kernel.folder import (
    BY_NAME,
    DEFAULT_ROOT,
    Folder,
    explained,
    is_gone,
    locked,
    make_folder,
    open_trusted,
    remove_if_empty,
    try_lock,
)
from xdpkit.syscalls import mounts
from xdpkit.syscalls.fd import Fd
from xdpkit.tables import maps, record
from xdpkit.tables.model import Table, check_name

_PORTS = "ports"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the table of a name is, or would be."""

    pins: Folder
    name: str

    @classmethod
    def of(cls, name: str, pin_root: str, what: str) -> Place:
        """Return the place of a name.

        Raises:
            UsageError: a table cannot be called so.
        """
        check_name(name, what)
        return cls(Folder(pin_root), name)

    @property
    def path(self) -> str:
        return f"{folder_of_all(self.pins)}/{self.name}"

    # Errors

    def missing(self, what: str) -> XdpkitError:
        """Return the error that there is no such table, or that it cannot be seen from here."""
        return hidden(self.pins, what) or UsageError(
            what,
            cause=f"there is no port table {self.name}",
            remedy="see which there are: xdpkit ports show",
        )

    def damaged(self, what: str, why: str) -> RequirementUnmet:
        """Return the error that the table cannot be used any more."""
        return RequirementUnmet(
            what,
            cause=f"what is kept of port table {self.name} in {self.path} is damaged: {why}",
            remedy=f"remove it, and create it anew: xdpkit ports destroy {self.name}",
        )

    # Looking

    def open(self, what: str) -> Fd | None:
        """Open the folder, if there is one.

        Raises:
            RequirementUnmet: it, or one above it, is not to be trusted.
            MissingPrivilege: only root may look.
        """
        above = self.pins.open_folder(what)
        if above is None:
            return None
        with above:
            return open_trusted(self.path, what)

    def read(self, what: str) -> Table | None:
        """Return what the table says; None where there is none.

        Raises:
            RequirementUnmet: its record is damaged.
            MissingPrivilege, KernelRefused: it cannot be read.
        """
        try:
            table = record.read(self.path, what)
        except ObjectFormatError as error:
            raise self.damaged(what, error.cause) from error
        if table is not None and table.name != self.name:
            raise self.damaged(what, f"its record is that of table {table.name}")
        return table

    # Changing

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[bool]:
        """Hold the lock of the folder; yields whether there is one.

        Raises:
            RequirementUnmet: the folder is not to be trusted, or is mounted read-only.
            MissingPrivilege: only root may.
            HookBusy: another process has held the lock for a long time.
        """
        while True:
            folder = self.open(what)
            if folder is None:
                yield False
                return
            with folder:
                self.pins.require_writable(what)
                with locked(folder, self.path, what):
                    if is_gone(folder, self.path):
                        # Its table was destroyed while this process waited for the lock.
                        continue
                    yield True
                    return

    def make(self, what: str) -> None:
        """Make the folder if it is missing.

        Raises:
            RequirementUnmet: the root is no bpffs, or somebody else made a folder above.
            MissingPrivilege, KernelRefused: it cannot be made.
            HookBusy: another process has held the lock of all pins for a long time.
        """
        with self.pins.locked(what, create=True):
            make_folder(folder_of_all(self.pins), what)
            make_folder(self.path, what)

    def empty(self) -> None:
        """Remove what is in the folder, the record first. Under the lock.

        Raises:
            MissingPrivilege, RequirementUnmet, KernelRefused: it is impossible.
        """
        try:
            names = sorted(os.listdir(self.path), key=lambda name: name != record.RECORD)
        except OSError as error:
            raise explained(error, f"remove port table {self.name}", self.path) from error
        for name in names:
            path = f"{self.path}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                remove_if_empty(path)
            else:
                maps.discard(self.path, name)

    def remove(self) -> None:
        """Remove the folder, and those above it if that was all there was. Under the lock.

        Raises:
            MissingPrivilege, RequirementUnmet, KernelRefused: it is impossible.
        """
        self.empty()
        remove_if_empty(self.path)
        # Who makes a folder in one of these has the lock of all pins.
        above = self.pins.open_folder(f"remove port table {self.name}")
        if above is not None:
            with above:
                if try_lock(above):
                    remove_if_empty(folder_of_all(self.pins))
                    remove_if_empty(self.pins.folder)

    def sweep(self) -> None:
        """Remove what a killed command has left of a table, if nobody is at it and it may go."""
        what = f"remove what is left of port table {self.name}"
        with contextlib.suppress(RequirementUnmet, MissingPrivilege):
            folder = self.open(what)
            if folder is None:
                return
            with folder:
                if (
                    try_lock(folder)
                    and not is_gone(folder, self.path)
                    and not record.is_there(self.path)
                ):
                    self.remove()


def folder_of_all(pins: Folder) -> str:
    """Return the folder of all tables."""
    return f"{pins.folder}/{_PORTS}"


def listed(pins: Folder) -> list[str]:
    """Return the names in the folder of all tables, in order; none where there is no folder.

    Raises:
        MissingPrivilege: only root may look.
        KernelRefused: it is none that can be read.
    """
    path = folder_of_all(pins)
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise explained(error, "look for port tables", path) from error


def hidden(pins: Folder, what: str) -> RequirementUnmet | None:
    """Return the error that all pins are hidden here, None where they are not."""
    if pins.root != DEFAULT_ROOT or not mounts.hidden_bpffs():
        return None
    return RequirementUnmet(
        what,
        cause=f"{pins.root} with the port tables is hidden here, as by ip netns exec",
        remedy=BY_NAME,
    )
