# SPDX-License-Identifier: Apache-2.0
"""What a program that comes inherits of its interface's settings: whether it is counted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, MissingPrivilege, RequirementUnmet
from xdpkit.hook import roots, settings
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.scope import Scope
from xdpkit.hook.settings import Counting, Settings
from xdpkit.hook.writing import write_record

if TYPE_CHECKING:
    from xdpkit.hook.record import Record
    from xdpkit.hook.request import Request
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Negotiation


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What is set for an interface, as it was just before a change.

    Attributes:
        folder: the pins of its hook. settings: what is set, None if nothing is.
    """

    folder: str
    settings: Settings | None

    @classmethod
    def of(cls, place: Place, interface: Interface, pinned: str | None = None) -> Inheritance:
        """Look at what is set for an interface.

        Args:
            place: the hook. interface: the interface.
            pinned: where the link of the program on its hook is pinned, which may have moved there.

        Who may not look at the pins, or finds a folder that somebody else made, sees nothing set;
        such a program can be held by netlink only.

        Raises:
            ObjectFormatError: what is pinned there is no setting.
        """
        folder = os.path.dirname(pinned) if pinned else place.pins.home_of(interface)
        try:
            trusted = place.pins.open_folder("look at what is set for the interface")
            if trusted is None:
                return cls(folder, None)
            with trusted:
                return cls(folder, settings.read(folder))
        except (MissingPrivilege, RequirementUnmet):
            return cls(folder, None)

    @property
    def counting(self) -> Counting:
        return self.settings.counting if self.settings is not None else Counting.OFF

    def require_unchanged(self, what: str) -> None:
        """Refuse if something else is set by now. Under the lock.

        Raises:
            HookBusy: so it is: another process has enabled or disabled counters meanwhile.
        """
        if settings.read(self.folder) != self.settings:
            raise HookBusy(
                what,
                cause="counters were switched on or off for the interface at the same moment",
                remedy="try it again",
            )

    def take_in(
        self,
        loaded: Program,
        request: Request,
        mode: Mode,
        via: Via,
        negotiation: Negotiation,
        resources: contextlib.ExitStack,
        *,
        queues: Scope,
        note: Callable[[str | None], None],
        revert_after: float | None = None,
        reverts_to: int = 0,
    ) -> tuple[Program, Record | None]:
        """Return the program that is to go on the hook, and the record that was bound to it.

        That is the program that was loaded, or its copy that counts.

        Args:
            loaded: the program. request: how it was asked for.
            mode, via: how it will be attached. negotiation: what came of holding it against that.
            resources: what a copy is closed with.
            queues: the RX queues that it is to serve.
            note: takes what there is to know.
            revert_after, reverts_to: see :func:`xdpkit.hook.writing.write_record`.

        Raises:
            KernelRefused: the kernel refused.
        """
        running = loaded
        if self.counting or loaded.counters is not None:
            from xdpkit.hook.counting import for_hook

            running, sentences = for_hook(
                loaded,
                interface=request.interface,
                settings=self.settings,
                queues=queues,
                entries=roots.size_for(request.interface),
                mode=mode,
                via=via,
                what=request.what,
            )
            if running is not loaded:
                resources.enter_context(running)
            for sentence in sentences:
                note(sentence)
        is_copy = running is not loaded
        record, text = write_record(
            running,
            request,
            mode,
            via,
            negotiation,
            revert_after=revert_after,
            reverts_to=reverts_to,
            queues=queues,
            # Nobody has seen the id of a program that was loaded here.
            logical_id=loaded.id if is_copy and loaded is request.program else 0,
            counting=self.counting if is_copy else Counting.OFF,
        )
        note(text)
        return running, record
