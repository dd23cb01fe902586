# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.cli.render import Column, printable, table
from xdpkit.cli.values import format_value, plain

TWO = [Column("name"), Column("packets", right=True)]


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_what_is_to_be_kept_is_kept() -> None:
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_direction_overrides_are_escaped_too() -> None:
    assert printable("eth0\u202e") == "eth0\\u202e"


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    assert list(table(TWO, [["eth0", "7"], ["a-long-name", "1,000"]], indent="  ")) == [
        "  name         packets",
        "  eth0               7",
        "  a-long-name    1,000",
    ]


def test_a_column_without_contents_is_left_out() -> None:
    columns = [*TWO, Column("flags")]
    assert list(table(columns, [["a", "1", ""]])) == ["name  packets", "a           1"]


def test_an_empty_cell_is_a_dash() -> None:
    assert list(table(TWO, [["a", ""], ["", "2"]])) == [
        "name  packets",
        "a           –",
        "–           2",
    ]


def test_a_table_without_rows_has_no_lines_to_show() -> None:
    assert "".join(table(TWO, [])) == ""


def test_columns_that_wrap_give_way_until_the_table_fits() -> None:
    columns = [Column("name"), Column("maps", wraps=True)]
    lines = list(table(columns, [["firewall", "hits queues flows settings ports"]], width=30))
    assert lines == [
        "name      maps",
        "firewall  hits queues flows",
        "          settings ports",
    ]


def test_a_table_that_cannot_fit_is_not_torn() -> None:
    lines = list(table(TWO, [["a" * 40, "1"]], width=20))
    assert lines[1] == f"{'a' * 40}        1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (53, "53"),
        (True, "true"),
        (b"edge\0\0", '"edge"'),
        (b"\0\0", '""'),
        (b"a\0b", "61 00 62"),
        (b"\xff\xfe", "ff fe"),
        (b"\x1b[1m\0", '"\\x1b[1m"'),
        ([1, 2], "{1, 2}"),
        ({"low": 1, "label": b"x"}, '{low = 1, label = "x"}'),
    ],
)
def test_values_are_written_as_in_c(value: object, text: str) -> None:
    assert format_value(value) == text


def test_a_long_value_is_cut_short() -> None:
    text = format_value([0] * 1_000_000)
    assert len(text) == 64
    assert text.startswith("{0, 0, ")
    assert text.endswith("…")


def test_values_in_json_have_one_shape_for_one_type() -> None:
    assert plain({"a": [b"ab\0", b"\xff"], "b": float("inf"), "c": 1 << 64}) == {
        "a": [{"hex": "616200", "text": "ab"}, {"hex": "ff", "text": None}],
        "b": "inf",
        "c": 1 << 64,
    }
