# SPDX-License-Identifier: Apache-2.0
"""An interface's hook: add, replace and delete programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from xdpkit.hook.looking import examine
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place, StrPath
from xdpkit.hook.request import Terms
from xdpkit.hook.state import AttachedProgram, HookStatus
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.kernel.folder import DEFAULT_ROOT

if TYPE_CHECKING:
    from xdpkit.hook.counters import Counters
    from xdpkit.hook.delete import Detached
    from xdpkit.hook.present import Expected
    from xdpkit.hook.queues import AllQueues
    from xdpkit.hook.taps import Tap, Tapped
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec


class Hook:
    """An interface's hook.

    ::

        hook = xdpkit.Hook("eth0")
        first = hook.add(obj.programs["fw"])           # fails if anything is there
        hook.replace(obj.programs["fw2"], expected=first)  # in one step, if `first` is still there
        hook.delete()

    What is added stays when the process ends. Each change can be prepared first and made later (or
    not at all): see :class:`~xdpkit.hook.Add`, :class:`~xdpkit.hook.Replace` and
    :class:`~xdpkit.hook.Delete`, which check everything that can be checked without a change.

    Attributes:
        place: which interface, in which namespace, and where links are pinned.
    """

    def __init__(
        self, iface: str | int, *, netns: StrPath | None = None, pin_root: StrPath = DEFAULT_ROOT
    ) -> None:
        """Name a hook; nothing is looked at yet.

        Args:
            iface: interface name, or index.
            netns: name or path of the interface's network namespace; None: the caller's own.
            pin_root: a mounted bpffs.

        Raises:
            UsageError: one of them is no name.
        """
        self.place = Place.named(iface, netns, pin_root)

    @property
    def queues(self) -> AllQueues:
        """The RX queues, to give some of them a program of their own: ``hook.queues[3]``."""
        from xdpkit.hook.queues import AllQueues

        return AllQueues(self.place)

    @property
    def counters(self) -> Counters:
        """What the programs return, counted without their doing: ``hook.counters.enable()``."""
        from xdpkit.hook.counters import Counters

        return Counters(self.place)

    def tap(self, tap: Tap) -> Tapped:
        """Have frames reported with what the programs return for them, without their doing.

        It lasts until what is returned is closed, or the process ends.

        Args:
            tap: which frames, and where they are to be reported.

        Raises:
            UsageError: there is no such interface, a change waits to be confirmed, or what is
                wanted makes no sense.
            HookBusy: the interface has another reader; or another process changed the hook
                meanwhile.
            RequirementUnmet: pins are impossible, by which a killed reader is noticed.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        from xdpkit.hook.taps import Tapped

        return Tapped(self.place, tap)

    def status(self) -> HookStatus:
        """Return what is on the hook.

        Raises:
            UsageError: there is no such interface or namespace.
        """
        (found,) = examine([self.place.resolve()], self.place.pins, with_members=True)
        return found

    def open(self) -> XdpProg | None:
        """Open the program that is on the hook, whoever put it there; None if there is none.

        Where RX queues have programs of their own, it is the global one; ``hook.queues[3].open()``
        opens one of the others. Of two (one in software, one on the NIC) it is the one in software.

        Raises:
            UsageError: there is no such interface or namespace.
            MissingPrivilege: looking up an object by its id takes CAP_SYS_ADMIN.
        """
        from xdpkit.hook.opening import open_present

        return open_present(self.place)

    def add(
        self,
        program: ProgramSpec | Program,
        *,
        mode: Mode | str | Sequence[Mode | str] | None = None,
        pin: bool = True,
        via: Via | str | None = None,
        revert_after: float | None = None,
        **terms: Unpack[Terms],
    ) -> XdpProg:
        """Put a program on the hook, which must not have one for all queues.

        Args:
            program: a program from an object file, which is loaded; or a loaded one.
            mode: a Mode or its name; several are tried in their order. None asks for native mode,
                and never takes generic instead.
            pin: keep the program attached when this process ends.
            via: what is to hold it, a Via or its name; None: a link, and netlink where a link
                cannot.
            revert_after: seconds after which it is taken off again, unless :meth:`confirm` is
                called before.
            **terms: see :class:`~xdpkit.hook.Terms`.

        Raises:
            UsageError: there is no such interface, or the program is none for an interface.
            HookBusy: a program is there already.
            RequirementUnmet: the interface cannot do what the program needs; or pins are
                impossible.
            MissingPrivilege: a capability is missing.
            VerifierError: the program did not load.
            KernelRefused: the kernel or the driver refused.
        """
        from xdpkit.hook.changes import prepare_add

        return prepare_add(self.place, program, mode=mode, pin=pin, via=via, **terms).apply(
            revert_after=revert_after
        )

    def replace(
        self,
        program: ProgramSpec | Program,
        *,
        expected: Expected | None = None,
        revert_after: float | None = None,
        **terms: Unpack[Terms],
    ) -> XdpProg:
        """Put a program in the place of the present one, in one step.

        Each packet meets the old program or the new one. The mode stays, and so does what holds
        the program: a link of somebody else's stays theirs.

        Args:
            program: a program from an object file, which is loaded; or a loaded one.
            expected: the program that has to be there, as its id or as what was returned for it;
                it may be somebody else's. None: whichever xdpkit keeps there.
            revert_after: seconds after which the present one is put back, unless :meth:`confirm`
                is called before.
            **terms: see :class:`~xdpkit.hook.Terms`.

        Raises:
            UsageError: there is no such interface, nothing is attached to it, or the program is
                none for an interface.
            HookBusy: the program there is not ours, or not the expected one.
            RequirementUnmet: the interface cannot do what the program needs.
            MissingPrivilege: a capability is missing.
            VerifierError: the program did not load.
            KernelRefused: the kernel or the driver refused.
        """
        from xdpkit.hook.changes import prepare_replace

        return prepare_replace(self.place, program, expected=expected, **terms).apply(
            revert_after=revert_after
        )

    def delete(
        self,
        *,
        expected: Expected | None = None,
        keep_root: bool = False,
        revert_after: float | None = None,
    ) -> Detached:
        """Take the program off the hook; programs that RX queues have of their own stay.

        Args:
            expected: the program that has to be there; it may be somebody else's. None: whichever
                xdpkit keeps there.
            keep_root: leave the root on the hook even if no program is left: some drivers reset
                their rings when what is on the hook is exchanged.
            revert_after: seconds after which it is put back, unless :meth:`confirm` is called
                before.

        Raises:
            UsageError: there is no such interface, or nothing is attached to it.
            HookBusy: the program there is not ours, or not the expected one.
            RequirementUnmet: somebody else made the folder of pins.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        from xdpkit.hook.changes import prepare_delete

        return prepare_delete(self.place, expected=expected, keep_root=keep_root).apply(
            revert_after=revert_after
        )

    def clear(self, *, revert_after: float | None = None) -> Detached:
        """Take all programs off the hook: those of all RX queues, and the global one.

        Arguments and errors are those of :meth:`delete`.
        """
        from xdpkit.hook.changes import prepare_delete

        return prepare_delete(self.place, everything=True).apply(revert_after=revert_after)

    def confirm(self) -> AttachedProgram:
        """Keep a change that was made with ``revert_after``.

        Returns the program that it put there (of a detach: the one that stood in meanwhile).

        Raises:
            UsageError: nothing waits to be confirmed.
        """
        from xdpkit.hook.revert import confirm

        return confirm(self.place)

    def __repr__(self) -> str:
        place = f" in {self.place.netns}" if self.place.netns is not None else ""
        return f"<Hook of {self.place.iface}{place}>"
