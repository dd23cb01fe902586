# SPDX-License-Identifier: Apache-2.0
"""The lines of a program that can return something, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from xdpkit.capabilities import phrase
from xdpkit.monitor.complaints.complaint import listed
from xdpkit.monitor.complaints.facts import Code
from xdpkit.uapi.bpf import XdpAction

if TYPE_CHECKING:
    from xdpkit.analysis import Origin

_LAST = max(XdpAction)


def action_name(number: int) -> str:
    """Return what C calls a return value: "XDP_TX", "42", "4294967295 (-1)"."""
    if number in set(XdpAction):
        return f"XDP_{XdpAction(number).name}"
    return phrase(f"action-code:{number}").removeprefix("may return ")


def is_invalid(number: int) -> bool:
    """Whether a return value is no action."""
    return number > _LAST


def only_value(code: Iterable[Code], wanted: Callable[[int], bool]) -> int | None:
    """Return the only such value that programs can return; None: there are others, or none."""
    values: set[int] = set()
    for each in code:
        if each.analysis is None or each.analysis.actions.unknown:
            return None
        values.update(filter(wanted, each.analysis.actions.origins))
    return values.pop() if len(values) == 1 else None


def returning(code: Iterable[Code], wanted: Callable[[int], bool]) -> tuple[str, ...]:
    """Return which lines can return such a value, in sentences; where that cannot be known, why."""
    programs = list(code)
    several = len(programs) > 1
    return tuple(
        f"{each.name}: {text}" if several else text
        for each in programs
        for text in _of_one(each, wanted)
    )


def _of_one(code: Code, wanted: Callable[[int], bool]) -> Iterator[str]:
    if code.analysis is None:
        yield f"which line it is cannot be told: {code.problem}"
        return
    from xdpkit.analysis import CauseKind

    calls = {each.origin.slot: each for each in code.analysis.redirects}
    for value, origins in sorted(code.analysis.actions.origins.items()):
        for origin in origins if wanted(value) else ():
            redirect = calls.get(origin.slot)
            if redirect is None and value == XdpAction.ABORTED and _is_in_header(origin):
                # It is the only function there that returns it; which line calls it is not known.
                yield (
                    f"xdpkit_redirect_to_port() ({origin}) returns {action_name(value)} where the"
                    " port has no interface"
                )
            elif redirect is None:
                yield f"{origin} returns {action_name(value)}"
            elif redirect.maps is None:
                yield f"bpf_redirect() at {origin} gives {action_name(value)} for wrong flags"
            else:
                into = " or ".join(redirect.maps) or "the map"
                yield (
                    f"bpf_redirect_map() at {origin} gives {action_name(value)} where {into} has no"
                    f" entry for the key{_keys(code, redirect.maps)}"
                )
    for unknown in code.analysis.actions.unknown:
        cause = unknown.cause
        where_from = "from the packet" if cause.kind is CauseKind.PACKET else str(cause)
        yield f"{unknown.origin} may return any value, {where_from}"


def _is_in_header(origin: Origin) -> bool:
    return origin.line is not None and origin.line.startswith("xdpkit.h:")


def _keys(code: Code, names: Iterable[str]) -> str:
    """Return which keys have an entry now, as what follows."""
    known = [code.redirects[name].keys for name in names if name in code.redirects]
    found = [keys for keys in known if keys is not None]
    if not found or len(found) < len(known):
        return ""
    keys = sorted({key for each in found for key in each})
    if not keys:
        return " (it has none at all now)"
    return f" (now it has: {listed(map(str, keys), most=8, between=', ')})"
