# SPDX-License-Identifier: Apache-2.0
"""The ports of a table, as what a program redirects to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.errors import MissingPrivilege, UsageError
from xdpkit.interfaces import device_of, resolve
from xdpkit.negotiation import Target
from xdpkit.requirements.context import port_set

if TYPE_CHECKING:
    from xdpkit.tables.model import Identity, Port, Table

_CAPABILITIES = ("redirect-target", "redirect-target-frags")
# To look at an interface takes a millisecond or two. The ports of larger tables were looked at when
# they were added.
_MOST = 64
_NAMED = 1


def targets_in(table: Table, maps: Collection[str]) -> Iterator[Target]:
    """Yield what is redirected to by a table's maps: one target for each, which has all its ports.

    A port that does not transmit is no reason to refuse a program that serves the others; some
    drivers do so only once they have a program themselves.

    Args:
        table: the table. maps: the names of its maps that the program uses, as xdpkit.h has them.
    """
    sets = {each.name: each.ports for each in table.sets}
    everything = frozenset(port.number for port in table.ports)
    seen = {} if len(table.ports) > _MOST else {port.number: _seen(port) for port in table.ports}
    for name in sorted(maps):
        set_name = port_set(name)
        if set_name is None and name != "xdpkit_ports":
            continue
        numbers = everything if set_name is None else sets.get(set_name, frozenset())
        ports = [port for port in table.ports if port.number in numbers and port.interface]
        where = f"table {table.name}" if set_name is None else f"set {set_name} of {table.name}"
        findings = {each: _finding(each, ports, seen) for each in _CAPABILITIES}
        yield Target(Device(where, findings=findings), map=name, optional=True)


def _seen(port: Port) -> Device:
    """Return what is known of a port's interface."""
    known = port.interface
    if known is None:
        return Device(port.name)
    try:
        if not _is_there(known):
            return _unknown(port, "it is not there, or another one is in its place")
        return device_of(known.ifindex, netns=known.netns)
    except (UsageError, MissingPrivilege) as error:
        return _unknown(port, error.cause)


def _is_there(known: Identity) -> bool:
    return resolve(known.ifindex, netns=known.netns).netns_cookie == known.netns_cookie


def _unknown(port: Port, why: str) -> Device:
    found = {name: Finding(name, Answer.UNKNOWN, why) for name in _CAPABILITIES}
    return Device(port.name, findings=found)


def _finding(name: str, ports: Iterable[Port], seen: dict[int, Device]) -> Finding:
    """Return what is known of ports together: the worst that is known of one."""
    ports = list(ports)
    if not ports:
        return Finding(name, Answer.UNKNOWN, "it has no ports yet")
    if not seen:
        return Finding(name, Answer.UNKNOWN, "its ports were looked at when they were added")
    by_answer: dict[Answer, list[str]] = {}
    for port in ports:
        found = seen[port.number].finding(name)
        text = f"port {port.number} ({port.name}): {found.evidence}"
        by_answer.setdefault(found.answer, []).append(text)
    for answer in (Answer.NO, Answer.UNKNOWN):
        if answer in by_answer:
            texts = by_answer[answer]
            more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
            return Finding(name, answer, "; ".join(texts[:_NAMED]) + more)
    count = len(ports)
    return Finding(name, Answer.YES, f"its {count} ports do" if count > 1 else "its port does")
