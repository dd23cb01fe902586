# SPDX-License-Identifier: Apache-2.0
"""What a program that comes inherits of its interface's settings: whether it is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, KernelRefused, MissingPrivilege, RequirementUnmet
from xdpkit.hook import records, roots, settings
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.placing import Coming
from xdpkit.hook.scope import Scope
from xdpkit.hook.settings import Counting, Settings
from xdpkit.hook.writing import write_record
from xdpkit.kernel.folder import DEFAULT_ROOT

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
        folders: where it can be. settings: what is set, None if nothing is.
        is_hidden: whether that cannot be seen from here.
    """

    folders: tuple[str, ...]
    settings: Settings | None
    is_hidden: bool = False

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
        pins = place.pins
        folders: tuple[str, ...] = (pins.home_of(interface),)
        try:
            trusted = pins.open_folder("look at what is set for the interface")
            if trusted is None:
                return cls(folders, None, settings.are_hidden(pins))
            with trusted:
                folders = settings.places(pins, interface, pinned)
                return cls(folders, settings.first(folders))
        except (MissingPrivilege, RequirementUnmet):
            return cls(folders, None)

    @property
    def counting(self) -> Counting:
        return self.settings.counting if self.settings is not None else Counting.OFF

    def require_unchanged(self, what: str) -> None:
        """Refuse if something else is set by now. Under the lock.

        Raises:
            HookBusy: so it is: another process has enabled or disabled counters meanwhile.
        """
        if settings.first(self.folders) != self.settings:
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
        keeps_maps: bool,
        note: Callable[[str | None], None],
        revert_after: float | None = None,
        reverts_to: int = 0,
    ) -> Coming:
        """Return what is to go on the hook: the program that was loaded, or its copy that counts.

        Args:
            loaded: the program. request: how it was asked for.
            mode, via: how it will be attached. negotiation: what came of holding it against that.
            resources: what a copy is closed with.
            queues: the RX queues that it is to serve.
            keeps_maps: whether its maps are pinned that something has to hold.
            note: takes what there is to know.
            revert_after, reverts_to: see :func:`xdpkit.hook.writing.write_record`.

        Raises:
            KernelRefused: the kernel refused.
        """
        if self.is_hidden:
            note(
                f"{loaded.name} is not counted: whether programs on {request.interface.name} are to"
                f" be cannot be seen here, since {DEFAULT_ROOT} is hidden, as by ip netns exec"
            )
        running, counting = self._running(loaded, request, mode, via, resources, queues, note)
        is_copy = running is not loaded
        before = None
        if not is_copy and loaded is request.program:
            # It may be on the hook already, for other queues.
            before = _record_of(loaded, request.interface)
            queues = _joined(queues, before)
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
            counting=counting,
        )
        note(text)
        return Coming(running, record, keeps_maps, before=before)

    def _running(
        self,
        loaded: Program,
        request: Request,
        mode: Mode,
        via: Via,
        resources: contextlib.ExitStack,
        queues: Scope,
        note: Callable[[str | None], None],
    ) -> tuple[Program, Counting]:
        if not self.counting and loaded.counters is None and loaded.was_loaded_here:
            return loaded, Counting.OFF
        from xdpkit.hook.counting import as_it_was, for_hook, image_if_counted

        image = image_if_counted(loaded)
        if image is not None:
            # It counts somewhere already, and what it counts here is not to be added there.
            loaded = resources.enter_context(as_it_was(loaded, image, request.interface))
        if not self.counting:
            return loaded, Counting.OFF
        running, counting, sentences = for_hook(
            loaded,
            interface=request.interface,
            counting=self.counting,
            queues=queues,
            entries=roots.size_for(request.interface),
            mode=mode,
            via=via,
            resources=resources,
            what=request.what,
        )
        for sentence in sentences:
            note(sentence)
        return running, counting


def _joined(queues: Scope, before: Record | None) -> Scope:
    """Return the queues that a program is to serve, with those that it was asked for before."""
    if before is None:
        return queues
    return None if queues is None or before.queues is None else queues.union(before.queues)


def _record_of(program: Program, interface: Interface) -> Record | None:
    """Return the record of a program's attachment to an interface, None where none is seen."""
    with contextlib.suppress(MissingPrivilege, KernelRefused):
        stored = records.find(
            program.fileno(), netns_cookie=interface.netns_cookie, ifindex=interface.index
        )
        return stored.record if stored is not None else None
    return None
