# SPDX-License-Identifier: Apache-2.0
"""A port table as bytes: read as it was written, by old and new versions, or refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import Structure, sizeof
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tables.sample import HARDWARE, IDENTITY, PARTS, PEER, TABLE, changed
from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.tables import wire
from xdpkit.tables.model import WISHES, Identity, Port, PortSet, Preparation, Table


def widened(layout: type[Structure], more: bytes) -> Callable[[bytes], bytes]:
    """Return what has a later version's fields follow those of each element."""
    size = sizeof(layout)

    def widen(data: bytes) -> bytes:
        return b"".join(data[at : at + size] + more for at in range(0, len(data), size))

    return widen


def put(at: int, number: int) -> Callable[[bytes], bytes]:
    """Return what puts a number of 32 bits at an offset."""
    return lambda data: data[:at] + struct.pack("=I", number) + data[at + 4 :]


@pytest.mark.parametrize(
    "table", [TABLE, Table("a", 1), replace(TABLE, owner=False, xdpkit="", sets=())]
)
def test_a_table_is_read_as_it_was_written(table: Table) -> None:
    assert wire.decode(wire.encode(table)) == table


def test_what_follows_a_table_is_ignored() -> None:
    assert wire.decode(wire.encode(TABLE) + bytes(100)) == TABLE


def test_a_table_of_1024_prepared_ports_takes_less_than_a_quarter_of_a_mebibyte() -> None:
    ports = tuple(
        Port(number, f"port-{number}", IDENTITY, "retag", (Preparation("gro", PEER, "off"),))
        for number in range(1024)
    )
    table = Table("lan", 1024, ports, (PortSet("all", frozenset(range(1024))),))
    data = wire.encode(table)
    assert len(data) < 1 << 18
    assert wire.decode(data) == table


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
identities = st.builds(
    Identity,
    name=texts,
    ifindex=st.integers(0, (1 << 32) - 1),
    netns_cookie=st.integers(0, (1 << 64) - 1),
    netns=st.none() | texts,
    mac=st.binary(max_size=32),
    kind=texts,
)
preparations = st.builds(
    Preparation, what=st.sampled_from(["gro", "program"]), on=identities, before=texts
)


@st.composite
def tables(draw: Any) -> Table:
    numbers = sorted(draw(st.sets(st.integers(0, 1023), max_size=5)))
    ports = tuple(
        Port(
            number,
            f"p{number}",
            draw(st.none() | identities),
            draw(st.none() | texts),
            tuple(draw(st.lists(preparations, max_size=2))),
            draw(st.sampled_from(WISHES)),
            draw(st.none() | identities),
        )
        for number in numbers
    )
    members = st.frozensets(st.sampled_from(numbers)) if numbers else st.just(frozenset())
    sets = tuple(
        PortSet(name, draw(members)) for name in sorted(draw(st.sets(st.sampled_from("abc"))))
    )
    return Table("lan", 1024, ports, sets, draw(st.booleans()), draw(texts))


@given(tables())
def test_any_table_is_read_as_it_was_written(table: Table) -> None:
    assert wire.decode(wire.encode(table)) == table


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(data: bytes) -> None:
    with pytest.raises(ObjectFormatError):
        wire.decode(data)


@given(
    part=st.sampled_from(PARTS),
    at=st.integers(0, 500),
    number=st.integers(0, 200) | st.integers(0, (1 << 32) - 1),
)
def test_any_number_in_any_part_gives_a_table_or_is_refused(
    part: str, at: int, number: int
) -> None:
    def change(data: bytes) -> bytes:
        return put(at // 4 * 4 % len(data), number)(data)[: len(data)]

    data = changed(parts={part: change})
    try:
        table = wire.decode(data)
    except ObjectFormatError:
        return
    assert wire.decode(wire.encode(replace(table, unknown=False))) == replace(table, unknown=False)


@pytest.mark.parametrize("at", range(0, len(wire.encode(TABLE)), 7))
def test_a_damaged_table_is_refused(at: int) -> None:
    data = bytearray(wire.encode(TABLE))
    data[at] ^= 1
    with pytest.raises(ObjectFormatError):
        wire.decode(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        changed(numbers={"flags": 1 << 1 | 1}),
        changed(numbers={"unused": 1}),
        changed(tail=b"\0\0\0\1"),
        changed(
            numbers={"port_size": sizeof(wire._Port) + 8},
            parts={"ports": widened(wire._Port, bytes(7) + b"\1")},
        ),
        changed(
            numbers={"set_size": sizeof(wire._Set) + 4},
            parts={"sets": widened(wire._Set, b"\1\0\0\0")},
        ),
        changed(
            numbers={"preparation_size": sizeof(wire._Preparation) + 8},
            parts={"preparations": widened(wire._Preparation, b"\1" + bytes(7))},
        ),
        changed(numbers={"unused_too": 1}),
        changed(
            numbers={"home_size": sizeof(wire._Home) + 8},
            parts={"homes": widened(wire._Home, b"\1" + bytes(7))},
        ),
        changed(parts={"homes": put(wire._Home.unused.offset, 1)}),
        changed(parts={"ports": put(wire._Port.unused.offset, 1)}),
        changed(parts={"ports": put(wire._Port.prepare.offset, 99)}),
        changed(parts={"ports": put(wire._Port.flags.offset, 1 << 2 | 1)}),
        changed(parts={"ports": put(wire._Port.interface.offset + 12, 1 << 1)}),
        changed(parts={"ports": put(wire._Port.interface.offset + 44, 1)}),
    ],
)
def test_what_a_later_version_wrote_is_shown_and_said_to_be_unknown(data: bytes) -> None:
    assert wire.decode(data) == replace(TABLE, unknown=True)


def test_what_a_later_version_prepares_is_left_to_it() -> None:
    data = changed(parts={"preparations": put(wire._Preparation.what.offset, 99)})
    (_, port, _) = wire.decode(data).ports
    assert port.prepared == TABLE.ports[1].prepared[1:]
    assert wire.decode(data).unknown


def test_a_later_versions_fields_that_are_zero_mean_nothing() -> None:
    data = changed(
        numbers={"port_size": sizeof(wire._Port) + 8},
        parts={"ports": widened(wire._Port, bytes(8))},
        tail=bytes(8),
    )
    assert wire.decode(data) == TABLE


def test_an_older_versions_shorter_elements_are_read() -> None:
    only_names = wire._Port.egress.offset

    def cut(data: bytes) -> bytes:
        size = sizeof(wire._Port)
        return b"".join(data[at : at + only_names] for at in range(0, len(data), size))

    table = Table("lan", 4, (Port(1, "one", None), Port(2, "two", None)))
    data = changed(table, numbers={"port_size": only_names}, parts={"ports": cut})
    assert wire.decode(data) == table


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (changed(numbers={"port_size": 0}), "ports has elements without a size"),
        (changed(numbers={"port_size": 100}), "ports has 336 bytes, no multiple of 100"),
        (changed(numbers={"room": 4}), "it has room for 4 ports"),
        (changed(parts={"texts": lambda _: b""}), "a text reaches out of it"),
        (changed(parts={"members": lambda _: b""}), "a set reaches out of it"),
        (changed(parts={"members": lambda data: data[1:]}), "members has 7 bytes"),
        (changed(parts={"name": lambda _: b"../x"}), "such a name is 1 to 32 of"),
        (
            changed(parts={"ports": put(wire._Port.interface.offset + 40, 33)}),
            "a hardware address has 33 bytes, at most 32",
        ),
        (
            changed(parts={"preparations": put(wire._Preparation.port.offset, 5)}),
            "something was prepared for no port: 5",
        ),
        (
            changed(parts={"homes": put(wire._Home.port.offset, 5)}),
            "a place is kept for no port: 5",
        ),
    ],
)
def test_what_no_version_writes_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(ObjectFormatError, match=cause):
        wire.decode(data)


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        (
            replace(TABLE, ports=(Port(3, "a", replace(HARDWARE, ifindex=-1)),), sets=()),
            "is out of range",
        ),
        (
            replace(TABLE, ports=(Port(3, "a", replace(HARDWARE, netns_cookie=1 << 64)),), sets=()),
            "is out of range",
        ),
        (replace(TABLE, ports=(Port(3, "a", None, "\ud800"),), sets=()), "it is no text"),
    ],
)
def test_what_cannot_be_written_down_is_refused(table: Table, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        wire.encode(table)
