# SPDX-License-Identifier: Apache-2.0
"""Copies of programs that are tail-called (leaves), beside those of the ones that call them.

Here they are said to count; what reports frames is exchanged in the same way (:mod:`.work`).

A leaf that only main functions call is counted in the place where it is: its copy goes into the
slot of the array, so that whoever changes the array later changes what is called. The kernel has
no compare-and-exchange for a slot: what somebody else puts there in the few microseconds between a
look and the copy's coming is lost. What comes after the copy stays. An array that a
subprogram tail-calls through, too, has to stay as it is, since what its programs return there is
no action (:mod:`xdpkit.rewrite.tailcalls`). Main functions then get an array of copies, which is as
the other one was when counting was enabled.

An array that programs use which are not on the hook is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from xdpkit import __version__
from xdpkit.errors import ObjectFormatError, RequirementUnmet, UsageError, XdpkitError
from xdpkit.hook import records
from xdpkit.hook.copies import LEAVES_MAP, Counters, counted_copy, uncounted_copy
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.reach import Hook, OtherUse, Reached, Web, used_by_others
from xdpkit.hook.record import Origin, Record
from xdpkit.hook.settings import Counting
from xdpkit.hook.work import NOTHING as NO_WORK
from xdpkit.hook.work import Work
from xdpkit.kernel.kfuncs import throw_in
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.negotiation import Policy
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.hook.record import StoredRecord
    from xdpkit.interfaces import Interface
    from xdpkit.kernel.image import Image
    from xdpkit.rewrite import CountingPlan


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with what a hook's programs reach.

    Attributes:
        counted: the programs that are to count.
        in_place: the arrays whose programs are to be copies that count.
        split: those that main functions get another array for.
        loads: for each program that is to count, its loads (by slot) of arrays that are split.
        not_counted: what is not counted, in sentences.
    """

    counted: frozenset[int]
    in_place: frozenset[int]
    split: frozenset[int]
    loads: Mapping[int, Mapping[int, int]]
    not_counted: tuple[str, ...]

    @property
    def arrays_of_copies(self) -> list[int]:
        """The arrays that main functions get another one for."""
        return self.arrays_for(self.loads)

    def arrays_for(self, programs: Iterable[int]) -> list[int]:
        """Return the arrays that main functions of some programs get another one for."""
        loads = (self.loads.get(program, {}) for program in programs)
        return sorted({array for each in loads for array in each.values()})


NOTHING = Plan(frozenset(), frozenset(), frozenset(), {}, ())


def plan(
    web: Web,
    firsts: Collection[int],
    hooks: Collection[Hook],
    foreign: Mapping[int, OtherUse] | None = None,
    *,
    verb: str = "counted",
) -> Plan:
    """Return what is to be done so that each packet is counted once.

    Args:
        web: the hook's programs, and what they reach.
        firsts: those that serve packets.
        hooks: the hook, by all its names.
        foreign: what :func:`~xdpkit.hook.reach.used_by_others` says; None: it is asked.
        verb: what is to be done with what they return, for sentences.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    if not web.arrays:
        return replace(NOTHING, counted=frozenset(firsts))
    if foreign is None:
        foreign = used_by_others(web, hooks)
    notes: dict[str, None] = {}
    plans: dict[int, CountingPlan] = {}
    for first in firsts:
        try:
            plans[first] = _plan_for(first, web, verb)
        except (ObjectFormatError, RequirementUnmet) as error:
            notes[not_counted(web.programs[first].name, first, error, verb)] = None
    arrays = {array for each in plans.values() for array in each.arrays}
    originals = {array for each in plans.values() for array in each.original_arrays}
    for array in sorted(arrays & foreign.keys()):
        notes[
            f"What is reached through program array {_named(array, web)} is not {verb}:"
            f" {foreign[array].reason}."
        ] = None
    split = (arrays & originals) - foreign.keys()
    loads = {
        program: {slot: array for slot, array in found.items() if array in split}
        for each in plans.values()
        for program, found in each.loads.items()
    }
    for each in plans.values():
        notes.update(dict.fromkeys(each.not_counted))
    return Plan(
        counted=frozenset(number for each in plans.values() for number in each.counted),
        in_place=frozenset(arrays - originals - foreign.keys()),
        split=frozenset(split),
        loads={program: found for program, found in loads.items() if found},
        not_counted=tuple(notes),
    )


def without_copies(wanted: Plan, web: Web, verb: str = "counted") -> Plan:
    """Return a plan in which main functions get no arrays of their own."""
    notes = (
        f"What is reached through program array {_named(array, web)} is not {verb}: a subprogram"
        " tail-calls through it, and main functions cannot have an array of their own."
        for array in wanted.arrays_of_copies
    )
    return replace(wanted, loads={}, split=frozenset(), not_counted=(*wanted.not_counted, *notes))


def _plan_for(first: int, web: Web, verb: str) -> CountingPlan:
    from xdpkit import rewrite

    members = {}
    throw = None
    for number in web.reached_from(first):
        program = web.programs.get(number)
        if program is None:
            continue
        body = None
        if program.image is not None:
            image = program.image
            body = rewrite.Body(image.code, image.func_info, image.line_info)
            throw = throw if throw is not None else throw_in(image.code)
        members[number] = rewrite.Member(program.name, body)
    return rewrite.plan_counting(first, members, web.arrays, throw=throw, verb=verb)


def later_changes(array: int, web: Web) -> str:
    """Return the sentence about an array that main functions get another one for."""
    return (
        f"Later changes of program array {_named(array, web)} reach main functions only when"
        " counting is enabled again: a subprogram tail-calls through it, too, so that they have an"
        " array of their own."
    )


def _named(array: int, web: Web) -> str:
    return f"{web.names[array]} (id {array})"


def require_understood(program: Reached, hooks: Collection[Hook], what: str) -> None:
    """Refuse to make a copy of a program of which a later version knows more than this one.

    Raises:
        RequirementUnmet: a later version wrote that down with it.
    """
    stored = program.record_for(hooks)
    if stored is not None and stored.unknown:
        version = stored.record.origin.xdpkit
        raise RequirementUnmet(
            what,
            cause=f"xdpkit {version} wrote down more about {program.name} (id {program.id}) than"
            " this version understands",
            remedy=f"use xdpkit {version}",
        )


def image_to_copy(program: Reached, hooks: Collection[Hook], work: Work) -> Image:
    """Return what a copy of a program can be made of.

    Args:
        program: the program. hooks: the hook, by all its names.
        work: what is to be done, for errors.

    Raises:
        RequirementUnmet: nobody kept it; or a later version wrote down with the program what this
            one does not know.
    """
    what = work.what(program.name)
    require_understood(program, hooks, what)
    if program.image is None:
        raise RequirementUnmet(
            what, cause=program.problem or "its instructions were not kept with it"
        )
    return program.image


def not_counted(name: str, number: int, error: XdpkitError, verb: str = "counted") -> str:
    """Return the sentence that says why what a program returns is not counted, or reported."""
    remedy = f"; {error.remedy}" if error.remedy else ""
    return f"What {name} (id {number}) returns is not {verb}: {error.cause}{remedy}."


def bytes_not_counted(name: str, number: int, error: XdpkitError) -> str:
    """Return the sentence that says why only the packets of a program are counted."""
    return (
        f"What {name} (id {number}) returns is counted, but its bytes are not counted:"
        f" {error.cause}."
    )


def _counted_on(name: str, number: int, error: XdpkitError) -> str:
    """Return the sentence that says why a program goes on counting."""
    remedy = f"; {error.remedy}" if error.remedy else ""
    return f"What {name} (id {number}) returns is still counted: {error.cause}{remedy}."


class Exchanges:
    """What copies have taken the place of in program arrays: put back if the block fails."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._undo.close()
        self.close()

    def close(self) -> None:
        """Let it stay."""
        self._undo.pop_all()
        self._kept.close()

    def callback(self, undo: Callable[[], object]) -> None:
        """Have something else undone, too."""
        self._undo.callback(undo)

    def add(self, array: int, slot: int, before: Program, copy: int) -> None:
        """Take over the program that was in a slot, in which there is a copy now."""
        self._kept.enter_context(before)
        self._undo.callback(_put_back, array, slot, before, copy)


def _put_back(number: int, slot: int, before: Program, copy: int) -> None:
    with suppress(UsageError), Map.from_id(number) as array:
        if array.get(slot) == copy:
            array[slot] = before


@dataclass(frozen=True, slots=True)
class Terms:
    """How the programs of a hook are to be exchanged.

    Attributes:
        interface: whose hook it is. hooks: all names of the hook.
        mode, via: how its programs are attached.
        work: what its copies are to do.
        queues: how many RX queues are told apart.
        held: for each program that serves packets, the maps that something has to hold for the
            sake of what it tail-calls.
        alone: those of these programs that serve a single RX queue, and the queue.
        coming: the program that is about to be attached; its record is not written here.
        begins: whether nothing that counts is still attached: what was counted by an attachment
            that has ended is not the next one's.
        spared, anew: as :func:`~xdpkit.hook.exchanging.exchange_copies` has them.
    """

    interface: Interface
    hooks: frozenset[Hook]
    mode: Mode
    via: Via
    work: Work
    queues: int
    held: Mapping[int, AbstractSet[int]]
    alone: Mapping[int, int] = field(default_factory=dict)
    coming: Program | None = None
    begins: bool = False
    spared: frozenset[Hook] = frozenset()
    anew: bool = False


class Copies:
    """The copies that a change of what they do takes: a context manager that owns them.

    Attributes:
        notes: what could not be done, in sentences.
        put: the programs that were put into program arrays, by array and slot.
        exchanges: what they took the place of.
    """

    def __init__(self, web: Web, wanted: Plan, terms: Terms) -> None:
        self.notes = dict.fromkeys(wanted.not_counted)
        self.put: dict[tuple[int, int], int] = {}
        self.exchanges = Exchanges()
        self._web = web
        self._plan = wanted
        self._terms = terms
        self._made: dict[tuple[int, Work], Program | None] = {}
        # What each copy counts, by its id.
        self._counting: dict[int, Counting] = {}
        # Those that main functions get, by the id of the array that each is made from.
        self._arrays: dict[int, Map] = {}

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        for each in (*self._made.values(), *self._arrays.values()):
            if each is not None:
                each.close()
        self._made.clear()
        self._arrays.clear()

    def take(self, number: int, work: Work) -> tuple[Program, Counting] | None:
        """Hand over the copy that takes the place of a program, if there is one.

        Returns it, and what it counts.
        """
        copy = self.instead_of(number, work)
        self._made[number, work] = None
        return None if copy is None else (copy, self._counting[copy.id])

    def work_of(self, number: int) -> Work:
        """Return what the copy of a program is to do, of all that is to be done."""
        program = self._web.programs[number]
        return self._terms.work.of(program.logical_id_for(self._terms.hooks), program.name)

    def instead_of(self, number: int, work: Work) -> Program | None:
        """Return the copy that is to take the place of a program.

        None: it can stay, or no copy can be made, which is noted then. A program whose bytes cannot
        be counted gets a copy that counts packets, and so on (:meth:`.Work.choices`).

        Raises:
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        if (number, work) not in self._made:
            program = self._web.programs[number]
            is_so = self._is_so(program, work)
            self._made[number, work] = None if is_so else self._best_copy(program, work)
        return self._made[number, work]

    def _best_copy(self, program: Reached, work: Work) -> Program | None:
        refused: XdpkitError | None = None
        for each in work.choices():
            if refused is not None and self._is_so(program, each):
                self._note(program, work, each, refused)
                return None
            try:
                copy = self._copy(program, each)
            except (ObjectFormatError, RequirementUnmet) as error:
                refused = error if refused is None or each.reader is not None else refused
                continue
            if refused is not None:
                self._note(program, work, each, refused)
            return copy
        assert refused is not None, "there is always something to try"
        self._note(program, work, None, refused)
        return None

    def _note(self, program: Reached, wanted: Work, got: Work | None, error: XdpkitError) -> None:
        """Take down what is less than wanted."""
        name, number = program.name, program.id
        logical_id = program.logical_id_for(self._terms.hooks)
        sentence = None
        if wanted.reader is not None:
            if got is None or got.reader is None:
                sentence = not_counted(name, logical_id, error, wanted.verb)
        elif not wanted:
            if program.counting_for(self._terms.hooks):
                sentence = _counted_on(name, number, error)
        elif got is None:
            sentence = not_counted(name, number, error)
        else:
            sentence = bytes_not_counted(name, logical_id, error)
        if sentence is not None:
            self.notes[sentence] = None

    def _is_so(self, program: Reached, work: Work) -> bool:
        terms = self._terms
        stored = program.record_for(terms.hooks)
        counting, ring = program.counting_for(terms.hooks), program.tap_for(terms.hooks)
        if work.reader is None and stored is not None and stored.record.hook in terms.spared:
            ring = 0
        if (counting, ring) != (work.counting, work.ring):
            return False
        if (work and terms.begins) or (work.reader is not None and terms.anew):
            return False
        # An array of copies is made anew each time: what it was made from may have changed.
        return not work or not self._needs_arrays(program.id)

    def _needs_arrays(self, number: int) -> bool:
        """Whether a program loads an array of copies, or is to hold one for what it reaches."""
        if number in self._terms.held:
            return bool(self._plan.arrays_for(self._web.reached_from(number)))
        return number in self._plan.loads

    def _copy(self, program: Reached, work: Work) -> Program:
        terms = self._terms
        stored = program.record_for(terms.hooks)
        image = image_to_copy(program, terms.hooks, terms.work)
        coming = terms.coming if terms.coming and terms.coming.id == program.id else None
        held = set(terms.held.get(program.id, ()))
        if work:
            if program.id in terms.held:
                held |= {array.id for array in self._arrays_for(program.id)}
            loads = self._plan.loads.get(program.id, {})
            copy = counted_copy(
                image,
                work=work,
                entries=terms.queues,
                interface=terms.interface,
                logical_id=program.logical_id_for(terms.hooks),
                queue=terms.alone.get(program.id),
                counted=self._counted_by(program),
                arrays={slot: self._array(each).id for slot, each in loads.items()},
                held=held,
                like=coming,
            )
        else:
            copy = uncounted_copy(
                image,
                interface=terms.interface,
                counted=self._counted_by(program),
                held=held,
                like=coming,
            )
        with ExitStack() as unless_recorded:
            unless_recorded.enter_context(copy)
            if coming is not None:
                records.keep_image(coming)
                records.share_image(copy, coming.fileno())
            else:
                with suppress(UsageError), Program.from_id(program.id) as present:
                    records.share_image(copy, present.fileno())
                note = records.write(copy, self._record(program, stored, work), stored)
                if note is not None:
                    # Without it nobody would know what the copy is.
                    raise RequirementUnmet(f"copy {program.name}", cause=note)
            unless_recorded.pop_all()
        self._counting[copy.id] = work.counting
        return copy

    def _counted_by(self, program: Reached) -> tuple[Counters, ...]:
        """Return where a program has counted so far on this hook.

        One that serves packets has its own counters: it can be there several times, by one logical
        id. Of one that is tail-called there is a copy in each array.
        """
        terms = self._terms
        coming = terms.coming is not None and terms.coming.id == program.id
        if coming or terms.begins:
            return ()
        if program.id in terms.held:
            return program.counters_for(terms.hooks)
        logical = program.logical_id_for(terms.hooks)
        found = {
            each
            for other in self._web.programs.values()
            if other.id not in terms.held and other.logical_id_for(terms.hooks) == logical
            for each in other.counters_for(terms.hooks)
        }
        return tuple(sorted(found, key=lambda each: each.id))

    def _record(self, program: Reached, stored: StoredRecord | None, work: Work) -> Record:
        terms = self._terms
        record = stored.record if stored is not None else None
        if record is None:
            # A leaf's first copy.
            record = Record(
                program=program.name,
                interface="",
                ifindex=0,
                netns_cookie=0,
                mode=terms.mode,
                via=terms.via,
                cookie=0,
                attached_at=time.time_ns(),
                revert_at=0,
                reverts_to=0,
                origin=Origin(None, None, {}, Policy.DEFAULT.value, False, __version__),
                negotiation=None,
            )
        return replace(
            record,
            interface=terms.interface.name,
            ifindex=terms.interface.index,
            netns_cookie=terms.interface.netns_cookie,
            logical_id=program.logical_id_for(terms.hooks),
            counting=work.counting,
            tap=work.ring,
        )

    def _array(self, number: int) -> Map:
        """Return the array that main functions get in place of one."""
        if number not in self._arrays:
            self._arrays[number] = Map.create(
                MapType.PROG_ARRAY,
                key_size=4,
                value_size=4,
                max_entries=self._web.sizes[number],
                name=LEAVES_MAP,
            )
        return self._arrays[number]

    def _arrays_for(self, number: int) -> list[Map]:
        """Return the arrays of copies that something has to hold for the sake of a program."""
        return [self._array(each) for each in self._plan.arrays_for(self._web.reached_from(number))]

    def make_arrays(self) -> dict[int, list[Map]]:
        """Make and fill the arrays of copies; return which a program is to hold, by program.

        An array loses its programs with its last holder. If one of the programs that would hold it
        has no copy, nobody could: then main functions go on with the original arrays, and what
        those hold is not counted.

        Raises:
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        holders = [number for number in self._terms.held if self._needs_arrays(number)]
        if not all(self.instead_of(number, self.work_of(number)) for number in holders):
            self._close()
            self._plan = without_copies(self._plan, self._web, self._terms.work.verb)
            self.notes.update(dict.fromkeys(self._plan.not_counted))
            return {}
        for number in self._plan.arrays_of_copies:
            self._fill(self._array(number), self._web.arrays[number])
            if self._terms.work.reader is None:
                self.notes[later_changes(number, self._web)] = None
        return {number: self._arrays_for(number) for number in holders}

    def put_leaves(self) -> None:
        """Put into the program arrays what is to be there. The arrays of copies are held by now.

        Raises:
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        for number, contents in self._web.arrays.items():
            if self._web.is_of_copies(number):
                continue
            for slot, member in contents.items():
                is_counted = number in self._plan.in_place and member in self._plan.counted
                program = self._web.programs.get(member)
                if program is None:
                    continue
                work = self.work_of(member) if is_counted else NO_WORK
                # What xdpkit never copied for this hook does nothing more here.
                if not work and program.record_for(self._terms.hooks) is None:
                    continue
                copy = self.instead_of(member, work)
                if copy is not None:
                    self._put(number, slot, member, copy)

    def _put(self, number: int, slot: int, member: int, copy: Program) -> None:
        """Exchange a member of a program array, if it is still there."""
        with Map.from_id(number) as array, ExitStack() as unless_put:
            before = None
            with suppress(UsageError):
                before = unless_put.enter_context(Program.from_id(member))
            if before is None or array.get(slot) != member:
                return
            array[slot] = copy
            # Somebody else may have put something there since.
            if array.get(slot) == copy.id:
                self.put[number, slot] = copy.id
                unless_put.pop_all()
                self.exchanges.add(number, slot, before, copy.id)

    def _fill(self, array: Map, contents: Mapping[int, int]) -> None:
        """Fill an array of copies; a member that cannot be counted is there as it is."""
        for slot, member in contents.items():
            with suppress(UsageError), Program.from_id(member) as present:
                copy = None
                if member in self._plan.counted:
                    copy = self.instead_of(member, self.work_of(member))
                array[slot] = copy or present
                if copy is not None and copy.counters is not None:
                    # The copy goes when counting is switched off; what it counted is to stay.
                    present.bind(copy.counters)
