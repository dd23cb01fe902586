# SPDX-License-Identifier: Apache-2.0
"""Forced counters, with real packets: what is returned is counted, whatever is exchanged meanwhile.

Frames are sent by the other end of a veth pair, and say themselves what a program is to return.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.corpus_actions import cases
from tests.kernel.attaching import foreign_link, raw_program
from tests.kernel.attaching import program as corpus_program
from tests.kernel.compiled import read
from tests.kernel.killing import Killing, killing, only_here, wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, namespace, rtnetlink
from tests.kernel.test_hook_under_load import FRAME, frames_into, not_taken
from xdpkit import Hook
from xdpkit.errors import MissingPrivilege, ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.hook import Via, copies, leaves, settings
from xdpkit.hook.counters import CounterReport, Counters, ProgramCounts
from xdpkit.hook.place import Place
from xdpkit.hook.settings import Counting, Settings
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map, Program, load, load_all, load_image
from xdpkit.kernel.image import Image, MapReference
from xdpkit.probes.ask import machine_code
from xdpkit.rewrite import COUNTED
from xdpkit.syscalls import bpf, privilege
from xdpkit.syscalls.netns import entered, path_of
from xdpkit.uapi.bpf import AttachType, MapType, ProgType, XdpAction
from xdpkit.uapi.capability import Capability

__all__ = ["killing", "only_here"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp")

ETHERTYPE = b"\x88\xb5"
ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])


def frame(action: int, way: int = 0, *, length: int = 64) -> bytes:
    """Return a frame that says what is to be returned, and by which program."""
    return (bytes(12) + ETHERTYPE + bytes([action, way])).ljust(length, b"\0")


def spec(name: str) -> xdpkit.ProgramSpec:
    return read("counted").programs[name]


@dataclass(frozen=True, slots=True)
class Scene:
    """A hook, and what sends frames to it."""

    hook: Hook
    sender: socket.socket

    @property
    def counters(self) -> Counters:
        return Counters(self.hook.place)

    def send(self, *frames: bytes) -> None:
        for each in frames:
            self.sender.send(each)

    def send_each(self, way: int = 0) -> None:
        """Send frames for all actions, and for two numbers that are none: one more for each."""
        for action, count in zip((0, 1, 2, 3, 5), itertools.count(1), strict=False):
            self.send(*[frame(action, way)] * count)
        self.send(frame(255, way))

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Return the packets of each program, by name."""
        return packets(self.counters.read())

    def until(self, **wanted: tuple[int, ...]) -> None:
        """Wait until this is what has been counted, and no more."""
        total = sum(map(sum, wanted.values()))
        wait_until(
            lambda: sum(map(sum, self.counts().values())) >= total, lambda: f"{self.counts()}"
        )
        assert self.counts() == wanted


EACH = (1, 2, 3, 4, 0, 6)
NOTHING = (0,) * len(COUNTED)


def packets(report: CounterReport) -> dict[str, tuple[int, ...]]:
    names = [program.name for program in report.programs]
    assert len(set(names)) == len(names)
    return {program.name: program.total.packets for program in report.programs}


def only(report: CounterReport) -> ProgramCounts:
    (program,) = report.programs
    return program


@pytest.fixture
def scene(veth: Veth, pin_root: str) -> Iterator[Scene]:
    with entered(veth.peer_netns):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sender:
        sender.bind((veth.peer, 0))
        yield Scene(Hook(veth.name, netns=veth.netns, pin_root=pin_root), sender)


# What is counted


@ways
def test_each_action_is_counted_and_what_is_none(scene: Scene, via: Via) -> None:
    with scene.hook.add(spec("by_packet"), via=via) as attached:
        report = scene.counters.enable()
        assert (report.is_enabled, report.count_bytes, report.not_counted) == (True, False, ())
        assert only(report).logical_id == attached.program.id
        assert only(report).program.id != attached.program.id
        assert (only(report).queues, only(report).called_by) == (None, ())
        scene.send_each()
        scene.until(by_packet=EACH)
        assert only(scene.counters.read()).total.bytes is None


def test_bytes_are_counted_by_action(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    assert scene.counters.enable(count_bytes=True).count_bytes
    scene.send(frame(1, length=60), frame(1, length=1000), frame(2, length=99))
    scene.until(by_packet=(0, 2, 1, 0, 0, 0))
    assert only(scene.counters.read()).total.bytes == (0, 1060, 99, 0, 0, 0)


@pytest.mark.needs("xdp-frags")
def test_bytes_of_packets_in_fragments_are_counted(scene: Scene) -> None:
    scene.hook.add(spec("by_large_packet")).close()
    report = scene.counters.enable(count_bytes=True)
    with Program.from_id(only(report).program.id) as running:
        assert running.run(frame(1, length=9000)).action is XdpAction.DROP
    assert only(scene.counters.read()).total.bytes == (0, 9000, 0, 0, 0, 0)


def test_the_copy_does_what_the_program_does(scene: Scene) -> None:
    scene.hook.add(corpus_program("maps_hash.c", "maps_hash"), force=True).close()
    (before,) = scene.hook.status().programs
    report = scene.counters.enable()
    (after,) = scene.hook.status().programs
    assert after.program.maps == before.program.maps
    assert after.logical_id == before.program.id == only(report).logical_id
    assert after.program.name == before.program.name
    assert after.link_id == before.link_id


def test_packets_are_counted_by_queue(scene: Scene, veth: Veth) -> None:
    scene.hook.add(spec("by_packet")).close()
    scene.counters.enable()
    with line_into(veth) as line:
        for queue in range(4):
            line.send(queue, queue + 1)
        wait_until(lambda: sum(scene.counts()["by_packet"]) == 10)
    per_queue = only(scene.counters.read()).per_queue
    assert {queue: counts.packets[0] for queue, counts in per_queue.items()} == {
        0: 1,
        1: 2,
        2: 3,
        3: 4,
    }


def test_programs_of_queues_are_counted_and_packets_without_a_program(
    scene: Scene, veth: Veth
) -> None:
    hook = scene.hook
    hook.queues[1].add(spec("by_packet")).close()
    hook.queues[2, 3].add(spec("leaf")).close()
    report = scene.counters.enable(count_bytes=True)
    assert report.not_counted == ()
    found = {program.name: program for program in report.programs}
    assert (found["by_packet"].queues, found["leaf"].queues) == ((1,), (2, 3))
    with line_into(veth) as line:
        for queue in range(4):
            line.send(queue, queue + 1)
        scene.until(by_packet=(2, 0, 0, 0, 0, 0), leaf=(7, 0, 0, 0, 0, 0))
        wait_until(lambda: scene.counters.read().no_program)
    report = scene.counters.read()
    found = {program.name: program for program in report.programs}
    assert set(found["by_packet"].per_queue) == {1}
    assert {queue: each.bytes for queue, each in found["leaf"].per_queue.items()} == {
        2: (3 * 64, 0, 0, 0, 0, 0),
        3: (4 * 64, 0, 0, 0, 0, 0),
    }
    assert {queue: each.packets for queue, each in report.no_program.items()} == {0: 1}
    assert packets(scene.counters.disable()) == packets(report)
    assert {each.qid: each.program.name for each in hook.status().programs} == {
        1: "by_packet",
        2: "leaf",
        3: "leaf",
    }


def test_the_report_is_plain_data_for_json(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    report = scene.counters.enable()
    with Program.from_id(only(report).program.id) as running:
        running.run(frame(2))
    data: Any = scene.counters.read().to_dict()
    (program,) = data["programs"]
    none = dict.fromkeys(COUNTED, 0)
    assert program["total"] == {"packets": {**none, "pass": 1}, "bytes": None}
    assert program["per_queue"] == {"0": program["total"]}
    assert (data["enabled"], data["bytes"], data["no_program"]) == (True, False, {})


# What comes later


def test_programs_that_are_attached_later_are_counted(scene: Scene) -> None:
    report = scene.counters.enable()
    assert report.is_enabled
    assert report.programs == ()
    with scene.hook.add(spec("by_packet")) as attached:
        scene.send_each()
        scene.until(by_packet=EACH)
        assert only(scene.counters.read()).program.id == attached.program.id
        scene.hook.replace(spec("leaf"), expected=attached).close()
    scene.send(frame(1))
    scene.until(leaf=(0, 1, 0, 0, 0, 0))
    scene.hook.delete()
    assert scene.counters.read().is_enabled
    scene.hook.add(spec("by_packet")).close()
    scene.until(by_packet=NOTHING)
    scene.hook.delete()
    scene.counters.disable()
    with scene.hook.add(spec("by_packet")) as attached:
        (present,) = scene.hook.status().programs
        assert present.program.id == present.logical_id == attached.program.id
        assert scene.counters.read().programs == ()


def test_leaves_of_programs_that_are_attached_later_are_counted(scene: Scene) -> None:
    scene.counters.enable()
    with scene.hook.add(spec("from_both")) as attached:
        scene.send_each(way=1)
        scene.until(from_both=NOTHING, leaf=EACH)
        scene.send(frame(3, 0))
        scene.until(from_both=(0, 1, 0, 0, 0, 0), leaf=EACH)
        assert only_named(scene, "leaf").called_by == (only_named(scene, "from_both").logical_id,)
        assert attached.program.id == only_named(scene, "from_both").program.id


def only_named(scene: Scene, name: str) -> ProgramCounts:
    (found,) = [each for each in scene.counters.read().programs if each.name == name]
    return found


def test_a_program_is_counted_whose_file_and_process_are_gone(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "gone.o"
    shutil.copy(str(read("counted").path), path)
    script = """
import sys
import xdpkit
from xdpkit import Hook
iface, netns, pin_root, path = sys.argv[1:]
program = xdpkit.read(path).programs["from_main"]
Hook(iface, netns=netns, pin_root=pin_root).add(program).close()
"""
    place = scene.hook.place
    subprocess.run(
        [sys.executable, "-c", script, str(place.iface), str(place.netns), place.pin_root, path],
        check=True,
    )
    path.unlink()
    assert scene.counters.enable().not_counted == ()
    scene.send_each(way=1)
    scene.until(from_main=NOTHING, leaf=EACH, other_leaf=NOTHING)


# On and off


def test_totals_go_on_after_counting_was_off(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    scene.counters.enable()
    scene.send(frame(1))
    scene.until(by_packet=(0, 1, 0, 0, 0, 0))
    report = scene.counters.disable()
    assert not report.is_enabled
    assert packets(report) == {"by_packet": (0, 1, 0, 0, 0, 0)}
    with Program.from_id(only(report).program.id) as running:
        assert running.run(frame(1)).action is XdpAction.DROP
    assert packets(scene.counters.read()) == packets(report)
    scene.counters.enable()
    scene.send(frame(1), frame(2))
    scene.until(by_packet=(0, 2, 1, 0, 0, 0))


def test_packets_go_on_when_bytes_come_in_and_when_they_are_left_out(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    scene.counters.enable()
    scene.send(frame(1))
    scene.until(by_packet=(0, 1, 0, 0, 0, 0))
    scene.counters.enable(count_bytes=True)
    scene.send(frame(1))
    scene.until(by_packet=(0, 2, 0, 0, 0, 0))
    assert not scene.counters.enable().count_bytes
    scene.send(frame(1))
    scene.until(by_packet=(0, 3, 0, 0, 0, 0))
    assert only(scene.counters.read()).total.bytes == (0, 64, 0, 0, 0, 0)


@pytest.mark.parametrize("name", ["by_packet", "from_main", "from_both"])
def test_to_enable_twice_or_to_disable_twice_changes_nothing(scene: Scene, name: str) -> None:
    scene.hook.add(spec(name)).close()
    first, second = scene.counters.enable(), scene.counters.enable()
    assert packets(first) == packets(second)
    assert [each.logical_id for each in first.programs] == [
        each.logical_id for each in second.programs
    ]
    scene.counters.disable()
    (before,) = scene.hook.status().programs
    assert not scene.counters.disable().is_enabled
    assert scene.hook.status().programs == (before,)


def test_disabling_what_was_never_enabled_is_no_error(scene: Scene) -> None:
    assert not scene.counters.disable().is_enabled
    assert os.listdir(scene.hook.place.pin_root) == []


@ways
@pytest.mark.needs("live-frames")
def test_no_frame_is_missed_while_bytes_are_switched_on_and_off(
    scene: Scene, veth: Veth, via: Via
) -> None:
    scene.counters.enable()
    scene.hook.add(read("counting").programs["one"], via=via).close()
    with frames_into(veth, 100) as flow:
        for count_bytes in itertools.islice(itertools.cycle([True, False]), 7):
            flow.go_on()
            scene.counters.enable(count_bytes=count_bytes)
        flow.go_on()
    sent = flow.sent - not_taken(veth)
    wait_until(lambda: scene.counts()["one"][XdpAction.DROP] >= sent)
    assert scene.counts() == {"one": (0, sent, 0, 0, 0, 0)}
    counted = only(scene.counters.read()).total
    assert counted.bytes is not None
    assert 0 < counted.bytes[XdpAction.DROP] < sent * len(FRAME)


@pytest.mark.needs("live-frames")
def test_no_frame_is_unserved_while_counting_is_switched_on_and_off(
    scene: Scene, veth: Veth
) -> None:
    with scene.hook.add(read("counting").programs["one"]) as attached:
        with frames_into(veth, 100) as flow:
            for _ in range(4):
                flow.go_on()
                scene.counters.enable()
                flow.go_on()
                scene.counters.disable()
        sent = flow.sent - not_taken(veth)
        (seen,) = attached.maps.values()
        wait_until(lambda: sum(seen[0]) >= sent)
        # What the program itself counts, in the map that all copies share.
        assert sum(seen[0]) == sent
        assert 0 < scene.counts()["one"][XdpAction.DROP] < sent


# Tail calls


def test_leaves_that_main_calls_are_counted(scene: Scene) -> None:
    with scene.hook.add(spec("from_main")) as attached:
        report = scene.counters.enable()
        assert report.not_counted == ()
        assert {each.name: each.called_by for each in report.programs} == {
            "from_main": (),
            "leaf": (attached.program.id,),
            "other_leaf": (attached.program.id,),
        }
        scene.send_each(way=1)
        scene.send(frame(4, 2), frame(0, 3))
        scene.until(from_main=(1, 0, 0, 0, 0, 0), leaf=EACH, other_leaf=(0, 0, 0, 0, 1, 0))
        scene.counters.disable()
        with Program.from_id(attached.program.id) as original:
            assert original.run(frame(1, 1)).action is XdpAction.DROP
        assert scene.counts()["leaf"] == EACH


def test_leaves_that_a_subprogram_calls_are_not_actions(scene: Scene) -> None:
    scene.hook.add(spec("from_subprogram")).close()
    report = scene.counters.enable()
    assert report.not_counted == ()
    scene.send_each()
    scene.until(from_subprogram=(0, 4, 12, 0, 0, 0))


def test_a_leaf_that_both_call_is_counted_for_main_only(scene: Scene) -> None:
    with scene.hook.add(spec("from_both")) as attached:
        array = attached.maps["by_both"].id
        report = scene.counters.enable()
        assert report.not_counted == (
            f"Later changes of program array by_both (id {array}) reach main functions only when"
            " counting is enabled again: a subprogram tail-calls through it, too, so that they have"
            " an array of their own.",
        )
        scene.send_each(way=0)
        scene.until(from_both=(0, 4, 12, 0, 0, 0), leaf=NOTHING)
        scene.send_each(way=1)
        scene.until(from_both=(0, 4, 12, 0, 0, 0), leaf=EACH)
        scene.counters.enable(count_bytes=True)
        scene.send(frame(1, 1))
        doubled = (1, 3, 3, 4, 0, 6)
        scene.until(from_both=(0, 4, 12, 0, 0, 0), leaf=doubled)
        scene.counters.disable()
        assert scene.counts() == {"from_both": (0, 4, 12, 0, 0, 0), "leaf": doubled}
        scene.counters.enable()
        scene.send(frame(1, 1))
        scene.until(from_both=(0, 4, 12, 0, 0, 0), leaf=(1, 4, 3, 4, 0, 6))


def test_where_main_cannot_have_an_array_of_its_own_its_leaves_are_not_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(original: Image, **terms: Any) -> Program:
        if original.name == "from_both":
            raise RequirementUnmet("count", cause="of the weather")
        return copies.counted_copy(original, **terms)

    monkeypatch.setattr(leaves, "counted_copy", refusing)
    with scene.hook.add(spec("from_both")) as attached:
        report = scene.counters.enable()
        assert report.not_counted == (
            f"What from_both (id {attached.program.id}) returns is not counted: of the weather.",
            f"What is reached through program array by_both (id {attached.maps['by_both'].id}) is"
            " not counted: a subprogram tail-calls through it, and main functions cannot have an"
            " array of their own.",
        )
        (present,) = scene.hook.status().programs
        assert present.program.id == attached.program.id
        assert attached.program.run(frame(3, 1)).action is XdpAction.TX
        assert attached.program.run(frame(3, 0)).action is XdpAction.DROP
        assert scene.counts() == {}


def test_arrays_of_copies_for_leaves_are_held_for_who_calls_them(scene: Scene) -> None:
    """The first program has no use for the array, but by its pins the array stays."""
    with scene.hook.add(spec("to_from_both"), force=True) as attached:
        for _ in range(2):
            scene.counters.enable()
            scene.send(frame(3, 1), frame(3, 0))
        scene.until(to_from_both=NOTHING, from_both=(0, 2, 0, 0, 0, 0), leaf=(0, 0, 0, 2, 0, 0))
        with Program.from_id(attached.program.id) as original:
            assert original.run(frame(3, 1)).action is XdpAction.TX
        scene.counters.disable()
    place = scene.hook.place.pins
    folder = place.folder_of(scene.hook.status().interface)
    assert folder is not None
    assert {number for _, number in folder.maps} == {each.id for each in attached.maps.values()}


def test_a_program_that_comes_may_share_arrays_with_the_one_that_goes(scene: Scene) -> None:
    scene.counters.enable()
    with scene.hook.add(spec("from_main")) as first:
        shared = {"by_main": first.maps["by_main"]}
        with scene.hook.replace(spec("from_main"), maps=shared, force=True) as second:
            assert not [note for note in second.notes if "counted" in note]
            scene.send(frame(1, 1), frame(4, 2))
            scene.until(from_main=NOTHING, leaf=(0, 1, 0, 0, 0, 0), other_leaf=(0, 0, 0, 0, 1, 0))


def test_arrays_of_copies_wait_for_the_next_time_where_arrays_are_shared(scene: Scene) -> None:
    scene.counters.enable()
    with scene.hook.add(spec("from_both")) as first:
        array = first.maps["by_both"]
        with scene.hook.replace(spec("from_both"), maps={"by_both": array}, force=True) as second:
            assert [note for note in second.notes if "counted" in note] == [
                f"What is reached through program array by_both (id {array.id}) is not counted: a"
                " subprogram tail-calls through it, and main functions cannot have an array of"
                " their own."
            ]
            assert second.program.run(frame(1, 1)).action is XdpAction.DROP
            assert second.program.run(frame(3, 0)).action is XdpAction.DROP
            # Whoever still holds it may run it elsewhere.
            (sentence,) = scene.counters.enable().not_counted
            assert "which is not on this interface, uses it, too" in sentence
            first.close()
            scene.counters.enable()
            scene.send(frame(1, 1))
            scene.until(from_both=(0, 1, 0, 0, 0, 0), leaf=(0, 1, 0, 0, 0, 0))


def test_leaves_of_leaves_are_counted_and_stay(scene: Scene) -> None:
    scene.hook.add(read("nested").programs["first"]).close()
    assert scene.counters.enable().not_counted == ()
    scene.send(frame(0))
    scene.until(first=NOTHING, middle=NOTHING, leaf=(0, 1, 0, 0, 0, 0))
    scene.counters.disable()
    scene.counters.enable(count_bytes=True)
    scene.send(frame(0))
    scene.until(first=NOTHING, middle=NOTHING, leaf=(0, 2, 0, 0, 0, 0))
    scene.hook.delete()


def leaf_of(action: XdpAction, name: str) -> Program:
    """Load a program as xdpkit does, that always returns the same."""
    return load_image(
        Image(
            name=name,
            type=ProgType.XDP,
            attach_type=AttachType.XDP,
            flags=0,
            license="GPL",
            kern_version=0,
            code=machine_code(asm.mov(Register.R0, action), asm.exit()),
        )
    )


def test_changes_of_an_array_that_main_calls_through_take_effect(scene: Scene) -> None:
    with (
        scene.hook.add(spec("from_main"), force=True) as attached,
        raw_program("strange") as strange,
    ):
        scene.counters.enable()
        attached.maps["by_main"][1] = strange.fileno()
        number = int(bpf.prog_info(strange.fileno())[0].id)
        with Program.from_id(attached.program.id) as original:
            assert original.run(frame(1, 1)).action is XdpAction.PASS
        sentence = (
            f"What strange (id {number}) returns is not counted: its instructions were not kept"
            " with it."
        )
        assert scene.counters.read().not_counted == (sentence,)
        assert scene.counters.enable().not_counted == (sentence,)
        scene.send(frame(1, 1), frame(1, 2))
        scene.until(from_main=NOTHING, other_leaf=(0, 1, 0, 0, 0, 0))


def test_a_copy_that_a_process_still_holds_is_not_somebody_elses(scene: Scene) -> None:
    scene.counters.enable()
    with scene.hook.add(spec("from_main")) as attached:
        assert scene.counters.enable(count_bytes=True).not_counted == ()
        assert only_named(scene, "from_main").program.id != attached.program.id
        assert scene.counters.enable().not_counted == ()
        attached.detach()
    assert scene.hook.status().programs == ()


def test_an_array_that_programs_elsewhere_use_is_left_alone(scene: Scene) -> None:
    with load_all(read("counted")) as loaded:
        scene.hook.add(loaded.programs["from_main"]).close()
        array = loaded.maps["by_main"]
        elsewhere = Image(
            name="elsewhere",
            type=ProgType.XDP,
            attach_type=AttachType.XDP,
            flags=0,
            license="GPL",
            kern_version=0,
            code=machine_code(asm.mov(Register.R0, 2), asm.exit()),
            maps=(MapReference(array.id, "by_main"),),
        )
        with load_image(elsewhere) as program:
            before = dict(array.items())
            report = scene.counters.enable()
            assert report.not_counted == (
                f"What is reached through program array by_main (id {array.id}) is not counted:"
                f" elsewhere (id {program.id}), which is not on this interface, uses it, too.",
            )
            assert dict(array.items()) == before
        assert scene.counters.enable().not_counted == ()
        assert set(array.values()).isdisjoint(before.values())


# What cannot be counted


def test_a_throw_of_main_is_counted_and_one_of_a_subprogram_is_said(scene: Scene) -> None:
    if cases.running_kernel() < (6, 7):
        pytest.skip("bpf_throw() came with Linux 6.7")
    compiler = cases.compilers()[-1]
    obj = xdpkit.read(cases.path(cases.FOLDER / "exceptions.c", compiler))
    scene.hook.add(obj.programs["thrown_by_main"]).close()
    assert scene.counters.enable().not_counted == ()
    scene.send(frame(1))
    scene.until(thrown_by_main=(0, 0, 1, 0, 0, 0))
    with scene.hook.replace(obj.programs["thrown_by_a_subprogram"], force=True) as attached:
        (sentence,) = scene.counters.enable().not_counted
        assert sentence == (
            f"What thrown_by_a_subprogram (id {attached.program.id}) returns is not counted: a"
            " subprogram throws (bpf_throw), which ends the program without a return; throw in the"
            " main function only; or give the program an exception callback (__exception_cb),"
            " attach it for a single RX queue, and count no bytes."
        )
        assert attached.notes == (sentence,)
        assert scene.counters.read().not_counted == (sentence,)
        scene.send(frame(1))
        (present,) = scene.hook.status().programs
        assert present.program.id == attached.program.id


def test_a_program_that_uses_all_maps_is_not_counted(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(
                Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, name="one")
            )
            for _ in range(64)
        ]
        image = Image(
            name="greedy",
            type=ProgType.XDP,
            attach_type=AttachType.XDP,
            flags=0,
            license="GPL",
            kern_version=0,
            code=machine_code(
                *(asm.ld_map_value(Register.R1, each.id, 0) for each in made),
                asm.mov(Register.R0, XdpAction.PASS),
                asm.exit(),
            ),
            maps=tuple(MapReference(each.id, f"one{each.id}") for each in made),
        )
        attached = stack.enter_context(scene.hook.add(load_image(image), force=True))
        with attached.program:
            assert scene.counters.enable().not_counted == (
                f"What greedy (id {attached.program.id}) returns is not counted: it uses 64 maps,"
                " which is the most that the kernel allows, and the counters are one more.",
            )


def test_programs_of_others_are_not_counted(scene: Scene, veth: Veth) -> None:
    with foreign_link(veth):
        number = veth.interface.xdp.native
        report = scene.counters.enable()
        assert report.is_enabled
        assert report.programs == ()
        assert report.not_counted == (
            f"What foreign (id {number}) returns is not counted: xdpkit did not load it, and has"
            " not its instructions; nor can it be watched from outside: it has no type information"
            " (BTF) about its functions.",
        )
        assert veth.interface.xdp.native == number
        assert scene.counters.disable().not_counted == ()


def test_a_change_that_waits_to_be_confirmed_comes_first(scene: Scene) -> None:
    scene.hook.add(spec("by_packet"), revert_after=3600).close()
    name = scene.hook.place.iface
    with pytest.raises(UsageError) as refused:
        scene.counters.enable()
    assert str(refused.value) == (
        f"count what the programs on {name} return: a change on it waits to be confirmed\n"
        f"Remedy: confirm it first: xdpkit confirm -n {scene.hook.place.netns} {name}"
    )
    assert not scene.counters.read().is_enabled
    scene.hook.confirm()
    assert scene.counters.enable().is_enabled


def test_counting_takes_a_place_for_pins(veth: Veth, tmp_path: Path) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=tmp_path)
    with pytest.raises(RequirementUnmet) as refused:
        Counters(hook.place).enable()
    assert str(refused.value) == (
        f"count what the programs on {veth.name} return: {tmp_path} is not a BPF file system, and"
        f" only one can hold pins\nRemedy: mount -t bpf bpf {tmp_path}"
    )
    assert not Counters(hook.place).read().is_enabled


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_what_was_attached_before_a_switch_is_detached_after_it(
    scene: Scene, is_counted_first: bool
) -> None:
    switches = [scene.counters.enable, scene.counters.disable]
    if is_counted_first:
        switches.pop(0)()
    with scene.hook.add(spec("by_packet")) as attached:
        for switch in switches:
            switch()
        attached.detach()
    assert scene.hook.status().programs == ()


@pytest.mark.needs("fd-array")
def test_a_program_that_is_bound_to_a_device_is_counted(scene: Scene, veth: Veth) -> None:
    with entered(veth.netns):
        try:
            program = load(spec("by_packet"), ifindex=veth.interface.index)
        except xdpkit.KernelRefused as error:
            pytest.skip(f"this kernel binds no program to a veth (Linux 6.3): {error.cause}")
    with program:
        scene.hook.add(program, force=True).close()
    assert scene.counters.enable().not_counted == ()
    scene.send_each()
    scene.until(by_packet=EACH)
    assert packets(scene.counters.disable()) == {"by_packet": EACH}


def test_an_interface_that_moves_is_counted_on(scene: Scene, veth: Veth) -> None:
    scene.counters.enable()
    scene.hook.add(spec("from_main")).close()
    scene.send(frame(1, 1))
    scene.until(from_main=NOTHING, leaf=(0, 1, 0, 0, 0, 0), other_leaf=NOTHING)
    with namespace() as elsewhere:
        move(veth, elsewhere)
        moved = Counters(Place(veth.name, elsewhere, scene.hook.place.pin_root))
        assert moved.read().is_enabled
        report = moved.enable(count_bytes=True)
        assert report.not_counted == ()
        scene.send(frame(1, 1))
        wait_until(lambda: packets(moved.read())["leaf"] == (0, 2, 0, 0, 0, 0))
        assert not moved.disable().is_enabled
        (present,) = (
            Hook(veth.name, netns=elsewhere, pin_root=scene.hook.place.pin_root).status().programs
        )
        assert present.record is not None
        assert present.record.record.ifindex == moved.read().interface.index


def move(veth: Veth, netns: str) -> None:
    with open(path_of(netns), "rb") as place, rtnetlink(veth.netns) as connection:
        connection.link("set", index=veth.interface.index, net_ns_fd=place.fileno())
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=veth.name, state="up")


def test_counting_takes_privileges(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective_capabilities", lambda: 1 << Capability.NET_ADMIN)
    name = scene.hook.place.iface
    for words, change in (
        ("read the counters of", scene.counters.read),
        ("count what the programs on", scene.counters.enable),
        ("count no longer what the programs on", scene.counters.disable),
    ):
        with pytest.raises(MissingPrivilege) as refused:
            change()
        assert refused.value.what.startswith(f"{words} {name}")
        assert refused.value.cause == "this process lacks CAP_SYS_ADMIN"


# The setting


def test_a_setting_is_read_as_it_was_written(bpffs: Path) -> None:
    folder = str(bpffs / "1-2")
    assert settings.read(folder) is None
    settings.write(folder, Settings(Counting.PACKETS))
    settings.write(folder, Settings(Counting.PACKETS | Counting.BYTES))
    assert settings.read(folder) == Settings(Counting.PACKETS | Counting.BYTES)
    settings.remove(folder)
    settings.remove(folder)
    assert not os.path.exists(folder)


@pytest.mark.parametrize("change", ["counting", "flags", "tail"])
def test_what_a_later_version_set_is_shown_and_not_changed(bpffs: Path, change: str) -> None:
    folder = str(bpffs / "1-2")
    settings.write(folder, Settings(Counting.PACKETS))
    with Map.from_pin(f"{folder}/settings") as kept:
        kept[0] = of_a_later_version(kept[0], change)
    assert settings.read(folder) == Settings(Counting.PACKETS, unknown=True, xdpkit="99.0.0")
    changes: list[Callable[[], None]] = [
        lambda: settings.write(folder, Settings(Counting.OFF)),
        lambda: settings.remove(folder),
    ]
    for refused in changes:
        with pytest.raises(RequirementUnmet) as error:
            refused()
        assert error.value.cause == "xdpkit 99.0.0 set something that this version does not know"
        assert error.value.remedy == "use xdpkit 99.0.0"


def of_a_later_version(data: bytes, change: str) -> bytes:
    """Return a setting of a version with one field more, which has set something."""
    later = b"99.0.0"
    size = 40
    fields = [1, 0, size, len(later), 0, 0]
    if change == "counting":
        fields[0] |= 1 << 5
    elif change == "flags":
        fields[1] = 1
    else:
        fields[4] = 7
    packed = struct.pack("=4sIII6I", data[:4], size, 0, size + len(later), *fields) + later
    crc = struct.pack("=I", zlib.crc32(packed))
    return (packed[:8] + crc + packed[12:]).ljust(len(data), b"\0")


def test_a_setting_that_is_damaged_is_said(bpffs: Path) -> None:
    folder = str(bpffs / "1-2")
    settings.write(folder, Settings(Counting.PACKETS))
    with Map.from_pin(f"{folder}/settings") as kept:
        kept[0] = bytes(len(kept[0]))
    with pytest.raises(ObjectFormatError, match="does not begin as a setting does"):
        settings.read(folder)


# Crashes


@dataclass(frozen=True, slots=True)
class Deaths:
    """A hook on which children die while they switch counting."""

    hook: Hook
    name: str
    killing: Killing

    @property
    def counters(self) -> Counters:
        return Counters(self.hook.place)

    def serves(self) -> None:
        """The program is there, or its copy, and does what it does with two packets."""
        (present,) = self.hook.status().programs
        assert present.program.name == self.name
        with Program.from_id(present.program.id) as running:
            assert running.run(frame(XdpAction.DROP, 1)).action is XdpAction.DROP
            # Of this one there is nothing in the array that main calls through.
            other = XdpAction.ABORTED if self.name == "from_main" else XdpAction.PASS
            assert running.run(frame(XdpAction.PASS, 0)).action is other

    def total(self) -> int:
        return sum(sum(each.total.packets) for each in self.counters.read().programs)


@pytest.mark.parametrize(
    ("name", "via"),
    [
        ("by_packet", Via.NETLINK),
        ("to_from_both", Via.LINK),
        pytest.param("from_both", Via.LINK, marks=pytest.mark.soak),
        pytest.param("by_packet", Via.LINK, marks=pytest.mark.soak),
        pytest.param("from_both", Via.NETLINK, marks=pytest.mark.soak),
        pytest.param("from_main", Via.LINK, marks=pytest.mark.soak),
        pytest.param("from_main", Via.NETLINK, marks=pytest.mark.soak),
    ],
)
def test_a_switch_that_is_killed_leaves_a_hook_that_serves(
    veth: Veth, pin_root: str, only_here: None, killing: Killing, name: str, via: Via
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    scene = Deaths(hook, name, killing)
    # What is learnt once in a process is learnt before the first child is born.
    hook.add(spec(name), via=via).close()
    scene.counters.enable()
    scene.counters.disable()
    changes: list[Callable[[], object]] = [
        scene.counters.enable,
        lambda: scene.counters.enable(count_bytes=True),
        scene.counters.disable,
    ]
    for change in changes:
        for step in itertools.count(1):
            died_before = killing.die(change, step)
            scene.serves()
            before = scene.total()
            # The next command goes on.
            change()
            scene.serves()
            assert scene.total() == before + (2 if scene.counters.read().is_enabled else 0)
            if died_before is None:
                break
            if change is changes[0]:
                scene.counters.disable()
            elif change is changes[1]:
                scene.counters.enable()
            else:
                scene.counters.enable(count_bytes=True)
    hook.delete()
    scene.counters.disable()
    xdpkit.hook.clean(pin_root=pin_root)
    assert os.listdir(pin_root) in ([], ["xdpkit"])
    assert killing.deaths > 3
