# SPDX-License-Identifier: Apache-2.0
"""A port table: made, changed, used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from xdpkit.errors import HookBusy, UsageError
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.ports import destroying, members, users, using
from xdpkit.ports.following import follow, recognised, require_known
from xdpkit.ports.members import Selector
from xdpkit.ports.planning import Change
from xdpkit.syscalls import privilege
from xdpkit.syscalls.closing import Closing
from xdpkit.tables import store
from xdpkit.tables.model import Identity, Port, Table, check_name, check_port_name, check_size
from xdpkit.tables.store import DEFAULT_SIZE, Store
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Policy
    from xdpkit.obj import ProgramSpec
    from xdpkit.ports.adding import Prepare

StrPath = str | os.PathLike[str]


class PortTable(Closing):
    """A port table: interfaces with numbers that stay theirs.

    ::

        with xdpkit.PortTable.create("lan") as lan:
            for name in ("eth1", "eth2", "eth3"):
                lan.add(name)
            with lan.load(obj.programs["forward"]) as program:
                ...

    It lives in the kernel and outlives the process. An interface that is renamed, goes to another
    namespace, or goes and comes back keeps its port: what the kernel has taken out of the maps
    meanwhile is put back by each command on the table, by :meth:`follow`, and by whoever runs
    :func:`xdpkit.ports.watch`.

    A context manager; closing it closes descriptors only. The table of an owner (``owned``) is of
    no use without it: it goes with the next command on tables.

    Attributes:
        name: the table's. pin_root: the bpffs that it is in.
        note: what there is to be said of how long it lasts, None for nothing.
    """

    def __init__(self, opened: Store) -> None:
        self._store = opened
        self.name = opened.name
        self.pin_root = opened.pin_root
        self.note = opened.note

    @classmethod
    def create(
        cls,
        name: str,
        *,
        size: int = DEFAULT_SIZE,
        pin_root: StrPath = DEFAULT_ROOT,
        owned: bool = False,
    ) -> Self:
        """Create a table.

        Args:
            name: 1 to 32 letters, digits, ``_`` and ``-``, a letter first.
            size: for how many ports, at most 1,024; it cannot be changed, and a frame that is sent
                to all ports is looked up that often.
            pin_root: a mounted bpffs.
            owned: whether it is this process's, and of no use when that has ended.

        Raises:
            UsageError: there is such a table, or the name or size is impossible.
            RequirementUnmet: there is no bpffs where something can be pinned to stay.
            MissingPrivilege: a capability is missing.
        """
        what = f"create port table {name!r}"
        root = _text(pin_root, "pin_root", what)
        check_name(name, what)
        check_size(size, what)
        destroying.sweep(root)
        return cls(store.create(name, size=size, pin_root=root, owned=owned))

    @classmethod
    def open(cls, name: str, *, pin_root: StrPath = DEFAULT_ROOT) -> Self:
        """Open a table.

        Raises:
            UsageError: there is none of this name.
            MissingPrivilege: only root may look.
        """
        what = f"open port table {name!r}"
        check_name(name, what)
        return cls(store.open(name, pin_root=_text(pin_root, "pin_root", what)))

    @property
    def size(self) -> int:
        """For how many ports it has room."""
        return self._store.size

    @property
    def maps(self) -> Mapping[str, Map]:
        """Its maps, by their names in xdpkit.h; they are the table's to close."""
        return self._store.maps()

    def state(self) -> Table:
        """Return what is written down: the ports, their interfaces as last seen, the sets.

        Raises:
            UsageError: it was destroyed.
        """
        return self._store.read()

    def port(self, port: Selector) -> Port:
        """Return a port by its number or name.

        Raises:
            UsageError: there is none.
        """
        return members.find(self.state(), port, f"find port {port}")

    def interfaces(self) -> dict[int, Identity]:
        """Return the ports' interfaces as they are now, by number, as far as they are there.

        Nothing is changed.
        """
        return recognised(self.state())

    def add(
        self,
        iface: str | int,
        *,
        netns: StrPath | None = None,
        number: int | None = None,
        name: str | None = None,
        egress: ProgramSpec | Program | None = None,
        prepare: Prepare = False,
        mode: str = "native",
        policy: Policy | str | None = None,
        force: bool = False,
    ) -> Port:
        """Make an interface a port.

        An interface whose name is that of a port which was removed gets that port's number again.

        Args:
            iface: its name, or index.
            netns: name or path of its network namespace; None: the caller's own.
            number: the port's; None: the one kept for its name, or the lowest that is free.
            name: the port's; None: the interface's.
            egress: a program that runs on each frame that is sent out of the port (section
                xdp/devmap); one that is given as a spec is loaded for this port.
            prepare: what may be done to the veth's peer so that it takes what is sent to it: switch
                on GRO ("gro"), attach a program that lets all pass ("program"), True: whichever
                suits; False: nothing. It is also done when the veth comes back, and undone when the
                port is removed.
            mode: "native" or "generic": how the programs are attached that send to it.
            policy: a Policy or its name, as for :func:`xdpkit.check`.
            force: add it even if it certainly cannot send what is redirected to it.

        Raises:
            UsageError: there is no such interface, it is a port of the table already, or the number
                or name is another port's.
            HookBusy: the number was kept for another interface, and a program has it in its
                instructions.
            RequirementUnmet: nothing can be redirected to the interface, or the egress program does
                not fit; and why.
            VerifierError: the egress program did not load.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        (port,) = self._add(
            [iface],
            netns,
            number=number,
            name=name,
            egress=egress,
            prepare=prepare,
            mode=mode,
            policy=policy,
            force=force,
        )
        return port

    def add_all(
        self,
        ifaces: Iterable[str | int],
        *,
        netns: StrPath | None = None,
        egress: ProgramSpec | Program | None = None,
        prepare: Prepare = False,
        mode: str = "native",
        policy: Policy | str | None = None,
        force: bool = False,
    ) -> tuple[Port, ...]:
        """Make interfaces ports, in this order: all of them, or none if one cannot be a port.

        It takes much less time than to add many one by one. Arguments and errors are those of
        :meth:`add`.
        """
        if isinstance(ifaces, str | bytes) or not isinstance(ifaces, Iterable):
            raise UsageError(
                f"add interfaces to port table {self.name}",
                cause=f"give a list of them, by name or index, not {ifaces!r}",
            )
        return self._add(
            ifaces,
            netns,
            egress=egress,
            prepare=prepare,
            mode=mode,
            policy=policy,
            force=force,
        )

    def _add(
        self, ifaces: Iterable[str | int], netns: StrPath | None, **terms: Any
    ) -> tuple[Port, ...]:
        from xdpkit.ports import adding

        what = f"add interfaces to port table {self.name}"
        where = None if netns is None else _text(netns, "netns", what)
        wanted = [adding.Addition(self.name, each, where, **terms) for each in ifaces]
        with self._changing(what):
            return adding.add(self._store, wanted)

    def remove(self, port: Selector, *, free: bool = False) -> tuple[str, ...]:
        """Take the interface away from a port, and undo what was prepared for it.

        Returns what may be left of that, in sentences.

        Args:
            port: number or name.
            free: give the number and the name up, too; else they are kept for when it is added
                again, and programs that know the port by its number stay right.

        Raises:
            UsageError: there is no such port.
            HookBusy: it cannot be given up, as a program has it in its instructions.
            MissingPrivilege: a capability is missing.
        """
        what = f"remove port {port} of {self.name}"
        if free:
            # To see which programs have it in their instructions.
            privilege.require(what, (Capability.SYS_ADMIN,))
        with self._changing(what) as (_, table):
            found = members.find(table, port, what)
            if free:
                users.require_unknown_number(
                    self._store,
                    found.number,
                    what,
                    remedy="detach it first; or keep the number: remove the port without --free",
                )
            _require_undoable([found], what)
            kept = replace(found, prepare="", home=found.home or found.interface)
            destroying.vacate(self._store, kept)
            notes = destroying.finish(self._store, self._store.read())
            if free:
                self._store.write(members.without_port(self._store.read(), found.number))
            follow(self._store, thorough=False, search=False)
            return notes

    def rename(self, port: Selector, new: str) -> Port:
        """Give a port another name; its interface keeps its own.

        Raises:
            UsageError: there is no such port, or another one has the name.
        """
        with self._changing(f"rename port {port} of {self.name} to {new}") as (what, table):
            check_port_name(new, what)
            found = members.find(table, port, what)
            for other in table.ports:
                if other.name == new and other.number != found.number:
                    raise UsageError(what, cause=f"port {other.number} is called {new} already")
            renamed = replace(found, name=new)
            if renamed != found:
                self._store.write(members.with_port(table, renamed))
            follow(self._store, thorough=False)
            return renamed

    def set(self, name: str, ports: Iterable[Selector]) -> None:
        """Make a set of ports, or say anew which ports are in it.

        Programs send to all ports of a set by ``xdpkit_redirect_to_set()``.

        Args:
            name: the set's; as for :meth:`create`.
            ports: numbers or names.

        Raises:
            UsageError: there is no such port, or the name is impossible.
            RequirementUnmet: an egress program of theirs and the programs that use the set do not
                go together.
            KernelRefused: the kernel does not take one of them into the set.
        """
        with self._changing(f"make set {name} of {self.name}") as (what, table):
            check_name(name, what)
            numbers = {each.number for each in members.all_of(table, ports, what)}
            before = next((each.ports for each in table.sets if each.name == name), None)
            self._store.write(members.with_set(table, name, numbers))
            refused = follow(self._store, thorough=False).refused
            for number in sorted(numbers & refused.keys()):
                now = self._store.read()
                self._store.write(
                    members.without_set(now, name)
                    if before is None
                    else members.with_set(now, name, before)
                )
                follow(self._store, thorough=False)
                raise refused[number]

    def unset(self, name: str) -> None:
        """Remove a set.

        Raises:
            UsageError: there is none of this name.
            HookBusy: loaded programs use it.
            MissingPrivilege: a capability is missing.
        """
        what = f"remove set {name} of {self.name}"
        # To see which programs use it.
        privilege.require(what, (Capability.SYS_ADMIN,))
        with self._changing(what) as (_, table):
            check_name(name, what)
            if name not in {each.name for each in table.sets}:
                raise UsageError(what, cause=f"table {self.name} has no set {name}")
            programs = users.of_maps([self._store.sets[name]])
            if programs:
                raise HookBusy(
                    what,
                    cause=f"loaded programs use it: {users.listed(programs)}",
                    remedy="detach them first",
                )
            self._store.write(members.without_set(table, name))
            follow(self._store, thorough=False)

    def destroy(self, *, force: bool = False) -> tuple[str, ...]:
        """Remove the table, and undo what was prepared for its ports. Close it all the same.

        Returns what may be left of that, in sentences.

        Args:
            force: also while loaded programs use it, which then send nothing any more, or have a
                number of it in their instructions.

        Raises:
            HookBusy: there are such programs.
            MissingPrivilege: a capability is missing.
        """
        what = f"destroy port table {self.name}"
        # To see which programs use it takes more.
        privilege.require(what, (Capability.BPF if force else Capability.SYS_ADMIN,))
        with store.locked(self._store, what):
            _require_undoable(self._store.read().ports, what)
            if not force:
                users.require_unknown_number(
                    self._store,
                    None,
                    what,
                    remedy="detach it first; or destroy the table all the same: --force",
                )
            return destroying.destroy(self._store, force=force, what=what)

    def load(
        self,
        spec: ProgramSpec,
        *,
        maps: Mapping[str, Map] = MappingProxyType({}),
        cookie: int = 0,
        log_level: int = 0,
    ) -> Program:
        """Load one program for several ports: each packet's port is looked up.

        It uses the table's maps under the names of xdpkit.h, and they stay the table's to close.

        Args:
            spec: the program.
            maps: existing maps for others of its maps, by name.
            cookie: what it reads as ``ctx->cookie``.
            log_level: as for :func:`xdpkit.load`.

        Raises:
            UsageError: it uses a set that the table has not.

        Other errors are those of :func:`xdpkit.load`.
        """
        return using.load(self._store, spec, maps, cookie=cookie, log_level=log_level)

    def maps_for(self, spec: ProgramSpec) -> dict[str, Map]:
        """Return the table's maps that a program's object has, by name.

        Raises:
            UsageError: it has a set that the table has not.
        """
        return using.maps_for(self._store, spec)

    def follow(self) -> tuple[Change, ...]:
        """Put back what the kernel took out of the maps, and see where the interfaces are now.

        Returns what has changed. Where nothing has, nothing is written.

        Raises:
            UsageError: it was destroyed.
            RequirementUnmet: a later version wrote it.
            MissingPrivilege: a capability is missing.
        """
        with self._changing(f"follow the interfaces of {self.name}"):
            return follow(self._store).changes

    @contextlib.contextmanager
    def _changing(self, what: str) -> Iterator[tuple[str, Table]]:
        """Hold the lock, with what killed commands left put in order; yields what is written.

        Raises:
            MissingPrivilege: to write takes CAP_BPF.
        """
        privilege.require(what, (Capability.BPF,))
        destroying.sweep(self.pin_root, but=self.name)
        with store.locked(self._store, what):
            table = self._store.read()
            if table.owner and self._store.is_orphan():
                destroying.destroy(self._store, force=True, what=what)
                raise UsageError(
                    what, cause="the process whose table it was has gone, and so has it"
                )
            require_known(table, what)
            if not all(destroying.is_finished(port) for port in table.ports):
                destroying.finish(self._store, table)
                table = self._store.read()
            yield what, table

    def close(self) -> None:
        """Close the descriptors; safe to repeat."""
        self._store.close()

    def __repr__(self) -> str:
        return f"<PortTable {self.name}>"


def tables(pin_root: StrPath = DEFAULT_ROOT) -> list[str]:
    """Return the names of all port tables.

    Raises:
        UsageError: the root is none that can be.
        RequirementUnmet: somebody else made the folder that they are in.
        MissingPrivilege: only root may look.
    """
    return store.names(_text(pin_root, "pin_root", "list port tables"))


def _require_undoable(ports: Iterable[Port], what: str) -> None:
    """Refuse to take ports away whose preparations this process may not undo.

    Raises:
        MissingPrivilege: a capability is missing.
    """
    prepared = [each for port in ports for each in port.prepared]
    if prepared:
        from xdpkit.ports import preparing

        preparing.require_undoable(prepared, what)


def _text(path: StrPath, name: str, what: str) -> str:
    """Return a path as text.

    Raises:
        UsageError: it is none.
    """
    try:
        return os.fsdecode(path)
    except TypeError:
        raise UsageError(what, cause=f"{name} is a name or a path, not {path!r}") from None
