# SPDX-License-Identifier: Apache-2.0
"""Which programs rely on a table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from xdpkit.errors import HookBusy, UsageError
from xdpkit.kernel import Map, Program, ProgramInfo, program_ids
from xdpkit.tables.store import Store


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


def require_unknown_number(store: Store, number: int | None, what: str, *, remedy: str) -> None:
    """Refuse to give a port's number away that a program has in its instructions.

    Args:
        store: the table.
        number: the port's; None: any port of the table.
        what: what is being tried, for errors.
        remedy: what helps.

    Raises:
        HookBusy: there is such a program.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    from xdpkit.hook.ports import users_of

    found = users_of(store.name, number, pin_root=store.pin_root)
    told = [each for each in found if each.port.number is not None]
    if told:
        numbers = sorted({each.port.number for each in told if each.port.number is not None})
        raise HookBusy(
            what,
            cause=f"{', '.join(map(str, told))}: attached as that of"
            f" {'port' if len(numbers) == 1 else 'ports'} {', '.join(map(str, numbers))}, with the"
            " number in its instructions",
            remedy=remedy,
        )


def listed(programs: Iterable[ProgramInfo]) -> str:
    """Return programs as a phrase: "program 12 (forward), program 14 (drop_all)"."""
    return ", ".join(f"program {each.id} ({each.name})" for each in programs)
