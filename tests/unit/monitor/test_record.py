# SPDX-License-Identifier: Apache-2.0
"""Records of events, decoded."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import ObjectFormatError
from xdpkit.monitor.record import ACTIONS, HEAD, NO_QUEUE, Event, Kind, decode
from xdpkit.rewrite import COUNTED
from xdpkit.uapi.bpf import MapType


def record(
    kind: int = Kind.EXCEPTION,
    *,
    action: int = 0,
    error: int = 0,
    queue: int = NO_QUEUE,
    length: int = 0,
    captured: int | None = None,
    drops: int = 0,
    flags: int = 0,
    follows: bytes = b"",
) -> bytes:
    """Return a record as the kernel's side writes it."""
    size = len(follows) if captured is None else captured
    where = (11, 4026531840, 3, 77)
    map_ = (5, 9, int(MapType.DEVMAP), 1)
    head = HEAD.pack(
        1_000, kind, *where, action, error, queue, length, size, *map_, drops, flags, b"firewall"
    )
    return head + follows


def test_a_tapped_frame_has_queue_length_and_bytes() -> None:
    event = decode(record(Kind.FRAME, queue=2, length=1500, follows=b"\xde\xad\xbe\xef"))
    assert event == Event(
        time=1_000,
        kind=Kind.FRAME,
        cpu=11,
        netns=4026531840,
        ifindex=3,
        program=77,
        program_name="firewall",
        queue=2,
        length=1500,
        data=b"\xde\xad\xbe\xef",
        target=5,
        map_id=9,
        map_type=MapType.DEVMAP,
        map_index=1,
    )


def test_a_tracepoint_knows_neither_queue_nor_length() -> None:
    event = decode(record())
    assert event.queue is None
    assert event.length is None
    assert event.data == b""


def test_actions_have_the_names_of_the_counters() -> None:
    assert ACTIONS == COUNTED
    for action in range(5):
        assert decode(record(action=action)).action_name == COUNTED[action]


@pytest.mark.parametrize("action", [5, 42, 0xFFFF_FFFF])
def test_what_is_no_action_is_invalid_and_kept_as_it_was(action: int) -> None:
    event = decode(record(action=action))
    assert event.action_name == "invalid"
    assert event.action == action


def test_an_errno_is_positive_and_has_its_name() -> None:
    event = decode(record(Kind.REDIRECT_ERROR, action=4, error=-errno.EOPNOTSUPP))
    assert event.errno == errno.EOPNOTSUPP
    assert event.error_name == "EOPNOTSUPP"
    assert decode(record()).error_name == ""


def test_of_transmissions_the_length_is_how_many_were_sent() -> None:
    event = decode(record(Kind.DEVMAP_XMIT, action=4, length=14, drops=2))
    assert event.is_transmit
    assert (event.sent, event.drops, event.length) == (14, 2, None)


@pytest.mark.parametrize("kind", [Kind.REDIRECT_ERROR, Kind.DEVMAP_XMIT])
def test_a_target_has_a_namespace_where_others_have_a_queue(kind: Kind) -> None:
    event = decode(record(kind, queue=4026532000))
    assert (event.target_netns, event.queue) == (4026532000, None)
    assert decode(record(Kind.FRAME, queue=7)).target_netns == 0


def test_a_program_of_a_map_is_told_from_one_of_an_interface() -> None:
    assert [decode(record(flags=flags)).in_map for flags in range(4)] == [False, True, False, True]


def test_a_refused_attachment_has_the_kernels_words() -> None:
    event = decode(record(Kind.ATTACH_FAILED, follows=b"Invalid XDP flags\0"))
    assert event.text == "Invalid XDP flags"
    assert event.action_name == ""
    assert event.data == b""


def test_room_that_was_not_used_is_no_part_of_the_frame() -> None:
    assert decode(record(Kind.FRAME, captured=2, follows=b"ab" + bytes(62))).data == b"ab"


def test_a_name_may_be_of_any_bytes() -> None:
    whole = record()
    assert decode(whole[:-16] + b"\xff" * 16).program_name == "\N{REPLACEMENT CHARACTER}" * 16


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it has 0 bytes, and needs 88"),
        (record()[:-1], "it has 87 bytes, and needs 88"),
        (record(8), "8 is no kind of event"),
        (record(captured=5, follows=b"four"), "it says that 5 bytes follow, and has 4"),
        (record(captured=0xFFFF_FFFF), "it says that 4294967295 bytes follow, and has 0"),
    ],
)
def test_damage_is_told(data: bytes, says: str) -> None:
    with pytest.raises(ObjectFormatError) as raised:
        decode(data)
    assert raised.value.cause == says


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_damage(data: bytes) -> None:
    try:
        event = decode(data)
    except ObjectFormatError:
        return
    json.dumps(event.to_dict())


def test_as_data_for_json() -> None:
    event = decode(
        record(
            Kind.REDIRECT_ERROR,
            action=4,
            error=-errno.ENXIO,
            queue=4026532000,
            follows=b"\x01\x02",
        )
    )
    assert event.to_dict() == {
        "time": 1_000,
        "kind": "redirect_error",
        "cpu": 11,
        "netns": 4026531840,
        "ifindex": 3,
        "program_id": 77,
        "program": "firewall",
        "in_map": False,
        "action": "redirect",
        "returned": 4,
        "error": "ENXIO",
        "queue": None,
        "length": None,
        "data": "0102",
        "target": 5,
        "target_netns": 4026532000,
        "map_id": 9,
        "map_type": 14,
        "map_index": 1,
        "sent": 0,
        "drops": 0,
        "text": "",
    }
