# SPDX-License-Identifier: Apache-2.0
"""What the port tables have for a program on an interface: which port it is, and why none."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer, Finding
from xdpkit.errors import MissingPrivilege, RequirementUnmet, UsageError, XdpkitError
from xdpkit.hook.given import NOT_KNOWN, Reading, looking_up, reading_of
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
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Target
    from xdpkit.requirements import Requirements
    from xdpkit.tables.store import Membership, Store


@dataclass(frozen=True, slots=True)
class Standing:
    """What the port tables have for a program on an interface.

    Attributes:
        port: which port the interface is, in the table that counts; None: in none, or it is not
            clear in which.
        table_id: what tells that table from others of its name; 0 without a port.
        is_told: whether the program's instructions have the port, or will have it.
        looks_up: whether it looks its port up by itself, for each packet.
        findings: about what it needs of a table, by capability.
        targets: the ports that it redirects to.
        maps: the ids of its maps that are the table's, by their names in xdpkit.h.
        note: what there is to know of one that is loaded without a port, or without a map.
        unclear: why it would be loaded without a port though the interface is one; nothing
            overrides that.
        unseen: why the tables could not be looked at, None if they were.
    """

    port: Membership | None
    table_id: int
    is_told: bool
    looks_up: bool
    findings: Mapping[str, Finding]
    targets: tuple[Target, ...] = ()
    maps: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None
    unclear: Problem | None = None
    unseen: MissingPrivilege | None = None

    @property
    def written(self) -> PortOf | None:
        """What is to be written down about it."""
        if self.port is None or not (self.is_told or self.looks_up or self.maps):
            return None
        if not self.is_told:
            return PortOf(self.port.table, table_id=self.table_id)
        return PortOf(self.port.table, self.port.number, self.port.port, self.table_id)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an interface is no port for a program, and what helps.

    Attributes:
        cause, remedy: as an error has them.
        kind: the error that it is where it is one.
        is_unclear: whether the interface is a port all the same.
    """

    cause: str
    remedy: str
    kind: type[RequirementUnmet | UsageError] = RequirementUnmet
    is_unclear: bool = False

    def about(self, capability: str) -> Finding:
        return Finding(capability, Answer.NO, self.cause, remedy=self.remedy)

    def error(self, what: str) -> XdpkitError:
        return self.kind(what, cause=self.cause, remedy=self.remedy)


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
    is_spec = isinstance(program, ProgramSpec)
    lacking = used - maps.keys() if is_spec else frozenset()
    try:
        reading = looking_up(program, pin_root)
        port, problem = _Search(interface, table, pin_root, reading).find()
    except MissingPrivilege as error:
        unknown = {name: Finding(name, Answer.UNKNOWN, error.cause) for name in needed}
        is_told = _is_told(program, needed, reading_of(program))
        return Standing(None, 0, is_told, False, unknown | found, unseen=error)
    is_told = _is_told(program, needed, reading)
    looks_up = any(each.numbers for each in reading.given)
    if port is None:
        if not reading.is_known and not reading.given:
            # It may do without a port.
            problem, found = None, _not_known(needed) | found
        missing = {name: problem.about(name) for name in needed if problem is not None}
        return Standing(
            port,
            0,
            is_told,
            looks_up,
            missing | found,
            note=_note(lacks_port=is_spec and is_told, lacks_maps=bool(lacking)),
            unclear=problem if problem is not None and problem.is_unclear and is_spec else None,
        )
    with store.open(port.table, pin_root=pin_root) as opened:
        offer = _Offer(port, opened, interface, pin_root)
        shared = _shared_maps(program, lacking, opened)
        offered = {name: offer.finding(name) for name in needed}
        if not reading.is_known:
            offered |= _not_known(needed)
        misfit = _misfit(program, shared)
        if misfit is not None:
            offered[misfit.capability] = misfit
        targets = tuple(targets_in(opened.read(), shared))
        return Standing(
            port,
            opened.incarnation,
            is_told,
            looks_up,
            offered | found,
            targets,
            {name: each.id for name, each in shared.items()},
            note=_note(lacks_port=False, lacks_maps=bool(lacking - shared.keys())),
        )


def describe(port: Membership) -> str:
    """Return which port something is: "port 2 (eth1) of table lan"."""
    return str(PortOf(port.table, port.number, port.port))


def _is_told(program: ProgramSpec | Program, needed: Collection[str], reading: Reading) -> bool:
    """Whether a program has its port in its instructions, or will have it."""
    if isinstance(program, ProgramSpec):
        return PORT_INDEX in needed
    return any(each.port_index is not None for each in reading.given)


def _note(*, lacks_port: bool, lacks_maps: bool) -> str | None:
    texts = []
    if lacks_port:
        texts.append("it reads XDPKIT_NO_PORT as port_index")
    if lacks_maps:
        texts.append("the port maps that it uses are its own, and no port is in them")
    return "; ".join(texts) or None


def _not_known(needed: Collection[str]) -> dict[str, Finding]:
    """Return what is found about the port of a program of which it is not known what it reads."""
    return {name: Finding(name, Answer.UNKNOWN, NOT_KNOWN) for name in needed if name == PORT_INDEX}


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for the port that an interface is, for a program that was given some already."""

    interface: Interface
    table: str | None
    pin_root: str
    reading: Reading

    def find(self) -> tuple[Membership | None, Problem | None]:
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
            remedy = f"say which: --ports {fitting[0].table}"
            return None, Problem(cause, remedy, UsageError, is_unclear=True)
        if not fitting[0].is_followed:
            return None, self._not_followed(fitting[0])
        return fitting[0], None

    def _fits(self, port: Membership) -> bool:
        """Whether a loaded program has this port, or looks it up in this table."""
        for given in self.reading.given:
            if given.numbers:
                if store.incarnations(self.pin_root).get(port.table) != given.numbers:
                    return False
            elif given.port_index not in (None, port.number):
                return False
        return True

    def _not_followed(self, port: Membership) -> Problem:
        table = port.table
        return Problem(
            f"{self.interface.name} was {describe(port)} before it was made anew, and is so again"
            " once the table has followed",
            "follow the table first:"
            f" xdpkit.PortTable.open({table!r}{self._root()}).follow(), or run xdpkit ports watch",
            is_unclear=True,
        )

    def _root(self) -> str:
        return "" if self.pin_root == DEFAULT_ROOT else f", pin_root={self.pin_root!r}"

    def _none(self) -> Problem:
        name, table = self.interface.name, self.table
        cause = f"{name} is a port of no table"
        if table is not None:
            cause = f"{name} is no port of table {table}"
        return Problem(
            cause, _command("add", self.interface, self.pin_root, table or "TABLE", name)
        )

    def _another(self, ports: tuple[Membership, ...]) -> Problem:
        is_one = f"{self.interface.name} is {' and '.join(map(describe, ports))}"
        remedy = "attach it from its file, or load it once for all ports: PortTable.load()"
        given = self.reading.given
        if any(each.numbers for each in given):
            return Problem(f"it looks its port up in another table, and {is_one}", remedy)
        (was, *_) = (each.port_index for each in given if each.port_index is not None)
        return Problem(f"it was loaded as port {was}, and {is_one}", remedy)


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
    if isinstance(program, ProgramSpec):
        return {name: each for name, each in table.maps().items() if name in used}
    # Of one that another process loaded, only the kernel knows which it has.
    mine = program.info().map_ids
    return {name: each for name, each in table.maps().items() if each.id in mine}


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
