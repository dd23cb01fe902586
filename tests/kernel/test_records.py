# SPDX-License-Identifier: Apache-2.0
"""Records in the kernel: found from the interface, whole after a crash, safe between versions."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.kernel import old_kernel
from tests.kernel.attaching import program as corpus_program
from tests.kernel.compiled import read, returning
from tests.kernel.net import Veth, rtnetlink
from tests.unit.hook.sample import NEGOTIATION, RECORD
from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook import records
from xdpkit.hook.record import PortOf, Record, StoredRecord
from xdpkit.hook.wire import encode
from xdpkit.kernel import Map, Program, load, load_all, load_image, map_ids, program_ids
from xdpkit.kernel.image import IMAGE_MAGIC
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import Cmd, MapType, XdpAction

pytestmark = pytest.mark.needs("prog-bind-map")


@contextmanager
def recorded(record: Record = RECORD) -> Iterator[Program]:
    """Load a program and write down an attachment of it."""
    with load(corpus_program()) as program:
        assert records.write(program, record) is None
        yield program


def found(program: Program, record: Record = RECORD) -> StoredRecord:
    stored = records.find(
        program.fileno(), netns_cookie=record.netns_cookie, ifindex=record.ifindex
    )
    assert stored is not None
    return stored


def bound(program: Program, name: str) -> list[int]:
    """Return the ids of the program's maps of a name."""
    ids = []
    for number in program.info().map_ids:
        with Map.from_id(number) as each:
            if each.name == name:
                ids.append(number)
    return ids


def put(stored: StoredRecord, slot: int, data: bytes) -> None:
    """Write bytes into a slot of a record's map, as anybody can."""
    with Map.from_id(stored.map_id) as kept:
        kept[slot] = data.ljust(kept.value_size, b"\0")


def slots(stored: StoredRecord) -> list[bytes]:
    with Map.from_id(stored.map_id) as kept:
        return [kept[0], kept[1]]


def test_what_is_written_is_found() -> None:
    with recorded() as program:
        stored = found(program)
        assert stored.record == RECORD
        assert (stored.generation, stored.slot, stored.unknown) == (1, 0, False)
        assert bound(program, records.RECORD_MAP) == [stored.map_id]


def test_a_record_is_found_from_the_interface_alone(veth: Veth) -> None:
    interface = veth.interface
    record = replace(RECORD, ifindex=interface.index, netns_cookie=interface.netns_cookie)
    with recorded(record) as program, rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, xdp_fd=program.fileno())
    interface = veth.interface
    assert interface.xdp.native is not None
    with Program.from_id(interface.xdp.native) as opened:
        stored = records.find(
            opened.fileno(), netns_cookie=interface.netns_cookie, ifindex=interface.index
        )
        assert stored is not None
        assert stored.record == record
        image = records.image_of(opened.fileno())
        assert image is not None
        with load_image(image) as again:
            assert again.tag == opened.tag


def test_a_record_leaves_the_program_as_it_is() -> None:
    with load(corpus_program()) as program:
        before = program.info().tag, program.xlated()
        records.write(program, RECORD)
        assert (program.info().tag, program.xlated()) == before
        assert program.run(bytes(64)).action is XdpAction.PASS


def test_an_edit_leaves_the_old_record_until_the_new_one_is_whole() -> None:
    with recorded() as program:
        first = found(program)
        records.edit(program.fileno(), first, replace(RECORD, revert_at=0))
        second = found(program)
        assert second.record == replace(RECORD, revert_at=0)
        assert (second.generation, second.slot) == (2, 1)
        assert second.map_id == first.map_id
        # As a writer leaves it that is killed half-way through the third.
        shorter = replace(RECORD, negotiation=replace(NEGOTIATION, notes=("x",)))
        whole, before = encode(shorter, 3), slots(second)[0]
        for written in (1, 16, len(whole) // 2, len(whole) - 1):
            put(second, 0, whole[:written] + before[written:])
            assert found(program) == second
        put(second, 0, os.urandom(64))
        assert found(program) == second
        records.edit(program.fileno(), second, RECORD)
        assert found(program).record == RECORD


def test_a_record_that_was_changed_meanwhile_is_not_overwritten() -> None:
    with recorded() as program:
        stale = found(program)
        records.edit(program.fileno(), stale, replace(RECORD, cookie=1))
        with pytest.raises(HookBusy) as refused:
            records.edit(program.fileno(), stale, replace(RECORD, cookie=2))
        assert str(refused.value) == (
            "change the record of firewall_with_a_long_name on eth0.100: another process changed"
            " it meanwhile\nRemedy: try it again"
        )
        assert found(program).record.cookie == 1


def test_a_second_write_for_a_hook_is_an_edit() -> None:
    with recorded() as program:
        first = found(program)
        records.write(program, replace(RECORD, port=PortOf("lan", 4)))
        second = found(program)
        assert second.record.port == PortOf("lan", 4)
        assert second.generation == 2
        assert second.map_id == first.map_id


def test_a_record_that_outgrows_its_slot_moves() -> None:
    with recorded() as program:
        first = found(program)
        grown = replace(RECORD, queues=tuple(range(1000)))
        records.edit(program.fileno(), first, grown)
        second = found(program)
        assert second.record == grown
        assert second.generation == 2
        assert second.map_id != first.map_id
        assert not any(map(any, slots(first)))
        # And the first one's place is used again.
        other = replace(RECORD, ifindex=RECORD.ifindex + 1)
        records.write(program, other)
        assert found(program, other).map_id == first.map_id
        assert found(program).record == grown


def test_of_two_maps_for_one_hook_the_newer_record_counts() -> None:
    with recorded() as program:
        first = found(program)
        before = slots(first)
        records.edit(program.fileno(), first, replace(RECORD, queues=tuple(range(1000))))
        second = found(program)
        # As if the writer had been killed before it emptied the first.
        put(first, first.slot, before[first.slot])
        assert found(program) == second


def test_there_is_room_for_an_edit() -> None:
    with recorded() as program:
        stored = found(program)
        with Map.from_id(stored.map_id) as kept:
            assert kept.max_entries == 2
            assert kept.value_size % 256 == 0
            assert 256 <= kept.value_size - len(encode(RECORD, 1)) < 512


def test_a_program_on_two_hooks_has_two_records() -> None:
    other = replace(RECORD, ifindex=RECORD.ifindex + 1, interface="eth1")
    with recorded() as program:
        records.write(program, other)
        assert found(program).record == RECORD
        assert found(program, other).record == other
        neither = {"netns_cookie": RECORD.netns_cookie, "ifindex": 3}
        assert records.find(program.fileno(), **neither) is None
        records.edit(program.fileno(), found(program, other), replace(other, cookie=5))
        assert found(program).record == RECORD
        assert len(bound(program, records.IMAGE_MAP)) == 1


def test_programs_in_its_program_arrays_have_their_images_and_no_record() -> None:
    with load(read("nested").programs["first"]) as program:
        assert [leaf.name for leaf in program.leaves] == ["middle", "leaf"]
        assert records.write(program, RECORD) is None
        with Program.from_id(program.maps["outer"][0]) as middle:
            image = records.image_of(middle.fileno())
            assert image is not None
            assert (image.name, records.find_all(middle.fileno())) == ("middle", ())
            with load_image(image) as again:
                assert again.tag == middle.tag
        with Program.from_id(program.maps["inner"][0]) as leaf:
            assert records.image_of(leaf.fileno()) is not None
        # Once, however often it is written.
        before = bound(program.leaves[0], records.IMAGE_MAP)
        records.write(program, replace(RECORD, cookie=1))
        assert bound(program.leaves[0], records.IMAGE_MAP) == before


def test_a_program_that_was_loaded_with_others_knows_those_that_it_reaches() -> None:
    with load_all(read("nested")) as loaded:
        reached = {
            name: {leaf.name for leaf in program.leaves}
            for name, program in loaded.programs.items()
        }
    assert reached == {"first": {"middle", "leaf"}, "middle": {"leaf"}, "leaf": set()}


def test_a_record_is_of_one_hook_only() -> None:
    with recorded() as program:
        elsewhere = records.find(program.fileno(), netns_cookie=1, ifindex=RECORD.ifindex)
        assert elsewhere is None
        assert records.find_all(program.fileno()) == (found(program),)


def test_a_record_of_an_ended_attachment_is_cleared() -> None:
    hook = {"netns_cookie": RECORD.netns_cookie, "ifindex": RECORD.ifindex}
    with recorded() as program:
        records.clear_for(program.fileno(), **hook)
        records.clear_for(program.fileno(), **hook)
        assert records.find_all(program.fileno()) == ()


def test_a_record_that_is_removed_is_not_found_and_makes_room() -> None:
    with recorded() as program:
        stored = found(program)
        records.edit(program.fileno(), stored, replace(RECORD, cookie=1))
        records.clear(found(program))
        hook = {"netns_cookie": RECORD.netns_cookie, "ifindex": RECORD.ifindex}
        assert records.find(program.fileno(), **hook) is None
        with pytest.raises(HookBusy, match="remove the record of firewall_with_a_long_name"):
            records.clear(stored)
        records.write(program, RECORD)
        assert found(program).map_id == stored.map_id
        assert found(program).generation == 1


# Other versions


def test_a_later_versions_record_keeps_its_size_when_it_is_edited() -> None:
    with recorded() as program:
        stored = found(program)
        put(stored, 1, encode(RECORD, 2, replace(stored, tail=bytes(40))))
        stored = found(program)
        assert stored.size == struct.unpack_from("=I", slots(stored)[1], 4)[0]
        assert stored.size == struct.unpack_from("=I", slots(stored)[0], 4)[0] + 40
        assert not stored.unknown
        records.edit(program.fileno(), stored, replace(RECORD, interface="eth1"))
        edited = found(program)
        assert edited.record == replace(RECORD, interface="eth1")
        assert (edited.size, edited.tail) == (stored.size, bytes(40))


@pytest.mark.parametrize("tail", [b"\1" + bytes(7), bytes(7) + b"\1"])
def test_a_later_versions_record_with_unknown_fields_is_shown_and_not_changed(tail: bytes) -> None:
    with recorded() as program:
        stored = found(program)
        put(stored, 1, encode(RECORD, 2, replace(stored, tail=tail)))
        stored = found(program)
        assert stored.record == RECORD
        assert stored.unknown
        before = slots(stored)
        with pytest.raises(RequirementUnmet) as refused:
            records.edit(program.fileno(), stored, replace(RECORD, cookie=0))
        assert str(refused.value) == (
            "change the record of firewall_with_a_long_name on eth0.100: xdpkit 9.8.7 wrote it,"
            " with what this version does not know\nRemedy: use xdpkit 9.8.7"
        )
        with pytest.raises(RequirementUnmet, match=r"xdpkit 9\.8\.7 wrote it"):
            records.write(program, replace(RECORD, cookie=0))
        assert slots(stored) == before


# What others made


@contextmanager
def foreign(name: str, *values: bytes, size: int = 0) -> Iterator[Map]:
    with Map.create(
        MapType.ARRAY,
        key_size=4,
        value_size=size or len(values[0]),
        max_entries=len(values),
        name=name,
    ) as made:
        for slot, value in enumerate(values):
            made[slot] = value.ljust(made.value_size, b"\0")
        yield made


GENUINE = encode(RECORD, 9)
HUGE_IMAGE = struct.pack("=4I", IMAGE_MAGIC, 16, 0, (64 << 20) - 1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (records.RECORD_MAP, [b"whatever", b"it is.."]),
        (records.RECORD_MAP, [GENUINE]),
        (records.RECORD_MAP, [GENUINE[:-1], GENUINE[:-1]]),
        (records.RECORD_MAP, [GENUINE[:4], GENUINE[:4]]),
        ("xdpkit_records", [GENUINE, GENUINE]),
        (records.IMAGE_MAP, [b"whatever"]),
        (records.IMAGE_MAP, [HUGE_IMAGE]),
        (records.IMAGE_MAP, [HUGE_IMAGE] * 3),
    ],
)
def test_a_map_that_only_looks_like_ours_is_passed_over(name: str, values: list[bytes]) -> None:
    hook = {"netns_cookie": RECORD.netns_cookie, "ifindex": RECORD.ifindex}
    with load(corpus_program()) as program:
        with foreign(name, *values) as made:
            program.bind(made)
        assert records.find(program.fileno(), **hook) is None
        assert records.image_of(program.fileno()) is None
        # And it is in nobody's way.
        assert records.write(program, RECORD) is None
        assert found(program).record == RECORD
        assert records.image_of(program.fileno()) == program.image


# Images


def test_the_image_is_kept_once_and_cannot_be_changed() -> None:
    with recorded() as program:
        records.write(program, replace(RECORD, ifindex=1))
        (number,) = bound(program, records.IMAGE_MAP)
        assert records.image_of(program.fileno()) == program.image
        with Map.from_id(number) as kept, pytest.raises(KernelRefused) as refused:
            kept[0] = bytes(kept.value_size)
        assert refused.value.errno == errno.EPERM


def test_a_large_image_is_kept_in_parts() -> None:
    with load(corpus_program()) as loaded:
        assert loaded.image is not None
        image = replace(loaded.image, line_info=bytes(16 << 16))
        same = Fd.duplicate(loaded)
    with Program(same, image=lambda info: image) as program:
        records.write(program, RECORD)
        (number,) = bound(program, records.IMAGE_MAP)
        with Map.from_id(number) as kept:
            assert (kept.value_size, kept.max_entries) == (256 << 10, 5)
        assert records.image_of(program.fileno()) == image


def test_a_program_of_another_process_gets_a_record_without_an_image() -> None:
    with returning(XdpAction.PASS) as program:
        assert records.write(program, RECORD) is None
        assert found(program).record == RECORD
        assert records.image_of(program.fileno()) is None


# What is left


def test_an_old_kernel_keeps_no_record_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with load(corpus_program()) as program:
        before = program.info().map_ids
        with old_kernel.without(monkeypatch, old_kernel.commands(Cmd.PROG_BIND_MAP)):
            note = records.write(program, RECORD)
        assert note == (
            "no record of minimal is kept: this kernel binds no maps to programs (Linux 5.10)"
        )
        assert program.info().map_ids == before
        assert records.find(program.fileno(), netns_cookie=1, ifindex=1) is None


def test_a_record_that_cannot_be_written_down_changes_nothing() -> None:
    with recorded() as program:
        before = program.info().map_ids
        with pytest.raises(UsageError, match="its program serves no queue"):
            records.write(program, replace(RECORD, queues=()))
        assert program.info().map_ids == before
        assert found(program).record == RECORD


def test_the_first_record_of_a_program_takes_no_look_up_by_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def funnel(cmd: int, argument: ctypes.Structure) -> int:
        asked.append(cmd)
        return bpf.libc_bpf(cmd, argument)

    with load(corpus_program("variables.c", "variables")) as program:
        assert program.maps
        with monkeypatch.context() as patched:
            patched.setattr(bpf, "funnel", funnel)
            records.write(program, RECORD)
        assert Cmd.PROG_BIND_MAP in asked
        # Which takes CAP_SYS_ADMIN.
        assert Cmd.MAP_GET_FD_BY_ID not in asked
        assert found(program).record == RECORD


def test_record_and_image_go_with_the_program() -> None:
    with recorded() as program:
        records.edit(program.fileno(), found(program), replace(RECORD, queues=tuple(range(1000))))
        left = set(program.info().map_ids)
        assert len(left) == 3
        number = program.id
    assert number not in set(program_ids())
    # The kernel lets go of a program's maps in its own time, which other programs' loads pass.
    for _ in range(100_000):
        if not left & set(map_ids()):
            break
        returning(XdpAction.PASS).close()
    assert not left & set(map_ids())
