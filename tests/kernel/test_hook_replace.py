# SPDX-License-Identifier: Apache-2.0
"""Add, replace, delete and open, by link and by netlink, in native and in generic mode."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import (
    attach_by_netlink,
    foreign_link,
    link_of,
    on_hook,
    program,
    raw_program,
)
from tests.kernel.compiled import read, returning
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink, swap_names
from tests.kernel.process import xdpkit_command
from xdpkit import Hook, Mode
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError
from xdpkit.hook import Add, AttachedProgram, Delete, Owner, Replace, Via, XdpProg
from xdpkit.hook.holding import ByLink, ByNetlink, is_held_by_link
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netns import path_of
from xdpkit.uapi.bpf import MapType, XdpAction

pytestmark = pytest.mark.needs("bpf-link-xdp")

PACKET = bytes(64)

ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])
modes = pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC], ids=["native", "generic"])


@pytest.fixture
def hook(veth: Veth, pin_root: str) -> Iterator[Hook]:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    yield hook
    with contextlib.suppress(UsageError):
        hook.delete()
        assert not list(Path(pin_root).glob("xdpkit/*"))


def named(name: str) -> xdpkit.ProgramSpec:
    return read("counting").programs[name]


def jumping() -> xdpkit.ProgramSpec:
    return program("program_array.c", "constant_slot")


def present(hook: Hook) -> AttachedProgram:
    (found,) = hook.status().attached
    return found


@ways
@modes
def test_what_was_added_stays_and_is_told(hook: Hook, via: Via, mode: Mode) -> None:
    with hook.add(named("one"), via=via, mode=mode, cookie=1 << 63) as added:
        assert (added.via, added.mode, added.is_for_a_block) == (via, mode, False)

    found = present(hook)
    assert found.program.id == added.program.id
    assert (found.mode, found.via, found.owner) == (mode, via, Owner.XDPKIT)
    assert (found.link_id, found.pinned) == (added.link_id, added.pinned)
    assert (found.link_id is None, found.pinned is None) == (via is Via.NETLINK,) * 2
    assert found.record is not None
    record = found.record.record
    assert (record.program, record.cookie, record.via) == ("one", 1 << 63, via)
    assert record.origin.path == named("one").object.path


@ways
@modes
def test_a_program_is_replaced_and_what_holds_it_stays(hook: Hook, via: Via, mode: Mode) -> None:
    hook.add(named("one"), via=via, mode=mode).close()
    before = present(hook)

    with hook.replace(named("other")) as replaced:
        assert (replaced.via, replaced.mode, replaced.pinned) == (via, mode, before.pinned)

    after = present(hook)
    assert after.program.id == replaced.program.id != before.program.id
    assert (after.via, after.mode, after.link_id) == (via, mode, before.link_id)
    assert after.record is not None
    assert after.record.record.program == "other"
    with pytest.raises(UsageError):
        xdpkit.Program.from_id(before.program.id)


def as_id(attached: XdpProg) -> int:
    return attached.program.id


def as_program(attached: XdpProg) -> xdpkit.Program:
    return attached.program


def as_what_was_returned(attached: XdpProg) -> XdpProg:
    return attached


@ways
@pytest.mark.parametrize("form", [as_id, as_program, as_what_was_returned])
def test_only_the_expected_program_is_replaced_or_deleted(
    hook: Hook, via: Via, form: Callable[[XdpProg], int | xdpkit.Program | XdpProg]
) -> None:
    with (
        hook.add(named("one"), via=via) as first,
        hook.replace(named("other"), expected=form(first)) as second,
    ):
        gone = rf"program {first.program.id} is expected, but there is program {second.program.id}"
        with pytest.raises(HookBusy, match=gone):
            hook.replace(named("one"), expected=form(first))
        with pytest.raises(HookBusy, match=gone):
            hook.delete(expected=form(first))
        assert present(hook).program.id == second.program.id

        detached = hook.delete(expected=form(second))
    assert (detached.program.id, detached.program.name) == (second.program.id, "other")
    assert hook.status().attached == ()


@ways
@pytest.mark.parametrize("verb", ["replace", "delete"])
def test_who_comes_between_the_look_and_the_change_stays(
    hook: Hook, via: Via, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks do not reach other containers: there the kernel compares and swaps."""
    kind = ByLink if via is Via.LINK else ByNetlink
    hook.add(named("one"), via=via).close()
    expected = present(hook).program.id
    with returning(XdpAction.PASS, name="from_elsewhere") as other:
        method = "swap" if verb == "replace" or via is Via.LINK else "drop"
        real = getattr(kind, method)

        def after_another(holding: ByLink | ByNetlink, *arguments: object) -> None:
            monkeypatch.setattr(kind, method, real)
            holding.swap(other.fileno(), None, "come first")
            real(holding, *arguments)

        monkeypatch.setattr(kind, method, after_another)
        change: Callable[[], object] = partial(hook.delete, expected=expected)
        if verb == "replace":
            change = partial(hook.replace, named("other"))
        with pytest.raises(HookBusy, match="the program that was seen there is not there any more"):
            change()

        assert present(hook).program.id == other.id
        hook.delete(expected=other.id)


@pytest.mark.parametrize("expected", [None, 1])
def test_nothing_is_replaced_on_an_empty_hook(hook: Hook, expected: int | None) -> None:
    with pytest.raises(UsageError, match="nothing is attached to it"):
        hook.replace(named("one"), expected=expected)


@ways
@modes
def test_what_is_there_is_not_added_to(hook: Hook, via: Via, mode: Mode) -> None:
    hook.add(named("one"), via=via, mode=mode).close()

    for other in Via:
        with pytest.raises(HookBusy, match=rf"already has program \d+ \(one, .* in {mode.value}"):
            hook.add(named("other"), via=other)

    assert present(hook).program.name == "one"


def test_a_foreign_program_is_replaced_only_by_its_id_and_its_link_stays_its_owners(
    hook: Hook, veth: Veth
) -> None:
    with foreign_link(veth) as link_id:
        foreign = present(hook)
        with pytest.raises(HookBusy, match="xdpkit did not attach what is there") as caught:
            hook.replace(named("one"))
        assert f"--expect {foreign.program.id}" in str(caught.value.remedy)
        assert present(hook).program.id == foreign.program.id

        with hook.replace(named("one"), expected=foreign.program.id) as replaced:
            assert "goes when whoever attached the one before it lets go" in replaced.notes[0]
        assert (present(hook).link_id, present(hook).program.name) == (link_id, "one")

    # Somebody who only looks at all links holds this one for a moment, too.
    wait_until(lambda: hook.status().attached == ())


def test_a_foreign_program_of_netlink_is_replaced_by_netlink(hook: Hook, veth: Veth) -> None:
    attach_by_netlink(veth)
    foreign = present(hook)
    with pytest.raises(HookBusy, match="xdpkit did not attach what is there"):
        hook.replace(named("one"))

    hook.replace(named("one"), expected=foreign.program.id).close()

    assert (present(hook).via, present(hook).owner) == (Via.NETLINK, Owner.XDPKIT)


def test_a_foreign_program_is_deleted_only_by_its_id(hook: Hook, veth: Veth) -> None:
    with foreign_link(veth) as link_id:
        with pytest.raises(HookBusy, match="xdpkit did not attach what is there"):
            hook.delete()
        detached = hook.delete(expected=present(hook).program.id)
        assert (detached.link_id, detached.program.name) == (link_id, "foreign")
        assert hook.status().attached == ()


@ways
def test_the_successor_of_a_program_for_a_block_goes_with_its_own_block(
    hook: Hook, via: Via
) -> None:
    with hook.add(named("one"), pin=False, via=via) as first:
        with first.replace(named("other")) as second:
            assert (second.is_for_a_block, first.is_for_a_block) == (True, False)
            assert present(hook).program.id == second.program.id
        assert hook.status().attached == ()
        first.detach()


def test_a_block_that_ends_leaves_the_program_of_somebody_else(hook: Hook) -> None:
    block = hook.add(named("one"), pin=False, via=Via.NETLINK)
    hook.replace(named("other"), expected=block.program.id).close()

    with pytest.raises(HookBusy, match="is expected, but there is"), block:
        pass

    assert present(hook).program.name == "other"


@ways
def test_program_arrays_are_kept_as_long_as_they_are_used(
    hook: Hook, pin_root: str, via: Via
) -> None:
    def pinned_maps() -> set[str]:
        return {path.name for path in Path(pin_root).glob("xdpkit/*/map-*")}

    def arrays(attached: XdpProg) -> set[str]:
        found = attached.maps.values()
        program_id = attached.program.id
        return {f"map-{program_id}-{each.id}" for each in found if each.type == MapType.PROG_ARRAY}

    with hook.add(jumping(), via=via, force=True) as first:
        of_first = arrays(first)
    assert pinned_maps() == of_first
    with hook.replace(jumping(), force=True) as second:
        of_second = arrays(second)
    assert pinned_maps() == of_second != of_first
    with hook.open() or pytest.fail("empty") as opened:
        assert opened.program.run(PACKET).action is XdpAction.PASS

    hook.replace(named("one")).close()

    assert pinned_maps() == set()
    hook.replace(jumping(), force=True).close()
    assert len(pinned_maps()) == 2


@ways
def test_a_change_that_fails_leaves_the_pins_as_they_were(
    hook: Hook, pin_root: str, via: Via, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HookBusy("change it", cause="for the test")

    with monkeypatch.context() as failing:
        failing.setattr("xdpkit.hook.add.bpf.link_create", fail)
        failing.setattr("xdpkit.hook.add.set_program", fail)
        with pytest.raises(HookBusy, match="for the test"):
            hook.add(jumping(), via=via, force=True)
    assert not list(Path(pin_root).glob("xdpkit/*"))
    hook.add(jumping(), via=via, force=True).close()
    before = sorted(Path(pin_root).rglob("*"))
    id_before = present(hook).program.id

    with monkeypatch.context() as failing:
        for kind in (ByLink, ByNetlink):
            failing.setattr(kind, "swap", fail)
        with pytest.raises(HookBusy, match="for the test"):
            hook.replace(jumping(), force=True)

    assert sorted(Path(pin_root).rglob("*")) == before
    assert present(hook).program.id == id_before


@ways
def test_what_is_on_a_hook_is_opened_with_its_maps_by_name(hook: Hook, via: Via) -> None:
    assert hook.open() is None
    with hook.add(named("one"), via=via, cookie=7) as added:
        added.maps["seen_by_one"][0] = [5] * len(added.maps["seen_by_one"][0])

    opened = hook.open()

    assert opened is not None
    with opened:
        assert (opened.program.id, opened.program.name) == (added.program.id, "one")
        assert set(opened.maps["seen_by_one"][0]) == {5}
        assert opened.record is not None
        assert (opened.record.cookie, opened.via, opened.link_id) == (7, via, added.link_id)
        hook.replace(named("other"), expected=opened).close()
    assert present(hook).program.name == "other"


def test_a_foreign_program_is_opened_without_a_record(hook: Hook, veth: Veth) -> None:
    with foreign_link(veth) as link_id:
        opened = hook.open()
        assert opened is not None
        with opened:
            assert (opened.program.name, opened.record, opened.negotiation) == (
                "foreign",
                None,
                None,
            )
            assert (opened.link_id, opened.is_for_a_block) == (link_id, False)
        assert present(hook).link_id == link_id


@ways
def test_a_program_that_was_opened_can_be_detached(hook: Hook, via: Via) -> None:
    hook.add(named("one"), via=via).close()

    opened = hook.open()
    assert opened is not None
    with opened:
        opened.detach()
        opened.detach()

        assert hook.status().attached == ()


@ways
def test_a_loaded_program_is_put_on_two_hooks(
    hook: Hook, veth: Veth, pin_root: str, via: Via
) -> None:
    peer = Hook(veth.peer, netns=veth.peer_netns, pin_root=pin_root)
    with xdpkit.load(jumping()) as loaded:
        hook.add(loaded, via=via, cookie=1, force=True).close()
        peer.add(loaded, via=via, cookie=2, force=True).close()
        number = loaded.id
    cookies = [found.record and found.record.record.cookie for found in map(present, (hook, peer))]
    assert cookies == [1, 2]

    hook.delete()

    assert present(peer).program.id == number
    with xdpkit.Program.from_id(number) as running:
        assert running.run(PACKET).action is XdpAction.PASS
    peer.delete()


def test_generic_mode_is_taken_only_where_it_is_named_and_then_said(
    netns: str, pin_root: str
) -> None:
    hook = Hook("lo", netns=netns, pin_root=pin_root)
    with pytest.raises(xdpkit.XdpkitError):
        hook.add(named("one"))
    assert hook.status().attached == ()

    with hook.add(named("one"), mode="native,generic") as added:
        assert added.mode is Mode.GENERIC
        assert any(note.startswith("not in native mode: ") for note in added.notes)
    hook.delete()


@ways
def test_what_is_prepared_changes_nothing(hook: Hook, pin_root: str, veth: Veth, via: Via) -> None:
    def prepared() -> tuple[object, ...]:
        return veth.interface.xdp, sorted(Path(pin_root).rglob("*"))

    before = prepared()
    add = Add(hook.place, named("one"), via=via)
    assert add.describe().startswith(f"would attach one to {veth.name} in native mode, ")
    assert add.to_dict()["via"] == via.value
    assert prepared() == before
    add.apply().close()

    before = prepared()
    replace = Replace(hook.place, named("other"))
    assert replace.describe().startswith(f"would replace on {veth.name}: program ")
    assert replace.to_dict()["program"] == "other"
    assert prepared() == before
    replace.apply().close()

    before = prepared()
    delete = Delete(hook.place)
    assert delete.describe().startswith(f"would detach from {veth.name}: program ")
    assert delete.to_dict()["change"] == "detach"
    assert prepared() == before
    delete.apply()
    for empty in (Delete(hook.place).describe, Delete(hook.place).to_dict):
        with pytest.raises(UsageError, match="nothing is attached"):
            empty()


@ways
def test_a_change_that_was_prepared_is_refused_if_the_hook_is_another_meanwhile(
    hook: Hook, via: Via
) -> None:
    add = Add(hook.place, named("one"), via=via)
    hook.add(named("other"), via=via).close()
    with pytest.raises(HookBusy, match="already has program"):
        add.apply()
    replace, delete = Replace(hook.place, named("one")), Delete(hook.place)
    hook.delete()

    with pytest.raises(HookBusy, match="is not there any more"):
        replace.apply()
    with pytest.raises(UsageError, match="nothing is attached"):
        delete.apply()


def test_nothing_is_left_open_after_a_refused_replace(hook: Hook) -> None:
    named("one").link()
    with raw_program("stranger") as stranger:
        hook.add(named("one")).close()
        before = os.listdir("/proc/self/fd")
        with pytest.raises(HookBusy):
            hook.replace(named("other"), expected=bpf.prog_info(stranger.fileno())[0].id)
        assert os.listdir("/proc/self/fd") == before


def test_an_interface_that_is_gone_is_named(hook: Hook, veth: Veth) -> None:
    hook.add(named("one")).close()
    prepared = Replace(hook.place, named("other"))
    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)

    with pytest.raises(UsageError, match="has no such interface"):
        prepared.apply()
    with pytest.raises(UsageError, match="has no such interface"):
        hook.replace(named("other"))


def test_a_change_that_was_prepared_follows_its_interface_and_not_the_name(
    hook: Hook, veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    there = Hook(other.name, netns=veth.netns, pin_root=pin_root)
    hook.add(named("one")).close()
    there.add(named("one")).close()
    replace, delete = Replace(hook.place, named("other")), Delete(hook.place)
    swap_names(veth, other)

    replace.apply().close()
    assert (present(hook).program.name, present(there).program.name) == ("one", "other")
    assert delete.apply().interface.index == delete.found.interface.index
    assert (present(hook).program.name, there.status().attached) == ("one", ())


def test_a_change_that_was_prepared_in_another_namespace_of_the_same_name_is_refused(
    veth: Veth, pin_root: str, tmp_path: Path
) -> None:
    name = tmp_path / "namespace"
    name.symlink_to(path_of(veth.netns))
    hook = Hook(veth.name, netns=name, pin_root=pin_root)
    add = Add(hook.place, named("one"))
    hook.add(named("one")).close()
    replace, delete = Replace(hook.place, named("other")), Delete(hook.place)
    with namespace() as elsewhere:
        twin = make_veth(elsewhere)
        assert twin.interface.index == veth.interface.index
        name.unlink()
        name.symlink_to(path_of(elsewhere))
        for change in (add, replace, delete):
            with pytest.raises(UsageError, match="seen in another network namespace"):
                change.apply()
        assert on_hook(twin, pin_root) is None
    name.unlink()
    name.symlink_to(path_of(veth.netns))
    assert delete.apply().program.name == "one"


def test_the_program_of_another_hook_that_is_expected_here_is_replaced_here(
    hook: Hook, veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    there = Hook(other.name, netns=veth.netns, pin_root=pin_root)
    with xdpkit.load(named("one")) as loaded, there.add(loaded, pin=False) as elsewhere:
        hook.add(loaded).close()

        with hook.replace(named("other"), expected=elsewhere) as replaced:
            assert not replaced.is_for_a_block
        assert (present(hook).program.name, present(there).program.name) == ("other", "one")

        hook.replace(loaded).close()
        hook.delete(expected=elsewhere)
        assert (hook.status().attached, present(there).program.name) == ((), "one")
        assert elsewhere.link is not None


@pytest.fixture
def twin(veth: Veth) -> Iterator[Veth]:
    """An interface with the same index in another namespace."""
    with namespace() as elsewhere:
        twin = make_veth(elsewhere)
        assert twin.interface.index == veth.interface.index
        yield twin


def test_a_link_of_another_namespace_is_not_taken_for_what_netlink_holds(
    veth: Veth, twin: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with raw_program("foreign") as loaded, link_of(loaded, twin):
        attach_by_netlink(veth, loaded)
        number = present(hook).program.id
        for change in (hook.delete, partial(hook.add, named("one"))):
            with pytest.raises(HookBusy, match=r"in native mode, by netlink") as caught:
                change()
            assert f"ip link set dev {veth.name} xdpdrv off" in str(caught.value.remedy)
            assert "bpftool" not in str(caught.value.remedy)

        with hook.replace(named("one"), expected=number) as replaced:
            assert (replaced.via, replaced.link_id, replaced.notes) == (Via.NETLINK, None, ())
        on_twin = on_hook(twin, pin_root)
        assert on_twin is not None
        assert on_twin.program.id == number
        assert hook.delete().link_id is None


def test_netlinks_program_is_not_kept_by_a_link_that_was_pinned_in_another_namespace(
    veth: Veth, twin: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    there = Hook(twin.name, netns=twin.netns, pin_root=pin_root)
    with xdpkit.load(named("one")) as loaded:
        there.add(loaded).close()
        attach_by_netlink(veth, loaded)
        with pytest.raises(HookBusy, match="xdpkit did not attach what is there"):
            hook.delete()

        detached = hook.delete(expected=loaded.id)

    assert (detached.link_id, hook.status().attached) == (None, ())
    assert present(there).pinned is not None
    there.delete()


def test_links_that_the_kernel_does_not_tell_apart_are_left_alone(
    veth: Veth, twin: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with (
        raw_program("foreign") as loaded,
        link_of(loaded, veth) as here,
        link_of(loaded, twin) as there,
    ):
        number = bpf.prog_info(loaded.fileno())[0].id
        for change in (hook.delete, partial(hook.replace, named("one"))):
            with pytest.raises(HookBusy, match="the kernel does not tell which") as caught:
                change(expected=number)
        for link in (here, there):
            assert str(bpf.link_info(link.fileno()).id) in caught.value.cause
        assert "bpftool link detach id N" in str(caught.value.remedy)
        assert {found and found.program.id for found in map(on_hook, (veth, twin))} == {number}


def test_who_holds_one_of_several_links_that_fit_changes_by_that(
    veth: Veth, twin: Veth, pin_root: str
) -> None:
    with (
        xdpkit.load(named("one")) as loaded,
        xdpkit.attach(twin.name, loaded, netns=twin.netns) as there,
        xdpkit.attach(veth.name, loaded, netns=veth.netns, pin_root=pin_root) as here,
        here.replace(named("other")) as replaced,
    ):
        assert replaced.link_id != there.link_id
        on_twin = on_hook(twin)
        assert on_twin is not None
        assert on_twin.program.id == loaded.id


def test_whether_a_link_holds_a_hook_is_asked_without_a_change(veth: Veth) -> None:
    def asked() -> bool:
        before = veth.interface.xdp
        answer = is_held_by_link(veth.interface, Mode.NATIVE, "ask")
        assert veth.interface.xdp == before
        return answer

    assert not asked()
    with foreign_link(veth):
        assert asked()
        assert not is_held_by_link(veth.interface, Mode.GENERIC, "ask")
    wait_until(lambda: not veth.interface.xdp)
    attach_by_netlink(veth)
    assert not asked()


def test_a_replacement_whose_maps_could_not_be_kept_is_refused_at_once(
    veth: Veth, pin_root: str, tmp_path: Path
) -> None:
    elsewhere = Hook(veth.name, netns=veth.netns, pin_root=tmp_path)
    with elsewhere.add(named("one"), via=Via.NETLINK, pin=False) as attached:
        with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
            Replace(elsewhere.place, jumping(), force=True)
        assert "--netlink" not in str(caught.value.remedy)
        assert present(elsewhere).program.id == attached.program.id
        # What is for a block holds its maps itself.
        attached.replace(jumping(), force=True).detach()


def test_a_prepared_change_that_comes_too_late_leaves_the_newcomers_maps(
    hook: Hook, pin_root: str
) -> None:
    hook.add(jumping(), via=Via.NETLINK, force=True).close()
    prepared = Replace(hook.place, named("one"))
    hook.replace(jumping(), force=True).close()
    before = sorted(Path(pin_root).rglob("*"))

    with pytest.raises(HookBusy, match="is not there any more"):
        prepared.apply()

    assert sorted(Path(pin_root).rglob("*")) == before


@ways
@pytest.mark.parametrize("verb", ["replace", "delete"])
def test_a_program_that_lives_on_keeps_no_record_of_the_hook_that_it_left(
    hook: Hook, veth: Veth, via: Via, verb: str
) -> None:
    with xdpkit.load(named("one")) as loaded:
        hook.add(loaded, via=via, cookie=7).close()
        if verb == "replace":
            hook.replace(named("other")).close()
        hook.delete()
        attach_by_netlink(veth, loaded)

        assert (present(hook).record, present(hook).owner) == (None, Owner.UNKNOWN)
        hook.delete(expected=loaded)


def test_a_program_that_replaces_itself_keeps_its_record(hook: Hook) -> None:
    with xdpkit.load(named("one")) as loaded:
        hook.add(loaded, cookie=7).close()
        hook.replace(loaded, cookie=8).close()

    found = present(hook).record
    assert found is not None
    assert found.record.cookie == 8


@ways
def test_what_holds_a_replacement_is_known(hook: Hook, via: Via) -> None:
    with hook.add(named("one"), via=via) as first, hook.replace(named("other")) as second:
        assert second.link_id == first.link_id == present(hook).link_id


def test_only_of_somebody_elses_link_it_is_said_that_they_may_let_go(
    hook: Hook, veth: Veth
) -> None:
    attach_by_netlink(veth)
    with hook.replace(named("one"), expected=present(hook).program.id) as replaced:
        assert replaced.notes == ()
    hook.delete()
    with (
        foreign_link(veth),
        hook.open() or pytest.fail("empty") as opened,
        opened.replace(named("one")) as replaced,
    ):
        assert "goes when whoever attached the one before it lets go" in replaced.notes[0]
        assert replaced.link_id == present(hook).link_id
    wait_until(lambda: hook.status().attached == ())


@pytest.mark.parametrize("expected", ["123", 1.5, b"1"])
def test_what_cannot_be_expected_is_refused(hook: Hook, expected: Any) -> None:
    hook.add(named("one")).close()
    for change in (hook.delete, partial(hook.replace, named("other"))):
        with pytest.raises(UsageError, match="give a program's id, or what was returned for it"):
            change(expected=expected)
    assert present(hook).program.name == "one"


def test_of_what_was_closed_the_id_counts(hook: Hook) -> None:
    first = hook.add(named("one"))
    first.close()
    second = hook.replace(named("other"), expected=first)
    second.close()

    with pytest.raises(HookBusy, match="is expected, but there is"):
        hook.delete(expected=first.program)
    assert hook.delete(expected=second.program).program.name == "other"


def test_whoever_came_first_is_shown_by_a_command_that_works(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rtnetlink(veth.netns) as connection:
        index = veth.interface.index
        # Before Linux 6.2 an interface keeps its name while it is up.
        connection.link("set", index=index, state="down")
        connection.link("set", index=index, ifname="-odd")
        connection.link("set", index=index, state="up")
    hook = Hook("-odd", netns=veth.netns, pin_root=pin_root)
    hook.add(named("one")).close()
    with returning(XdpAction.PASS, name="from_elsewhere") as other:
        real = ByLink.swap

        def after_another(holding: ByLink, *arguments: Any) -> None:
            monkeypatch.setattr(ByLink, "swap", real)
            holding.swap(other.fileno(), None, "come first")
            real(holding, *arguments)

        monkeypatch.setattr(ByLink, "swap", after_another)
        with pytest.raises(HookBusy) as caught:
            hook.replace(named("other"))

        assert caught.value.remedy == f"look again: xdpkit status -n {veth.netns} -- -odd"
        command = str(caught.value.remedy).removeprefix("look again: xdpkit ")
        assert "from_elsewhere" in xdpkit_command(*command.split()).output
    hook.delete(expected=present(hook).program.id)
