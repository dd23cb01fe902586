# SPDX-License-Identifier: Apache-2.0
"""Put a program in the place of another, in one step: each packet meets the old one or the new."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import RequirementUnmet
from xdpkit.hook import revert
from xdpkit.hook.members import maps_that_need_a_holder, negotiate_members
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.present import Expected, expected_id, find_present, is_kept_by_us, opened
from xdpkit.hook.repair import repair
from xdpkit.hook.request import Request, Terms
from xdpkit.hook.state import AttachedProgram
from xdpkit.hook.writing import write_record
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.syscalls.fd import Fd

if TYPE_CHECKING:
    from xdpkit.hook.record import Record
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec


class Replace:
    """A replacement that has been prepared: nothing is loaded or changed before :meth:`apply`.

    Attributes:
        interface: the interface as it was seen. present: the program that is to go.
        negotiation: what came of holding the new program against the interface.
        notes: what there is to know, in sentences.
    """

    def __init__(
        self,
        place: Place,
        program: ProgramSpec | Program,
        *,
        expected: Expected | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the new program against the interface.

        Args:
            expected: the program that has to be there; it may be somebody else's. None: whichever
                xdpkit keeps there.

        Raises:
            UsageError: there is no such interface, nothing is attached to it, or the program is
                none for an interface.
            HookBusy: the program there is not ours, or not the expected one.
            RequirementUnmet: the interface cannot do what the program needs; or a newer version
                has written down more about the present program than this one understands.
        """
        name = getattr(program, "name", repr(program))
        self.what = f"replace the program on {place.iface} by {name}"
        self._place = place
        self._expected = expected
        found = place.look()
        self.interface = found.interface
        self._request = Request(
            program, self.interface, self.what, pin_root=place.pin_root, **terms
        )
        self.present = find_present(found, expected_id(expected), place.pin_root, self.what)
        self._require_understood(self.present)
        self.via = self.present.via or Via.LINK
        self.negotiation = self._request.negotiate(self.present.mode, self.via)
        self._request.require_allowed(self.negotiation)
        self.notes: list[str] = []
        if not is_kept_by_us(self.present) and not isinstance(expected, XdpProg):
            self._note(
                "the program goes when whoever attached the one before it lets go: what holds it"
                " on the hook is still theirs"
            )

    def _note(self, text: str | None) -> None:
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def _require_understood(self, present: AttachedProgram) -> None:
        """Refuse to lose what a newer version has written down.

        Raises:
            RequirementUnmet: it has written more than this version understands.
        """
        stored = present.record
        if stored is not None and stored.unknown:
            version = stored.record.origin.xdpkit
            raise RequirementUnmet(
                self.what,
                cause=f"xdpkit {version} attached the present program, and wrote down more about"
                " it than this version understands; it would be lost",
                remedy=f"use xdpkit {version} or later; or detach the program and attach anew",
            )

    def describe(self) -> str:
        """Return what would change, as a sentence."""
        return (
            f"would replace on {self.interface.name}: {self.present.describe()}, by"
            f" {self._request.program.name}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": "replace",
            "program": self._request.program.name,
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "mode": self.present.mode.value,
            "via": self.via.value,
            "before": self.present.to_dict(),
            "negotiation": self.negotiation.to_dict(),
            "notes": self.notes,
        }

    def apply(self, *, revert_after: float | None = None) -> XdpProg:
        """Do it.

        Args:
            revert_after: seconds after which the present program is put back by a process that is
                left behind, unless :meth:`xdpkit.hook.Hook.confirm` is called before.

        Raises:
            HookBusy: the program there is another one meanwhile.
            VerifierError: the new program did not load.
            RequirementUnmet: it is bound to another device.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        is_for_a_block = isinstance(self._expected, XdpProg) and self._expected.is_for_a_block
        revert.check(revert_after, self.what, stays=not is_for_a_block)
        request = self._request
        with contextlib.ExitStack() as resources:
            loaded = request.load(self.present.mode, resources)
            request.require_binding(loaded)
            record, note = write_record(
                loaded,
                request,
                self.present.mode,
                self.via,
                self.negotiation,
                revert_after=revert_after,
                reverts_to=self.present.program.id,
            )
            self._note(note)
            revert.require_record(record, revert_after, self.what)
            link = self._exchange(loaded, record, is_for_a_block)
            members = contextlib.ExitStack()
            if not request.force:
                members.enter_context(
                    negotiate_members(
                        loaded.maps, self.interface, self.present.mode, request.policy
                    )
                )
            return XdpProg(
                place=self._place,
                interface=self.interface,
                mode=self.present.mode,
                via=self.via,
                program=loaded,
                link=link,
                negotiation=self.negotiation,
                record=record,
                pinned=self.present.pinned,
                is_for_a_block=is_for_a_block,
                members=members,
                resources=resources.pop_all(),
                notes=tuple(self.notes),
            )

    def _exchange(self, loaded: Program, record: Record | None, is_for_a_block: bool) -> Fd | None:
        """Put the loaded program on the hook; return the link, where this process owns it."""
        what, pins = self.what, self._place.pins
        # A process that holds the program for a block holds its maps, too.
        kept = [] if is_for_a_block else maps_that_need_a_holder(loaded)
        with contextlib.ExitStack() as during:
            has_pins = during.enter_context(pins.locked(what, create=bool(kept)))
            if has_pins:
                repair(self.interface, pins, what)
            found = self._place.look()
            present = find_present(found, self.present.program.id, self._place.pin_root, what)
            holding, compared, note = during.enter_context(
                opened(present, found, self._expected, what)
            )
            self._note(note)
            folder = pins.folder_of(found.interface) if has_pins else None
            if kept and folder is None:
                pins.vacate(found.interface, what)
            home = folder.path if folder is not None else pins.home_of(found.interface)
            is_held_elsewhere = bool(kept) and (folder is None or folder.link is None)
            with (
                revert.guarding(self.interface, self._place, loaded, record, compared),
                pins.keeping(kept, home, what, program=loaded if is_held_elsewhere else None),
            ):
                holding.swap(loaded.fileno(), compared, what)
            if has_pins:
                # The pins of the program that has gone.
                repair(self._place.resolve(), pins, what)
        return self._expected.give_link() if isinstance(self._expected, XdpProg) else None
