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

from xdpkit.errors import MissingPrivilege, UsageError, XdpkitError
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.ports import destroying
from xdpkit.ports.announcing import NOTHING, Announcements, Heard
from xdpkit.ports.following import follow
from xdpkit.ports.planning import Change, Event
from xdpkit.syscalls import privilege
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd
from xdpkit.tables import store
from xdpkit.tables.model import Identity, Port
from xdpkit.uapi.capability import Capability

StrPath = str | os.PathLike[str]

_WHAT = "watch port tables"

# Seconds. What nobody announces is looked at that often: tables that others have made or changed,
# and namespaces where an interface may come back.
_PERIOD = 5.0
# What was prepared, and not all of what undoes it is announced; it takes long to see.
_THOROUGHLY = 60.0
# What is announced of interfaces that were no ports when they were last looked at waits so long.
_LATER = 0.5
# The first change is followed at once; of many, as when a host starts, that many a second, and
# fewer if that takes more than one in so many parts of the time.
_GAP = 0.05
_PARTS = 4
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
        self._names = None if names is None else _checked(names)
        # Tables that nothing is to be done for can be read without.
        privilege.require(_WHAT, (Capability.BPF,))
        for name in self._names or ():
            # Whoever mistypes a name is told so at once.
            store.open(name, pin_root=self._root).close()
        self._told: deque[Change] = deque()
        self._repeated: dict[tuple[str, int | None], str] = {}
        self._known: dict[str, tuple[Identity, ...]] = {}
        self._settled_at: dict[tuple[str, int | None], float] = {}
        self._is_stopped = False
        self._look_at = self._search_at = self._thorough_at = time.monotonic()
        self._rests_until = self._look_at
        with contextlib.ExitStack() as resources:
            self._wake = resources.enter_context(
                Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            )
            self._announcements = resources.enter_context(Announcements())
            self._poll = select.poll()
            self._poll.register(self._wake.fileno(), select.POLLIN)
            self._poll.register(self._announcements.fileno(), select.POLLIN)
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
            UsageError: the timeout is no number of seconds.
            MissingPrivilege: a capability is missing.
            RequirementUnmet: somebody else made the folder of the tables.
        """
        end = time.monotonic() + _seconds(timeout)
        while not self._told:
            now = time.monotonic()
            if now < self._rests_until:
                # Whatever comes meanwhile is looked at together.
                self._sleeps(min(self._rests_until, end) - now)
            elif now >= self._look_at:
                self._look(NOTHING)
            else:
                heard = self._hears(min(self._look_at, end) - now)
                if any(map(heard.concerns, self._all_known())):
                    self._look(heard)
                elif heard.is_anything:
                    self._look_at = min(self._look_at, time.monotonic() + _LATER)
            if self._is_stopped or (not self._told and time.monotonic() >= end):
                return None
        return self._told.popleft()

    def _all_known(self) -> Iterator[Identity]:
        for each in self._known.values():
            yield from each

    def _hears(self, seconds: float) -> Heard:
        """Wait; return what was announced."""
        ready = [descriptor for descriptor, _ in self._poll.poll(_milliseconds(seconds))]
        self._is_stopped = self._wake.fileno() in ready
        return self._announcements.heard() if ready and not self._is_stopped else NOTHING

    def _sleeps(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        self._is_stopped = bool(poll.poll(_milliseconds(seconds)))

    def _look(self, heard: Heard) -> None:
        """Follow all tables, and see about what was heard of, and what it is time for."""
        began = time.monotonic()
        is_round, is_thorough = began >= self._search_at, began >= self._thorough_at
        if is_round:
            self._search_at = began + _PERIOD
            destroying.sweep(self._root)
        if is_thorough:
            self._thorough_at = began + _THOROUGHLY
        names = store.names(self._root) if self._names is None else self._names
        self._known = {name: each for name, each in self._known.items() if name in names}
        for name in names:
            self._follow(name, heard, is_round=is_round, is_thorough=is_thorough)
        self._look_at = self._search_at
        now = time.monotonic()
        self._rests_until = now + max(_GAP, (now - began) * _PARTS)

    def _follow(self, name: str, heard: Heard, *, is_round: bool, is_thorough: bool) -> None:
        what = f"follow the interfaces of port table {name}"

        def is_concerned(port: Port) -> bool:
            return any(map(heard.concerns, _concerning(port)))

        def is_unsettled(port: Port) -> bool:
            return time.monotonic() < self._settled_at.get((name, port.number), 0)

        while True:
            try:
                with store.locked(name, what, pin_root=self._root) as opened:
                    followed = follow(
                        opened,
                        thorough=lambda port: (
                            is_thorough or is_concerned(port) or is_unsettled(port)
                        ),
                        search=lambda port: is_round or is_concerned(port),
                    )
            except MissingPrivilege:
                raise
            except XdpkitError as error:
                self._known.pop(name, None)
                if _is_there(name, self._root):
                    text = f"port table {name} cannot be followed: {error.cause}"
                    self._tell(Change(name, None, None, Event.REFUSED, text))
                return
            self._repeated.pop((name, None), None)
            for change in followed.changes:
                self._tell(change)
            self._known[name] = tuple(
                each for port in followed.table.ports for each in _concerning(port)
            )
            peers = (each.on for port in followed.table.ports for each in port.prepared)
            places = {each.netns_cookie: each.netns for each in peers} | dict(followed.places)
            # What happened there before it is heard of has to be looked at.
            if not self._announcements.include(places):
                return

    def _tell(self, change: Change) -> None:
        """Have a change told; what is tried again and again is told once."""
        key = change.table, change.number
        if change.event in (Event.RETURNED, Event.MOVED):
            self._settled_at[key] = time.monotonic() + _SETTLES
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


def _seconds(timeout: object) -> float:
    """Return how long to wait, as it was given."""
    if timeout is None:
        return math.inf
    if not isinstance(timeout, int | float) or math.isnan(timeout):
        raise UsageError(_WHAT, cause=f"{timeout!r} is no number of seconds")
    return timeout


def _milliseconds(seconds: float) -> int:
    return math.ceil(max(seconds, 0) * 1000)


def _checked(names: object) -> tuple[str, ...]:
    """Return the names of tables that were given, each once."""
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise UsageError(_WHAT, cause=f"they are given as a list of names, not as {names!r}")
    listed = tuple(names)
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(_WHAT, cause=f"a table's name is a text, not {name!r}")
    return tuple(dict.fromkeys(listed))


def _concerning(port: Port) -> Iterator[Identity]:
    """Yield the interfaces that matter to a port: its own, and those that were prepared."""
    if port.interface is not None:
        yield port.interface
        if port.home is not None:
            yield port.home
    for preparation in port.prepared:
        yield preparation.on


def _is_there(name: str, pin_root: str) -> bool:
    """Whether there is a table of this name, be it a damaged one."""
    try:
        store.require(name, _WHAT, pin_root=pin_root)
    except UsageError:
        return False
    return True


def watch(names: Iterable[str] | None = None, *, pin_root: StrPath = DEFAULT_ROOT) -> Watch:
    """Watch port tables, see :class:`Watch`.

    Args:
        names: those of the tables; None: all that there are, and that come.
        pin_root: the bpffs that they are in.

    Raises:
        UsageError: there is no such table, or what was given is no list of names.
        MissingPrivilege: a capability is missing.
    """
    return Watch(names, pin_root=pin_root)
