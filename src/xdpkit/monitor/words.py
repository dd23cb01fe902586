# SPDX-License-Identifier: Apache-2.0
"""Why a packet was lost, in words: the likely cause, and a remedy where one is sure.

``data/redirect_errors.json`` has what the errnos and actions of the kernel's tracepoints stand for;
every entry names its source. What is returned are phrases that follow a colon well.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xdpkit.monitor.model import Reason

PATH = Path(__file__).parent.parent / "data" / "redirect_errors.json"

UNKNOWN = "cause unknown"


def explain_redirect(error: str, kind: str) -> str:
    """Return why a packet could not be redirected.

    Args:
        error: the errno's name.
        kind: what it was to go to, see :class:`xdpkit.monitor.model.Target`.

    Where this kind of target is not known to fail so, all that the errno can mean is said.
    """
    meanings = [entry for entry in _catalogue()["redirect"] if entry["error"] == error]
    own = [entry for entry in meanings if kind in entry["kinds"]]
    return _said(own or meanings)


def explain_transmit(error: str) -> str:
    """Return why an interface did not take redirected frames.

    Args:
        error: the errno's name; "" if only some of a bulk were not taken.
    """
    return _said(entry for entry in _catalogue()["transmit"] if entry["error"] == error)


def explain_exception(action: str, reason: Reason, returned: int) -> str:
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
    return said.replace("{returned}", _number(returned))


def _number(returned: int) -> str:
    """Return a returned value as people wrote it: a large one was a negative int."""
    number = returned & 0xFFFFFFFF
    negative = number - (1 << 32)
    return f"{number} ({negative})" if number >> 31 else str(number)


def _said(entries: Iterable[Mapping[str, Any]]) -> str:
    found = list(entries)
    if not found:
        return UNKNOWN
    causes = "; or ".join(entry["says"] for entry in found)
    # With more than one cause, no remedy is sure.
    remedy = found[0]["remedy"] if len(found) == 1 else None
    return f"{causes}. Remedy: {remedy}" if remedy else causes


@functools.cache
def _catalogue() -> Mapping[str, list[Mapping[str, Any]]]:
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content
