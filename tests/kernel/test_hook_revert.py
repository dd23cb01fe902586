# SPDX-License-Identifier: Apache-2.0
"""A change that nobody confirms is undone, whatever becomes of who made it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.compiled import read, returning
from tests.kernel.killing import Killing, killing, only_here, wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit import Hook
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError
from xdpkit.hook import AttachedProgram, Via, clean, guard, records, revert
from xdpkit.hook.guard import Change, Sight
from xdpkit.hook.holding import ByLink, ByNetlink, holding_of
from xdpkit.hook.state import LEAVING
from xdpkit.interfaces import namespaces, resolve
from xdpkit.syscalls import proc
from xdpkit.syscalls.netns import path_of
from xdpkit.uapi.bpf import XdpAction

__all__ = ["killing", "only_here"]

pytestmark = pytest.mark.needs("bpf-link-xdp", "prog-bind-map")

SOON = 0.3
LATE = 3600.0
PACKET = bytes(64)

# A test that looks at a change before it is undone SOON has only that long.
looks_before = pytest.mark.alone
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

    @contextlib.contextmanager
    def waiting(self, via: Via, after: float = LATE) -> Iterator[Change]:
        """Replace one program by another, with this process in the place of the guard."""
        with (
            pytest.MonkeyPatch.context() as patch,
            self.hook.add(named("one"), via=via) as old,
        ):
            patch.setattr(revert, "guarding", lambda *_: contextlib.nullcontext())
            with self.hook.replace(named("other"), revert_after=after) as new:
                assert new.record is not None
                task = revert.Task(
                    name=new.interface.name,
                    ifindex=new.interface.index,
                    netns_cookie=new.interface.netns_cookie,
                    netns=self.hook.place.netns,
                    pin_root=self.pin_root,
                    program=new.program.fileno(),
                    previous=old.program.fileno(),
                    revert_at=new.record.revert_at,
                )
                yield Change(task, new.program, old.program)

    def pins(self) -> set[str]:
        return {path.name for path in Path(self.pin_root).glob("xdpkit/*/*")}


@pytest.fixture
def scene(veth: Veth, pin_root: str, only_here: None, killing: Killing) -> Iterator[Scene]:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    scene = Scene(hook, pin_root)
    yield scene
    for pid in scene.guards():
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(UsageError):
        hook.delete()
    scene.until_undone()
    assert not list(Path(pin_root).glob("xdpkit/*"))


@contextlib.contextmanager
def telling(word: bytes) -> Iterator[int]:
    """Yield a descriptor by which a guard is told a word."""
    reading, writing = os.pipe()
    try:
        os.write(writing, word)
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def children() -> list[int]:
    """Return this process's children, also those that have ended and wait to be asked."""
    found = []
    for pid in proc.pids():
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == os.getpid():
                found.append(pid)
    return found


def reached(unseen: int, real: Callable[[], namespaces.Reachable]) -> namespaces.Reachable:
    """Return the namespaces that are reached, and that so many others are not."""
    return dataclasses.replace(real(), unseen=unseen)


def move(veth: Veth, netns: str) -> None:
    """Move the interface to another namespace."""
    with open(path_of(netns), "rb") as there, rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, net_ns_fd=there.fileno())


def named(name: str) -> xdpkit.ProgramSpec:
    return read("counting").programs[name]


def jumping() -> xdpkit.ProgramSpec:
    return program("program_array.c", "constant_slot")


@looks_before
@ways
def test_an_attach_that_nobody_confirms_empties_the_hook_again(scene: Scene, via: Via) -> None:
    scene.hook.add(jumping(), via=via, force=True, revert_after=SOON).close()
    assert scene.name() == "constant_slot"

    scene.until_undone()

    assert scene.present() is None
    assert scene.pins() == set()


@looks_before
@ways
@pytest.mark.parametrize("has_maps", [True, False], ids=["by-one-with-maps", "by-one-without"])
def test_a_replace_that_nobody_confirms_brings_the_old_program_back(
    scene: Scene, via: Via, has_maps: bool
) -> None:
    with scene.hook.add(jumping(), via=via, force=True) as old:
        pins = scene.pins()
    new = jumping() if has_maps else named("other")
    scene.hook.replace(new, force=True, revert_after=SOON).close()
    changed = scene.present()
    assert pins < scene.pins() if has_maps or via is Via.NETLINK else pins == scene.pins()
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


@looks_before
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


CHANGES = {
    "replace": lambda hook, after: hook.replace(named("one"), revert_after=after).close(),
    "detach": lambda hook, after: hook.delete(revert_after=after),
}


@ways
@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", CHANGES)
def test_a_second_change_by_time_is_refused_while_one_waits(
    scene: Scene, via: Via, first: str, second: str
) -> None:
    scene.hook.add(jumping(), via=via, force=True).close()
    CHANGES[first](scene.hook, LATE)
    waiting, guards, pins = scene.present(), scene.guards(), scene.pins()
    assert waiting is not None

    with pytest.raises(UsageError, match="a change on it waits to be confirmed already") as refused:
        CHANGES[second](scene.hook, LATE)

    assert refused.value.remedy is not None
    assert "xdpkit confirm" in refused.value.remedy
    present = scene.present()
    assert present is not None
    assert (present.program.id, present.record) == (waiting.program.id, waiting.record)
    assert (len(guards), scene.guards(), scene.pins()) == (1, guards, pins)


@ways
def test_a_detach_settles_the_detach_that_waits(scene: Scene, via: Via) -> None:
    scene.hook.add(jumping(), via=via, force=True).close()
    scene.hook.delete(revert_after=LATE)
    scene.hook.delete()

    scene.until_undone()

    assert scene.present() is None
    assert scene.pins() == set()


@ways
def test_a_program_does_not_replace_itself_by_time(scene: Scene, via: Via) -> None:
    with xdpkit.load(named("one")) as loaded:
        scene.hook.add(loaded, via=via).close()
        with pytest.raises(UsageError, match="there is nothing to go back to"):
            scene.hook.replace(loaded, revert_after=LATE)
        present = scene.present()
        assert present is not None
        assert present.seconds_to_revert is None
        assert scene.guards() == []
        scene.hook.delete()


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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process tells the system's log, as a guard that does not take its time."""
    said: list[str] = []
    monkeypatch.setattr("syslog.syslog", lambda _, text: said.append(text))
    monkeypatch.setattr(guard, "LOOK_EVERY", 0.001)
    return said


@ways
def test_a_guard_ends_with_its_interface(
    scene: Scene, veth: Veth, via: Via, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "reachable", partial(reached, 0, namespaces.reachable))
    with scene.waiting(via) as change, telling(revert.MADE) as told_by:
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)
        assert change.look() is Sight.GONE

        guard.guard(change, told_by)

    assert said == []
    clean(pin_root=scene.pin_root)


def test_a_guard_says_if_it_cannot_find_its_interface_and_cannot_look_everywhere(
    scene: Scene, veth: Veth, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "reachable", partial(reached, 1, namespaces.reachable))
    with scene.waiting(Via.LINK, SOON) as change, telling(revert.MADE) as told_by:
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)
        assert change.look() is Sight.UNKNOWN

        guard.guard(change, told_by)

    assert said == [
        f"undo the change on {veth.name}: the interface is not where it was any more, and is not"
        " found elsewhere"
    ]
    clean(pin_root=scene.pin_root)


@ways
def test_the_change_is_undone_where_the_interface_has_gone(
    scene: Scene, veth: Veth, via: Via
) -> None:
    with (
        scene.waiting(via, SOON) as change,
        telling(revert.MADE) as told_by,
        namespace() as other,
    ):
        move(veth, other)

        guard.guard(change, told_by)

        hook = Hook(veth.name, netns=other, pin_root=scene.pin_root)
        (present,) = hook.status().attached
        assert change.previous is not None
        assert present.program.id == change.previous.id
        hook.delete(expected=present.program.id)


def test_another_interface_with_the_index_is_not_taken_for_one_that_has_gone(
    scene: Scene, veth: Veth
) -> None:
    index = veth.interface.index
    with scene.waiting(Via.NETLINK) as change, namespace() as other:
        move(veth, other)
        with rtnetlink(veth.netns) as connection:
            connection.link("add", ifname="taken0", kind="veth", index=index)

        assert change.look() is Sight.UNKNOWN
        assert change.undo()

        hook = Hook(veth.name, netns=other, pin_root=scene.pin_root)
        (present,) = hook.status().attached
        assert change.previous is not None
        assert present.program.id == change.previous.id
        hook.delete(expected=present.program.id)


def test_a_program_that_is_on_another_hook_with_the_index_stays_there(
    scene: Scene, veth: Veth
) -> None:
    with scene.waiting(Via.NETLINK) as change, namespace() as other:
        with rtnetlink(other) as connection:
            connection.link("add", ifname="same0", kind="veth", index=veth.interface.index)
        elsewhere = Hook("same0", netns=other, pin_root=scene.pin_root)
        elsewhere.add(change.program, via=Via.NETLINK, force=True).close()
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)

        with pytest.raises(UsageError, match="and is not found elsewhere"):
            change.undo()

        (present,) = elsewhere.status().attached
        assert present.program.id == change.program.id
        elsewhere.delete()


def test_a_namespace_that_is_deleted_is_not_kept_by_a_guard(scene: Scene, pin_root: str) -> None:
    with namespace() as staying:
        with namespace() as leaving:
            veth = make_veth(leaving, staying)
            hook = Hook(veth.name, netns=leaving, pin_root=pin_root)
            hook.add(named("one"), via=Via.NETLINK, revert_after=LATE).close()
            (mine,) = Scene(hook, pin_root).guards()

        def is_gone() -> bool:
            with contextlib.suppress(UsageError):
                resolve(veth.peer, netns=staying)
                return False
            return True

        wait_until(is_gone)
    os.kill(mine, signal.SIGKILL)


def test_a_namespace_can_be_named_by_a_descriptor(scene: Scene, veth: Veth) -> None:
    with open(path_of(veth.netns), "rb") as place:
        hook = Hook(veth.name, netns=f"/proc/self/fd/{place.fileno()}", pin_root=scene.pin_root)
        hook.add(named("one"), revert_after=SOON).close()
        scene.until_undone()
    assert scene.present() is None


def test_a_guard_that_does_not_find_its_hook_lets_nothing_be_changed(
    scene: Scene, veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    with namespace() as other, monkeypatch.context() as patch:
        patch.setattr(revert, "_lasting_path", lambda _: path_of(other))
        with pytest.raises(RequirementUnmet, match=rf"{veth.name} is not found in .*{other}"):
            scene.hook.add(named("one"), revert_after=LATE)
    assert scene.present() is None
    assert scene.guards() == []


@pytest.mark.parametrize("squatter", [0, 65534], ids=["open", "foreign"])
def test_a_folder_in_the_way_of_the_pins_does_not_keep_a_change(
    scene: Scene, squatter: int
) -> None:
    with scene.hook.add(named("one"), via=Via.NETLINK) as old:
        pass
    scene.hook.replace(named("other"), revert_after=SOON).close()
    folder = Path(scene.pin_root) / "xdpkit"
    folder.mkdir()
    folder.chmod(0o755)
    os.chown(folder, squatter, squatter)

    scene.until_undone()

    present = scene.present()
    assert present is not None
    assert present.program.id == old.program.id
    folder.rmdir()


def test_a_change_is_confirmed_whatever_is_in_the_way_of_the_pins(scene: Scene) -> None:
    scene.hook.add(named("one"), via=Via.NETLINK).close()
    scene.hook.replace(named("other"), revert_after=LATE).close()
    folder = Path(scene.pin_root) / "xdpkit"
    folder.mkdir(0o755)

    scene.hook.confirm()

    folder.rmdir()
    scene.until_undone()
    assert scene.name() == "other"


def test_a_record_that_is_missed_once_is_not_taken_for_confirmed(
    scene: Scene, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = records.find
    missed: list[object] = []

    def miss_once(*arguments: Any, **options: Any) -> Any:
        if not missed:
            missed.append(arguments)
            return None
        return real(*arguments, **options)

    with scene.waiting(Via.LINK, SOON) as change, telling(revert.MADE) as told_by:
        monkeypatch.setattr(records, "find", miss_once)
        guard.guard(change, told_by)
    assert missed
    assert len(said) == 1
    assert scene.name() == "one"


@ways
@pytest.mark.parametrize("attempts", [0, 2])
def test_what_cannot_be_undone_at_once_is_tried_again(
    scene: Scene, via: Via, attempts: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = iter(range(attempts))

    def fail_at_first(holding: Any, *arguments: Any) -> None:
        if next(failing, None) is not None:
            raise RequirementUnmet("undo it", cause="for the test")
        real(holding, *arguments)

    kind = ByLink if via is Via.LINK else ByNetlink
    real = kind.swap
    with scene.waiting(via, SOON) as change, telling(revert.MADE) as told_by:
        monkeypatch.setattr(kind, "swap", fail_at_first)
        guard.guard(change, told_by)
    name = scene.hook.place.iface
    assert said == [f"the change of the XDP program on {name} was not confirmed, and is undone"]
    assert scene.name() == "one"


def test_a_change_that_is_confirmed_while_it_is_being_undone_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm_first(*arguments: Any) -> Any:
        scene.hook.confirm()
        return holding_of(*arguments)

    with scene.waiting(Via.NETLINK) as change:
        monkeypatch.setattr("xdpkit.hook.guard.holding_of", confirm_first)
        assert not change.undo()
        assert change.look() is Sight.OVER
    assert scene.name() == "other"


def test_a_change_that_is_undone_while_it_is_confirmed_is_not_called_confirmed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = records.edit
    with scene.waiting(Via.NETLINK) as change:

        def undo_first(*arguments: Any) -> None:
            real(*arguments)
            interface = scene.hook.place.resolve()
            previous = change.previous
            assert previous is not None
            ByNetlink(interface, xdpkit.Mode.NATIVE).swap(previous.fileno(), None, "undo it")

        monkeypatch.setattr(records, "edit", undo_first)
        with pytest.raises(HookBusy, match="is not there any more"):
            scene.hook.confirm()
    assert scene.name() == "one"


def test_what_is_undone_does_not_wait_on_the_next_hook_that_it_is_on(
    scene: Scene, veth: Veth
) -> None:
    with scene.waiting(Via.NETLINK) as change:
        assert change.undo()
        scene.hook.delete()
        with rtnetlink(veth.netns) as connection:
            connection.link("set", ifname=veth.name, xdp_fd=change.program.fileno())
        present = scene.present()
        assert present is not None
        assert (present.program.id, present.record) == (change.program.id, None)
        scene.hook.delete(expected=change.program.id)


def test_no_child_is_left_behind(scene: Scene) -> None:
    before = children()
    scene.hook.add(named("one"), revert_after=LATE).close()
    assert scene.guards()
    assert children() == before


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
        scene.until_undone()
        with pytest.raises(RequirementUnmet, match="for the test"):
            scene.hook.delete(revert_after=LATE)
    scene.until_undone()
    assert scene.name() == "one"


def test_a_change_that_is_interrupted_when_it_has_just_been_made_is_undone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ByLink.swap

    def be_interrupted(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    scene.hook.add(named("one")).close()
    with monkeypatch.context() as failing:
        failing.setattr(ByLink, "swap", be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            scene.hook.replace(named("other"), revert_after=2.0)
    assert scene.name() == "other"

    scene.until_undone()

    assert scene.name() == "one"


@looks_before
def test_a_guard_that_is_killed_leaves_a_change_that_can_be_seen_and_confirmed(
    scene: Scene,
) -> None:
    scene.hook.add(named("one")).close()
    scene.hook.replace(named("other"), revert_after=SOON).close()
    (mine,) = scene.guards()
    os.kill(mine, signal.SIGKILL)

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
