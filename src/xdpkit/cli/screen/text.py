# SPDX-License-Identifier: Apache-2.0
"""Styled text for a screen: cut to width, numbers in few characters, sparklines."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdpkit.cli.render import printable, scaled


class Style(enum.Enum):
    """What a piece of text is, which decides how it looks.

    Attributes:
        PLAIN: nothing special. STRONG: a title. HEADING: above a column. FAINT: less important.
        ALARM: goes wrong now. PAST: went wrong. GOOD: a state that is as it should be.
    """

    PLAIN = enum.auto()
    STRONG = enum.auto()
    HEADING = enum.auto()
    FAINT = enum.auto()
    ALARM = enum.auto()
    PAST = enum.auto()
    GOOD = enum.auto()


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text of one style."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen; ``is_selected``: the one that keys work on."""

    spans: tuple[Span, ...] = ()
    is_selected: bool = False

    @property
    def text(self) -> str:
        """The line without its styles."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that a terminal can show.

    Attributes:
        bars: of a sparkline; the first one is for nothing at all.
        dash: what is not known. ellipsis: what was cut off.
        is_ascii: whether all other text is to be ASCII, too.
    """

    bars: str
    dash: str
    ellipsis: str
    is_ascii: bool = False

    def clean(self, text: str) -> str:
        """Return a text that the terminal can show, and that does nothing to it."""
        text = printable(text)
        if not self.is_ascii or text.isascii():
            return text
        for own, plain in _REPLACED.items():
            text = text.replace(own, plain)
        return text.encode("ascii", "backslashreplace").decode("ascii")


UNICODE = Glyphs("▁▂▃▄▅▆▇█", "–", "…")
ASCII = Glyphs("_.:-=+*#", "-", "~", is_ascii=True)

_REPLACED = {"–": "-", "…": "...", "→": "->"}


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: some characters take two, or none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fitted(text: str, width: int, glyphs: Glyphs, *, right: bool = False) -> str:
    """Return a text of exactly this width: cut with an ellipsis, or filled up with blanks.

    Args:
        text: the text. width: how wide it is to be. glyphs: has the ellipsis.
        right: whether it is aligned to the right.
    """
    if width < 1:
        return ""
    if width_of(text) > width:
        while width_of(text) > width - 1:
            text = text[:-1]
        text += glyphs.ellipsis
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def shortened(title: str, width: int, glyphs: Glyphs) -> str:
    """Return the title of an interface that fits: of ``blue/eth0``, the namespace gives way first.

    Other texts, which have no slash, are as they were.
    """
    netns, slash, interface = title.rpartition("/")
    if not slash or width_of(title) <= width:
        return title
    room = max(width - width_of(interface) - 1, 1)
    return f"{fitted(netns, room, glyphs).rstrip()}/{interface}"


def cut(spans: Sequence[Span], width: int, glyphs: Glyphs) -> tuple[Span, ...]:
    """Return what fits into a width of spans that follow one another."""
    kept: list[Span] = []
    for span in spans:
        needed = width_of(span.text)
        if needed > width:
            kept.append(Span(fitted(span.text, width, glyphs), span.style))
            break
        kept.append(span)
        width -= needed
    return tuple(kept)


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text that is to be read; words that are too long are broken."""
    import textwrap

    lines = textwrap.wrap(text, max(width, 1), break_on_hyphens=False) or [""]
    return [part for line in lines for part in _chopped(line, width)]


def _chopped(text: str, width: int) -> Iterator[str]:
    """Yield the parts of a line whose characters take more columns than one."""
    if width_of(text) > width:
        from rich.cells import chop_cells

        yield from chop_cells(text, max(width, 2))
    else:
        yield text


def short(number: float | None, glyphs: Glyphs) -> str:
    """Return a number in at most 6 characters: "0.2", "48", "14.9 M"."""
    if number is None:
        return glyphs.dash
    if 0 < number < 0.05:
        return "<0.1"
    if number < 9.95:
        return f"{number:.1f}".removesuffix(".0")
    number, prefix = scaled(number)
    digits = f"{number:.0f}" if number >= 99.95 or not prefix else f"{number:.1f}"
    return f"{digits} {prefix}".rstrip()


def spark(values: Sequence[float | None], glyphs: Glyphs) -> str:
    """Return a sparkline: its highest bar is the highest value, blanks are for what is not known.

    Whatever is more than nothing is higher than nothing: one lost packet is to be seen.
    """
    highest = max((value for value in values if value is not None), default=0.0)
    steps = len(glyphs.bars) - 1
    text = ""
    for value in values:
        if value is None:
            text += " "
        elif value <= 0:
            text += glyphs.bars[0]
        else:
            text += glyphs.bars[max(1, round(value / highest * steps))]
    return text
