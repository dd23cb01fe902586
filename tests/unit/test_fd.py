# SPDX-License-Identifier: Apache-2.0
"""Descriptors that have an owner."""

from __future__ import annotations

import os

import pytest

from xdpkit.errors import UsageError
from xdpkit.syscalls.fd import Fd


def _open() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def test_leaving_the_block_closes_it() -> None:
    with Fd(_open()) as fd:
        number = fd.fileno()
        assert _is_open(number)
    assert fd.closed
    assert not _is_open(number)


def test_closing_twice_does_not_close_what_has_the_number_now() -> None:
    fd = Fd(_open())
    fd.close()
    reused = _open()
    fd.close()
    assert _is_open(reused)
    os.close(reused)


def test_detaching_hands_the_duty_over() -> None:
    fd = Fd(_open())
    number = fd.detach()
    fd.close()
    assert _is_open(number)
    os.close(number)
    with pytest.raises(UsageError, match="closed"):
        fd.detach()


def test_a_closed_one_has_no_number() -> None:
    fd = Fd(_open())
    fd.close()
    with pytest.raises(UsageError, match="closed"):
        fd.fileno()


def test_a_forgotten_one_warns_and_is_closed() -> None:
    number = _open()
    fd = Fd(number)
    with pytest.warns(ResourceWarning, match=rf"unclosed <Fd {number}>"):
        del fd
    assert not _is_open(number)


def test_a_duplicate_is_independent_and_closed_on_exec() -> None:
    with Fd(_open()) as first:
        second = Fd.duplicate(first)
    with second:
        assert _is_open(second.fileno())
        assert not os.get_inheritable(second.fileno())
