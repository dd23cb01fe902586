# SPDX-License-Identifier: Apache-2.0
"""Put right what a killed command left behind; each change begins with it.

The order of steps of each change is such that there is always one answer. Maps are pinned before
the program that uses them, and unpinned after it: what is pinned for a program that is not on the
hook is left over.
A link's pin goes last, so a folder without one is left over. A program is exchanged for one that
lets all packets pass before its link is detached: such a stand-in is to go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from xdpkit.errors import (
    HookBusy,
    KernelRefused,
    MissingPrivilege,
    UsageError,
)
from xdpkit.hook import pins as pinned
from xdpkit.hook import roots, settings
from xdpkit.hook.holding import holding_of, open_program
from xdpkit.hook.homes import ids_at, ids_on
from xdpkit.hook.looking import examine, root_of
from xdpkit.hook.mode import Via
from xdpkit.hook.pins import HookFolder, Pins
from xdpkit.hook.state import HookStatus
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.interfaces.namespaces import Place, Reachable, reachable
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind


def repair(interface: Interface, pins: Pins, what: str) -> HookStatus:
    """Put right all hooks' pins, and what is on this interface's hook. Under the lock.

    Returns what is on the hook then. Where the kernel does not let this process look up programs
    (without CAP_SYS_ADMIN), what only they can tell is left for somebody who may.
    """
    found = finish_leaving(interface, pins, what)
    settings.follow(pins, found.interface, what)
    sweep(found.interface, pins)
    return found


def sweep(interface: Interface, pins: Pins) -> None:
    """Remove pins that serve nothing: of all hooks, and of this one's programs. Under the lock."""
    # What watches a program is removed for all hooks of the namespace: it keeps the program.
    place = Place(interface.netns, interface.netns_cookie)
    here = Reachable({interface.netns_cookie: place}, unseen=1)
    for folder in pins.folders():
        present: frozenset[int] | None = None
        if folder.serves(interface):
            present = folder.programs.intersection(ids_on(interface))
        elif folder.is_home_of(interface):
            # The program may have moved away with the interface that was here.
            present = still_attached(folder)
        unwatch_gone(folder, here)
        repair_folder(folder, present)


def unwatch_gone(folder: HookFolder, places: Reachable) -> None:
    """Count programs from outside no longer that are not on the hook any more. Under the lock."""
    gone = gone_watched(folder, places)
    if gone:
        pinned.unwatch_others(folder.path, folder.watched - gone)


def gone_watched(folder: HookFolder, places: Reachable) -> frozenset[int]:
    """Return the programs that are counted from outside and certainly not on the hook any more.

    Those are all if nothing is set for the interface: then nothing is to be counted.
    """
    if not folder.watched or folder.settings is None:
        return folder.watched
    present = ids_at(folder.netns_cookie, folder.ifindex, places)
    return frozenset() if present is None else folder.watched.difference(present)


def still_attached(folder: HookFolder, places: Reachable | None = None) -> frozenset[int] | None:
    """Return which of the programs that stand in a link's place are on any interface.

    None where that cannot be told: the interface that they were for is not where it was, and may be
    in a namespace that cannot be entered. (Another could have been given its index there. But the
    kernel does so only when asked to, or after all others.)

    Args:
        folder: the pins. places: the namespaces in which to look; None: all that can be reached.
    """
    if not folder.programs:
        return folder.programs
    places = reachable() if places is None else places
    found: set[int | None] = set()
    is_at_home = False
    for place in places.values():
        # It may end meanwhile.
        with contextlib.suppress(UsageError):
            for interface in list_all(netns=place.netns):
                found.update(ids_on(interface))
                is_at_home = is_at_home or folder.is_home_of(interface)
    attached = folder.programs & found
    return attached if attached or is_at_home or not places.unseen else None


def repair_folder(folder: HookFolder, present: frozenset[int] | None) -> None:
    """Remove a hook's pins if they hold nothing, or those of its maps that serve nothing.

    Args:
        folder: the pins.
        present: which of the programs that stand in a link's place are on an interface; None if
            that cannot be told.
    """
    if folder.is_dead or (folder.link is None and present is not None and not present):
        pinned.remove(folder.path)
        return
    kept = frozenset({folder.link.program_id}) if folder.link is not None else present
    if kept is None or folder.has_pins_of <= kept:
        return
    # What cannot be looked at is left for somebody who may.
    with contextlib.suppress(HookBusy, MissingPrivilege, KernelRefused):
        kept |= _awaited(kept)
        pinned.unpin_others(folder, kept | _run_by(kept))


def _awaited(programs: frozenset[int]) -> set[int]:
    """Return the programs that come back if the change to one of these is not confirmed.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
    """
    from xdpkit.hook import records

    awaited: set[int] = set()
    for number in programs:
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
        if descriptor is not None:
            with descriptor:
                found = records.find_all(descriptor.fileno())
            awaited.update(each.record.reverts_to for each in found if each.record.revert_at)
    return awaited


def _run_by(programs: Iterable[int]) -> set[int]:
    """Return the programs that those of these run that are roots.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
    """
    members: set[int] = set()
    for number in programs:
        root = root_of(number)
        if root is not None:
            members.update(roots.members_of(root, "see which programs are in use").values())
    return members


def finish_leaving(interface: Interface, pins: Pins, what: str) -> HookStatus:
    """Take off what stands in for a program that was being detached; return what is there then.

    Raises:
        KernelRefused: the kernel or the driver refused.
    """
    (found,) = examine([interface], pins)
    leaving = [attached for attached in found.attached if attached.is_leaving]
    for attached in leaving:
        # Somebody else may be as quick.
        with contextlib.suppress(HookBusy), holding_of(attached, interface, what) as holding:
            if attached.via is Via.LINK:
                holding.drop(None, what)
                continue
            with open_program(attached.program.id, interface, what) as program:
                holding.drop(program.fileno(), what)
    if not leaving:
        return found
    (found,) = examine([resolve(interface.index, netns=interface.netns)], pins)
    return found
