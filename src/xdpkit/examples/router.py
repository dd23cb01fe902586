# SPDX-License-Identifier: Apache-2.0
"""A layer-3 router by the kernel's routes: puts ``router.c`` on interfaces."""

from __future__ import annotations

import os

import xdpkit
from xdpkit import ports
from xdpkit.examples.forwarding import Forwarding, Setup


class Router(Forwarding):
    """A router between interfaces, for as long as the ``with`` block."""

    def __init__(self, program: str | os.PathLike[str], setup: Setup) -> None:
        """Read the program; nothing is looked at or changed before the block begins.

        Args:
            program: path of what ``router.c`` was compiled to.
            setup: between which interfaces, and how.

        Raises:
            UsageError: there is no such file.
            ObjectFormatError: it is no object file.
        """
        super().__init__(xdpkit.read(program).programs["l3_router"], setup)
        self._told: dict[int, bytes] = {}

    def ports_changed(self, table: ports.Table) -> None:
        """Tell the program the ports' own addresses: frames to others are not the router's."""
        for port in table.ports:
            own = port.interface.mac if port.interface is not None else bytes(6)
            if self._told.get(port.number) != own:
                self.maps["addresses"][port.number] = {"mac": own}
                self._told[port.number] = own
