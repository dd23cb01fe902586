# SPDX-License-Identifier: Apache-2.0
"""What the user looks at, and what keys do to that: values only."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


class Sort(enum.Enum):
    """What rows are sorted by: packets or errors of the last minute, or names."""

    BUSIEST = "busiest"
    ERRORS = "errors"
    NAME = "name"


class Kind(enum.Enum):
    """What a page is about."""

    OVERVIEW = enum.auto()
    INTERFACE = enum.auto()
    PROGRAM = enum.auto()
    QUEUE = enum.auto()
    TROUBLE = enum.auto()
    NOTE = enum.auto()


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and the row on it that is selected.

    Attributes:
        kind: what it is about.
        subject: which one of these.
        selected: the key of the selected row, None for the first one.
        at: where that row was last; the selection stays there when the row goes.
    """

    kind: Kind
    subject: Hashable = None
    selected: Hashable = None
    at: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What the user looks at.

    Attributes:
        pages: the page that is shown is the last one; backspace leads to those before.
        sort: what rows are sorted by.
        shows_totals: whether tables have totals instead of rates.
        is_paused: whether the numbers stand still.
        is_helping: whether the keys are explained.
        is_over: whether the user has seen enough.
    """

    pages: tuple[Page, ...] = (Page(Kind.OVERVIEW),)
    sort: Sort = Sort.BUSIEST
    shows_totals: bool = False
    is_paused: bool = False
    is_helping: bool = False
    is_over: bool = False

    @property
    def page(self) -> Page:
        """The page that is shown."""
        return self.pages[-1]


class Selectable(Protocol):
    """A row that can be selected, as :class:`xdpkit.cli.screen.tables.Row`."""

    @property
    def key(self) -> Hashable: ...

    @property
    def opens(self) -> object | None: ...


class Tables(Protocol):
    """What a page consists of, as :class:`xdpkit.cli.screen.pages.Content`."""

    @property
    def rows(self) -> Sequence[Selectable]: ...

    @property
    def starts(self) -> Sequence[int]: ...


def selected(page: Page, rows: Sequence[Selectable]) -> int:
    """Return the number of the selected row; 0 if there are no rows."""
    for number, row in enumerate(rows):
        if row.key == page.selected:
            return number
    at = page.at if page.selected is not None else 0
    return max(min(at, len(rows) - 1), 0)


def press(state: State, key: str, tables: Tables, *, step: int = 10) -> State:
    """Return what the user looks at after a key; unknown keys do nothing.

    Args:
        state: what it was before.
        key: a name of a key, as :mod:`xdpkit.cli.screen.keys` has them.
        tables: those of the page that is shown.
        step: how many rows a page key moves by.
    """
    if key in ("q", "ctrl-c"):
        return replace(state, is_over=True)
    if state.is_helping:
        return replace(state, is_helping=False)
    match key:
        case "?" | "h" | "f1":
            return replace(state, is_helping=True)
        case "s":
            order = list(Sort)
            following = order[(order.index(state.sort) + 1) % len(order)]
            return replace(state, sort=following)
        case "t":
            return replace(state, shows_totals=not state.shows_totals)
        case "p" | " ":
            return replace(state, is_paused=not state.is_paused)
        case "backspace" | "escape" | "left":
            return replace(state, pages=state.pages[:-1] or state.pages)
        case "enter" | "right":
            return _opened(state, tables.rows)
    return _moved(state, key, tables, step)


def _opened(state: State, rows: Sequence[Selectable]) -> State:
    if not rows:
        return state
    at = selected(state.page, rows)
    opens = rows[at].opens
    if not isinstance(opens, Page):
        return state
    here = replace(state.page, selected=rows[at].key, at=at)
    return replace(state, pages=(*state.pages[:-1], here, opens))


def _moved(state: State, key: str, tables: Tables, step: int) -> State:
    rows = tables.rows
    at = selected(state.page, rows)
    moves = {
        "up": at - 1,
        "k": at - 1,
        "down": at + 1,
        "j": at + 1,
        "page-up": at - step,
        "page-down": at + step,
        "home": 0,
        "g": 0,
        "end": len(rows) - 1,
        "G": len(rows) - 1,
        "tab": next((start for start in tables.starts if start > at), 0),
    }
    if key not in moves or not rows:
        return state
    at = max(min(moves[key], len(rows) - 1), 0)
    page = replace(state.page, selected=rows[at].key, at=at)
    return replace(state, pages=(*state.pages[:-1], page))
