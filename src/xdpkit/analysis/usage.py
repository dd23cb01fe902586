# SPDX-License-Identifier: Apache-2.0
"""What a program uses, taken down while it is followed."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from xdpkit.analysis.state import Frame, RegionKind, Value
from xdpkit.analysis.values import Cause, CauseKind, Scalar, join, truncate


class Area(enum.StrEnum):
    """What of a packet is touched."""

    PACKET = "packet"
    METADATA = "metadata"


class AreaAccess(NamedTuple):
    """A kind of access to the packet's memory."""

    area: Area
    is_write: bool


class FieldAccess(NamedTuple):
    """A kind of access to the context. Offset and size are in bytes; offset -1 is not known."""

    offset: int
    size: int
    is_write: bool


class Place(enum.StrEnum):
    """Which end of the packet is moved."""

    HEAD = "head"
    META = "meta"
    TAIL = "tail"


@dataclass(slots=True)
class RedirectCall:
    """What is known of the arguments of a redirect; ``maps`` is None for plain bpf_redirect()."""

    target: Scalar
    flags: Scalar
    maps: frozenset[str] | None


@dataclass(slots=True)
class TailCallUse:
    """What is known of a tail call; no arrays: not known which."""

    arrays: frozenset[str]
    index: Scalar
    functions: frozenset[int]


@dataclass(slots=True)
class Recorder:
    """Everything that was found so far. It only ever grows."""

    blocks: set[int] = field(default_factory=set)
    helpers: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    kfuncs: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    symbols: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    maps: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    areas: defaultdict[AreaAccess, set[int]] = field(default_factory=lambda: defaultdict(set))
    fields: defaultdict[FieldAccess, set[int]] = field(default_factory=lambda: defaultdict(set))
    elsewhere: set[int] = field(default_factory=set)
    addresses: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    generalised: set[int] = field(default_factory=set)
    adjustments: dict[tuple[Place, int], Scalar] = field(default_factory=dict)
    redirects: dict[int, RedirectCall] = field(default_factory=dict)
    tail_calls: dict[int, TailCallUse] = field(default_factory=dict)
    throws: dict[int, Scalar] = field(default_factory=dict)
    callbacks: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    calls: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    depths: dict[int, int] = field(default_factory=dict)
    bodies: set[int] = field(default_factory=set)
    actions: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    returned: Scalar | None = None
    unknown: set[Cause] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)

    def access(self, base: Value, offset: int, size: int, is_write: bool, slot: int) -> None:
        """Take down a load or a store."""
        self.handed_over(base, is_write, slot)
        if base.scalar is not None:
            self.elsewhere.add(slot)
        for region, distance in base.pointers:
            if region.kind is not RegionKind.CONTEXT:
                self.elsewhere.add(slot)
                continue
            for place in distance.values or (-1 - offset,):
                field_offset = max(_signed(place) + offset, -1)
                self.fields[FieldAccess(field_offset, size, is_write)].add(slot)

    def took_address(self, value: Value, slot: int) -> None:
        """Take down that somebody else gets a value, which may be the address of a field."""
        for region, distance in value.pointers:
            if region.kind is RegionKind.CONTEXT:
                for place in distance.values or (-1,):
                    self.addresses[max(_signed(place), -1)].add(slot)

    def handed_over(self, address: Value, is_write: bool, slot: int) -> None:
        """Take down that somebody reads or writes the packet, if the address is there."""
        for region, _ in address.pointers:
            if region.kind in (RegionKind.PACKET, RegionKind.ANYWHERE):
                self.touched_packet(is_write, slot)
            if region.kind in (RegionKind.METADATA, RegionKind.ANYWHERE):
                self.areas[AreaAccess(Area.METADATA, is_write)].add(slot)

    def touched_packet(self, is_write: bool, slot: int) -> None:
        self.areas[AreaAccess(Area.PACKET, is_write)].add(slot)

    def stack(self, frame: Frame, offset: int) -> None:
        """Take down that a frame is used down to an offset."""
        self.depths[frame.owner] = max(self.depths.get(frame.owner, 0), -offset)

    def adjusted(self, place: Place, delta: Scalar, slot: int) -> None:
        known = self.adjustments.get((place, slot))
        self.adjustments[place, slot] = delta if known is None else join(known, delta)

    def redirected(
        self, slot: int, target: Scalar, flags: Scalar, maps: frozenset[str] | None
    ) -> None:
        known = self.redirects.get(slot)
        if known is None:
            self.redirects[slot] = RedirectCall(target, flags, maps)
            return
        known.target = join(known.target, target)
        known.flags = join(known.flags, flags)
        if maps is not None:
            known.maps = (known.maps or frozenset()) | maps

    def tail_called(self, slot: int, arrays: frozenset[str], index: Scalar, function: int) -> None:
        known = self.tail_calls.get(slot)
        if known is None:
            self.tail_calls[slot] = TailCallUse(arrays, index, frozenset((function,)))
            return
        known.arrays |= arrays
        known.index = join(known.index, index)
        known.functions |= {function}

    def threw(self, slot: int, value: Scalar) -> None:
        known = self.throws.get(slot)
        self.throws[slot] = value if known is None else join(known, value)

    def returns(self, value: Value, slot: int) -> None:
        """Take down what the main function returns, all 64 bits of it."""
        if value.pointers:
            self.unknown.add(Cause(CauseKind.ADDRESS, "", slot))
        if value.scalar is None:
            return
        known = self.returned
        self.returned = value.scalar if known is None else join(known, value.scalar)
        action = truncate(value.scalar, 32)
        if action.values is None:
            self.unknown |= action.causes or {Cause(CauseKind.COMPUTED, "", slot)}
            return
        for number, origins in action.values.items():
            self.actions[number].update(origins or (slot,))

    def note(self, text: str) -> None:
        self.notes.add(text)


def _signed(offset: int) -> int:
    return offset - (1 << 64) if offset >> 63 else offset
