# SPDX-License-Identifier: Apache-2.0
"""Frames that are reported with what a program returns for them, as a reader wants them.

Frames are sent by the other end of a veth pair, and say themselves what a program is to return.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

import xdpkit
from tests.corpus import build
from tests.kernel.attaching import foreign_link
from tests.kernel.compiled import read
from tests.kernel.killing import Killing, killing, only_here, reach, wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, namespace, rtnetlink
from tests.kernel.test_counters import EACH, Scene, frame, only, packets, scene
from tests.kernel.test_counters_foreign import foreign, watchable
from tests.kernel.test_hook_under_load import frames_into, not_taken
from xdpkit import Hook
from xdpkit.errors import HookBusy, KernelRefused, UsageError
from xdpkit.hook import Cleaned, Tap, Via, clean, readers, revert, taps, unread, watching
from xdpkit.hook import reach as reaching
from xdpkit.hook import work as work_for
from xdpkit.hook.copies import counted_copy
from xdpkit.hook.exchanging import exchange_copies
from xdpkit.hook.guard import Change
from xdpkit.hook.pins import Pins
from xdpkit.hook.place import Place
from xdpkit.hook.repair import sweep
from xdpkit.hook.settings import Counting
from xdpkit.hook.view import View
from xdpkit.hook.work import Work
from xdpkit.interfaces import Interface
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map, Program, host, load, load_image, patch
from xdpkit.kernel.claim import Claim
from xdpkit.kernel.image import Image, MapReference
from xdpkit.kernel.memory import Memory
from xdpkit.kernel.ringbuf import RingBuffer
from xdpkit.probes import is_absent
from xdpkit.probes.ask import machine_code
from xdpkit.rewrite import COUNTED, EVENT_SIZE, Event, Spending
from xdpkit.syscalls import netns
from xdpkit.uapi.bpf import AttachType, MapFlags, MapType, ProgType, XdpAction

__all__ = ["killing", "only_here", "scene", "watchable"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp")

ALL = frozenset(COUNTED)
ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])


@dataclass
class Reader:
    """The maps of a reader, and what came."""

    ring: Map
    credits: Map
    spending: Map
    buffer: RingBuffer
    granted: Memory
    spent: Memory
    came: list[tuple[Event, bytes]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def made(cls, *, size: int = 1 << 20, credit: int = 1 << 40) -> Iterator[Self]:
        with contextlib.ExitStack() as owned:
            ring = owned.enter_context(
                Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=size, name="ring")
            )
            credits, spending = (
                owned.enter_context(
                    Map.create(
                        MapType.ARRAY,
                        key_size=4,
                        value_size=64,
                        max_entries=host.possible_cpus(),
                        flags=MapFlags.MMAPABLE,
                        name=name,
                    )
                )
                for name in ("credits", "spending")
            )
            reader = cls(
                ring,
                credits,
                spending,
                owned.enter_context(RingBuffer(ring)),
                owned.enter_context(Memory(credits, writable=True)),
                owned.enter_context(Memory(spending)),
            )
            reader.grant(credit)
            yield reader

    def grant(self, credit: int) -> None:
        """Grant each CPU as much in all."""
        for cpu in range(host.possible_cpus()):
            self.granted.set(cpu, 0, credit)

    def tap(
        self, *, actions: frozenset[str] = ALL, snaplen: int | None = None, sample: int = 1
    ) -> Tap:
        snaplen = most_bytes() if snaplen is None else snaplen
        return Tap(self.ring, self.credits, self.spending, actions, snaplen, sample)

    def read(self) -> list[tuple[Event, bytes]]:
        """Return what has come since the beginning."""
        for record in self.buffer.records():
            event = Event.from_buffer_copy(record)
            self.came.append((event, record[EVENT_SIZE:][: event.captured]))
        return self.came

    def until(self, count: int) -> list[tuple[Event, bytes]]:
        """Wait until as many records have come, and no more."""
        wait_until(lambda: len(self.read()) >= count, lambda: f"{len(self.came)} came")
        assert len(self.came) == count
        return self.came

    def total(self, name: str) -> int:
        """Return a number of the spending, of all CPUs."""
        return self.spent.sum(getattr(Spending, name).offset // 8)

    def returned(self) -> Counter[tuple[str, int]]:
        """Return how many records came, by program and action."""
        return Counter((event.name.decode(), event.action) for event, _ in self.read())


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader.made() as made:
        yield made


def corpus_object(source: str) -> xdpkit.Object:
    """Return an object of the corpus; skip the test where nothing can compile it."""
    path = build.FOLDER / source
    for compiler in build.compilers():
        if compiler.family != "gcc-bpf" and build.suits(path, compiler):
            return xdpkit.read(build.build(path, compiler).path)
    pytest.skip("no BPF compiler: apt-get install clang")


def spec(name: str) -> xdpkit.ProgramSpec:
    return read("counted").programs[name]


def most_bytes() -> int:
    """Return how many bytes are wanted of frames where none can be had: 0, and else 64."""
    return 0 if is_absent("xdp-frags") else 64


def inode(name: str) -> int:
    return os.stat(netns.path_of(name)).st_ino


def is_plain(hook: Hook) -> bool:
    """Whether nothing on a hook reports, nor what it tail-calls, as the maps of all these say."""
    web = reaching.look(each.program.id for each in hook.status().programs)
    maps: set[int] = set()
    for number in web.programs:
        with Program.from_id(number) as program:
            maps.update(program.info().map_ids)
    names: set[str] = set()
    for number in maps:
        with Map.from_id(number) as found:
            names.add(found.name)
    return not names & {"ring", "credits", "spending"}


def tap_folders(hook: Hook) -> list[str]:
    return [path.name for path in Path(hook.place.pins.folder).glob("tap-*")]


def undone(hook: Hook) -> None:
    """Wait until a change is undone that nobody confirmed."""
    wait_until(lambda: hook.status().attached[0].seconds_to_revert is None)
    # What undoes it holds the lock until it has put everything right.
    with hook.place.pins.locked("wait", create=False):
        pass


# What is reported


@ways
def test_each_frame_is_reported_with_what_was_returned_for_it(
    scene: Scene, veth: Veth, reader: Reader, via: Via
) -> None:
    scene.hook.add(spec("by_packet"), via=via).close()
    (before,) = scene.hook.status().programs
    with scene.hook.tap(reader.tap()) as tapped:
        assert (tapped.programs, tapped.not_tapped) == ({before.program.id: "by_packet"}, ())
        sent = [frame(action, length=60 + action % 7) for action in (0, 1, 2, 3, 5, 255)]
        scene.send(*sent)
        came = reader.until(len(sent))
    for (event, data), each in zip(came, sent, strict=True):
        assert (event.action, event.length, data) == (each[14], len(each), each[: most_bytes()])
        assert (event.netns, event.ifindex) == (inode(veth.netns), veth.interface.index)
        assert (event.program, event.name) == (before.program.id, b"by_packet")
        assert (event.kind, event.error, event.unused, event.target) == (0, 0, 0, 0)
        assert 0 <= event.cpu < host.possible_cpus()
    times = [event.time for event, _ in came]
    assert times == sorted(times)
    assert times[0] > 0
    assert (reader.total("seen"), reader.total("spent")) == (6, 6)
    assert is_plain(scene.hook)
    (after,) = scene.hook.status().programs
    assert after.logical_id == before.program.id
    assert tap_folders(scene.hook) == []


def test_a_redirect_is_reported_and_a_number_that_is_no_action_as_it_is(
    scene: Scene, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()):
        (running,) = scene.hook.status().programs
        with Program.from_id(running.program.id) as program:
            for action in (4, 200):
                program.run(frame(action))
        assert [event.action for event, _ in reader.until(2)] == [4, 200]


def test_frames_are_reported_with_their_queue(scene: Scene, veth: Veth, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()), line_into(veth) as line:
        for queue in range(4):
            line.send(queue, queue + 1)
        came = reader.until(10)
    assert Counter(event.queue for event, _ in came) == {0: 1, 1: 2, 2: 3, 3: 4}


def test_programs_of_queues_are_reported_under_a_root(
    scene: Scene, veth: Veth, reader: Reader
) -> None:
    scene.hook.queues[1].add(spec("by_packet")).close()
    scene.hook.queues[2, 3].add(spec("leaf")).close()
    with scene.hook.tap(reader.tap()) as tapped, line_into(veth) as line:
        assert sorted(tapped.programs.values()) == ["by_packet", "leaf"]
        for queue in range(4):
            line.send(queue, queue + 1)
        came = reader.until(9)
        assert Counter((event.name, event.queue) for event, _ in came) == {
            (b"by_packet", 1): 2,
            (b"leaf", 2): 3,
            (b"leaf", 3): 4,
        }
    assert is_plain(scene.hook)
    assert {each.qid for each in scene.hook.status().programs} == {1, 2, 3}


def test_only_frames_with_wanted_actions_are_reported(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap(actions=frozenset({"drop", "invalid"}))):
        scene.send_each()
        came = reader.until(2 + 6)
    assert Counter(event.action for event, _ in came) == {1: 2, 5: 5, 255: 1}
    assert reader.total("seen") == 8


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("snaplen", [0, 1, 20, 4096])
def test_as_many_bytes_are_reported_as_are_wanted(
    scene: Scene, reader: Reader, snaplen: int
) -> None:
    scene.hook.add(spec("by_packet")).close()
    sent = frame(1, length=60), frame(2, length=1500)
    with scene.hook.tap(reader.tap(snaplen=snaplen)):
        scene.send(*sent)
        came = reader.until(2)
    assert [(event.length, data) for event, data in came] == [
        (len(each), each[:snaplen]) for each in sent
    ]


def test_where_no_program_can_copy_bytes_that_is_said(
    scene: Scene, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdpkit.probes.is_absent", lambda name: name == "xdp-frags")
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap(snaplen=64)) as tapped:
        assert tapped.not_tapped == (
            "Of the frames no bytes are reported: this kernel lets no program copy them (Linux"
            " 5.18).",
        )
        scene.send(frame(1))
        ((event, data),) = reader.until(1)
    assert (event.length, event.captured, data) == (64, 0, b"")


@pytest.mark.needs("xdp-frags")
def test_frames_in_fragments_are_reported_in_full_length(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_large_packet")).close()
    sent = (bytes(12) + b"\x88\xb5\x01" + os.urandom(8985)).ljust(9000, b"\0")
    with scene.hook.tap(reader.tap(snaplen=9216)):
        (running,) = scene.hook.status().programs
        with Program.from_id(running.program.id) as program:
            assert program.run(sent).action is XdpAction.DROP
        ((event, data),) = reader.until(1)
    assert (event.length, data) == (9000, sent)


def test_the_frame_is_reported_as_the_program_left_it(scene: Scene, reader: Reader) -> None:
    scene.hook.add(read("resizing").programs["grow_front"], force=True).close()
    with scene.hook.tap(reader.tap()):
        (running,) = scene.hook.status().programs
        with Program.from_id(running.program.id) as program:
            result = program.run(frame(1))
        ((event, data),) = reader.until(1)
    assert event.length == len(result.packet) > 64
    assert data == result.packet[: most_bytes()]


def copy_of(program: Program, veth: Veth, reader: Reader, counting: Counting) -> Program:
    """Load a copy of a program that reports all frames; None where there is no room for that."""
    assert program.image is not None
    work = Work(
        counting,
        work_for.Reader(
            ring=reader.ring.id,
            credits=reader.credits.id,
            spending=reader.spending.id,
            netns=inode(veth.netns),
            actions=ALL,
            snaplen=most_bytes(),
            sample=1,
            wanted=most_bytes(),
        ),
    )
    return counted_copy(program.image, work=work, entries=4, interface=veth.interface)


@pytest.mark.parametrize("counting", [Counting.OFF, Counting.PACKETS | Counting.BYTES])
@pytest.mark.parametrize("source", ["packet.c", "subprograms_static.c", "constants.c"])
def test_copies_do_what_programs_do_and_report_it(
    veth: Veth, reader: Reader, source: str, counting: Counting
) -> None:
    for each in corpus_object(source).programs.values():
        with load(each) as program, copy_of(program, veth, reader, counting) as copy:
            for length in (14, 60, 64, 1514):
                result = copy.run(bytes(range(256))[:length] * (1 + length // 256))
                ((event, data),) = reader.until(1)
                assert (event.action, event.length) == (result.action, len(result.packet))
                assert data == result.packet[: most_bytes()]
                reader.came.clear()


def test_programs_of_any_licence_are_reported_with_the_time(veth: Veth, reader: Reader) -> None:
    with load(spec("by_packet")) as program:
        assert program.image is not None
        image = replace(program.image, license="Proprietary")
        with load_image(image) as closed, copy_of(closed, veth, reader, Counting.OFF) as copy:
            copy.run(frame(1))
            ((event, _),) = reader.until(1)
            assert event.time > 0


# Tail calls


@pytest.mark.parametrize("counted", [False, True])
def test_leaves_that_main_calls_are_reported(scene: Scene, reader: Reader, counted: bool) -> None:
    scene.hook.add(spec("from_main")).close()
    if counted:
        scene.counters.enable()
    with scene.hook.tap(reader.tap()) as tapped:
        assert sorted(tapped.programs.values()) == ["from_main", "leaf", "other_leaf"]
        assert tapped.not_tapped == ()
        scene.send(frame(1, 1), frame(2, 2), frame(0, 3))
        reader.until(3)
        assert reader.returned() == {("leaf", 1): 1, ("other_leaf", 2): 1, ("from_main", 0): 1}
    scene.send(frame(1, 1))
    if counted:
        scene.until(
            from_main=(1, 0, 0, 0, 0, 0), leaf=(0, 2, 0, 0, 0, 0), other_leaf=(0, 0, 1, 0, 0, 0)
        )
        scene.counters.disable()
    assert len(reader.read()) == 3


@pytest.mark.parametrize("counted", [False, True])
def test_what_a_subprogram_tail_calls_is_not_reported(
    scene: Scene, reader: Reader, counted: bool
) -> None:
    scene.hook.add(spec("from_both")).close()
    if counted:
        scene.counters.enable()
    with scene.hook.tap(reader.tap()) as tapped:
        assert tapped.not_tapped == ()
        scene.send(frame(3, 1), frame(3, 0), frame(1, 0))
        reader.until(3)
        assert reader.returned() == {("leaf", 3): 1, ("from_both", 1): 1, ("from_both", 2): 1}
        assert not tapped.refresh()
    if counted:
        scene.send(frame(3, 1))
        scene.until(from_both=(0, 1, 1, 0, 0, 0), leaf=(0, 0, 0, 2, 0, 0))


# Counters


def test_counters_go_on_beside_a_tap(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    scene.counters.enable(count_bytes=True)
    scene.send_each()
    with scene.hook.tap(reader.tap()):
        scene.send_each()
        reader.until(sum(EACH))
        assert only(scene.counters.read()).total.bytes is not None
    scene.send_each()
    scene.until(by_packet=tuple(3 * count for count in EACH))
    assert len(reader.read()) == sum(EACH)
    assert scene.counters.read().not_counted == ()


def test_a_program_that_leaves_no_room_goes_on_counting_and_that_is_said(
    scene: Scene, reader: Reader
) -> None:
    code = asm.store(Register.R10, -512, 0), asm.mov(Register.R0, XdpAction.DROP), asm.exit()
    image = Image("full", ProgType.XDP, AttachType.XDP, 0, "GPL", 0, machine_code(*code))
    with load_image(image) as program:
        scene.hook.queues[1].add(program).close()
        scene.counters.enable()
        (before,) = scene.hook.status().programs
        with scene.hook.tap(reader.tap()) as tapped:
            assert tapped.programs == {}
            assert tapped.not_tapped == (
                f"What full (id {program.id}) returns is not reported: 8 more bytes of stack are"
                " needed, and the program may use 512 of 512.",
                "Frames of queues 0, 2-3 are not reported: no program serves them.",
            )
            assert scene.hook.status().programs == (before,)
            assert not tapped.refresh()
    assert scene.hook.status().programs == (before,)
    assert only(scene.counters.read()).logical_id == before.logical_id


def test_counters_that_are_enabled_meanwhile_count_and_the_tap_comes_back(
    scene: Scene, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        assert not tapped.refresh()
        scene.counters.enable()
        assert tapped.refresh()
        assert not tapped.refresh()
        scene.send_each()
        reader.until(sum(EACH))
        scene.until(by_packet=EACH)
        scene.counters.disable()
        assert tapped.refresh()
        scene.send(frame(1))
        reader.until(sum(EACH) + 1)
    assert packets(scene.counters.read()) == {"by_packet": EACH}


@ways
@pytest.mark.needs("live-frames")
def test_no_frame_is_missed_while_a_tap_comes_and_goes(
    scene: Scene, veth: Veth, reader: Reader, via: Via
) -> None:
    scene.counters.enable()
    with scene.hook.add(read("counting").programs["one"], via=via) as attached:
        reader.grant(100)
        with frames_into(veth, 100) as flow:
            for _ in range(3):
                flow.go_on()
                with scene.hook.tap(reader.tap()) as tapped:
                    flow.go_on()
                    assert tapped.not_tapped == ()
            flow.go_on()
        sent = flow.sent - not_taken(veth)
        wait_until(lambda: scene.counts()["one"][XdpAction.DROP] >= sent)
        assert scene.counts() == {"one": (0, sent, 0, 0, 0, 0)}
        (seen,) = attached.maps.values()
        assert sum(seen[0]) == sent
        assert len(reader.read()) == reader.total("spent") <= 100 * host.possible_cpus()
        assert reader.total("seen") == reader.total("spent") + reader.total("suppressed") < sent
        assert reader.total("lost") == 0


# Credits


def run(hook: Hook, count: int, action: int = 1) -> None:
    """Run what is on a hook for as many frames, on one CPU."""
    (running,) = hook.status().programs
    with Program.from_id(running.program.id) as program:
        program.run(frame(action), repeat=count)


def test_without_credit_frames_are_counted_only(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    reader.grant(0)
    with scene.hook.tap(reader.tap()):
        run(scene.hook, 1000)
        assert reader.read() == []
        assert (reader.total("seen"), reader.total("suppressed")) == (1000, 1000)
        assert reader.total("spent") == 0


def test_each_record_spends_a_credit(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    reader.grant(3)
    cpus = os.sched_getaffinity(0)
    with scene.hook.tap(reader.tap()):
        os.sched_setaffinity(0, {min(cpus)})
        try:
            run(scene.hook, 10)
            assert len(reader.read()) == 3
            reader.grant(5)
            run(scene.hook, 10)
        finally:
            os.sched_setaffinity(0, cpus)
        assert len(reader.read()) == 5
        assert (reader.total("spent"), reader.total("suppressed")) == (5, 15)


def test_what_finds_no_room_is_counted_as_lost(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    with Reader.made(size=4096) as reader, scene.hook.tap(reader.tap()):
        run(scene.hook, 1000)
        came = len(reader.read())
        # Each takes a header of 8 bytes, too; and the ring is never quite full.
        assert came == 4095 // (8 + EVENT_SIZE + most_bytes())
        assert (reader.total("lost"), reader.total("spent")) == (1000 - came, 1000)
        run(scene.hook, 1)
        assert len(reader.read()) == came + 1


def test_one_in_as_many_frames_is_reported_as_is_asked_for(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    cpus = os.sched_getaffinity(0)
    with scene.hook.tap(reader.tap(sample=10)):
        os.sched_setaffinity(0, {min(cpus)})
        try:
            run(scene.hook, 1)
            assert len(reader.read()) == 1
            run(scene.hook, 99)
        finally:
            os.sched_setaffinity(0, cpus)
        assert len(reader.read()) == 10
        assert (reader.total("seen"), reader.total("spent")) == (100, 10)


@pytest.mark.parametrize("actions", [frozenset({"aborted", "invalid"}), ALL])
def test_frames_that_a_tracepoint_will_tell_of_are_noted(
    scene: Scene, veth: Veth, reader: Reader, actions: frozenset[str]
) -> None:
    scene.hook.add(spec("by_packet")).close()
    reader.grant(0)
    here = inode(veth.netns) << 32 | veth.interface.index
    word = Spending.noted.offset // 8
    with scene.hook.tap(reader.tap(actions=actions)):
        scene.send(frame(2), frame(1))
        scene.send(frame(0))
        wait_until(lambda: any(reader.spent.get(cpu, word) for cpu in range(reader.spent.entries)))
        noted = {reader.spent.get(cpu, word) for cpu in range(reader.spent.entries)}
    assert noted - {0} == {here}


def test_frames_that_no_tracepoint_tells_of_are_not_noted(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()):
        scene.send(frame(1), frame(2))
        reader.until(2)
    assert reader.total("noted") == 0


# Changes by others


def test_what_is_attached_later_is_reported_after_the_next_look(
    scene: Scene, reader: Reader
) -> None:
    with scene.hook.tap(reader.tap()) as tapped:
        assert tapped.programs == {}
        with scene.hook.add(spec("by_packet")) as attached:
            assert tapped.refresh()
            assert tapped.programs == {attached.program.id: "by_packet"}
            scene.send(frame(1))
            reader.until(1)
            with scene.hook.replace(spec("leaf"), expected=attached) as replacing:
                assert tapped.refresh()
                assert tapped.programs == {replacing.program.id: "leaf"}
        scene.send(frame(2))
        reader.until(2)
        scene.hook.queues[1].add(spec("by_packet")).close()
        assert tapped.refresh()
        assert sorted(tapped.programs.values()) == ["by_packet", "leaf"]
        scene.hook.clear()
        assert tapped.refresh()
        assert tapped.programs == {}
    assert reader.returned() == {("by_packet", 1): 1, ("leaf", 2): 1}


def test_what_comes_into_a_program_array_is_reported_after_the_next_look(
    scene: Scene, reader: Reader
) -> None:
    with scene.hook.add(spec("from_main")) as attached, scene.hook.tap(reader.tap()) as tapped:
        with load(spec("by_packet")) as program:
            attached.maps["by_main"][3] = program
            assert tapped.refresh()
            assert tapped.programs[program.id] == "by_packet"
        scene.send(frame(1, 3))
        reader.until(1)
        assert reader.returned() == {("by_packet", 1): 1}


def test_while_a_change_waits_to_be_confirmed_nothing_is_exchanged(
    scene: Scene, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        scene.hook.replace(spec("leaf"), revert_after=600).close()
        assert not tapped.refresh()
        with pytest.raises(UsageError, match="a change on it waits to be confirmed"):
            scene.hook.tap(reader.tap())
        scene.hook.confirm()
        assert tapped.refresh()
        assert list(tapped.programs.values()) == ["leaf"]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done by others when a reader has exchanged the programs for the first time."""

    def be_done(change: Callable[[], object]) -> None:
        changes = iter([change])

        def then_sweep(interface: Interface, pins: Pins) -> None:
            for each in changes:
                each()
            sweep(interface, pins)

        monkeypatch.setattr(taps, "sweep", then_sweep)

    return be_done


def test_what_comes_while_programs_are_exchanged_is_reported_after_the_next_look(
    scene: Scene, reader: Reader, between: Callable[[Callable[[], object]], None]
) -> None:
    with scene.hook.add(spec("from_main")) as attached, load(spec("by_packet")) as program:
        between(lambda: attached.maps["by_main"].__setitem__(3, program))
        with scene.hook.tap(reader.tap()) as tapped:
            assert program.id not in tapped.programs
            assert tapped.refresh()
            assert tapped.programs[program.id] == "by_packet"
            assert not tapped.refresh()
            scene.send(frame(1, 3))
            reader.until(1)


def test_what_takes_the_place_of_a_copy_at_once_stays_and_is_reported_after_the_next_look(
    scene: Scene, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Map.__setitem__
    with scene.hook.add(spec("from_main")) as attached, load(spec("by_packet")) as program:
        others = iter([program])

        def put(array: Map, slot: Any, value: Any) -> None:
            real(array, slot, value)
            if array.name == "by_main" and slot == 1:
                for each in others:
                    real(attached.maps["by_main"], slot, each)

        monkeypatch.setattr(Map, "__setitem__", put)
        with scene.hook.tap(reader.tap()) as tapped:
            assert program.id not in tapped.programs
            assert tapped.refresh()
            assert tapped.programs[program.id] == "by_packet"
            scene.send(frame(1, 1))
            reader.until(1)
        assert reader.returned() == {("by_packet", 1): 1}


def test_large_program_arrays_are_looked_at_as_often_as_that_takes_little_time(
    scene: Scene, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    monkeypatch.setattr("xdpkit.hook.pace.monotonic", lambda: next(now))
    with (
        Map.create(
            MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=2048, name="large"
        ) as large,
        load_image(calling(large)) as caller,
        load(spec("leaf")) as leaf,
    ):
        with scene.hook.add(caller) as attached, scene.hook.tap(reader.tap()) as tapped:
            assert not tapped.refresh()
            attached.maps["large"][7] = leaf
            # The last look took one, and so as many more pass.
            looks = [tapped.refresh() for _ in range(49)]
            assert (any(looks), leaf.id in tapped.programs) == (False, False)
            assert tapped.refresh()
            assert tapped.programs[leaf.id] == "leaf"
        scene.hook.delete()


def calling(array: Map) -> Image:
    """Return a program that tail-calls through slot 7 of an array."""
    code = bytearray(
        machine_code(
            asm.ld_imm64(Register.R2, 0),
            asm.mov(Register.R3, 7),
            asm.call("tail_call"),
            asm.mov(Register.R0, XdpAction.DROP),
            asm.exit(),
        )
    )
    patch.set_map(code, (0,), array.id)
    maps = (MapReference(array.id, "large"),)
    return Image("caller", ProgType.XDP, AttachType.XDP, 0, "GPL", 0, bytes(code), maps=maps)


def test_a_change_that_waits_is_not_exchanged_even_if_it_comes_while_a_reader_begins(
    scene: Scene, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.hook.add(spec("by_packet")).close()
    real = readers.claim

    def claim(*args: Any) -> Claim:
        monkeypatch.undo()
        claimed = real(*args)
        # The reader lets go of the lock before it exchanges.
        monkeypatch.setattr(Pins, "locked", locked)
        return claimed

    def locked(*args: Any, **options: Any) -> contextlib.AbstractContextManager[bool]:
        monkeypatch.undo()
        with scene.hook.replace(spec("leaf"), revert_after=600) as new:
            waiting.append(new.program.id)
        return Pins.locked(*args, **options)

    waiting: list[int] = []
    monkeypatch.setattr(readers, "claim", claim)
    with pytest.raises(UsageError, match="a change on it waits to be confirmed"):
        scene.hook.tap(reader.tap())
    assert [each.program.id for each in scene.hook.status().attached] == waiting
    scene.hook.confirm()
    assert tap_folders(scene.hook) == []


def test_a_change_that_waits_is_exchanged_by_nobody(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    scene.hook.replace(spec("leaf"), revert_after=600).close()
    pins = scene.hook.place.pins
    with (
        pins.locked("exchange", create=False),
        pytest.raises(UsageError, match="a change on it waits to be confirmed"),
    ):
        exchange_copies(
            View.of(scene.hook.place, scene.hook.place.resolve()),
            pins,
            Work(Counting.PACKETS),
            "exchange",
        )
    scene.hook.confirm()


def test_what_comes_back_when_a_change_is_undone_reports_to_the_reader_that_is_there(
    scene: Scene, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        scene.hook.replace(spec("leaf"), revert_after=0.1).close()
        undone(scene.hook)
        scene.send(frame(1))
        reader.until(1)
        tapped.refresh()
        assert list(tapped.programs.values()) == ["by_packet"]
    assert is_plain(scene.hook)
    assert tap_folders(scene.hook) == []


@contextlib.contextmanager
def guarded(hook: Hook) -> Iterator[Change]:
    """Replace a program, to be undone by this process, which takes the place of the guard."""
    (present,) = hook.status().attached
    with (
        pytest.MonkeyPatch.context() as patched,
        Program.from_id(present.program.id) as previous,
    ):
        patched.setattr(revert, "guarding", lambda *_: contextlib.nullcontext())
        with hook.replace(spec("leaf"), revert_after=600) as new:
            assert new.record is not None
            task = revert.Task(
                name=new.interface.name,
                ifindex=new.interface.index,
                netns_cookie=new.interface.netns_cookie,
                netns=hook.place.netns,
                pin_root=hook.place.pin_root,
                program=new.program.fileno(),
                previous=previous.fileno(),
                revert_at=new.record.revert_at,
            )
            yield Change(task, new.program, previous)


def close(hook: Hook, reader: Reader, change: Callable[[], object]) -> None:
    with hook.tap(reader.tap()):
        change()


def be_killed(hook: Hook, reader: Reader, change: Callable[[], object]) -> None:
    tap_and_die(hook, change)


ends = pytest.mark.parametrize("end", [close, be_killed])


@ends
def test_of_a_reader_that_ends_while_a_change_waits_nothing_comes_back_with_what_is_undone(
    scene: Scene, reader: Reader, end: Callable[[Hook, Reader, Callable[[], object]], None]
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with contextlib.ExitStack() as during:
        changes: list[Change] = []
        end(scene.hook, reader, lambda: changes.append(during.enter_context(guarded(scene.hook))))
        assert len(tap_folders(scene.hook)) == 1
        assert changes.pop().undo()
    assert scene.hook.status().attached[0].program.name == "by_packet"
    assert is_plain(scene.hook)
    assert tap_folders(scene.hook) == []


@ends
def test_of_a_reader_that_ends_while_a_change_waits_nothing_is_left_when_that_is_confirmed(
    scene: Scene, reader: Reader, end: Callable[[Hook, Reader, Callable[[], object]], None]
) -> None:
    scene.hook.add(spec("by_packet")).close()
    end(scene.hook, reader, lambda: scene.hook.replace(spec("leaf"), revert_after=600).close())
    assert len(tap_folders(scene.hook)) == 1
    scene.hook.confirm()
    assert is_plain(scene.hook)
    assert tap_folders(scene.hook) == []


def test_clean_says_what_waits_for_a_change_to_be_confirmed(
    scene: Scene, veth: Veth, reader: Reader, only_here: None
) -> None:
    scene.hook.add(spec("by_packet")).close()
    close(
        scene.hook,
        reader,
        lambda: scene.hook.replace(spec("leaf"), revert_after=600).close(),
    )
    root = scene.hook.place.pin_root
    (name,) = tap_folders(scene.hook)
    waiting = Cleaned(
        "what a reader of frames left that is gone",
        f"{scene.hook.place.pins.folder}/{name}",
        error=f"a change on {veth.name} waits to be confirmed",
    )
    assert clean(pin_root=root) == (waiting,)
    scene.hook.confirm()
    assert clean(pin_root=root) == ()


def test_a_hook_that_cannot_be_put_right_keeps_the_folders_of_no_others(
    scene: Scene, veth: Veth, only_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Hook(veth.peer, netns=veth.peer_netns, pin_root=scene.hook.place.pin_root)
    reach(monkeypatch, veth.netns, veth.peer_netns)
    for hook in (scene.hook, other):
        hook.add(spec("by_packet")).close()
        tap_and_die(hook)
    real = unread.put_plain

    def put_plain(place: Place, interface: Interface, what: str) -> None:
        if interface.name == veth.name:
            raise KernelRefused(what, errno=errno.EIO, cause="it is broken")
        real(place, interface, what)

    monkeypatch.setattr(unread, "put_plain", put_plain)
    cleaned = clean(pin_root=scene.hook.place.pin_root)
    assert [each.error for each in cleaned].count("it is broken") == 2
    assert is_plain(other)
    assert len(tap_folders(scene.hook)) == 1
    monkeypatch.undo()
    scene.hook.counters.disable()
    assert tap_folders(scene.hook) == []
    other.delete()


def test_a_reader_that_begins_anew_gets_what_it_wants_now(
    scene: Scene, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with pytest.MonkeyPatch.context() as failing:
        failing.setattr(unread, "put_plain", lambda *_: None)
        with scene.hook.tap(reader.tap(actions=frozenset({"drop"}))):
            pass
    with scene.hook.tap(reader.tap(actions=frozenset({"pass"}))):
        scene.send(frame(1), frame(2))
        reader.until(1)
    assert reader.returned() == {("by_packet", 2): 1}
    assert is_plain(scene.hook)


def test_a_reader_follows_an_interface_to_another_namespace_and_leaves_nothing_behind(
    scene: Scene, veth: Veth, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    root = scene.hook.place.pin_root
    with namespace() as name:
        with (
            scene.hook.tap(reader.tap()),
            rtnetlink(veth.netns) as connection,
            open(netns.path_of(name), "rb") as there,
        ):
            connection.link("set", index=veth.interface.index, net_ns_fd=there.fileno())
        hook = Hook(veth.name, netns=name, pin_root=root)
        assert not is_plain(hook)
        assert len(tap_folders(hook)) == 1
        with hook.tap(reader.tap()):
            (running,) = hook.status().programs
            with Program.from_id(running.program.id) as program:
                program.run(frame(1))
            ((event, _),) = reader.until(1)
            assert event.netns == inode(name)
        assert is_plain(hook)
        assert tap_folders(hook) == []
        hook.delete()


def test_counters_that_are_as_they_should_be_leave_a_tap_alone(
    scene: Scene, reader: Reader
) -> None:
    scene.hook.add(spec("from_main")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        scene.counters.disable()
        assert not tapped.refresh()
        scene.counters.enable()
        assert tapped.refresh()
        scene.counters.enable()
        assert not tapped.refresh()
        scene.send(frame(1, 1))
        reader.until(1)
    assert is_plain(scene.hook)


def test_queues_without_a_program_are_said_to_be_not_reported(scene: Scene, reader: Reader) -> None:
    scene.hook.queues[1].add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        assert tapped.not_tapped == (
            "Frames of queues 0, 2-3 are not reported: no program serves them.",
        )
        scene.hook.add(spec("leaf")).close()
        assert tapped.refresh()
        assert not tapped.not_tapped
    with scene.hook.tap(reader.tap(actions=frozenset({"drop"}))) as tapped:
        assert not tapped.not_tapped


def test_a_tap_of_an_empty_hook_leaves_no_folder(veth: Veth, pin_root: str, reader: Reader) -> None:
    with Hook(veth.name, netns=veth.netns, pin_root=pin_root).tap(reader.tap()):
        assert os.listdir(pin_root) == ["xdpkit"]
    assert os.listdir(pin_root) == []


def test_what_listens_to_programs_of_others_needs_the_maps_of_its_reader(
    veth: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with Reader.made() as reader:
        number = reader.ring.id
        wanted = work_for.Reader(number, number, number, 1, ALL, 0, 1, 0)
    with foreign_link(veth):
        (present,) = hook.status().attached
        with pytest.raises(UsageError, match=f"its reader has closed map {number}"):
            watching.listen(present, veth.interface, wanted)


def test_a_second_reader_is_refused(scene: Scene, veth: Veth, reader: Reader) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()), Reader.made() as other:
        with pytest.raises(HookBusy) as refused:
            scene.hook.tap(other.tap())
        (name,) = tap_folders(scene.hook)
        assert str(refused.value) == (
            f"report frames of {veth.name}: another reader has the frames of {veth.name} reported"
            " already\nRemedy: see which: fuser -v"
            f" {scene.hook.place.pins.folder}/{name}"
        )
        scene.send(frame(1))
        reader.until(1)
        assert other.read() == []


def test_a_copy_that_reports_reports_on_no_other_interface(
    scene: Scene, veth: Veth, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    other = Hook(veth.peer, netns=veth.peer_netns, pin_root=scene.hook.place.pin_root)
    with scene.hook.tap(reader.tap()):
        (running,) = scene.hook.status().programs
        with Program.from_id(running.program.id) as program:
            other.add(program).close()
        assert is_plain(other)
        assert not is_plain(scene.hook)
    other.delete()


def test_what_others_attached_is_not_reported_and_that_is_said(veth: Veth, pin_root: str) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with foreign_link(veth), Reader.made() as reader, hook.tap(reader.tap()) as tapped:
        (present,) = hook.status().programs
        assert tapped.programs == {}
        assert tapped.not_tapped == (
            f"What {present.program.name} (id {present.program.id}) returns is not reported: xdpkit"
            " did not load it, and has not its instructions; nor can it be watched from outside: it"
            " has no type information (BTF) about its functions.",
        )


@ways
@pytest.mark.usefixtures("watchable")
def test_what_others_attached_is_listened_to_where_the_kernel_allows_it(
    scene: Scene, veth: Veth, reader: Reader, via: Via
) -> None:
    sent = [frame(action, length=60 + action) for action in (0, 1, 2, 3, 5, 255)]
    with foreign(veth, via=via) as loaded:
        with scene.hook.tap(reader.tap()) as tapped:
            assert (tapped.programs, tapped.not_tapped) == ({loaded.id: "by_packet"}, ())
            assert not tapped.refresh()
            scene.send(*sent)
            came = reader.until(len(sent))
        scene.send(frame(1))
        assert veth.interface.xdp.native == loaded.id
    for (event, data), each in zip(came, sent, strict=True):
        assert (event.action, event.length, data) == (each[14], len(each), each[: most_bytes()])
        assert (event.netns, event.ifindex) == (inode(veth.netns), veth.interface.index)
        assert (event.program, event.name) == (loaded.id, b"by_packet")
        assert (event.kind, event.error, event.unused, event.target) == (0, 0, 0, 0)
    assert len(reader.read()) == len(sent)


@pytest.mark.usefixtures("watchable")
def test_listening_follows_the_wish_and_what_is_attached(
    scene: Scene, veth: Veth, reader: Reader
) -> None:
    wanted = reader.tap(actions=frozenset({"drop", "invalid"}), snaplen=0, sample=2)
    with scene.hook.tap(wanted) as tapped:
        with foreign(veth) as loaded:
            assert tapped.refresh()
            assert list(tapped.programs) == [loaded.id]
            scene.send(frame(2), frame(255))
            ((event, data),) = reader.until(1)
            assert (event.action, event.captured, data) == (255, 0, b"")
            assert event.queue < 4
            assert reader.total("noted") == inode(veth.netns) << 32 | veth.interface.index
        assert tapped.refresh()
        assert tapped.programs == {}


def test_a_tap_of_an_interface_that_goes_is_closed_all_the_same(
    scene: Scene, veth: Veth, reader: Reader
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        with rtnetlink(veth.netns) as connection:
            connection.link("del", index=veth.interface.index)
        with pytest.raises(UsageError, match="has no such interface"):
            tapped.refresh()
    tapped.close()
    with pytest.raises(UsageError, match="it was closed"):
        tapped.refresh()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": frozenset({"discard"})}, "there is no action 'discard'"),
        ({"actions": frozenset()}, "no action is named"),
        ({"snaplen": -1}, "of a frame 0 to 65536 bytes can be reported, not -1"),
        ({"sample": 0}, "1 in 0 frames cannot be chosen"),
    ],
)
def test_a_tap_that_makes_no_sense_changes_nothing(
    scene: Scene, reader: Reader, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        scene.hook.tap(reader.tap(**change))
    assert os.listdir(scene.hook.place.pin_root) == []


def test_maps_that_are_no_readers_are_refused(scene: Scene, reader: Reader) -> None:
    with pytest.raises(UsageError, match="credits is no ring buffer"):
        scene.hook.tap(Tap(reader.credits, reader.credits, reader.spending, ALL))
    with pytest.raises(UsageError, match="ring is no array with 64 bytes for each"):
        scene.hook.tap(Tap(reader.ring, reader.ring, reader.spending, ALL))


# A reader that is killed


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_a_reader_that_dies_at_any_step_leaves_what_the_next_change_puts_right(
    veth: Veth, pin_root: str, killing: Killing, only_here: None, stride: int
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    hook.add(spec("from_main")).close()

    def tap_and_close() -> None:
        with Reader.made() as reader, hook.tap(reader.tap()):
            pass

    # By nothing that exchanges programs anyhow.
    for step in itertools.count(1, stride):
        if killing.die(tap_and_close, step) is None:
            break
        assert hook.status().programs[0].program.name == "from_main"
        if step % 2:
            clean(pin_root=pin_root)
        else:
            hook.queues[1].add(spec("leaf")).close()
            hook.queues[1].delete()
        assert is_plain(hook)
        assert tap_folders(hook) == []
    assert killing.deaths > 10 / stride
    assert is_plain(hook)
    hook.delete()


def test_a_process_that_a_reader_forked_off_is_no_reader(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    pins = scene.hook.place.pins
    with Reader.made() as reader, scene.hook.tap(reader.tap()) as tapped:
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(UsageError):
                tapped.close()
                tapped.refresh()
                os._exit(1)
            os.write(told, b"!")
            signal.pause()
        os.close(told)
        try:
            with open(ready, "rb") as said:
                assert said.read(1) == b"!"
            assert len(readers.live(pins)) == 1
            # As if it were killed: what it holds goes without its doing.
            tapped._claim.leave_to_parent()
            assert readers.live(pins) == set()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert not is_plain(scene.hook)
    scene.hook.queues[1].add(spec("leaf")).close()
    assert is_plain(scene.hook)
    assert tap_folders(scene.hook) == []


def test_the_next_reader_takes_over_from_one_that_was_killed(scene: Scene, reader: Reader) -> None:
    scene.hook.add(spec("from_main")).close()
    tap_and_die(scene.hook)
    with scene.hook.tap(reader.tap()) as tapped:
        assert len(tapped.programs) == 3
        scene.send(frame(1, 1))
        reader.until(1)
    assert is_plain(scene.hook)


def test_clean_says_what_it_puts_right(scene: Scene, veth: Veth, only_here: None) -> None:
    scene.hook.add(spec("by_packet")).close()
    tap_and_die(scene.hook)
    root = scene.hook.place.pin_root
    (name,) = tap_folders(scene.hook)
    told = clean(pin_root=root, dry_run=True)
    assert [(each.what, each.path, each.interface) for each in told] == [
        ("copies that report frames to nobody", None, veth.name),
        (
            "what a reader of frames left that is gone",
            f"{scene.hook.place.pins.folder}/{name}",
            None,
        ),
    ]
    assert not is_plain(scene.hook)
    assert clean(pin_root=root) == told
    assert clean(pin_root=root) == ()


def test_clean_leaves_alone_what_has_a_reader(
    scene: Scene, reader: Reader, only_here: None
) -> None:
    scene.hook.add(spec("by_packet")).close()
    with scene.hook.tap(reader.tap()) as tapped:
        assert clean(pin_root=scene.hook.place.pin_root) == ()
        assert not tapped.refresh()


def tap_and_die(hook: Hook, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Have a process tap a hook that is killed then."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            with Reader.made() as reader, hook.tap(reader.tap()):
                os.write(told, b"!")
                signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    with open(ready, "rb") as said:
        assert said.read(1) == b"!"
        assert not is_plain(hook)
        meanwhile()
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda hook: hook.counters.enable(),
        lambda hook: hook.counters.disable(),
        lambda hook: hook.queues[1].add(spec("leaf")).close(),
        lambda hook: hook.replace(spec("leaf")).close(),
        lambda hook: clean(pin_root=hook.place.pin_root),
    ],
    ids=["enable", "disable", "add", "replace", "clean"],
)
@ways
def test_after_a_reader_was_killed_the_next_change_puts_plain_programs_back(
    scene: Scene, only_here: None, via: Via, change: Callable[[Hook], object]
) -> None:
    with scene.hook.add(spec("from_main"), via=via):
        tap_and_die(scene.hook)
        run(scene.hook, 1)
        change(scene.hook)
        assert is_plain(scene.hook)
        assert tap_folders(scene.hook) == []
