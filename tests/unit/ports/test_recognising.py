# SPDX-License-Identifier: Apache-2.0
"""Which interface a port's is: by rules, and never by a guess."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from xdpkit.ports.recognising import recognise
from xdpkit.tables.model import Identity

HERE, THERE = 1, 2
MAC, OTHER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
ETH1 = Identity("eth1", 5, HERE, None, MAC, "veth")

identities = st.builds(
    Identity,
    name=st.sampled_from(("eth0", "eth1", "eth2")),
    ifindex=st.integers(1, 4),
    netns_cookie=st.sampled_from((HERE, THERE)),
    netns=st.none(),
    mac=st.sampled_from((MAC, OTHER_MAC, bytes(6), b"")),
    kind=st.just("veth"),
)
# Of a namespace at one moment: neither a name nor an index is there twice.
sights = st.lists(identities, max_size=6, unique_by=lambda each: each.place).filter(
    lambda seen: len({(each.netns_cookie, each.name) for each in seen}) == len(seen)
)
tables = st.dictionaries(st.integers(0, 3), identities, max_size=4)


def found(*seen: Identity) -> Identity | None:
    return recognise({7: ETH1}, seen).get(7)


def test_an_interface_that_is_as_it_was_is_recognised() -> None:
    assert found(ETH1) == ETH1


def test_a_renamed_interface_is_recognised_by_its_address() -> None:
    renamed = replace(ETH1, name="wan0")
    assert found(renamed) == renamed


def test_an_interface_with_another_address_is_recognised_by_its_name() -> None:
    changed = replace(ETH1, mac=OTHER_MAC)
    assert found(changed) == changed


def test_what_has_only_the_index_is_another_interface() -> None:
    assert found(replace(ETH1, name="wan0", mac=OTHER_MAC)) is None


def test_an_interface_that_was_made_anew_is_recognised_by_its_name() -> None:
    again = replace(ETH1, ifindex=12, mac=OTHER_MAC)
    assert found(again) == again


def test_an_interface_that_moved_is_recognised_by_address_and_name() -> None:
    moved = replace(ETH1, netns_cookie=THERE, ifindex=9)
    assert found(moved) == moved


def test_an_interface_that_moved_and_was_renamed_is_recognised_by_address_and_index() -> None:
    moved = replace(ETH1, netns_cookie=THERE, name="eth0")
    assert found(moved) == moved


def test_the_same_name_in_another_namespace_is_not_enough() -> None:
    assert found(replace(ETH1, netns_cookie=THERE, mac=OTHER_MAC)) is None


def test_of_two_that_could_be_it_elsewhere_neither_is_taken() -> None:
    one = replace(ETH1, netns_cookie=THERE, ifindex=9)
    other = replace(ETH1, netns_cookie=3, ifindex=9)
    assert found(one, other) is None


def test_an_address_of_zeros_says_nothing() -> None:
    loopback = replace(ETH1, mac=bytes(6))
    assert recognise({7: loopback}, [replace(loopback, netns_cookie=THERE, name="lo")]) == {}
    assert recognise({7: loopback}, [replace(loopback, name="lo")]) == {}


def test_the_place_where_it_was_comes_before_a_name_that_another_one_has_now() -> None:
    renamed = replace(ETH1, name="old1")
    namesake = replace(ETH1, ifindex=8, mac=OTHER_MAC)
    assert found(namesake, renamed) == renamed


def test_ports_whose_interfaces_have_swapped_their_names_keep_their_interfaces() -> None:
    eth2 = replace(ETH1, name="eth2", ifindex=6, mac=OTHER_MAC)
    swapped = [replace(ETH1, name="eth2"), replace(eth2, name="eth1")]
    assert recognise({1: ETH1, 2: eth2}, swapped) == {1: swapped[0], 2: swapped[1]}


def test_what_is_one_ports_interface_is_not_taken_for_another_one_of_its_name() -> None:
    eth2 = replace(ETH1, name="eth2", ifindex=6, mac=OTHER_MAC)
    renamed = replace(eth2, name="eth1")
    assert recognise({1: ETH1, 2: eth2}, [renamed]) == {2: renamed}


def test_a_name_that_two_ports_had_is_settled_by_the_address() -> None:
    other = replace(ETH1, ifindex=6, mac=OTHER_MAC)
    again = replace(ETH1, ifindex=12, mac=OTHER_MAC)
    assert recognise({1: ETH1, 2: other}, [again]) == {2: again}


@given(tables, sights)
def test_an_interface_is_at_most_one_ports(
    known: dict[int, Identity], seen: list[Identity]
) -> None:
    result = recognise(known, seen)
    assert result.keys() <= known.keys()
    assert len({each.place for each in result.values()}) == len(result)
    assert set(result.values()) <= set(seen)


@given(tables, sights)
def test_the_order_in_which_interfaces_are_seen_does_not_matter(
    known: dict[int, Identity], seen: list[Identity]
) -> None:
    assert recognise(known, seen) == recognise(known, seen[::-1])


@given(sights)
def test_interfaces_that_stay_as_they_are_stay_their_ports(seen: list[Identity]) -> None:
    known = dict(enumerate(seen))
    assert recognise(known, seen) == known


@given(tables, sights)
def test_what_was_recognised_is_recognised_again(
    known: dict[int, Identity], seen: list[Identity]
) -> None:
    first = recognise(known, seen)
    assert recognise(first, seen) == first
