# SPDX-License-Identifier: Apache-2.0
"""Ports and tables go: because somebody says so, or because the process whose they were has gone.

First nothing is sent out of a port any more; then what was prepared for it is undone, while it is
still written down; then that is not written down any more. A command that is killed leaves the rest
to the next one. A table that is being destroyed is one without an owner: the next command on any
table goes on with it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from xdpkit.errors import HookBusy, XdpkitError
from xdpkit.ports import members, users
from xdpkit.ports.following import egress_ids, follow
from xdpkit.ports.trying import tried
from xdpkit.tables import store
from xdpkit.tables.model import Port, Table
from xdpkit.tables.store import Store


def vacate(opened: Store, port: Port) -> None:
    """Take the interface away from a port; its number and name are kept. Under the lock."""
    vacant = replace(port, interface=None, egress=None)
    if vacant != port:
        opened.write(members.with_port(opened.read(), vacant))
        follow(opened, thorough=False, search=False)


def finish(opened: Store, table: Table) -> tuple[str, ...]:
    """Undo what was prepared for ports that have no interface any more. Under the lock.

    What a port of another table relies on is left to that. Returns what may be left, in sentences.

    Args:
        opened: the table. table: what it says.

    Raises:
        HookBusy: a hook's pins, or a table that has the interface, too, are locked by another
            process.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    notes: list[str] = []
    for port in table.ports:
        if is_finished(port):
            continue
        from xdpkit.ports import heirs, preparing

        for each in port.prepared:
            note = heirs.hand_over(opened, each) or preparing.undo(each, pin_root=opened.pin_root)
            notes += [note] if note is not None else []
        table = members.with_port(table, replace(port, prepared=()))
        opened.write(table)
    return tuple(notes)


def is_finished(port: Port) -> bool:
    """Whether nothing is left to be undone for a port that was removed, or it was not."""
    return port.interface is not None or not port.prepared


def destroy(opened: Store, *, force: bool, what: str) -> tuple[str, ...]:
    """Remove a table, and undo what was prepared for its ports. Under the lock.

    Returns what may be left of that, in sentences.

    Raises:
        HookBusy: loaded programs use it, and that was not forced.
    """
    table = opened.read()
    if not force:
        _require_unused(opened, table, what)
    # From here on it is one that its owner has left: who is killed leaves the rest to the next.
    vacant = tuple(replace(port, interface=None, egress=None) for port in table.ports)
    opened.write(replace(table, ports=vacant, owner=True))
    # An egress program may use the map that it is in: neither would ever go.
    follow(opened, thorough=False, search=False)
    notes = finish(opened, opened.read())
    opened.destroy()
    return notes


def sweep(pin_root: str, *, but: str | None = None) -> tuple[str, ...]:
    """Destroy the tables whose owner has gone; return their names.

    One that somebody else has locked is left for the next time: nobody waits here for a table that
    he has not asked for. Programs that still use one send nothing any more.

    Args:
        pin_root: the bpffs that they are in. but: the name of a table that is left alone.
    """
    swept = []
    what = "tidy up a port table whose owner is gone"
    for name in store.names(pin_root):
        if name == but:
            continue
        # What cannot be tidied up now must not keep anybody from another table.
        with contextlib.suppress(XdpkitError):
            if _is_orphan(name, pin_root):
                with tried(name, what, pin_root=pin_root) as opened:
                    if opened is not None and opened.is_orphan():
                        destroy(opened, force=True, what=what)
                        swept.append(name)
    return tuple(swept)


def _is_orphan(name: str, pin_root: str) -> bool:
    with store.open(name, pin_root=pin_root) as opened:
        return opened.is_orphan()


def _require_unused(opened: Store, table: Table, what: str) -> None:
    own = set(egress_ids(opened, table).values())
    using = users.of_maps(opened.maps().values(), but=own)
    if using:
        raise HookBusy(
            what,
            cause=f"loaded programs use it: {users.listed(using)}",
            remedy="detach them first; or destroy it all the same, and they send nothing: --force",
        )
