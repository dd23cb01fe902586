# SPDX-License-Identifier: Apache-2.0
"""What was prepared for a port stays so: also when its veth was deleted and made anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpkit.errors import XdpkitError
from xdpkit.interfaces import Interface, resolve
from xdpkit.negotiation import Outcome, Verdict
from xdpkit.ports import members
from xdpkit.ports.planning import Change, Event, changed
from xdpkit.tables.model import Identity, Port, Preparation, Table
from xdpkit.tables.store import Store

if TYPE_CHECKING:
    from xdpkit.ports.preparing import How


def keep_prepared(
    store: Store, numbers: Iterable[int], places: Mapping[int, str | None]
) -> Iterator[Change]:
    """Prepare ports again that need it; yield what was done, and what cannot be. Under the lock.

    Args:
        store: the table.
        numbers: the ports that are looked at, of those that are to be prepared and are there.
        places: how to enter the namespaces where they are, by cookie.
    """
    for number in numbers:
        table = store.read()
        port = next(each for each in table.ports if each.number == number)
        if port.interface is None:
            continue
        try:
            done = _keep(store, table, port, _resolved(port.interface, places))
        except XdpkitError as error:
            text = f"it cannot be prepared again: {error.cause}"
            yield changed(table, port, Event.REFUSED, text)
            continue
        if done:
            yield changed(table, port, Event.PREPARED, f"prepared again: {', '.join(done)}")


def _resolved(identity: Identity, places: Mapping[int, str | None]) -> Interface:
    return resolve(identity.ifindex, netns=places[identity.netns_cookie])


def _keep(store: Store, table: Table, port: Port, interface: Interface) -> list[str]:
    """Prepare one port again; return what was done to what, in phrases."""
    from xdpkit.ports import fitness, preparing

    verdicts = fitness.negotiate(interface)
    if not _is_up(verdicts):
        # GRO that is switched on before its interface is up does not count, and it comes up later.
        return []
    planned = preparing.plan(interface, verdicts, _way_of(port))
    if not planned:
        return []
    wanted = [_as_before(each, port.prepared) for each in planned]
    superseded = [each for each in port.prepared if each not in wanted and _is_in(each, wanted)]
    for each in superseded:
        preparing.undo(each, pin_root=store.pin_root)
    kept = [each for each in port.prepared if each not in superseded and each not in wanted]
    # Written down before it is made, so that it can be undone.
    now = replace(port, prepared=(*kept, *wanted))
    if now != port:
        store.write(members.with_port(table, now))
    for each in wanted:
        preparing.apply(each, pin_root=store.pin_root)
    return [preparing.describe(each) for each in wanted]


def _is_up(verdicts: Iterable[Verdict]) -> bool:
    return all(
        each.outcome is Outcome.ACCEPTED
        for each in verdicts
        if each.requirement.capability == "precondition:up"
    )


def _way_of(port: Port) -> How:
    """Return in which way a port may be made to receive frames."""
    return port.prepare if port.prepare in ("gro", "program") else True


def _as_before(planned: Preparation, prepared: Iterable[Preparation]) -> Preparation:
    """Return what was written down before, if that is the same for the same interface."""
    for each in prepared:
        if (each.what, each.on.place) == (planned.what, planned.on.place):
            return each
    return planned


def _is_in(preparation: Preparation, others: Iterable[Preparation]) -> bool:
    """Whether the same is done to another interface now."""
    return any(each.what == preparation.what for each in others)
