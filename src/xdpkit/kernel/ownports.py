# SPDX-License-Identifier: Apache-2.0
"""Empty maps of a program's own, in place of a port table's: no port has an interface in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpkit.kernel import create
from xdpkit.kernel.plan import plan

if TYPE_CHECKING:
    from xdpkit.kernel.maps import Map
    from xdpkit.obj import ProgramSpec

_PORTS = 64  # as many as a port table has, if nobody says how many


@contextlib.contextmanager
def own_port_maps(
    spec: ProgramSpec,
    *,
    without: Collection[str] = (),
    notes: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Map]]:
    """Make the maps of a port table that a program uses, for it alone; close them at the end.

    They are what :func:`~xdpkit.kernel.load` takes as ``maps``. A program that was loaded with them
    keeps them in the kernel.

    Args:
        spec: the program; what it can tail-call in its object counts.
        without: names of those that it has from elsewhere.
        notes: told what this kernel made us leave out.

    Yields:
        The maps, by name; none for a program that uses none.

    Raises:
        MissingPrivilege: making maps takes capabilities.
        KernelRefused: the kernel refused.
    """
    with contextlib.ExitStack() as made:
        yield {
            each.name: made.enter_context(
                create.create(
                    replace(each, max_entries=_PORTS),
                    types=None,
                    btf_fd=0,
                    ifindex=0,
                    notes=notes,
                )
            )
            for each in plan(spec.object, (spec,)).maps
            if each.name not in without and create.is_ports_map(each)
        }
