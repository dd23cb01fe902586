# SPDX-License-Identifier: Apache-2.0
"""The programs and maps of an object, loaded together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.syscalls.closing import Closing


class Collection(Closing):
    """Programs and maps that were loaded together: a context manager that owns them all.

    Attributes:
        programs: by function name, in the object's order.
        maps: by name in the object; the programs share them. Maps that were passed to the load are
            among them, but stay the caller's.
        notes: what they had to do without on this kernel.
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        maps: Mapping[str, Map],
        *,
        owned: ExitStack,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take over what ``owned`` closes."""
        self.programs = MappingProxyType(dict(programs))
        self.maps = MappingProxyType(dict(maps))
        self.notes = notes
        self._owned = owned

    def close(self) -> None:
        """Close all programs and maps; closing twice does nothing."""
        self._owned.close()

    def __repr__(self) -> str:
        return f"<Collection of {', '.join(self.programs) or 'no programs'}>"
