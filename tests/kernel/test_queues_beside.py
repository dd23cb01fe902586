# SPDX-License-Identifier: Apache-2.0
"""Programs of RX queues beside everything else that can be on a hook, or happen to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.compiled import returning
from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import has_root, scopes, set_channels
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit import Hook, Program
from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook import Via, clean, prepare_add, records
from xdpkit.hook.holding import ByLink
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType


@pytest.fixture
def hook(veth: Veth, pin_root: str) -> Iterator[Hook]:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    yield hook
    for undo in (hook.counters.disable, hook.clear):
        with contextlib.suppress(UsageError, HookBusy):
            undo()


@pytest.fixture
def loaded() -> Iterator[Program]:
    with xdpkit.load(program()) as found:
        yield found


def queues_in_record(hook: Hook, found: Program) -> tuple[int, ...] | None:
    interface = hook.place.resolve()
    stored = records.find(
        found.fileno(), netns_cookie=interface.netns_cookie, ifindex=interface.index
    )
    assert stored is not None
    return stored.record.queues


def test_the_first_program_of_a_queue_settles_what_waits(hook: Hook) -> None:
    hook.add(program()).close()
    with hook.replace(program(), revert_after=600) as waiting:
        hook.queues[1].add(program()).close()
        hook.queues[1].delete()
        assert scopes(hook) == {None: waiting.program.id}
    with pytest.raises(UsageError, match="no change on it waits"):
        hook.confirm()


def test_a_change_of_one_queue_settles_what_waits_and_sweeps(hook: Hook, pin_root: str) -> None:
    hook.queues[0].add(program()).close()
    hook.queues[1].add(program(), revert_after=600).close()
    root = hook.status().root
    assert root is not None
    kept = list(Path(pin_root).rglob(f"map-{root.program.id}-*"))
    assert len(kept) == 1
    hook.queues[0].replace(program()).close()
    with pytest.raises(UsageError, match="no change on it waits"):
        hook.confirm()
    assert list(Path(pin_root).rglob("map-*")) == kept


def test_beside_a_detach_that_waits_there_is_no_place(hook: Hook) -> None:
    hook.add(program()).close()
    hook.delete(revert_after=600)
    with pytest.raises(UsageError, match="being detached, which waits to be confirmed") as caught:
        hook.queues[1].add(program())
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("confirm that first: xdpkit confirm")


def test_whoever_loses_a_race_moves_no_pins(hook: Hook, pin_root: str) -> None:
    hook.counters.enable()
    late = prepare_add(hook.place, program())
    later = prepare_add(hook.place, program(), queues=frozenset({2}))
    hook.queues[1].add(program()).close()
    before = sorted(Path(pin_root).rglob("*"))
    with pytest.raises(HookBusy, match="already has program"):
        late.apply()
    with pytest.raises(HookBusy, match="another process changed the hook meanwhile"):
        later.apply()
    assert sorted(Path(pin_root).rglob("*")) == before
    hook.clear()
    assert hook.counters.read().is_enabled


def test_what_is_gone_meanwhile_is_said(hook: Hook) -> None:
    hook.add(program()).close()
    late = prepare_add(hook.place, program(), queues=frozenset({2}))
    hook.delete()
    with pytest.raises(HookBusy, match="another process changed the hook meanwhile"):
        late.apply()


def test_a_refused_change_leaves_the_record_as_it_was(
    hook: Hook, loaded: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise KernelRefused("try it", errno=16)

    hook.queues[1].add(loaded).close()
    with monkeypatch.context() as patched:
        patched.setattr(ByLink, "swap", refuse)
        with pytest.raises(KernelRefused):
            hook.queues[2, 3].add(loaded)
    assert queues_in_record(hook, loaded) == (1,)


def test_one_program_for_several_queues_is_written_down_for_all(
    hook: Hook, loaded: Program
) -> None:
    hook.queues[1].add(loaded).close()
    hook.queues[3].add(loaded).close()
    assert queues_in_record(hook, loaded) == (1, 3)
    hook.add(loaded).close()
    assert queues_in_record(hook, loaded) is None


def test_a_copy_that_counts_can_be_given_to_another_queue(hook: Hook, loaded: Program) -> None:
    hook.counters.enable()
    with hook.queues[0].add(loaded) as first, hook.queues[2].add(first.program) as second:
        assert first.program.id != second.program.id
        counted = hook.counters.read().programs
        assert [found.queues for found in counted] == [(0,), (2,)]
        first.replace(program()).close()
        second.detach()
        assert set(scopes(hook)) == {0}


def test_queues_can_be_gone_through(hook: Hook) -> None:
    assert [chosen.queues for chosen in hook.queues] == [{0}, {1}, {2}, {3}]
    assert 3 in hook.queues
    assert 4 not in hook.queues
    assert len(hook.queues) == 4
    for selector in (slice(None, None, 0), -1, "x", 1.5, True, ()):
        with pytest.raises(UsageError, match=r"choose RX queues|read queues"):
            hook.queues[selector]  # type: ignore[index]


def test_programs_of_queues_that_are_pinned_elsewhere_are_left_alone(
    hook: Hook, pin_root: str
) -> None:
    hook.queues[1].add(program(), via=Via.NETLINK).close()
    other = f"{pin_root}/other"
    os.mkdir(other, 0o700)
    elsewhere = Hook(hook.place.iface, netns=hook.place.netns, pin_root=other)
    before = scopes(hook)
    for change in (
        lambda: elsewhere.queues[2].add(program()),
        lambda: elsewhere.queues[1].replace(program()),
        lambda: elsewhere.queues[1].delete(),
    ):
        with pytest.raises(HookBusy, match="is not pinned below") as caught:
            change()
        assert caught.value.remedy == "name the place of the pins: --pin-root"
    assert scopes(hook) == before


def test_the_program_of_a_queue_is_opened_by_the_queue(hook: Hook) -> None:
    assert hook.queues[0].open() is None
    with hook.queues[0, 1].add(program()) as added:
        found = hook.queues[1].open()
        assert found is not None
        with found:
            assert (found.program.id, found.queues) == (added.program.id, frozenset({1}))
        with pytest.raises(UsageError, match="do not have one and the same program"):
            hook.queues[1, 2].open()
        assert hook.open() is None
        with hook.add(program()) as others:
            found = hook.open()
            assert found is not None
            with found:
                assert found.program.id == others.program.id


def test_a_program_with_frags_that_others_loaded_goes_to_a_queue(hook: Hook) -> None:
    new = NewProgram(
        type=ProgType.XDP,
        code=bytes.fromhex("b7000000020000009500000000000000"),
        license="GPL",
        name="theirs",
        attach_type=AttachType.XDP,
        flags=ProgFlags.XDP_HAS_FRAGS,
    )
    with Program(bpf.prog_load(new, what="load a program")) as theirs:
        hook.queues[0].add(theirs).close()
        assert scopes(hook) == {0: theirs.id}
        with returning(2) as plain, pytest.raises(RequirementUnmet, match="loaded alike"):
            hook.queues[1].add(plain)


def test_queues_that_are_not_in_use_are_said(hook: Hook, veth: Veth) -> None:
    hook.queues[2, 3].add(program()).close()
    set_channels(veth.peer, veth.peer_netns, rx=2, tx=2)
    set_channels(veth.name, veth.netns, rx=2, tx=2)
    (*_, last) = hook.status().programs
    text = f"queues 2-3 of {veth.name} are not in use now (ethtool -L)"
    assert last.note == f"minimal: {text}"
    with hook.queues[1].add(program()) as first:
        assert not any("not in use" in note for note in first.notes)
    hook.queues[3].delete()
    with hook.queues[3].add(program()) as waiting:
        text = f"queue 3 of {veth.name} is not in use now (ethtool -L): the program waits there"
        assert text in waiting.notes


def test_the_settings_of_an_interface_that_is_gone_are_cleaned_at_once(pin_root: str) -> None:
    with namespace() as netns:
        gone = make_veth(netns)
        hook = Hook(gone.name, netns=netns, pin_root=pin_root)
        hook.queues[1].add(program()).close()
        hook.counters.enable()
        with rtnetlink(netns) as connection:
            connection.link("del", ifname=gone.name)
        wait_until(lambda: bool(clean(pin_root=pin_root)))
        assert not list(Path(pin_root, "xdpkit").iterdir())


def test_a_root_goes_with_the_last_program_and_not_before(hook: Hook) -> None:
    hook.add(program()).close()
    hook.queues[0, 1].add(program()).close()
    assert has_root(hook)
    hook.queues[0].delete()
    assert has_root(hook)
    hook.queues[1].delete()
    assert not has_root(hook)
