# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` between any two steps of a change: the old program or the new one, and no trace.

A child makes the change and kills itself before its first step, its second, and so on, until it
lives. Each death is followed by a look, by a next command, and by a clean hook at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.killing import Killing, killing, only_here
from tests.kernel.net import Veth
from xdpkit import Hook
from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import AttachedProgram, Cleaned, Via, clean, revert
from xdpkit.hook.state import LEAVING
from xdpkit.uapi.bpf import MapType, XdpAction

__all__ = ["killing", "only_here"]

PACKET = bytes(64)


@dataclass(frozen=True, slots=True)
class How:
    """How thoroughly the deaths are tried."""

    every_step: bool = False
    each_next: bool = False


# Before the steps that last, with the next commands in turn; with all of them; before each step.
thoroughly = pytest.mark.parametrize(
    "how",
    [
        pytest.param(How(), id="lasting"),
        pytest.param(How(each_next=True), id="each-next", marks=pytest.mark.soak),
        pytest.param(How(every_step=True), id="every-step", marks=pytest.mark.soak),
    ],
)
ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])
programs = pytest.mark.parametrize("name", ["minimal", "constant_slot"])


def spec_of(name: str) -> xdpkit.ProgramSpec:
    return program("minimal.c" if name == "minimal" else "program_array.c", name)


@dataclass(frozen=True, slots=True)
class Scene:
    """A hook of the test's own, and what may be found there."""

    hook: Hook
    name: str
    via: Via
    killing: Killing

    def add(self, **terms: object) -> int:
        with self.hook.add(spec_of(self.name), via=self.via, force=True) as attached:
            return attached.program.id

    def replace(self, expected: int | None = None, revert_after: float | None = None) -> int:
        with self.hook.replace(
            spec_of(self.name), expected=expected, force=True, revert_after=revert_after
        ) as attached:
            return attached.program.id

    def delete(self, expected: int | None = None) -> None:
        self.hook.delete(expected=expected)

    def clean(self, *, everything: bool = False) -> tuple[Cleaned, ...]:
        return clean(everything=everything, pin_root=self.hook.place.pin_root)

    @property
    def pins(self) -> Path:
        return Path(self.hook.place.pin_root, "xdpkit")

    def present(self) -> AttachedProgram | None:
        """Return what is on the hook: ours, and fit to run."""
        attached = self.hook.status().attached
        if not attached:
            return None
        (found,) = attached
        assert found.program.id in self.killing.programs()
        if found.program.name == LEAVING:
            return found
        assert found.program.name == self.name
        # The entry that the tail call jumps to is in the array, or the program drops.
        with xdpkit.Program.from_id(found.program.id) as running:
            assert running.run(PACKET).action is XdpAction.PASS
        return found

    def is_empty(self) -> bool:
        """Whether nothing is there, or only what stands in for a program that leaves."""
        present = self.present()
        return present is None or present.is_leaving

    def assert_tidy(self) -> None:
        """Of pins there are those of the present program, and no others."""
        folders = {path.name: set(os.listdir(path)) for path in self._folders()}
        present = self.present()
        if present is None:
            assert folders == {}
            return
        assert present.program.maps is not None
        arrays = set()
        for used in present.program.maps:
            with xdpkit.Map.from_id(used.id) as opened:
                if opened.type == MapType.PROG_ARRAY:
                    arrays.add(f"map-{present.program.id}-{used.id}")
        holder = "link" if present.via is Via.LINK else f"program-{present.program.id}"
        expected = {holder, *arrays} if arrays or present.via is Via.LINK else set()
        assert list(folders.values()) == ([expected] if expected else [])

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from self.pins.iterdir()

    def empty(self) -> None:
        """Take off what is there, by whichever command can, and find nothing left."""
        if not self.is_empty():
            self.delete()
        self.clean()
        assert self.present() is None
        self.assert_tidy()


@pytest.fixture
def scene(
    veth: Veth, pin_root: str, name: str, via: Via, only_here: None, killing: Killing
) -> Scene:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    scene = Scene(hook, name, via, killing)
    # What is learnt once in a process is learnt before the first child is born.
    old = scene.add()
    scene.replace(expected=old)
    scene.delete()
    return scene


def then_attach(scene: Scene) -> bool:
    if scene.is_empty():
        scene.add()
        return True
    with pytest.raises(HookBusy, match="already has program"):
        scene.add()
    return False


def then_replace(scene: Scene) -> bool:
    if scene.is_empty():
        with pytest.raises(UsageError, match="nothing is attached"):
            scene.replace()
        return False
    scene.replace()
    return True


def then_replace_the_expected(scene: Scene) -> bool:
    present = scene.present()
    if present is None or present.is_leaving:
        return then_replace(scene)
    scene.replace(expected=present.program.id)
    return True


def then_detach(scene: Scene) -> bool:
    if scene.is_empty():
        with pytest.raises(UsageError, match="nothing is attached"):
            scene.delete()
    else:
        scene.delete()
    assert scene.present() is None
    return True


def then_clean(scene: Scene) -> bool:
    before = None if scene.is_empty() else scene.present()
    scene.clean()
    after = scene.present()
    assert (before and before.program.id) == (after and after.program.id)
    return True


def then_clean_everything(scene: Scene) -> bool:
    scene.clean(everything=True)
    assert scene.present() is None
    assert not scene.pins.exists()
    return True


NEXT = (
    then_attach,
    then_detach,
    then_replace,
    then_clean,
    then_replace_the_expected,
    then_clean_everything,
)


def deaths(
    scene: Scene,
    prepare: Callable[[], object],
    change: Callable[[], object],
    legal: Callable[[AttachedProgram | None], bool],
    how: How,
) -> None:
    """Let a child die before each step of a change, and have a next command after each death.

    A next command that changes something (or says that nothing is attached to detach) tidies up.
    """
    following = itertools.cycle(NEXT)
    for step in itertools.count(1):
        for then in NEXT if how.each_next else (next(following),):
            prepare()
            died_before = scene.killing.die(change, step, every=how.every_step)
            present = scene.present()
            assert legal(present), f"after a death before {died_before}: {present}"
            if then(scene):
                scene.assert_tidy()
            scene.empty()
        if died_before is None:
            break
    assert scene.killing.deaths > 0


@ways
@programs
@thoroughly
def test_an_attach_that_is_killed_has_attached_or_not(scene: Scene, how: How) -> None:
    deaths(
        scene,
        lambda: None,
        scene.add,
        lambda present: present is None or present.program.name == scene.name,
        how,
    )


@ways
@programs
@thoroughly
@pytest.mark.parametrize("is_expected", [False, True], ids=["", "expected"])
def test_a_replace_that_is_killed_leaves_the_old_program_or_the_new_one(
    scene: Scene, how: How, is_expected: bool
) -> None:
    old: list[int] = []

    def prepare() -> None:
        old[:] = [scene.add()]

    deaths(
        scene,
        prepare,
        lambda: scene.replace(expected=old[0] if is_expected else None),
        lambda present: present is not None and present.program.name == scene.name,
        how,
    )


@ways
@programs
@thoroughly
@pytest.mark.parametrize("is_expected", [False, True], ids=["", "expected"])
def test_a_detach_that_is_killed_leaves_the_program_or_none(
    scene: Scene, how: How, is_expected: bool
) -> None:
    old: list[int] = []

    def prepare() -> None:
        old[:] = [scene.add()]

    deaths(
        scene,
        prepare,
        lambda: scene.delete(expected=old[0] if is_expected else None),
        lambda present: present is None or present.program.id == old[0] or present.is_leaving,
        how,
    )


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no process behind that undoes a change: only the record waits for confirmation."""
    monkeypatch.setattr(revert, "guarding", lambda *_: contextlib.nullcontext())


@ways
@programs
@thoroughly
def test_a_confirmation_that_is_killed_leaves_the_new_program(
    scene: Scene, how: How, unguarded: None
) -> None:
    new: list[int] = []

    def prepare() -> None:
        scene.add()
        new[:] = [scene.replace(revert_after=3600)]

    def confirm_if_it_waits(present: AttachedProgram | None) -> bool:
        assert present is not None
        if present.seconds_to_revert is not None:
            scene.hook.confirm()
        return present.program.id == new[0]

    deaths(scene, prepare, scene.hook.confirm, confirm_if_it_waits, how)


@ways
@programs
@thoroughly
def test_a_confirmed_detach_that_is_killed_can_be_confirmed_again(
    scene: Scene, how: How, unguarded: None
) -> None:
    def prepare() -> None:
        scene.add()
        scene.hook.delete(revert_after=3600)

    def confirm_if_it_waits(present: AttachedProgram | None) -> bool:
        if present is None:
            return True
        if present.seconds_to_revert is not None:
            scene.hook.confirm()
        return present.program.name == LEAVING

    deaths(scene, prepare, scene.hook.confirm, confirm_if_it_waits, how)


@ways
@programs
@thoroughly
@pytest.mark.parametrize("everything", [False, True], ids=["orphans", "everything"])
def test_a_clean_that_is_killed_is_finished_by_the_next(
    scene: Scene, how: How, everything: bool
) -> None:
    """What there is to clean: a program that stays, and the pins of a detach that was killed."""
    orphan = scene.pins / "1-1"

    def prepare() -> None:
        scene.add()
        scene.pins.mkdir(0o700, exist_ok=True)
        orphan.mkdir(0o700)
        with xdpkit.load(spec_of("constant_slot")) as loaded:
            for each in loaded.maps.values():
                each.pin(orphan / f"map-{loaded.id}-{each.id}")

    deaths(
        scene,
        prepare,
        lambda: scene.clean(everything=everything),
        lambda present: everything or (present is not None and not present.is_leaving),
        how,
    )
