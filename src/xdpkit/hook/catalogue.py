# SPDX-License-Identifier: Apache-2.0
"""What the kernel and its drivers say when they refuse a program: the shipped catalogue, read.

``data/refusals.json`` has the texts of net/core/dev.c and of the drivers, the errno that comes with
each, and the cause that it stands for; a cause is put into words once, however many drivers have
it. Every entry names its source.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpkit.capabilities import Kernel, Release

PATH = Path(__file__).parent.parent / "data" / "refusals.json"

# include/linux/netlink.h: NETLINK_MAX_FMTMSG_LEN is 80, with the NUL. Only formatted texts are cut.
_LONGEST_FORMATTED = 79

_PLACEHOLDER = re.compile(r"(%l?[diu])")
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a program is refused, in words.

    Attributes:
        name: short, for the catalogue and its documentation ("peer-mtu").
        says: the words, the most telling first; they have ``{placeholders}``, and the first whose
            placeholders are all known is said.
        remedies: what helps, each by itself, and each in as many wordings.
    """

    name: str
    says: tuple[str, ...]
    remedies: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One text of the kernel, or an errno that comes without a text.

    Attributes:
        cause: what it stands for.
        text: the format string, without "DRIVER: " before it; None: nothing is said.
        errno: its name; None: it varies, or there is none because nothing is refused.
        driver: whose it is, by the name in the table of drivers; None: the kernel's own.
        numbers: what the numbers in the text are, in order; empty: of no use.
        is_logged: the text goes to the kernel log only.
        is_below: it is about a device below the interface (a bond's, a hv_netvsc's).
        is_certain: the errno says it even without the text.
        verbs, modes: when it can happen to xdpkit; empty: only others provoke it.
        via: "link" or "netlink"; None: both.
        since, until: the first and the last release that was found to have it; None: not known.
        source: the kernel's file.
    """

    cause: Cause
    text: str | None
    errno: str | None
    driver: str | None
    numbers: tuple[str, ...]
    is_logged: bool
    is_below: bool
    is_certain: bool
    verbs: tuple[str, ...]
    modes: tuple[str, ...]
    via: str | None
    since: Release | None
    until: Release | None
    source: str

    def is_in(self, kernel: Kernel | None) -> bool:
        """Whether a kernel can refuse so, as far as its release tells; None: not known."""
        if kernel is None or kernel.release is None or kernel.backports:
            return True
        # A driver refused long before it said why.
        first = self.since if self.driver is None else None
        return (first or (0, 0)) <= kernel.release <= (self.until or kernel.release)

    def is_audible(self, kernel: Kernel | None) -> bool:
        """Whether it did not happen where texts are heard and this one was not.

        A formatted text is not heard when a link is updated: bpf_xdp_link_update() in
        net/core/dev.c gives it no place.
        """
        if self.text is None or self.is_certain or self.is_logged:
            return False
        is_older = kernel is not None and self.since is not None and not kernel.has(self.since)
        return not is_older and _PLACEHOLDER.search(self.text) is None

    def read(self, said: str, *, is_cut: bool = False) -> Mapping[str, int] | None:
        """Return the numbers in a text, by name; None if it is another text.

        Args:
            said: the text. is_cut: its end may be missing.
        """
        if self.text is None:
            return None
        found = _numbers(self.text, said, is_cut=is_cut)
        return dict(zip(self.numbers, found, strict=False)) if found is not None else None


def find(said: str, driver: str | None) -> tuple[Refusal, Mapping[str, int]] | None:
    """Return what a text of the kernel is, and the numbers in it.

    Drivers share texts. The interface's own driver comes first, then the kernel, then the others.

    Args:
        said: the text, with or without "DRIVER: " before it.
        driver: by its name in the table of drivers.
    """
    is_cut = len(said) == _LONGEST_FORMATTED
    for text in _without_prefixes(said):
        found = [
            (refusal, numbers)
            for refusal in refusals()
            if (numbers := refusal.read(text, is_cut=is_cut)) is not None
        ]
        if found:
            own_first = {driver: 0, None: 1}
            return min(found, key=lambda one: own_first.get(one[0].driver, 2))
    return None


@functools.cache
def refusals() -> tuple[Refusal, ...]:
    """Return the whole catalogue: the kernel's own, then the drivers'."""
    content: dict[str, Any] = json.loads(PATH.read_text())
    causes = {
        name: Cause(name, tuple(entry["says"]), tuple(map(tuple, entry["remedies"])))
        for name, entry in content["causes"].items()
    }
    return tuple(_refusal(entry, causes) for entry in content["refusals"])


def _refusal(entry: Mapping[str, Any], causes: Mapping[str, Cause]) -> Refusal:
    return Refusal(
        cause=causes[entry["cause"]],
        text=entry.get("text"),
        errno=entry.get("errno"),
        driver=entry.get("driver"),
        numbers=tuple(entry.get("numbers", ())),
        is_logged=entry.get("log", False),
        is_below=entry.get("below", False),
        is_certain=entry.get("certain", False),
        verbs=tuple(entry.get("verbs", ("attach", "replace"))),
        modes=tuple(entry.get("modes", ("native", "generic", "offload"))),
        via=entry.get("via"),
        since=_release(entry.get("since")),
        until=_release(entry.get("until")),
        source=entry["source"],
    )


def _release(written: str | None) -> Release | None:
    if written is None:
        return None
    major, minor = written.split(".")
    return int(major), int(minor)


def _without_prefixes(said: str) -> Iterator[str]:
    """Yield a text, and what is left of it behind each ": "."""
    yield said
    while ": " in said:
        said = said.partition(": ")[2]
        yield said


def _numbers(template: str, said: str, *, is_cut: bool) -> tuple[int, ...] | None:
    """Return the numbers that a text has where a format string has placeholders.

    Of a text that was cut off, those before the cut; None if it is another text.
    """
    numbers: list[int] = []
    rest = said
    for at, piece in enumerate(_PLACEHOLDER.split(template)):
        if at % 2:
            digits = _NUMBER.match(rest)
            if digits is None:
                return tuple(numbers) if is_cut and not rest else None
            rest = rest[digits.end() :]
            # The last digits of a number at the cut may be missing.
            if rest or not is_cut:
                numbers.append(int(digits[0]))
        elif rest.startswith(piece):
            rest = rest[len(piece) :]
        else:
            return tuple(numbers) if is_cut and at and piece.startswith(rest) else None
    return tuple(numbers) if not rest else None
