# SPDX-License-Identifier: Apache-2.0
"""Prepare a change: the kind that suits what is on the hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import UsageError
from xdpkit.hook import scope, seats
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.present import NOTHING, Expected
from xdpkit.hook.request import Terms
from xdpkit.hook.scope import Scope

if TYPE_CHECKING:
    from xdpkit.hook.add import Add
    from xdpkit.hook.delete import Delete
    from xdpkit.hook.rearranging import AddBeside, DeleteFrom, ReplaceWithin
    from xdpkit.hook.replace import Replace
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec


def prepare_add(
    place: Place,
    program: ProgramSpec | Program,
    *,
    queues: Scope = None,
    mode: Mode | str | Sequence[Mode | str] | None = None,
    pin: bool = True,
    via: Via | str | None = None,
    **terms: Unpack[Terms],
) -> Add | AddBeside:
    """Prepare an attach; see :meth:`xdpkit.Hook.add` and :class:`xdpkit.hook.Queues`.

    Args:
        queues: the RX queues that the program is for; None: all that no other program serves.

    Raises:
        UsageError, HookBusy, RequirementUnmet, MissingPrivilege: as there.
    """
    from xdpkit.hook.add import Add

    found = place.look()
    what = f"attach {getattr(program, 'name', program)!s} to {found.interface.name}"
    seats.require_sight(found, what)
    if pin and (found.root is not None or (queues is not None and found.attached)):
        now = seats.look(place, found, what)
        if now is not None and (now.root is not None or queues is not None):
            from xdpkit.hook.rearranging import AddBeside

            return AddBeside(place, now, program, queues=queues, mode=mode, via=via, **terms)
    return Add(place, program, mode=mode, pin=pin, via=via, queues=queues, found=found, **terms)


def prepare_replace(
    place: Place,
    program: ProgramSpec | Program,
    *,
    queues: Scope = None,
    expected: Expected | None = None,
    **terms: Unpack[Terms],
) -> Replace | ReplaceWithin:
    """Prepare a replacement; see :meth:`xdpkit.Hook.replace` and :class:`xdpkit.hook.Queues`.

    Args:
        queues: the RX queues whose programs are to go; None: the global program.

    Raises:
        UsageError, HookBusy, RequirementUnmet, MissingPrivilege: as there.
    """
    from xdpkit.hook.replace import Replace

    found = place.look()
    what = f"replace {scope.program_of(queues)} on {found.interface.name}"
    seats.require_sight(found, what)
    if queues is None and found.root is None:
        return Replace(place, program, expected=expected, found=found, **terms)
    now = seats.look(place, found, what)
    if now is None:
        raise UsageError(what, cause=NOTHING)
    from xdpkit.hook.rearranging import ReplaceWithin

    return ReplaceWithin(place, now, program, queues=queues, expected=expected, **terms)


def prepare_delete(
    place: Place,
    *,
    queues: Scope = None,
    expected: Expected | None = None,
    keep_root: bool = False,
    everything: bool = False,
) -> Delete | DeleteFrom:
    """Prepare a detach; see :meth:`xdpkit.Hook.delete` and :class:`xdpkit.hook.Queues`.

    Args:
        queues: the RX queues whose programs are to go; None: the global program.
        keep_root: leave the root on the hook even if no queue has a program of its own any more.
        everything: take all programs off, and the root.

    Raises:
        UsageError, HookBusy, MissingPrivilege: as there.
    """
    from xdpkit.hook.delete import Delete

    found = place.look()
    what = f"detach {scope.program_of(queues)} from {found.interface.name}"
    seats.require_sight(found, what)
    if everything and (queues is not None or keep_root):
        raise UsageError(
            f"detach all programs from {found.interface.name}",
            cause="either everything goes, or programs of some queues (--queue, --keep-root)",
        )
    if everything or (queues is None and found.root is None):
        return Delete(place, expected=expected, found=found)
    now = seats.look(place, found, what)
    if now is None:
        raise UsageError(what, cause=NOTHING)
    from xdpkit.hook.rearranging import DeleteFrom

    return DeleteFrom(place, now, queues=queues, expected=expected, keep_root=keep_root)
