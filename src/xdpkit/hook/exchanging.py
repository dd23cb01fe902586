# SPDX-License-Identifier: Apache-2.0
"""Exchange a hook's programs, and those that they tail-call, for copies that do something more.

Or for copies that do so no longer. A copy takes the place of a program in one step, on the hook, in
the slot of its queues or of a program array. What is half done when a command is killed, the next
one goes on with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.hook import roots
from xdpkit.hook.holding import open_program
from xdpkit.hook.homes import ids_on
from xdpkit.hook.members import maps_that_need_a_holder
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.present import opened
from xdpkit.hook.view import require_settled
from xdpkit.hook.writing import forget
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.syscalls.fd import Fd

if TYPE_CHECKING:
    from xdpkit.hook.leaves import Copies
    from xdpkit.hook.pins import Pins
    from xdpkit.hook.reach import Hook
    from xdpkit.hook.view import View
    from xdpkit.hook.work import Work


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of an exchange.

    Attributes:
        notes: what could not be done, in sentences.
        ids: the programs on the interface, and arrays: those in the slots of program arrays that
            are not xdpkit's own. They are as they were found, with what was put there; what
            somebody else changed meanwhile differs.
    """

    notes: tuple[str, ...]
    ids: tuple[int | None, ...]
    arrays: Mapping[int, Mapping[int, int]]


def exchange_copies(
    view: View,
    pins: Pins,
    work: Work,
    what: str,
    *,
    spared: Collection[Hook] = (),
    anew: bool = False,
) -> Exchanged:
    """Have a hook's programs do some work, and no other. Under the lock.

    Args:
        view: the hook; its pins are given unless there is no folder at all.
        pins: all pins.
        work: what the copies are to do.
        what: what is being tried, for errors.
        spared: the hooks whose readers are there: what reports to them is left so where it counts
            as it should.
        anew: whether what reports is exchanged even if it reports to the same ring: whoever it
            was made for may have wanted something else.

    Raises:
        UsageError: a change waits to be confirmed. What waits must not be exchanged, for whoever
            is to undo it would not find it.
        HookBusy: another process changed the hook meanwhile.
        RequirementUnmet: pins are impossible.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    require_settled(view.found, what)
    return _Exchange(view, pins, what, frozenset(spared), anew).make(work)


class _Exchange:
    def __init__(
        self, view: View, pins: Pins, what: str, spared: frozenset[Hook], anew: bool
    ) -> None:
        self._view = view
        self._pins = pins
        self._what = what
        self._spared = spared
        self._anew = anew
        self._ids = {number: number for number in ids_on(view.found.interface)}

    def make(self, work: Work) -> Exchanged:
        with (
            self._copies(work) as copies,
            # What is half done is for the next command, and not undone.
            contextlib.closing(copies.exchanges),
        ):
            self._hold(copies.make_arrays())
            copies.put_leaves()
            for number in self._view.ours:
                copy = copies.instead_of(number, copies.work_of(number))
                if copy is not None:
                    self._put(number, copy)
            return Exchanged(
                notes=tuple(copies.notes),
                ids=tuple(self._ids[each] for each in ids_on(self._view.found.interface)),
                arrays=self._arrays(copies.put),
            )

    def _arrays(self, put: Mapping[tuple[int, int], int]) -> Mapping[int, Mapping[int, int]]:
        web = self._view.web
        found = {
            number: dict(contents)
            for number, contents in web.arrays.items()
            if not web.is_of_copies(number)
        }
        for (number, slot), copy in put.items():
            found[number][slot] = copy
        return found

    def _copies(self, work: Work) -> Copies:
        from xdpkit.hook import leaves

        view = self._view
        hook = next(iter(view.found.attached), None)
        terms = leaves.Terms(
            interface=view.found.interface,
            hooks=view.hooks,
            mode=hook.mode if hook is not None else Mode.NATIVE,
            via=(hook.via if hook is not None else None) or Via.LINK,
            work=work,
            queues=view.queues,
            held=view.held,
            alone=view.alone,
            spared=self._spared,
            anew=self._anew,
        )
        return leaves.Copies(view.web, view.plan_for(work.verb) if work else leaves.NOTHING, terms)

    def _hold(self, arrays: Mapping[int, Iterable[Map]]) -> None:
        """Have arrays of copies held before leaves use them: for the programs that are there still.

        If the copies do not get there, nothing is lost.
        """
        for number, made in arrays.items():
            with open_program(number, self._view.found.interface, self._what) as present:
                program = Program(Fd.duplicate(present))
            with program, self._keeping(number, program, list(made)):
                pass

    def _keeping(
        self, number: int, program: Program, maps: list[Map]
    ) -> AbstractContextManager[None]:
        """Pin maps for a program that is, or will be, where another one is now."""
        view, pins, folder = self._view, self._pins, self._view.folder
        if folder is None and maps:
            pins.vacate(view.found.interface, self._what)
        home = folder.path if folder is not None else pins.home_of(view.found.interface)
        is_on_hook = view.ours[number] in view.found.attached
        # By the program's own pin, those of its maps are seen to be in use where no link of ours
        # says so.
        holder = bool(maps) and is_on_hook and (folder is None or folder.link is None)
        return pins.keeping(maps, home, self._what, program=program, holder=holder)

    def _put(self, number: int, copy: Program) -> None:
        """Put a copy in the place of a program, in one step for each queue."""
        view, what = self._view, self._what
        found, attached = view.found, view.ours[number]
        with contextlib.ExitStack() as during:
            during.enter_context(self._keeping(number, copy, maps_that_need_a_holder(copy)))
            if attached in found.attached:
                holding, compared, _ = during.enter_context(opened(attached, found, None, what))
                holding.swap(copy.fileno(), compared, what)
                self._ids[number] = copy.id
                forget(attached, compared)
                return
            root = found.root.root if found.root is not None else None
            assert root is not None, "what is not on the hook itself is run by a root"
            array = during.enter_context(roots.open_array(root, what))
            old = during.enter_context(open_program(number, found.interface, what))
            for queue in view.places[number]:
                if roots.member_in(array, root, queue) == number:
                    roots.put(array, root, queue, copy, what)
            forget(attached, old.fileno())
