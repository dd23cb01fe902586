# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` between any two steps of a command on a port table: as it was, or as it is to be.

A child makes the change and kills itself before its first step, its second, and so on, until it
lives. After each death the next command puts in order what is left undone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.kernel.killing import Killing, killing
from tests.kernel.net import Veth, make_veth
from tests.kernel.ports_net import delete, egress, in_map, left, make_again, numbers, set_link
from xdpkit import PortTable
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.interfaces.observation import GRO
from xdpkit.syscalls.ethtool import offloads_of
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered

__all__ = ["killing"]

# Before the steps that last; before each step.
thoroughly = pytest.mark.parametrize(
    "every_step",
    [
        pytest.param(False, id="lasting"),
        pytest.param(True, id="every-step", marks=pytest.mark.soak),
    ],
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A table with one port, another interface that can become one, and who dies."""

    pin_root: str
    veth: Veth
    other: Veth
    killing: Killing
    every_step: bool

    def open(self) -> PortTable:
        return PortTable.open("lan", pin_root=self.pin_root)

    def create(self) -> None:
        PortTable.create("lan", pin_root=self.pin_root).close()

    def add(self) -> None:
        with self.open() as lan:
            lan.add(self.veth.name, netns=self.veth.netns, prepare="gro", egress=egress())

    def fail_to_add(self) -> None:
        """Add an interface that is refused only after it was prepared: its MTU is too small."""
        with self.open() as lan, pytest.raises(RequirementUnmet):
            lan.add(self.other.name, netns=self.other.netns, prepare="gro", policy="strict")

    def remove(self) -> None:
        with self.open() as lan:
            lan.remove(self.veth.name, free=True)

    def set(self, *members: int) -> None:
        with self.open() as lan:
            lan.set("guests", members)

    def unset(self) -> None:
        with self.open() as lan:
            lan.unset("guests")

    def follow(self) -> None:
        with self.open() as lan:
            lan.follow()

    def destroy(self) -> None:
        with self.open() as lan:
            lan.destroy()

    def has_gro(self, veth: Veth | None = None) -> bool:
        veth = veth or self.veth
        with entered(veth.peer_netns), NetlinkSocket() as connection:
            return offloads_of(connection, veth.peer, GRO)[GRO].active

    def assert_consistent(self) -> None:
        """The maps say what the record says, and what is prepared is what is written down."""
        with self.open() as lan:
            table = lan.state()
            there = {port.number: port for port in table.ports if port.interface is not None}
            entries = in_map(lan)
            assert entries.keys() == there.keys()
            for number, (ifindex, program) in entries.items():
                interface = there[number].interface
                assert interface is not None
                assert ifindex == interface.ifindex
                assert bool(program) == (there[number].egress is not None)
                assert numbers(lan)[ifindex] == number
            assert len(numbers(lan)) == len(entries)
            for each in table.sets:
                members = {number: entries[number] for number in each.ports & there.keys()}
                assert in_map(lan, f"xdpkit_set_{each.name}") == members
            is_prepared = any(port.prepared for port in table.ports)
            assert self.has_gro() == is_prepared

    def deaths(
        self,
        prepare: Callable[[], object],
        change: Callable[[], object],
        then: Callable[[], object],
    ) -> None:
        """Let a child die before each step of a change; ``then`` looks, and puts in order."""
        for step in itertools.count(1):
            prepare()
            died_before = self.killing.die(change, step, every=self.every_step)
            then()
            if died_before is None:
                break
        assert self.killing.deaths > 0


@pytest.fixture
def scene(netns: str, pin_root: str, killing: Killing, every_step: bool) -> Scene:
    scene = Scene(pin_root, make_veth(netns), make_veth(netns), killing, every_step)
    # What is learnt once in a process is learnt before the first child is born.
    scene.create()
    scene.add()
    scene.remove()
    scene.destroy()
    return scene


def nothing() -> None:
    """There is nothing to prepare."""


@pytest.mark.soak
@thoroughly
def test_a_table_that_was_being_created_is_there_or_not(scene: Scene) -> None:
    def then() -> None:
        if "lan" not in left(scene.pin_root):
            scene.create()
        scene.add()
        scene.assert_consistent()
        scene.destroy()
        assert left(scene.pin_root) == {}

    scene.deaths(nothing, scene.create, then)


@thoroughly
def test_an_interface_that_was_being_added_is_a_port_or_not(scene: Scene) -> None:
    def then() -> None:
        scene.follow()
        (ports,) = left(scene.pin_root).values()
        assert [port.name for port in ports] in ([], [scene.veth.name])
        scene.assert_consistent()
        if ports:
            assert ports[0].interface is not None
            scene.remove()
        scene.assert_consistent()

    scene.create()
    scene.deaths(nothing, scene.add, then)
    scene.destroy()


@thoroughly
def test_an_adding_that_fails_and_is_killed_leaves_nothing_prepared(scene: Scene) -> None:
    scene.create()
    scene.add()
    set_link(scene.other.netns, scene.other.name, mtu=1400)

    def then() -> None:
        scene.follow()
        (ports,) = left(scene.pin_root).values()
        with scene.open() as lan:
            for port in ports:
                if port.number != 0:
                    lan.remove(port.number, free=True)
        scene.assert_consistent()
        assert not scene.has_gro(scene.other)

    scene.deaths(nothing, scene.fail_to_add, then)
    assert [port.name for port in left(scene.pin_root)["lan"]] == [scene.veth.name]
    scene.destroy()


@thoroughly
def test_a_port_that_was_being_removed_is_there_or_not(scene: Scene) -> None:
    def prepare() -> None:
        # It may be there still, or its number may be kept.
        (ports,) = left(scene.pin_root).values()
        if not ports or ports[0].interface is None:
            scene.add()

    def then() -> None:
        scene.follow()
        scene.assert_consistent()

    scene.create()
    scene.deaths(prepare, scene.remove, then)
    assert left(scene.pin_root) == {"lan": ()}
    scene.destroy()


@pytest.mark.soak
@thoroughly
def test_a_set_that_was_being_changed_has_its_old_ports_or_its_new_ones(scene: Scene) -> None:
    def members() -> list[frozenset[int]]:
        scene.follow()
        scene.assert_consistent()
        with scene.open() as lan:
            return [each.ports for each in lan.state().sets]

    def then_of_new() -> None:
        if members():
            scene.unset()

    def then_of_changed() -> None:
        assert members() in ([frozenset({0})], [frozenset({0, 1})])

    def then_of_unset() -> None:
        assert members() in ([frozenset({0})], [])

    scene.create()
    scene.add()
    with scene.open() as lan:
        lan.add(scene.other.name, netns=scene.other.netns, force=True)
    scene.deaths(nothing, lambda: scene.set(0), then_of_new)
    scene.deaths(lambda: scene.set(0), lambda: scene.set(0, 1), then_of_changed)
    scene.deaths(lambda: scene.set(0), scene.unset, then_of_unset)
    scene.destroy()


@thoroughly
def test_a_following_that_was_killed_is_completed(scene: Scene) -> None:
    def prepare() -> None:
        delete(scene.veth)
        make_again(scene.veth)

    def then() -> None:
        scene.follow()
        scene.assert_consistent()
        with scene.open() as lan:
            assert in_map(lan)[0][0] == scene.veth.interface.index

    scene.create()
    scene.add()
    scene.set(0)
    scene.deaths(prepare, scene.follow, then)
    scene.destroy()


@thoroughly
def test_a_table_that_was_being_destroyed_is_whole_or_goes_with_the_next_command(
    scene: Scene,
) -> None:
    def prepare() -> None:
        if not left(scene.pin_root):
            scene.create()
            scene.add()
            scene.set(0)

    def then() -> None:
        with PortTable.create("next", pin_root=scene.pin_root) as following:
            if "lan" in left(scene.pin_root):
                scene.follow()
                scene.assert_consistent()
                assert scene.has_gro()
            else:
                assert not scene.has_gro()
                with pytest.raises(UsageError):
                    scene.open()
            following.destroy()

    scene.deaths(prepare, scene.destroy, then)
    assert left(scene.pin_root) == {}
