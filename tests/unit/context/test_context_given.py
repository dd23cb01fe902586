# SPDX-License-Identifier: Apache-2.0
"""What a program may be given for the fields."""

from __future__ import annotations

from typing import Any

import pytest

from xdpkit.errors import UsageError
from xdpkit.kernel import Context


@pytest.mark.parametrize("value", ["3", 1.5, 2.0, True, -1, 1 << 32])
def test_a_port_is_a_number_of_32_bits(value: Any) -> None:
    with pytest.raises(UsageError) as refused:
        Context(port_index=value)
    assert refused.value.cause == f"port_index is a number of 32 bits, and not {value!r}"


@pytest.mark.parametrize("value", [None, "3", 2.0, True, False, -1, 1 << 64])
def test_a_cookie_is_a_number_of_64_bits(value: Any) -> None:
    with pytest.raises(UsageError) as refused:
        Context(cookie=value)
    assert refused.value.cause == f"a cookie is a number of 64 bits, and not {value!r}"


@pytest.mark.parametrize("value", [5, 0, "xdpkit_port_numbers", {1: 3}])
def test_ports_are_looked_up_in_a_map(value: Any) -> None:
    with pytest.raises(UsageError) as refused:
        Context(port_numbers=value)
    assert refused.value.cause == f"port_numbers is a Map, and not {value!r}"


def test_the_largest_numbers_are_taken() -> None:
    found = Context((1 << 32) - 1, cookie=(1 << 64) - 1)
    assert (found.port_index, found.cookie) == (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)
    assert Context() == Context(None, None, 0)


def test_a_port_is_given_once() -> None:
    numbers: Any = object()
    with pytest.raises(UsageError, match="either one number or looked up, not both"):
        Context(3, numbers)
