# SPDX-License-Identifier: Apache-2.0
"""An interface that a reader of events watches: what it is now, and which programs are on it.

It is meant by its name. If it goes, and another one comes by this name, that one is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, UsageError, XdpkitError
from xdpkit.hook import Hook
from xdpkit.interfaces import Interface, resolve
from xdpkit.monitor.report import Known
from xdpkit.monitor.tracing import kernel_name

if TYPE_CHECKING:
    from xdpkit.hook.state import HookStatus
    from xdpkit.hook.taps import Tapped


class Watched:
    """An interface, and the tap on its programs where there is one.

    Attributes:
        interface: as it was seen last.
        hook: what was on it then.
        tapped: the tap, None without.
    """

    def __init__(
        self, interface: Interface, pin_root: str, tap: Callable[[Hook], Tapped] | None
    ) -> None:
        """Begin to watch.

        Args:
            interface: the interface. pin_root: the bpffs with the pins of its programs.
            tap: taps the programs on a hook; None: they are not to be tapped.
        """
        self.interface = interface
        self._pin_root = pin_root
        self._tap = tap
        self._refused = ""
        # Whether there is more on the hook than is known of it.
        self._is_stale = False
        self.tapped: Tapped | None = None
        self._have_tapped()
        try:
            self.hook = self._hook().status()
        except BaseException:
            self.close()
            raise

    @property
    def not_tapped(self) -> tuple[str, ...]:
        """Which programs are not tapped, and why, in sentences."""
        if self._refused:
            return (f"{self.interface.name}: not all programs are tapped: {self._refused}",)
        return self.tapped.not_tapped if self.tapped is not None else ()

    def look(self) -> bool:
        """Look again; return whether anything has changed.

        What fails now, as somebody else changes the hook, is tried again the next time.
        """
        try:
            return self._look()
        except (UsageError, HookBusy):
            # It is gone, or goes just now. It may come back.
            return False

    def _look(self) -> bool:
        before = self.interface
        now = resolve(before.name, netns=before.netns)
        self.interface = now
        self._is_stale |= now.xdp != before.xdp
        if (now.netns_cookie, now.index) != (before.netns_cookie, before.index):
            self._is_stale = True
            self.close()
        self._is_stale |= self._have_tapped()
        if not self._is_stale:
            return False
        self.hook = self._hook().status()
        self._is_stale = False
        return True

    def _have_tapped(self) -> bool:
        """Have all programs tapped that are there; return whether that changed anything."""
        if self._tap is None:
            return False
        try:
            self._refused = ""
            if self.tapped is not None:
                return self.tapped.refresh()
            self.tapped = self._tap(self._hook())
        except XdpkitError as error:
            self._refused = error.cause
            return False
        return True

    def close(self) -> None:
        """Put the programs back as they were; closing twice does nothing."""
        tapped, self.tapped = self.tapped, None
        if tapped is not None:
            tapped.close()

    def _hook(self) -> Hook:
        return Hook(self.interface.index, netns=self.interface.netns, pin_root=self._pin_root)


def known_programs(hooks: Iterable[HookStatus]) -> dict[int, Known]:
    """Return what is known of the programs on these hooks, by the ids that they have or had."""
    found = {}
    for hook in hooks:
        for each in (*hook.attached, *hook.programs):
            name = each.record.record.program if each.record is not None else each.program.name
            found[each.program.id] = found[each.logical_id] = Known(each.logical_id, name or "")
    return found


def ids_of(hooks: Iterable[HookStatus], wanted: Collection[int | str]) -> set[int]:
    """Return the ids by which the kernel knows programs that a user names.

    A program that counts or is tapped has another id than that which it was attached with. Of one
    that serves some RX queues only, tracepoints tell the id of the root, which runs it.

    Args:
        hooks: where to look. wanted: ids and names.
    """
    names = {kernel_name(each) for each in wanted if isinstance(each, str)}
    found = {each for each in wanted if isinstance(each, int)}
    for hook in hooks:
        for attached in hook.attached:
            inside = attached.members if attached.are_members_known else (attached,)
            if any(
                each.logical_id in wanted
                or each.program.id in wanted
                or kernel_name(each.program.name or "") in names
                for each in inside
            ):
                found.add(attached.program.id)
    return found
