# SPDX-License-Identifier: Apache-2.0
"""What is done so that a table's maps say what its record says, and what is told about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from xdpkit.context import NO_PORT as NO_PORT_OF_PROGRAMS
from xdpkit.ports.planning import (
    NO_PORT,
    Drop,
    Event,
    Forget,
    Number,
    Plan,
    Put,
    Situation,
    Target,
    Write,
    plan,
)
from xdpkit.tables.model import Identity, Port, PortSet, Table

HERE, THERE = 1, 2


def interface(number: int, *, ifindex: int | None = None, cookie: int = HERE) -> Identity:
    mac = bytes((2, 0, 0, 0, 0, number))
    return Identity(f"eth{number}", ifindex or number + 10, cookie, None, mac, "veth")


ETH1, ETH2 = interface(1), interface(2)
TABLE = Table(
    "lan", 8, (Port(1, "eth1", ETH1), Port(2, "wan", ETH2)), (PortSet("all", frozenset({1, 2})),)
)
IN_PLACE = Situation(
    table=TABLE,
    interfaces={1: ETH1, 2: ETH2},
    held=frozenset(),
    ports={1: (11, 0), 2: (12, 0)},
    numbers={11: 1, 12: 2},
    sets={"all": {1: (11, 0), 2: (12, 0)}},
    egress={},
)


def told(planned: Plan) -> list[str]:
    return [str(change) for change in planned.changes]


def test_ports_without_a_number_are_those_that_programs_know() -> None:
    assert NO_PORT == NO_PORT_OF_PROGRAMS


def test_where_everything_is_in_place_nothing_is_done() -> None:
    assert plan(IN_PLACE) == Plan((), ())


def test_a_new_port_is_put_into_all_maps() -> None:
    planned = plan(
        replace(IN_PLACE, ports={2: (12, 0)}, numbers={12: 2}, sets={"all": {2: (12, 0)}})
    )
    assert planned.steps == (Number(11, 1), Put(1, ETH1, False), Put(1, ETH1, False, "all"))


def test_an_interface_that_is_gone_is_told_of_once() -> None:
    # The kernel has taken it out of the device maps by itself.
    gone = replace(IN_PLACE, interfaces={2: ETH2}, ports={2: (12, 0)}, sets={"all": {2: (12, 0)}})
    planned = plan(gone)
    assert planned.steps == (Forget(11),)
    assert told(planned) == ["port 1 (eth1) of lan: eth1 is gone"]
    assert plan(replace(gone, numbers={12: 2})) == Plan((), ())


def test_an_interface_that_comes_back_is_written_down_before_it_is_put_back() -> None:
    again = replace(ETH1, ifindex=30)
    planned = plan(
        replace(
            IN_PLACE,
            interfaces={1: again, 2: ETH2},
            ports={2: (12, 0)},
            numbers={12: 2},
            sets={"all": {2: (12, 0)}},
        )
    )
    table = replace(TABLE, ports=(Port(1, "eth1", again), TABLE.ports[1]))
    assert planned.steps == (
        Write(table),
        Number(30, 1),
        Put(1, again, False),
        Put(1, again, False, "all"),
    )
    assert told(planned) == ["port 1 (eth1) of lan: eth1 is there again, as interface 30"]


def test_a_renamed_interface_is_written_down_and_no_map_is_touched() -> None:
    renamed = replace(ETH2, name="wan0")
    planned = plan(replace(IN_PLACE, interfaces={1: ETH1, 2: renamed}))
    assert [type(step) for step in planned.steps] == [Write]
    assert told(planned) == ["port 2 (wan) of lan: eth2 is called wan0 now"]


def test_an_entry_of_another_namespaces_interface_goes_before_anything_is_written() -> None:
    moved = replace(ETH1, netns_cookie=THERE, netns="blue")
    planned = plan(replace(IN_PLACE, interfaces={1: moved, 2: ETH2}))
    assert planned.steps[:2] == (Drop(1), Drop(1, "all"))
    assert isinstance(planned.steps[2], Write)
    assert planned.steps[3:] == (Put(1, moved, False), Put(1, moved, False, "all"))
    assert told(planned) == [
        "port 1 (eth1) of lan: eth1 is in another network namespace now: blue, interface 11"
    ]


def test_a_namespace_is_called_as_it_was_as_long_as_it_is_the_same() -> None:
    seen = replace(ETH1, netns="/proc/77/ns/net")
    assert plan(replace(IN_PLACE, interfaces={1: seen, 2: ETH2})) == Plan((), ())


def test_an_interface_that_nobody_can_see_stays_while_the_kernel_has_it() -> None:
    assert plan(replace(IN_PLACE, interfaces={2: ETH2}, held=frozenset({1}))) == Plan((), ())


def test_a_removed_port_leaves_all_maps() -> None:
    table = replace(TABLE, ports=(Port(1, "eth1", None), TABLE.ports[1]))
    planned = plan(replace(IN_PLACE, table=table, interfaces={2: ETH2}))
    assert planned.steps == (Drop(1), Drop(1, "all"), Forget(11))
    assert told(planned) == []


def test_a_port_that_left_a_set_leaves_its_map_only() -> None:
    table = replace(TABLE, sets=(PortSet("all", frozenset({2})),))
    assert plan(replace(IN_PLACE, table=table)).steps == (Drop(1, "all"),)


def test_an_egress_program_is_put_back_with_its_entry() -> None:
    table = replace(TABLE, ports=(replace(TABLE.ports[0], egress="filter"), TABLE.ports[1]))
    planned = plan(replace(IN_PLACE, table=table, egress={1: 77}))
    assert planned.steps == (Put(1, ETH1, True), Put(1, ETH1, True, "all"))
    assert told(planned) == [
        "port 1 (eth1) of lan: what the kernel had for eth1 was something else; it is right again"
    ]


def test_nothing_is_sent_past_an_egress_program_that_was_lost() -> None:
    table = replace(TABLE, ports=(replace(TABLE.ports[0], egress="filter"), TABLE.ports[1]))
    planned = plan(replace(IN_PLACE, table=table))
    assert planned.steps == (Drop(1), Drop(1, "all"))
    assert told(planned) == [
        "port 1 (eth1) of lan: its egress program filter is not there any more, and without it"
        " nothing is sent out of eth1: remove the port, and add it again"
    ]


def test_where_an_interface_belongs_is_written_down_when_it_goes_elsewhere_and_comes_back() -> None:
    moved = replace(ETH1, netns_cookie=THERE, netns="blue")
    away = replace(IN_PLACE, interfaces={1: moved, 2: ETH2})
    (written,) = (step.table for step in plan(away).steps if isinstance(step, Write))
    assert written.ports[0] == Port(1, "eth1", moved, home=ETH1)
    back = replace(IN_PLACE, table=written, interfaces={1: ETH1, 2: ETH2})
    (again,) = (step.table for step in plan(back).steps if isinstance(step, Write))
    assert again == TABLE


def test_an_interface_in_a_namespace_that_was_made_anew_is_there_again() -> None:
    before = replace(ETH1, netns="blue")
    table = replace(TABLE, ports=(Port(1, "eth1", before), TABLE.ports[1]))
    anew = replace(before, netns_cookie=THERE, ifindex=30)
    now = replace(IN_PLACE, table=table, interfaces={1: anew, 2: ETH2})
    planned = plan(replace(now, ports={2: (12, 0)}, sets={"all": {2: (12, 0)}}, numbers={12: 2}))
    assert told(planned) == ["port 1 (eth1) of lan: eth1 is there again, as interface 30"]
    (written,) = (step.table for step in planned.steps if isinstance(step, Write))
    assert written.ports[0] == Port(1, "eth1", anew)


def test_a_full_map_has_room_for_interfaces_that_all_come_back_with_other_indexes() -> None:
    size = 4
    before = {number: interface(number) for number in range(size)}
    # Two of them have got indexes that others had.
    after = {
        number: replace(each, ifindex=before[0].ifindex + 2 + number)
        for number, each in before.items()
    }
    numbers = {each.ifindex: number for number, each in before.items()}
    now = Situation(
        table=Table("lan", size, tuple(Port(n, f"p{n}", each) for n, each in before.items())),
        interfaces=after,
        held=frozenset(),
        ports={},
        numbers=numbers,
        sets={},
        egress={},
    )
    planned = plan(now)
    for done in range(len(planned.steps) + 1):
        meanwhile = applied(now, planned, steps=done).numbers
        assert len(meanwhile) <= size
        # An index that is one port's and then another's is somebody's at each moment.
        assert meanwhile.keys() >= numbers.keys() & {each.ifindex for each in after.values()}
    assert applied(now, planned).numbers == {each.ifindex: n for n, each in after.items()}


def test_an_index_that_two_ports_have_in_two_namespaces_stands_for_neither() -> None:
    elsewhere = interface(2, ifindex=11, cookie=THERE)
    table = replace(TABLE, ports=(TABLE.ports[0], Port(2, "wan", elsewhere)))
    now = replace(IN_PLACE, table=table, interfaces={1: ETH1, 2: elsewhere}, numbers={11: 1})
    now = replace(now, ports={1: (11, 0), 2: (11, 0)}, sets={"all": {1: (11, 0), 2: (11, 0)}})
    planned = plan(now)
    assert planned.steps == (Number(11, NO_PORT),)
    assert told(planned) == [
        f"port {name} of lan: {own} has index 11, and so has another port's interface in another"
        " network namespace: programs that look ports up by index see no port for either"
        for name, own in (("1 (eth1)", "eth1"), ("2 (wan)", "eth2"))
    ]
    assert plan(replace(now, numbers={11: NO_PORT})) == Plan((), ())


def test_an_index_stands_for_a_port_again_when_the_other_one_is_gone() -> None:
    elsewhere = interface(2, ifindex=11, cookie=THERE)
    table = replace(TABLE, ports=(TABLE.ports[0], Port(2, "wan", elsewhere)))
    now = replace(IN_PLACE, table=table, interfaces={1: ETH1}, numbers={11: NO_PORT})
    planned = plan(replace(now, ports={1: (11, 0)}, sets={"all": {1: (11, 0)}}))
    assert planned.steps == (Number(11, 1),)
    assert [(change.number, change.event) for change in planned.changes] == [(2, Event.GONE)]


# Any situation: what is planned leads to where nothing is left to be done.

targets = st.tuples(st.integers(1, 4), st.integers(0, 2))
entries = st.dictionaries(st.integers(0, 3), targets, max_size=4)
places = st.builds(
    lambda name, ifindex, cookie: Identity(name, ifindex, cookie, None, b"", ""),
    st.sampled_from(("eth0", "eth1")),
    st.integers(1, 4),
    st.sampled_from((HERE, THERE)),
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    known = draw(st.dictionaries(st.integers(0, 3), places, max_size=4))
    ports = tuple(
        Port(number, f"p{number}", known[number], draw(st.sampled_from((None, "filter"))))
        for number in sorted(known)
    )
    members = draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
    there = draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
    now = draw(st.lists(places, min_size=4, max_size=4, unique_by=lambda each: each.place))
    return Situation(
        table=Table("lan", 4, ports, (PortSet("some", frozenset(members)),)),
        interfaces=dict(zip(sorted(there), now, strict=False)),
        held=frozenset(),
        ports=draw(entries),
        numbers=draw(st.dictionaries(st.integers(1, 5), st.integers(0, 3), max_size=4)),
        sets={"some": draw(entries)},
        egress={number: 2 for number in known if draw(st.booleans())},
    )


def applied(now: Situation, planned: Plan, *, steps: int | None = None) -> Situation:
    """Return the situation after the first steps of a plan."""
    ports, numbers = dict(now.ports), dict(now.numbers)
    sets: Mapping[str, dict[int, Target]] = {name: dict(each) for name, each in now.sets.items()}
    table = now.table
    for step in planned.steps[:steps]:
        match step:
            case Drop():
                del (ports if step.set is None else sets[step.set])[step.number]
            case Write():
                table = step.table
            case Number():
                numbers[step.ifindex] = step.number
            case Forget():
                del numbers[step.ifindex]
            case Put():
                program = now.egress[step.number] if step.egress else 0
                entry = step.interface.ifindex, program
                (ports if step.set is None else sets[step.set])[step.number] = entry
    return replace(now, table=table, ports=ports, numbers=numbers, sets=sets)


@given(situations(), st.integers(0, 20))
def test_a_plan_that_was_broken_off_anywhere_is_completed_by_the_next(
    now: Situation, steps: int
) -> None:
    whole = applied(now, plan(now))
    assert plan(whole).steps == ()
    broken = applied(now, plan(now), steps=steps)
    again = applied(broken, plan(broken))
    assert again == whole


@given(situations())
def test_the_map_of_indexes_has_room_at_each_step(now: Situation) -> None:
    planned = plan(now)
    most = max(len(now.numbers), len(applied(now, planned).numbers))
    for done in range(len(planned.steps)):
        assert len(applied(now, planned, steps=done).numbers) <= most


@given(situations())
def test_what_is_right_is_not_touched(now: Situation) -> None:
    for step in plan(now).steps:
        if isinstance(step, Put):
            before = (now.ports if step.set is None else now.sets[step.set]).get(step.number)
            known = next(port for port in now.table.ports if port.number == step.number).interface
            assert known is not None
            is_elsewhere = known.netns_cookie != step.interface.netns_cookie
            program = now.egress[step.number] if step.egress else 0
            assert is_elsewhere or before != (step.interface.ifindex, program)
