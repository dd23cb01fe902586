# SPDX-License-Identifier: Apache-2.0
"""Interfaces become ports.

First everything is checked that can be checked without a change. Then the record says what is to
be, what is to be prepared included; then that is made so. So whatever a killed command has left
undone, the next one does; and a command that fails puts everything back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xdpkit.errors import RequirementUnmet, UsageError, XdpkitError
from xdpkit.interfaces import Interface, XdpIds, resolve
from xdpkit.ports import destroying, members, seeing, users
from xdpkit.ports.following import Located, follow, locate
from xdpkit.ports.recognising import homes_of, recognise
from xdpkit.ports.using import load_with, require_same_frags, takes_frags
from xdpkit.tables import entries
from xdpkit.tables.model import Identity, Port, Table, Wish, check_port_name, is_number
from xdpkit.tables.store import Store
from xdpkit.uapi.bpf import AttachType

if TYPE_CHECKING:
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Policy, Verdict
    from xdpkit.obj import ProgramSpec
    from xdpkit.tables.model import Preparation

Prepare = bool | Literal["gro", "program"]
"""What may be done to the peer of a veth: nothing, whichever suits, or in which way."""

_MODES = ("native", "generic")


@dataclass(frozen=True, slots=True)
class Addition:
    """An interface that is to become a port of a table; see :meth:`xdpkit.PortTable.add`.

    Raises:
        UsageError: what was given cannot be meant.
    """

    table: str
    iface: str | int
    netns: str | None = None
    number: int | None = None
    name: str | None = None
    egress: ProgramSpec | Program | None = None
    prepare: Prepare = False
    mode: str = "native"
    policy: Policy | str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        from xdpkit.hook.check import policy_of

        if not (isinstance(self.iface, str) or is_number(self.iface)):
            raise UsageError(self.what, cause="an interface is given by its name, or its index")
        if self.number is not None and not is_number(self.number):
            raise UsageError(self.what, cause=f"a port's number is an int, not {self.number!r}")
        if self.name is not None:
            check_port_name(self.name, self.what)
        if not (isinstance(self.prepare, bool) or self.prepare in ("gro", "program")):
            raise UsageError(
                self.what,
                cause=f'it is prepared by "gro", by "program", in any way (True) or not at all'
                f" (False), not by {self.prepare!r}",
            )
        if self.mode not in _MODES:
            raise UsageError(
                self.what,
                cause=f"programs that redirect are attached in native or generic mode, not"
                f" {self.mode!r}",
            )
        policy_of(self.policy)

    @property
    def what(self) -> str:
        """What is being tried, for errors."""
        return f"add {self.iface} to port table {self.table}"

    @property
    def wish(self) -> Wish:
        """How it may be prepared, as it is written down."""
        if isinstance(self.prepare, str):
            return self.prepare
        return "any" if self.prepare else ""

    def look(
        self,
        store: Store,
        table: Table,
        there: _There,
        resources: contextlib.ExitStack,
    ) -> _Candidate:
        """Return what it takes to add it; nothing of that is done.

        Args:
            store: the table.
            table: what it is to say so far.
            there: its ports' interfaces.
            resources: they have the egress program, if it was loaded for this.
        """
        identity = seeing.identify(self.iface, self.netns)
        port = there.port_of(identity)
        if port is not None:
            # Also in the maps, if it has just come back.
            follow(store, thorough=False)
            raise UsageError(
                self.what,
                cause=f"it is port {port.number} ({port.name}) already",
                remedy=f"to give it another name: xdpkit ports rename {table.name} {port.name}"
                " NAME; another number: remove it first, with --free",
            )
        number, name = members.choose(
            table, identity.name, number=self.number, name=self.name, what=self.what
        )
        kept = members.numbered(table, number)
        if kept is not None and not _is_kept_for(kept, identity):
            users.require_unknown_number(
                store,
                number,
                self.what,
                remedy="detach it first; or choose another name and number",
            )
        interface = resolve(identity.ifindex, netns=self.netns)
        is_asked_about = bool(self.prepare) or not self.force
        others = there.interfaces() if is_asked_about else ()
        maps = _maps_of(store, table, number)
        planned = self._negotiate(maps, interface, others)
        program = self._load(store, maps, number, resources)
        if program is not None:
            self._require_egress(store, maps, program, interface, number)
        port = Port(
            number,
            name,
            identity,
            None if program is None else program.name,
            planned,
            prepare=self.wish,
        )
        return _Candidate(self, port, kept, program, interface, others, maps)

    def _negotiate(
        self, maps: Sequence[Map], interface: Interface, others: tuple[Interface, ...]
    ) -> tuple[Preparation, ...]:
        """Return what is to be prepared; refuse an interface that then still cannot be a port."""
        if not self.prepare:
            if not self.force:
                self.require_fit(maps, interface, others)
            return ()
        from xdpkit.ports import fitness, preparing

        verdicts = self._verdicts(maps, interface, others)
        planned = preparing.plan(interface, verdicts, self.prepare)
        if not planned:
            fitness.require(verdicts, self.what, policy=self.policy, force=self.force)
        return planned

    def require_fit(
        self, maps: Sequence[Map], interface: Interface, others: tuple[Interface, ...]
    ) -> None:
        """Refuse an interface that cannot be a port.

        Args:
            maps: those that it gets into. interface: the interface. others: those of other ports.
        """
        from xdpkit.ports import fitness

        verdicts = self._verdicts(maps, interface, others)
        fitness.require(verdicts, self.what, policy=self.policy, force=self.force)

    def _verdicts(
        self, maps: Sequence[Map], interface: Interface, others: tuple[Interface, ...]
    ) -> tuple[Verdict, ...]:
        from xdpkit.ports import fitness

        return fitness.negotiate(
            interface, mode=self.mode, others=others, frags=takes_frags(maps), policy=self.policy
        )

    # The egress program

    def _load(
        self,
        store: Store,
        maps: Sequence[Map],
        number: int,
        resources: contextlib.ExitStack,
    ) -> Program | None:
        """Return the program, loaded if it was not yet; then it closes with the resources."""
        if self.egress is None:
            return None
        from xdpkit import kernel
        from xdpkit.kernel.context import Context
        from xdpkit.obj import ProgramSpec

        if isinstance(self.egress, kernel.Program):
            return self.egress
        if not isinstance(self.egress, ProgramSpec):
            raise UsageError(
                self.what,
                cause="the egress program is none: give one of an object's, or a loaded one",
            )
        _require_for_devmaps(self.egress, self.what)
        require_same_frags(store.name, maps, self.egress, self.what)
        loaded = load_with(store, self.egress, Context(port_index=number))
        return resources.enter_context(loaded)

    def _require_egress(
        self,
        store: Store,
        maps: Sequence[Map],
        program: Program,
        interface: Interface,
        number: int,
    ) -> None:
        """Refuse a program that would not do, or know, what it is to at this port."""
        if program.spec is not None:
            _require_for_devmaps(program.spec, self.what)
            require_same_frags(store.name, maps, program.spec, self.what)
        given = program.context
        if given is not None and "port_index" in given.fields:
            own = given.port_index == number or given.numbers == store.numbers.id
            if not own:
                raise RequirementUnmet(
                    self.what,
                    cause=f"{program.name} was loaded for another port or table, and reads"
                    " port_index",
                    remedy="give it as it is in the object file, and it is loaded for this port",
                )
        if not self.force:
            self._negotiate_egress(store, program, interface)

    def _negotiate_egress(self, store: Store, program: Program, interface: Interface) -> None:
        from xdpkit.hook.check import policy_of
        from xdpkit.hook.members import negotiate_members
        from xdpkit.hook.mode import Mode
        from xdpkit.kernel.mapvalues import DevmapValue

        maps = {"the port": store.ports}
        with negotiate_members(maps, interface, Mode.parse(self.mode), policy_of(self.policy)):
            for vet in tuple(store.ports.vets):
                vet(DevmapValue(interface.index, program))


class _There:
    """The interfaces of ports, looked for only when it matters: they may be a thousand."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self._ports = ports
        known = [each.interface for each in ports if each.interface is not None]
        known += homes_of(ports).values()
        self._names = {each.name for each in known}
        self._indexes = {each.ifindex for each in known}
        self._located: Located | None = None
        self._added: list[tuple[Port, Interface]] = []

    def add(self, port: Port, interface: Interface) -> None:
        """Take one more for a port."""
        self._added.append((port, interface))

    def port_of(self, identity: Identity) -> Port | None:
        """Return the port that an interface is, if any."""
        for port, each in self._added:
            if (each.netns_cookie, each.index) == identity.place:
                return port
        # No interface is recognised that has neither.
        if identity.name not in self._names and identity.ifindex not in self._indexes:
            return None
        found = self._locate().interfaces
        return next((port for port in self._ports if _is_at(found, port, identity)), None)

    def interfaces(self) -> tuple[Interface, ...]:
        """Return those that are there."""
        located = self._locate()
        found = [
            _interface(each, located.sight.places[each.netns_cookie])
            for each in located.interfaces.values()
        ]
        return (*found, *(each for _, each in self._added))

    def _locate(self) -> Located:
        if self._located is None:
            self._located = locate(self._ports)
        return self._located


def _is_at(found: Mapping[int, Identity], port: Port, identity: Identity) -> bool:
    return port.number in found and found[port.number].place == identity.place


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An interface that may become a port, as far as could be seen.

    Attributes:
        wanted: what was asked for. port: what it is to become.
        before: what was written down for its number, None for nothing.
        program: the egress program. interface: the interface.
        others: those of the other ports. maps: those that it gets into.
    """

    wanted: Addition
    port: Port
    before: Port | None
    program: Program | None
    interface: Interface
    others: tuple[Interface, ...]
    maps: tuple[Map, ...]


def add(store: Store, additions: Sequence[Addition]) -> tuple[Port, ...]:
    """Add interfaces; if one cannot be added, none is. Under the lock."""
    table = store.read()
    there = _There(table.ports)
    candidates: list[_Candidate] = []
    with contextlib.ExitStack() as resources:
        for each in additions:
            candidate = each.look(store, table, there, resources)
            candidates.append(candidate)
            table = members.with_port(table, candidate.port)
            there.add(candidate.port, candidate.interface)
        with _putting_back(store, candidates):
            _make(store, table, candidates)
    return tuple(each.port for each in candidates)


def _make(store: Store, table: Table, candidates: Sequence[_Candidate]) -> None:
    from xdpkit.ports import preparing

    for each in candidates:
        if each.before is None:
            # What was lost at this number was another port's.
            entries.clear_count(store.counts, each.port.number)
        if each.program is not None:
            store.pin_egress(each.port.number, each.program)
    store.write(table)
    for each in candidates:
        for preparation in each.port.prepared:
            preparing.apply(preparation, pin_root=store.pin_root)
    for each in candidates:
        if each.port.prepared:
            each.wanted.require_fit(each.maps, each.interface, each.others)
    # Where the others are was seen before.
    followed = follow(store, thorough=False, search=False)
    for each in candidates:
        if each.port.number in followed.refused:
            raise followed.refused[each.port.number]
        if each.port.number not in followed.there:
            raise UsageError(each.wanted.what, cause="the interface has gone meanwhile")


@contextlib.contextmanager
def _putting_back(store: Store, candidates: Sequence[_Candidate]) -> Iterator[None]:
    """If the block fails, have none of them be a port, and undo what was prepared.

    As a port is removed: what cannot be undone now stays written down, for the next command.
    """
    try:
        yield
    except BaseException:
        # Why it failed matters more than what does not come of this.
        with contextlib.suppress(XdpkitError):
            _put_back(store, candidates)
        raise


def _put_back(store: Store, candidates: Sequence[_Candidate]) -> None:
    for each in candidates:
        port = members.numbered(store.read(), each.port.number)
        if port is not None:
            destroying.vacate(store, port)
    destroying.finish(store, store.read())
    table = store.read()
    for each in candidates:
        if each.before is None:
            table = members.without_port(table, each.port.number)
        else:
            table = members.with_port(table, each.before)
    store.write(table)


def _is_kept_for(port: Port, identity: Identity) -> bool:
    """Whether a port's number is kept for an interface, and not for another of its name."""
    return port.home is not None and bool(recognise({port.number: port.home}, [identity]))


def _maps_of(store: Store, table: Table, number: int) -> tuple[Map, ...]:
    """Return the device maps that a port of this number gets into."""
    return (
        store.ports,
        *(store.sets[each.name] for each in table.sets if number in each.ports),
    )


def _require_for_devmaps(spec: ProgramSpec, what: str) -> None:
    if spec.attach_type != AttachType.XDP_DEVMAP:
        raise UsageError(
            what,
            cause=f"{spec.name} is no program for what is sent: its section is {spec.section}",
            remedy='SEC("xdp/devmap")',
        )


def _interface(identity: Identity, place: str | None) -> Interface:
    """Return an interface by which a port's is found; nothing else is asked of it."""
    return Interface(
        index=identity.ifindex,
        name=identity.name,
        netns=place,
        netns_cookie=identity.netns_cookie,
        driver=None,
        kind=identity.kind or None,
        mtu=0,
        rx_queues=0,
        tx_queues=0,
        xdp=XdpIds(),
    )
