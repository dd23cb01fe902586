# SPDX-License-Identifier: Apache-2.0
"""Forced counters: whose counters they are, and what a switch says that it cannot do."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases
from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, make_veth, namespace
from tests.kernel.process import COMMAND
from tests.kernel.test_counters import (
    NOTHING,
    Scene,
    frame,
    move,
    only,
    packets,
    scene,
    spec,
)
from xdpkit import Hook
from xdpkit.errors import HookBusy, RequirementUnmet
from xdpkit.hook import Via, prepare_add, settings, wire
from xdpkit.hook.copies import LEAVES_MAP
from xdpkit.hook.counters import CounterReport, Counters
from xdpkit.hook.settings import Counting
from xdpkit.interfaces import resolve
from xdpkit.kernel import Map, Program, load, load_all
from xdpkit.syscalls import mounts
from xdpkit.uapi.bpf import MapType

__all__ = ["scene"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp")


@dataclass(frozen=True, slots=True)
class Other:
    """Another interface, whose programs are run without packets."""

    hook: Hook
    veth: Veth

    @property
    def counters(self) -> Counters:
        return self.hook.counters


@pytest.fixture
def other(pin_root: str) -> Iterator[Other]:
    with namespace() as netns:
        veth = make_veth(netns)
        hook = Hook(veth.name, netns=netns, pin_root=pin_root)
        yield Other(hook, veth)
        with contextlib.suppress(xdpkit.XdpkitError):
            hook.clear()


def run(hook: Hook, times: int, way: int = 0) -> None:
    """Have what is on a hook drop packets, all of RX queue 0."""
    (attached,) = hook.status().attached
    with Program.from_id(attached.program.id) as program:
        program.run(frame(1, way), repeat=times)


def drops(count: int) -> tuple[int, ...]:
    return (0, count, 0, 0, 0, 0)


def per_queue(report: CounterReport) -> dict[int, int]:
    return {queue: sum(counts.packets) for queue, counts in only(report).per_queue.items()}


def counted_notes(attached: xdpkit.XdpProg) -> tuple[str, ...]:
    return tuple(note for note in attached.notes if "counted" in note)


# Whose counters they are


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_a_program_that_is_attached_for_two_queues_is_counted_in_each(
    scene: Scene, veth: Veth, is_counted_first: bool
) -> None:
    with line_into(veth) as line, load(spec("by_packet")) as program:
        if is_counted_first:
            scene.counters.enable()
        scene.hook.queues[0].add(program).close()
        scene.hook.queues[1].add(program).close()
        scene.counters.enable()
        line.send(0, 5)
        line.send(1, 7)
        wait_until(lambda: sum(only(scene.counters.read()).total.packets) == 12)
        assert per_queue(scene.counters.read()) == {0: 5, 1: 7}
        # Each of them goes on where it was.
        scene.counters.enable(count_bytes=True)
        line.send(0, 2)
        line.send(1, 1)
        wait_until(lambda: sum(only(scene.counters.read()).total.packets) == 15)
        assert per_queue(scene.counters.read()) == {0: 7, 1: 8}


def test_a_program_that_was_returned_is_counted_in_another_queue(scene: Scene, veth: Veth) -> None:
    scene.counters.enable()
    with line_into(veth) as line, scene.hook.queues[1].add(spec("by_packet")) as attached:
        scene.hook.queues[2].add(attached.program).close()
        line.send(1, 5)
        line.send(2, 7)
        wait_until(lambda: sum(only(scene.counters.read()).total.packets) == 12)
        assert per_queue(scene.counters.read()) == {1: 5, 2: 7}
        scene.hook.clear()


def test_leaves_that_counted_for_another_interface_begin_anew(scene: Scene, other: Other) -> None:
    with load(spec("from_main")) as program:
        scene.hook.add(program, force=True).close()
        scene.counters.enable()
        run(scene.hook, 5, way=1)
        scene.hook.delete()
        other.hook.add(program, force=True).close()
        assert other.counters.enable().not_counted == ()
        run(other.hook, 3, way=1)
        assert packets(other.counters.read())["leaf"] == drops(3)
        # What the other interface's packets are counted by is not this one's.
        with scene.hook.add(program, force=True) as again:
            array = program.maps["by_main"].id
            (running,) = other.hook.status().attached
            assert counted_notes(again) == (
                f"What is reached through program array by_main (id {array}) is not counted:"
                f" from_main (id {running.program.id}), which is not on this interface, uses it,"
                " too.",
            )
        run(scene.hook, 1, way=1)
        assert packets(scene.counters.read()) == {"from_main": NOTHING}
        assert scene.counters.read().not_counted == counted_notes(again)


def test_leaves_of_a_program_that_is_attached_anew_begin_anew(scene: Scene) -> None:
    with load(spec("from_main")) as program:
        scene.counters.enable()
        for times in (5, 2):
            scene.hook.add(program, force=True).close()
            run(scene.hook, times, way=1)
            assert packets(scene.counters.read())["leaf"] == drops(times)
            scene.hook.delete()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_copy_that_is_given_by_its_id_to_another_hook_counts_for_that(
    scene: Scene, other: Other, is_enabled: bool
) -> None:
    scene.hook.add(spec("by_packet")).close()
    report = scene.counters.enable()
    if is_enabled:
        other.counters.enable()
    with Program.from_id(only(report).program.id) as copy:
        other.hook.add(copy).close()
    run(scene.hook, 1)
    run(other.hook, 5)
    assert packets(scene.counters.read()) == {"by_packet": drops(1)}
    assert packets(other.counters.read()) == ({"by_packet": drops(5)} if is_enabled else {})


def test_a_map_that_an_author_calls_like_ours_is_not_taken_for_ours(scene: Scene) -> None:
    with (
        Map.create(
            MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=4, name=LEAVES_MAP
        ) as array,
        load_all(read_counted(), maps={"by_main": array}) as loaded,
    ):
        array[1] = loaded.programs["leaf"]
        scene.hook.add(loaded.programs["from_main"], force=True).close()
        scene.counters.enable()
        run(scene.hook, 3, way=1)
        assert packets(scene.counters.read())["leaf"] == drops(3)


def read_counted() -> xdpkit.Object:
    return spec("leaf").object


# Bytes


def test_a_program_whose_bytes_cannot_be_counted_has_its_packets_counted(
    scene: Scene, veth: Veth
) -> None:
    if cases.running_kernel() < (6, 7):
        pytest.skip("bpf_throw() came with Linux 6.7")
    source = build.FOLDER / "beyond" / "exception_callback.c"
    compiler = next(each for each in build.compilers() if each.family == "clang")
    obj = xdpkit.read(build.build(source, compiler, flags=(f"-I{build.FOLDER}",)).path)
    thrower = obj.programs["exception_callback"]
    sentence = (
        "What exception_callback (id {}) returns is counted, but its bytes are not counted: it"
        " throws (bpf_throw), and its exception callback can learn neither the RX queue nor the"
        " length of the packet."
    )
    with line_into(veth) as line:
        with scene.hook.queues[1].add(thrower, force=True) as attached:
            logical = attached.program.id
        for _ in range(2):
            report = scene.counters.enable(count_bytes=True)
            assert report.count_bytes
            assert report.not_counted == (sentence.format(logical),)
            assert scene.counters.read().not_counted == report.not_counted
        running = only(report).program.id
        line.send(1, 5)
        wait_until(lambda: sum(only(scene.counters.read()).total.packets) == 5)
        assert only(scene.counters.read()).total.bytes is None
        # It is as it can be.
        assert only(scene.counters.enable(count_bytes=True)).program.id == running
        with scene.hook.queues[1].replace(thrower, force=True) as attached:
            assert attached.record is not None
            assert attached.record.counting == Counting.PACKETS


# Arrays


def test_a_refused_attach_leaves_the_arrays_as_they_were(scene: Scene) -> None:
    scene.counters.enable()
    with load(spec("from_main")) as program:
        before = dict(program.maps["by_main"].items())
        change = prepare_add(scene.hook.place, program, force=True)
        scene.hook.add(spec("by_packet")).close()
        with pytest.raises(HookBusy):
            change.apply()
        assert dict(program.maps["by_main"].items()) == before
        scene.hook.delete()
        with scene.hook.add(program, force=True) as attached:
            assert counted_notes(attached) == ()


def test_an_array_of_copies_is_pinned_for_those_that_use_it(scene: Scene, pin_root: str) -> None:
    scene.hook.queues[0].add(spec("from_both"), force=True).close()
    scene.hook.add(spec("by_packet"), force=True).close()
    report = scene.counters.enable()
    ids = {program.name: program.program.id for program in report.programs}
    pinned = [path.name for path in Path(pin_root).rglob("map-*")]
    assert not [name for name in pinned if name.startswith(f"map-{ids['by_packet']}-")]
    assert len([name for name in pinned if name.startswith(f"map-{ids['from_both']}-")]) == 2


def test_maps_that_xdpkit_made_are_not_among_a_programs(scene: Scene) -> None:
    scene.counters.enable()
    with scene.hook.add(spec("from_both")) as attached:
        assert set(attached.maps) == {"by_both"} | (set(attached.maps) & {"by_subprogram"})
        assert not [name for name in attached.maps if "xdpkit" in name or " " in name]


def test_a_program_that_is_put_into_an_array_later_is_counted(scene: Scene) -> None:
    with scene.hook.add(spec("from_main")) as attached, load(spec("other_leaf")) as late:
        attached.maps["by_main"][3] = late
        assert scene.counters.enable().not_counted == ()
        run(scene.hook, 4, way=3)
        found = [each for each in scene.counters.read().programs if each.logical_id == late.id]
        assert [each.total.packets for each in found] == [drops(4)]


# The setting


def test_the_setting_follows_an_interface_that_moves(scene: Scene, veth: Veth) -> None:
    scene.counters.enable()
    scene.hook.add(spec("by_packet")).close()
    with namespace() as elsewhere:
        move(veth, elsewhere)
        moved = Hook(veth.name, netns=elsewhere, pin_root=scene.hook.place.pin_root)
        assert moved.counters.read().is_enabled
        with moved.replace(spec("leaf")) as attached:
            assert attached.record is not None
            assert attached.record.counting == Counting.PACKETS
        moved.delete()
        assert moved.counters.read().is_enabled
        moved.add(spec("leaf")).close()
        moved.counters.enable(count_bytes=True)
        moved.clear()
        assert moved.counters.read().is_enabled
        assert moved.counters.read().count_bytes
        assert not moved.counters.disable().is_enabled
        assert not moved.counters.read().is_enabled


def test_the_setting_moves_as_it_is(scene: Scene, veth: Veth) -> None:
    scene.counters.enable()
    scene.hook.add(spec("by_packet")).close()
    pins = scene.hook.place.pins
    before = pins.home_of(veth.interface)
    with namespace() as elsewhere:
        move(veth, elsewhere)
        interface = resolve(veth.name, netns=elsewhere)
        assert settings.places(pins, interface) == (before, pins.home_of(interface))
        for _ in range(2):
            settings.follow(pins, interface, "test it")
            assert settings.read(before) is None
            assert settings.first(settings.places(pins, interface)) is not None
        Hook(veth.name, netns=elsewhere, pin_root=pins.root).clear()
        found = settings.first(settings.places(pins, interface))
        assert found is not None
        assert found.counting == Counting.PACKETS
        assert not os.path.exists(before)


def test_attaches_that_race_leave_the_setting(scene: Scene) -> None:
    scene.counters.enable()
    place = scene.hook.place
    source = read_counted().path
    assert source is not None
    attach = [*COMMAND, "-n", str(place.netns), "attach", str(place.iface), source, "--force"]
    racing = [
        subprocess.Popen(
            [*attach, "--pin-root", place.pin_root, "--program", name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("by_packet", "leaf", "from_main")
    ]
    assert sorted(each.wait() for each in racing)[0] == 0
    assert scene.counters.read().is_enabled
    scene.hook.delete()
    assert scene.counters.read().is_enabled


def test_a_setting_that_is_made_while_a_program_is_held_for_a_block_stays(scene: Scene) -> None:
    with scene.hook.add(spec("from_both"), pin=False, force=True):
        assert scene.counters.enable().is_enabled
        run(scene.hook, 3, way=1)
        assert packets(scene.counters.read())["leaf"] == drops(3)
    with scene.hook.add(spec("by_packet")) as attached:
        assert attached.record is not None
        assert attached.record.counting == Counting.PACKETS


def of_a_later_version(scene: Scene) -> None:
    """Have a later version know more about the program on the hook."""
    (attached,) = scene.hook.status().attached
    stored = attached.record
    assert stored is not None
    with Map.from_id(stored.map_id) as kept:
        data = bytearray(kept[stored.slot])
        (used,) = struct.unpack_from("=I", data, 12)
        data[wire.Layout.flags.offset + 3] |= 0x80
        data[8:12] = bytes(4)
        data[8:12] = struct.pack("=I", zlib.crc32(bytes(data[:used])))
        kept[stored.slot] = bytes(data)


def test_what_a_later_version_wrote_down_with_a_program_stops_a_switch(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    number = only(scene.counters.enable()).program.id
    of_a_later_version(scene)
    name = scene.hook.place.iface
    with pytest.raises(RequirementUnmet) as refused:
        scene.counters.disable()
    assert str(refused.value) == (
        f"count no longer what the programs on {name} return: xdpkit {xdpkit.__version__} wrote"
        f" down more about by_packet (id {number}) than this version understands\n"
        f"Remedy: use xdpkit {xdpkit.__version__}"
    )
    report = scene.counters.read()
    assert (report.is_enabled, report.not_counted) == (True, ())
    run(scene.hook, 2)
    assert packets(scene.counters.read()) == {"by_packet": drops(2)}


def test_a_setting_that_is_hidden_is_neither_changed_nor_claimed(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(veth.name, netns=veth.netns)
    with hook.add(spec("by_packet"), via=Via.NETLINK):
        pass
    monkeypatch.setattr(mounts, "hidden_bpffs", lambda: True)
    with pytest.raises(RequirementUnmet) as refused:
        hook.counters.disable()
    assert str(refused.value) == (
        f"count no longer what the programs on {veth.name} return: /sys/fs/bpf with the setting is"
        " hidden here, as by ip netns exec\nRemedy: name the network namespace instead of"
        " entering it (xdpkit -n NAME, not ip netns exec NAME xdpkit)"
    )
    report = hook.counters.read()
    assert report.is_enabled is None
    assert report.to_dict()["enabled"] is None
    assert report.not_counted == (
        f"Whether programs on {veth.name} are counted cannot be seen here: /sys/fs/bpf is hidden,"
        " as by ip netns exec; name the network namespace instead of entering it (xdpkit -n NAME,"
        " not ip netns exec NAME xdpkit).",
    )
    hook.delete()


def test_an_attach_where_the_setting_is_hidden_says_so(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(veth.name, netns=veth.netns)
    monkeypatch.setattr(mounts, "hidden_bpffs", lambda: True)
    monkeypatch.setattr(type(hook.place.pins), "open_folder", lambda *_: None)
    with hook.add(spec("by_packet"), via=Via.NETLINK) as attached:
        assert attached.notes == (
            f"by_packet is not counted: whether programs on {veth.name} are to be cannot be seen"
            " here, since /sys/fs/bpf is hidden, as by ip netns exec",
        )
        attached.detach()
