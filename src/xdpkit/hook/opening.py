# SPDX-License-Identifier: Apache-2.0
"""Open what is on a hook, from the kernel alone: the object file may be gone."""

from __future__ import annotations

import contextlib

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.hook import records
from xdpkit.hook.holding import open_program
from xdpkit.hook.looking import OWN_MAPS, status
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.scope import Scope, program_of, seats_of
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.interfaces import Interface
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import bpf


def open_present(place: Place, queues: Scope = None) -> XdpProg | None:
    """Return the program of some RX queues, or the one that serves all others; None if none does.

    See :meth:`xdpkit.Hook.open`.

    Raises:
        UsageError: the queues have different programs, or some have none of their own.
    """
    what = f"open {program_of(queues)} on {place.iface}"
    (found,) = status(netns=place.netns, iface=place.iface, pin_root=place.pin_root)
    seats = seats_of(queues)
    serving = [each for each in found.programs if each.qid in seats]
    if not serving:
        return None
    present = serving[0]
    if queues is not None and (
        len(serving) < len(seats) or any(each.program.id != present.program.id for each in serving)
    ):
        raise UsageError(what, cause="they do not have one and the same program")
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
            queues=queues,
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
            # The author's own may be called so, too: those of a port table are.
            if used in names or not opened.name.startswith(OWN_MAPS):
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
