# SPDX-License-Identifier: Apache-2.0
"""A table's maps follow its record, and both follow the interfaces."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from xdpkit.errors import KernelRefused, RequirementUnmet, XdpkitError
from xdpkit.kernel import Map
from xdpkit.ports import seeing
from xdpkit.ports.planning import (
    Change,
    Drop,
    Event,
    Forget,
    Number,
    Put,
    Situation,
    Step,
    Write,
    changed,
    plan,
)
from xdpkit.ports.recognising import homes_of, recognise
from xdpkit.ports.seeing import Sight
from xdpkit.syscalls import netns
from xdpkit.tables import entries
from xdpkit.tables.model import Identity, Port, Table
from xdpkit.tables.store import Store

# An interface can go between the look and the step, and another can come: that often at most.
_ATTEMPTS = 5


Which = Callable[[Port], bool]
"""Some of a table's ports."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of it.

    Attributes:
        changes: what has happened to ports.
        refused: why the kernel did not take an interface into the map, by port number.
        there: the ports whose interface is there.
        places: the namespaces that were looked into: how to enter each, by its cookie.
        table: what the table says now.
    """

    changes: tuple[Change, ...]
    refused: Mapping[int, XdpkitError]
    there: frozenset[int]
    places: Mapping[int, str | None]
    table: Table


def follow(store: Store, *, thorough: bool | Which = True, search: bool | Which = True) -> Followed:
    """Make a table's maps equal to its record and to the interfaces of now. Under the lock.

    Where nothing has changed nothing is written. What one port cannot have is no other's loss.

    Args:
        store: the table.
        thorough: of which ports to see whether what is sent to them still is received, if they are
            to be prepared for that. It takes some milliseconds for each, and is always done for
            those that have come back.
        search: for which ports to look through all namespaces if they are not where they were. It
            takes some milliseconds and more.

    Raises:
        RequirementUnmet: a later version wrote the record.
        KernelRefused: the kernel refused.
    """
    changes: dict[Change, None] = {}
    refused: dict[int, XdpkitError] = {}
    for _ in range(_ATTEMPTS):
        table = store.read()
        require_known(table, f"follow the interfaces of port table {table.name}")
        now, places = _look(store, table, _chosen(search))
        planned = plan(now)
        changes |= dict.fromkeys(planned.changes)
        refused = {}
        if _apply(store, planned.steps, places, refused):
            break
    names = {port.number: port for port in now.table.ports}
    for number, error in refused.items():
        text = f"the kernel does not take it into the map: {error.cause}"
        changes[changed(now.table, names[number], Event.REFUSED, text)] = None
    returned = {each.number for each in changes if each.event in (Event.RETURNED, Event.MOVED)}
    is_thorough = _chosen(thorough)
    to_look_at = [
        number
        for number in now.interfaces
        if names[number].prepare and (number in returned or is_thorough(names[number]))
    ]
    if to_look_at:
        from xdpkit.ports.keeping import keep_prepared

        changes |= dict.fromkeys(keep_prepared(store, to_look_at, places))
    return Followed(tuple(changes), refused, frozenset(now.interfaces), places, store.read())


def _chosen(which: bool | Which) -> Which:
    return which if callable(which) else lambda _port: which


def require_known(table: Table, what: str) -> None:
    """Refuse to change what a later version wrote.

    Raises:
        RequirementUnmet: it did.
    """
    if table.unknown:
        raise RequirementUnmet(
            what,
            cause=f"xdpkit {table.xdpkit} wrote it, with what this version does not know",
            remedy=f"use xdpkit {table.xdpkit}",
        )


def recognised(table: Table) -> dict[int, Identity]:
    """Return the ports' interfaces as they are now, by number, as far as they are there."""
    return locate(table.ports).interfaces


@dataclass(frozen=True, slots=True)
class Located:
    """Where the interfaces of ports are.

    Attributes:
        interfaces: as they are now, by port number, as far as they are there.
        held: ports whose interface is where nobody can look, but is there.
        sight: what was seen.
    """

    interfaces: dict[int, Identity]
    held: frozenset[int]
    sight: Sight


def locate(
    ports: Collection[Port],
    in_map: Mapping[int, tuple[int, int]] | None = None,
    search: bool | Which = True,
) -> Located:
    """Return where the interfaces of ports are now.

    Args:
        ports: the ports.
        in_map: the entries of the table's map: what is in there has not gone.
        search: as for :func:`follow`.
    """
    is_wanted = _chosen(search)
    known = {port.number: port.interface for port in ports if port.interface is not None}
    homes = homes_of(ports)
    remembered = (*known.values(), *homes.values())
    located = _recognised(known, homes, in_map or {}, seeing.look(remembered))
    if any(
        is_wanted(port)
        for port in ports
        if port.number in known and port.number not in located.interfaces
    ):
        # It takes long, and what is where it was is found without.
        sight = located.sight.then(seeing.look_everywhere(remembered))
        located = _recognised(known, homes, in_map or {}, sight)
    return located


def _recognised(
    known: Mapping[int, Identity],
    homes: Mapping[int, Identity],
    in_map: Mapping[int, tuple[int, int]],
    sight: Sight,
) -> Located:
    held = frozenset(
        number
        for number, each in known.items()
        if each.netns_cookie not in sight.places
        and number in in_map
        and in_map[number][0] == each.ifindex
    )
    looked_for = {number: each for number, each in known.items() if number not in held}
    own = {number: each for number, each in homes.items() if number not in held}
    return Located(recognise(looked_for, sight.interfaces, own), held, sight)


def _look(store: Store, table: Table, search: Which) -> tuple[Situation, Mapping[int, str | None]]:
    ports = entries.entries(store.ports)
    located = locate(table.ports, ports, search)
    situation = Situation(
        table=table,
        interfaces=located.interfaces,
        held=located.held,
        ports=ports,
        numbers=entries.port_numbers(store.numbers),
        sets={name: entries.entries(each) for name, each in store.sets.items()},
        egress=egress_ids(store, table),
    )
    return situation, located.sight.places


def egress_ids(store: Store, table: Table) -> dict[int, int]:
    """Return the ids of a table's own programs, by the port that each is of."""
    found: dict[int, int] = {}
    for port in table.ports:
        if port.egress is None:
            continue
        program = store.egress(port.number)
        if program is not None:
            with program:
                found[port.number] = program.id
    return found


def _apply(
    store: Store,
    steps: tuple[Step, ...],
    places: Mapping[int, str | None],
    refused: dict[int, XdpkitError],
) -> bool:
    """Do the steps; return whether all interfaces were still where they were seen."""
    is_complete = True
    for step in steps:
        match step:
            case Drop():
                entries.clear_entry(_map(store, step), step.number)
            case Write():
                store.write(step.table)
            case Number():
                entries.set_number(store.numbers, step.ifindex, step.number)
            case Forget():
                entries.clear_number(store.numbers, step.ifindex)
            case Put():
                try:
                    is_complete &= _put(store, step, places)
                except (KernelRefused, RequirementUnmet) as error:
                    refused[step.number] = error
    return is_complete


def _put(store: Store, step: Put, places: Mapping[int, str | None]) -> bool:
    """Set an entry; return whether the interface was there."""
    interface = step.interface
    with contextlib.ExitStack() as resources:
        program = store.egress(step.number) if step.egress else None
        if program is not None:
            resources.enter_context(program)
        cookie = interface.netns_cookie
        if not resources.enter_context(seeing.inside(places[cookie], cookie)):
            return False
        try:
            entries.set_entry(
                store, _map(store, step), step.number, interface.ifindex, None, program
            )
        except KernelRefused as error:
            if error.errno == errno.EINVAL and not netns.has_interface(interface.ifindex):
                return False
            raise
    return True


def _map(store: Store, step: Drop | Put) -> Map:
    return store.ports if step.set is None else store.sets[step.set]
