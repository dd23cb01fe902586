# SPDX-License-Identifier: Apache-2.0
"""A complaint, as a value."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

_MOST = 4
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))


class Severity(enum.StrEnum):
    """How bad it is.

    Attributes:
        ERROR: packets got lost that should not, or programs do not do what they are for.
        WARNING: that can come, or something is not as it should be.
        NOTE: somebody should know.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is wrong, or that somebody should know.

    Attributes:
        severity: how bad it is.
        kind: a stable word for it, for scripts: "invalid-action".
        what: what is wrong, as a sentence.
        interface: where, "" for the whole host. program: its name, "" where it is no program's.
        cause: why, as a sentence; None: not known.
        remedy: what helps, where that is sure.
        evidence: numbers, and lines of source.
        packets: how many it is about; 0 where it is about none.
        last_seen: when it happened last; None: not known.
    """

    severity: Severity
    kind: str
    what: str
    interface: str = ""
    program: str = ""
    cause: str | None = None
    remedy: str | None = None
    evidence: tuple[str, ...] = ()
    packets: int = 0
    last_seen: datetime | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "severity": self.severity.value,
            "kind": self.kind,
            "interface": self.interface or None,
            "program": self.program or None,
            "what": self.what,
            "cause": self.cause,
            "remedy": self.remedy,
            "evidence": list(self.evidence),
            "packets": self.packets,
            "last_seen": self.last_seen.isoformat() if self.last_seen is not None else None,
        }


_ORDER = tuple(Severity)


def worst_first(complaints: Iterable[Complaint]) -> tuple[Complaint, ...]:
    """Return complaints in order: the worst first, then those about most packets.

    Others are in the order of interfaces, those of the whole host last; else as they came.
    """
    return tuple(
        sorted(
            complaints,
            key=lambda each: (
                _ORDER.index(each.severity),
                -each.packets,
                not each.interface,
                each.interface,
            ),
        )
    )


def packets(number: int) -> str:
    """Return "1 packet", "2,000 packets"."""
    return f"{number:,} packet{'' if number == 1 else 's'}"


def lost(number: int, how: str = "lost") -> str:
    """Return "1 packet was lost", "2 packets were lost"."""
    return f"{packets(number)} {'was' if number == 1 else 'were'} {how}"


def first(items: Iterable[str], *, most: int = _MOST) -> tuple[str, ...]:
    """Return items, each once and not too many: "a", "b", "and 3 more"."""
    found = tuple(dict.fromkeys(items))
    rest = (f"and {len(found) - most:,} more",) if len(found) > most else ()
    return found[:most] + rest


def listed(items: Iterable[str], *, most: int = _MOST, between: str = "; ") -> str:
    """Return items in a row, each once and not too many: "a; b; and 3 more"."""
    return between.join(first(items, most=most))


def ago(seconds: float) -> str:
    """Return how long ago something was, roughly: "20 s ago", "3 h ago"."""
    for size, unit in _UNITS:
        number = int(seconds // size)
        if number > 0:
            return f"{number:,} {'day' if (number, unit) == (1, 'days') else unit} ago"
    return "just now"
