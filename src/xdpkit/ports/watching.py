# SPDX-License-Identifier: Apache-2.0
"""Port tables that follow their interfaces as soon as the kernel announces a change."""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator

from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet, UsageError
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.ports import destroying
from xdpkit.ports.announcing import Announcements
from xdpkit.ports.following import follow
from xdpkit.ports.planning import Change, Event
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd
from xdpkit.tables import store

StrPath = str | os.PathLike[str]

# Seconds. What nobody announces is looked at that often: tables that others have made or changed,
# and namespaces where an interface may come back.
_PERIOD = 5.0
# The first change is followed at once; of many, as when a host starts, that many a second.
_GAP = 0.05
# A veth that has come back is not complete at once: its peer is moved, renamed, and brought up.
_SETTLES = 10.0


class Watch(Closing):
    """Port tables that are kept in step with their interfaces.

    ::

        with ports.watch() as watched:
            for change in watched:
                print(change)

    Several may watch the same table, and commands may change it meanwhile. Tables that come later
    are watched, too, unless some were named.

    A context manager. :meth:`stop` may be called by another thread, and by a signal handler; the
    rest belongs to one thread.
    """

    def __init__(
        self, names: Iterable[str] | None = None, *, pin_root: StrPath = DEFAULT_ROOT
    ) -> None:
        """Begin to watch; see :func:`watch`."""
        self._root = os.fsdecode(pin_root)
        self._names = None if names is None else tuple(names)
        for name in self._names or ():
            # Whoever mistypes a name is told so at once.
            store.open(name, pin_root=self._root).close()
        self._told: deque[Change] = deque()
        self._repeated: dict[tuple[str, int | None], str] = {}
        self._is_stopped = False
        self._next_look = time.monotonic()
        self._settled_at = self._next_look
        with contextlib.ExitStack() as resources:
            self._wake = resources.enter_context(
                Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            )
            self._announcements = resources.enter_context(Announcements())
            self._resources = resources.pop_all()

    def __iter__(self) -> Iterator[Change]:
        """Yield what changes, as it is followed, until :meth:`stop`."""
        while (change := self.wait()) is not None:
            yield change

    def wait(self, timeout: float | None = None) -> Change | None:
        """Follow the interfaces until something changes; return that.

        Args:
            timeout: seconds after which to give up; None: never.

        Returns:
            None at the end of the time, and after :meth:`stop`.

        Raises:
            MissingPrivilege: a capability is missing.
            RequirementUnmet: somebody else made the folder of the tables.
        """
        end = time.monotonic() + timeout if timeout is not None else math.inf
        while not self._told:
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + _PERIOD
                destroying.sweep(self._root)
                self._look(thorough=True)
            elif self._hears(min(self._next_look, end) - now):
                self._look(thorough=now < self._settled_at)
                # Whatever comes meanwhile is looked at together.
                self._sleeps(_GAP)
            if self._is_stopped or (not self._told and time.monotonic() >= end):
                return None
        return self._told.popleft()

    def _hears(self, seconds: float) -> bool:
        """Wait; return whether anything was announced, or was lost."""
        ready, _, _ = select.select(
            [self._wake.fileno(), self._announcements.fileno()], [], [], max(seconds, 0)
        )
        self._is_stopped = self._wake.fileno() in ready
        return bool(ready) and not self._is_stopped and self._announcements.heard()

    def _sleeps(self, seconds: float) -> None:
        ready, _, _ = select.select([self._wake.fileno()], [], [], seconds)
        self._is_stopped = bool(ready)

    def _look(self, *, thorough: bool) -> None:
        names = store.names(self._root) if self._names is None else self._names
        for name in names:
            self._follow(name, thorough)

    def _follow(self, name: str, thorough: bool) -> None:
        what = f"follow the interfaces of port table {name}"
        while True:
            try:
                with store.locked(name, what, pin_root=self._root) as opened:
                    followed = follow(opened, thorough=thorough)
            except UsageError:
                # It was destroyed.
                return
            except (HookBusy, KernelRefused, RequirementUnmet) as error:
                text = f"port table {name} cannot be followed: {error.cause}"
                self._tell(Change(name, None, None, Event.REFUSED, text))
                return
            self._repeated.pop((name, None), None)
            for change in followed.changes:
                self._tell(change)
            # What happened there before it is heard of has to be looked at.
            if not self._announcements.include(followed.places):
                return

    def _tell(self, change: Change) -> None:
        """Have a change told; what is tried again and again is told once."""
        key = change.table, change.number
        if change.event in (Event.RETURNED, Event.MOVED):
            self._settled_at = time.monotonic() + _SETTLES
        if change.event not in (Event.REFUSED, Event.PREPARED):
            self._repeated.pop(key, None)
        elif self._repeated.get(key) == change.text:
            return
        else:
            self._repeated[key] = change.text
        self._told.append(change)

    def stop(self) -> None:
        """End :meth:`wait` and the iteration, now and for good."""
        os.eventfd_write(self._wake.fileno(), 1)

    def close(self) -> None:
        """Close the sockets; safe to repeat."""
        self._resources.close()


def watch(names: Iterable[str] | None = None, *, pin_root: StrPath = DEFAULT_ROOT) -> Watch:
    """Watch port tables, see :class:`Watch`.

    Args:
        names: those of the tables; None: all that there are, and that come.
        pin_root: the bpffs that they are in.

    Raises:
        UsageError: there is no such table.
        MissingPrivilege: a capability is missing.
    """
    return Watch(names, pin_root=pin_root)
