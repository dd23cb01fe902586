# SPDX-License-Identifier: Apache-2.0
"""A port table cannot be made to say what it cannot mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.tables.sample import HARDWARE, PEER, TABLE
from xdpkit.errors import UsageError
from xdpkit.tables.model import Identity, Port, PortSet, Preparation, Table


@pytest.mark.parametrize("name", ["lan", "L", "a-b_c9", "x" * 32])
def test_names_of_tables_and_sets_are_those_that_pins_can_have(name: str) -> None:
    assert Table(name, 1).name == PortSet(name, frozenset()).name == name


@pytest.mark.parametrize(
    "name", ["", "x" * 33, "9lan", "-lan", "_lan", "a.b", "a/b", "..", "a b", "lan\n", "län", "\0"]
)
def test_other_names_are_refused(name: str) -> None:
    rule = "such a name is 1 to 32 of A-Z, a-z, 0-9, _ and -, and begins with a letter"
    with pytest.raises(UsageError) as of_table:
        Table(name, 1)
    with pytest.raises(UsageError) as of_set:
        PortSet(name, frozenset())
    assert of_table.value.cause == of_set.value.cause == rule


@pytest.mark.parametrize("value", [None, 5, b"lan", True, 1.5, []])
def test_what_is_no_text_is_no_name(value: Any) -> None:
    with pytest.raises(UsageError, match="such a name is 1 to 32 of"):
        Table(value, 1)
    with pytest.raises(UsageError, match="a port's name is a text, not"):
        Port(0, value, None)


@pytest.mark.parametrize("size", [None, "64", True, 1.5])
def test_what_is_no_number_is_no_size(size: Any) -> None:
    with pytest.raises(UsageError, match=f"room for 1 to 1024 ports, not {size!r}"):
        Table("lan", size)


def test_how_a_port_is_to_be_prepared_is_known() -> None:
    with pytest.raises(UsageError, match="it is one of any, gro, program, or nothing"):
        Port(0, "eth0", None, prepare="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["eth0", "a.100", "Küche", "x" * 32, "1a", "-1", "eth0:1"])
def test_ports_are_called_almost_anything(name: str) -> None:
    assert Port(0, name, None).name == name


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("", "a port's name has 1 to 32 characters"),
        ("x" * 33, "a port's name has 1 to 32 characters"),
        ("a b", "is printable, and has neither white space nor a slash"),
        ("a\u00a0b", "is printable, and has neither white space nor a slash"),
        ("a/b", "is printable, and has neither white space nor a slash"),
        ("a\x1b[2J", "is printable, and has neither white space nor a slash"),
        ("a\udcff", "is printable, and has neither white space nor a slash"),
        ("17", "is not a number, which would be another port's"),
        ("٣", "is not a number, which would be another port's"),
    ],
)
def test_a_port_is_not_called_what_cannot_be_typed_or_told_apart(name: str, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        Port(0, name, None)


@pytest.mark.parametrize("number", [-1, 1024, 1 << 40])
def test_a_port_has_a_number_that_a_table_can_have(number: int) -> None:
    with pytest.raises(UsageError, match="a port has a number from 0 to 1023"):
        Port(number, "eth0", None)


@pytest.mark.parametrize("size", [0, -1, 1025])
def test_a_table_has_a_size_that_a_broadcast_can_walk(size: int) -> None:
    with pytest.raises(UsageError, match=f"room for 1 to 1024 ports, not {size}"):
        Table("lan", size)


def test_ports_have_room_in_their_table() -> None:
    assert Table("lan", 1024, (Port(1023, "last", None),)).ports
    with pytest.raises(UsageError, match="from number 0 to 3, and 4 is none of them"):
        Table("lan", 4, (Port(4, "last", None),))


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1)])
def test_ports_have_numbers_of_their_own_in_order(numbers: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="each number is one port's, and the ports are in order"):
        Table("lan", 4, tuple(Port(number, f"p{at}", None) for at, number in enumerate(numbers)))


def test_ports_have_names_of_their_own() -> None:
    with pytest.raises(UsageError, match="two ports are called eth0"):
        Table("lan", 4, (Port(0, "eth0", None), Port(1, "eth0", HARDWARE)))


@pytest.mark.parametrize("names", [("a", "a"), ("b", "a")])
def test_sets_have_names_of_their_own_in_order(names: tuple[str, str]) -> None:
    sets = tuple(PortSet(name, frozenset()) for name in names)
    with pytest.raises(UsageError, match="each set has a name of its own, and they are in order"):
        Table("lan", 4, sets=sets)


def test_sets_are_of_ports_that_there_are() -> None:
    with pytest.raises(UsageError, match="set guests has number 7, which is no port's"):
        replace(TABLE, sets=(PortSet("guests", frozenset({3, 7})),))


def test_what_is_prepared_is_known() -> None:
    with pytest.raises(UsageError, match="it is one of gro, tx-checksum, program"):
        Preparation("magic", PEER, "")  # type: ignore[arg-type]


def test_a_hardware_address_is_no_longer_than_the_kernels() -> None:
    with pytest.raises(UsageError, match="a hardware address has at most 32 bytes, not 33"):
        Identity("ib0", 2, 1, None, bytes(33), "")
