# SPDX-License-Identifier: Apache-2.0
"""Text and JSON out: tables that fit the terminal, names that cannot harm it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from xdpkit.errors import printable as printable

SCHEMA = 1
"""Version of the JSON output: it rises when a key goes or changes its meaning."""

_GAP = "  "
# Words that are longer than this may be broken.
_MAX_WORD = 24
_NOTHING = "–"
_PREFIXES = ("", "k", "M", "G", "T")

BLANK = " "
"""A cell to stay empty: an empty text is shown as a dash, as for what is not known."""


def message(text: str) -> None:
    """Print a message for a person, to standard error."""
    complain(f"xdpkit: {printable(text, keep=chr(10))}")


def complain(text: str) -> None:
    """Print a text to standard error; where that takes nothing, nobody can be told."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def emit_json(data: Mapping[str, object], *, pretty: bool) -> None:
    """Print a JSON document with its schema number, to standard output."""
    import json

    click.echo(json.dumps({"schema": SCHEMA, **data}, indent=2 if pretty else None))


def emit(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    for line in lines:
        click.echo(line)


def width() -> int | None:
    """Return the columns of the terminal, None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: what stands above it.
        right: whether it is aligned to the right, as numbers are.
        wraps: whether its cells may take several lines where the terminal is narrow.
    """

    title: str
    right: bool = False
    wraps: bool = False


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    width: int | None = None,
    indent: str = "",
) -> Iterator[str]:
    """Yield the lines of a table. A column that is empty or blank in all rows is left out.

    Columns that wrap are made narrower where the table is wider than the terminal; one that does
    not fit all the same is as wide as it is.

    Args:
        columns: the columns.
        rows: one cell for each column; an empty one is shown as a dash.
        width: columns of the terminal, None: as wide as it gets.
        indent: what each line begins with.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    used = [at for at in range(len(columns)) if any(row[at].strip() for row in cells)]
    if not used:
        return
    columns = [columns[at] for at in used]
    lines = [[column.title for column in columns]]
    lines += [[row[at] or _NOTHING for at in used] for row in cells]
    widths = [max(len(row[at]) for row in lines) for at in range(len(columns))]
    if width is not None:
        widths = _squeezed(columns, lines, widths, width - len(indent))
    for row in lines:
        yield from _lines(columns, row, widths, indent)


def _squeezed(
    columns: Sequence[Column], lines: Sequence[Sequence[str]], widths: Sequence[int], width: int
) -> list[int]:
    """Return the widths with columns that wrap made narrower, the widest first, until all fit."""
    squeezed = list(widths)
    least = [
        min(_MAX_WORD, max(len(word) for row in lines for word in row[at].split()))
        if column.wraps
        else widths[at]
        for at, column in enumerate(columns)
    ]
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(squeezed) > room:
        wide = [at for at in range(len(columns)) if squeezed[at] > least[at]]
        if not wide:
            break
        squeezed[max(wide, key=squeezed.__getitem__)] -= 1
    return squeezed


def _lines(
    columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], indent: str
) -> Iterator[str]:
    wrapped = [
        textwrap.wrap(cell, widths[at], break_on_hyphens=False)
        if len(cell) > widths[at]
        else [cell]
        for at, cell in enumerate(row)
    ]
    for number in range(max(map(len, wrapped))):
        parts = []
        for at, column in enumerate(columns):
            text = wrapped[at][number] if number < len(wrapped[at]) else ""
            parts.append(text.rjust(widths[at]) if column.right else text.ljust(widths[at]))
        yield f"{indent}{_GAP.join(parts)}".rstrip()


def scaled(number: float) -> tuple[float, str]:
    """Return a number below 1,000 and its prefix: 14.9 and "M"; beyond tera, it is what it is."""
    for prefix in _PREFIXES:
        # What would be rounded up to a thousand is one of the next.
        if number < 999.5 or prefix == _PREFIXES[-1]:
            break
        number /= 1000
    return number, prefix


def counted(number: int, noun: str) -> str:
    """Return "1 map", "2 maps"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
