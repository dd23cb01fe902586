# SPDX-License-Identifier: Apache-2.0
"""What is known about drivers by kernel release: the shipped table, read.

For kernels that cannot be asked (before Linux 6.3), for what they never say, and for profiles of
machines that are not here. Every entry of ``data/drivers.json`` names its source.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpkit.capabilities import Answer, Kernel, Release, written
from xdpkit.uapi.netdev import XdpAct

PATH = Path(__file__).parent.parent / "data" / "drivers.json"

FEATURES = tuple((bit.name or "").lower() for bit in XdpAct)
"""The features that drivers are listed with: NETDEV_XDP_ACT_*, in lower case."""


@dataclass(frozen=True, slots=True)
class Since:
    """When a driver got a feature.

    Attributes:
        since: the first release that was found to have it.
        absent: the last one that was found to lack it, where releases between were not looked at.
        is_reported: whether netdev tells of it: the release since when, None: it never did;
            ``since`` when it always did.
        needs: what it takes: "program" (attached to the device), "peer" (of a veth), or None.
        partly: what restricts it, None: nothing.
        partly_until: the last release with the restriction; None: all have it.
        is_overreported: netdev tells of it in spite of the restriction.
    """

    since: Release
    absent: Release | None
    reported: Release | None
    needs: str | None
    partly: str | None
    partly_until: Release | None
    is_overreported: bool

    def restriction(self, kernel: Kernel) -> str | None:
        """Return what restricts the feature in a kernel."""
        is_over = self.partly_until is not None and not (
            kernel.release is not None and kernel.release <= self.partly_until
        )
        return None if is_over else self.partly


@dataclass(frozen=True, slots=True)
class MtuLimit:
    """The largest MTU for a program without frags, on the machine that the table is about.

    Attributes:
        limit: bytes, without the Ethernet header.
        is_exact: the driver refuses one byte more, in every configuration.
        since: the first release of which that holds; None: all.
        source: where it is from.
    """

    limit: int
    is_exact: bool
    since: Release | None
    source: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a driver checks when a program is attached.

    Attributes:
        name: the driver's own, short.
        text: the rule.
        effect: "refuse": the attach fails; "feature": features are not there, or not reported.
        cause: a word that other drivers' rules share ("lro_on"), or None.
        source: the kernel's file.
    """

    name: str
    text: str
    effect: str
    cause: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Driver:
    """What the table has on a driver, in one release."""

    name: str
    source: str
    features: Mapping[str, Since]
    hints: Mapping[str, Since]
    adjust_meta: tuple[Answer, str]
    mtu: MtuLimit | None
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class WithoutNative:
    """A driver that has no native XDP in the releases that were looked at, both ends included."""

    name: str
    first: Release
    last: Release
    source: str


@functools.lru_cache(maxsize=64)
def find(name: str | None, kernel: Kernel) -> Driver | None:
    """Return what the table has on a driver, by its own name or one that people use ("mlx5")."""
    record = _index().get(name or "")
    return _driver(record, kernel) if record is not None else None


def find_without_native(name: str | None) -> WithoutNative | None:
    """Return the entry on a driver that is known to have no native XDP."""
    for record in _load()["without_native_xdp"]:
        if record["name"] == name:
            first, last = (_release(text) for text in record["checked"])
            return WithoutNative(record["name"], first, last, record["source"])
    return None


def names() -> tuple[str, ...]:
    """Return the names of all drivers that the table has features of."""
    return tuple(record["name"] for record in _load()["drivers"])


def newest() -> Release:
    """Return the newest release that was looked at."""
    return _release(_load()["newest"])


def has_limits_for(machine: str, page_size: int) -> bool:
    """Whether the table's MTU limits hold on a machine: buffers depend on page and cache lines."""
    about = _load()["limits_for"]
    return (machine, page_size) == (about["machine"], about["page_size"])


def answer(entry: Since | None, kernel: Kernel, driver: str) -> tuple[Answer, str]:
    """Return whether a driver has a feature in a kernel, and why."""
    if kernel.release is None:
        return Answer.UNKNOWN, f"table of drivers: {kernel.text!r} is no release"
    if entry is None:
        return _never(kernel, driver)
    since = f"table of drivers: {driver}, since Linux {written(entry.since)}"
    if kernel.release >= entry.since:
        restriction = entry.restriction(kernel)
        if restriction is not None:
            return Answer.UNKNOWN, f"{since}, {restriction}"
        return Answer.YES, since
    if kernel.backports:
        return Answer.UNKNOWN, f"{since}, and this is {kernel.text}, which has backports"
    if entry.absent is not None and kernel.release > entry.absent:
        return Answer.UNKNOWN, f"{since} at the latest; not in {written(entry.absent)}"
    return Answer.NO, since


def _never(kernel: Kernel, driver: str) -> tuple[Answer, str]:
    last = newest()
    never = f"table of drivers: {driver}, not up to Linux {written(last)}"
    if kernel.release is not None and kernel.release > last:
        return Answer.UNKNOWN, never
    return Answer.NO, never


@functools.cache
def _load() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    return {
        name: record
        for record in _load()["drivers"]
        for name in (*record["aliases"], *record["names"], record["name"])
    }


def _driver(record: dict[str, Any], kernel: Kernel) -> Driver:
    mtu = record["mtu"]
    return Driver(
        name=record["name"],
        source=record["source"],
        features={name: _since(entry) for name, entry in record["features"].items()},
        hints={name: _since(entry) for name, entry in record["hints"].items()},
        adjust_meta=_adjust_meta(record, kernel),
        mtu=MtuLimit(
            mtu["limit"],
            mtu["exact"],
            _release(mtu["since"]) if "since" in mtu else None,
            mtu["source"],
        )
        if mtu is not None
        else None,
        constraints=tuple(_constraints(record, kernel)),
    )


def _since(entry: dict[str, Any]) -> Since:
    since = _release(entry["since"])
    reported = entry.get("reported", entry["since"])
    partly = entry.get("partly", {})
    return Since(
        since=since,
        absent=_release(entry["absent"]) if "absent" in entry else None,
        reported=_release(reported) if reported is not None else None,
        needs=entry.get("needs"),
        partly=partly.get("text"),
        partly_until=_release(partly["until"]) if "until" in partly else None,
        is_overreported=partly.get("reported", False),
    )


def _adjust_meta(record: dict[str, Any], kernel: Kernel) -> tuple[Answer, str]:
    """Return whether bpf_xdp_adjust_meta() works; netdev never says."""
    name, entry = record["name"], record["adjust_meta"]
    if entry is None or kernel.release is None:
        return Answer.UNKNOWN, f"table of drivers: nothing on bpf_xdp_adjust_meta() with {name}"
    found = (Answer.UNKNOWN, f"table of drivers: {name} was not looked at in {kernel.text}")
    for period in entry["history"]:
        since = _release(period["since"])
        if kernel.release < since:
            if "absent" in period and kernel.release > _release(period["absent"]):
                return Answer.UNKNOWN, f"table of drivers: {name}, changed by {period['since']}"
            break
        found = (Answer(period["answer"]), f"table of drivers: {name}, since {period['since']}")
    answered, evidence = found
    is_old = answered is Answer.NO and (kernel.backports or kernel.release > newest())
    return (Answer.UNKNOWN if is_old else answered), f"{evidence} ({entry['source']})"


def _constraints(record: dict[str, Any], kernel: Kernel) -> Iterator[Constraint]:
    """Yield the rules that hold in a release."""
    for entry in record["constraints"]:
        if kernel.release is not None:
            if "since" in entry and kernel.release < _release(entry["since"]):
                continue
            if "until" in entry and kernel.release > _release(entry["until"]):
                continue
        yield Constraint(
            entry["id"], entry["text"], entry["effect"], entry.get("cause"), entry["source"]
        )


def _release(written: str) -> Release:
    major, minor = written.split(".")
    return int(major), int(minor)
