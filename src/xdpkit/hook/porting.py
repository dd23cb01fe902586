# SPDX-License-Identifier: Apache-2.0
"""A program gets what it needs of a port table, and the table is the same until it is attached."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, UsageError

if TYPE_CHECKING:
    from xdpkit.hook.standing import Standing
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Context, Map
    from xdpkit.obj.spec import ProgramSpec
    from xdpkit.tables.store import Store

_AGAIN = "try it again"


def context_of(standing: Standing | None, cookie: int) -> Context:
    """Return what a program that is loaded for an interface reads in its context.

    Raises:
        MissingPrivilege: the tables could not be looked at.
    """
    from xdpkit.context import NO_PORT
    from xdpkit.kernel import Context

    if standing is None or not standing.is_told:
        return Context(cookie=cookie)
    if standing.unseen is not None:
        # It may be a port all the same, and must not be told that it is none.
        raise standing.unseen
    if standing.port is None:
        # It was forced, or does without.
        return Context(port_index=NO_PORT, cookie=cookie)
    return Context(port_index=standing.port.number, cookie=cookie)


def maps_of(
    spec: ProgramSpec,
    standing: Standing | None,
    given: Mapping[str, Map],
    pin_root: str,
    what: str,
    resources: contextlib.ExitStack,
) -> tuple[dict[str, Map], dict[str, int]]:
    """Return the maps that a program is to be loaded with, and the ids of those of its table.

    They are open as long as the resources: they are the loaded program's, too. Those for which
    there is no table are made, for it alone and empty.

    Args:
        spec: the program. standing: what the tables have for it.
        given: the caller's own, which come first.

    Raises:
        HookBusy: the table is another one meanwhile.
        MissingPrivilege: the tables could not be looked at.
        KernelRefused: the kernel makes no map.
    """
    from xdpkit.kernel.ownports import own_port_maps

    if standing is not None and standing.unseen is not None:
        raise standing.unseen
    shared: dict[str, Map] = {}
    if standing is not None and standing.port is not None:
        from xdpkit.tables import store

        name = standing.port.table
        with _destroyed_is_busy(name, what):
            table = resources.enter_context(store.open(name, pin_root=pin_root))
        _require_same(standing, table, what)
        shared = {each: found for each, found in table.maps().items() if each in standing.maps}
    found = {**shared, **given}
    own = resources.enter_context(own_port_maps(spec, without=found))
    return {**own, **found}, {each: used.id for each, used in shared.items()}


@contextlib.contextmanager
def kept(
    standing: Standing | None,
    maps: Mapping[str, int],
    interface: Interface,
    pin_root: str,
    what: str,
) -> Iterator[None]:
    """Keep others from changing what a program has of a table, meanwhile.

    Args:
        standing: what the tables had for it. maps: the ids of its maps that are the table's.
        interface: where it is to run.

    Raises:
        HookBusy: the interface is that port no longer, or the table or a set is another one.
    """
    if standing is None or standing.port is None or standing.written is None:
        yield
        return
    from xdpkit.hook.standing import describe
    from xdpkit.tables import store

    port = standing.port
    with contextlib.ExitStack() as held:
        with _destroyed_is_busy(port.table, what):
            table = held.enter_context(store.locked(port.table, what, pin_root=pin_root))
        _require_same(standing, table, what)
        now = {name: found.id for name, found in table.maps().items()}
        for name, number in maps.items():
            if now.get(name) != number:
                cause = f"its map {name} is not the one of table {port.table} any more"
                raise HookBusy(what, cause=cause, remedy=_AGAIN)
        if port not in store.find(interface, pin_root=pin_root, table=port.table):
            raise HookBusy(
                what,
                cause=f"{interface.name} was {describe(port)}, and is not any more",
                remedy=_AGAIN,
            )
        yield


def _require_same(standing: Standing, table: Store, what: str) -> None:
    if table.incarnation != standing.table_id:
        raise HookBusy(
            what,
            cause=f"port table {table.name} was destroyed, and created anew, meanwhile",
            remedy=_AGAIN,
        )


@contextlib.contextmanager
def _destroyed_is_busy(table: str, what: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise HookBusy(
            what, cause=f"port table {table} was destroyed meanwhile", remedy=_AGAIN
        ) from error
