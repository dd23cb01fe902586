# SPDX-License-Identifier: Apache-2.0
"""What drivers say has happened (``ethtool -S``), under standard names.

Every driver has names of its own. ``data/driver_statistics.json`` says what they stand for, and
what else is counted in a number; every driver there names its source. It has the names of all
releases that were looked at: no driver has used one name for two things.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xdpkit.interfaces import Interface
from xdpkit.monitor.model import DriverCount, DriverCounts, Where
from xdpkit.syscalls import ethtool, netns
from xdpkit.syscalls.netlink import NetlinkSocket

PATH = Path(__file__).parent.parent / "data" / "driver_statistics.json"

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "packets": "Packets that the driver gave to the program.",
        "bytes": "Bytes of these packets.",
        "pass": "Packets that went on to the network stack.",
        "drop": "Packets that were dropped, as the program said.",
        "tx": "Packets that were to be sent back by the interface that they came in by.",
        "redirect": "Packets that were to be redirected.",
        "aborted": "Packets that the program gave up.",
        "invalid_action": "Packets for which the program returned a number that is no action.",
        "tx_errors": "Packets that could not be sent back.",
        "redirect_errors": "Packets that could not be redirected.",
        "xmit": "Frames that were redirected to this interface.",
        "xmit_errors": "Frames that were redirected to this interface, and that it did not send.",
    }
)
"""The standard names, with what each counts; drivers have few of them."""

_NUMBER = re.compile(r"\d+")
_QUEUE = "{queue}"


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a driver's name stands for.

    Attributes:
        event: the standard name. includes: standard names of what it counts, too.
        is_aggregate: it is the sum of others.
    """

    event: str
    includes: tuple[str, ...]
    is_aggregate: bool


def read(interface: Interface, *, shown_netns: str = "") -> DriverCounts | None:
    """Return what an interface's driver says, None where it has no statistics about XDP.

    Args:
        interface: whose. shown_netns: what to call its namespace, see :class:`.model.Where`.

    Raises:
        UsageError: its namespace is gone.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
        KernelRefused: the driver refused.
    """
    if interface.driver is None:
        return None
    with netns.entered(interface.netns), NetlinkSocket() as connection:
        said = ethtool.statistics_of(connection, interface.index)
    # vmxnet3 has the same names for each queue, without its number.
    raw: Counter[str] = Counter()
    for name, value in said:
        raw[name] += value
    own = concerning_xdp(interface.driver, raw)
    if not own:
        return None
    return DriverCounts(
        where=Where(shown_netns, interface.name, interface.index),
        driver=interface.driver,
        counts=standard(interface.driver, own),
        raw=own,
    )


def standard(driver: str, raw: Mapping[str, int]) -> tuple[DriverCount, ...]:
    """Return statistics under their standard names: by event in the order of EVENTS, and queue.

    Several of a driver's names that stand for one event of one queue are added up. What a driver
    has for each queue and as a sum, is there for each queue only. Of drivers that are not known,
    there is nothing.

    Args:
        driver: its name, as ``ethtool -i`` shows it. raw: values by the driver's names.
    """
    meanings = _meanings().get(driver, {})
    values: Counter[tuple[str, int | None]] = Counter()
    sums: Counter[str] = Counter()
    includes: dict[str, set[str]] = {}
    for name, value in raw.items():
        template, queue = _taken_apart(name)
        meaning = meanings.get(template)
        if meaning is None:
            continue
        includes.setdefault(meaning.event, set()).update(meaning.includes)
        if meaning.is_aggregate:
            sums[meaning.event] += value
        else:
            values[meaning.event, queue] += value
    apart = {event for event, _ in values}
    values.update({(event, None): value for event, value in sums.items() if event not in apart})
    order = {event: position for position, event in enumerate(EVENTS)}
    return tuple(
        DriverCount(event, queue, value, tuple(sorted(includes[event], key=order.__getitem__)))
        for (event, queue), value in sorted(
            values.items(),
            key=lambda one: (order[one[0][0]], -1 if one[0][1] is None else one[0][1]),
        )
    )


def concerning_xdp(driver: str, raw: Mapping[str, int]) -> dict[str, int]:
    """Return those of a driver's statistics that have to do with XDP."""
    meanings = _meanings().get(driver, {})
    return {
        name: value
        for name, value in raw.items()
        if "xdp" in name.lower() or _taken_apart(name)[0] in meanings
    }


def _taken_apart(name: str) -> tuple[str, int | None]:
    """Return a name with its numbers replaced, as the table has it, and the (first) number."""
    number = _NUMBER.search(name)
    template = _NUMBER.sub(_QUEUE, " ".join(name.split()))
    return template, int(number[0]) if number is not None else None


@functools.cache
def _meanings() -> Mapping[str, Mapping[str, _Meaning]]:
    """Return what names stand for, by the driver's name and the counter's, numbers replaced."""
    return {
        name: {
            counter["name"]: _Meaning(
                counter["event"],
                tuple(counter.get("includes", ())),
                counter.get("aggregate", False),
            )
            for counter in driver["counters"]
        }
        for driver in _load()["drivers"]
        for name in driver["names"]
    }


@functools.cache
def _load() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content
