# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` between any two steps of a change to RX queues: all of them changed, or none.

A child makes the change and kills itself before its first step, its second, and so on, until it
lives. Each death is followed by a look, by a next command, and by an empty hook at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.killing import Killing, killing, only_here
from tests.kernel.multiqueue import on, scopes
from tests.kernel.net import Veth
from tests.kernel.test_hook_crashes import How, thoroughly
from xdpkit import Hook
from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import Via, clean
from xdpkit.uapi.bpf import MapType, XdpAction

__all__ = ["killing", "only_here"]

PACKET = bytes(64)

State = Mapping[int | None, int]

# The second one has a program array of its own, which has to be pinned.
NAMES = ("minimal", "constant_slot")


def spec_of(name: str) -> xdpkit.ProgramSpec:
    return program("minimal.c" if name == "minimal" else "program_array.c", name)


@dataclass(frozen=True, slots=True)
class Scene:
    """A hook of the test's own, and what may be found there."""

    hook: Hook
    name: str
    via: Via
    killing: Killing

    def add(self, *queues: int) -> None:
        """Add a program for queues; without any, the global one."""
        scope = self.hook.queues[queues] if queues else self.hook
        scope.add(spec_of(self.name), via=self.via, force=True).close()

    def replace(self, *queues: int) -> None:
        scope = self.hook.queues[queues] if queues else self.hook
        scope.replace(spec_of(self.name), force=True).close()

    def delete(self, *queues: int) -> None:
        (self.hook.queues[queues] if queues else self.hook).delete()

    @property
    def pins(self) -> Path:
        return Path(self.hook.place.pin_root, "xdpkit")

    def state(self) -> State:
        """Return the ids of the programs by scope: all are ours, and fit to run."""
        found = on(self.hook)
        if found is None or found.is_leaving:
            return {}
        state = scopes(self.hook)
        assert {found.program.id, *state.values()} <= self.killing.programs()
        for number in {found.program.id, *state.values()}:
            # The entry that a tail call jumps to is in its array, or the program drops.
            with xdpkit.Program.from_id(number) as running:
                assert running.run(PACKET).action is XdpAction.PASS
        return state

    def assert_tidy(self) -> None:
        """Of pins there are those of the programs that run, and no others."""
        folders = [set(os.listdir(path)) for path in self._folders()]
        found = on(self.hook)
        if found is None:
            assert folders == []
            return
        by_link = found.via is Via.LINK
        programs = {found.program.id, *(each.program.id for each in found.members)}
        arrays = {f"map-{number}-{used}" for number in programs for used in _arrays_of(number)}
        holder = "link" if by_link else f"program-{found.program.id}"
        wanted = {holder, *arrays} if arrays or by_link else set()
        # The global program may have its pin from the time when it was alone.
        allowed = wanted | {f"program-{number}" for number in programs}
        assert folders == ([folders[0] & allowed | wanted] if wanted else [])

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from self.pins.iterdir()

    def empty(self) -> None:
        """Take off what is there, and find nothing left."""
        if self.state():
            self.hook.clear()
        clean(pin_root=self.hook.place.pin_root)
        assert on(self.hook) is None
        self.assert_tidy()


def _arrays_of(number: int) -> Iterator[int]:
    """Return the ids of the program arrays that a program uses."""
    with xdpkit.Program.from_id(number) as opened:
        used = opened.info().map_ids
    for each in used:
        with xdpkit.Map.from_id(each) as found:
            if found.type == MapType.PROG_ARRAY:
                yield each


@pytest.fixture
def scene(
    veth: Veth, pin_root: str, name: str, via: Via, only_here: None, killing: Killing
) -> Scene:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    scene = Scene(hook, name, via, killing)
    # What is learnt once in a process is learnt before the first child is born.
    scene.add()
    scene.add(0, 1)
    scene.replace(0)
    scene.replace(0, 1)
    scene.replace()
    scene.delete(0)
    scene.delete()
    scene.delete(1)
    return scene


# The next command.


def then_add_elsewhere(scene: Scene) -> bool:
    before = scene.state()
    scene.add(3)
    after = dict(scene.state())
    assert after.pop(3) not in before.values()
    assert after == before
    return True


def then_replace_all(scene: Scene) -> bool:
    before = scene.state()
    queues = [queue for queue in before if queue is not None]
    if not queues:
        with pytest.raises(UsageError):
            scene.replace(0)
        return False
    scene.replace(*queues)
    after = scene.state()
    assert after.keys() == before.keys()
    assert not {after[queue] for queue in queues} & {*before.values()}
    return True


def then_delete_one(scene: Scene) -> bool:
    before = scene.state()
    queues = [queue for queue in before if queue is not None]
    if not queues:
        with pytest.raises(UsageError):
            scene.delete(0)
        return False
    scene.delete(queues[0])
    assert scene.state() == {scope: before[scope] for scope in before if scope != queues[0]}
    return True


def then_add_a_global_one(scene: Scene) -> bool:
    before = scene.state()
    if None in before:
        with pytest.raises(HookBusy, match=f"program {before[None]}"):
            scene.add()
        return False
    scene.add()
    after = dict(scene.state())
    del after[None]
    assert after == before
    return True


def then_clean(scene: Scene) -> bool:
    before = scene.state()
    clean(pin_root=scene.hook.place.pin_root)
    assert scene.state() == before
    return True


def then_clear(scene: Scene) -> bool:
    if not scene.state():
        return False
    scene.hook.clear()
    assert on(scene.hook) is None
    return True


def then_clean_everything(scene: Scene) -> bool:
    clean(everything=True, pin_root=scene.hook.place.pin_root)
    assert on(scene.hook) is None
    assert not scene.pins.exists()
    return True


NEXT = (
    then_add_elsewhere,
    then_replace_all,
    then_clean,
    then_delete_one,
    then_add_a_global_one,
    then_clean_everything,
    then_clear,
)


# The changes.


@dataclass(frozen=True, slots=True)
class Change:
    """A change of some scopes.

    Attributes:
        before: the scopes that have programs before it, in the order in which they get them.
        verb, scopes: what is done to which of them; all of them at once.
    """

    before: tuple[tuple[int, ...], ...]
    verb: str
    scopes: tuple[int, ...]

    def __str__(self) -> str:
        def named(queues: tuple[int, ...]) -> str:
            return "+".join(map(str, queues)) or "global"

        present = ",".join(map(named, self.before)) or "nothing"
        return f"{self.verb}-{named(self.scopes)}-of-{present}"

    def prepare(self, scene: Scene) -> None:
        for queues in self.before:
            scene.add(*queues)

    def make(self, scene: Scene) -> None:
        if self.verb == "clear":
            scene.hook.clear()
        else:
            getattr(scene, self.verb)(*self.scopes)

    def is_made(self, before: State, after: State) -> bool:
        """Whether the programs are those after the change.

        One program serves all of the queues; the other scopes have the programs that they had.
        """
        if self.verb == "clear":
            return after == {}
        changed = set[int | None](self.scopes) or {None}
        others = {scope: number for scope, number in before.items() if scope not in changed}
        if self.verb == "delete":
            return after == others
        new = {after.get(scope) for scope in changed}
        return (
            len(new) == 1
            and None not in new
            and not new & {*before.values()}
            and {scope: number for scope, number in after.items() if scope not in changed} == others
        )


GLOBAL: tuple[int, ...] = ()
MAIN = [
    Change((), "add", (0, 1)),
    Change((GLOBAL,), "add", (0, 1)),
    Change((GLOBAL, (0,), (1, 2)), "replace", (0, 1)),
    Change((GLOBAL, (0, 1)), "delete", (0, 1)),
]
OTHERS = [
    Change(((0,),), "add", (1, 2)),
    Change(((0,),), "add", GLOBAL),
    Change((GLOBAL, (0,)), "add", (1,)),
    Change((GLOBAL, (0, 1)), "replace", (0,)),
    Change((GLOBAL, (0,)), "replace", GLOBAL),
    Change((GLOBAL, (0, 1), (2,)), "delete", (0, 1)),
    Change((GLOBAL, (0, 1)), "delete", (0,)),
    Change((GLOBAL, (0,)), "delete", GLOBAL),
    Change(((0, 1),), "delete", (0, 1)),
    Change((GLOBAL, (0,), (1, 2)), "clear", ()),
]
# The main ones with most pins and with fewest; the rest with the long counts.
MOST, FEWEST = ("constant_slot", Via.LINK), ("minimal", Via.NETLINK)
CASES = [
    pytest.param(
        *(change, name, via),
        id=f"{change}-{name}-{via.value}",
        marks=[] if change in MAIN and (name, via) in (MOST, FEWEST) else pytest.mark.soak,
    )
    for change, name, via in itertools.product([*MAIN, *OTHERS], NAMES, Via)
]


def deaths(scene: Scene, change: Change, how: How) -> None:
    """Let a child die before each step of a change, and have a next command after each death."""
    following = itertools.cycle(NEXT)
    outcomes = set()
    for step in itertools.count(1):
        for then in NEXT if how.each_next else (next(following),):
            change.prepare(scene)
            before = scene.state()
            died_before = scene.killing.die(lambda: change.make(scene), step, every=how.every_step)
            after = scene.state()
            is_made = change.is_made(before, after)
            assert is_made or after == before, f"after a death before {died_before}: {after}"
            outcomes.add(is_made)
            if then(scene):
                scene.assert_tidy()
            scene.empty()
        if died_before is None:
            break
    assert is_made
    assert outcomes == {False, True}


@thoroughly
@pytest.mark.parametrize(("change", "name", "via"), CASES)
def test_a_change_of_queues_that_is_killed_was_made_or_not(
    scene: Scene, change: Change, how: How
) -> None:
    deaths(scene, change, how)
