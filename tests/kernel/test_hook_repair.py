# SPDX-License-Identifier: Apache-2.0
"""Interfaces that go, move and change names, commands that died: what stays, what is swept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import attach_by_netlink, foreign_link, program
from tests.kernel.killing import Killing, killing, reach, wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit import Hook
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.hook import AttachedProgram, Cleaned, Via, clean
from xdpkit.hook.state import LEAVING
from xdpkit.syscalls.netns import path_of
from xdpkit.uapi.bpf import XdpAction

__all__ = ["killing"]

pytestmark = pytest.mark.needs("bpf-link-xdp")

PACKET = bytes(64)

ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])


def jumping() -> xdpkit.ProgramSpec:
    """A program that drops as soon as its program array is empty."""
    return program("program_array.c", "constant_slot")


def present(hook: Hook) -> AttachedProgram:
    (found,) = hook.status().attached
    return found


def assert_runs(hook: Hook, program_id: int | None = None) -> None:
    """The program is on the hook, and its tail call finds what it jumps to."""
    found = present(hook)
    assert program_id in (found.program.id, None)
    with xdpkit.Program.from_id(found.program.id) as running:
        assert running.run(PACKET).action is XdpAction.PASS


@dataclass(frozen=True, slots=True)
class Site:
    """Two namespaces, with a place for pins."""

    here: str
    there: str
    pin_root: str

    def hook(self, name: str | int, netns: str | None = None) -> Hook:
        return Hook(name, netns=netns or self.here, pin_root=self.pin_root)

    def added(self, veth: Veth, via: Via = Via.LINK) -> Hook:
        hook = self.hook(veth.name, veth.netns)
        hook.add(jumping(), via=via, force=True).close()
        return hook

    def clean(self, *, everything: bool = False, dry_run: bool = False) -> tuple[Cleaned, ...]:
        return clean(everything=everything, pin_root=self.pin_root, dry_run=dry_run)

    def folders(self) -> list[Path]:
        return sorted(Path(self.pin_root).glob("xdpkit/*"))


@pytest.fixture
def site(netns: str, pin_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with namespace() as there:
        reach(monkeypatch, netns, there)
        yield Site(netns, there, pin_root)


def remove(veth: Veth) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)


def rename(veth: Veth, name: str) -> Veth:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, state="down")
        connection.link("set", index=veth.interface.index, ifname=name, state="up")
    return Veth(name, veth.netns, veth.peer, veth.peer_netns)


def move(veth: Veth, netns: str) -> Veth:
    with open(path_of(netns), "rb") as target, rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, net_ns_fd=target.fileno())
    return Veth(veth.name, netns, veth.peer, veth.peer_netns)


def occupy(netns: str, index: int) -> Veth:
    """Make an interface with a given index."""
    name = f"taken{index}"
    with rtnetlink(netns) as connection:
        peer = {"ifname": f"{name}p", "index": index + 1000}
        connection.link("add", ifname=name, index=index, kind="veth", peer=peer)
    return Veth(name, netns, f"{name}p", netns)


@ways
def test_the_pins_of_an_interface_that_is_gone_are_cleaned(
    site: Site, veth: Veth, via: Via
) -> None:
    site.added(veth, via)
    assert site.clean() == ()
    remove(veth)

    (told,) = site.clean(dry_run=True)
    assert len(site.folders()) == 1
    assert site.clean() == (told,)

    assert told.path is not None
    assert told.what.startswith("pins of a")
    assert (told.interface, told.error) == (None, None)
    assert site.folders() == []
    assert site.clean() == ()


def test_a_program_that_may_be_where_nobody_can_look_keeps_its_pins(
    site: Site, veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.added(veth, Via.NETLINK)
    remove(veth)
    reach(monkeypatch, site.here, site.there, unseen=1)

    (told,) = site.clean()

    assert "cannot be entered" in str(told.error)
    assert len(site.folders()) == 1
    (told,) = site.clean(everything=True)
    assert told.error is None
    assert site.folders() == []


@ways
def test_the_pins_of_a_namespace_that_is_gone_are_cleaned(site: Site, via: Via) -> None:
    with namespace() as third:
        site.added(make_veth(third), via)
    # What goes with a namespace goes in the background.
    wait_until(lambda: site.clean() != () or not site.folders())
    assert site.folders() == []


@ways
def test_a_renamed_interface_keeps_its_program(site: Site, veth: Veth, via: Via) -> None:
    site.added(veth, via)
    renamed = site.hook(rename(veth, "renamed0").name)

    assert site.clean() == ()
    assert_runs(renamed)
    renamed.replace(jumping(), force=True).close()
    assert_runs(renamed)
    assert renamed.delete().interface.name == "renamed0"
    assert site.folders() == []


@ways
@pytest.mark.parametrize("index", ["same", "another"])
def test_an_interface_that_moved_keeps_its_program_and_takes_changes(
    site: Site, veth: Veth, via: Via, index: str
) -> None:
    before = site.added(veth, via)
    number, program_id = veth.interface.index, present(before).program.id
    if index == "another":
        occupy(site.there, number)
    moved = move(veth, site.there)
    assert (moved.interface.index == number) == (index == "same")
    hook = site.hook(moved.name, site.there)

    assert site.clean() == ()
    assert_runs(hook, program_id)
    with pytest.raises(UsageError, match="has no such interface"):
        before.replace(jumping(), force=True)
    hook.replace(jumping(), force=True).close()
    assert_runs(hook)
    assert site.clean() == ()
    assert_runs(hook)
    hook.delete()
    assert site.folders() == []


@ways
@pytest.mark.parametrize("newcomers", list(Via), ids=["link", "netlink"])
def test_an_interface_that_gets_the_index_of_one_that_moved_is_another(
    site: Site, veth: Veth, via: Via, newcomers: Via
) -> None:
    site.added(veth, via)
    program_id = present(site.hook(veth.name)).program.id
    number = veth.interface.index
    moved = site.hook(move(veth, site.there).name, site.there)
    newcomer = site.hook(occupy(site.here, number).name)
    assert newcomer.status().attached == ()
    with pytest.raises(UsageError, match="nothing is attached"):
        newcomer.delete()

    newcomer.add(jumping(), via=newcomers, force=True).close()

    assert_runs(moved, program_id)
    assert_runs(newcomer)
    assert site.clean() == ()
    newcomer.replace(jumping(), force=True).close()
    assert_runs(moved, program_id)
    moved.replace(jumping(), force=True).close()
    assert_runs(newcomer)
    assert_runs(moved)
    newcomer.delete()
    assert_runs(moved)
    moved.delete()
    assert site.folders() == []


@ways
def test_one_program_on_two_interfaces_of_the_same_index_is_detached_from_the_one_that_is_meant(
    site: Site, veth: Veth, via: Via
) -> None:
    other = occupy(site.there, veth.interface.index)
    hooks = [site.hook(each.name, each.netns) for each in (veth, other)]
    with xdpkit.load(jumping()) as loaded:
        for hook in hooks:
            hook.add(loaded, via=via, mode="generic", force=True).close()

    hooks[1].delete()

    assert hooks[1].status().attached == ()
    assert site.clean() == ()
    assert_runs(hooks[0])
    hooks[0].delete()
    assert site.folders() == []


@ways
@pytest.mark.parametrize("newcomers", list(Via), ids=["link", "netlink"])
def test_an_interface_that_gets_the_index_of_one_that_is_gone_starts_anew(
    site: Site, veth: Veth, via: Via, newcomers: Via
) -> None:
    site.added(veth, via)
    number = veth.interface.index
    remove(veth)
    newcomer = site.hook(occupy(site.here, number).name)
    assert newcomer.status().attached == ()

    newcomer.add(jumping(), via=newcomers, force=True).close()

    assert len(site.folders()) == 1
    assert site.clean() == ()
    assert_runs(newcomer)
    newcomer.delete()
    assert site.folders() == []


def test_exactly_what_is_orphaned_is_cleaned(site: Site, veth: Veth) -> None:
    by_link, by_netlink, gone = veth, make_veth(site.here), make_veth(site.there)
    hooks = [site.added(by_link), site.added(by_netlink, Via.NETLINK)]
    before = site.folders()
    site.added(gone)
    (orphan,) = set(site.folders()) - set(before)
    remove(gone)
    dead, empty, not_ours = (Path(site.pin_root, "xdpkit", name) for name in ("7-7", "8-8", "ours"))
    for folder in (dead, empty, not_ours):
        folder.mkdir(0o700)
    with xdpkit.load(jumping()) as loaded:
        loaded.maps["jumps"].pin(dead / "map-1")
        loaded.maps["jumps"].pin(not_ours / "map-1")

    told = site.clean()

    assert {each.path for each in told} == {str(orphan), str(dead), str(empty)}
    assert not any(folder.exists() for folder in (orphan, dead, empty))
    for hook in hooks:
        assert_runs(hook)
    assert not_ours.is_dir()
    assert site.clean() == ()
    (not_ours / "map-1").unlink()
    not_ours.rmdir()


def test_cleaning_everything_leaves_no_trace(site: Site, veth: Veth) -> None:
    hooks = [
        site.added(veth),
        site.added(make_veth(site.here), Via.NETLINK),
        site.added(make_veth(site.there)),
    ]
    moved = move(make_veth(site.here), site.there)
    occupied = make_veth(site.there)
    site.added(occupied)
    remove(occupied)
    told = site.clean(everything=True, dry_run=True)
    for hook in hooks:
        assert_runs(hook)

    assert site.clean(everything=True) == told

    assert len(told) == 4
    assert all(each.error is None for each in told)
    assert all(hook.status().attached == () for hook in hooks)
    assert moved.interface.xdp.native is None
    assert os.listdir(site.pin_root) == []


def test_cleaning_everything_leaves_what_others_hold(site: Site, veth: Veth) -> None:
    theirs, by_netlink = make_veth(site.here), make_veth(site.there)
    attach_by_netlink(by_netlink)
    with (
        foreign_link(theirs),
        xdpkit.attach(veth.name, jumping(), netns=site.here, force=True) as block,
    ):
        (told,) = site.clean(everything=True)

        assert told.interface == veth.name
        assert told.error == "a process holds it, or it is pinned elsewhere"
        assert_runs(site.hook(veth.name), block.program.id)
        for each in (theirs, by_netlink):
            assert present(site.hook(each.name, each.netns)).program.name == "foreign"


def test_where_nothing_is_pinned_there_is_nothing_to_clean(site: Site, veth: Veth) -> None:
    assert site.clean() == site.clean(everything=True) == ()
    assert os.listdir(site.pin_root) == []


def test_a_folder_that_somebody_else_made_is_not_cleaned(site: Site, veth: Veth) -> None:
    folder = Path(site.pin_root, "xdpkit")
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "1-1").mkdir()

    with pytest.raises(RequirementUnmet, match="was not made by xdpkit"):
        site.clean()

    assert (folder / "1-1").is_dir()


def killed_detach(killing: Killing, hook: Hook, expected: int | None = None) -> None:
    """Detach in a child that dies when the stand-in is on the hook."""
    for step in range(1, 100):
        if killing.die(lambda: hook.delete(expected=expected), step) == "LINK_DETACH":
            break
    assert present(hook).program.name == LEAVING


def attach_by_link(hook: Hook) -> None:
    hook.add(program()).close()
    hook.delete()


def attach_by_netlink_alone(hook: Hook) -> None:
    hook.add(program(), via=Via.NETLINK).close()
    hook.delete()


def attach_for_a_block(hook: Hook) -> None:
    with hook.add(program(), pin=False):
        assert present(hook).program.name == "minimal"


def detach_again(hook: Hook) -> None:
    with pytest.raises(UsageError, match="nothing is attached"):
        hook.delete()


def clean_up(hook: Hook) -> None:
    (told,) = clean(pin_root=hook.place.pin_root)
    assert told.what == "a detach that was killed"


NEXT = (attach_by_link, attach_by_netlink_alone, attach_for_a_block, detach_again, clean_up)


@pytest.mark.parametrize("following", NEXT)
def test_a_detach_that_was_killed_is_finished_by_whatever_comes_next(
    site: Site, veth: Veth, killing: Killing, following: Callable[[Hook], None]
) -> None:
    hook = site.added(veth)
    killed_detach(killing, hook, present(hook).program.id)

    following(hook)

    assert hook.status().attached == ()
    site.clean()
    assert site.folders() == []


@pytest.mark.parametrize("following", NEXT)
def test_the_detach_of_a_foreign_program_that_was_killed_is_finished_too(
    site: Site, veth: Veth, killing: Killing, following: Callable[[Hook], None]
) -> None:
    hook = site.hook(veth.name)
    with foreign_link(veth):
        killed_detach(killing, hook, present(hook).program.id)

        following(hook)

        assert hook.status().attached == ()
    assert site.folders() == []


@ways
def test_a_hooks_pins_that_somebody_removed_are_missed_by_nobody_else(
    site: Site, veth: Veth, via: Via
) -> None:
    hook = site.added(veth, via)
    (folder,) = site.folders()
    for path in folder.iterdir():
        if path.name != "link":
            path.unlink()

    hook.replace(jumping(), force=True).close()
    assert_runs(hook)
    hook.delete()

    assert site.folders() == []


def test_a_pin_that_somebody_removed_detaches_and_the_rest_is_swept(site: Site, veth: Veth) -> None:
    hook = site.added(veth)
    (folder,) = site.folders()
    (folder / "link").unlink()
    # The kernel lets go of the link in the background.
    wait_until(lambda: hook.status().attached == ())

    with pytest.raises(UsageError, match="nothing is attached"):
        hook.delete()

    assert site.folders() == []
