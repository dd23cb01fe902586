# SPDX-License-Identifier: Apache-2.0
"""What programs need, as ``inspect`` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xdpkit.cli.render import Column, printable, table, width
from xdpkit.obj import ProgramSpec
from xdpkit.requirements import Requirement, Requirements, needs_of
from xdpkit.uapi.bpf import ProgType

_MOST_PLACES = 3


def needs_of_all(specs: Iterable[ProgramSpec]) -> dict[str, Requirements]:
    """Return what XDP programs need, by name; other programs are not negotiated.

    Raises:
        ObjectFormatError: a program or a declaration is malformed.
    """
    return {spec.name: needs_of(spec) for spec in specs if spec.type == ProgType.XDP}


def list_needs(found: Requirements) -> Iterator[str]:
    """Yield the lines that show what a program needs, and where."""
    yield from ("", printable(f"{found.program} needs"))
    yield from table(
        [Column("capability"), Column("", wraps=True), Column("where", wraps=True)],
        [[need.label, ", ".join(_remarks(need)), _places(need)] for need in found],
        width=width(),
        indent="  ",
    )
    for note in found.notes:
        yield printable(f"  Note: {note}")


def _remarks(need: Requirement) -> Iterator[str]:
    if need.optional:
        yield "optional"
    if need.declared:
        yield "declared"


def _places(need: Requirement) -> str:
    places = list(dict.fromkeys(str(origin) for origin in need.origins))
    shown = ", ".join(places[:_MOST_PLACES])
    more = len(places) - _MOST_PLACES
    return f"{shown} and {more} more" if more > 0 else shown
