# SPDX-License-Identifier: Apache-2.0
"""A table's ports by number and name, and the number that a new one gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xdpkit.errors import UsageError
from xdpkit.tables.model import Port, PortSet, Table, check_port_name, is_number

Selector = int | str
"""A port: its number, or its name."""


def find(table: Table, port: Selector, what: str) -> Port:
    """Return a port of a table.

    Args:
        port: its number, as an int or in digits, or its name.
        what: what is being tried, for errors.

    Raises:
        UsageError: there is none.
    """
    for each in table.ports:
        if is_number(port):
            is_it = port == each.number
        else:
            is_it = isinstance(port, str) and port in (str(each.number), each.name)
        if is_it:
            return each
    raise UsageError(
        what,
        cause=f"table {table.name} has no port {port}",
        remedy=f"see which it has: xdpkit ports show {table.name}",
    )


def numbered(table: Table, number: int) -> Port | None:
    """Return the port of a number, None where there is none."""
    return next((each for each in table.ports if each.number == number), None)


def all_of(table: Table, ports: Iterable[Selector], what: str) -> list[Port]:
    """Return ports of a table.

    Raises:
        UsageError: there is one that it has not, or ports is no list of them.
    """
    if isinstance(ports, str | bytes) or not isinstance(ports, Iterable):
        raise UsageError(what, cause=f"give a list of ports, by number or name, not {ports!r}")
    return [find(table, port, what) for port in ports]


def choose(
    table: Table, interface: str, *, number: int | None, name: str | None, what: str
) -> tuple[int, str]:
    """Return number and name of the port that an interface becomes.

    Those that are kept for a name belong to it: who comes under this name gets that number.

    Args:
        interface: the interface's name, which is the port's if none is given.
        number: the number that is wanted; None: the one that is kept for the name, or the lowest
            that is free.
        name: the port's name.
        what: what is being tried, for errors.

    Raises:
        UsageError: the number or the name is taken, or kept for another; or none is free.
    """
    name = interface if name is None else name
    check_port_name(name, what)
    if number is not None and not (is_number(number) and 0 <= number < table.size):
        raise UsageError(what, cause=f"{table.name} has the numbers from 0 to {table.size - 1}")
    same_name = next((port for port in table.ports if port.name == name), None)
    same_number = None if number is None else numbered(table, number)
    if same_name is not None and same_name.interface is not None:
        raise UsageError(
            what,
            cause=f"port {same_name.number} of {table.name} is called {name} already",
            remedy="give it another name: --name",
        )
    if same_number is not None and same_number.interface is not None:
        raise UsageError(
            what,
            cause=f"port {number} of {table.name} is {same_number.name} already",
            remedy="choose another number, or none",
        )
    kept = same_name or same_number
    if kept is not None:
        if (name, kept.number if number is None else number) != (kept.name, kept.number):
            raise UsageError(
                what,
                cause=f"number {kept.number} of {table.name} is kept for port {kept.name}",
                remedy=f"free it first: xdpkit ports remove {table.name} {kept.name} --free",
            )
        return kept.number, kept.name
    return (_lowest_free(table, what) if number is None else number), name


def _lowest_free(table: Table, what: str) -> int:
    taken = {port.number for port in table.ports}
    for number in range(table.size):
        if number not in taken:
            return number
    kept = [port.name for port in table.ports if port.interface is None]
    raise UsageError(
        what,
        cause=f"{table.name} has room for {table.size} ports, and has them",
        remedy=f"free a number that is kept: xdpkit ports remove {table.name} {kept[0]} --free"
        if kept
        else None,
    )


def with_port(table: Table, port: Port) -> Table:
    """Return the table with a port, in the place of the one with its number."""
    others = [each for each in table.ports if each.number != port.number]
    return replace(table, ports=tuple(sorted((*others, port), key=lambda each: each.number)))


def without_port(table: Table, number: int) -> Table:
    """Return the table with a number free, and in no set."""
    return replace(
        table,
        ports=tuple(each for each in table.ports if each.number != number),
        sets=tuple(PortSet(each.name, each.ports - {number}) for each in table.sets),
    )


def with_set(table: Table, name: str, ports: Iterable[int]) -> Table:
    """Return the table with a set, in the place of the one with its name."""
    others = [each for each in table.sets if each.name != name]
    new = PortSet(name, frozenset(ports))
    return replace(table, sets=tuple(sorted((*others, new), key=lambda each: each.name)))


def without_set(table: Table, name: str) -> Table:
    """Return the table without a set."""
    return replace(table, sets=tuple(each for each in table.sets if each.name != name))
