# SPDX-License-Identifier: Apache-2.0
"""Keys of the screen: from what a terminal sends to what the user looks at."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from xdpkit.cli.screen.keys import names_of
from xdpkit.cli.screen.state import Kind, Page, Selectable, Sort, State, press, selected
from xdpkit.cli.screen.tables import Row


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        (b"qjk?", ["q", "j", "k", "?"]),
        (b"\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F", ["page-up", "page-down", "home", "end"]),
        (
            b"\r\n\x7f\x08\t\x03\x1a",
            ["enter"] * 2 + ["backspace"] * 2 + ["tab", "ctrl-c", "ctrl-z"],
        ),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        # Keys that have no name here: Ctrl with an arrow, F5, a letter beyond ASCII.
        (b"\x1b[1;5C\x1b[15~\xc3\xa9q", ["q"]),
        (b"", []),
    ],
)
def test_what_a_terminal_sends_are_keys(sent: bytes, names: list[str]) -> None:
    assert names_of(sent, is_all=True) == (names, b"")


def test_a_key_may_come_in_pieces() -> None:
    keys: list[str] = []
    left = b""
    for piece in (b"j\x1b", b"[", b"6", b"~k"):
        names, left = names_of(left + piece, is_all=False)
        keys += names
    assert (keys, left) == (["j", "page-down", "k"], b"")


def test_a_sequence_that_does_not_end_becomes_the_keys_it_is_made_of() -> None:
    assert names_of(b"\x1b[", is_all=True) == (["escape", "["], b"")


@dataclass(frozen=True)
class Tables:
    rows: tuple[Selectable, ...]
    starts: tuple[int, ...] = ()


INTERFACE = Page(Kind.INTERFACE, "a")
TABLES = Tables(
    (*(Row(name, (name,), opens=INTERFACE) for name in "abcde"), Row("f", ("f",))), (0, 3)
)


def after(*keys: str, tables: Tables = TABLES) -> State:
    state = State()
    for key in keys:
        state = press(state, key, tables, step=2)
    return state


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ((), "a"),
        (("down",), "b"),
        (("j", "j", "k"), "b"),
        (("up",), "a"),
        (("end",), "f"),
        (("G", "down"), "f"),
        (("page-down",), "c"),
        (("end", "page-up"), "d"),
        (("end", "home"), "a"),
        (("tab",), "d"),
        (("tab", "tab"), "a"),
        (("x", "\x00"), "a"),
    ],
)
def test_the_selection_moves_and_stops_at_the_ends(keys: tuple[str, ...], name: str) -> None:
    assert TABLES.rows[selected(after(*keys).page, TABLES.rows)].key == name


def test_the_selection_follows_its_row_when_the_order_changes() -> None:
    page = after("down").page
    turned = TABLES.rows[::-1]
    assert turned[selected(page, turned)].key == "b"


def test_the_selection_stays_where_it_was_when_its_row_goes() -> None:
    page = after("down", "down").page
    left = [row for row in TABLES.rows if row.key != "c"]
    assert left[selected(page, left)].key == "d"
    assert selected(after("end").page, TABLES.rows[:2]) == 1
    assert selected(after("end").page, ()) == 0


def test_enter_opens_a_row_and_backspace_leads_back_to_it() -> None:
    opened = after("down", "enter")
    assert opened.page == INTERFACE
    for key in ("backspace", "escape", "left"):
        back = press(opened, key, Tables(()))
        assert back.page.kind is Kind.OVERVIEW
        assert TABLES.rows[selected(back.page, TABLES.rows)].key == "b"


def test_the_first_page_stays_and_what_cannot_be_opened_is_not() -> None:
    assert after("backspace") == State()
    assert after("end", "enter").page.kind is Kind.OVERVIEW
    assert after("enter", "down", tables=Tables(())) == State()


def test_s_goes_through_the_orders() -> None:
    orders = [after(*["s"] * times).sort for times in range(4)]
    assert orders == [Sort.BUSIEST, Sort.ERRORS, Sort.NAME, Sort.BUSIEST]


def test_t_p_and_questionmark_switch_on_and_off() -> None:
    assert after("t").shows_totals
    assert not after("t", "t").shows_totals
    assert after("p").is_paused
    assert not after("p", " ").is_paused
    assert after("?").is_helping
    # Any key leads back, and does nothing else.
    assert after("?", "t") == State()


@pytest.mark.parametrize("keys", [("q",), ("ctrl-c",), ("?", "q")])
def test_q_and_ctrl_c_end_it(keys: tuple[str, ...]) -> None:
    assert after(*keys).is_over
