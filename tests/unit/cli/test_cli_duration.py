# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xdpkit.cli.duration import format_duration, parse_duration
from xdpkit.errors import UsageError

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@given(st.integers(0, 10**9), st.sampled_from(sorted(UNITS)))
def test_a_number_and_a_unit_are_a_duration(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * UNITS[unit]


@given(st.text().filter(lambda text: not text.endswith(tuple(UNITS))))
@example("60")
@example("s")
@example("-1s")
@example("1 s")
@example("1e3s")
@example("٣s")
@example("1s\n")
@example("nanms")
def test_any_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="it takes a number and a unit") as refused:
        parse_duration(text)
    assert refused.value.remedy == "as in: 500ms, 60s, 5m, 1.5h"


@given(st.floats(0, 10**6))
def test_a_duration_is_shown_to_the_second_or_the_minute(seconds: float) -> None:
    words = format_duration(seconds).split()
    scale = {"s": 1, "min": 60, "h": 3600}
    shown = sum(
        int(number) * scale[unit] for number, unit in zip(words[::2], words[1::2], strict=True)
    )
    assert abs(shown - seconds) <= (60 if "h" in words else 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (43, "43 s"),
        (60, "1 min"),
        (65, "1 min 5 s"),
        (3725, "1 h 2 min"),
        (7200, "2 h"),
    ],
)
def test_a_duration_for_people_leaves_out_what_is_zero(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
