# SPDX-License-Identifier: Apache-2.0
"""Text of the screen: widths, numbers, sparklines, and what a terminal is sent."""

from __future__ import annotations

import pytest

from xdpkit.cli.screen.tables import Column, Row, Trend, cells, heading, lay_out
from xdpkit.cli.screen.terminal import encoded, glyphs_for
from xdpkit.cli.screen.text import (
    ASCII,
    UNICODE,
    Glyphs,
    Line,
    Span,
    Style,
    cut,
    fitted,
    short,
    shortened,
    spark,
    width_of,
    wrapped,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.01, "<0.1"),
        (0.25, "0.2"),
        (1, "1"),
        (9.94, "9.9"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.0 k"),
        (14_880_952, "14.9 M"),
        (99_940_000, "99.9 M"),
        (99_960_000, "100 M"),
        (1.2e10, "12.0 G"),
    ],
)
def test_numbers_take_few_characters(number: float | None, text: str) -> None:
    assert short(number, UNICODE) == text
    assert len(text) <= 6


def test_a_sparkline_is_as_high_as_its_highest_value() -> None:
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], UNICODE) == "▁▂▃▄▅▆▇█"
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], ASCII) == "_.:-=+*#"
    assert spark([5, 5], UNICODE) == "██"
    assert spark([0, 0], UNICODE) == "▁▁"
    assert spark([], UNICODE) == ""


def test_a_sparkline_shows_the_least_that_happened_and_what_is_not_known() -> None:
    assert spark([0, 0.001, 1_000_000, None], UNICODE) == "▁▂█ "


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 4, "abc…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日… "),
        ("cafe\u0301 noir", 6, "cafe\u0301 …"),
        ("abc", 0, ""),
    ],
)
def test_texts_are_cut_to_width(text: str, width: int, shown: str) -> None:
    assert fitted(text, width, UNICODE) == shown
    assert width_of(shown) == width


def test_numbers_are_aligned_to_the_right() -> None:
    assert fitted("42", 5, UNICODE, right=True) == "   42"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (21, "net:[4026531840]/eth0"),
        (20, "net:[402653184…/eth0"),
        (8, "ne…/eth0"),
        (6, "…/eth0"),
        (5, "…/eth0"),
    ],
)
def test_of_an_interface_in_another_namespace_the_namespace_is_cut_first(
    width: int, shown: str
) -> None:
    assert shortened("net:[4026531840]/eth0", width, UNICODE) == shown


def test_names_without_a_namespace_are_not_shortened() -> None:
    assert shortened("a-long-name", 4, UNICODE) == "a-long-name"
    assert shortened("日本語/cafe\u0301", 9, UNICODE) == "日…/cafe\u0301"


def test_spans_are_cut_to_width_together() -> None:
    spans = Span("abc", Style.STRONG), Span("def"), Span("ghi")
    assert cut(spans, 5, ASCII) == (Span("abc", Style.STRONG), Span("d~"))
    assert cut(spans, 9, ASCII) == spans


def test_texts_to_be_read_are_wrapped() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("", 7) == [""]
    assert wrapped("abcdefgh", 7) == ["abcdefg", "h"]
    assert wrapped("日本語日本語", 7) == ["日本語", "日本語"]


def test_what_a_terminal_might_obey_or_not_show_is_escaped() -> None:
    assert UNICODE.clean("a\x1b[2J–é") == "a\\x1b[2J–é"
    assert ASCII.clean("a\x1b[2J–é → …") == "a\\x1b[2J-\\xe9 -> ..."


COLUMNS = (
    Column("name", right=False, gives_way=6),
    Column("number", 8),
    Column("last", priority=1, right=False),
    Column("more", 6, priority=2),
)
ROWS = (Row(1, ("a-long-name", "12", Trend(lambda slots: [1] * slots), "x")),)


def row(width: int) -> str:
    widths = lay_out(COLUMNS, ROWS, width)
    text = "".join(span.text for span in cells(ROWS[0], COLUMNS, widths, UNICODE))
    title = "".join(span.text for span in heading(COLUMNS, widths, UNICODE))
    assert width_of(title) == width_of(text)
    return text


def test_columns_that_matter_less_are_left_out_first() -> None:
    assert row(39) == "a-long-name        12  ████████       x"
    assert row(35) == "a-long…        12  ████████       x"
    assert row(28) == "a-long-…        12  ████████"
    assert row(21) == "a-long-name        12"


def test_a_sparkline_gets_the_room_that_is_left_and_no_more_than_it_needs() -> None:
    assert row(60).count("█") == 8 + 60 - 39
    assert row(500).count("█") == 60


def test_a_table_that_does_not_fit_all_the_same_has_its_texts_cut() -> None:
    assert row(10) == "a-lon…        12"


def test_a_frame_is_sent_in_one_step_and_fills_the_screen() -> None:
    lines = [Line((Span("ab", Style.ALARM), Span("c"))), Line((Span("d"),), is_selected=True)]
    assert encoded(lines, 4, in_colour=True) == (
        "\x1b[?2026h\x1b[H\x1b[1;31mab\x1b[0mc \r\n\x1b[7md\x1b[0m\x1b[7m   \x1b[0m\x1b[?2026l"
    )


def test_without_colours_no_colour_is_sent() -> None:
    line = Line(tuple(Span("x", style) for style in Style))
    sent = encoded([line], len(Style), in_colour=False)
    assert "\x1b[3" not in sent
    assert ";3" not in sent


@pytest.mark.parametrize(
    ("environment", "encoding", "glyphs"),
    [
        ({"LANG": "en_US.UTF-8", "TERM": "xterm"}, "utf-8", UNICODE),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8", "TERM": "xterm"}, "utf-8", ASCII),
        ({"LC_ALL": "", "LC_CTYPE": "C.utf8", "TERM": "xterm"}, "UTF8", UNICODE),
        ({"LANG": "en_US.UTF-8", "TERM": "xterm"}, "iso8859-1", ASCII),
        ({"LANG": "en_US.UTF-8", "TERM": "linux"}, "utf-8", ASCII),
        ({"TERM": "xterm"}, "utf-8", ASCII),
    ],
)
def test_unicode_is_sent_where_the_terminal_shows_it(
    environment: dict[str, str], encoding: str, glyphs: Glyphs
) -> None:
    assert glyphs_for(environment, encoding) == glyphs
