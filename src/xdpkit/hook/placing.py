# SPDX-License-Identifier: Apache-2.0
"""Exchange what is on a hook, in one step, with all that has to be pinned for it before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.hook import records, revert
from xdpkit.hook.members import maps_that_need_a_holder
from xdpkit.hook.mode import Via
from xdpkit.hook.pins import Pins
from xdpkit.hook.place import Place
from xdpkit.hook.present import Expected, find_present, opened
from xdpkit.hook.repair import repair, sweep
from xdpkit.hook.state import HookStatus
from xdpkit.hook.writing import forget, settle
from xdpkit.interfaces import Interface

if TYPE_CHECKING:
    from xdpkit.hook.record import Record
    from xdpkit.kernel import Map, Program


@dataclass(frozen=True, slots=True)
class Coming:
    """A program that is about to go on a hook.

    Attributes:
        program: the program.
        record: what was written down with it.
        keeps_maps: whether its maps are pinned that something has to hold.
        runs: the programs that it runs, if it is a root: those that were not there before.
        before: its record as it was, if it is on the hook already.
    """

    program: Program
    record: Record | None
    keeps_maps: bool
    runs: tuple[Coming, ...] = ()
    before: Record | None = None

    @property
    def needs_pins(self) -> bool:
        """Whether there are maps to be pinned."""
        return bool(self._kept()) or any(each.needs_pins for each in self.runs)

    def _kept(self) -> list[Map]:
        return maps_that_need_a_holder(self.program) if self.keeps_maps else []

    @contextlib.contextmanager
    def pinned(self, pins: Pins, hook: str, what: str, *, holder: bool) -> Iterator[None]:
        """Pin its maps in a hook's folder; unpin them if the block fails. Under the lock.

        Args:
            pins: all pins. hook: the folder. what: what is being tried, for errors.
            holder: pin the program, too, as what holds it is not pinned there.
        """
        with contextlib.ExitStack() as during:
            for each in self.runs:
                during.enter_context(each.pinned(pins, hook, what, holder=False))
            during.enter_context(
                pins.keeping(self._kept(), hook, what, program=self.program, holder=holder)
            )
            yield

    @contextlib.contextmanager
    def forgotten_if_it_fails(self) -> Iterator[None]:
        """Put what was written down back as it was before, if the ``with`` block fails.

        A program that the caller loaded lives on, and would seem to have been attached.
        """
        try:
            yield
        except Exception:
            if self.before is not None:
                records.write(self.program, self.before)
            elif self.record is not None:
                netns_cookie, ifindex = self.record.hook
                records.clear_for(self.program.fileno(), netns_cookie=netns_cookie, ifindex=ifindex)
            raise


def exchange(
    place: Place,
    interface: Interface,
    present_id: int,
    coming: Coming,
    what: str,
    *,
    via: Via,
    expected: Expected | None = None,
    stays: bool = False,
    check: Callable[[HookStatus], None] = lambda found: None,
    note: Callable[[str | None], None] = lambda text: None,
) -> int | None:
    """Put a loaded program in the place of the present one; return the id of the link.

    Args:
        place: the hook. interface: the interface as it was seen.
        present_id: the program that has to be there.
        coming: the program that is to be there.
        what: what is being tried, for errors.
        via: what holds the hook.
        expected: what the caller expects there.
        stays: whether the present program goes on to run, elsewhere on this hook.
        check: raises an error if the hook is not as it was; called under the lock.
        note: takes what there is to know.

    Raises:
        UsageError: nothing is attached any more, or the interface has gone.
        HookBusy: the program there is another one meanwhile.
        RequirementUnmet: somebody else made the folder of pins.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    pins = place.pins
    needs_pins = coming.needs_pins
    with contextlib.ExitStack() as during:
        has_pins = during.enter_context(
            pins.locked(what, create=needs_pins, lenient=via is Via.NETLINK)
        )
        interface = place.resolve_again(interface)
        found = repair(interface, pins, what) if has_pins else place.look_again(interface)
        present = find_present(found, present_id, place.pin_root, what, was_seen=expected is None)
        check(found)
        holding, compared, text = during.enter_context(opened(present, found, expected, what))
        note(text)
        folder = pins.folder_of(found.interface) if has_pins else None
        if needs_pins and folder is None:
            pins.vacate(found.interface, what)
        home = folder.path if folder is not None else pins.home_of(found.interface)
        record = coming.record
        waits = record is not None and bool(record.revert_at)
        # By the program's own pin, those of its maps are seen to be in use where no link of
        # ours says so; also those of the program that may come back.
        is_held_elsewhere = folder is None or folder.link is None
        holder = is_held_elsewhere and (needs_pins or (waits and folder is not None))
        is_another = present.program.id != coming.program.id
        with (
            revert.guarding(found.interface, place, coming.program, record, compared),
            coming.pinned(pins, home, what, holder=holder),
        ):
            holding.swap(coming.program.fileno(), compared, what)
        if not waits and is_another:
            if stays:
                settle(present)
            else:
                forget(present, compared)
        if has_pins:
            # The pins of the program that has gone.
            sweep(place.resolve_again(interface), pins)
        return holding.link_id
