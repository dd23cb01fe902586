# SPDX-License-Identifier: Apache-2.0
"""A table's maps follow its record, and both follow the interfaces."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping
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
from xdpkit.ports.recognising import recognise
from xdpkit.ports.seeing import Sight
from xdpkit.tables import entries
from xdpkit.tables.model import Identity, Table
from xdpkit.tables.store import Store

# An interface can go between the look and the step, and another can come: that often at most.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of it.

    Attributes:
        changes: what has happened to ports.
        refused: why the kernel did not take an interface into the map, by port number.
        there: the ports whose interface is there.
        places: the namespaces that were looked into: how to enter each, by its cookie.
    """

    changes: tuple[Change, ...]
    refused: Mapping[int, XdpkitError]
    there: frozenset[int]
    places: Mapping[int, str | None]


def follow(store: Store, *, thorough: bool = True) -> Followed:
    """Make a table's maps equal to its record and to the interfaces of now. Under the lock.

    Where nothing has changed nothing is written. What one port cannot have is no other's loss.

    Args:
        store: the table.
        thorough: see whether all ports that were prepared still are, which takes some milliseconds
            for each; else only those that have come back.

    Raises:
        RequirementUnmet: a later version wrote the record.
        KernelRefused: the interfaces kept changing while they were listed (EAGAIN).
    """
    changes: dict[Change, None] = {}
    refused: dict[int, XdpkitError] = {}
    for _ in range(_ATTEMPTS):
        table = store.read()
        require_known(table, f"follow the interfaces of port table {table.name}")
        now, places = _look(store, table)
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
    to_look_at = [
        number
        for number in now.interfaces
        if names[number].prepared and (thorough or number in returned)
    ]
    if to_look_at:
        from xdpkit.ports.keeping import keep_prepared

        changes |= dict.fromkeys(keep_prepared(store, to_look_at, places))
    return Followed(tuple(changes), refused, frozenset(now.interfaces), places)


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
    known = _known(table)
    found, _ = _recognise(known, seeing.look(known.values()))
    return found


def _recognise(known: Mapping[int, Identity], sight: Sight) -> tuple[dict[int, Identity], Sight]:
    """Return interfaces as they are now, and what was seen; look further if some are missing."""
    found = recognise(known, sight.interfaces)
    if len(found) < len(known):
        # It takes long, and what is where it was is found without.
        sight = seeing.look_everywhere()
        found = recognise(known, sight.interfaces)
    return found, sight


def _known(table: Table) -> dict[int, Identity]:
    return {port.number: port.interface for port in table.ports if port.interface is not None}


def _look(store: Store, table: Table) -> tuple[Situation, Mapping[int, str | None]]:
    known = _known(table)
    ports = entries.entries(store.ports)
    sight = seeing.look(known.values())
    held = {
        number
        for number, each in known.items()
        if each.netns_cookie not in sight.places
        and number in ports
        and ports[number][0] == each.ifindex
    }
    looked_for = {number: each for number, each in known.items() if number not in held}
    found, sight = _recognise(looked_for, sight)
    situation = Situation(
        table=table,
        interfaces=found,
        held=frozenset(held),
        ports=ports,
        numbers=entries.port_numbers(store.numbers),
        sets={name: entries.entries(each) for name, each in store.sets.items()},
        egress=_egress_ids(store, table),
    )
    return situation, sight.places


def _egress_ids(store: Store, table: Table) -> dict[int, int]:
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
            if error.errno == errno.EINVAL and not _is_there(interface.ifindex):
                return False
            raise
    return True


def _map(store: Store, step: Drop | Put) -> Map:
    return store.ports if step.set is None else store.sets[step.set]


def _is_there(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True
