# SPDX-License-Identifier: Apache-2.0
"""Frames of an interface, reported with what its programs return for them.

While a reader wants them, the programs that xdpkit attached are exchanged for copies that write
records into its ring buffer (:mod:`xdpkit.rewrite.tap`), in one step each, as counters do; whether
they count stays as it is. Programs of others are listened to from outside, where the kernel allows
that (:mod:`xdpkit.hook.watching`).

Others may change the hook meanwhile: what they attach does not report until the reader looks again
(:meth:`Tapped.refresh`). An interface has one reader at a time. So it is when counters are switched
while somebody reads: a program whose counting changes reports again when the reader has looked.

It is not a setting of the interface and does not outlive the reader: see
:mod:`xdpkit.hook.readers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, UsageError, XdpkitError
from xdpkit.hook import readers, scope, settings, unread, watching
from xdpkit.hook.exchanging import Exchanged, exchange_copies
from xdpkit.hook.homes import ids_on
from xdpkit.hook.pace import Pace
from xdpkit.hook.place import Place
from xdpkit.hook.repair import repair, sweep
from xdpkit.hook.settings import Counting
from xdpkit.hook.state import AttachedProgram, Owner
from xdpkit.hook.view import View, is_waiting, require_settled, why_no_copy
from xdpkit.hook.work import Reader, Work
from xdpkit.interfaces import Interface
from xdpkit.kernel import host
from xdpkit.kernel.maps import Map
from xdpkit.syscalls import bpf, privilege
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.reach import Hook

_ENTRY = 64  # bytes that the credits of a CPU have, and what it has spent
# Some 10 ms to read.
_FEW_SLOTS = 1024
# Two hundredths of the time.
_PAUSE = 50


@dataclass(frozen=True, slots=True)
class Tap:
    """What a reader wants.

    Attributes:
        ring: the ring buffer in which records are to be.
        credits: an array with an entry of 64 bytes for each possible CPU: how many records the
            reader takes in all (``u64``). Only the reader writes it.
        spending: likewise, a :class:`xdpkit.rewrite.Spending`. Only programs write it.
        actions: the frames that are wanted, by what is returned for them: names of
            :data:`xdpkit.rewrite.COUNTED`.
        snaplen: bytes of each frame.
        sample: report 1 in this many of these frames, on each CPU.
        programs: the programs whose frames are wanted, by their logical ids, and by names, of which
            the kernel keeps 15 characters; None: all.
    """

    ring: Map
    credits: Map
    spending: Map
    actions: frozenset[str]
    snaplen: int = 64
    sample: int = 1
    programs: frozenset[int | str] | None = None


@dataclass(frozen=True, slots=True)
class _Sight:
    """What serves an interface's packets.

    Attributes:
        ids: the programs on it. arrays: those in the slots of program arrays, by the array's id.
        slots: how many the arrays have in all.
    """

    ids: tuple[int | None, ...]
    arrays: Mapping[int, Mapping[int, int]]
    slots: int


class Tapped(Closing):
    """An interface whose frames are reported: a context manager; see :meth:`xdpkit.Hook.tap`.

    Attributes:
        interface: the interface, as it was when it was last looked at.
        programs: the programs whose frames are reported, by their logical ids, with their names in
            full; those that they tail-call, too.
        not_tapped: what is not reported, and why, in sentences.
    """

    def __init__(self, place: Place, tap: Tap) -> None:
        """Exchange the programs; see :meth:`xdpkit.Hook.tap`."""
        what = f"report frames of {place.iface}"
        _require_sense(tap, what)
        privilege.require(what, (Capability.SYS_ADMIN, Capability.NET_ADMIN))
        pins = place.pins
        seen = place.resolve()
        pins.require_lasting(what, alternative=False)
        self.interface = seen
        self.programs: dict[int, str] = {}
        self.not_tapped: tuple[str, ...] = ()
        # By its index: it may be renamed.
        self._place = replace(place, iface=seen.index)
        self._what = what
        # What there was; None: look again, whatever there is.
        self._seen: _Sight | None = None
        self._pace = Pace(_PAUSE)
        # The ring may have been another reader's.
        self._is_first = True
        # What listens to programs of others, by their ids; and to whom it was in vain.
        self._links: dict[int, Fd] = {}
        self._refused: dict[int, str] = {}
        with ExitStack() as unless_tapped:
            with pins.locked(what, create=True):
                interface = repair(place.resolve_again(seen), pins, what).interface
                view = View.of(self._place, interface)
                require_settled(view.found, what)
                self._reader, self._missing = _reader(tap, interface, what)
                self._claim = unless_tapped.enter_context(readers.claim(pins, interface, what))
            unless_tapped.callback(self._put_back)
            unless_tapped.callback(self._listen_to, {})
            with pins.locked(what, create=True):
                self._exchange(place.resolve_again(interface))
            unless_tapped.pop_all()

    def refresh(self) -> bool:
        """Have programs report that were attached since, or replaced; return whether there were.

        As long as nothing changes this is cheap. Program arrays with more than 1,024 slots in all
        take long to read: they are not read again before 50 times as long has passed. While a
        change waits to be confirmed, and when another one comes in between, it is left for the next
        time.

        Raises:
            UsageError: this is closed; or the interface has gone, or moved.
            RequirementUnmet: a later version changed something that this one does not know.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        if self._claim.closed:
            raise UsageError(self._what, cause="it was closed")
        interface = self._place.resolve_again(self.interface)
        if self._seen is not None and not self._has_changed(self._seen, interface):
            return False
        try:
            with self._place.pins.locked(self._what, create=True):
                interface = self._place.resolve_again(interface)
                if is_waiting(self._place.look_again(interface)):
                    self._seen = None
                    return False
                self._exchange(interface)
        except HookBusy:
            self._seen = None
            return False
        return True

    def close(self) -> None:
        """Have the programs report no longer. Safe to repeat.

        Where that fails, or a change waits to be confirmed, the copies stay, and cost next to
        nothing when they have spent their credit: the next change puts others in their place.

        Raises:
            HookBusy: another process changed the hook meanwhile.
            RequirementUnmet: pins are impossible.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        if self._claim.closed:
            return
        with self._claim:
            self._listen_to({})
            self._put_back()

    def __repr__(self) -> str:
        state = "closed" if self._claim.closed else f"{len(self.programs)} programs"
        return f"<Tapped {self.interface.name}: {state}>"

    def _exchange(self, interface: Interface) -> None:
        """Have the programs report that are there. Under the lock."""
        place, pins, what = self._place, self._place.pins, self._what
        view = View.of(place, interface)
        view.require_understood(what)
        found = settings.first(settings.places(pins, interface))
        counting = found.counting if found is not None else Counting.OFF
        done = exchange_copies(view, pins, Work(counting, self._reader), what, anew=self._is_first)
        self._is_first = False
        # The pins of the copies that have gone.
        sweep(place.resolve_again(interface), pins)
        self._look(place.resolve_again(interface), done, view.hooks)

    def _look(self, interface: Interface, done: Exchanged, hooks: Collection[Hook]) -> None:
        view = View.of(self._place, interface)
        view.unpin_left_arrays()
        # Of an interface that has moved, what was said about it elsewhere.
        unread.release(self._place.pins, hooks, view)
        self.interface = interface
        # What a root runs is tail-called, and has nobody to listen to it.
        self._listen_to(
            {
                each.program.id: each
                for each in view.found.attached
                if _is_foreign(each) and self._is_wanted(each)
            }
        )
        self.programs = {
            program.logical_id_for(view.hooks): program.name
            for program in view.web.programs.values()
            if program.tap_for(view.hooks) == self._reader.ring
        }
        for each in view.found.attached:
            if each.program.id in self._links:
                self.programs[each.program.id] = watching.name_of(each.program)
        self.not_tapped = tuple(
            dict.fromkeys(
                (*self._missing, *self._foreign(view), *done.notes, *self._unserved(view))
            )
        )
        # Not as it is now: what has come in between is for the next time.
        arrays = dict(done.arrays)
        root = view.found.root.root if view.found.root is not None else None
        if root is not None:
            arrays[root.array_id] = _contents(root.array_id)
        self._seen = _Sight(done.ids, arrays, sum(view.web.sizes.get(each, 0) for each in arrays))

    def _has_changed(self, seen: _Sight, interface: Interface) -> bool:
        """Whether other programs serve an interface's packets than there were."""
        if ids_on(interface) != seen.ids:
            return True
        if seen.slots > _FEW_SLOTS and not self._pace.is_due:
            return False
        with self._pace.measured():
            return any(_contents(each) != had for each, had in seen.arrays.items())

    def _is_wanted(self, foreign: AttachedProgram) -> bool:
        return self._reader.wants(foreign.program.id, watching.name_of(foreign.program))

    def _listen_to(self, wanted: Mapping[int, AttachedProgram]) -> None:
        """Listen to these programs of others, and to no more of them."""
        for number in self._links.keys() - wanted.keys():
            self._links.pop(number).close()
        self._refused = {}
        for number, each in wanted.items():
            if number in self._links:
                continue
            try:
                self._links[number] = watching.listen(each, self.interface, self._reader)
            except XdpkitError as error:
                self._refused[number] = watching.reason(error)

    def _unserved(self, view: View) -> Iterator[str]:
        """Yield what is not reported because there is no program that returns anything."""
        root = view.found.root.root if view.found.root is not None else None
        served = {each.qid for each in view.found.programs}
        is_wanted = self._reader.programs is None and "pass" in self._reader.actions
        if root is None or None in served or not is_wanted:
            return
        idle = frozenset(range(root.queues)) - served
        if idle:
            yield f"Frames of {scope.describe(idle)} are not reported: no program serves them."

    def _foreign(self, view: View) -> Iterator[str]:
        """Yield why the frames of programs are not reported that xdpkit did not attach."""
        for each in view.found.programs:
            number = each.program.id
            if number in view.ours or number in self._links or each.is_leaving:
                continue
            if not self._is_wanted(each):
                continue
            reason = why_no_copy(each)
            if number in self._refused:
                reason += f"; {self._refused[number]}"
            name = f"{each.program.name or 'program'} (id {number})"
            yield f"What {name} returns is not reported: {reason}."

    def _put_back(self) -> None:
        """Put plain copies back, and remove what says that there is a reader."""
        place, pins, what = self._place, self._place.pins, self._what
        hook = self.interface.netns_cookie, self.interface.index
        with pins.locked(what, create=False) as has_pins:
            if not has_pins:
                return
            try:
                unread.put_plain(place, place.resolve_again(self.interface), what)
                view = View.of(place, place.resolve_again(self.interface))
            except UsageError:
                # It has gone, or moved.
                is_left = _is_used(self._reader.ring)
            else:
                # What waits to be undone may bring copies back.
                is_left = view.is_waiting or bool(view.reporting)
            if not is_left:
                readers.give_up(pins, hook)


def _require_sense(tap: Tap, what: str) -> None:
    """Refuse what cannot be reported, or maps that it cannot be reported to.

    Raises:
        UsageError: so it is.
    """
    from xdpkit import rewrite

    rewrite.require_sense(tap.actions, tap.snaplen, tap.sample, what)
    if tap.ring.type != MapType.RINGBUF:
        raise UsageError(what, cause=f"{tap.ring.name} is no ring buffer")
    for table in (tap.credits, tap.spending):
        if (
            table.type != MapType.ARRAY
            or table.value_size != _ENTRY
            or table.max_entries < host.possible_cpus()
        ):
            raise UsageError(
                what,
                cause=f"{table.name} is no array with {_ENTRY} bytes for each of"
                f" {host.possible_cpus()} possible CPUs",
            )


def _reader(tap: Tap, interface: Interface, what: str) -> tuple[Reader, tuple[str, ...]]:
    """Return what copies are to be told, and what of it they cannot do on this kernel."""
    from xdpkit.probes import is_absent

    snaplen = tap.snaplen
    missing: tuple[str, ...] = ()
    # bpf_xdp_load_bytes() came with fragments.
    if snaplen and is_absent("xdp-frags"):
        snaplen = 0
        missing = (
            "Of the frames no bytes are reported: this kernel lets no program copy them (Linux"
            " 5.18).",
        )
    reader = Reader(
        ring=tap.ring.id,
        credits=tap.credits.id,
        spending=tap.spending.id,
        netns=watching.inode_of(interface, what),
        actions=tap.actions,
        snaplen=snaplen,
        sample=tap.sample,
        wanted=tap.snaplen,
        programs=tap.programs,
    )
    return reader, missing


def _is_foreign(attached: AttachedProgram) -> bool:
    return attached.owner is not Owner.XDPKIT and not attached.is_leaving


def _contents(number: int) -> dict[int, int]:
    """Return the programs in a program array, by slot; none if it has gone."""
    with contextlib.suppress(UsageError), Map.from_id(number) as array:
        return dict(array.items())
    return {}


def _is_used(map_id: int) -> bool:
    """Whether there is a program that uses a map."""
    for number in bpf.ids(ObjectKind.PROGRAM):
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
        if descriptor is not None:
            with descriptor:
                if map_id in bpf.prog_info(descriptor.fileno())[1]:
                    return True
    return False
