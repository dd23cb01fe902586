# SPDX-License-Identifier: Apache-2.0
"""A veth that is a port of two tables: what was prepared for one is what the other relies on.

So a port that goes does not have it undone, but hands it over: the other port undoes it in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from xdpkit.errors import HookBusy, UsageError, XdpkitError
from xdpkit.interfaces import resolve
from xdpkit.ports import members, peers, preparing
from xdpkit.ports.recognising import recognise
from xdpkit.ports.trying import tried
from xdpkit.tables import store
from xdpkit.tables.model import Identity, Port, Preparation, Table
from xdpkit.tables.store import Store

# Seconds. Others hold a table's lock for some milliseconds.
_PATIENCE = 1.0
_PAUSE = 0.01


def hand_over(opened: Store, preparation: Preparation) -> str | None:
    """Leave a preparation to the port of another table that has the interface, too.

    Returns what was left to whom, as a sentence; None: there is no such port.

    Args:
        opened: the table that it was made for. preparation: what was done.

    Raises:
        HookBusy: there may be such a table, and another process has held its lock for a while.
    """
    names = [name for name in store.names(opened.pin_root) if name != opened.name]
    interface = _other_end(preparation) if names else None
    if interface is None:
        return None
    for name in names:
        if _is_heir(name, interface, opened.pin_root):
            left = _leave(name, preparation, interface, opened.pin_root)
            if left is not None:
                return left
    return None


def _is_heir(name: str, interface: Identity, pin_root: str) -> bool:
    """Whether a table has an interface; one that cannot be read has not."""
    try:
        with store.open(name, pin_root=pin_root) as opened:
            return any(_heirs(opened, interface))
    except XdpkitError:
        return False


def _other_end(preparation: Preparation) -> Identity | None:
    """Return the other end of the veth that something was done to, if it is still there."""
    on, _ = peers.find_again(preparation.on)
    if on is None:
        return None
    try:
        _, end = peers.look(resolve(on.ifindex, netns=on.netns))
    except XdpkitError:
        return None
    return None if end is None else end.identity


def _heirs(opened: Store, interface: Identity) -> Iterator[tuple[Table, Port]]:
    """Yield the port of a table that has an interface, and the table; none of one left behind."""
    table = opened.read()
    if opened.is_orphan():
        return
    for port in table.ports:
        if port.interface is not None and recognise({0: port.interface}, [interface]):
            yield table, port


def _leave(name: str, preparation: Preparation, interface: Identity, pin_root: str) -> str | None:
    what = f"leave to port table {name} what was prepared: {preparing.describe(preparation)}"
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with tried(name, what, pin_root=pin_root) as other:
                if other is not None:
                    return _write(other, preparation, interface)
        except UsageError:
            # It was destroyed meanwhile, and nobody relies on anything.
            return None
        if time.monotonic() > deadline:
            raise HookBusy(
                what,
                cause=f"port table {name} has {interface.name}, too, and another process has locked"
                " it",
                remedy="try again",
            )
        time.sleep(_PAUSE)


def _write(other: Store, preparation: Preparation, interface: Identity) -> str | None:
    for table, port in _heirs(other, interface):
        if table.unknown:
            return (
                f"{preparing.describe(preparation)} stays: port {port.number} ({port.name}) of"
                f" {table.name} relies on it, and xdpkit {table.xdpkit} wrote that table"
            )
        if preparation not in port.prepared:
            heir = replace(port, prepared=(*port.prepared, preparation))
            other.write(members.with_port(table, heir))
        return (
            f"{preparing.describe(preparation)} stays: port {port.number} ({port.name}) of"
            f" {table.name} relies on it, and has it undone when it is removed"
        )
    return None
