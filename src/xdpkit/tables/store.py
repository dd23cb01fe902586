# SPDX-License-Identifier: Apache-2.0
"""Where port tables are kept: ``<bpffs>/xdpkit/ports/<table>/``.

``record``
    What the table says (:mod:`xdpkit.tables.record`).
``ports``
    A devmap with the interfaces, by number (``struct bpf_devmap_val``).
``numbers``
    A hash from an interface's index to its port's number.
``counts``
    An array per CPU of ``struct xdpkit_port_counts``, by number.
``set-<name>``
    A devmap as ``ports`` is, with the ports of a set.
``egress-<number>``
    The program that runs on what is sent out of a port.
``owner``
    A folder, locked as long as the process lives whose table it is (:mod:`xdpkit.kernel.claim`).

The record is the intent, and the other maps follow it; who changes either has the folder locked
(``flock``). Looking takes no lock.

A table is created with the record last, and destroyed with the record first. So a folder without a
record is none, and whoever comes upon one that a killed command has left removes it. What a kill
leaves inside of a folder the next change removes: pins that the record does not speak of, and such
that have not got their names yet. A devmap that goes is emptied before, so that a program that has
it all the same sends nowhere, and not to interfaces that nobody looks after any more.

All programs that use a table's ports, and all egress programs, agree on whether they take frames in
fragments: the kernel wants it so. :mod:`xdpkit.tables.frags` says what was measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from xdpkit import __version__
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError, printable
from xdpkit.interfaces import Interface, resolve
from xdpkit.kernel import Map, Program
from xdpkit.kernel.claim import Claim, claim, is_claimed
from xdpkit.kernel.folder import DEFAULT_ROOT, Folder, explained, open_trusted
from xdpkit.kernel.pins import checked
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.closing import Closing
from xdpkit.tables import maps, record
from xdpkit.tables.model import NAME, Identity, Table
from xdpkit.tables.place import Place, folder_of_all, hidden, listed
from xdpkit.tables.wire import encode

__all__ = [
    "DEFAULT_ROOT",
    "DEFAULT_SIZE",
    "Membership",
    "Store",
    "create",
    "destroy",
    "find",
    "incarnations",
    "locked",
    "names",
    "open",
    "require",
]

DEFAULT_SIZE = 64
"""How many ports a table has room for if nobody says otherwise."""

_EGRESS = "egress-"
_OWNER = "owner"
# A reader takes no lock, and meets a table that is changed; but not for ever.
_READS = 50


class Store(Closing):
    """An open port table: its record, and the maps that programs use.

    A context manager that owns descriptors. Closing it ends no table, but that of an owner: who
    created it so and closes it has left it behind.

    Attributes:
        name: the table's. pin_root: the bpffs that it is kept in. folder: its folder there.
        note: what there is to be said of how long it lasts, None for nothing.
        ports, numbers, counts: its maps; see :mod:`xdpkit.tables.entries`.
    """

    def __init__(
        self,
        place: Place,
        opened: Mapping[str, Map],
        owner: Claim | None = None,
        note: str | None = None,
    ) -> None:
        """Take over what is open of a table; for :func:`create` and :func:`open`."""
        self.name = place.name
        self.pin_root = place.pins.root
        self.folder = place.path
        self.note = note
        self.ports, self.numbers, self.counts = (opened[word] for word in maps.SHAPES)
        self._place = place
        self._owner = owner
        self._sets: dict[str, Map] = {}
        self._seen: Table | None = None
        self._stamp = _stamp(place, f"open port table {place.name}")

    def close(self) -> None:
        """Close the descriptors; closing twice does nothing."""
        for each in (self.ports, self.numbers, self.counts, *self._sets.values()):
            each.close()
        if self._owner is not None:
            self._owner.close()

    @property
    def size(self) -> int:
        """How many ports it has room for."""
        return self.ports.max_entries

    @property
    def incarnation(self) -> int:
        """What tells it from another table of the name: the id of its map ``numbers``."""
        return self.numbers.id

    @property
    def sets(self) -> Mapping[str, Map]:
        """The maps of its sets, by name, as of the last read or write."""
        return MappingProxyType(self._sets)

    def maps(self) -> Mapping[str, Map]:
        """Return its maps, as of the last read or write, by their names in ``xdpkit.h``."""
        return {
            "xdpkit_ports": self.ports,
            "xdpkit_port_numbers": self.numbers,
            "xdpkit_port_counts": self.counts,
            **{f"xdpkit_set_{name}": each for name, each in self._sets.items()},
        }

    def read(self) -> Table:
        """Return what the table says. Takes no lock.

        Raises:
            UsageError: it was destroyed.
            RequirementUnmet: it is damaged.
            MissingPrivilege, KernelRefused: it cannot be read.
        """
        what = f"read port table {self.name}"
        missing = ""
        for _ in range(_READS):
            self._require_there(what)
            table = self._place.read(what)
            if table is None:
                raise self._place.missing(what)
            if table is self._seen:
                # The map of a set is another one only if the record is.
                return table
            missing = self._open_sets(table, what)
            if not missing:
                self._seen = table
                return table
        raise self._place.damaged(what, f"nothing is pinned as {missing}")

    def write(self, table: Table) -> None:
        """Have the table say something else. Under the lock.

        Sets that are new get a map, which is empty; those that are no more lose theirs, and ports
        without an egress program the pin of the one that they had. A table that becomes owned in
        this way has no owner: it is an orphan, for the next command to destroy.

        Raises:
            UsageError: it was destroyed, or is another table, or cannot be written down.
            RequirementUnmet: a later version wrote what is there, with what this one does not know;
                or it is damaged.
            MissingPrivilege, KernelRefused: it cannot be written.
        """
        what = f"change port table {self.name}"
        now = self.read()
        if now.unknown:
            raise RequirementUnmet(
                what,
                cause=f"xdpkit {now.xdpkit} wrote it, with what this version does not know",
                remedy=f"use xdpkit {now.xdpkit}",
            )
        if (table.name, table.size) != (now.name, now.size) or table.owner < now.owner:
            raise UsageError(
                what, cause="its name and its size stay as they are, and so does that it is owned"
            )
        data = encode(replace(table, xdpkit=__version__))
        self._seen = None
        for name in {each.name for each in table.sets} - self._sets.keys():
            self._sets[name] = maps.make(self.folder, f"{maps.SET}{name}", self.size, what)
        record.write(self.folder, data, what)
        self._tidy(table, what)

    def pin_egress(self, number: int, program: Program) -> None:
        """Keep the egress program of a port, in the place of the one before. Under the lock.

        It stays if the record that is written next says that the port has one.

        Raises:
            UsageError: the table was destroyed.
            MissingPrivilege, KernelRefused: it cannot be pinned.
        """
        what = f"keep the egress program of port {number} of table {self.name}"
        self._require_there(what)
        record.pin_as(program, self.folder, f"{_EGRESS}{number}", what)

    def egress(self, number: int) -> Program | None:
        """Open the egress program that is kept for a port, None where none is.

        Raises:
            UsageError: what is pinned there is none.
            MissingPrivilege, KernelRefused: it cannot be opened.
        """
        path = f"{self.folder}/{_EGRESS}{number}"
        what = f"open {path}"
        pinned = bpf.obj_get(path, what=what)
        return None if pinned is None else Program(checked(pinned, ObjectKind.PROGRAM, what))

    def is_orphan(self) -> bool:
        """Whether it was a process's own, and that has gone without destroying it."""
        return self.read().owner and not is_claimed(f"{self.folder}/{_OWNER}")

    def destroy(self) -> None:
        """Destroy the table. Under the lock; closing the store is still to be done.

        Raises:
            UsageError: it was destroyed.
            MissingPrivilege, RequirementUnmet, KernelRefused: it is impossible.
        """
        self._require_there(f"destroy port table {self.name}")
        self._place.remove()

    def _require_there(self, what: str) -> None:
        """Refuse a table that was destroyed, also if there is another of its name now."""
        if _stamp(self._place, what) != self._stamp:
            raise UsageError(
                what, cause=f"port table {self.name} was destroyed, and created anew, meanwhile"
            )

    def _open_sets(self, table: Table, what: str) -> str:
        """Have the maps of a table's sets open; return the name of a pin that is missing, or ""."""
        names = [each.name for each in table.sets]
        for name in names:
            pin = f"{maps.SET}{name}"
            found = _open_map(self._place, pin, self.size, what)
            if found is None:
                return pin
            before = self._sets.get(name)
            if before is not None and before.id == found.id:
                found.close()
                continue
            if before is not None:
                before.close()
            self._sets[name] = found
        for name in self._sets.keys() - names:
            self._sets.pop(name).close()
        return ""

    def _tidy(self, table: Table, what: str) -> None:
        """Remove the pins that the record does not speak of."""
        kept = {f"{maps.SET}{each.name}" for each in table.sets}
        kept |= {f"{_EGRESS}{port.number}" for port in table.ports if port.egress is not None}
        try:
            names = os.listdir(self.folder)
        except OSError as error:
            raise explained(error, what, self.folder) from error
        for name in names:
            if name.startswith((maps.SET, _EGRESS, record.FRESH)) and name not in kept:
                maps.discard(self.folder, name)
        for name in self._sets.keys() - {each.name for each in table.sets}:
            self._sets.pop(name).close()


def create(
    name: str, *, size: int = DEFAULT_SIZE, pin_root: str = DEFAULT_ROOT, owned: bool = False
) -> Store:
    """Create a port table without any port.

    Args:
        name: what to call it.
        size: how many ports it has room for, at most 1024; a broadcast takes time for each.
        pin_root: the bpffs to keep it in.
        owned: it is of use only as long as this process lives and has what is returned open.

    Raises:
        UsageError: there is a table of this name, or it cannot be called so or have this size.
        RequirementUnmet: the root is no bpffs, or does not last.
        MissingPrivilege: it takes CAP_BPF and CAP_NET_ADMIN, and the root may be another user's.
        HookBusy: another process has held a lock for a long time.
        KernelRefused: the kernel refused.
    """
    what = f"create port table {printable(name)}"
    place = Place.of(name, pin_root, what)
    table = Table(name, size, owner=owned, xdpkit=__version__)
    note = place.pins.require_lasting(what, alternative=False)
    while True:
        place.make(what)
        with place.locked(what) as is_there:
            if not is_there:
                # Who comes upon a folder without a record removes it.
                continue
            if record.is_there(place.path):
                raise UsageError(what, cause=f"there is a port table {name} already")
            place.empty()
            try:
                return _make(place, table, note, what)
            except BaseException:
                place.remove()
                raise


def open(name: str, *, pin_root: str = DEFAULT_ROOT) -> Store:
    """Open a port table.

    Raises:
        UsageError: there is none of this name.
        RequirementUnmet: it is damaged or hidden, or somebody else made the folder of all pins.
        MissingPrivilege: only root may.
        KernelRefused: the kernel refused.
    """
    what = f"open port table {printable(name)}"
    return _open(Place.of(name, pin_root, what), what)


def names(pin_root: str = DEFAULT_ROOT) -> list[str]:
    """Return the names of all port tables, also of damaged ones and of those left by their owners.

    Raises:
        RequirementUnmet: somebody else made the folder of all pins.
        MissingPrivilege: only root may look.
    """
    pins = Folder(pin_root)
    found = []
    for place in _places(pins, "list port tables"):
        if record.is_there(place.path):
            found.append(place.name)
        else:
            place.sweep()
    return found


def destroy(name: str, *, pin_root: str = DEFAULT_ROOT) -> None:
    """Destroy a port table, also a damaged one. Takes its lock.

    What was done to interfaces for it is not undone, which is for :mod:`xdpkit.ports` to do.

    Raises:
        UsageError: there is none of this name.
        RequirementUnmet: the mount is read-only or hidden, or somebody else made the folder.
        MissingPrivilege: only root may.
        HookBusy: another process has held the lock for a long time.
        KernelRefused: the kernel refused.
    """
    what = f"destroy port table {printable(name)}"
    place = Place.of(name, pin_root, what)
    with place.locked(what) as is_there:
        was_there = is_there and record.is_there(place.path)
        if is_there:
            place.remove()
    if not was_there:
        raise place.missing(what)


@contextmanager
def locked(table: Store | str, what: str, *, pin_root: str = DEFAULT_ROOT) -> Iterator[Store]:
    """Hold a table's lock, which serializes changes to it; yields the table.

    One that is given by name is open during the block. A process that takes the lock twice waits
    for itself.

    Args:
        table: an open table, or the name of one.
        what: what is being tried, for errors.
        pin_root: where the one of that name is kept.

    Raises:
        UsageError: there is no such table, or it was destroyed.
        RequirementUnmet: it is damaged, or the mount is read-only or hidden.
        MissingPrivilege: only root may.
        HookBusy: another process has held the lock for a long time.
        KernelRefused: the kernel refused.
    """
    place = table._place if isinstance(table, Store) else Place.of(table, pin_root, what)
    with ExitStack() as held:
        if not held.enter_context(place.locked(what)):
            raise place.missing(what)
        if isinstance(table, Store):
            table._require_there(what)
            yield table
        else:
            yield held.enter_context(_open(place, what))


def incarnations(pin_root: str = DEFAULT_ROOT) -> dict[str, int]:
    """Return the ids of the maps ``numbers`` of all port tables, by name.

    Such an id tells a table from one that had its name before, and the map that a program has from
    those that other tables have. A table that has lost the map is left out.

    Raises:
        RequirementUnmet: somebody else made the folder of all pins.
        MissingPrivilege: only root may look.
    """
    what = "tell port tables from each other"
    found: dict[str, int] = {}
    for place in _places(Folder(pin_root), what):
        pinned = bpf.obj_get(f"{place.path}/numbers", what=what)
        if pinned is None:
            continue
        with pinned:
            if bpf.kind_of(pinned.fileno()) is ObjectKind.MAP:
                found[place.name] = bpf.map_info(pinned.fileno()).id
    return found


@dataclass(frozen=True, slots=True)
class Membership:
    """Which port an interface is.

    Attributes:
        table: the table's name. number, port: the port's number and name.
        is_followed: whether the table knows the interface as it is now. If not, the interface was
            made anew under the name that the port's had, and is that port when the table is made to
            follow its interfaces (:meth:`xdpkit.PortTable.follow`).
    """

    table: str
    number: int
    port: str
    is_followed: bool = True


def require(name: str, what: str, *, pin_root: str = DEFAULT_ROOT) -> None:
    """Refuse the name of a table that there is not.

    Args:
        name: the name. what: what is being tried, for errors. pin_root: where tables are kept.

    Raises:
        UsageError: there is no such table.
        RequirementUnmet: all are hidden, or somebody else made the folder.
        MissingPrivilege: only root may look.
    """
    place = Place.of(name, pin_root, what)
    if not _is_trusted(place, what) or not record.is_there(place.path):
        raise place.missing(what)


def find(
    interface: Interface, *, pin_root: str = DEFAULT_ROOT, table: str | None = None
) -> tuple[Membership, ...]:
    """Return which ports an interface is, in all tables, or in one. Changes nothing.

    Tables that their owners have left behind count only if they are named. An interface that has
    moved here from another network namespace is no port before its table has followed it.

    Raises:
        UsageError: there is no such table.
        RequirementUnmet: a table is damaged, all are hidden, or somebody else made the folder.
        MissingPrivilege: there are tables, and only root may look.
        KernelRefused: the kernel refused.
    """
    what = f"look for the port of {printable(interface.name)}"
    if table is not None:
        place = Place.of(table, pin_root, what)
        said = place.read(what) if _is_trusted(place, what) else None
        if said is None:
            raise place.missing(what)
        return tuple(_memberships(said, interface))
    pins = Folder(pin_root)
    places = _places(pins, what)
    if not places and (error := hidden(pins, what)) is not None:
        raise error
    found: list[Membership] = []
    for place in places:
        said = place.read(what)
        if said is not None and (not said.owner or is_claimed(f"{place.path}/{_OWNER}")):
            found += _memberships(said, interface)
    return tuple(found)


def _memberships(table: Table, interface: Interface) -> list[Membership]:
    known = [(port, port.interface) for port in table.ports if port.interface is not None]
    here = [(port, each) for port, each in known if _is(interface, each)]
    if here:
        # Another port may remember one that had the same index, and the same address.
        named = [(port, each) for port, each in here if each.name == interface.name]
        return [Membership(table.name, port.number, port.name) for port, _ in named or here]
    named = [
        (port, each)
        for port, each in known
        if (each.netns_cookie, each.name) == (interface.netns_cookie, interface.name)
    ]
    # As in xdpkit.ports.recognising: who is still there is not another one, and two are none.
    if len(named) != 1 or _is_there(named[0][1], interface.netns):
        return []
    port = named[0][0]
    return [Membership(table.name, port.number, port.name, is_followed=False)]


def _is(interface: Interface, known: Identity) -> bool:
    return known.may_be(
        netns_cookie=interface.netns_cookie,
        ifindex=interface.index,
        name=interface.name,
        mac=interface.mac,
    )


def _is_there(known: Identity, netns: str | None) -> bool:
    """Whether an interface of this namespace is still there, by whatever name."""
    try:
        return _is(resolve(known.ifindex, netns=netns), known)
    except UsageError:
        return False


def _places(pins: Folder, what: str) -> list[Place]:
    """Return where there are tables, or what is left of some; other folders are refused."""
    names = [name for name in listed(pins) if NAME.fullmatch(name)]
    above = pins.open_folder(what) if names else None
    if above is None:
        return []
    found = []
    with above:
        for name in names:
            folder = open_trusted(f"{folder_of_all(pins)}/{name}", what)
            if folder is not None:
                folder.close()
                found.append(Place(pins, name))
    return found


def _is_trusted(place: Place, what: str) -> bool:
    """Whether there is a folder; one that is not to be trusted is refused."""
    folder = place.open(what)
    if folder is None:
        return False
    folder.close()
    return True


def _make(place: Place, table: Table, note: str | None, what: str) -> Store:
    """Make a table in its folder. Under the lock."""
    data = encode(table)
    with ExitStack() as made:
        owner = None
        if table.owner:
            owner = claim(f"{place.path}/{_OWNER}", what)
            if owner is None:
                raise HookBusy(what, cause=f"another process has locked {place.path}/{_OWNER}")
            made.enter_context(owner)
        opened = {
            name: made.enter_context(maps.make(place.path, name, table.size, what))
            for name in maps.SHAPES
        }
        store = Store(place, opened, owner, note)
        record.write(place.path, data, what)
        made.pop_all()
        return store


def _open(place: Place, what: str) -> Store:
    missing = ""
    for _ in range(_READS):
        table = place.read(what) if _is_trusted(place, what) else None
        if table is None:
            place.sweep()
            raise place.missing(what)
        with ExitStack() as undo:
            opened = {}
            for name in maps.SHAPES:
                found = _open_map(place, name, table.size, what)
                if found is None:
                    missing = name
                    break
                opened[name] = undo.enter_context(found)
            else:
                store = undo.enter_context(Store(place, opened))
                store.read()
                undo.pop_all()
                return store
    raise place.damaged(what, f"nothing is pinned as {missing}")


def _open_map(place: Place, name: str, size: int, what: str) -> Map | None:
    try:
        return maps.open_pinned(place.path, name, size, what)
    except UsageError as error:
        why = f"what is pinned as {name} is none of its maps: {error.cause}"
        raise place.damaged(what, why) from error


def _stamp(place: Place, what: str) -> tuple[int, int]:
    """Return what tells a table's folder from another of the same name."""
    try:
        status = os.lstat(place.path)
    except FileNotFoundError:
        raise place.missing(what) from None
    except OSError as error:
        raise explained(error, what, place.path) from error
    return status.st_dev, status.st_ino
