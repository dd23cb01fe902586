# SPDX-License-Identifier: Apache-2.0
"""Maps as Python mappings."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.compiled import hash_map, read, returning
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.kernel import CpumapValue, DevmapValue, Map, load_all, map_ids
from xdpkit.kernel.host import possible_cpus
from xdpkit.syscalls import bpf
from xdpkit.uapi.bpf import AttachType, Cmd, MapFlags, MapType, UpdateFlags, XdpAction


def _key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _value(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _array(kind: MapType, *, value_size: int = 4, max_entries: int = 4) -> Map:
    return Map.create(kind, key_size=4, value_size=value_size, max_entries=max_entries)


def test_a_hash_is_a_mapping_of_bytes_without_type_information() -> None:
    with hash_map() as table:
        assert _key(1) not in table
        table[_key(1)] = _value(10)
        table[_key(2)] = _value(20)
        assert table[_key(1)] == _value(10)
        assert dict(table) == {_key(1): _value(10), _key(2): _value(20)}
        assert sorted(table.values()) == [_value(10), _value(20)]
        assert len(table) == 2
        del table[_key(1)]
        assert list(table) == [_key(2)]
        assert table.get(_key(1)) is None
        assert table.pop(_key(2)) == _value(20)
        assert table.pop(_key(2), None) is None


def test_an_absent_key_is_a_key_error() -> None:
    with hash_map() as table:
        with pytest.raises(KeyError):
            table[_key(1)]
        with pytest.raises(KeyError):
            del table[_key(1)]
        with pytest.raises(KeyError):
            table.pop(_key(1))


@pytest.mark.parametrize("key", [1, "one", b"123", None])
def test_a_key_that_does_not_fit_changes_nothing(key: object) -> None:
    with hash_map() as table:
        with pytest.raises(UsageError, match="give 4 bytes"):
            table[key] = _value(1)
        assert len(table) == 0


def test_a_full_hash_says_that_it_is_full() -> None:
    with hash_map(max_entries=1) as table:
        table[_key(1)] = _value(1)
        with pytest.raises(KernelRefused, match="full") as refused:
            table[_key(2)] = _value(1)
        assert refused.value.errno == errno.E2BIG


def test_flags_tell_a_new_element_from_an_old_one() -> None:
    with hash_map() as table:
        with pytest.raises(KernelRefused) as refused:
            table.put(_key(1), _value(1), flags=UpdateFlags.EXIST)
        assert refused.value.errno == errno.ENOENT
        table.put(_key(1), _value(1), flags=UpdateFlags.NOEXIST)
        with pytest.raises(KernelRefused, match="there already") as refused:
            table.put(_key(1), _value(2), flags=UpdateFlags.NOEXIST)
        assert refused.value.errno == errno.EEXIST
        assert table[_key(1)] == _value(1)


def test_an_array_has_all_its_elements() -> None:
    with _array(MapType.ARRAY) as table:
        assert dict(table) == dict.fromkeys(range(4), bytes(4))
        table[2] = b"abcd"
        assert table[2] == b"abcd"
        assert len(table) == 4
        assert 4 not in table
        with pytest.raises(KeyError):
            table[4]
        with pytest.raises(KernelRefused, match="beyond its end"):
            table[4] = bytes(4)
        with pytest.raises(KernelRefused):
            del table[1]


def test_a_per_cpu_value_has_an_entry_for_each_possible_cpu() -> None:
    cpus = possible_cpus()
    with _array(MapType.PERCPU_ARRAY, value_size=5) as table:
        assert table[0] == [bytes(5)] * cpus
        values = [f"cpu{number:02}".encode() for number in range(cpus)]
        table[1] = values
        assert table[1] == values
        assert dict(table)[1] == values
        with pytest.raises(UsageError, match="one per CPU"):
            table[1] = b"cpu00"
        with pytest.raises(UsageError, match=f"can have {cpus} CPUs"):
            table[1] = [*values, bytes(5)]


def test_the_longest_prefix_matches() -> None:
    with Map.create(
        MapType.LPM_TRIE, key_size=8, value_size=4, max_entries=8, flags=MapFlags.NO_PREALLOC
    ) as table:
        wide = _key(8) + bytes((10, 0, 0, 0))
        narrow = _key(16) + bytes((10, 1, 0, 0))
        table.update({wide: b"wide", narrow: b"narr"})
        assert table[_key(32) + bytes((10, 1, 2, 3))] == b"narr"
        assert table[_key(32) + bytes((10, 2, 2, 3))] == b"wide"
        assert set(table) == {wide, narrow}
        with pytest.raises(KeyError):
            table[_key(32) + bytes((11, 0, 0, 1))]


@pytest.mark.parametrize(
    ("kind", "order"), [(MapType.QUEUE, [b"1111", b"2222"]), (MapType.STACK, [b"2222", b"1111"])]
)
def test_a_queue_gives_the_oldest_and_a_stack_the_newest(kind: MapType, order: list[bytes]) -> None:
    with Map.create(kind, key_size=0, value_size=4, max_entries=2) as values:
        values.push(b"1111")
        values.push(b"2222")
        assert values.peek() == order[0]
        assert [values.pop(), values.pop()] == order
        with pytest.raises(IndexError):
            values.pop()
        with pytest.raises(IndexError):
            values.peek()
        with pytest.raises(UsageError, match="no keys"):
            list(values)
        with pytest.raises(UsageError, match="no keys"):
            values.pop(1)


def test_a_full_queue_refuses_or_makes_room() -> None:
    with Map.create(MapType.QUEUE, key_size=0, value_size=4, max_entries=1) as values:
        values.push(b"1111")
        with pytest.raises(KernelRefused, match="full"):
            values.push(b"2222")
        values.push(b"3333", flags=UpdateFlags.EXIST)
        assert values.pop() == b"3333"


def test_a_hash_is_no_queue() -> None:
    with hash_map() as table, pytest.raises(UsageError, match="give a key"):
        table.pop()


@pytest.mark.needs("bloom-filter")
def test_a_bloom_filter_knows_what_was_added() -> None:
    with Map.create(MapType.BLOOM_FILTER, key_size=0, value_size=4, max_entries=64) as values:
        assert b"1111" not in values
        values.push(b"1111")
        assert b"1111" in values


def test_a_program_array_is_given_programs_and_gives_their_ids() -> None:
    with (
        _array(MapType.PROG_ARRAY) as jumps,
        returning(XdpAction.PASS) as one,
        returning(XdpAction.DROP) as two,
    ):
        jumps[1] = one
        jumps[3] = two.fileno()
        assert dict(jumps) == {1: one.id, 3: two.id}
        assert len(jumps) == 2
        assert 0 not in jumps
        del jumps[1]
        assert list(jumps) == [3]
        with pytest.raises(UsageError, match="neither a kernel object nor a descriptor"):
            jumps[1] = "program"


@pytest.mark.parametrize("kind", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS])
def test_a_map_of_maps_is_given_maps_and_gives_their_ids(kind: MapType) -> None:
    with (
        hash_map() as inner,
        hash_map() as other,
        Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner) as outer,
    ):
        outer[_key(2)] = other
        assert outer[_key(2)] == other.id
        assert list(outer.values()) == [other.id]
        with Map.from_id(outer[_key(2)]) as found:
            found[_key(7)] = _value(7)
        assert other[_key(7)] == _value(7)


def test_a_devmap_holds_interfaces_and_programs() -> None:
    with _array(MapType.DEVMAP) as plain, _array(MapType.DEVMAP, value_size=8) as targets:
        plain[1] = 1
        assert dict(plain) == {1: 1}
        targets[0] = DevmapValue(1)
        targets[2] = 1
        assert dict(targets) == {0: DevmapValue(1, 0), 2: DevmapValue(1, 0)}
        with pytest.raises(UsageError, match="no DevmapValue"):
            targets[1] = CpumapValue(1)


def test_a_devmap_takes_programs_made_for_it_and_gives_their_ids() -> None:
    ordinary = returning(XdpAction.PASS)
    suited = returning(XdpAction.PASS, attach_type=AttachType.XDP_DEVMAP)
    with ordinary, suited, _array(MapType.DEVMAP, value_size=8) as targets:
        targets[0] = DevmapValue(1, suited)
        assert targets[0] == DevmapValue(1, suited.id)
        with pytest.raises(KernelRefused) as refused:
            targets[1] = DevmapValue(1, ordinary)
        assert refused.value.errno == errno.EINVAL
        assert list(targets) == [0]


def test_a_cpumap_holds_queue_sizes() -> None:
    with _array(MapType.CPUMAP, max_entries=1) as targets:
        targets[0] = 192
        assert targets[0] == 192
    with _array(MapType.CPUMAP, value_size=8, max_entries=1) as targets:
        targets[0] = CpumapValue(64)
        assert targets[0] == CpumapValue(64, 0)


def test_batches_and_single_calls_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with hash_map(max_entries=5000) as table:
        expected = {_key(number): _value(number) for number in range(3000)}
        table.update_many(expected)
        assert table.lookup_many() == expected
        monkeypatch.setattr(bpf, "funnel", _without_batches)
        with Map.from_id(table.id) as again:
            assert again.lookup_many() == expected
            again.update_many({_key(1): _value(9), _key(4000): _value(4)})
            assert again.lookup_many([_key(1), _key(4000), _key(4500)]) == {
                _key(1): _value(9),
                _key(4000): _value(4),
            }
            assert again.delete_many([_key(1), _key(4500), _key(2)]) == 2
            assert len(again) == 2999


def _without_batches(cmd: int, argument: object) -> int:
    if Cmd.MAP_LOOKUP_BATCH <= cmd <= Cmd.MAP_DELETE_BATCH:
        return -errno.EINVAL
    return bpf.libc_bpf(cmd, argument)  # type: ignore[arg-type]


@pytest.mark.needs("batch")
def test_a_batch_delete_goes_on_behind_an_absent_key() -> None:
    with hash_map() as table:
        table.update_many({_key(number): _value(0) for number in range(10)})
        assert table.delete_many([_key(1), _key(50), _key(2), _key(3)]) == 3
        assert len(table) == 7
        table.clear()
        assert len(table) == 0


@pytest.mark.needs("batch")
def test_a_batch_update_says_which_rule_ended_it() -> None:
    with hash_map(max_entries=4) as table:
        with pytest.raises(KernelRefused, match="full"):
            table.update_many({_key(number): _value(0) for number in range(10)})
        assert len(table) == 4


def test_deleting_while_iterating_visits_every_element_once() -> None:
    with hash_map(max_entries=600) as table:
        table.update_many({_key(number): _value(number) for number in range(500)})
        seen = []
        for key in table:
            seen.append(key)
            del table[key]
        assert len(seen) == len(set(seen)) == 500
        assert len(table) == 0


def test_a_walk_ends_though_the_key_under_it_keeps_vanishing() -> None:
    with hash_map(max_entries=50) as table:
        table.update_many({_key(number): _value(number) for number in range(50)})
        seen = []
        for key in table:
            seen.append(key)
            # Whatever the walk stands on next is gone before it gets there: it starts again.
            for number in range(50):
                if _key(number) != key and len(seen) % 2:
                    table.pop(_key(number), None)
                    table[_key(number)] = _value(number)
        assert len(seen) == len(set(seen)) <= 50


def test_a_frozen_map_is_read_only_for_user_space() -> None:
    with hash_map() as table:
        table[_key(1)] = _value(1)
        table.freeze()
        with pytest.raises(KernelRefused) as refused:
            table[_key(1)] = _value(2)
        assert refused.value.errno == errno.EPERM
        assert table[_key(1)] == _value(1)


def test_a_pinned_map_is_found_again(bpffs: Path) -> None:
    path = bpffs / "table"
    with hash_map() as table:
        table[_key(1)] = _value(1)
        table.pin(path)
        with pytest.raises(UsageError, match="something at that path"):
            table.pin(path)
    with Map.from_pin(path) as again:
        assert again[_key(1)] == _value(1)


def test_a_pin_goes_on_a_bpffs_under_a_name_without_dots(bpffs: Path, tmp_path: Path) -> None:
    with hash_map() as table:
        with pytest.raises(UsageError, match="no dots"):
            table.pin(bpffs / "a.b")
        with pytest.raises(RequirementUnmet, match="not on a bpffs"):
            table.pin(tmp_path / "table")
        with pytest.raises(UsageError, match="no folder"):
            table.pin(bpffs / "absent" / "table")
        assert not os.listdir(tmp_path)


def test_what_is_pinned_is_opened_as_what_it_is(bpffs: Path) -> None:
    with returning(XdpAction.PASS) as program:
        program.pin(bpffs / "program")
    with pytest.raises(UsageError, match="a program, not a map"):
        Map.from_pin(bpffs / "program")
    with pytest.raises(UsageError, match="nothing is pinned"):
        Map.from_pin(bpffs / "absent")


def test_a_map_is_found_by_its_id() -> None:
    with hash_map() as table:
        assert table.id in set(map_ids())
        with Map.from_id(table.id) as again:
            assert again.info() == table.info()
        number = table.id
    with pytest.raises(UsageError, match="none with this id"):
        Map.from_id(number)


def test_a_map_opened_by_id_has_the_types_that_the_kernel_has(pin_root: str) -> None:
    obj = read("shared")
    with load_all(obj, pin_root=pin_root) as loaded:
        loaded.programs["counting"].run(bytes(64))
        flow = {"address": 1, "port": 2, "name": b"fl\0\0\0\0"}
        with Map.from_id(loaded.maps["flows"].id) as flows:
            assert list(flows.items()) == [(flow, 1)]
            flows[{"address": 3, "port": 4, "name": "x"}] = 9
            assert flows[{"address": 3, "port": 4, "name": "x"}] == 9
        assert len(loaded.maps["flows"]) == 2
        assert loaded.maps["flows"][flow] == 1


def test_a_map_that_the_kernel_does_not_make_is_named() -> None:
    with pytest.raises(KernelRefused, match="create map wrong") as refused:
        Map.create(MapType.ARRAY, key_size=8, value_size=4, max_entries=1, name="wrong")
    assert refused.value.errno == errno.EINVAL


def test_two_maps_are_equal_only_if_identical() -> None:
    with hash_map() as one, hash_map() as two:
        assert one != two
        assert len({one, two}) == 2


def test_a_refused_element_is_named_with_its_map() -> None:
    with hash_map() as table:
        table[_key(1)] = _value(1)
        with pytest.raises(KernelRefused, match=r"set element .* of map .*there already"):
            table.put(_key(1), _value(2), flags=UpdateFlags.NOEXIST)


@pytest.mark.parametrize("change", [Map.put, lambda targets, *pair: targets.update_many([pair])])
def test_a_devmap_says_where_it_looked_for_the_interface(
    change: Callable[[Map, int, int], None],
) -> None:
    where = r"element 3 of map .*network namespace.* no interface 99999"
    with _array(MapType.DEVMAP) as targets:
        with pytest.raises(KernelRefused, match=where) as refused:
            change(targets, 3, 99999)
        assert refused.value.errno == errno.EINVAL
