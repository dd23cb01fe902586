# SPDX-License-Identifier: Apache-2.0
"""Open what is on a hook, from the kernel alone: the object file may be gone."""

from __future__ import annotations

import contextlib

from xdpkit.errors import RequirementUnmet
from xdpkit.hook import records
from xdpkit.hook.holding import open_program
from xdpkit.hook.looking import OWN_MAPS, status
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.interfaces import Interface
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import bpf


def open_present(place: Place) -> XdpProg | None:
    """Return the program on a hook, None for an empty one; see :meth:`xdpkit.Hook.open`."""
    what = f"open the program on {place.iface}"
    (found,) = status(netns=place.netns, iface=place.iface, pin_root=place.pin_root)
    serving = [each for each in found.programs if each.qid is None]
    if not serving:
        return None
    present = serving[0]
    record = present.record.record if present.record is not None else None
    with contextlib.ExitStack() as resources:
        program = resources.enter_context(
            open_with_maps(
                present.program.id,
                found.interface,
                what,
                name=record.program if record is not None else None,
            )
        )
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


def open_with_maps(
    number: int, interface: Interface, what: str, *, name: str | None = None
) -> Program:
    """Open a program that is on a hook by its id, with the maps that it uses; they are its own.

    Raises:
        HookBusy: it has gone.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    with contextlib.ExitStack() as resources:
        descriptor = resources.enter_context(open_program(number, interface, what))
        names = _names_of_maps(descriptor.fileno())
        maps: dict[str, Map] = {}
        for used in bpf.prog_info(descriptor.fileno())[1]:
            opened = resources.enter_context(Map.from_id(used))
            if not opened.name.startswith(OWN_MAPS):
                maps[names.get(used) or opened.name or str(used)] = opened
        owned = resources.pop_all()
    return Program(descriptor, name=name, maps=maps, owned=owned)


def _names_of_maps(program: int) -> dict[int, str]:
    """Return the full names of a program's maps, by id, as far as xdpkit kept them."""
    try:
        image = records.image_of(program)
    except RequirementUnmet:
        # A later version's. The kernel has the names, too, cut off.
        return {}
    return {each.id: each.name for each in image.maps} if image is not None else {}
