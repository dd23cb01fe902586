# SPDX-License-Identifier: Apache-2.0
"""Keys and values of maps as Python objects."""

from __future__ import annotations

import sys

import pytest

from xdpkit.btf import Btf, types
from xdpkit.btf.builder import BtfBuilder
from xdpkit.errors import UsageError
from xdpkit.kernel.mapvalues import (
    CpumapValue,
    DevmapValue,
    descriptor,
    key_codec,
    value_codec,
)
from xdpkit.uapi.bpf import MapType


def _number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little" if sys.byteorder == "little" else "big")


def _types() -> tuple[Btf, int, int]:
    builder = BtfBuilder()
    u32 = builder.add(types.Int("unsigned int", 4, 32))
    struct = builder.add(
        types.Struct("pair", 8, (types.Member("one", u32, 0), types.Member("two", u32, 32)))
    )
    return Btf.parse(builder.build()), u32, struct


BTF, U32, PAIR = _types()


def test_types_decide_what_a_key_is() -> None:
    keys = key_codec(MapType.HASH, 8, BTF, PAIR)
    assert keys.encode({"one": 1, "two": 2}) == _number(1) + _number(2)
    assert keys.decode(_number(1) + _number(2)) == {"one": 1, "two": 2}
    assert keys.encode(bytes(8)) == bytes(8)


def test_types_of_another_size_are_not_believed() -> None:
    assert key_codec(MapType.HASH, 6, BTF, PAIR).decode(bytes(6)) == bytes(6)


def test_without_types_there_are_bytes_and_indices() -> None:
    assert key_codec(MapType.HASH, 4, None, 0).decode(_number(5)) == _number(5)
    indices = key_codec(MapType.ARRAY, 4, None, 0)
    assert indices.encode(5) == _number(5)
    assert indices.decode(_number(5)) == 5
    for wrong in (-1, 1 << 32, "5", None):
        with pytest.raises(UsageError):
            indices.encode(wrong)


def test_a_per_cpu_value_is_padded_to_eight_bytes() -> None:
    values = value_codec(MapType.PERCPU_HASH, 4, BTF, U32, 3)
    data = b"".join(_number(value) + bytes(4) for value in (1, 2, 3))
    assert values.encode([1, 2, 3]) == data
    assert values.decode(data) == [1, 2, 3]
    assert values.encode(data) == data
    for wrong in (1, [1, 2], "123", {1: 2}):
        with pytest.raises(UsageError, match="per-CPU"):
            values.encode(wrong)


def test_targets_of_redirection_have_values_of_their_own() -> None:
    targets = value_codec(MapType.DEVMAP_HASH, 8, None, 0, 1)
    assert targets.encode(3) == _number(3) + _number(0)
    assert targets.encode(DevmapValue(3, 9)) == _number(3) + _number(9)
    assert targets.decode(_number(3) + _number(77)) == DevmapValue(3, 77)
    queues = value_codec(MapType.CPUMAP, 8, None, 0, 1)
    assert queues.decode(_number(64) + _number(0)) == CpumapValue(64, 0)
    with pytest.raises(UsageError, match="CpumapValue"):
        queues.encode(DevmapValue(1))
    assert value_codec(MapType.CPUMAP, 4, None, 0, 1).decode(_number(64)) == 64


def test_a_kernel_object_is_anything_with_a_descriptor() -> None:
    class Object:
        def fileno(self) -> int:
            return 12

    assert descriptor(Object()) == descriptor(12) == 12
    assert value_codec(MapType.PROG_ARRAY, 4, None, 0, 1).encode(Object()) == _number(12)
    with pytest.raises(UsageError):
        descriptor("12")


def test_a_devmap_is_keyed_by_numbers_even_where_nobody_says_so() -> None:
    keys = key_codec(MapType.DEVMAP_HASH, 4, None, 0)
    assert keys.encode(4711) == (4711).to_bytes(4, sys.byteorder)
    assert keys.decode(keys.encode(4711)) == 4711
