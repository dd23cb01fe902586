# SPDX-License-Identifier: Apache-2.0
"""How a record is laid out in bytes. Pure; docs/records.md has it for other languages.

Two rules make old and new versions get along. Fields are only ever appended, and zero in one means
what its absence meant. And what a version does not know it carries along: the size that the
structure was written with, and documents that an edit does not touch.
"""

from __future__ import annotations

import functools
import json
import sys
from array import array
from collections.abc import Mapping
from ctypes import Structure, c_uint32, c_uint64
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.record import Origin, PortOf, Record, StoredRecord
from xdpkit.hook.settings import KNOWN_COUNTING, Counting
from xdpkit.uapi import sized
from xdpkit.uapi.sized import HEAD, Part

if TYPE_CHECKING:
    from xdpkit.negotiation import Negotiation

RECORD_MAGIC = int.from_bytes(b"xdpR", sys.byteorder)
"""What a record begins with."""

MAX_NEGOTIATION = 256 << 10
"""Bytes; of a longer negotiation only the first places that need something are kept."""

_T = TypeVar("_T")
_KIND = "record"
_PLACES_KEPT = 8
_HAS_PORT_INDEX = 1 << 0
_NO_PORT = PortOf("")
_VIA = {Via.LINK: 1, Via.NETLINK: 2}
_MODES = {int(mode.flag): mode for mode in Mode}
_VIAS = {number: via for via, number in _VIA.items()}


class Layout(Structure):
    """The fields of a record, as far as this version knows them."""

    _fields_ = [
        *HEAD,
        ("generation", c_uint64),
        ("netns_cookie", c_uint64),
        ("cookie", c_uint64),
        ("attached_at", c_uint64),
        ("revert_at", c_uint64),
        ("ifindex", c_uint32),
        ("reverts_to", c_uint32),
        ("mode", c_uint32),
        ("via", c_uint32),
        ("flags", c_uint32),
        ("port_index", c_uint32),
        ("program", Part),
        ("interface", Part),
        ("queues", Part),
        ("origin", Part),
        ("negotiation", Part),
        ("logical_id", c_uint32),
        ("counting", c_uint32),
        ("tap", c_uint32),
        ("unused", c_uint32),
        ("port_table", Part),
        ("port_name", Part),
        ("port_table_id", c_uint32),
        ("unused_too", c_uint32),
    ]


def encode(record: Record, generation: int, previous: StoredRecord | None = None) -> bytes:
    """Return a record as bytes.

    Args:
        record: what to write.
        generation: one more than the previous one's.
        previous: the one that is edited, if any: what this version does not know of it is kept.

    Raises:
        UsageError: something in the record cannot be written down.
    """
    try:
        queues = array("I", record.queues or ())
    except OverflowError:
        raise UsageError(
            f"store queues {record.queues}", cause="a number is out of range"
        ) from None
    if record.queues == ():
        raise UsageError("store a record", cause="its program serves no queue")
    if previous is not None and record.origin == previous.record.origin:
        origin = previous.origin_data
    else:
        origin = _dumped(record.origin.to_dict())
    if previous is not None and record.negotiation == previous.record.negotiation:
        negotiation = previous.negotiation_data
    else:
        negotiation = _negotiation_data(record.negotiation)
    port = record.port or _NO_PORT
    return sized.pack(
        Layout(magic=RECORD_MAGIC),
        {
            "generation": generation,
            "netns_cookie": record.netns_cookie,
            "cookie": record.cookie,
            "attached_at": record.attached_at,
            "revert_at": record.revert_at,
            "ifindex": record.ifindex,
            "reverts_to": record.reverts_to,
            "mode": record.mode.flag,
            "via": _VIA[record.via],
            "flags": 0 if port.number is None else _HAS_PORT_INDEX,
            "port_index": port.number or 0,
            "logical_id": record.logical_id,
            "counting": record.counting,
            "tap": record.tap,
            "unused": 0,
            "port_table_id": port.table_id,
            "unused_too": 0,
        },
        {
            "program": sized.text(record.program, "the program name"),
            "interface": sized.text(record.interface, "the interface name"),
            "queues": queues.tobytes(),
            "origin": origin,
            "negotiation": negotiation,
            "port_table": sized.text(port.table, "the name of the port table"),
            "port_name": sized.text(port.name, "the name of the port"),
        },
        b"" if previous is None else previous.tail,
    )


def decode(data: bytes) -> StoredRecord:
    """Return the record that bytes hold; where they are kept is for the caller to fill in.

    Raises:
        ObjectFormatError: they hold none, or one that a later version wrote so that this one
            cannot even show it.
    """
    found = sized.unpack(_KIND, RECORD_MAGIC, Layout, data)
    fields = found.fields
    queues = array("I", found.part("queues", unit=4))
    origin, negotiation = found.part("origin"), found.part("negotiation")
    # Of a later version, a flag can mean what a field does.
    unknown = (
        any(found.tail)
        or bool(fields.flags & ~_HAS_PORT_INDEX)
        or bool(fields.counting & ~KNOWN_COUNTING)
        or bool(fields.unused or fields.unused_too)
    )
    try:
        record = Record(
            program=found.text("program"),
            interface=found.text("interface"),
            ifindex=fields.ifindex,
            netns_cookie=fields.netns_cookie,
            mode=_known(_MODES, fields.mode, "mode"),
            via=_known(_VIAS, fields.via, "way of attaching"),
            queues=tuple(queues) or None,
            port=_port(found),
            cookie=fields.cookie,
            attached_at=fields.attached_at,
            revert_at=fields.revert_at,
            reverts_to=fields.reverts_to,
            origin=Origin.from_dict(_loaded(origin, "origin")),
            negotiation=_negotiation_in(negotiation) if negotiation else None,
            logical_id=fields.logical_id,
            counting=Counting(fields.counting & KNOWN_COUNTING),
            tap=fields.tap,
        )
    except UsageError as error:
        raise ObjectFormatError(f"{error.what}: {error.cause}", file=_KIND) from None
    except RecursionError:
        raise ObjectFormatError("it is nested too deeply", file=_KIND) from None
    return StoredRecord(
        record=record,
        generation=fields.generation,
        size=fields.size,
        unknown=unknown,
        tail=found.tail,
        origin_data=origin,
        negotiation_data=negotiation,
    )


def generation_of(data: bytes) -> int | None:
    """Return the generation of an undamaged record, None if it is none."""
    try:
        return int(sized.unpack(_KIND, RECORD_MAGIC, Layout, data).fields.generation)
    except ObjectFormatError:
        return None


def _port(found: sized.Unpacked[Layout]) -> PortOf | None:
    fields = found.fields
    number = int(fields.port_index) if fields.flags & _HAS_PORT_INDEX else None
    port = PortOf(
        found.text("port_table"), number, found.text("port_name"), int(fields.port_table_id)
    )
    return None if port == _NO_PORT else port


def _known(table: Mapping[int, _T], number: int, word: str) -> _T:
    if number not in table:
        raise ObjectFormatError(f"{word} {number} is not known", file=_KIND)
    return table[number]


# One program has often the same record on many queues, and is looked at several times in a change.
@functools.lru_cache(maxsize=64)
def _negotiation_in(data: bytes) -> Negotiation:
    from xdpkit.negotiation import Negotiation

    return Negotiation.from_dict(_loaded(data, "negotiation"))


def _negotiation_data(negotiation: Negotiation | None) -> bytes:
    if negotiation is None:
        return b""
    data = _dumped(negotiation.to_dict())
    if len(data) <= MAX_NEGOTIATION:
        return data
    # A large program can have thousands of places, and nobody reads more than the first few.
    shorter = [
        replace(
            verdict,
            requirement=replace(
                verdict.requirement, origins=verdict.requirement.origins[:_PLACES_KEPT]
            ),
        )
        for verdict in negotiation.verdicts
    ]
    return _dumped(replace(negotiation, verdicts=tuple(shorter)).to_dict())


def _dumped(document: object) -> bytes:
    try:
        return json.dumps(document, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError("store a record", cause=f"JSON cannot say it: {error}") from None


def _loaded(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ObjectFormatError(f"{name} is not JSON: {error}", file=_KIND) from None
