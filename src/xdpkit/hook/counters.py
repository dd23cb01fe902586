# SPDX-License-Identifier: Apache-2.0
"""Forced counters: what the programs on an interface return, by program, RX queue and action.

It is a setting of the interface, which programs that come later inherit. A program that is there
already is exchanged for a copy that counts (:mod:`xdpkit.hook.copies`) in one step, and for one
that does not when counting is switched off. A program of others is counted from outside, where the
kernel allows that (:mod:`xdpkit.hook.watching`). The setting comes first: a command that is killed
half-way leaves programs that are counted and others that are not, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet, UsageError, XdpkitError
from xdpkit.hook import pins as pinned
from xdpkit.hook import readers, unread, watching
from xdpkit.hook import settings as kept
from xdpkit.hook.exchanging import exchange_copies
from xdpkit.hook.looking import examine, member_of
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.repair import repair, sweep
from xdpkit.hook.settings import Counting, Settings
from xdpkit.hook.state import AttachedProgram, HookStatus, Owner, ProgramSummary
from xdpkit.hook.view import View, require_settled, why_no_copy
from xdpkit.hook.work import Work
from xdpkit.interfaces import Interface
from xdpkit.kernel.folder import BY_NAME
from xdpkit.kernel.maps import Map
from xdpkit.syscalls import privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.pins import HookFolder
    from xdpkit.hook.reach import Reached
    from xdpkit.rewrite import Counts, NoProgram


@dataclass(frozen=True, slots=True)
class ProgramCounts:
    """What a program has returned.

    Attributes:
        program: the program, as it runs now.
        name: its name, in full.
        logical_id: the id that it had when it was attached, or put into a program array.
        queues: the RX queues that it serves; None: all that no other program serves, or, of one
            that is tail-called only, those of its callers.
        called_by: logical ids of the programs that can tail-call it; empty for one that is not
            tail-called.
        per_queue: what it returned, by RX queue; those with packets only.
        with_bytes: whether bytes are counted, or have been.
    """

    program: ProgramSummary
    name: str
    logical_id: int
    queues: tuple[int, ...] | None
    called_by: tuple[int, ...]
    per_queue: Mapping[int, Counts]
    with_bytes: bool = False

    @property
    def total(self) -> Counts:
        """The sum over all RX queues."""
        from xdpkit.rewrite import COUNTED, Counts

        nothing = Counts((0,) * len(COUNTED), (0,) * len(COUNTED) if self.with_bytes else None)
        return _sum([nothing, *self.per_queue.values()])

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "prog": self.program.to_dict(),
            "name": self.name,
            "logical_id": self.logical_id,
            "queues": None if self.queues is None else list(self.queues),
            "called_by": list(self.called_by),
            "total": _counts_to_dict(self.total),
            "per_queue": {
                str(queue): _counts_to_dict(counts) for queue, counts in self.per_queue.items()
            },
        }


@dataclass(frozen=True, slots=True)
class CounterReport:
    """The counters of an interface at one moment.

    Attributes:
        interface: the interface.
        is_enabled: whether its programs are counted; None: that cannot be seen from here.
        count_bytes: whether bytes are, too.
        programs: what they have returned: those on the hook, and those that they tail-call.
        no_program: packets for which there was no program, by RX queue; those with any.
        not_counted: what is not counted, and why, in sentences.
        taken_at: when it was read, in nanoseconds of CLOCK_BOOTTIME.
        has_uncounted: whether there are programs on the hook that have not counted anything.
    """

    interface: Interface
    is_enabled: bool | None
    count_bytes: bool
    programs: tuple[ProgramCounts, ...]
    no_program: Mapping[int, NoProgram]
    not_counted: tuple[str, ...]
    taken_at: int
    has_uncounted: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "enabled": self.is_enabled,
            "bytes": self.count_bytes,
            "taken_at": self.taken_at,
            "programs": [program.to_dict() for program in self.programs],
            "no_program": {
                str(queue): {"packets": found.packets, "bytes": found.bytes}
                for queue, found in self.no_program.items()
            },
            "not_counted": list(self.not_counted),
        }


class Counters:
    """The counters of an interface's hook; see :attr:`xdpkit.Hook.counters`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._explained: tuple[object, tuple[str, ...]] = (None, ())

    def enable(self, *, count_bytes: bool = False) -> CounterReport:
        """Count what the programs on the interface return, and those that are attached later.

        Each program is exchanged for a copy that counts, in one step; what was counted before
        counts on. What cannot be counted is said in the report. If it is on already, this counts
        bytes, too, or no longer, and what has come into program arrays meanwhile.

        A program whose frames are reported meanwhile (:meth:`xdpkit.Hook.tap`) is left alone where
        it counts as it should. Where it does not, or a subprogram tail-calls through an array that
        it uses, it reports again when its reader has looked at the hook.

        Args:
            count_bytes: whether to count the bytes of the packets, too.

        Raises:
            UsageError: there is no such interface, or a change waits to be confirmed.
            RequirementUnmet: pins are impossible; or a later version set what this one does not
                know.
            HookBusy: another process changed the hook meanwhile.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        return self._switch(Counting.of(count_bytes=count_bytes))

    def disable(self) -> CounterReport:
        """Count no longer; the programs are as they were attached again.

        What was counted can still be read, as long as the programs stay.

        What cannot be loaded as it was goes on counting, which is said in the report.

        Raises:
            UsageError, RequirementUnmet, HookBusy, MissingPrivilege, KernelRefused: as
                :meth:`enable`.
        """
        return self._switch(Counting.OFF)

    def read(self) -> CounterReport:
        """Return what has been counted.

        Raises:
            UsageError: there is no such interface.
            MissingPrivilege: looking up programs and maps takes CAP_SYS_ADMIN.
        """
        what = f"read the counters of {self._place.iface}"
        privilege.require(what, (Capability.SYS_ADMIN,))
        found = self._look(self._place.resolve())
        settings = self._settings(found.interface, what)
        view = _View(found, watched=self._watched(found.interface, settings))
        return self._report(view, settings, self._explain(view, settings))

    def _settings(self, interface: Interface, what: str) -> Settings | None:
        folder = self._place.pins.open_folder(what)
        if folder is None:
            return None
        with folder:
            return kept.first(kept.places(self._place.pins, interface))

    def _watched(self, interface: Interface, settings: Settings | None) -> Mapping[int, int]:
        """Return the programs that are counted from outside, and the maps that count for them."""
        return watching.counters(self._place.pins.home_of(interface)) if settings else {}

    def _look(self, interface: Interface) -> HookStatus:
        (found,) = examine([interface], self._place.pins, with_members=True)
        return found

    # Switching

    def _switch(self, counting: Counting) -> CounterReport:
        place, pins = self._place, self._place.pins
        verb = "count" if counting else "count no longer"
        what = f"{verb} what the programs on {place.iface} return"
        privilege.require(what, (Capability.SYS_ADMIN, Capability.NET_ADMIN))
        found = place.look()
        if counting:
            pins.require_lasting(what, alternative=False)
        elif kept.are_hidden(pins):
            raise RequirementUnmet(
                what,
                cause=f"{pins.root} with the setting is hidden here, as by ip netns exec",
                remedy=BY_NAME,
            )
        by_netlink = any(each.via is Via.NETLINK for each in found.attached)
        is_lenient = by_netlink and not counting
        with pins.locked(what, create=bool(counting), lenient=is_lenient) as has_pins:
            interface = place.resolve_again(found.interface)
            if has_pins:
                repair(interface, pins, what)
            found = self._look(place.resolve_again(interface))
            require_settled(found, what)
            view = _View(found, pins.folder_of(found.interface) if has_pins else None)
            view.require_understood(what)
            if has_pins:
                self._set(found.interface, counting, what)
            hooks = view.hooks
            done = exchange_copies(view, pins, Work(counting), what, spared=readers.live(pins))
            notes = done.notes
            refused = self._watch(view) if counting else {}
            if has_pins:
                # The pins of the copies that have gone.
                sweep(place.resolve_again(interface), pins)
            found = self._look(place.resolve_again(interface))
            settings = self._settings(found.interface, what)
            view = _View(
                found,
                pins.folder_of(found.interface) if has_pins else None,
                self._watched(found.interface, settings),
            )
            view.unpin_left_arrays()
            if has_pins:
                unread.release(pins, hooks, view)
        return self._report(view, settings, (*view.foreign(refused), *notes) if counting else notes)

    def _watch(self, view: _View) -> dict[int, str]:
        """Have programs of others counted from outside; return why some are not. Under the lock."""
        interface = view.found.interface
        home = self._place.pins.home_of(interface)
        refused = {}
        for attached in view.unwatched(pinned.watches(home)):
            try:
                watching.start(attached, interface, home)
            except XdpkitError as error:
                refused[attached.program.id] = watching.reason(error)
        return refused

    def _set(self, interface: Interface, counting: Counting, what: str) -> None:
        """Write down what is wanted; programs that are attached from now on are so."""
        pins = self._place.pins
        home = pins.home_of(interface)
        if counting:
            pins.vacate(interface, what)
            kept.write(home, Settings(counting))
        else:
            pinned.unwatch_others(home, ())
            kept.remove(home)

    # Reporting

    def _report(
        self, view: _View, settings: Settings | None, not_counted: Iterable[str]
    ) -> CounterReport:
        counting = settings.counting if settings is not None else Counting.OFF
        programs = (*view.counts(), *view.watched_counts(counting.with_bytes))
        counted = {each.program.id for each in programs}
        return CounterReport(
            interface=view.found.interface,
            is_enabled=None if self._is_hidden(settings) else bool(counting),
            count_bytes=counting.with_bytes,
            programs=programs,
            no_program=view.no_program(),
            not_counted=tuple(dict.fromkeys(not_counted)),
            taken_at=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            has_uncounted=any(
                each.program.id not in counted
                for each in view.found.programs
                if not each.is_leaving
            ),
        )

    def _is_hidden(self, settings: Settings | None) -> bool:
        return settings is None and kept.are_hidden(self._place.pins)

    def _explain(self, view: _View, settings: Settings | None) -> tuple[str, ...]:
        """Return what is not counted, and why; it is found out again when something changed."""
        if self._is_hidden(settings):
            return (
                f"Whether programs on {view.found.interface.name} are counted cannot be seen here:"
                f" {self._place.pins.root} is hidden, as by ip netns exec;"
                f" {BY_NAME}.",
            )
        counting = settings.counting if settings is not None else Counting.OFF
        if not counting:
            return ()
        state = (counting, view.state())
        if self._explained[0] != state:
            self._explained = state, (*view.foreign({}), *view.reasons(counting))
        return self._explained[1]


class _View(View):
    """A hook's programs, and what has been counted of them.

    Attributes:
        watched: the programs of others that are counted from outside, and the maps that count for
            them, by their ids.
    """

    def __init__(
        self,
        found: HookStatus,
        folder: HookFolder | None = None,
        watched: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        super().__init__(found, folder)
        self.watched = watched

    def state(self) -> object:
        """Return what the reasons for what is not counted depend on."""
        return (
            [each.program.id for each in self.found.programs],
            {number: each.counting_for(self.hooks) for number, each in self.web.programs.items()},
            self.web.arrays,
            self.used_by_others,
            self.watched,
        )

    def unwatched(self, watched: Container[int]) -> Iterator[AttachedProgram]:
        """Yield the programs of others on the hook itself that are not counted from outside.

        What a root runs is tail-called, and cannot be watched.
        """
        for each in self.found.attached:
            is_others = each.owner is not Owner.XDPKIT and not each.is_leaving
            if is_others and each.program.id not in watched:
                yield each

    def foreign(self, refused: Mapping[int, str]) -> Iterator[str]:
        """Yield why programs are not counted that xdpkit did not attach.

        Args:
            refused: why programs could not be watched from outside, where that was tried.
        """
        could_be = {each.program.id: each for each in self.unwatched(self.watched)}
        for each in self.found.programs:
            number = each.program.id
            if number in self.ours or number in self.watched or each.is_leaving:
                continue
            name = f"{each.program.name or 'program'} (id {each.program.id})"
            reason = why_no_copy(each)
            if number in could_be:
                problem = refused.get(number) or watching.why_not(each, self.found.interface)
                if problem is None:
                    yield f"What {name} returns is not counted yet: enable counting again."
                    continue
                reason += f"; {problem}"
            yield f"What {name} returns is not counted: {reason}."

    def reasons(self, counting: Counting) -> Iterator[str]:
        """Yield what is not counted of xdpkit's own programs, and why."""
        from xdpkit.hook import leaves

        yield from self.plan.not_counted
        for array in self.plan.arrays_of_copies:
            yield leaves.later_changes(array, self.web)
        arrays = self.plan.in_place | self.plan.split
        called = {each for array in arrays for each in self.web.arrays[array].values()}
        counted = {
            program.logical_id_for(self.hooks)
            for program in self.web.programs.values()
            if program.counting_for(self.hooks) == counting
        }
        for number in sorted((self.plan.counted & called) | self.ours.keys()):
            program = self.web.programs.get(number)
            if program is not None and program.logical_id_for(self.hooks) not in counted:
                yield self._reason(program, counting)

    def _reason(self, program: Reached, counting: Counting) -> str:
        from xdpkit.hook import leaves

        refused = self._refused(program, counting)
        if program.counting_for(self.hooks):
            number = program.logical_id_for(self.hooks)
            if refused is not None and counting.with_bytes:
                return leaves.bytes_not_counted(program.name, number, refused)
            return (
                f"What {program.name} (id {number}) returns is not counted as it is set: enable"
                " counting again."
            )
        if refused is not None and counting.with_bytes:
            refused = self._refused(program, Counting.PACKETS) and refused
        if refused is not None:
            return leaves.not_counted(program.name, program.id, refused)
        return (
            f"What {program.name} (id {program.id}) returns is not counted yet: enable counting"
            " again."
        )

    def _refused(self, program: Reached, counting: Counting) -> XdpkitError | None:
        """Return why a program cannot count; None: it can, as far as is seen without trying."""
        from xdpkit.hook import copies, leaves

        try:
            copies.rewritten(
                leaves.image_to_copy(program, self.hooks, Work(counting)),
                work=Work(counting),
                entries=1 if program.id in self.alone else self.queues,
                interface=self.found.interface,
            )
        except XdpkitError as error:
            return error
        return None

    # Counts

    def counts(self) -> Iterator[ProgramCounts]:
        """Yield what has been counted; copies of one program are one."""
        # What is reached through an array that is used elsewhere counts packets from there, too.
        shared = {array for array, use in self.used_by_others.items() if use.is_attached}
        reached = {each for first in self.ours for each in self.web.reached_from(first, shared)}
        by_logical_id: dict[int, list[Reached]] = {}
        for number in sorted(reached & self.web.programs.keys()):
            program = self.web.programs[number]
            by_logical_id.setdefault(program.logical_id_for(self.hooks), []).append(program)
        for logical_id, same in sorted(by_logical_id.items()):
            if any(program.counters_for(self.hooks) for program in same):
                yield self._counts_of(logical_id, same)

    def watched_counts(self, with_bytes: bool) -> Iterator[ProgramCounts]:
        """Yield what has been counted from outside."""
        for each in self.found.attached:
            number = each.program.id
            if number not in self.watched:
                continue
            per_queue, _ = _read_counts(dict(_values_in(self.watched[number])), with_bytes=True)
            if not with_bytes:
                per_queue = {
                    queue: replace(counts, bytes=None) for queue, counts in per_queue.items()
                }
            yield ProgramCounts(
                program=each.program,
                name=watching.name_of(each.program),
                logical_id=number,
                queues=None,
                called_by=(),
                per_queue=per_queue,
                with_bytes=with_bytes,
            )

    def _counts_of(self, logical_id: int, same: list[Reached]) -> ProgramCounts:
        # The one that counts is the one that runs for packets.
        running = max(same, key=lambda each: (each.id in self.ours, each.counting_for(self.hooks)))
        stored = running.record_for(self.hooks)
        attached = self.ours.get(running.id)
        values: dict[int, list[bytes]] = {}
        for counters in {each for program in same for each in program.counters_for(self.hooks)}:
            for entry, found in _values_in(counters.id):
                # The last entry says whose they are.
                if entry < counters.entries:
                    queue = counters.queue if counters.queue is not None else entry
                    values.setdefault(queue, []).extend(found)
        per_queue, with_bytes = _read_counts(
            values, stored is not None and stored.record.counting.with_bytes
        )
        callers = {
            self.web.programs[caller].logical_id_for(self.hooks)
            for program in same
            for caller in self.web.callers_of(program.id)
        }
        return ProgramCounts(
            program=attached.program if attached is not None else self._summary(running.id),
            name=running.name,
            logical_id=logical_id,
            queues=_queues([each for program in same for each in self.places.get(program.id, ())]),
            called_by=tuple(sorted(callers)),
            per_queue=per_queue,
            with_bytes=with_bytes,
        )

    def _summary(self, number: int) -> ProgramSummary:
        return member_of(next(iter(self.ours.values())), number, self.found.interface).program

    def no_program(self) -> dict[int, NoProgram]:
        """Return the packets for which there was no program, by RX queue."""
        from xdpkit.rewrite import NoProgram

        hook = self.found.root
        if hook is None or hook.root is None or hook.owner is not Owner.XDPKIT:
            return {}
        found = {
            queue: NoProgram.read(values) for queue, values in _values_in(hook.root.unserved_id)
        }
        return {queue: counts for queue, counts in found.items() if counts.packets}


def _queues(places: list[int | None]) -> tuple[int, ...] | None:
    queues = {queue for queue in places if queue is not None}
    return tuple(sorted(queues)) if queues and None not in places else None


def _values_in(map_id: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the entries of a map of counters, with the values of all CPUs; none if it has gone."""
    with contextlib.suppress(UsageError), Map.from_id(map_id) as counters:
        yield from counters.items()


def _read_counts(
    values: Mapping[int, list[bytes]], with_bytes: bool
) -> tuple[dict[int, Counts], bool]:
    """Return counts by RX queue, those with packets; and whether bytes are, or were, counted."""
    from xdpkit.rewrite import Counts

    found = {queue: Counts.read(values[queue]) for queue in sorted(values)}
    with_bytes = with_bytes or any(any(each.bytes or ()) for each in found.values())
    return {
        queue: each if with_bytes else Counts(each.packets, None)
        for queue, each in found.items()
        if any(each.packets)
    }, with_bytes


def _sum(found: Iterable[Counts]) -> Counts:
    from xdpkit.rewrite import Counts

    each = list(found)
    lengths = [counts.bytes for counts in each if counts.bytes is not None]
    return Counts(
        tuple(map(sum, zip(*(counts.packets for counts in each), strict=True))),
        tuple(map(sum, zip(*lengths, strict=True))) if lengths else None,
    )


def _counts_to_dict(counts: Counts) -> dict[str, object]:
    from xdpkit.rewrite import COUNTED

    return {
        "packets": dict(zip(COUNTED, counts.packets, strict=True)),
        "bytes": None if counts.bytes is None else dict(zip(COUNTED, counts.bytes, strict=True)),
    }
