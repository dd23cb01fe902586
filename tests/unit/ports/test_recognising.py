# SPDX-License-Identifier: Apache-2.0
"""Which interface a port's is: by rules, and never by a guess."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from xdpkit.ports.recognising import home_of, homes_of, is_made_anew, recognise
from xdpkit.tables.model import Identity, Port

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
    kind=st.sampled_from(("veth", "dummy")),
)
# Of a namespace at one moment: neither a name nor an index is there twice.
sights = st.lists(identities, max_size=6, unique_by=lambda each: each.place).filter(
    lambda seen: len({(each.netns_cookie, each.name) for each in seen}) == len(seen)
)


def is_of_different_interfaces(known: dict[int, Identity]) -> bool:
    return len({each.place for each in known.values()}) == len(known)


# What a table knows was seen at several moments, but no interface is two ports'.
tables = st.dictionaries(st.integers(0, 3), identities, max_size=4).filter(
    is_of_different_interfaces
)


@st.composite
def tables_and_homes(draw: st.DrawFn) -> tuple[dict[int, Identity], dict[int, Identity]]:
    known = draw(tables)
    homes = {
        number: each
        for number, each in draw(tables).items()
        if number in known and each.netns_cookie != known[number].netns_cookie
    }
    assume(is_of_different_interfaces({**known, **homes}))
    return known, homes


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


def test_what_has_the_index_and_the_address_but_is_of_another_kind_is_another_interface() -> None:
    assert found(replace(ETH1, name="wan0", kind="macvlan")) is None


def test_what_is_of_another_kind_elsewhere_is_another_interface() -> None:
    assert found(replace(ETH1, netns_cookie=THERE, ifindex=9, kind="dummy")) is None


def test_what_is_elsewhere_is_not_taken_while_its_namesake_is_where_it_belongs() -> None:
    # Two ports had the name, so that nobody can say whose this is.
    other = replace(ETH1, ifindex=6, mac=b"\2\0\0\0\0\3")
    namesake = replace(ETH1, ifindex=12, mac=OTHER_MAC)
    elsewhere = replace(ETH1, netns_cookie=THERE, ifindex=9)
    assert recognise({1: ETH1, 2: other}, [namesake, elsewhere]) == {}


AWAY = replace(ETH1, netns_cookie=THERE, ifindex=9)


def test_an_interface_that_is_elsewhere_is_recognised_there() -> None:
    renamed = replace(AWAY, name="wan0")
    assert recognise({7: AWAY}, [renamed], {7: ETH1}) == {7: renamed}


def test_an_interface_where_it_belongs_wins_over_the_one_that_was_found_elsewhere() -> None:
    again = replace(ETH1, ifindex=12, mac=OTHER_MAC)
    assert recognise({7: AWAY}, [AWAY, again], {7: ETH1}) == {7: again}
    assert recognise({7: AWAY}, [AWAY, again]) == {7: AWAY}


def test_where_an_interface_belongs_is_remembered_while_it_is_elsewhere() -> None:
    assert home_of(ETH1, None, replace(ETH1, name="wan0")) is None
    assert home_of(ETH1, None, AWAY) == ETH1
    assert home_of(AWAY, ETH1, replace(AWAY, netns_cookie=3)) == ETH1
    assert home_of(AWAY, ETH1, replace(ETH1, ifindex=12)) is None


def test_ports_know_which_of_their_interfaces_are_elsewhere() -> None:
    ports = [Port(0, "a", ETH1), Port(1, "b", AWAY, home=ETH1), Port(2, "c", None, home=ETH1)]
    assert homes_of(ports) == {1: ETH1}


BLUE = replace(ETH1, netns="blue")


def test_a_namespace_that_was_made_anew_is_known_by_its_name() -> None:
    again = replace(BLUE, netns_cookie=THERE, ifindex=2, mac=OTHER_MAC)
    assert recognise({7: BLUE}, [again]) == {7: again}
    assert is_made_anew(BLUE, again)
    assert home_of(BLUE, None, again) is None


def test_a_namespace_that_is_still_there_is_not_mistaken_for_another_of_its_name() -> None:
    namesake = replace(BLUE, netns_cookie=THERE, mac=OTHER_MAC)
    loopback = Identity("lo", 1, HERE, None, bytes(6), "")
    assert recognise({7: BLUE}, [loopback, namesake]) == {}


def test_a_namespace_is_not_known_by_a_path_or_without_a_name() -> None:
    for netns in ("/proc/77/ns/net", None):
        before = replace(ETH1, netns=netns)
        again = replace(before, netns_cookie=THERE, ifindex=2, mac=OTHER_MAC)
        assert recognise({7: before}, [again]) == {}
        assert not is_made_anew(before, again)


@given(tables_and_homes(), sights)
def test_an_interface_is_at_most_one_ports(
    table: tuple[dict[int, Identity], dict[int, Identity]], seen: list[Identity]
) -> None:
    known, homes = table
    result = recognise(known, seen, homes)
    assert result.keys() <= known.keys()
    assert len({each.place for each in result.values()}) == len(result)
    assert set(result.values()) <= set(seen)


@given(tables_and_homes(), sights)
def test_the_order_in_which_interfaces_are_seen_does_not_matter(
    table: tuple[dict[int, Identity], dict[int, Identity]], seen: list[Identity]
) -> None:
    known, homes = table
    assert recognise(known, seen, homes) == recognise(known, seen[::-1], homes)


@given(sights)
def test_interfaces_that_stay_as_they_are_stay_their_ports(seen: list[Identity]) -> None:
    known = dict(enumerate(seen))
    assert recognise(known, seen) == known


@given(tables_and_homes(), sights)
def test_what_was_recognised_is_recognised_again(
    table: tuple[dict[int, Identity], dict[int, Identity]], seen: list[Identity]
) -> None:
    known, homes = table
    first = recognise(known, seen, homes)
    for number, now in first.items():
        home = home_of(known[number], homes.pop(number, None), now)
        if home is not None:
            homes[number] = home
    assert recognise({**known, **first}, seen, homes) == first


@given(tables_and_homes(), sights)
def test_an_interface_that_has_neither_a_name_nor_an_index_of_a_ports_is_none(
    table: tuple[dict[int, Identity], dict[int, Identity]], seen: list[Identity]
) -> None:
    known, homes = table
    for number, now in recognise(known, seen, homes).items():
        before = [known[number], homes.get(number, known[number])]
        assert any(now.name == each.name or now.ifindex == each.ifindex for each in before)


@given(identities, sights)
def test_nothing_elsewhere_outranks_the_name_where_an_interface_belongs(
    before: Identity, seen: list[Identity]
) -> None:
    now = recognise({0: before}, seen).get(0)
    has_namesake = any(
        (each.netns_cookie, each.name) == (before.netns_cookie, before.name) for each in seen
    )
    if has_namesake:
        assert now is not None
        assert now.netns_cookie == before.netns_cookie
