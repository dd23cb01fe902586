# SPDX-License-Identifier: Apache-2.0
"""What it takes to make a table's maps say what its record says, with the interfaces of now. Pure.

The order of the steps is one in which a command may be killed anywhere:

1. what must not stay in a map goes, and what would be mistaken for what is to come: a full map has
   no room for what comes, otherwise;
2. the record learns what the interfaces are now;
3. the maps get what they lack. An entry that is right is not touched, and one that is wrong is
   exchanged in one step: no frame of another port is lost, nor one that this port still can send.

Whatever was not done is still to be done when the next plan is made.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from xdpkit.ports.recognising import home_of, is_made_anew
from xdpkit.tables.model import Identity, Port, Table

NO_PORT = 0xFFFFFFFF
"""In the place of a port's number: of several, none (``XDPKIT_NO_PORT``)."""


Target = tuple[int, int]
"""What a devmap has for a port: the interface's index, and the egress program's id or 0."""


class Event(enum.Enum):
    """What happened to a port."""

    GONE = "gone"
    RETURNED = "returned"
    MOVED = "moved"
    RENAMED = "renamed"
    RESTORED = "restored"
    AMBIGUOUS = "ambiguous"
    PREPARED = "prepared"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a port, and was followed.

    Attributes:
        table: the table. number, port: its number and name there; None: it is about the table.
        event: what it was.
        text: the same as a sentence.
    """

    table: str
    number: int | None
    port: str | None
    event: Event
    text: str

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "table": self.table,
            "number": self.number,
            "port": self.port,
            "event": self.event.value,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is.

    Attributes:
        table: the record.
        interfaces: the ports' interfaces as they are now, by number, as far as they are there.
        held: ports whose interface is where nobody can look, but is there: the kernel takes the
            entry of one that goes out of the map.
        ports: the entries of the table's map. sets: those of its sets' maps.
        numbers: the ports' numbers by interface index.
        egress: ids of the pinned egress programs, by port number.
    """

    table: Table
    interfaces: Mapping[int, Identity]
    held: frozenset[int]
    ports: Mapping[int, Target]
    numbers: Mapping[int, int]
    sets: Mapping[str, Mapping[int, Target]]
    egress: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a port's entry from a set's map, or from the table's if it is of no set."""

    number: int
    set: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Write the record."""

    table: Table


@dataclass(frozen=True, slots=True)
class Number:
    """Say which port an interface is."""

    ifindex: int
    number: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Say of no interface any more which port it is."""

    ifindex: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set a port's entry in a set's map, or in the table's if it is of no set.

    Attributes:
        interface: which one, and in which namespace its index counts.
        egress: whether the port's egress program goes with it.
    """

    number: int
    interface: Identity
    egress: bool
    set: str | None = None


Step = Drop | Write | Number | Forget | Put


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in this order, and what has happened that makes it necessary."""

    steps: tuple[Step, ...]
    changes: tuple[Change, ...]


def plan(now: Situation) -> Plan:
    """Return what makes the maps equal to the record, and the record to the interfaces."""
    known = {port.number: port.interface for port in now.table.ports if port.interface is not None}
    planning = _Planning(now, known)
    return Plan(tuple(planning.steps()), tuple(planning.changes()))


class _Planning:
    """What there is, and what is to be.

    Attributes:
        ports: by number.
        known: the ports' interfaces as the record has them. there: as they are now.
        targets: what is to be in the maps for the ports that can be in them.
        numbers: which port is to be found for which index.
    """

    def __init__(self, now: Situation, known: Mapping[int, Identity]) -> None:
        self.now = now
        self.known = known
        self.ports = {port.number: port for port in now.table.ports}
        self.there = {
            number: _as_called(known[number], now.interfaces[number])
            for number in known
            if number in now.interfaces
        }
        self.targets = {
            number: (interface.ifindex, self._egress(number))
            for number, interface in self.there.items()
            if self._has_its_program(number)
        }
        self.numbers = self._numbers()

    def _has_its_program(self, number: int) -> bool:
        # Frames that pass the program by are worse than frames that are not sent.
        return self.ports[number].egress is None or number in self.now.egress

    def _egress(self, number: int) -> int:
        return self.now.egress[number] if self.ports[number].egress is not None else 0

    def _numbers(self) -> dict[int, int]:
        indexes = {number: each.ifindex for number, each in self.there.items()}
        indexes |= {number: self.known[number].ifindex for number in self.now.held}
        uses = Counter(indexes.values())
        return {
            ifindex: number if uses[ifindex] == 1 else NO_PORT
            for number, ifindex in sorted(indexes.items())
        }

    def steps(self) -> Iterator[Step]:
        now = self.now
        maps: list[tuple[str | None, Mapping[int, Target], Collection[int]]] = [
            (None, now.ports, self.known.keys())
        ]
        maps += [
            (each.name, now.sets[each.name], each.ports)
            for each in now.table.sets
            if each.name in now.sets
        ]
        for name, entries, members in maps:
            yield from (
                Drop(number, name) for number in entries if not self._may_stay(number, members)
            )
        yield from (Forget(ifindex) for ifindex in now.numbers if ifindex not in self.numbers)
        table = self._table()
        if table != now.table:
            yield Write(table)
        for ifindex, wanted in self.numbers.items():
            if now.numbers.get(ifindex) != wanted:
                yield Number(ifindex, wanted)
        for name, entries, members in maps:
            for number in sorted(self.targets.keys() & set(members)):
                if entries.get(number) != self.targets[number] or self._was_elsewhere(number):
                    has_program = self.ports[number].egress is not None
                    yield Put(number, self.there[number], has_program, name)

    def _may_stay(self, number: int, members: Collection[int]) -> bool:
        if number not in members:
            return False
        if number in self.now.held:
            return True
        # An index of another namespace may be the same number, and would then look right.
        return number in self.targets and not self._was_elsewhere(number)

    def _was_elsewhere(self, number: int) -> bool:
        return self.known[number].netns_cookie != self.there[number].netns_cookie

    def _table(self) -> Table:
        ports = tuple(map(self._port, self.now.table.ports))
        return (
            self.now.table
            if ports == self.now.table.ports
            else replace(self.now.table, ports=ports)
        )

    def _port(self, port: Port) -> Port:
        now = self.there.get(port.number)
        if now is None or now == port.interface:
            return port
        return replace(port, interface=now, home=home_of(self.known[port.number], port.home, now))

    def changes(self) -> Iterator[Change]:
        for number, before in self.known.items():
            if number in self.there:
                yield from self._changes_of(number, before, self.there[number])
            elif number not in self.now.held and self._was_there(number, before):
                yield self._change(number, Event.GONE, f"{before.name} is gone")

    def _was_there(self, number: int, before: Identity) -> bool:
        """Whether the maps had it until now: so it is told once that it is gone."""
        said, wanted = self.now.numbers.get(before.ifindex), self.numbers.get(before.ifindex)
        return number in self.now.ports or said == number or (said == NO_PORT and said != wanted)

    def _changes_of(self, number: int, before: Identity, after: Identity) -> Iterator[Change]:
        entry, target = self.now.ports.get(number), self.targets.get(number)
        name = after.name
        if name != before.name:
            yield self._change(number, Event.RENAMED, f"{before.name} is called {name} now")
        if after.netns_cookie != before.netns_cookie and not is_made_anew(before, after):
            where = "the namespace of this command" if after.netns is None else after.netns
            text = f"{name} is in another network namespace now: {where}, interface {after.ifindex}"
            yield self._change(number, Event.MOVED, text)
        elif target is None:
            text = (
                f"its egress program {self.ports[number].egress} is not there any more, and without"
                f" it nothing is sent out of {name}: remove the port, and add it again"
            )
            yield self._change(number, Event.REFUSED, text)
        elif entry is None or after.ifindex != before.ifindex:
            text = f"{name} is there again, as interface {after.ifindex}"
            yield self._change(number, Event.RETURNED, text)
        elif entry != target:
            text = f"what the kernel had for {name} was something else; it is right again"
            yield self._change(number, Event.RESTORED, text)
        is_ambiguous = self.numbers[after.ifindex] == NO_PORT
        if is_ambiguous and self.now.numbers.get(after.ifindex) != NO_PORT:
            text = (
                f"{name} has index {after.ifindex}, and so has another port's interface in another"
                " network namespace: programs that look ports up by index see no port for either"
            )
            yield self._change(number, Event.AMBIGUOUS, text)

    def _change(self, number: int, event: Event, text: str) -> Change:
        return changed(self.now.table, self.ports[number], event, text)


def changed(table: Table, port: Port, event: Event, text: str) -> Change:
    """Return what happened to a port; ``text`` goes on after "port 2 (eth1) of lan: "."""
    sentence = f"port {port.number} ({port.name}) of {table.name}: {text}"
    return Change(table.name, port.number, port.name, event, sentence)


def _as_called(before: Identity, now: Identity) -> Identity:
    """Return an interface as it is now, in the namespace as it was called by whoever added it."""
    is_same = before.netns_cookie == now.netns_cookie
    return replace(now, netns=before.netns) if is_same and before.netns != now.netns else now
