# SPDX-License-Identifier: Apache-2.0
"""A hook's programs, and what they reach by tail calls, at one moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Self

from xdpkit.errors import UsageError
from xdpkit.hook import records, roots
from xdpkit.hook.copies import LEAVES_MAP
from xdpkit.hook.looking import examine
from xdpkit.hook.state import AttachedProgram, HookStatus, Owner, command_for
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.hook.leaves import Plan
    from xdpkit.hook.pins import HookFolder
    from xdpkit.hook.place import Place
    from xdpkit.hook.reach import Hook, OtherUse, Web
    from xdpkit.hook.record import Record
    from xdpkit.interfaces import Interface


class View:
    """A hook's programs, and what they reach, at one moment.

    Attributes:
        found: the hook. folder: its pins, where they matter.
        queues: how many RX queues are told apart.
        ours: the programs that xdpkit attached, by id. places: the RX queues of each; None: all
            that no other program serves.
        hooks: all names of the hook: an interface that moved has records of where it was.
        web: what the programs reach.
    """

    def __init__(self, found: HookStatus, folder: HookFolder | None = None) -> None:
        from xdpkit.hook import reach

        self.found = found
        self.folder = folder
        self.queues = roots.size_for(found.interface)
        self.places: dict[int, list[int | None]] = {}
        self.ours: dict[int, AttachedProgram] = {}
        for each in found.programs:
            if each.owner is Owner.XDPKIT and each.record is not None:
                self.places.setdefault(each.program.id, []).append(each.qid)
                self.ours.setdefault(each.program.id, each)
        here = found.interface.netns_cookie, found.interface.index
        self.hooks = frozenset({here, *(_hook_of(each) for each in self.ours.values())})
        self.web: Web = reach.look(self.ours)
        # One may have gone meanwhile.
        self.ours = {
            number: self.ours[number] for number in self.ours if number in self.web.programs
        }

    @classmethod
    def of(cls, place: Place, interface: Interface) -> Self:
        """Look at an interface's hook and its pins. Under the lock.

        Raises:
            MissingPrivilege: it takes CAP_SYS_ADMIN.
            KernelRefused: the kernel refused.
        """
        (found,) = examine([interface], place.pins, with_members=True)
        return cls(found, place.pins.folder_of(interface))

    @property
    def is_waiting(self) -> bool:
        """Whether a change waits to be confirmed."""
        return is_waiting(self.found)

    @property
    def reporting(self) -> list[Record]:
        """What was written down with the copies, for this hook, that report frames."""
        stored = (program.record_for(self.hooks) for program in self.web.programs.values())
        return [each.record for each in stored if each is not None and each.record.tap]

    @cached_property
    def plan(self) -> Plan:
        """What is to be done so that each packet is counted once."""
        return self.plan_for("counted")

    def plan_for(self, verb: str) -> Plan:
        """Return what is to be done so that each packet is counted, or reported, once."""
        from xdpkit.hook import leaves

        return leaves.plan(self.web, list(self.ours), self.hooks, self.used_by_others, verb=verb)

    @cached_property
    def used_by_others(self) -> dict[int, OtherUse]:
        """The arrays that programs use which are not on this hook, and why so."""
        from xdpkit.hook import reach

        return reach.used_by_others(self.web, self.hooks)

    def require_understood(self, what: str) -> None:
        """Refuse to exchange programs with which a later version wrote down what is not known.

        Raises:
            RequirementUnmet: there is one.
        """
        from xdpkit.hook import leaves

        for program in self.web.programs.values():
            leaves.require_understood(program, self.hooks, what)

    @property
    def alone(self) -> dict[int, int]:
        """The programs that serve a single RX queue, and are not tail-called for others."""
        return {
            number: queue
            for number, attached in self.ours.items()
            if (queue := _only_queue(attached)) is not None
            and set(self.web.callers_of(number)) <= {number}
        }

    @property
    def held(self) -> dict[int, frozenset[int]]:
        """The maps that are pinned for each program, and so will be for its copy.

        But not the arrays of copies: each copy has its own.
        """
        return {
            number: frozenset(
                map_id for _, map_id, is_of_copies in self._pinned_for(number) if not is_of_copies
            )
            for number in self.ours
        }

    def _pinned_for(self, number: int) -> Iterator[tuple[str, int, bool]]:
        """Yield path and id of the maps that are pinned for a program, and which are of copies."""
        paths = self.folder.maps_for(number) if self.folder is not None else ()
        by_id = {map_id: path for path, map_id in paths}
        for map_id, _, info in records.opened(by_id):
            is_named_so = info.name == LEAVES_MAP.encode() and info.type == MapType.PROG_ARRAY
            yield by_id[map_id], map_id, is_named_so and map_id not in self.web.authored

    def unpin_left_arrays(self) -> None:
        """Unpin arrays of copies that no program uses: those of a command that was killed.

        Under the lock.
        """
        for number in self.ours:
            for path, map_id, is_of_copies in list(self._pinned_for(number)):
                if is_of_copies and map_id not in self.web.arrays:
                    os.unlink(path)


def require_settled(found: HookStatus, what: str) -> None:
    """Refuse while a change waits to be confirmed: what comes back then is counted otherwise.

    Raises:
        UsageError: one waits.
    """
    if is_waiting(found):
        raise UsageError(
            what,
            cause="a change on it waits to be confirmed",
            remedy=f"confirm it first: {command_for('confirm', found.interface)}",
        )


def is_waiting(found: HookStatus) -> bool:
    """Whether a change waits to be confirmed."""
    programs = (*found.attached, *found.programs)
    return any(each.seconds_to_revert is not None for each in programs)


def _hook_of(attached: AttachedProgram) -> Hook:
    assert attached.record is not None, "it is known to be ours by it"
    return attached.record.record.hook


def _only_queue(attached: AttachedProgram) -> int | None:
    """Return the RX queue that a program was attached for, if that is a single one."""
    queues = attached.record.record.queues if attached.record is not None else None
    return queues[0] if queues is not None and len(queues) == 1 else None


def why_no_copy(foreign: AttachedProgram) -> str:
    """Return why no copy can be made of a program that xdpkit did not attach."""
    if foreign.owner is Owner.LIBXDP:
        return "it is libxdp's dispatcher, and xdpkit did not load the programs in it"
    if foreign.owner is Owner.XDPKIT:
        return "nothing was written down about it (before Linux 5.10 it cannot be)"
    return "xdpkit did not load it, and has not its instructions"
