# SPDX-License-Identifier: Apache-2.0
"""Which counters tell what an interface does, as well as that is known.

What programs returned comes first: it is exact, and by program. Without it, drivers tell, each as
much as it does. What went wrong, the tracepoints tell, and without them the others again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.cli.screen.board import FAILED, PACKETS, Board, Place
from xdpkit.cli.screen.troubles import DRIVER_ERRORS
from xdpkit.monitor.rates import Series
from xdpkit.monitor.samples import DRIVER, DRIVER_BYTES, RETURNED, RETURNED_BYTES

if TYPE_CHECKING:
    from xdpkit.hook.counters import CounterReport

ACTIONS = ("pass", "drop", "tx", "redirect", "aborted", "invalid")
"""What programs return, the frequent ones first; the last two are errors."""

ERRORS = ACTIONS[4:]
"""Those that are errors."""

_VALID = ACTIONS[:4]
_OF_DRIVER = {"invalid": "invalid_action"}


@dataclass(frozen=True, slots=True)
class Figures:
    """Series of a board, by what they tell."""

    board: Board

    @property
    def is_installed(self) -> bool:
        """Whether the tracepoints are counted."""
        return self.board.snapshot.installed is not None

    def report(self, place: Place) -> CounterReport | None:
        """Return what programs of an interface returned, None if that is not counted."""
        if place.netns:
            return None
        for report in self.board.snapshot.returned:
            if report.interface.name == place.interface and report.is_enabled is not False:
                return report
        return None

    def packets(self, place: Place) -> tuple[Series, ...]:
        """Return what together counts the packets of an interface."""
        own = Series(PACKETS, (*place, None))
        if self.report(place) is not None:
            return (own,)
        whole = driver_series(place, "packets")
        if whole in self.board.totals:
            return (whole,)
        by_action = tuple(driver_series(place, action) for action in _VALID)
        # A driver that does not count what passes does not know how many there were.
        return by_action if by_action[0] in self.board.totals else (own,)

    def bytes(self, place: Place) -> Series:
        """Return what counts the bytes of an interface's packets."""
        if self.report(place) is not None:
            return Series(RETURNED_BYTES.name, (*place, None, None, None))
        return Series(DRIVER_BYTES.name, (*place, None, None))

    def action(self, place: Place, action: str) -> tuple[Series, ...]:
        """Return what counts the packets of an interface with one action."""
        if self.report(place) is not None:
            return (Series(RETURNED.name, (*place, None, None, action)),)
        return (driver_series(place, _OF_DRIVER.get(action, action)),)

    def errors(self, place: Place) -> tuple[Series, ...]:
        """Return what together counts the errors of an interface."""
        if self.is_installed:
            return (Series(FAILED, place),)
        if self.report(place) is None:
            return tuple(driver_series(place, event) for event in DRIVER_ERRORS)
        # What drivers say of these actions are the same packets.
        others = [event for event in DRIVER_ERRORS if event not in ("aborted", "invalid_action")]
        return (
            *(Series(RETURNED.name, (*place, None, None, action)) for action in ERRORS),
            *(driver_series(place, event) for event in others),
        )


def driver_series(place: Place, event: str, queue: str | None = None) -> Series:
    """Return what a driver says of an event, in one queue, or in all of them together."""
    return Series(DRIVER.name, (*place, queue, None, event))
