# SPDX-License-Identifier: Apache-2.0
"""Tables of ports and the hook: which table is meant, and which programs rely on its ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xdpkit.errors import HookBusy, MissingPrivilege, UsageError, XdpkitError
from xdpkit.kernel.folder import DEFAULT_ROOT

if TYPE_CHECKING:
    from xdpkit.hook.record import PortOf, StoredRecord
    from xdpkit.interfaces import Interface
    from xdpkit.interfaces.namespaces import Reachable


class Named(Protocol):
    """What has the name of a port table: a :class:`xdpkit.PortTable`, say."""

    @property
    def name(self) -> str: ...


PortsOf = str | Named
"""A port table, or its name."""


def table_of(ports: PortsOf | None, what: str, pin_root: str) -> str | None:
    """Return the name of the table that is meant, None where none is named.

    Whether or not a program asks for it: who names a table means one that there is.

    Raises:
        UsageError: it is no name, or there is no such table.
        RequirementUnmet: all tables are hidden, or somebody else made the folder.
    """
    name = ports if ports is None or isinstance(ports, str) else getattr(ports, "name", None)
    if ports is not None and not isinstance(name, str):
        raise UsageError(what, cause="ports= is a port table, or its name")
    if name is not None:
        from xdpkit.tables import store

        # Who may not look is told so if the program asks for it.
        with contextlib.suppress(MissingPrivilege):
            store.require(name, what, pin_root=pin_root)
    return name


def unfollowed(
    iface: str | int,
    *,
    netns: str | None = None,
    pin_root: str = DEFAULT_ROOT,
    table: str | None = None,
) -> tuple[str, ...]:
    """Return the tables that have an interface as a port once they have followed it.

    None where that cannot be seen: what needs a table says why.

    Args:
        iface, netns: the interface, as for :func:`xdpkit.interfaces.resolve`.
        table: the one that counts; None: all.
    """
    from xdpkit.interfaces import resolve
    from xdpkit.tables import store

    try:
        found = store.find(resolve(iface, netns=netns), pin_root=pin_root, table=table)
    except XdpkitError:
        return ()
    return tuple(each.table for each in found if not each.is_followed)


def is_gone(port: PortOf, incarnations: Mapping[str, int]) -> bool:
    """Whether the table that a program was told of is certainly gone.

    Args:
        port: what it was told. incarnations: :func:`xdpkit.tables.store.incarnations`.
    """
    return bool(port.table_id) and incarnations.get(port.table) != port.table_id


@dataclass(frozen=True, slots=True)
class User:
    """A program on a hook that was told something of a port table.

    Attributes:
        id, name: the program.
        interface: the interface's name, as it is now where it was found, else as it was.
        port: what the program was told.
        comes_back: whether it is not on the hook now, and comes back if a change is not confirmed.
    """

    id: int
    name: str
    interface: str
    port: PortOf
    comes_back: bool

    def __str__(self) -> str:
        """Return it as a phrase: "program 12 (forward) on eth1"."""
        text = f"program {self.id} ({self.name}) on {self.interface}"
        return f"{text}, which comes back unless a change is confirmed" if self.comes_back else text


def users_of(
    table: str, number: int | None = None, *, pin_root: str = DEFAULT_ROOT
) -> tuple[User, ...]:
    """Return the programs that were told a port of a table, or that they use the table.

    Wherever their interface is now, and whichever port that is. One that may be where nobody can
    look counts. A table that had the name before is another one. Takes no lock.

    Args:
        table: the table's name.
        number: the port that they have in their instructions; None: whatever they were told.
        pin_root: where the table is kept.

    Raises:
        UsageError: there is no such table.
        RequirementUnmet: it is damaged.
        MissingPrivilege: it takes CAP_SYS_ADMIN to look at programs.
    """
    from xdpkit.tables import store

    with store.open(table, pin_root=pin_root) as opened:
        table_id = opened.incarnation
    written = list(_records())
    told = [
        (program, stored, port)
        for program, stored in written
        if (port := stored.record.port) is not None
        and (port.table, port.table_id) == (table, table_id)
        and number in (None, port.number)
    ]
    if not told:
        return ()
    from xdpkit.interfaces.namespaces import reachable

    places = reachable()
    on_hooks = _on_hooks(places)
    linked = _linked()
    before = [stored.record.reverts_to for _, stored in written if stored.record.revert_at]
    returning = set(_with_members(filter(None, before)))
    found = (
        User(
            program,
            stored.record.program,
            _called(stored, on_hooks.get(program, ())),
            port,
            comes_back=program in returning and program not in on_hooks,
        )
        for program, stored, port in told
        if program in on_hooks
        or program in returning
        or program in linked
        or _may_be_hidden(stored, places)
    )
    return tuple(dict.fromkeys(found))


def _called(stored: StoredRecord, seen: Sequence[Interface]) -> str:
    """Return the name of the interface that a program is on, as far as it was seen."""
    for each in seen:
        if (each.netns_cookie, each.index) == stored.record.hook:
            return each.name
    return seen[0].name if seen else stored.record.interface


def _records() -> Iterator[tuple[int, StoredRecord]]:
    """Yield what is written down with all XDP programs, with their ids."""
    from xdpkit.hook import records
    from xdpkit.syscalls import bpf
    from xdpkit.syscalls.bpf import ObjectKind
    from xdpkit.uapi.bpf import ProgType

    for number in bpf.ids(ObjectKind.PROGRAM):
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
        if descriptor is None:
            continue
        with descriptor:
            info, map_ids = bpf.prog_info(descriptor.fileno())
        if info.type == ProgType.XDP:
            for stored in records.find_in(map_ids):
                yield number, stored


def _on_hooks(places: Reachable) -> dict[int, list[Interface]]:
    """Return the interfaces of each program on a hook, those for RX queues included, by its id."""
    from xdpkit.hook.homes import ids_on
    from xdpkit.interfaces import list_all

    found: dict[int, list[Interface]] = {}
    for place in places.values():
        try:
            interfaces = list_all(netns=place.netns)
        except (UsageError, MissingPrivilege):
            # It ended meanwhile.
            continue
        for each in interfaces:
            numbers = [number for number in ids_on(each) if number is not None]
            for number in _with_members(numbers):
                found.setdefault(number, []).append(each)
    return found


def _linked() -> set[int]:
    """Return the programs on hooks by links, also where nobody can look."""
    from xdpkit.hook.looking import list_links

    links, _ = list_links()
    return set(_with_members(number for ifindex, number in links if ifindex))


def _with_members(numbers: Iterable[int]) -> Iterator[int]:
    """Yield programs, and those that they run for RX queues."""
    from xdpkit.hook import roots
    from xdpkit.hook.looking import root_of

    for number in numbers:
        yield number
        root = root_of(number)
        if root is not None:
            try:
                yield from roots.members_of(root, "see which programs rely on ports").values()
            except HookBusy:
                # It has gone meanwhile.
                continue


def _may_be_hidden(stored: StoredRecord, places: Reachable) -> bool:
    return places.unseen > 0 and stored.record.netns_cookie not in places
