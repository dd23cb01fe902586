# SPDX-License-Identifier: Apache-2.0
"""A program on a hook, with what is known about it: the design's ``struct xdp_prog``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from xdpkit.errors import UsageError
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.scope import Scope
from xdpkit.interfaces import Interface
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd

if TYPE_CHECKING:
    from xdpkit.hook.record import PortOf, Record
    from xdpkit.hook.request import Terms
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Negotiation
    from xdpkit.obj import ProgramSpec


class XdpProg:
    """A program on an interface's hook.

    A context manager: at the end of the ``with`` block the program is detached if it was attached
    for that block only; otherwise only this process's descriptors are closed. A program that was
    given loaded stays the caller's to close; one that was given as a spec is closed here.

    Attributes:
        interface: the interface as it was just before.
        mode: how the program is attached. via: what holds it.
        program: the loaded program.
        link_id: the id of the link that holds it, whoever's that is, unique until reboot; None
            where netlink does.
        negotiation: what came of holding the program against the interface before; None where
            that is not known.
        record: what was written down with it, None where that was not possible.
        pinned: where the link is pinned; None when it is not, or no more.
        is_for_a_block: whether the program goes with this object.
        queues: the RX queues that it was attached for; None: all that no other program serves.
        notes: what it had to do without, and what there is to know, in sentences.
    """

    def __init__(
        self,
        *,
        place: Place,
        interface: Interface,
        mode: Mode,
        via: Via,
        program: Program,
        link: Fd | None,
        negotiation: Negotiation | None,
        record: Record | None,
        pinned: str | None,
        is_for_a_block: bool,
        members: contextlib.ExitStack,
        resources: contextlib.ExitStack,
        link_id: int | None = None,
        queues: Scope = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._place = place
        self.interface = interface
        self.mode = mode
        self.via = via
        self.program = program
        self.negotiation = negotiation
        self.record = record
        self.pinned = pinned
        self.is_for_a_block = is_for_a_block
        self.queues = queues
        self.notes = notes
        self.link_id = int(bpf.link_info(link.fileno()).id) if link is not None else link_id
        self._link = link
        self._members = members
        self._resources = resources
        self._is_on_hook = True

    @property
    def link(self) -> Fd | None:
        """The link's descriptor, where this process owns one."""
        return self._link

    @property
    def port(self) -> PortOf | None:
        """What the program was told of a port table, as it was written down; None: nothing."""
        return self.record.port if self.record is not None else None

    @property
    def maps(self) -> Mapping[str, Map]:
        """The program's maps, by name.

        A program put into one of them (a tail call's, a devmap's or a cpumap's) is negotiated as
        the attached one was, unless that was forced.
        """
        return self.program.maps

    def replace(
        self,
        program: ProgramSpec | Program,
        *,
        revert_after: float | None = None,
        **terms: Unpack[Terms],
    ) -> XdpProg:
        """Put another program in its place, in one step, if it is still there.

        The other one is held as this one was; this object only gives access to its program and
        maps from then on. Arguments and errors are those of :class:`~xdpkit.hook.Replace`.
        """
        from xdpkit.hook.changes import prepare_replace

        change = prepare_replace(self._home(), program, queues=self.queues, expected=self, **terms)
        return change.apply(revert_after=revert_after)

    def give_link(self) -> Fd | None:
        """Hand the link over to the program that took this one's place."""
        link, self._link = self._link, None
        self.pinned = None
        self.is_for_a_block = False
        self._is_on_hook = False
        self._members.close()
        return link

    def detach(self) -> None:
        """Take the program off the hook, and unpin it; safe to repeat.

        The program and its maps can be used until :meth:`close`.

        Raises:
            HookBusy: another one has taken its place.
        """
        if not self._is_on_hook:
            return
        if self.is_for_a_block and self._link is not None:
            bpf.link_detach(
                self._link.fileno(),
                what=f"detach {self.program.name} from {self.interface.name}",
            )
            self._forget()
        else:
            from xdpkit.hook.changes import prepare_delete

            prepare_delete(self._home(), queues=self.queues, expected=self).apply()
        link = self.give_link()
        if link is not None:
            link.close()

    def _forget(self) -> None:
        """Remove what was written down with the program: its owner may keep it."""
        if self.record is not None:
            from xdpkit.hook import records

            netns_cookie, ifindex = self.record.hook
            # The owner may have closed it before the end of the block.
            with contextlib.suppress(UsageError):
                records.clear_for(self.program.fileno(), netns_cookie=netns_cookie, ifindex=ifindex)

    def _home(self) -> Place:
        return Place(self.interface.index, self.interface.netns, self._place.pin_root)

    def close(self) -> None:
        """Close this process's descriptors; safe to repeat.

        That detaches a program that a link holds for a block only.
        """
        if self._link is not None:
            self._link.close()
            self._link = None
        self._members.close()
        self._resources.close()

    def __del__(self) -> None:
        # What stays on the hook needs no owner here, so nothing is lost that a warning could be
        # about.
        if not getattr(self, "is_for_a_block", True):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.is_for_a_block:
                self.detach()
        finally:
            self.close()

    def __repr__(self) -> str:
        name, mode = self.interface.name, self.mode.value
        return f"<XdpProg {self.program.name} on {name} in {mode} mode, id {self.program.id}>"
