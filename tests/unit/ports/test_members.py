# SPDX-License-Identifier: Apache-2.0
"""The number and the name that an interface gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xdpkit.errors import UsageError
from xdpkit.ports import members
from xdpkit.tables.model import Identity, Port, PortSet, Table

ETH1 = Identity("eth1", 5, 1, None, b"", "veth")
TABLE = Table(
    "lan",
    4,
    (Port(0, "eth1", ETH1), Port(1, "old", None), Port(3, "wan", ETH1)),
    (PortSet("some", frozenset({0, 3})),),
)
WHAT = "add it"


def choose(interface: str, number: int | None = None, name: str | None = None) -> tuple[int, str]:
    return members.choose(TABLE, interface, number=number, name=name, what=WHAT)


def test_a_new_port_gets_the_lowest_free_number_and_its_interfaces_name() -> None:
    assert choose("eth9") == (2, "eth9")


def test_number_and_name_can_be_chosen() -> None:
    assert choose("eth9", 2, "guest") == (2, "guest")


def test_a_number_that_is_kept_is_that_of_the_same_name_again() -> None:
    assert choose("old") == (1, "old")
    assert choose("eth9", name="old") == (1, "old")
    assert choose("old", 1) == (1, "old")


@pytest.mark.parametrize(
    ("number", "name", "cause"),
    [
        (0, None, "port 0 of lan is eth1 already"),
        (None, "wan", "port 3 of lan is called wan already"),
        (1, None, "number 1 of lan is kept for port old"),
        (2, "old", "number 1 of lan is kept for port old"),
        (4, None, "lan has the numbers from 0 to 3"),
        (-1, None, "lan has the numbers from 0 to 3"),
        (True, None, "lan has the numbers from 0 to 3"),
        ("1", None, "lan has the numbers from 0 to 3"),
        (1.0, None, "lan has the numbers from 0 to 3"),
        (None, b"eth1", "a port's name is a text, not b'eth1'"),
        (None, "7", "a port's name is not a number, which would be another port's"),
        (None, "a b", "a port's name is printable, and has neither white space nor a slash"),
    ],
)
def test_what_is_taken_or_impossible_is_refused(number: Any, name: Any, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose("eth9", number, name)
    assert (caught.value.what, caught.value.cause) == (WHAT, cause)


def test_what_is_kept_can_be_freed_and_the_refusal_says_how() -> None:
    with pytest.raises(UsageError) as caught:
        choose("eth9", 1)
    assert caught.value.remedy == "free it first: xdpkit ports remove lan old --free"


def test_a_full_table_says_what_it_keeps_numbers_for() -> None:
    full = members.with_port(TABLE, Port(2, "eth2", ETH1))
    with pytest.raises(UsageError) as caught:
        members.choose(full, "eth9", number=None, name=None, what=WHAT)
    assert caught.value.cause == "lan has room for 4 ports, and has them"
    assert caught.value.remedy == "free a number that is kept: xdpkit ports remove lan old --free"


@pytest.mark.parametrize("port", [3, "3", "wan"])
def test_a_port_is_found_by_number_and_name(port: int | str) -> None:
    assert members.find(TABLE, port, WHAT).name == "wan"


@pytest.mark.parametrize("port", [2, "2", "eth9", "", True, None, b"wan", 3.0, -1, []])
def test_what_is_no_port_is_refused(port: Any) -> None:
    with pytest.raises(UsageError) as caught:
        members.find(TABLE, port, WHAT)
    assert caught.value.cause == f"table lan has no port {port}"
    assert caught.value.remedy == "see which it has: xdpkit ports show lan"


def test_a_port_is_not_found_by_what_only_reads_like_its_name() -> None:
    odd = replace(TABLE, ports=(Port(0, "-1", ETH1), Port(1, "None", None)), sets=())
    assert members.find(odd, "-1", WHAT).number == 0
    for port in (-1, None):
        with pytest.raises(UsageError):
            members.find(odd, port, WHAT)  # type: ignore[arg-type]


def test_ports_are_found_each_as_it_was_given() -> None:
    assert [port.number for port in members.all_of(TABLE, ("wan", 0), WHAT)] == [3, 0]


@pytest.mark.parametrize("ports", ["0", b"0", None, 5])
def test_what_is_no_list_of_ports_is_refused(ports: Any) -> None:
    with pytest.raises(UsageError, match="give a list of ports, by number or name, not"):
        members.all_of(TABLE, ports, WHAT)


def test_a_number_that_is_freed_leaves_the_sets() -> None:
    freed = members.without_port(TABLE, 3)
    assert [port.number for port in freed.ports] == [0, 1]
    assert freed.sets == (PortSet("some", frozenset({0})),)


def test_sets_are_kept_in_order_and_replaced_by_name() -> None:
    more = members.with_set(TABLE, "all", (0, 3))
    assert [each.name for each in more.sets] == ["all", "some"]
    assert members.with_set(more, "all", (0,)).sets[0].ports == {0}
    assert members.without_set(more, "all") == TABLE
