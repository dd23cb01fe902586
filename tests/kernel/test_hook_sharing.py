# SPDX-License-Identifier: Apache-2.0
"""One program on several hooks, and several programs with maps of one hook: none is mixed up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

import xdpkit
from tests.kernel import compiled
from tests.kernel.attaching import on_hook, program
from tests.kernel.net import Veth, make_veth, namespace
from xdpkit import Hook, Program, Via, XdpAction
from xdpkit.hook import AttachedProgram, Owner, records
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import Register
from xdpkit.syscalls.fd import Fd

PACKET = bytes(64)

ways = pytest.mark.parametrize("via", list(Via), ids=lambda via: via.value)


@pytest.fixture
def loaded() -> Iterator[Program]:
    with xdpkit.load(program()) as it:
        yield it


@pytest.fixture
def jumping() -> Iterator[Program]:
    with xdpkit.load(program("program_array.c", "constant_slot")) as it:
        yield it


def hook_of(veth: Veth, pin_root: str) -> Hook:
    return Hook(veth.name, netns=veth.netns, pin_root=pin_root)


def present(veth: Veth, pin_root: str) -> AttachedProgram:
    found = on_hook(veth, pin_root)
    assert found is not None
    return found


def action_of(hook: Hook) -> XdpAction | int | None:
    opened = hook.open()
    assert opened is not None
    with opened:
        return opened.program.run(PACKET).action


def slots(hook: Hook) -> dict[str, int]:
    """Return how many entries the program's arrays have."""
    opened = hook.open()
    assert opened is not None
    with opened:
        return {name: len(dict(array)) for name, array in opened.maps.items()}


@ways
def test_tail_calls_within_tail_calls_survive_changes_of_this_hook_and_of_others(
    veth: Veth, pin_root: str, via: Via
) -> None:
    spec = compiled.read("nested").programs["first"]
    other = make_veth(veth.netns)
    hook, others = hook_of(veth, pin_root), hook_of(other, pin_root)
    hook.add(spec, via=via).close()
    assert action_of(hook) is XdpAction.DROP

    others.add(program()).close()
    assert action_of(hook) is XdpAction.DROP

    hook.replace(spec).close()
    assert action_of(hook) is XdpAction.DROP

    xdpkit.clean(pin_root=pin_root)
    assert action_of(hook) is XdpAction.DROP
    hook.delete()
    others.delete()
    assert os.listdir(f"{pin_root}/xdpkit") == []


def test_a_program_by_link_here_and_by_netlink_there_is_told_apart(
    veth: Veth, pin_root: str, loaded: Program
) -> None:
    with namespace() as elsewhere:
        twin = make_veth(elsewhere)
        assert twin.interface.index == veth.interface.index
        hook, others = hook_of(veth, pin_root), hook_of(twin, pin_root)
        hook.add(loaded).close()
        others.add(loaded, via=Via.NETLINK).close()

        assert present(veth, pin_root).via is Via.LINK
        assert (present(twin, pin_root).via, present(twin, pin_root).link_id) == (
            Via.NETLINK,
            None,
        )
        others.delete()

        assert on_hook(twin, pin_root) is None
        assert present(veth, pin_root).program.id == loaded.id
        hook.delete()


def test_detaching_one_hook_leaves_the_pins_of_another_with_the_same_program(
    veth: Veth, pin_root: str, jumping: Program
) -> None:
    other = make_veth(veth.netns)
    hook, others = hook_of(veth, pin_root), hook_of(other, pin_root)
    hook.add(jumping, via=Via.NETLINK, force=True).close()
    held = slots(hook)
    with others.add(jumping, via=Via.NETLINK, pin=False, force=True):
        pass
    assert on_hook(other, pin_root) is None
    jumping.close()

    assert slots(hook) == held
    assert any(held.values())
    hook.delete()


def test_a_record_of_one_hook_makes_no_other_ours(
    veth: Veth, pin_root: str, loaded: Program
) -> None:
    other = make_veth(veth.netns)
    with hook_of(veth, pin_root).add(loaded, via=Via.NETLINK):
        by_somebody = hook_of(other, pin_root)
        with Program(Fd.duplicate(loaded.fileno())) as same:
            by_somebody.add(same, via=Via.NETLINK).close()
            records.clear_for(
                same.fileno(),
                netns_cookie=other.interface.netns_cookie,
                ifindex=other.interface.index,
            )
        found = present(other, pin_root)
        assert (found.owner, found.record) == (Owner.UNKNOWN, None)
        with pytest.raises(xdpkit.HookBusy, match="xdpkit did not attach what is there"):
            by_somebody.delete()
        by_somebody.delete(expected=loaded)
        hook_of(veth, pin_root).delete()


def test_a_program_that_lives_on_keeps_no_record_of_what_has_ended(
    veth: Veth, pin_root: str, loaded: Program
) -> None:
    hook = hook_of(veth, pin_root)
    for _ in range(3):
        hook.add(loaded).close()
        assert len(records.find_all(loaded.fileno())) == 1
        hook.delete()
        assert records.find_all(loaded.fileno()) == ()
    names = [xdpkit.Map.from_id(number) for number in loaded.info().map_ids]
    try:
        assert sum(found.name == "xdpkit_record" for found in names) == 1
    finally:
        for found in names:
            found.close()


def test_a_program_that_is_merely_called_like_a_stand_in_stays(veth: Veth, pin_root: str) -> None:
    drop: list[Instruction] = [asm.mov(Register.R0, XdpAction.DROP), asm.exit()]
    with compiled.assembled(*drop, name="xdpkit_leaving") as impostor:
        hook = hook_of(veth, pin_root)
        hook.add(impostor, via=Via.NETLINK).close()
        assert not present(veth, pin_root).is_leaving
        with pytest.raises(xdpkit.HookBusy, match="already has program"):
            hook.add(program())
        hook.delete(expected=impostor)


def test_a_program_opened_from_one_hook_keeps_its_tail_calls_on_another(
    veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    hook, others = hook_of(veth, pin_root), hook_of(other, pin_root)
    hook.add(program("program_array.c", "constant_slot"), force=True).close()
    held = slots(hook)
    opened = hook.open()
    assert opened is not None
    with opened:
        others.add(opened.program, force=True).close()
    hook.delete()

    assert slots(others) == held
    assert any(held.values())
    others.delete()


def test_a_program_whose_image_a_later_version_wrote_is_opened_all_the_same(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(_: int) -> None:
        raise xdpkit.RequirementUnmet("read an image", cause="a later version wrote it")

    hook = hook_of(veth, pin_root)
    hook.add(program("program_array.c", "constant_slot"), force=True).close()
    monkeypatch.setattr(records, "image_of", later)
    opened = hook.open()
    assert opened is not None
    with opened:
        assert "jumps" in opened.maps
        opened.detach()


@ways
def test_a_program_that_did_not_get_on_the_hook_has_no_record_of_it(
    veth: Veth, pin_root: str, loaded: Program, monkeypatch: pytest.MonkeyPatch, via: Via
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise xdpkit.KernelRefused("try", errno=errno.ENOMEM)

    hook = hook_of(veth, pin_root)
    with monkeypatch.context() as patched:
        patched.setattr("xdpkit.syscalls.bpf.link_create", refuse)
        patched.setattr("xdpkit.syscalls.rtnetlink.set_xdp", refuse)
        with pytest.raises(xdpkit.KernelRefused):
            hook.add(loaded, via=via)
    assert records.find_all(loaded.fileno()) == ()

    hook.add(program(), via=via).close()
    with monkeypatch.context() as patched:
        patched.setattr("xdpkit.syscalls.bpf.link_update", refuse)
        patched.setattr("xdpkit.syscalls.rtnetlink.set_xdp", refuse)
        with pytest.raises(xdpkit.KernelRefused):
            hook.replace(loaded)
    assert records.find_all(loaded.fileno()) == ()
    assert present(veth, pin_root).record is not None
    hook.delete()
