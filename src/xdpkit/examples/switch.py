# SPDX-License-Identifier: Apache-2.0
"""A learning layer-2 switch: puts ``switch.c`` on interfaces."""

from __future__ import annotations

import os
import struct
import time
from collections import Counter

import xdpkit
from xdpkit.examples.forwarding import Forwarding, Setup

_SECOND = 10**9  # nanoseconds

# struct place of switch.c: when, and the port.
_PLACE = struct.Struct("=QI4x")

LONGEST_S = 86_400
"""How long a station can be remembered at most, in seconds."""


class Switch(Forwarding):
    """A switch between interfaces, for as long as the ``with`` block."""

    def __init__(
        self, program: str | os.PathLike[str], setup: Setup, *, ageing: float = 300
    ) -> None:
        """Read the program; nothing is looked at or changed before the block begins.

        Args:
            program: path of what ``switch.c`` was compiled to.
            setup: between which interfaces, and how.
            ageing: seconds after which a station that keeps silent is forgotten; it is written
                down once a second. 0: none is remembered, and every frame goes to all ports.

        Raises:
            UsageError: there is no such file, or such a time makes no sense.
            ObjectFormatError: it is no object file.
        """
        if not 0 <= ageing <= LONGEST_S:
            raise xdpkit.UsageError(
                f"remember stations for {ageing} s", cause=f"it has to be from 0 to {LONGEST_S:,} s"
            )
        read = xdpkit.read(program)
        self._ageing_ns = round(ageing * _SECOND)
        read.variables["ageing_ns"] = self._ageing_ns
        super().__init__(read.programs["l2_switch"], setup)

    def stations(self) -> Counter[int]:
        """Return how many stations are known behind each port, by its number."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        # There may be many, and they are read often.
        places = map(_PLACE.unpack, self.maps["stations"].untyped().values())
        return Counter(port for seen, port in places if max(now - seen, 0) < self._ageing_ns)
