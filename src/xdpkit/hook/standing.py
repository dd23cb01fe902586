# SPDX-License-Identifier: Apache-2.0
"""What the port tables have for a program on an interface: which port it is, and why none."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer, Finding
from xdpkit.errors import MissingPrivilege
from xdpkit.hook.given import given_to
from xdpkit.hook.porttargets import targets_in
from xdpkit.hook.record import PortOf
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.obj.spec import ProgramSpec
from xdpkit.requirements.context import (
    PORT_INDEX,
    PORT_TABLE,
    is_of_ports,
    is_port_map,
    set_named,
)
from xdpkit.tables import store
from xdpkit.tables.frags import frags_of
from xdpkit.uapi.bpf import MapType, ProgFlags

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Given, Map, Program
    from xdpkit.negotiation import Target
    from xdpkit.requirements import Requirements
    from xdpkit.tables.store import Membership, Store


@dataclass(frozen=True, slots=True)
class Standing:
    """What the port tables have for a program on an interface.

    Attributes:
        port: which port the interface is, in the table that counts; None: in none, or it is not
            clear in which.
        is_told: whether the program's instructions have the port, or will have it.
        looks_up: whether it looks its port up by itself, for each packet.
        findings: about what it needs of a table, by capability.
        targets: the ports that it redirects to.
        maps: the names of its maps that are the table's.
        unseen: why the tables could not be looked at, None if they were.
    """

    port: Membership | None
    is_told: bool
    looks_up: bool
    findings: Mapping[str, Finding]
    targets: tuple[Target, ...] = ()
    maps: frozenset[str] = frozenset()
    unseen: MissingPrivilege | None = None

    @property
    def written(self) -> PortOf | None:
        """What is to be written down about it."""
        if self.port is None or not (self.is_told or self.looks_up or self.maps):
            return None
        if not self.is_told:
            return PortOf(self.port.table)
        return PortOf(self.port.table, self.port.number, self.port.port)


def look(
    program: ProgramSpec | Program,
    requirements: Requirements,
    interface: Interface,
    *,
    table: str | None,
    pin_root: str,
    maps: Mapping[str, Map],
) -> Standing:
    """Return what the port tables have for a program.

    Args:
        program: the program. requirements: what it needs, of which something is of a table.
        interface: where it is to run.
        table: the table that is meant; None: the one that has the interface as a port.
        pin_root: where tables are pinned.
        maps: the caller's own, which are used instead of a table's.

    Raises:
        UsageError: there is no such table.
        RequirementUnmet: a table is damaged, or hidden.
    """
    needed = dict.fromkeys(each.capability for each in requirements if is_of_ports(each.capability))
    used = _used_maps(program)
    own = _own_maps(program, used, maps)
    # Whoever brings the maps needs a table for the number only.
    found = {name: Finding(name, Answer.YES, own) for name in needed if own and name != PORT_INDEX}
    given = given_to(program)
    looks_up = any(each.numbers for each in given)
    is_told = PORT_INDEX in needed and not looks_up
    try:
        port, problem = _Search(interface, table, pin_root, given).find()
    except MissingPrivilege as error:
        unknown = {name: Finding(name, Answer.UNKNOWN, error.cause) for name in needed}
        return Standing(None, is_told, looks_up, unknown | found, unseen=error)
    if port is None:
        missing = {name: problem.about(name) for name in needed if problem is not None}
        return Standing(port, is_told, looks_up, missing | found)
    with store.open(port.table, pin_root=pin_root) as opened:
        offer = _Offer(port, opened, interface, pin_root)
        shared = _shared_maps(program, used - maps.keys(), opened)
        offered = {name: offer.finding(name) for name in needed}
        misfit = _misfit(program, shared)
        if misfit is not None:
            offered[misfit.capability] = misfit
        targets = tuple(targets_in(opened.read(), shared))
    return Standing(port, is_told, looks_up, offered | found, targets, frozenset(shared))


def describe(port: Membership) -> str:
    """Return which port something is: "port 2 (eth1) of table lan"."""
    return str(PortOf(port.table, port.number, port.port))


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why an interface is no port for a program, and what helps."""

    cause: str
    remedy: str

    def about(self, capability: str) -> Finding:
        return Finding(capability, Answer.NO, self.cause, remedy=self.remedy)


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for the port that an interface is, for a program that was given some already."""

    interface: Interface
    table: str | None
    pin_root: str
    given: tuple[Given, ...]

    def find(self) -> tuple[Membership | None, _Problem | None]:
        """Return which port it is, or why it is none for this program."""
        ports = store.find(self.interface, pin_root=self.pin_root, table=self.table)
        if not ports:
            return None, self._none()
        fitting = [each for each in ports if self._fits(each)]
        if not fitting:
            return None, self._another(ports)
        if len(fitting) > 1:
            tables = ", ".join(each.table for each in fitting)
            cause = f"{self.interface.name} is a port of several tables: {tables}"
            return None, _Problem(cause, f"say which: --ports {fitting[0].table}")
        return fitting[0], None

    def _fits(self, port: Membership) -> bool:
        """Whether a loaded program has this port, or looks it up in this table."""
        for given in self.given:
            if given.numbers:
                with store.open(port.table, pin_root=self.pin_root) as opened:
                    if opened.numbers.id != given.numbers:
                        return False
            elif given.port_index not in (None, port.number):
                return False
        return True

    def _none(self) -> _Problem:
        name, table = self.interface.name, self.table
        cause = f"{name} is a port of no table"
        if table is not None:
            cause = f"{name} is no port of table {table}"
        return _Problem(
            cause, _command("add", self.interface, self.pin_root, table or "TABLE", name)
        )

    def _another(self, ports: tuple[Membership, ...]) -> _Problem:
        is_one = f"{self.interface.name} is {' and '.join(map(describe, ports))}"
        remedy = "attach it from its file, or load it once for all ports: PortTable.load()"
        if any(each.numbers for each in self.given):
            return _Problem(f"it looks its port up in another table, and {is_one}", remedy)
        (was, *_) = (each.port_index for each in self.given if each.port_index is not None)
        return _Problem(f"it was loaded as port {was}, and {is_one}", remedy)


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a table has for one of its ports."""

    port: Membership
    table: Store
    interface: Interface
    pin_root: str

    def finding(self, capability: str) -> Finding:
        name = set_named(capability)
        if name is None:
            return Finding(capability, Answer.YES, f"it is {describe(self.port)}")
        if name in self.table.sets:
            return Finding(capability, Answer.YES, f"table {self.port.table} has it")
        command = _command("set", self.interface, self.pin_root, self.port.table, name)
        return Finding(
            capability,
            Answer.NO,
            f"table {self.port.table} has no set {name}",
            remedy=f"{command} PORT...",
        )


def _used_maps(program: ProgramSpec | Program) -> frozenset[str]:
    """Return which of a program's maps are called as a table's."""
    if isinstance(program, ProgramSpec):
        from xdpkit.kernel.plan import plan

        names = [each.name for each in plan(program.object, (program,)).maps]
    else:
        names = list(program.maps)
    return frozenset(name for name in names if is_port_map(name))


def _own_maps(
    program: ProgramSpec | Program, used: frozenset[str], maps: Mapping[str, Map]
) -> str | None:
    """Return where a program has the maps from, if no table's are wanted for them."""
    if not isinstance(program, ProgramSpec):
        return "it was loaded with maps"
    return "maps of the caller's own" if used and used <= maps.keys() else None


def _shared_maps(
    program: ProgramSpec | Program, used: Collection[str], table: Store
) -> dict[str, Map]:
    """Return the maps of a table that a program has, or will have."""
    found = {name: each for name, each in table.maps().items() if name in used}
    if isinstance(program, ProgramSpec):
        return found
    mine = program.maps
    return {name: each for name, each in found.items() if mine[name].id == each.id}


def _misfit(program: ProgramSpec | Program, shared: Mapping[str, Map]) -> Finding | None:
    """Return why a program cannot be loaded with a table's maps: see :mod:`xdpkit.tables.frags`."""
    if not isinstance(program, ProgramSpec):
        return None
    takes = bool(program.flags & ProgFlags.XDP_HAS_FRAGS)
    for each in shared.values():
        decided = frags_of(each) if each.type == MapType.DEVMAP else None
        if decided is not None and decided is not takes:
            return Finding(
                PORT_TABLE,
                Answer.NO,
                "the programs that use the table take frames in"
                f" {'several buffers' if decided else 'one buffer only'}, and all have to agree"
                " on that",
                remedy=f'recompile the program for SEC("xdp{".frags" if decided else ""}")',
            )
    return None


def _command(verb: str, interface: Interface, pin_root: str, *arguments: str) -> str:
    words = ["xdpkit", "ports", verb]
    if interface.netns is not None:
        words += ["-n", interface.netns]
    if pin_root != DEFAULT_ROOT:
        words += ["--pin-root", pin_root]
    return shlex.join([*words, *arguments])
