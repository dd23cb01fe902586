# SPDX-License-Identifier: Apache-2.0
"""How a port table is laid out in bytes. Pure.

The rules are those of :mod:`xdpkit.uapi.sized`, and hold for the elements of its lists, too: the
head says how large the writer knew an element, and what it appended has to be zero for a reader
that does not know it. All text is in one part, and what refers to it says offset and size there.
Ports are in the order of their numbers, preparations in that in which they were made.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from ctypes import Structure, c_uint8, c_uint32, c_uint64, sizeof
from typing import TypeVar

from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.tables.model import (
    MAX_MAC,
    WISHES,
    Identity,
    Port,
    PortSet,
    Preparation,
    PreparedBy,
    Table,
    Wish,
)
from xdpkit.uapi import sized
from xdpkit.uapi.sized import HEAD, Part, Unpacked

TABLE_MAGIC = int.from_bytes(b"xdpT", sys.byteorder)
"""What a table begins with."""

_KIND = "port table"
_OWNED = 1 << 0
_HAS_NETNS = 1 << 0
_HAS_INTERFACE = 1 << 0
_HAS_EGRESS = 1 << 1
_PREPARED: dict[int, PreparedBy] = {1: "gro", 2: "tx-checksum", 3: "program", 4: "tx-vlan"}
_WISHES: dict[int, Wish] = dict(enumerate(WISHES))
_WISH_NUMBERS = {word: number for number, word in _WISHES.items()}
_PREPARED_NUMBERS = {word: number for number, word in _PREPARED.items()}


class Layout(Structure):
    """The fields of a table, as far as this version knows them."""

    _fields_ = [
        *HEAD,
        ("flags", c_uint32),
        ("room", c_uint32),
        ("port_size", c_uint32),
        ("set_size", c_uint32),
        ("preparation_size", c_uint32),
        ("unused", c_uint32),
        ("name", Part),
        ("xdpkit", Part),
        ("ports", Part),
        ("sets", Part),
        ("members", Part),
        ("preparations", Part),
        ("texts", Part),
        ("home_size", c_uint32),
        ("unused_too", c_uint32),
        ("homes", Part),
    ]


class _Identity(Structure):
    """An interface; it cannot grow, being inside of others."""

    _fields_ = [
        ("netns_cookie", c_uint64),
        ("ifindex", c_uint32),
        ("flags", c_uint32),
        ("name", Part),
        ("netns", Part),
        ("kind", Part),
        ("mac_size", c_uint32),
        ("unused", c_uint32),
        ("mac", c_uint8 * MAX_MAC),
    ]


class _Port(Structure):
    _fields_ = [
        ("number", c_uint32),
        ("flags", c_uint32),
        ("name", Part),
        ("egress", Part),
        ("interface", _Identity),
        ("prepare", c_uint32),
        ("unused", c_uint32),
    ]


class _Home(Structure):
    """Where a port's interface belongs, of the ports where that is written down."""

    _fields_ = [("port", c_uint32), ("unused", c_uint32), ("interface", _Identity)]


class _Set(Structure):
    """Its members are where the part says in the list of members, counted in numbers."""

    _fields_ = [("name", Part), ("members", Part)]


class _Preparation(Structure):
    _fields_ = [
        ("port", c_uint32),
        ("what", c_uint32),
        ("before", Part),
        ("on", _Identity),
    ]


_Element = TypeVar("_Element", bound=Structure)


def encode(table: Table) -> bytes:
    """Return a table as bytes.

    Raises:
        UsageError: something in it cannot be written down.
    """
    texts = _Texts()
    members = array("I")
    sets = []
    for each in table.sets:
        sets.append(_Set(texts.add(each.name, "the name"), Part(len(members), len(each.ports))))
        members.extend(sorted(each.ports))
    ports = [_port(port, texts) for port in table.ports]
    preparations = [
        _Preparation(
            port=port.number,
            what=_PREPARED_NUMBERS[each.what],
            before=texts.add(each.before, "what was before"),
            on=_identity(each.on, texts),
        )
        for port in table.ports
        for each in port.prepared
    ]
    homes = [
        _Home(port=port.number, interface=_identity(port.home, texts))
        for port in table.ports
        if port.home is not None
    ]
    return sized.pack(
        Layout(
            magic=TABLE_MAGIC,
            flags=_OWNED if table.owner else 0,
            room=table.size,
            port_size=sizeof(_Port),
            set_size=sizeof(_Set),
            preparation_size=sizeof(_Preparation),
            home_size=sizeof(_Home),
        ),
        {},
        {
            "name": table.name.encode(),
            "xdpkit": sized.text(table.xdpkit, "the version"),
            "ports": b"".join(map(bytes, ports)),
            "sets": b"".join(map(bytes, sets)),
            "members": members.tobytes(),
            "preparations": b"".join(map(bytes, preparations)),
            "texts": bytes(texts.data),
            "homes": b"".join(map(bytes, homes)),
        },
        b"",
    )


def decode(data: bytes) -> Table:
    """Return the table that was written as these bytes; more bytes may follow.

    Raises:
        ObjectFormatError: it is none, or it is damaged.
    """
    found = sized.unpack(_KIND, TABLE_MAGIC, Layout, data)
    fields = found.fields
    reader = _Reader(found)
    ports = reader.elements("ports", fields.port_size, _Port)
    sets = reader.elements("sets", fields.set_size, _Set)
    preparations = reader.elements("preparations", fields.preparation_size, _Preparation)
    homes = reader.elements("homes", fields.home_size, _Home)
    reader.flags(fields.flags, _OWNED)
    reader.flags(fields.unused | fields.unused_too, 0)
    prepared: dict[int, list[Preparation]] = {}
    try:
        for each in preparations:
            # What a later version does, it also undoes.
            if each.what in _PREPARED:
                preparation = Preparation(
                    _PREPARED[each.what], reader.identity(each.on), reader.text(each.before)
                )
                prepared.setdefault(each.port, []).append(preparation)
            else:
                reader.unknown = True
        at_home = {each.port: reader.home(each) for each in homes}
        table = Table(
            name=found.text("name"),
            size=fields.room,
            ports=tuple(
                reader.port(each, prepared.get(each.number, ()), at_home.get(each.number))
                for each in ports
            ),
            sets=tuple(
                PortSet(reader.text(each.name), reader.members(each.members)) for each in sets
            ),
            owner=bool(fields.flags & _OWNED),
            xdpkit=found.text("xdpkit"),
            unknown=reader.unknown or any(found.tail),
        )
    except UsageError as error:
        raise ObjectFormatError(f"{error.what}: {error.cause}", file=_KIND) from None
    for numbers, fault in ((prepared, "something was prepared"), (at_home, "a place is kept")):
        strangers = numbers.keys() - {port.number for port in table.ports}
        if strangers:
            raise ObjectFormatError(f"{fault} for no port: {min(strangers)}", file=_KIND)
    return table


class _Texts:
    """All texts of a table end to end, each once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[str, Part] = {}

    def add(self, value: str, name: str) -> Part:
        if value not in self._places:
            data = sized.text(value, name)
            self._places[value] = Part(len(self.data), len(data))
            self.data += data
        return self._places[value]


def _port(port: Port, texts: _Texts) -> _Port:
    fields = _Port(number=port.number, name=texts.add(port.name, "the port's name"))
    if port.interface is not None:
        fields.flags |= _HAS_INTERFACE
        fields.interface = _identity(port.interface, texts)
    if port.egress is not None:
        fields.flags |= _HAS_EGRESS
        fields.egress = texts.add(port.egress, "the egress program's name")
    fields.prepare = _WISH_NUMBERS[port.prepare]
    return fields


def _identity(identity: Identity, texts: _Texts) -> _Identity:
    fields = _Identity(
        netns_cookie=identity.netns_cookie,
        ifindex=identity.ifindex,
        name=texts.add(identity.name, "the interface's name"),
        kind=texts.add(identity.kind, "the interface's kind"),
        mac_size=len(identity.mac),
    )
    # ctypes would cut them off.
    if (fields.netns_cookie, fields.ifindex) != identity.place:
        raise UsageError(
            f"store interface {identity.name!r}", cause=f"{identity.place} is out of range"
        )
    fields.mac[: len(identity.mac)] = identity.mac
    if identity.netns is not None:
        fields.flags |= _HAS_NETNS
        fields.netns = texts.add(identity.netns, "the namespace's name")
    return fields


class _Reader:
    """Turns fields into values.

    Attributes:
        unknown: whether there was anything that this version does not know.
    """

    def __init__(self, found: Unpacked[Layout]) -> None:
        self.unknown = False
        self._found = found
        self._texts = found.part("texts")
        self._members = array("I", found.part("members", unit=4))

    def elements(self, name: str, size: int, layout: type[_Element]) -> list[_Element]:
        """Return the elements of a list."""
        data = self._found.part(name, unit=size or 1)
        if data and not size:
            raise ObjectFormatError(f"{name} has elements without a size", file=_KIND)
        known = sizeof(layout)
        elements = []
        for at in range(0, len(data), size or 1):
            element = data[at : at + size]
            self.unknown |= any(element[known:])
            elements.append(layout.from_buffer_copy(element[:known].ljust(known, b"\0")))
        return elements

    def flags(self, flags: int, known: int) -> None:
        """See whether all flags are known."""
        self.unknown |= bool(flags & ~known)

    def text(self, where: Part) -> str:
        return _within(self._texts, where, "a text").decode("utf-8", "surrogateescape")

    def members(self, where: Part) -> frozenset[int]:
        return frozenset(_within(self._members, where, "a set"))

    def port(self, fields: _Port, prepared: Iterable[Preparation], home: Identity | None) -> Port:
        self.flags(fields.flags, _HAS_INTERFACE | _HAS_EGRESS)
        self.flags(fields.unused, 0)
        self.unknown |= fields.prepare not in _WISHES
        return Port(
            number=fields.number,
            name=self.text(fields.name),
            interface=self.identity(fields.interface) if fields.flags & _HAS_INTERFACE else None,
            egress=self.text(fields.egress) if fields.flags & _HAS_EGRESS else None,
            prepared=tuple(prepared),
            prepare=_WISHES.get(fields.prepare, ""),
            home=home,
        )

    def home(self, fields: _Home) -> Identity:
        self.flags(fields.unused, 0)
        return self.identity(fields.interface)

    def identity(self, fields: _Identity) -> Identity:
        self.flags(fields.flags, _HAS_NETNS)
        self.flags(fields.unused, 0)
        if fields.mac_size > MAX_MAC:
            raise ObjectFormatError(
                f"a hardware address has {fields.mac_size} bytes, at most {MAX_MAC}", file=_KIND
            )
        return Identity(
            name=self.text(fields.name),
            ifindex=fields.ifindex,
            netns_cookie=fields.netns_cookie,
            netns=self.text(fields.netns) if fields.flags & _HAS_NETNS else None,
            mac=bytes(fields.mac[: fields.mac_size]),
            kind=self.text(fields.kind),
        )


_Items = TypeVar("_Items", bytes, "array[int]")


def _within(items: _Items, where: Part, name: str) -> _Items:
    if where.offset + where.size > len(items):
        raise ObjectFormatError(f"{name} reaches out of it", file=_KIND)
    return items[where.offset : where.offset + where.size]
