# SPDX-License-Identifier: Apache-2.0
"""What is read from the settings of libxdp's dispatcher, and what is not taken for them."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.hook.dispatcher import Component, Config, Dispatcher, Slot, decode_config

RETVAL = 1 << 31


def ten(*values: int) -> bytes:
    return struct.pack("=10I", *values, *[0] * (10 - len(values)))


ACTIONS = ten(1 << 2 | RETVAL, 1 << 0 | 1 << 1 | 1 << 4 | RETVAL)
PRIORITIES = ten(10, 50)
SLOTS = (Slot(10, ("pass",)), Slot(50, ("aborted", "drop", "redirect")))

VERSION_1 = struct.pack("=B3x", 2) + ACTIONS + PRIORITIES
VERSION_2 = struct.pack("=4B", 236, 2, 2, 1) + ACTIONS + PRIORITIES + ten(1 << 5)
VERSION_3 = struct.pack("=4B", 236, 3, 2, 0) + ACTIONS + PRIORITIES + ten() + b"\1\0\0\0"


def test_version_1_is_read_where_the_types_declare_it() -> None:
    assert len(VERSION_1) == 84
    assert decode_config(VERSION_1, declared_version=1) == Config(1, None, 2, SLOTS)


@pytest.mark.parametrize("declared", [None, 0, 2, 3, 236])
def test_settings_without_a_magic_number_or_declaration_are_none(declared: int | None) -> None:
    assert decode_config(VERSION_1, declared_version=declared) is None


def test_version_2_says_whether_it_takes_frags() -> None:
    assert len(VERSION_2) == 124
    assert decode_config(VERSION_2) == Config(2, True, 2, SLOTS)


def test_version_3_is_version_2_with_more_at_the_end() -> None:
    assert len(VERSION_3) == 128
    assert decode_config(VERSION_3) == Config(3, False, 2, SLOTS)


def test_of_a_later_version_only_the_number_is_known() -> None:
    assert decode_config(b"\xec\x04" + bytes(300)) == Config(4)
    assert decode_config(b"\xec\xff") == Config(255)


@pytest.mark.parametrize("version", [0, 1])
def test_versions_that_never_had_the_magic_number_are_refused(version: int) -> None:
    data = bytes([236, version]) + bytes(200)
    assert decode_config(data) is None
    assert decode_config(data, declared_version=1) is None


def test_another_magic_number_is_refused() -> None:
    assert decode_config(b"\xed" + VERSION_2[1:]) is None


@pytest.mark.parametrize("data", [VERSION_2, VERSION_3])
def test_settings_that_are_cut_are_none(data: bytes) -> None:
    for length in range(len(data)):
        assert decode_config(data[:length]) is None


def test_version_1_that_is_cut_is_none() -> None:
    for length in range(len(VERSION_1)):
        assert decode_config(VERSION_1[:length], declared_version=1) is None


def test_more_components_than_there_can_be_are_not_believed() -> None:
    config = decode_config(VERSION_2[:2] + b"\xff" + VERSION_2[3:])

    assert config is not None
    assert config.claimed == 255
    assert config.slots is not None
    assert config.slots == (*SLOTS, *[Slot(0, ())] * 8)


def test_a_bit_that_is_no_action_is_told_as_its_number() -> None:
    data = VERSION_2[:4] + ten(1 << 2 | 1 << 7 | 1 << 30 | RETVAL) + VERSION_2[44:]
    config = decode_config(data)

    assert config is not None
    assert config.slots is not None
    assert config.slots[0].chain_call == ("pass", "7", "30")


@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"\xec" + tail)),
    st.one_of(st.none(), st.integers(0, 300)),
)
def test_any_bytes_are_settings_within_bounds_or_none(data: bytes, declared: int | None) -> None:
    config = decode_config(data, declared_version=declared)

    if config is None:
        return
    assert config.version == (data[1] if data[0] == 236 else 1)
    if config.slots is not None:
        assert config.claimed is not None
        assert len(config.slots) == min(config.claimed, 10)
        assert len(data) >= 84


def test_a_dispatcher_can_be_written_as_json() -> None:
    component = Component(7, "drop", "0011223344556677", 50, ("pass",), "/bpf/prog0-prog")
    found = Dispatcher(2, True, (component, Component()), "a note")

    assert json.loads(json.dumps(found.to_dict())) == {
        "version": 2,
        "frags": True,
        "programs": [
            {
                "id": 7,
                "name": "drop",
                "tag": "0011223344556677",
                "priority": 50,
                "chain_call": ["pass"],
                "pinned": "/bpf/prog0-prog",
            },
            {
                "id": None,
                "name": None,
                "tag": None,
                "priority": None,
                "chain_call": [],
                "pinned": None,
            },
        ],
        "note": "a note",
    }
