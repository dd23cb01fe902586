# SPDX-License-Identifier: Apache-2.0
"""Records as bytes: round trips, other versions' records, and bytes that are none."""

from __future__ import annotations

import ctypes
import json
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hook.sample import NEGOTIATION, ORIGIN, RECORD, REDIRECT
from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.record import Origin, PortOf, Record
from xdpkit.hook.settings import Counting
from xdpkit.hook.wire import MAX_NEGOTIATION, RECORD_MAGIC, Layout, decode, encode, generation_of
from xdpkit.negotiation import Negotiation
from xdpkit.requirements import Origin as Place
from xdpkit.uapi import sized

ENCODED = encode(RECORD, 5)

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
words = texts.filter(bool)
values = st.recursive(
    st.integers() | st.booleans() | st.binary(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
origins = st.builds(
    Origin,
    path=st.none() | texts,
    sha256=st.none() | texts,
    variables=st.dictionaries(texts, values, max_size=4),
    policy=texts,
    was_forced=st.booleans(),
    xdpkit=texts,
)
ports = st.builds(PortOf, table=words, number=u32, name=texts, table_id=u32) | st.builds(
    PortOf, table=words, table_id=u32
)
records = st.builds(
    Record,
    program=texts,
    interface=texts,
    ifindex=u32,
    netns_cookie=u64,
    mode=st.sampled_from(Mode),
    via=st.sampled_from(Via),
    cookie=u64,
    attached_at=u64,
    revert_at=u64,
    reverts_to=u32,
    origin=origins,
    negotiation=st.none() | st.just(NEGOTIATION),
    queues=st.none() | st.lists(u32, min_size=1, max_size=9).map(tuple),
    port=st.none() | ports,
    logical_id=u32,
    counting=st.sampled_from([Counting.OFF, *Counting, Counting.PACKETS | Counting.BYTES]),
    tap=u32,
)


def sealed(data: bytes) -> bytes:
    """Return changed bytes with a right checksum."""
    unsealed = data[:8] + bytes(4) + data[12:]
    return data[:8] + struct.pack("=I", zlib.crc32(unsealed)) + data[12:]


def with_field(name: str, *numbers: int, data: bytes = ENCODED) -> bytes:
    """Return a record with other numbers in a field."""
    at = getattr(Layout, name)
    value = struct.pack(
        f"={len(numbers)}{'Q' if at.size == 8 and len(numbers) == 1 else 'I'}", *numbers
    )
    return sealed(data[: at.offset] + value + data[at.offset + at.size :])


@given(records, u64)
def test_a_record_comes_back_as_it_was_written(record: Record, generation: int) -> None:
    stored = decode(encode(record, generation))
    assert stored.record == record
    assert stored.generation == generation
    assert not stored.unknown


def test_every_field_comes_back() -> None:
    assert decode(ENCODED).record == RECORD
    assert generation_of(ENCODED) == 5


def test_a_record_without_a_negotiation_says_so() -> None:
    stored = decode(encode(replace(RECORD, negotiation=None), 1))
    assert stored.record == replace(RECORD, negotiation=None)
    assert stored.to_dict()["negotiation"] is None
    assert decode(encode(RECORD, 2, stored)).record == RECORD


def test_what_follows_a_record_does_not_matter() -> None:
    assert decode(ENCODED + b"rest of the slot").record == RECORD


@given(st.binary(max_size=400))
def test_bytes_that_are_no_record_are_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ObjectFormatError):
        decode(data)
    assert generation_of(data) is None


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_any_damage_is_noticed(at: int, change: int) -> None:
    damaged = ENCODED[:at] + bytes([ENCODED[at] ^ change]) + ENCODED[at + 1 :]
    with pytest.raises(ObjectFormatError):
        decode(damaged)


@given(
    st.lists(
        st.tuples(st.integers(4, len(ENCODED) - 1), st.integers(0, 255)), min_size=1, max_size=8
    )
)
def test_whatever_has_a_right_checksum_is_a_record_or_refused(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(ENCODED)
    for at, value in changes:
        data[at] = value
    (used,) = struct.unpack_from("=I", data, 12)
    crc = zlib.crc32(data[:8] + bytes(4) + data[12:used])
    struct.pack_into("=I", data, 8, crc)
    try:
        stored = decode(bytes(data))
    except ObjectFormatError:
        return
    assert decode(encode(stored.record, 1)).record == stored.record


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_field("mode", 3), "mode 3 is not known"),
        (with_field("via", 0), "way of attaching 0 is not known"),
        (with_field("size", 12), "12 of .* bytes cannot be its structure"),
        (with_field("used", len(ENCODED) + 1), "cannot be its structure"),
        (with_field("magic", RECORD_MAGIC + 1), "does not begin as a record does"),
        (with_field("origin", len(ENCODED) - 1, 2), "origin reaches out of it"),
        (with_field("origin", (1 << 32) - 1, 2), "origin reaches out of it"),
        (with_field("queues", 0, 7), "queues has 7 bytes, no multiple of 4"),
        (with_field("negotiation", 0, 1), "negotiation is not JSON"),
        (
            with_field("negotiation", *struct.unpack_from("=II", ENCODED, Layout.origin.offset)),
            "read a negotiation: program: text is expected",
        ),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ObjectFormatError, match=words):
        decode(data)


def with_document(name: str, document: str) -> bytes:
    """Return a record with another document at its end."""
    start = len(ENCODED)
    data = with_field(name, start, len(document), data=ENCODED + document.encode())
    return with_field("used", len(data), data=data)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("1" * 10_000, "not JSON"),
        ("[]", "a JSON object is expected"),
        ('{"path": null}', "variables: a JSON object is expected"),
        ('{"path": 3, "variables": {}}', "path: text is expected"),
        ('{"variables": {"a": "seven"}}', "variables: could not convert"),
        ('{"path": null, "variables": {"a": {"hex": "x"}}}', "variables: "),
        ('{"variables": {}, "policy": "", "was_forced": 1}', "was_forced: true or false"),
    ],
)
def test_an_origin_that_makes_no_sense_is_refused_in_words(document: str, words: str) -> None:
    with pytest.raises(ObjectFormatError, match=words):
        decode(with_document("origin", document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ifindex": 1 << 32}, "store ifindex 4294967296: it is out of range"),
        ({"cookie": -1}, "store cookie -1: it is out of range"),
        ({"queues": (1 << 32,)}, "a number is out of range"),
        ({"queues": ()}, "its program serves no queue"),
        ({"program": "\ud800"}, "store the program name .* it is no text"),
        ({"origin": replace(ORIGIN, variables={"a": object()})}, "JSON cannot say it"),
    ],
)
def test_what_cannot_be_written_down_is_the_callers_mistake(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        encode(replace(RECORD, **change), 1)


# Other versions


def test_the_layout_is_as_documented() -> None:
    """Fields are appended to it; what is there stays where it is (docs/records.md)."""
    assert {field[0]: getattr(Layout, field[0]).offset for field in Layout._fields_} == {
        "magic": 0,
        "size": 4,
        "crc": 8,
        "used": 12,
        "generation": 16,
        "netns_cookie": 24,
        "cookie": 32,
        "attached_at": 40,
        "revert_at": 48,
        "ifindex": 56,
        "reverts_to": 60,
        "mode": 64,
        "via": 68,
        "flags": 72,
        "port_index": 76,
        "program": 80,
        "interface": 88,
        "queues": 96,
        "origin": 104,
        "negotiation": 112,
        "logical_id": 120,
        "counting": 124,
        "tap": 128,
        "unused": 132,
        "port_table": 136,
        "port_name": 144,
        "port_table_id": 152,
        "unused_too": 156,
    }
    assert ctypes.sizeof(Layout) == 160


def test_a_later_versions_record_is_read_and_edited_as_large_as_it_was() -> None:
    later = encode(RECORD, 5, replace(decode(ENCODED), tail=bytes(20)))
    stored = decode(later)
    assert stored.record == RECORD
    assert not stored.unknown
    assert stored.size == ctypes.sizeof(Layout) + 20
    edited = decode(encode(replace(RECORD, revert_at=0, interface="eth0"), 6, stored))
    assert edited.size == stored.size
    assert edited.tail == bytes(20)
    assert edited.record == replace(RECORD, revert_at=0, interface="eth0")


def test_a_later_versions_field_that_is_not_zero_is_unknown() -> None:
    tail = bytes(12) + b"\1" + bytes(7)
    stored = decode(encode(RECORD, 5, replace(decode(ENCODED), tail=tail)))
    assert stored.record == RECORD
    assert stored.unknown
    assert stored.to_dict()["unknown"] is True


def test_a_later_versions_flag_is_unknown() -> None:
    stored = decode(with_field("flags", 3))
    assert stored.record == RECORD
    assert stored.unknown


def test_what_a_later_version_counts_is_unknown() -> None:
    stored = decode(with_field("counting", 7))
    assert stored.record == RECORD
    assert stored.unknown


EARLIER = Layout.logical_id.offset
"""The size of the structure before it had a logical id, and all that came after that."""


def as_earlier_version_writes(record: Record, generation: int) -> bytes:
    """Return a record without what an earlier version does not know."""
    data = bytearray(encode(record, generation))
    gone = ctypes.sizeof(Layout) - EARLIER
    for name in ("program", "interface", "queues", "origin", "negotiation"):
        at = getattr(Layout, name).offset
        offset, size = struct.unpack_from("=II", data, at)
        struct.pack_into("=II", data, at, offset - gone if size else 0, size)
    del data[EARLIER : EARLIER + gone]
    struct.pack_into("=I", data, Layout.size.offset, EARLIER)
    struct.pack_into("=I", data, Layout.used.offset, len(data))
    return sealed(bytes(data))


class EarlierLayout(ctypes.Structure):
    """The structure as it was before."""

    _fields_ = Layout._fields_[:-8]


@given(records, u64)
def test_an_earlier_versions_record_is_read_and_edited(record: Record, generation: int) -> None:
    stored = decode(as_earlier_version_writes(record, generation))
    number = record.port.number if record.port is not None else None
    assert stored.record == replace(
        record,
        logical_id=0,
        counting=Counting.OFF,
        tap=0,
        port=None if number is None else PortOf("", number),
    )
    assert (stored.generation, stored.size, stored.unknown) == (generation, EARLIER, False)
    edited = decode(encode(record, generation, stored))
    assert edited.record == record
    assert edited.size == ctypes.sizeof(Layout)


@given(records, u64)
def test_an_earlier_version_changes_only_what_it_knows_all_of(
    record: Record, generation: int
) -> None:
    found = sized.unpack("record", RECORD_MAGIC, EarlierLayout, encode(record, generation))
    assert found.fields.generation == generation
    assert found.text("program") == record.program
    later = record.logical_id or record.counting or record.tap or record.port
    assert any(found.tail) == bool(later)


@pytest.mark.parametrize("field", ["unused", "unused_too"])
def test_what_no_version_uses_yet_is_unknown(field: str) -> None:
    stored = decode(with_field(field, 1))
    assert stored.record == RECORD
    assert stored.unknown


def test_a_document_that_an_edit_does_not_touch_stays_as_it_was_written() -> None:
    wider = {**ORIGIN.to_dict(), "of_tomorrow": [1]}
    stored = decode(with_document("origin", json.dumps(wider)))
    assert stored.record == RECORD
    edited = decode(encode(replace(RECORD, cookie=0), 6, stored))
    assert json.loads(edited.origin_data) == wider
    replaced = decode(encode(replace(RECORD, origin=replace(ORIGIN, path=None)), 6, stored))
    assert "of_tomorrow" not in json.loads(replaced.origin_data)


# Negotiations


def test_a_negotiation_comes_back_from_plain_data() -> None:
    assert Negotiation.from_dict(NEGOTIATION.to_dict()) == NEGOTIATION
    assert Negotiation.from_dict(json.loads(json.dumps(NEGOTIATION.to_dict()))) == NEGOTIATION


def test_keys_of_a_later_version_are_ignored_in_a_negotiation() -> None:
    data = json.loads(json.dumps(NEGOTIATION.to_dict()))
    data["later"] = data["verdicts"][0]["later"] = 1
    data["verdicts"][0]["requirement"]["later"] = 1
    assert Negotiation.from_dict(data) == NEGOTIATION


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ([], [], "read a negotiation: a JSON object is expected"),
        (["policy"], "lenient", "read a negotiation: policy: 'lenient' is not known"),
        (["notes"], [1], "notes: texts are expected"),
        (["verdicts"], {}, "verdicts: a JSON array is expected"),
        (["verdicts", 0], None, "read a verdict: a JSON object is expected"),
        (["verdicts", 0, "offered"], "perhaps", "offered: 'perhaps' is not known"),
        (["verdicts", 0, "limit"], True, "limit: a number is expected"),
        (["verdicts", 0, "requirement"], 1, "requirement: a JSON object is expected"),
        (["verdicts", 0, "requirement", "map"], 1, "read a requirement: map: text is expected"),
        (
            ["verdicts", 0, "requirement", "origins", 1],
            1,
            r"read a requirement, origins\[1\]: a JSON object is expected",
        ),
    ],
)
def test_what_is_no_negotiation_is_refused_in_words(
    path: list[Any], value: object, words: str
) -> None:
    data: Any = [json.loads(json.dumps(NEGOTIATION.to_dict()))]
    place = data
    for key in [0, *path][:-1]:
        place = place[key]
    place[[0, *path][-1]] = value
    with pytest.raises(UsageError, match=words):
        Negotiation.from_dict(data[0])


def test_of_a_very_long_negotiation_the_first_places_are_kept() -> None:
    places = tuple(Place("firewall", slot, "forward", "fw.c:1") for slot in range(10_000))
    verdict = replace(NEGOTIATION.verdicts[0], requirement=replace(REDIRECT, origins=places))
    long = replace(NEGOTIATION, verdicts=(verdict,))
    stored = decode(encode(replace(RECORD, negotiation=long), 1))
    assert len(stored.negotiation_data) < MAX_NEGOTIATION
    assert stored.record.negotiation is not None
    kept = stored.record.negotiation.verdicts[0]
    assert kept.requirement.origins == places[:8]
    assert replace(kept, requirement=verdict.requirement) == verdict
