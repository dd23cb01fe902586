# SPDX-License-Identifier: Apache-2.0
"""Why a packet was lost, in words: the likely cause, and a remedy where one is sure.

``data/redirect_errors.json`` has what the errnos and actions of the kernel's tracepoints stand for;
every entry names its source. The phrases follow a colon well.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpkit.monitor.model import Reason

PATH = Path(__file__).parent.parent / "data" / "redirect_errors.json"

UNKNOWN = "cause unknown"


@dataclass(frozen=True, slots=True)
class Why:
    """Why a packet was lost.

    Attributes:
        cause: the likely cause, as a phrase.
        remedy: what helps, as a phrase; None where nothing is sure to.
    """

    cause: str
    remedy: str | None = None

    def __str__(self) -> str:
        """Return both as one phrase."""
        return f"{self.cause}. Remedy: {self.remedy}" if self.remedy else self.cause


def why_redirect(error: str, kind: str) -> Why:
    """Return why a packet could not be redirected.

    Args:
        error: the errno's name.
        kind: what it was to go to, see :class:`xdpkit.monitor.model.Target`.

    Where this kind of target is not known to fail so, all that the errno can mean is said.
    """
    meanings = [entry for entry in _catalogue()["redirect"] if entry["error"] == error]
    own = [entry for entry in meanings if kind in entry["kinds"]]
    return _said(own or meanings)


def why_transmit(error: str) -> Why:
    """Return why an interface did not take redirected frames.

    Args:
        error: the errno's name; "" if only some of a bulk were not taken.
    """
    return _said(entry for entry in _catalogue()["transmit"] if entry["error"] == error)


def why_exception(action: str, reason: Reason, returned: int) -> Why:
    """Return why a driver lost a packet after the program had run.

    Args:
        action: a name of :data:`xdpkit.rewrite.COUNTED`. reason: why it was lost.
        returned: what the program returned, as a number.
    """
    said = _said(
        entry
        for entry in _catalogue()["exception"]
        if entry["reason"] == reason.value and action in entry["actions"]
    )
    return Why(said.cause.replace("{returned}", returned_number(returned)), said.remedy)


def returned_number(returned: int) -> str:
    """Return a returned value as people wrote it: a large one was a negative int."""
    number = returned & 0xFFFFFFFF
    negative = number - (1 << 32)
    return f"{number} ({negative})" if number >> 31 else str(number)


def _said(entries: Iterable[Mapping[str, Any]]) -> Why:
    found = list(entries)
    if not found:
        return Why(UNKNOWN)
    # With more than one cause, no remedy is sure.
    remedy = found[0]["remedy"] if len(found) == 1 else None
    return Why("; or ".join(entry["says"] for entry in found), remedy)


@functools.cache
def _catalogue() -> Mapping[str, list[Mapping[str, Any]]]:
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content
