# SPDX-License-Identifier: Apache-2.0
"""Who serves which packets on a hook that xdpkit keeps: directly, or under a root."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import roots, scope
from xdpkit.hook.holding import exchanged
from xdpkit.hook.looking import member_of
from xdpkit.hook.mode import Mode
from xdpkit.hook.place import Place
from xdpkit.hook.present import find_present
from xdpkit.hook.scope import Seat
from xdpkit.hook.state import LEAVING, AttachedProgram, HookStatus, command_for
from xdpkit.interfaces import Interface
from xdpkit.syscalls import privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.roots import Root


@dataclass(frozen=True, slots=True)
class Seats:
    """A hook that xdpkit keeps, and the programs on it.

    Attributes:
        found: the hook as it was seen.
        hook: what the kernel has on it: a program for all queues, or the root.
    """

    found: HookStatus
    hook: AttachedProgram

    @property
    def interface(self) -> Interface:
        return self.found.interface

    @property
    def root(self) -> Root | None:
        return self.hook.root

    def taken(self, seats: Iterable[Seat], what: str) -> dict[Seat, int]:
        """Return the ids of the programs that sit there; seats that are free are left out."""
        if self.root is None:
            return {None: self.hook.program.id} if None in seats else {}
        with roots.open_array(self.root, what) as array:
            found = {seat: roots.member_in(array, self.root, seat) for seat in seats}
        return {seat: number for seat, number in found.items() if number is not None}

    def all(self, what: str) -> dict[Seat, int]:
        """Return the ids of all programs."""
        if self.root is None:
            return {None: self.hook.program.id}
        return roots.members_of(self.root, what)

    def look_at(self, number: int) -> AttachedProgram:
        """Look at one of the programs."""
        if self.root is None:
            return self.hook
        return member_of(self.hook, number, self.interface)


def look(place: Place, found: HookStatus, what: str) -> Seats | None:
    """Return who serves which packets; None where nothing is on the hook.

    Raises:
        UsageError: the program is on the NIC, or is being detached.
        HookBusy: something is there that xdpkit does not keep there, or not by pins of this place.
        MissingPrivilege: it takes CAP_SYS_ADMIN to look at programs.
    """
    if not any(not program.is_leaving for program in found.attached):
        return None
    privilege.require(what, (Capability.SYS_ADMIN,))
    hook = find_present(found, None, place.pin_root, what, can_be_named=False)
    if hook.mode is Mode.OFFLOAD:
        raise UsageError(what, cause="a program on the NIC is for all queues")
    if hook.program.name == LEAVING and hook.seconds_to_revert is not None:
        raise UsageError(
            what,
            cause="its program is being detached, which waits to be confirmed",
            remedy=f"confirm that first: {command_for('confirm', found.interface)}",
        )
    if hook.root is not None and hook.pinned is None:
        folder = place.pins.folder_of(found.interface)
        if folder is None or not folder.keeps(hook.program.id):
            raise HookBusy(
                what,
                cause=f"what runs its programs by RX queue is not pinned below {place.pin_root}",
                remedy="name the place of the pins: --pin-root",
            )
    return Seats(found, hook)


def look_again(place: Place, found: HookStatus, before: Seats, what: str) -> Seats:
    """Return who serves which packets now, if the same program is on the hook as before.

    Raises:
        HookBusy: it is another.
    """
    hook = find_present(found, before.hook.program.id, place.pin_root, what, was_seen=True)
    if (hook.root is None) != (before.root is None):
        raise exchanged(what, found.interface)
    return Seats(found, hook)


def require_unchanged(
    now: Seats, seats: Collection[Seat], before: Mapping[Seat, int], what: str
) -> None:
    """Refuse if other programs sit there than before.

    Raises:
        HookBusy: another process changed the hook meanwhile.
    """
    if now.taken(seats, what) != {seat: before[seat] for seat in seats if seat in before}:
        raise exchanged(what, now.interface)


def require_expected(
    seats: Seats, taken: Mapping[Seat, int], expected: int | None, what: str
) -> None:
    """Refuse if another program than the expected one sits there.

    It is expected by its id, or by the one that it had before it was rewritten.

    Raises:
        HookBusy: so it is.
    """
    if expected is None:
        return
    for number in dict.fromkeys(taken.values()):
        if number == expected:
            continue
        present = seats.look_at(number)
        if present.logical_id != expected:
            where = [seat for seat, each in taken.items() if each == number]
            whose = f"{describe(where)} {_have(where)}" if where != [None] else "the global one is"
            raise HookBusy(
                what,
                cause=f"program {expected} is expected, but {whose} {present.describe()}",
            )


def _have(seats: Collection[Seat]) -> str:
    return "has" if len(seats) == 1 else "have"


def describe(seats: Collection[Seat]) -> str:
    """Return seats as a phrase; the global one comes alone."""
    queues = frozenset(seat for seat in seats if seat is not None)
    return scope.describe(queues or None)


def require_sight(found: HookStatus, what: str) -> None:
    """Refuse to change a hook whose programs cannot be seen: its root was recognised by its pins.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    if any(each.root is not None and each.program.name is None for each in found.attached):
        privilege.require(what, (Capability.SYS_ADMIN,))
