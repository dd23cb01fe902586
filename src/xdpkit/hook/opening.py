# SPDX-License-Identifier: Apache-2.0
"""Open what is on a hook, from the kernel alone: the object file may be gone."""

from __future__ import annotations

import contextlib

from xdpkit.errors import RequirementUnmet
from xdpkit.hook import records
from xdpkit.hook.holding import open_program
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program


def open_present(place: Place) -> XdpProg | None:
    """Return the program on a hook, None for an empty one; see :meth:`xdpkit.Hook.open`."""
    what = f"open the program on {place.iface}"
    found = place.look()
    if not found.attached:
        return None
    present = found.attached[0]
    record = present.record.record if present.record is not None else None
    with contextlib.ExitStack() as resources:
        descriptor = resources.enter_context(
            open_program(present.program.id, found.interface, what)
        )
        names = _names_of_maps(descriptor.fileno())
        maps: dict[str, Map] = {}
        for used in present.program.maps or ():
            opened = resources.enter_context(Map.from_id(used.id))
            maps[names.get(used.id) or used.name or str(used.id)] = opened
        owned = resources.pop_all()
        program = Program(
            descriptor, name=record.program if record else None, maps=maps, owned=owned
        )
    with contextlib.ExitStack() as resources:
        resources.enter_context(program)
        return XdpProg(
            place=place,
            interface=found.interface,
            mode=present.mode,
            via=present.via or Via.LINK,
            program=program,
            link=None,
            link_id=present.link_id,
            negotiation=record.negotiation if record else None,
            record=record,
            pinned=present.pinned,
            is_for_a_block=False,
            members=contextlib.ExitStack(),
            resources=resources.pop_all(),
        )


def _names_of_maps(program: int) -> dict[int, str]:
    """Return the full names of a program's maps, by id, as far as xdpkit kept them."""
    try:
        image = records.image_of(program)
    except RequirementUnmet:
        # A later version's. The kernel has the names, too, cut off.
        return {}
    return {each.id: each.name for each in image.maps} if image is not None else {}
