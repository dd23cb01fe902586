# SPDX-License-Identifier: Apache-2.0
"""What a port table says: values, checked when they are made. Pure.

A table is the intent. What of it can be so at this moment, with the interfaces that there are, is
in the maps beside it (:mod:`xdpkit.tables.store`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from xdpkit.errors import UsageError

MAX_SIZE = 1024
"""Ports of a table at most: a broadcast walks all entries of the map."""

MAX_MAC = 32
"""Bytes of a hardware address at most (``MAX_ADDR_LEN``, include/linux/netdevice.h)."""

PreparedBy = Literal["gro", "tx-checksum", "program", "tx-vlan"]
"""What can be done to an interface so that it takes frames that are sent to it."""

PREPARATIONS: tuple[PreparedBy, ...] = ("gro", "tx-checksum", "program", "tx-vlan")

Wish = Literal["", "any", "gro", "program"]
"""What may be done to the peer of a port's veth when it is needed: nothing, or in which way."""

WISHES: tuple[Wish, ...] = ("", "any", "gro", "program")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
"""What tables and sets are called."""

_PORT_NAME_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """An interface as it was when it was last seen, and by what it is known again.

    Attributes:
        name: its name.
        ifindex: its index in its network namespace.
        netns_cookie: the namespace's number.
        netns: the namespace as it was called, a name or a path; None: the one of the command.
        mac: its hardware address; empty where it has none.
        kind: link type of a virtual device ("veth"), "" for hardware.
    """

    name: str
    ifindex: int
    netns_cookie: int
    netns: str | None
    mac: bytes
    kind: str

    def __post_init__(self) -> None:
        if len(self.mac) > MAX_MAC:
            raise UsageError(
                f"describe interface {self.name!r}",
                cause=f"a hardware address has at most {MAX_MAC} bytes, not {len(self.mac)}",
            )

    @property
    def place(self) -> tuple[int, int]:
        """Where it is, or was: namespace and index."""
        return self.netns_cookie, self.ifindex

    def may_be(self, *, netns_cookie: int, ifindex: int, name: str, mac: bytes | None) -> bool:
        """Whether an interface that is there now is this one, and not one that got its index.

        It is in the same place, and has the name or the address that it had. Addresses of zeros
        tell nothing: tunnels have none, and loopback devices all the same one.

        Args:
            netns_cookie: the interface's namespace.
            ifindex: its index there.
            name: its name.
            mac: its hardware address; None where it is not known.
        """
        if (netns_cookie, ifindex) != self.place:
            return False
        return name == self.name or (mac is not None and mac == self.mac and any(mac))


@dataclass(frozen=True, slots=True)
class Preparation:
    """What was done to an interface for a port, to be undone when the port is removed.

    Attributes:
        what: which of :data:`PREPARATIONS`.
        on: the interface that it was done to, usually the peer of the port's.
        before: how it was before, in the words of who did it.
    """

    what: PreparedBy
    on: Identity
    before: str

    def __post_init__(self) -> None:
        if self.what not in PREPARATIONS:
            raise UsageError(
                f"prepare {self.on.name!r} by {self.what!r}",
                cause=f"it is one of {', '.join(PREPARATIONS)}",
            )


@dataclass(frozen=True, slots=True)
class Port:
    """A port: a number that stays, and the interface that has it.

    Attributes:
        number: from 0 on, below the table's size.
        name: unique in the table.
        interface: None when it was removed, with number and name kept for it.
        egress: name of the program that runs on what is sent out of the port, None without.
        prepared: what was done so that it can be sent to.
        prepare: what may be done for that, also when the interface comes back.
        home: the interface as it was when it was last where it belongs: in the network namespace
            where it was added. None while it is there. Of a port that was removed, the interface
            that its number is kept for.
    """

    number: int
    name: str
    interface: Identity | None
    egress: str | None = None
    prepared: tuple[Preparation, ...] = ()
    prepare: Wish = ""
    home: Identity | None = None

    def __post_init__(self) -> None:
        what = f"number a port {self.number}"
        if not 0 <= self.number < MAX_SIZE:
            raise UsageError(what, cause=f"a port has a number from 0 to {MAX_SIZE - 1}")
        check_port_name(self.name, f"name port {self.number} {self.name!r}")
        if self.prepare not in WISHES:
            raise UsageError(
                f"prepare port {self.number} by {self.prepare!r}",
                cause=f"it is one of {', '.join(filter(None, WISHES))}, or nothing",
            )


@dataclass(frozen=True, slots=True)
class PortSet:
    """Some of a table's ports, under a name."""

    name: str
    ports: frozenset[int]

    def __post_init__(self) -> None:
        check_name(self.name, f"name a set of ports {self.name!r}")


@dataclass(frozen=True, slots=True)
class Table:
    """A port table.

    Attributes:
        name: its name.
        size: how many ports it has room for; it stays as it was created.
        ports: by number. sets: by name.
        owner: whether it is one process's, and of no use when that ends.
        xdpkit: the version that wrote it; "" for one that was not written yet.
        unknown: a later version wrote what this one does not know: it can be shown, not changed.
    """

    name: str
    size: int
    ports: tuple[Port, ...] = ()
    sets: tuple[PortSet, ...] = ()
    owner: bool = False
    xdpkit: str = ""
    unknown: bool = False

    def __post_init__(self) -> None:
        what = f"make port table {self.name!r}"
        check_name(self.name, what)
        check_size(self.size, what)
        _check_ports(self, what)
        _check_sets(self, what)


def check_name(name: object, what: str) -> None:
    """Check the name of a table or a set, which is part of names in the kernel.

    Raises:
        UsageError: it cannot be one.
    """
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise UsageError(
            what,
            cause="such a name is 1 to 32 of A-Z, a-z, 0-9, _ and -, and begins with a letter",
        )


def check_port_name(name: str, what: str) -> None:
    """Check the name of a port.

    Raises:
        UsageError: it cannot be one.
    """
    if not isinstance(name, str):
        raise UsageError(what, cause=f"a port's name is a text, not {name!r}")
    if not 0 < len(name) <= _PORT_NAME_LENGTH:
        raise UsageError(what, cause=f"a port's name has 1 to {_PORT_NAME_LENGTH} characters")
    if not name.isprintable() or "/" in name or any(char.isspace() for char in name):
        raise UsageError(
            what, cause="a port's name is printable, and has neither white space nor a slash"
        )
    if name.isdigit():
        raise UsageError(what, cause="a port's name is not a number, which would be another port's")


def check_size(size: int, what: str) -> None:
    """Check how many ports a table is to have room for.

    Raises:
        UsageError: it cannot be so many.
    """
    if not is_number(size) or not 0 < size <= MAX_SIZE:
        raise UsageError(what, cause=f"a table has room for 1 to {MAX_SIZE} ports, not {size!r}")


def is_number(value: object) -> bool:
    """Whether a value is an int; True and False are none that anybody counts with."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_ports(table: Table, what: str) -> None:
    numbers = [port.number for port in table.ports]
    if any(first >= second for first, second in pairwise(numbers)):
        raise UsageError(what, cause="each number is one port's, and the ports are in order")
    if numbers and numbers[-1] >= table.size:
        raise UsageError(
            what,
            cause=f"it has room for {table.size} ports, from number 0 to {table.size - 1}, and"
            f" {numbers[-1]} is none of them",
        )
    names: set[str] = set()
    for port in table.ports:
        if port.name in names:
            raise UsageError(what, cause=f"two ports are called {port.name}")
        names.add(port.name)


def _check_sets(table: Table, what: str) -> None:
    names = [each.name for each in table.sets]
    if any(first >= second for first, second in pairwise(names)):
        raise UsageError(what, cause="each set has a name of its own, and they are in order")
    numbers = {port.number for port in table.ports}
    for each in table.sets:
        strangers = sorted(each.ports - numbers)
        if strangers:
            raise UsageError(
                what, cause=f"set {each.name} has number {strangers[0]}, which is no port's"
            )
