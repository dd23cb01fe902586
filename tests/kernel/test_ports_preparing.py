# SPDX-License-Identifier: Apache-2.0
"""What is prepared for a port works, and is put back; nothing else is touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.kernel.attaching import program as passing
from tests.kernel.fates import set_gro
from tests.kernel.joined import Joined, delete, joined, needs_gro, offloads, set_link
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit import PortTable
from xdpkit.capabilities import Answer
from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook import Hook, attach
from xdpkit.interfaces import resolve
from xdpkit.negotiation import Outcome
from xdpkit.ports import fitness, heirs, peers, preparing
from xdpkit.ports.preparing import How
from xdpkit.syscalls import ethtool
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered, path_of
from xdpkit.syscalls.rtnetlink import encode_selector
from xdpkit.tables import store
from xdpkit.tables.model import Preparation
from xdpkit.uapi.if_link import RouteMessage

ways = pytest.mark.parametrize("how", [pytest.param("gro", marks=needs_gro), "program"])

WATCHED = ("rx-gro", *peers.CHECKSUMS, *peers.VLAN_TAGS, *peers.SEGMENTS)


def plan(veth: Veth, how: How = True, mode: str = "native") -> tuple[Preparation, ...]:
    verdicts = fitness.negotiate(veth.interface, mode=mode)
    return preparing.plan(veth.interface, verdicts, how)


def state(veth: Veth) -> dict[str, bool]:
    return offloads(veth.peer_netns, veth.peer, *WATCHED)


def is_target(veth: Veth) -> bool:
    verdicts = fitness.negotiate(veth.interface)
    (found,) = (each for each in verdicts if each.requirement.capability == "redirect-target")
    return found.outcome is Outcome.ACCEPTED


@pytest.fixture
def ports(netns: str) -> Iterator[Joined]:
    """Two ports whose peers are as they were made, in namespaces of their own."""
    with joined(netns) as made:
        yield made


@pytest.fixture
def far(netns: str) -> Iterator[Veth]:
    """A port whose peer is in another namespace."""
    with namespace() as place:
        yield make_veth(netns, place, queues=1)


@ways
def test_prepared_ports_pass_tcp_and_are_put_back(ports: Joined, how: How, pin_root: str) -> None:
    before = [state(veth) for veth in (ports.one, ports.other)]
    made = [*plan(ports.one, how), *plan(ports.other, how)]
    assert [each.what for each in made] == [how, "tx-checksum", "tx-vlan"] * 2
    for each in made:
        preparing.apply(each, pin_root=pin_root)

    for veth in (ports.one, ports.other):
        assert plan(veth, how) == ()
    with ports.redirecting():
        assert ports.passes()
        assert ports.transfer(300_000) == 300_000

    for each in reversed(made):
        assert preparing.undo(each, pin_root=pin_root) is None
    assert [state(veth) for veth in (ports.one, ports.other)] == before
    assert not is_target(ports.one)


def test_what_gets_lost_in_generic_mode_is_prepared_too(ports: Joined) -> None:
    made = [*plan(ports.one, mode="generic"), *plan(ports.other, mode="generic")]
    assert [each.what for each in made] == ["tx-checksum", "tx-checksum"]
    for each in made:
        preparing.apply(each)

    with ports.redirecting("generic"):
        assert ports.transfer(300_000) == 300_000


@ways
def test_each_preparation_can_be_made_and_undone_twice(far: Veth, how: How, pin_root: str) -> None:
    before = state(far)
    made = plan(far, how)
    for each in made * 2:
        preparing.apply(each, pin_root=pin_root)
    assert is_target(far)
    for each in made * 2:
        assert preparing.undo(each, pin_root=pin_root) is None

    assert state(far) == before


@ways
def test_what_was_written_down_but_not_made_is_undone_without_a_change(
    far: Veth, how: How, pin_root: str
) -> None:
    before = state(far)
    for each in plan(far, how):
        assert preparing.undo(each, pin_root=pin_root) is None

    assert state(far) == before


@needs_gro
def test_what_was_so_before_stays_so(far: Veth) -> None:
    set_gro(far.peer_netns, far.peer, on=True)
    with entered(far.peer_netns), NetlinkSocket() as connection:
        ethtool.set_offloads(
            connection, far.peer, {"tx-checksum-sctp": False, "tx-vlan-stag-hw-insert": False}
        )
    before = state(far)
    checksum, vlan = plan(far)
    assert (checksum.what, checksum.before) == ("tx-checksum", "tx-checksum-ip-generic")
    assert (vlan.what, vlan.before) == ("tx-vlan", "tx-vlan-hw-insert")
    for each in (checksum, vlan):
        preparing.apply(each)
    for each in (checksum, vlan):
        preparing.undo(each)

    assert state(far) == before


@needs_gro
def test_gro_that_the_peer_got_while_it_was_down_is_made_to_count(far: Veth) -> None:
    set_link(far.peer_netns, far.peer, state="down")
    set_gro(far.peer_netns, far.peer, on=True)
    set_link(far.peer_netns, far.peer, state="up")
    before = state(far)
    made = plan(far, "gro")
    for each in made:
        preparing.apply(each)
    assert is_target(far)
    for each in made:
        preparing.undo(each)

    assert before["rx-gro"]
    assert state(far) == before


def test_a_peer_that_somebody_gave_another_program_is_left_alone(far: Veth, pin_root: str) -> None:
    program, *_ = plan(far, "program")
    with attach(far.peer, passing(), netns=far.peer_netns, pin_root=pin_root):
        with pytest.raises(HookBusy):
            preparing.apply(program, pin_root=pin_root)
        assert preparing.undo(program, pin_root=pin_root) is None

        assert Hook(far.peer, netns=far.peer_netns, pin_root=pin_root).status().attached


def test_the_program_is_found_by_its_cookie_and_taken_off_by_nobody_else(
    far: Veth, pin_root: str
) -> None:
    program, *_ = plan(far, "program")
    preparing.apply(program, pin_root=pin_root)
    another = replace(program, before="cookie 1")
    hook = Hook(far.peer, netns=far.peer_netns, pin_root=pin_root)

    assert preparing.undo(another, pin_root=pin_root) is None
    (attached,) = hook.status().attached
    assert attached.record is not None
    assert program.before == f"cookie {attached.record.record.cookie}"
    preparing.undo(program, pin_root=pin_root)
    assert not hook.status().attached


def test_a_cookie_that_is_none_finds_no_program(far: Veth, pin_root: str) -> None:
    program, *_ = plan(far, "program")
    with pytest.raises(UsageError, match="its cookie was written down as 'nonsense'"):
        preparing.undo(replace(program, before="nonsense"), pin_root=pin_root)


@ways
def test_a_peer_that_is_gone_has_nothing_to_be_undone(far: Veth, how: How, pin_root: str) -> None:
    made = plan(far, how)
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    delete(far.netns, far.name)

    for each in made:
        with pytest.raises(UsageError, match=f"prepare {far.peer}: it is not there any more"):
            preparing.apply(each, pin_root=pin_root)
        left = preparing.undo(each, pin_root=pin_root)
        # Where other processes cannot be looked into, it might be in one of theirs.
        assert left is None or left.startswith(f"{far.peer} was not found, but may be")


def test_another_interface_that_got_the_peers_name_is_left_alone(far: Veth, pin_root: str) -> None:
    made = plan(far)
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    delete(far.netns, far.name)
    with rtnetlink(far.peer_netns) as connection:
        connection.link("add", ifname=far.peer, kind="veth", peer={"ifname": "another"})
    set_link(far.peer_netns, far.peer, state="up")
    set_gro(far.peer_netns, far.peer, on=True)
    for each in made:
        preparing.undo(each, pin_root=pin_root)

    assert state(far)["rx-gro"]


@ways
def test_a_peer_that_moved_is_found_where_it_is_now(far: Veth, how: How, pin_root: str) -> None:
    before = state(far)
    made = plan(far, how)
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    with namespace() as elsewhere:
        with (
            rtnetlink(far.peer_netns) as connection,
            open(path_of(elsewhere), "rb") as place,
        ):
            connection.link("set", ifname=far.peer, net_ns_fd=place.fileno())
        set_link(elsewhere, far.peer, state="up")
        for each in made:
            assert preparing.undo(each, pin_root=pin_root) is None

        assert offloads(elsewhere, far.peer, *WATCHED) == before


def test_a_peer_whose_namespace_nothing_leads_to_is_refused(netns: str) -> None:
    with contextlib.ExitStack() as keeping:
        with namespace() as hidden:
            port = make_veth(netns, hidden)
            # What only an open descriptor keeps has no name and no process.
            keeping.enter_context(open(path_of(hidden), "rb"))
        verdicts = {each.requirement.capability: each for each in fitness.negotiate(port.interface)}
        with pytest.raises(RequirementUnmet) as refused:
            preparing.plan(port.interface, verdicts.values())

    assert refused.value.cause == (
        f"its peer, {port.peer}, is in a network namespace that no name and no process leads to"
    )
    assert verdicts["precondition:checksums"].answer is Answer.UNKNOWN
    assert verdicts["precondition:checksums"].why == (
        f"not known: whether its peer, {port.peer}, leaves the checksums of what it sends"
        " unfinished cannot be seen: no name and no process leads to its network namespace"
    )


def test_a_port_that_lacks_nothing_and_one_that_is_no_veth_are_not_prepared(
    far: Veth, netns: str, pin_root: str
) -> None:
    made = plan(far)
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    loopback = resolve("lo", netns=netns)

    assert plan(far) == ()
    assert preparing.plan(loopback, fitness.negotiate(loopback)) == ()
    for each in made:
        preparing.undo(each, pin_root=pin_root)


def test_a_prepared_port_leaves_nothing_to_be_told(far: Veth, pin_root: str) -> None:
    for each in plan(far):
        preparing.apply(each, pin_root=pin_root)
    assert {each.outcome for each in fitness.negotiate(far.interface)} == {Outcome.ACCEPTED}


def test_what_somebody_has_switched_back_stays_as_it_is(far: Veth, pin_root: str) -> None:
    before = state(far)
    made = plan(far)
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    with entered(far.peer_netns), NetlinkSocket() as connection:
        ethtool.set_offloads(connection, far.peer, {name: before[name] for name in peers.VLAN_TAGS})
    for each in made:
        preparing.undo(each, pin_root=pin_root)
    assert state(far) == before


def rename(netns: str, name: str, raw: bytes) -> None:
    """Give an interface a name of any bytes."""
    index = resolve(name, netns=netns).index
    selector = encode_selector(index=index, name=raw.decode("utf-8", "surrogateescape"))
    set_link(netns, name, state="down")
    with entered(netns), NetlinkSocket() as connection:
        connection.request(RouteMessage.SETLINK, selector, what="rename an interface")
    with rtnetlink(netns) as route:
        route.link("set", index=index, state="up")


@ways
def test_names_need_not_be_text(far: Veth, how: How, pin_root: str) -> None:
    before = state(far)
    raw = f"p{os.getpid()}".encode() + b"\xff"
    rename(far.peer_netns, far.peer, raw)
    rename(far.netns, far.name, raw)
    renamed = replace(
        far,
        name=raw.decode("utf-8", "surrogateescape"),
        peer=raw.decode("utf-8", "surrogateescape"),
    )
    made = plan(renamed, how)
    assert "\\xff" in made[0].on.name
    for each in made:
        preparing.apply(each, pin_root=pin_root)
    assert is_target(renamed)
    for each in made:
        assert preparing.undo(each, pin_root=pin_root) is None
    assert state(renamed) == before


# A veth in two tables


@pytest.fixture
def shared(far: Veth, pin_root: str) -> Iterator[tuple[PortTable, PortTable]]:
    """Two tables with the same veth: the first has prepared it, and the second relies on that."""
    with (
        PortTable.create("first", pin_root=pin_root) as first,
        PortTable.create("second", pin_root=pin_root) as second,
    ):
        assert first.add(far.name, netns=far.netns, prepare=True).prepared
        assert second.add(far.name, netns=far.netns).prepared == ()
        yield first, second


def test_what_another_table_relies_on_is_undone_with_that(
    far: Veth, shared: tuple[PortTable, PortTable]
) -> None:
    first, second = shared
    prepared = first.port(0).prepared
    assert first.remove(0) == tuple(
        f"{preparing.describe(each)} stays: port 0 ({far.name}) of second relies on it, and has it"
        " undone when it is removed"
        for each in prepared
    )
    assert is_target(far)
    assert second.port(0).prepared == prepared
    assert second.remove(0) == ()
    assert not is_target(far)
    assert all(state(far)[name] for name in (*peers.CHECKSUMS[:1], *peers.VLAN_TAGS))


def test_what_was_handed_over_by_a_command_that_was_killed_is_handed_over_once(
    shared: tuple[PortTable, PortTable], pin_root: str
) -> None:
    first, second = shared
    prepared = first.port(0).prepared
    with store.locked("first", "remove a port", pin_root=pin_root) as opened:
        for each in prepared:
            assert heirs.hand_over(opened, each) is not None
    assert first.port(0).prepared == prepared
    first.remove(0)
    assert second.port(0).prepared == prepared


def test_a_table_that_relies_on_nothing_any_more_inherits_nothing(
    far: Veth, shared: tuple[PortTable, PortTable]
) -> None:
    first, second = shared
    second.remove(0)
    assert first.remove(0) == ()
    assert not is_target(far)


def test_what_an_owner_prepared_and_left_is_inherited(far: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        with PortTable.create("own", pin_root=pin_root, owned=True) as own:
            own.add(far.name, netns=far.netns, prepare=True)
            lan.add(far.name, netns=far.netns)
        lan.follow()
        assert store.names(pin_root) == ["lan"]
        assert is_target(far)
        lan.destroy()
    assert not is_target(far)


def test_while_the_other_table_is_locked_nothing_is_undone_nor_forgotten(
    far: Veth,
    shared: tuple[PortTable, PortTable],
    pin_root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = shared
    monkeypatch.setattr(heirs, "_PATIENCE", 0.0)
    prepared = first.port(0).prepared
    with (
        store.locked("second", "look at it", pin_root=pin_root),
        pytest.raises(HookBusy, match=f"port table second has {far.name}, too"),
    ):
        first.remove(0)
    assert is_target(far)
    assert (first.port(0).interface, first.port(0).prepared) == (None, prepared)
    first.follow()
    assert (first.port(0).prepared, second.port(0).prepared) == ((), prepared)


def test_a_table_that_goes_just_before_it_inherits_leaves_it_to_be_undone(
    far: Veth, shared: tuple[PortTable, PortTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shared
    is_heir = heirs._is_heir

    def then_destroyed(*args: Any) -> bool:
        found = is_heir(*args)
        second.destroy()
        return found

    monkeypatch.setattr(heirs, "_is_heir", then_destroyed)
    assert first.remove(0) == ()
    assert not is_target(far)
    assert first.port(0).prepared == ()


def test_there_are_two_ways_only(veth: Veth) -> None:
    with pytest.raises(UsageError, match='by "gro" or by "program", not by \'magic\''):
        preparing.plan(veth.interface, (), "magic")  # type: ignore[arg-type]


def test_an_offload_that_cannot_be_switched_is_refused_with_its_name(veth: Veth) -> None:
    with (
        entered(veth.netns),
        NetlinkSocket() as connection,
        pytest.raises(KernelRefused, match="switch rx-lro on on") as refused,
    ):
        ethtool.set_offloads(connection, veth.name, {"rx-lro": True})
    assert "does not let them be switched so" in str(refused.value)
    with (
        entered(veth.netns),
        NetlinkSocket() as connection,
        pytest.raises(UsageError, match="this kernel has no offload rx-magic"),
    ):
        ethtool.set_offloads(connection, veth.name, {"rx-magic": True})
    with (
        entered(veth.netns),
        NetlinkSocket() as connection,
        pytest.raises(UsageError, match="it is not there"),
    ):
        ethtool.set_offloads(connection, "nosuch0", {"rx-gro": True})
