# SPDX-License-Identifier: Apache-2.0
"""Change which programs serve which RX queues, on a hook that has programs already.

What serves one queue under a root is changed in one step: a slot of its program array. Several are
changed in one step, too, by another root that takes the place of the first one; and so is a change
that may be undone, which is undone by the first root's coming back. The first program of a queue
takes the place of the global one, which goes on under the root; when the last one goes, the global
one comes back.

Each step is such that a crash leaves all of the change or nothing. A slot has no
compare-and-swap: the lock on the pins keeps other commands of xdpkit out, and nobody else can open
the array by its pin.
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import pins as pinned
from xdpkit.hook import revert, roots, scope, seats
from xdpkit.hook.delete import Delete, Detached
from xdpkit.hook.holding import exchanged, open_program
from xdpkit.hook.inherited import Inheritance
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.opening import open_with_maps
from xdpkit.hook.place import Place
from xdpkit.hook.placing import Coming, exchange
from xdpkit.hook.present import Expected, expected_id, require_understood
from xdpkit.hook.repair import repair, sweep
from xdpkit.hook.request import Request, Terms
from xdpkit.hook.rooting import (
    new_root,
    note_on_idle_queues,
    note_on_tail_calls,
    require_unbound,
)
from xdpkit.hook.roots import NotAlike
from xdpkit.hook.scope import Scope, Seat, seats_of
from xdpkit.hook.seats import Seats, require_unchanged
from xdpkit.hook.state import AttachedProgram, HookStatus, command_for
from xdpkit.hook.unread import ends_unread
from xdpkit.hook.writing import forget_member, settle
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.kernel.programs import Program

if TYPE_CHECKING:
    from xdpkit.obj import ProgramSpec


class _Rearrangement:
    """What the changes have in common.

    Attributes:
        interface: the interface as it was seen.
        queues: the RX queues that are meant; None: all that have no program of their own.
        before: the programs that were there, by RX queue.
        notes: what there is to know, in sentences.
    """

    _OTHERWISE = "name the queues: --queue, hook.queues"
    _program: ProgramSpec | Program | None = None

    def __init__(self, place: Place, now: Seats, queues: Scope, what: str) -> None:
        self.what = what
        self.interface = now.interface
        self.queues = queues
        self.notes: list[str] = []
        self._place = place
        self._now = now
        self._inherited: Inheritance | None = None
        self._seats = seats_of(queues)
        if queues is not None:
            scope.require(queues, self.interface, what)
        self._taken = now.taken(self._seats, what)

    @property
    def before(self) -> dict[Seat, AttachedProgram]:
        seen = {number: self._now.look_at(number) for number in set(self._taken.values())}
        return {seat: seen[number] for seat, number in self._taken.items()}

    @property
    def mode(self) -> Mode:
        return self._now.hook.mode

    @property
    def via(self) -> Via:
        return self._now.hook.via or Via.LINK

    def check_revert(self, revert_after: float | None) -> None:
        """Refuse a time after which it could not be undone.

        Raises:
            UsageError: it makes no sense, or another change waits.
            MissingPrivilege: undoing takes CAP_SYS_ADMIN.
        """
        revert.check(
            revert_after, self.what, stays=True, present=self._now.hook, program=self._program
        )

    def _note(self, text: str | None) -> None:
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def _require_taken(self, expected: int | None) -> None:
        """Refuse if a seat is free, or has another program than the expected one.

        Raises:
            UsageError: it is free. HookBusy: it has another program.
        """
        free = [seat for seat in self._seats if seat not in self._taken]
        if free:
            raise UsageError(self.what, cause=self._free(free), remedy=self._how_else())
        seats.require_expected(self._now, self._taken, expected, self.what)

    def _free(self, free: Sequence[Seat]) -> str:
        if self.queues is None:
            mine = [each for each in self._now.all(self.what) if each is not None]
            have = "has a program of its own" if len(mine) == 1 else "have programs of their own"
            return f"it has none: only {seats.describe(mine)} {have}" if mine else "it has none"
        has = "has no program of its own" if len(free) == 1 else "have no programs of their own"
        return f"{seats.describe(free)} {has}"

    def _how_else(self) -> str:
        if self.queues is not None:
            root = self._place.pin_root
            return f"see which have: {command_for('status', self.interface, pin_root=root)}"
        return self._OTHERWISE

    def _look_again(self, found: HookStatus) -> Seats:
        """Return the seats as they are now, if nothing about those that matter has changed."""
        now = seats.look_again(self._place, found, self._now, self.what)
        require_unchanged(now, self._seats, self._taken, self.what)
        return now

    def _set_seat(self, coming: Coming | None) -> None:
        """Put a program on the only seat that is meant, or empty it. One step.

        Raises:
            NotAlike: the kernel does not take it beside the others.
        """
        (seat,) = self._seats
        pins, what = self._place.pins, self.what
        with contextlib.ExitStack() as during:
            during.enter_context(pins.locked(what, create=True))
            interface = self._place.resolve_again(self.interface)
            self._require_inherited()
            now = self._look_again(repair(interface, pins, what))
            root = now.root
            assert root is not None, "it was there, and is the same program"
            array = during.enter_context(roots.open_array(root, what))
            home = self._home(now)
            # First: what undoes the change before must not undo this one with it.
            is_settled = settle(now.hook)
            if coming is not None:
                with coming.pinned(pins, home, what, holder=False):
                    roots.put(array, root, seat, coming.program, what)
            else:
                roots.put(array, root, seat, None, what)
            left = roots.members_in(array, root).values()
            gone = set(self._taken.values()).difference(left)
            self._forget(gone)
            if is_settled:
                # All that would have come back goes.
                sweep(now.interface, pins)
            else:
                pinned.unpin(home, gone)

    def _home(self, now: Seats) -> str:
        """Return the folder of the hook's pins."""
        if now.hook.pinned is not None:
            return os.path.dirname(now.hook.pinned)
        folder = self._place.pins.folder_of(now.interface)
        return folder.path if folder is not None else self._place.pins.home_of(now.interface)

    def _rebuild(
        self,
        then: Mapping[Seat, int],
        before: Mapping[Seat, int],
        coming: Coming | None,
        revert_after: float | None,
    ) -> int | None:
        """Put another root on the hook, for these programs; return the id of its link."""
        known = {coming.program.id: coming.program} if coming is not None else {}
        with contextlib.ExitStack() as resources:
            for number in set(then.values()) - set(known):
                known[number] = resources.enter_context(self._open(number))
            root = resources.enter_context(
                new_root(
                    self.interface,
                    self.mode,
                    self.via,
                    {seat: known[number] for seat, number in then.items()},
                    self.what,
                    runs=(coming,) if coming is not None else (),
                    before=self._now.root,
                    revert_after=revert_after,
                    reverts_to=self._now.hook.program.id,
                )
            )
            revert.require_record(root.record, revert_after, self.what)
            return self._exchange(root, then, before, waits=revert_after is not None)

    def _open(self, number: int) -> Program:
        """Open a program that stays."""
        if self._now.root is not None:
            return Program(open_program(number, self.interface, self.what))
        program = open_with_maps(number, self.interface, self.what)
        self._note(note_on_tail_calls(program))
        return program

    def _exchange(
        self,
        coming: Coming,
        then: Mapping[Seat, int],
        before: Mapping[Seat, int],
        *,
        waits: bool = False,
    ) -> int | None:
        """Put a root, or a program for all queues, in the place of what is on the hook."""
        link_id = exchange(
            self._place,
            self.interface,
            self._now.hook.program.id,
            coming,
            self.what,
            via=self.via,
            stays=self._now.root is None,
            check=lambda found: self._require_all(found, before),
            note=self._note,
        )
        if not waits:
            self._forget(set(before.values()).difference(then.values()))
        return link_id

    def _require_inherited(self) -> None:
        """Refuse if what comes was made for other settings than there are now."""
        if self._inherited is not None:
            self._inherited.require_unchanged(self.what)

    def _require_all(self, found: HookStatus, before: Mapping[Seat, int]) -> None:
        self._require_inherited()
        now = seats.look_again(self._place, found, self._now, self.what)
        if now.all(self.what) != before:
            raise exchanged(self.what, found.interface)

    def _forget(self, gone: Iterable[int]) -> None:
        """Remove what was written down with programs that serve nothing here any more."""
        for number in gone:
            forget_member(number, self.interface)


class _Arrival(_Rearrangement, abc.ABC):
    """A program that comes.

    Attributes:
        negotiation: what came of holding it against the interface.
    """

    _VERB = ""

    def __init__(
        self,
        place: Place,
        now: Seats,
        program: ProgramSpec | Program,
        queues: Scope,
        what: str,
        terms: Terms,
    ) -> None:
        super().__init__(place, now, queues, what)
        self._program = program
        self._request = Request(program, self.interface, what, pin_root=place.pin_root, **terms)

    def _negotiate(self) -> None:
        """Hold the program against the interface.

        Raises:
            RequirementUnmet: the interface cannot do what it needs; or pins are impossible.
        """
        self.negotiation = self._request.negotiate(self.mode, self.via)
        self._request.require_allowed(self.negotiation)
        self._note(self._request.note_on_port())
        self._note(self._place.pins.require_lasting(self.what, alternative=False))
        self._note(note_on_idle_queues(self.queues, self.interface))

    @abc.abstractmethod
    def describe(self) -> str:
        """Return what would change, as a sentence."""

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": self._VERB,
            "program": self._request.program.name,
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "queues": None if self.queues is None else sorted(self.queues),
            "mode": self.mode.value,
            "via": self.via.value,
            "port": port.to_dict() if (port := self._request.port) else None,
            "before": [{**program.to_dict(), "qid": seat} for seat, program in self.before.items()],
            "negotiation": self.negotiation.to_dict(),
            "notes": self.notes,
        }

    @ends_unread
    def apply(self, *, revert_after: float | None = None) -> XdpProg:
        """Do it.

        Args:
            revert_after: seconds after which all queues have the programs again that they have now,
                unless :meth:`xdpkit.hook.Hook.confirm` is called before.

        Raises:
            HookBusy: the programs there are others meanwhile.
            VerifierError: the program did not load.
            RequirementUnmet: it cannot be run beside the others.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        self.check_revert(revert_after)
        request = self._request
        with contextlib.ExitStack() as resources:
            loaded = request.load(self.mode, resources)
            request.require_binding(loaded)
            require_unbound(loaded, self.what)
            self._note(note_on_tail_calls(loaded))
            self._inherited = Inheritance.of(self._place, self.interface, self._now.hook.pinned)
            coming = self._inherited.take_in(
                loaded,
                request,
                self.mode,
                self.via,
                self.negotiation,
                resources,
                queues=self.queues,
                keeps_maps=True,
                note=self._note,
            )
            with coming.forgotten_if_it_fails(), request.port_kept():
                link_id = self._place_it(coming, revert_after)
            members = contextlib.ExitStack()
            members.enter_context(request.members_held(loaded, self.mode))
            return XdpProg(
                place=self._place,
                interface=self.interface,
                mode=self.mode,
                via=self.via,
                program=coming.program,
                link=None,
                link_id=link_id,
                negotiation=self.negotiation,
                record=coming.record,
                pinned=self._now.hook.pinned,
                is_for_a_block=False,
                queues=self.queues,
                members=members,
                resources=resources.pop_all(),
                notes=tuple(self.notes),
            )

    def _place_it(self, coming: Coming, revert_after: float | None) -> int | None:
        is_one = len(self._seats) == 1 and self._now.root is not None
        if is_one and revert_after is None:
            # What cannot be beside the others may be alone: then another root can run it.
            with contextlib.suppress(NotAlike):
                self._set_seat(coming)
                return self._now.hook.link_id
        before = self._now.all(self.what)
        then = {**before, **dict.fromkeys(self._seats, coming.program.id)}
        return self._rebuild(then, before, coming, revert_after)


class AddBeside(_Arrival):
    """An attach that has been prepared, to a hook that has programs already."""

    _VERB = "attach"

    def __init__(
        self,
        place: Place,
        now: Seats,
        program: ProgramSpec | Program,
        *,
        queues: Scope,
        mode: Mode | str | Sequence[Mode | str] | None = None,
        via: Via | str | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the program against the interface.

        Raises:
            UsageError: the interface has no such queue; the hook is in another mode, or held
                otherwise; or the program is none for an interface.
            HookBusy: one of the queues has a program already.
            RequirementUnmet: the interface cannot do what the program needs; or pins are
                impossible.
        """
        name = getattr(program, "name", repr(program))
        what = f"attach {name} to {now.interface.name}"
        if queues is not None:
            what += f" for {scope.describe(queues)}"
        super().__init__(place, now, program, queues, what, terms)
        if now.root is not None:
            require_understood(now.hook, what)
        self._require_free()
        if mode is not None and self.mode not in Mode.choice(mode):
            raise UsageError(
                what,
                cause=f"the programs that are there are in {self.mode.value} mode, and an"
                " interface has one mode for all queues",
            )
        if via is not None and Via.parse(via) is not self.via:
            raise UsageError(what, cause=f"the hook is held by {_HELD[self.via]} already")
        self._negotiate()

    def _require_free(self) -> None:
        if not self._taken:
            return
        program = self._now.look_at(next(iter(self._taken.values())))
        taken = scope.ranges(seat for seat in self._taken if seat is not None)
        options = () if self.queues is None else ("--queue", taken)
        command = command_for("detach", self.interface, *options, pin_root=self._place.pin_root)
        whose = f"{self.interface.name} has a global program already"
        if self.queues is not None:
            have = "has" if len(self._taken) == 1 else "have"
            whose = f"{seats.describe(list(self._taken))} {have} a program already"
        raise HookBusy(
            self.what,
            cause=f"{whose}: {program.describe()}",
            remedy=f"replace it (xdpkit replace), or detach it first: {command}",
        )

    def describe(self) -> str:
        return (
            f"would attach {self._request.program.name} to {self.interface.name} in"
            f" {self.mode.value} mode, for {scope.describe(self.queues)}{self._request.as_port()}"
        )


_HELD = {Via.LINK: "a link", Via.NETLINK: "netlink"}


class ReplaceWithin(_Arrival):
    """A replacement that has been prepared, on a hook that has programs by RX queue."""

    _VERB = "replace"

    def __init__(
        self,
        place: Place,
        now: Seats,
        program: ProgramSpec | Program,
        *,
        queues: Scope,
        expected: Expected | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the program against the interface.

        Raises:
            UsageError: one of the queues has no program of its own; or the program is none for an
                interface.
            HookBusy: one of the queues has another program than the expected one.
            RequirementUnmet: the interface cannot do what the program needs; or pins are
                impossible.
        """
        name = getattr(program, "name", repr(program))
        what = f"replace {scope.program_of(queues)} on {now.interface.name} by {name}"
        super().__init__(place, now, program, queues, what, terms)
        self._require_taken(expected_id(expected, what))
        for present in (now.hook, *self.before.values()):
            require_understood(present, what)
        self._negotiate()

    def describe(self) -> str:
        gone = {program.program.id: program for program in self.before.values()}
        names = ", ".join(program.describe() for program in gone.values())
        return (
            f"would replace on {self.interface.name} for {scope.describe(self.queues)}: {names}, by"
            f" {self._request.program.name}{self._request.as_port()}"
        )


class DeleteFrom(_Rearrangement):
    """A detach that has been prepared, from a hook that has programs by RX queue."""

    _OTHERWISE = "name the queues (--queue, hook.queues), or take everything (--all, hook.clear)"

    def __init__(
        self,
        place: Place,
        now: Seats,
        *,
        queues: Scope,
        expected: Expected | None = None,
        keep_root: bool = False,
    ) -> None:
        """Look at the hook.

        Args:
            keep_root: leave the root on the hook even if no queue has a program of its own any
                more: some drivers reset their rings when what is on the hook is exchanged.

        Raises:
            UsageError: one of the queues has no program of its own.
            HookBusy: one of the queues has another program than the expected one.
        """
        what = f"detach {scope.program_of(queues)} from {now.interface.name}"
        super().__init__(place, now, queues, what)
        self._keep_root = keep_root
        self._require_taken(expected_id(expected, what))

    def describe(self) -> str:
        """Return what would change, as a sentence."""
        gone = {program.program.id: program for program in self.before.values()}
        names = ", ".join(program.describe() for program in gone.values())
        return f"would detach from {self.interface.name}, {scope.describe(self.queues)}: {names}"

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": "detach",
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "queues": None if self.queues is None else sorted(self.queues),
            "before": [{**program.to_dict(), "qid": seat} for seat, program in self.before.items()],
            "notes": self.notes,
        }

    @ends_unread
    def apply(self, *, revert_after: float | None = None) -> Detached:
        """Do it.

        Args:
            revert_after: seconds after which all queues have the programs again that they have now,
                unless :meth:`xdpkit.hook.Hook.confirm` is called before.

        Raises:
            HookBusy: the programs there are others meanwhile.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        self.check_revert(revert_after)
        gone = self.before
        before = self._now.all(self.what)
        then = {seat: number for seat, number in before.items() if seat not in self._seats}
        if not then and not self._keep_root:
            Delete(
                self._place,
                expected=self._now.hook.program.id,
                found=self._now.found,
                check=lambda found: self._require_all(found, before),
            ).apply(revert_after=revert_after)
        elif then.keys() == {None} and not self._keep_root and revert_after is None:
            with open_with_maps(then[None], self.interface, self.what) as program:
                self._exchange(Coming(program, None, keeps_maps=True), then, before)
        elif len(self._seats) == 1 and revert_after is None:
            self._set_seat(None)
        else:
            self._rebuild(then, before, None, revert_after)
        first = next(iter(gone.values()))
        return Detached(
            self.interface,
            self.mode,
            first.program,
            self._now.hook.link_id,
            tuple(self.notes),
            first.record,
            {seat: each.program for seat, each in gone.items()},
        )
