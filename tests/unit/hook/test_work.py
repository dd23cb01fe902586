# SPDX-License-Identifier: Apache-2.0
"""What a copy does less where a program leaves no room for all that is wanted."""

from __future__ import annotations

import pytest

from xdpkit.hook.settings import Counting
from xdpkit.hook.work import NOTHING, Reader, Work

READER = Reader(1, 2, 3, 4, frozenset({"drop"}), 64, 1, 64)
BYTES = Counting.PACKETS | Counting.BYTES


@pytest.mark.parametrize(
    ("wanted", "choices"),
    [
        (NOTHING, [NOTHING]),
        (Work(Counting.PACKETS), [Work(Counting.PACKETS)]),
        (Work(BYTES), [Work(BYTES), Work(Counting.PACKETS)]),
        (Work(Counting.OFF, READER), [Work(Counting.OFF, READER), NOTHING]),
        (
            Work(BYTES, READER),
            [
                Work(BYTES, READER),
                Work(BYTES),
                Work(Counting.PACKETS, READER),
                Work(Counting.PACKETS),
                Work(Counting.OFF, READER),
                NOTHING,
            ],
        ),
    ],
)
def test_counting_goes_before_reporting_and_packets_before_bytes(
    wanted: Work, choices: list[Work]
) -> None:
    assert list(wanted.choices()) == choices


def test_what_is_done_has_words() -> None:
    assert not NOTHING
    assert Work(Counting.PACKETS)
    assert Work(reader=READER)
    assert (Work(Counting.PACKETS).verb, Work(reader=READER).verb) == ("counted", "reported")
    assert Work(BYTES).what("fw") == "count what fw returns"
    assert Work(BYTES, READER).what("fw") == "report what fw returns"
    assert (Work(BYTES).ring, Work(BYTES, READER).ring) == (0, READER.ring)
