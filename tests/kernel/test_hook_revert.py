# SPDX-License-Identifier: Apache-2.0
"""A change that nobody confirms is undone, whatever becomes of who made it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.compiled import read, returning
from tests.kernel.killing import Killing, killing, only_here, wait_until
from tests.kernel.net import Veth, rtnetlink
from xdpkit import Hook
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.hook import AttachedProgram, Via, clean, revert
from xdpkit.hook.state import LEAVING
from xdpkit.syscalls import proc
from xdpkit.uapi.bpf import XdpAction

__all__ = ["killing", "only_here"]

pytestmark = pytest.mark.needs("bpf-link-xdp", "prog-bind-map")

SOON = 0.3
LATE = 3600.0
PACKET = bytes(64)

ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])

SESSION = """
import os, signal, sys
import xdpkit
path, name, iface, netns, pin_root, after, fate = sys.argv[1:]
hook = xdpkit.Hook(iface, netns=netns, pin_root=pin_root)
hook.replace(xdpkit.read(path).programs[name], revert_after=float(after), force=True).close()
print("changed", flush=True)
if fate == "group":
    os.killpg(0, signal.SIGKILL)
signal.pause()
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A hook, and the processes that guard its changes."""

    hook: Hook
    pin_root: str

    def present(self) -> AttachedProgram | None:
        attached = self.hook.status().attached
        return attached[0] if attached else None

    def name(self) -> str | None:
        present = self.present()
        return present.program.name if present is not None else None

    def guards(self) -> list[int]:
        """Return the processes that guard this hook."""
        mine = f'"name": "{self.hook.place.iface}"'.encode()
        found = []
        for pid in proc.pids():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"xdpkit.hook.guard" in command and mine in command:
                    found.append(pid)
        return found

    def until_undone(self) -> None:
        """Wait until nobody guards the hook any more: what is to be undone is."""
        wait_until(lambda: not self.guards(), lambda: f"still guarded: {self.present()}")

    def pins(self) -> set[str]:
        return {path.name for path in Path(self.pin_root).glob("xdpkit/*/*")}


@pytest.fixture
def scene(veth: Veth, pin_root: str, only_here: None, killing: Killing) -> Iterator[Scene]:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    scene = Scene(hook, pin_root)
    yield scene
    for guard in scene.guards():
        os.kill(guard, signal.SIGKILL)
    with contextlib.suppress(UsageError):
        hook.delete()
    scene.until_undone()
    assert not list(Path(pin_root).glob("xdpkit/*"))


def named(name: str) -> xdpkit.ProgramSpec:
    return read("counting").programs[name]


def jumping() -> xdpkit.ProgramSpec:
    return program("program_array.c", "constant_slot")


@ways
def test_an_attach_that_nobody_confirms_empties_the_hook_again(scene: Scene, via: Via) -> None:
    scene.hook.add(jumping(), via=via, force=True, revert_after=SOON).close()
    assert scene.name() == "constant_slot"

    scene.until_undone()

    assert scene.present() is None
    assert scene.pins() == set()


@ways
def test_a_replace_that_nobody_confirms_brings_the_old_program_back(scene: Scene, via: Via) -> None:
    with scene.hook.add(jumping(), via=via, force=True) as old:
        pins = scene.pins()
    scene.hook.replace(jumping(), force=True, revert_after=SOON).close()
    changed = scene.present()
    assert changed is not None
    assert changed.program.id != old.program.id
    assert changed.record is not None
    assert changed.record.record.reverts_to == old.program.id

    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert (present.program.id, present.seconds_to_revert) == (old.program.id, None)
    assert scene.pins() == pins
    with xdpkit.Program.from_id(old.program.id) as running:
        assert running.run(PACKET).action is XdpAction.PASS


@ways
def test_a_detach_that_nobody_confirms_brings_the_program_back(scene: Scene, via: Via) -> None:
    with scene.hook.add(jumping(), via=via, force=True) as old:
        pins = scene.pins()
    scene.hook.delete(revert_after=SOON)
    assert scene.name() == LEAVING
    assert clean(pin_root=scene.pin_root) == ()

    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert present.program.id == old.program.id
    assert scene.pins() == pins
    with xdpkit.Program.from_id(old.program.id) as running:
        assert running.run(PACKET).action is XdpAction.PASS


@ways
def test_what_is_confirmed_stays_and_the_old_programs_maps_go(scene: Scene, via: Via) -> None:
    scene.hook.add(jumping(), via=via, force=True).close()
    of_old = {name for name in scene.pins() if name != "link"}
    with scene.hook.replace(jumping(), force=True, revert_after=LATE) as new:
        pass
    waiting = scene.present()
    assert waiting is not None
    assert waiting.seconds_to_revert is not None
    assert LATE - 60 < waiting.seconds_to_revert <= LATE
    assert of_old < scene.pins()

    assert scene.hook.confirm().program.id == new.program.id

    scene.until_undone()
    present = scene.present()
    assert present is not None
    assert (present.program.id, present.seconds_to_revert) == (new.program.id, None)
    assert of_old.isdisjoint(scene.pins())
    with pytest.raises(UsageError, match="no change on it waits to be confirmed"):
        scene.hook.confirm()


@ways
def test_a_detach_that_is_confirmed_empties_the_hook(scene: Scene, via: Via) -> None:
    scene.hook.add(jumping(), via=via, force=True).close()
    scene.hook.delete(revert_after=LATE)
    assert scene.pins()

    assert scene.hook.confirm().program.name == LEAVING

    assert scene.present() is None
    assert scene.pins() == set()
    scene.until_undone()
    assert scene.present() is None


@ways
@pytest.mark.parametrize("fate", ["group", "hang-up", "kill"])
def test_the_session_that_made_the_change_may_die(scene: Scene, via: Via, fate: str) -> None:
    with scene.hook.add(named("one"), via=via) as old:
        pass
    spec, place = named("other"), scene.hook.place
    arguments = [spec.object.path, spec.name, place.iface, place.netns, place.pin_root, SOON, fate]
    with subprocess.Popen(
        [sys.executable, "-c", SESSION, *map(str, arguments)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"changed\n"
        if fate == "hang-up":
            os.killpg(session.pid, signal.SIGHUP)
        elif fate == "kill":
            session.kill()
    assert session.returncode == -(signal.SIGHUP if fate == "hang-up" else signal.SIGKILL)

    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert present.program.id == old.program.id


@ways
def test_a_program_that_somebody_put_there_meanwhile_is_left_alone(scene: Scene, via: Via) -> None:
    scene.hook.add(named("one"), via=via).close()
    scene.hook.replace(named("other"), revert_after=LATE).close()
    with scene.hook.replace(jumping(), force=True) as third:
        pass

    # The guard sees it, and has nothing to do any more.
    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert (present.program.id, present.seconds_to_revert) == (third.program.id, None)


def test_an_emptied_hook_stays_empty(scene: Scene) -> None:
    scene.hook.add(named("one")).close()
    scene.hook.replace(named("other"), revert_after=LATE).close()
    scene.hook.delete()

    scene.until_undone()

    assert scene.present() is None


def test_a_guard_ends_with_its_interface(scene: Scene, veth: Veth) -> None:
    scene.hook.add(named("one"), revert_after=LATE).close()
    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)

    scene.until_undone()

    clean(pin_root=scene.pin_root)


def test_a_renamed_interface_is_guarded_on(scene: Scene, veth: Veth) -> None:
    scene.hook.add(named("one"), revert_after=SOON).close()
    with rtnetlink(veth.netns) as connection:
        connection.link("set", index=veth.interface.index, state="down")
        connection.link("set", index=veth.interface.index, ifname="renamed0", state="up")

    scene.until_undone()

    assert Hook("renamed0", netns=veth.netns).status().attached == ()


def test_a_change_that_is_refused_leaves_no_guard(
    scene: Scene, veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RequirementUnmet("change it", cause="for the test")

    scene.hook.add(named("one")).close()
    with monkeypatch.context() as failing:
        failing.setattr("xdpkit.hook.holding.ByLink.swap", refuse)
        with pytest.raises(RequirementUnmet, match="for the test"):
            scene.hook.replace(named("other"), revert_after=LATE)
        assert scene.guards() == []
        with pytest.raises(RequirementUnmet, match="for the test"):
            scene.hook.delete(revert_after=LATE)
    assert scene.guards() == []
    assert scene.name() == "one"


def test_a_guard_that_is_killed_leaves_a_change_that_can_be_seen_and_confirmed(
    scene: Scene,
) -> None:
    scene.hook.add(named("one")).close()
    scene.hook.replace(named("other"), revert_after=SOON).close()
    (guard,) = scene.guards()
    os.kill(guard, signal.SIGKILL)

    def is_overdue() -> bool:
        present = scene.present()
        assert present is not None
        assert present.seconds_to_revert is not None
        return present.seconds_to_revert < 0

    wait_until(is_overdue)
    assert scene.name() == "other"
    scene.hook.confirm()
    present = scene.present()
    assert present is not None
    assert present.seconds_to_revert is None


def test_a_change_that_takes_longer_than_the_time_is_undone_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.hook.add(named("one")).close()
    real = revert._start

    def start_late(*arguments: Any) -> object:
        guard = real(*arguments)
        revert_at = arguments[3].revert_at
        wait_until(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) > revert_at)
        return guard

    monkeypatch.setattr(revert, "_start", start_late)
    scene.hook.replace(named("other"), revert_after=SOON).close()

    scene.until_undone()

    assert scene.name() == "one"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 8 * 24 * 3600])
def test_a_time_that_makes_no_sense_is_refused(scene: Scene, seconds: float) -> None:
    with pytest.raises(UsageError, match="after at most a week"):
        scene.hook.add(named("one"), revert_after=seconds)
    assert scene.present() is None


def test_what_is_for_a_block_is_not_undone_by_time(scene: Scene) -> None:
    with pytest.raises(UsageError, match="for a block only"):
        scene.hook.add(named("one"), pin=False, revert_after=LATE)
    with scene.hook.add(named("one"), pin=False) as block:
        with pytest.raises(UsageError, match="for a block only"):
            block.replace(named("other"), revert_after=LATE)
        assert scene.name() == "one"


@ways
def test_a_foreign_program_comes_back_too(scene: Scene, via: Via) -> None:
    with returning(XdpAction.PASS, name="foreign") as foreign:
        scene.hook.add(foreign, via=via).close()
        number = foreign.id
    scene.hook.replace(named("one"), expected=number, revert_after=SOON).close()

    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert present.program.id == number
