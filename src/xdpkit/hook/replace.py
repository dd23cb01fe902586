# SPDX-License-Identifier: Apache-2.0
"""Put a program in the place of another, in one step: each packet meets the old one or the new."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import UsageError
from xdpkit.hook import revert
from xdpkit.hook.inherited import Inheritance
from xdpkit.hook.mode import Via
from xdpkit.hook.place import Place
from xdpkit.hook.placing import exchange
from xdpkit.hook.present import (
    Expected,
    expected_id,
    find_present,
    is_kept_by_us,
    is_on,
    owns_link,
    require_understood,
)
from xdpkit.hook.request import Request, Terms
from xdpkit.hook.state import HookStatus
from xdpkit.hook.unread import ends_unread
from xdpkit.hook.xdpprog import XdpProg

if TYPE_CHECKING:
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
        found: HookStatus | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the new program against the interface.

        Args:
            found: the hook as it was seen just before.
            expected: the program that has to be there; it may be somebody else's. None: whichever
                xdpkit keeps there.

        Raises:
            UsageError: there is no such interface, nothing is attached to it, the program is none
                for an interface, or what is expected is none.
            HookBusy: the program there is not ours, or not the expected one.
            RequirementUnmet: the interface cannot do what the program needs; its maps need pins,
                which are impossible; or a newer version has written down more about the present
                program than this one understands.
        """
        name = getattr(program, "name", repr(program))
        self.what = f"replace the program on {place.iface} by {name}"
        self._place = place
        self._expected = expected
        wanted = expected_id(expected, self.what)
        found = found or place.look()
        self.interface = found.interface
        self._request = Request(
            program, self.interface, self.what, pin_root=place.pin_root, **terms
        )
        self.present = find_present(found, wanted, place.pin_root, self.what)
        if self.present.root is not None:
            raise UsageError(
                self.what,
                cause="RX queues of it have programs of their own, which would go: see"
                " xdpkit.hook.prepare_replace",
            )
        require_understood(self.present, self.what)
        self.via = self.present.via or Via.LINK
        self.negotiation = self._request.negotiate(self.present.mode, self.via)
        self._request.require_allowed(self.negotiation)
        self.notes: list[str] = []
        self._note(self._request.note_on_port())
        # A process that holds the program for a block holds its maps, too.
        self._is_for_a_block = is_on(expected, self.interface) and expected.is_for_a_block
        self._keeps_maps = not self._is_for_a_block and self._request.needs_pins()
        if self._keeps_maps:
            self._note(place.pins.require_lasting(self.what, alternative=False))
        is_ours = is_kept_by_us(self.present) or owns_link(expected, self.interface)
        if self.via is Via.LINK and not is_ours:
            self._note(
                "the program goes when whoever attached the one before it lets go: what holds it"
                " on the hook is still theirs"
            )

    def _note(self, text: str | None) -> None:
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def describe(self) -> str:
        """Return what would change, as a sentence."""
        return (
            f"would replace on {self.interface.name}: {self.present.describe()}, by"
            f" {self._request.program.name}{self._request.as_port()}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": "replace",
            "program": self._request.program.name,
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "queues": None,
            "mode": self.present.mode.value,
            "via": self.via.value,
            "port": port.to_dict() if (port := self._request.port) else None,
            "before": [self.present.to_dict()],
            "negotiation": self.negotiation.to_dict(),
            "notes": self.notes,
        }

    def check_revert(self, revert_after: float | None) -> None:
        """Refuse a time after which it could not be undone.

        Raises:
            UsageError: it makes no sense, there is nothing to go back to, another change waits, or
                the program is attached for a block only.
            MissingPrivilege: undoing takes CAP_SYS_ADMIN.
        """
        revert.check(
            revert_after,
            self.what,
            stays=not self._is_for_a_block,
            present=self.present,
            program=self._request.program,
        )

    @ends_unread
    def apply(self, *, revert_after: float | None = None) -> XdpProg:
        """Do it.

        Args:
            revert_after: seconds after which the present program is put back by a process that is
                left behind, unless :meth:`xdpkit.hook.Hook.confirm` is called before.

        Raises:
            UsageError: the interface has gone.
            HookBusy: the program that was there has gone meanwhile.
            VerifierError: the new program did not load.
            RequirementUnmet: it is bound to another device.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        self.check_revert(revert_after)
        request = self._request
        with contextlib.ExitStack() as resources:
            loaded = request.load(self.present.mode, resources)
            request.require_binding(loaded)
            inherited = Inheritance.of(self._place, self.interface, self.present.pinned)
            coming = inherited.take_in(
                loaded,
                request,
                self.present.mode,
                self.via,
                self.negotiation,
                resources,
                queues=None,
                keeps_maps=self._keeps_maps,
                note=self._note,
                revert_after=revert_after,
                reverts_to=self.present.program.id,
            )
            with coming.forgotten_if_it_fails():
                revert.require_record(coming.record, revert_after, self.what)
                with request.port_kept():
                    link_id = exchange(
                        self._place,
                        self.interface,
                        self.present.program.id,
                        coming,
                        self.what,
                        via=self.via,
                        expected=self._expected,
                        check=lambda found: inherited.require_unchanged(self.what),
                        note=self._note,
                    )
            link = None
            if is_on(self._expected, self.interface):
                link = self._expected.give_link()
            members = contextlib.ExitStack()
            members.enter_context(request.members_held(loaded, self.present.mode))
            return XdpProg(
                place=self._place,
                interface=self.interface,
                mode=self.present.mode,
                via=self.via,
                program=coming.program,
                link=link,
                link_id=link_id,
                negotiation=self.negotiation,
                record=coming.record,
                pinned=self.present.pinned,
                is_for_a_block=self._is_for_a_block,
                members=members,
                resources=resources.pop_all(),
                notes=tuple(self.notes),
            )
