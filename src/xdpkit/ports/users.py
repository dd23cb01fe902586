# SPDX-License-Identifier: Apache-2.0
"""Which programs rely on a table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from xdpkit.errors import UsageError
from xdpkit.kernel import Map, Program, ProgramInfo, program_ids


def of_maps(maps: Iterable[Map], *, but: Collection[int] = ()) -> list[ProgramInfo]:
    """Return the loaded programs that use any of these maps.

    Args:
        maps: the maps.
        but: ids of programs that do not count.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    wanted = {each.id for each in maps}
    found = []
    for number in program_ids():
        # One may end meanwhile.
        with contextlib.suppress(UsageError), Program.from_id(number) as program:
            info = program.info()
            if not wanted.isdisjoint(info.map_ids) and number not in but:
                found.append(info)
    return found


def listed(programs: Iterable[ProgramInfo]) -> str:
    """Return programs as a phrase: "program 12 (forward), program 14 (drop_all)"."""
    return ", ".join(f"program {each.id} ({each.name})" for each in programs)
