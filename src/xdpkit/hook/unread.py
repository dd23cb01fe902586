# SPDX-License-Identifier: Apache-2.0
"""Put plain copies back where frames were reported: at a reader's end, or after it was killed.

A reader that was killed leaves copies that report to nobody (:mod:`xdpkit.hook.readers`). Each
change to the hook ends by exchanging them, and so do ``counters`` and ``clean``. Not before: what a
change found on the hook when it was prepared must still be there. While a change waits to be
confirmed nothing is exchanged. Whoever undoes it does so afterwards, for what comes back may
report.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from xdpkit.errors import XdpkitError
from xdpkit.hook import readers

if TYPE_CHECKING:
    from xdpkit.hook.pins import Pins
    from xdpkit.hook.place import Place
    from xdpkit.hook.reach import Hook
    from xdpkit.hook.view import View
    from xdpkit.interfaces import Interface

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Change(Protocol):
    @property
    def _place(self) -> Place: ...


_ChangeT = TypeVar("_ChangeT", bound=_Change)


def ends_unread(
    change: Callable[Concatenate[_ChangeT, _P], _T],
) -> Callable[Concatenate[_ChangeT, _P], _T]:
    """Have a change end by putting plain copies back where a reader was killed."""

    @functools.wraps(change)
    def made(self: _ChangeT, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        result = change(self, *args, **kwargs)
        put_back_unread(self._place)
        return result

    return made


def put_back_unread(place: Place) -> None:
    """Put plain copies back on a hook if its reader was killed. Takes the lock.

    What cannot be done is left for the next change: the one that was made is not undone by it.
    """
    pins = place.pins
    if not readers.may_have_left(pins):
        return
    what = f"put back the programs on {place.iface} that report to nobody"
    with contextlib.suppress(XdpkitError), pins.locked(what, create=False) as has_pins:
        if has_pins and readers.left(pins):
            finish(place, place.resolve(), what)


def stale(view: View, pins: Pins) -> frozenset[Hook]:
    """Return by which names of a hook there are copies on it that report to nobody."""
    return frozenset(record.hook for record in view.reporting) - readers.live(pins)


def release(pins: Pins, hooks: Collection[Hook], view: View) -> None:
    """Remove what says that there were readers, if none of their copies is left. Under the lock.

    Args:
        pins: all pins.
        hooks: all names that the hook has, or had.
        view: the hook as it is now.
    """
    if view.is_waiting or stale(view, pins):
        return
    for hook in readers.left(pins).keys() & set(hooks):
        readers.give_up(pins, hook)


def finish(place: Place, interface: Interface, what: str) -> None:
    """Put plain copies back on a hook if its reader was killed. Under the lock.

    Raises:
        UsageError: the interface has gone.
        HookBusy: another process changed the hook meanwhile.
        RequirementUnmet: pins are impossible.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    view = _look(place, interface)
    hooks = view.hooks
    if stale(view, place.pins):
        put_plain(place, interface, what)
        view = _look(place, place.resolve_again(interface))
    release(place.pins, hooks, view)


def put_plain(place: Place, interface: Interface, what: str) -> None:
    """Have the programs on a hook report no longer; they go on counting as it is set.

    Under the lock. While a change waits to be confirmed nothing is done: what would be put back is
    not to be exchanged.

    Raises:
        UsageError, HookBusy, RequirementUnmet, MissingPrivilege, KernelRefused: as :func:`finish`.
    """
    from xdpkit.hook import settings
    from xdpkit.hook.exchanging import exchange_copies
    from xdpkit.hook.repair import sweep
    from xdpkit.hook.work import Work

    view = _look(place, interface)
    if view.is_waiting or not view.reporting:
        return
    found = settings.first(settings.places(place.pins, interface))
    counting = found.counting if found is not None else settings.Counting.OFF
    exchange_copies(view, place.pins, Work(counting), what)
    sweep(place.resolve_again(interface), place.pins)
    _look(place, interface).unpin_left_arrays()


def _look(place: Place, interface: Interface) -> View:
    from xdpkit.hook.view import View

    return View.of(place, interface)
