# SPDX-License-Identifier: Apache-2.0
"""The tables of the resident counters: decoded as ``bpf/monitor.c`` lays them out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xdpkit
from tests.corpus import build
from xdpkit.btf import Kind as TypeKind
from xdpkit.btf.types import Struct
from xdpkit.compiler import compile
from xdpkit.errors import ObjectFormatError
from xdpkit.monitor import layout
from xdpkit.monitor.layout import Kind
from xdpkit.obj import Object

KEY = "=4Q"
ERROR = f"{KEY}QQI"
SOURCE = Path(__file__).parents[3] / "bpf" / "monitor.c"
PINS = {
    "errors": "xdpkit_errors",
    "names": "xdpkit_names",
    "bulks": "xdpkit_bulks",
    "cpumaps": "xdpkit_cpumaps",
    "refused": "xdpkit_refused",
    "settings": ".data",
}
# What Python reads, in order, and how many bytes each has.
MEMBERS = {
    "key": (["netns", "who", "what", "where"], [8] * 4),
    "slot": (["key", "count", "last_seen", "last", "noted"], [32, 8, 8, 4, 4]),
    "names": (["interface", "program", "target"], [16, 16, 16]),
    "table": (["other", "used", "slots", "targets"], [8, 8, 256 * 56, 256 * 56]),
    "bulk": (
        ["key", "sent", "dropped", "last_seen", "last", "interface", "source"],
        [32, 8, 8, 8, 8, 16, 16],
    ),
    "bulk_table": (["other", "used", "slots"], [8, 8, 256 * 96]),
    "cpumap": (
        [
            "key",
            "enqueued",
            "queue_full",
            "processed",
            "no_memory",
            "passed",
            "dropped",
            "redirected",
            "last_seen",
        ],
        [32, *[8] * 8],
    ),
    "cpumap_table": (["other", "used", "slots"], [8, 8, 256 * 96]),
}

_numbers = st.integers(0, 0xFFFFFFFF)
_counts = st.integers(1, (1 << 60) - 1)
_words = st.integers(0, (1 << 64) - 1)


def what(kind: int, map_type: int, code: int, map_id: int) -> int:
    return kind | map_type << 8 | code << 16 | map_id << 32


_exceptions = st.tuples(
    _words,
    _words,
    st.integers(0, 5).map(lambda action: what(Kind.EXCEPTION, 0, action, 0)),
    st.just(0),
)
_redirects = st.tuples(
    _words,
    _words,
    st.builds(
        what,
        st.just(int(Kind.REDIRECT_ERROR)),
        st.integers(0, 40),
        st.integers(0, 4095),
        _numbers,
    ),
    _words,
)
_names = st.binary(max_size=15).filter(lambda name: b"\0" not in name)


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory) -> Object:
    compilers = build.compilers()
    if not compilers:
        pytest.skip("no BPF compiler: apt-get install clang")
    output = tmp_path_factory.mktemp("monitor") / "monitor.o"
    compile(SOURCE, output)
    return xdpkit.read(output)


def test_each_map_has_the_size_that_is_read(obj: Object) -> None:
    assert {pin: obj.maps[name].value_size for pin, name in PINS.items()} == layout.SIZES


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members_are_where_they_are_read(obj: Object, name: str) -> None:
    assert obj.btf is not None
    (number,) = obj.btf.find(name, TypeKind.STRUCT)
    found = obj.btf[number]
    assert isinstance(found, Struct)
    names, sizes = MEMBERS[name]
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    assert [member.name for member in found.members] == names
    assert [member.bit_offset // 8 for member in found.members] == offsets
    assert found.size == sum(sizes)


def test_the_settings_are_where_they_are_written(obj: Object) -> None:
    original = obj.variables["settings"]
    assert isinstance(original, dict)
    assert original["layout"] == layout.LAYOUT
    obj.variables["settings"] = layout.Settings(layout.LAYOUT, 7, 9, 10, True, 11).encode()
    assert obj.variables["settings"] == {
        "layout": layout.LAYOUT,
        "rate": 7,
        "ticks": 9,
        "seed": 10,
        "by_cookie": 1,
        "unused": 0,
        "since": 11,
    }


@given(
    settings=st.builds(
        layout.Settings, _numbers, _numbers, _numbers, _numbers, st.booleans(), _counts
    )
)
def test_settings_come_back_as_they_were(settings: layout.Settings) -> None:
    assert layout.Settings.decode(settings.encode()) == settings


def _table(slots: dict[int, bytes], head: int, size: int, total: int) -> bytes:
    table = bytearray(total)
    struct.pack_into("=Q", table, 8, len(slots))
    for number, data in slots.items():
        table[head + number * size : head + (number + 1) * size] = data.ljust(size, b"\0")
    return bytes(table)


def _errors(slots: dict[int, bytes]) -> bytes:
    return _table(slots, 16, 56, layout.SIZES["errors"])


def _error_names(slots: dict[int, bytes]) -> bytes:
    return _table(slots, 0, 48, layout.SIZES["names"])


@given(
    st.dictionaries(
        _exceptions | _redirects,
        st.tuples(_counts, _counts, _numbers, _names, _names, _names),
        max_size=20,
    ),
    st.randoms(),
)
def test_what_is_in_the_slots_is_read(
    content: dict[tuple[int, ...], tuple[int, int, int, bytes, bytes, bytes]], random: object
) -> None:
    places = random.sample(range(2 * layout.SLOTS), len(content))  # type: ignore[attr-defined]
    slots, names = {}, {}
    for place, (key, (packets, seen, last, *texts)) in zip(places, content.items(), strict=True):
        slots[place] = struct.pack(ERROR, *key, packets, seen, last)
        names[place] = b"".join(text.ljust(16, b"\0") for text in texts)
    found = layout.errors([_errors(slots)], [_error_names(names)])
    assert {
        (
            e.netns,
            e.ifindex | e.program << 32,
            what(e.kind, e.map_type, e.code, e.map_id),
            e.index | e.target << 32,
        ): (
            e.packets,
            e.last_seen,
            e.last,
            e.interface,
            e.program_name,
            e.target_name,
        )
        for e in found
    } == {
        key: (packets, seen, last, *(text.decode("utf-8", "backslashreplace") for text in texts))
        for key, (packets, seen, last, *texts) in content.items()
    }


def test_what_several_cpus_counted_is_added_and_the_latest_one_told() -> None:
    key = (1, 2 | 3 << 32, what(Kind.EXCEPTION, 0, 5, 0), 0)
    first = struct.pack(ERROR, *key, 10, 500, 42)
    second = struct.pack(ERROR, *key, 7, 400, 43)
    name = b"eth0".ljust(16, b"\0") + b"fw".ljust(32, b"\0")
    found = layout.errors(
        [_errors({4: first}), _errors({9: second})],
        [_error_names({4: name}), _error_names({9: name})],
    )
    (error,) = found
    assert (error.packets, error.last_seen, error.last) == (17, 500, 42)
    assert (error.interface, error.program_name) == ("eth0", "fw")


def test_a_program_of_the_entry_of_a_map_is_told_apart() -> None:
    key = (1, 2 | 3 << 32, what(Kind.EXCEPTION, 0, 3 | 1 << 8, 0), 0)
    slot = struct.pack(ERROR, *key, 10, 500, 3)
    (error,) = layout.errors([_errors({4: slot})], [_error_names({})])
    assert (error.in_map, error.code) == (True, 3)


def test_transmissions_of_several_cpus_are_added() -> None:
    key = (1, 2 | 3 << 32, what(Kind.BULK, 0, 0, 0), 4 | 5 << 32)
    one = struct.pack(f"{KEY}4Q16s16s", *key, 5, 2, 70, 6, b"out", b"in")
    other = struct.pack(f"{KEY}4Q16s16s", *key, 6, 0, 0, 0, b"out", b"in")
    tables = [
        _table({place: data}, 16, 96, layout.SIZES["bulks"])
        for place, data in ((0, one), (3, other))
    ]
    assert layout.bulks(tables) == (layout.Bulk(1, 2, 4 | 5 << 32, 3, 11, 2, 70, 6, "out", "in"),)


def test_cpumaps_of_several_cpus_are_added() -> None:
    key = (0, 0, what(Kind.CPUMAP, 0, 0, 17), 3 << 32)
    one = struct.pack(f"{KEY}8Q", *key, 1, 2, 3, 4, 5, 6, 7, 80)
    tables = [_table({0: one}, 16, 96, layout.SIZES["cpumaps"])] * 2
    assert layout.cpumaps(tables) == (layout.Cpumap(17, 3, 2, 4, 6, 8, 10, 12, 14, 80),)


def test_what_found_no_slot_is_added_over_all_tables() -> None:
    def table(count: int, size: int) -> bytes:
        return struct.pack("=QQ", count, 0).ljust(size, b"\0")

    assert layout.others([table(3, 100), table(4, 100)], [table(5, 50)]) == 12


@pytest.mark.parametrize("read", [layout.bulks, layout.cpumaps])
def test_a_table_that_is_too_short_is_refused(read: object) -> None:
    with pytest.raises(ObjectFormatError, match="a table of 12 bytes, where 24592 are needed"):
        read([bytes(12)])  # type: ignore[operator]


def test_tables_of_errors_that_are_too_short_are_refused() -> None:
    with pytest.raises(ObjectFormatError, match="a table of 12 bytes"):
        layout.errors([bytes(12)], [bytes(12)])
    with pytest.raises(ObjectFormatError, match="a table of 3 bytes"):
        layout.Settings.decode(bytes(3))


def test_a_kind_that_is_not_known_is_refused() -> None:
    slot = struct.pack(ERROR, 0, 0, 99, 0, 1, 1, 1)
    with pytest.raises(ObjectFormatError, match="slot 5 is of kind 99"):
        layout.errors([_errors({5: slot})], [_error_names({})])
