# SPDX-License-Identifier: Apache-2.0
"""The process that undoes a change unless it is confirmed: see :mod:`xdpkit.hook.revert`.

``python -m xdpkit.hook.guard TASK`` is started by the change itself, and inherits descriptors of
the programs. It forks and ends at once: what is left waits, and is not the child of a process that
may live long and never ask what became of it.

No single look decides that there is nothing to do: whoever is cut off has no second chance.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import select
import sys
import syslog
import time
from dataclasses import dataclass

from xdpkit.errors import RequirementUnmet, UsageError, XdpkitError
from xdpkit.hook import pins as pinned
from xdpkit.hook import records
from xdpkit.hook.holding import exchanged, holding_of
from xdpkit.hook.homes import ids_on
from xdpkit.hook.place import Place
from xdpkit.hook.repair import sweep
from xdpkit.hook.revert import FAILED, MADE, READY, Task
from xdpkit.hook.unread import finish
from xdpkit.interfaces import Interface, namespaces
from xdpkit.kernel import Program
from xdpkit.syscalls.fd import Fd

LOOK_EVERY = 1.0
"""Seconds between two looks, and between two attempts."""
ATTEMPTS = 30
"""How often it is tried to undo a change, from its time on."""
GONE_AFTER = 10
"""How many looks that find the interface nowhere say that it has been deleted."""


class Sight(enum.Enum):
    """What a look at the hook says about a change."""

    WAITS = "the new program is there, and not confirmed"
    OVER = "there is nothing to undo, or not yet"
    GONE = "no network namespace that has a name or a process has the interface"
    UNKNOWN = "it cannot be told"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is to be undone.

    Attributes:
        task: what there is to do.
        program: the new program. previous: the one that is to come back, None for an empty hook.
    """

    task: Task
    program: Program
    previous: Program | None

    @property
    def what(self) -> str:
        return f"undo the change on {self.task.name}"

    @property
    def home(self) -> Place:
        """The hook where the change was made."""
        return Place(self.task.ifindex, self.task.netns, self.task.pin_root)

    def seconds_left(self) -> float:
        return (self.task.revert_at - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9

    def at_home(self) -> Interface | None:
        """Return the interface, None if it is not where it was.

        Raises:
            MissingPrivilege: entering its namespace takes CAP_SYS_ADMIN.
            KernelRefused: the kernel refused.
        """
        try:
            interface = self.home.resolve()
        except UsageError:
            return None
        # Another namespace can have taken the name, or the process's number.
        return interface if interface.netns_cookie == self.task.netns_cookie else None

    def look(self) -> Sight:
        """Look at the hook."""
        try:
            is_waiting = self._is_waiting()
            if is_waiting is False:
                return Sight.OVER
            interface = self.at_home()
            if interface is not None and self.program.id in ids_on(interface):
                return Sight.WAITS if is_waiting else Sight.UNKNOWN
            # The index at home can be another interface's by now.
            if self._elsewhere():
                return Sight.UNKNOWN
            if interface is not None:
                return Sight.OVER
            return Sight.UNKNOWN if namespaces.reachable().unseen else Sight.GONE
        except (XdpkitError, OSError):
            return Sight.UNKNOWN

    def _is_waiting(self) -> bool | None:
        """Return whether the record has this change; None if it is not found.

        A record that is being written can be missed once.
        """
        stored = records.find(
            self.program.fileno(), netns_cookie=self.task.netns_cookie, ifindex=self.task.ifindex
        )
        return None if stored is None else stored.record.revert_at == self.task.revert_at

    def _elsewhere(self) -> list[tuple[Place, Interface]]:
        """Return the interfaces that can be this one, moved: those that no record accounts for."""
        recorded = {each.record.hook for each in records.find_all(self.program.fileno())}
        return [
            (Place(interface.index, there.netns, self.task.pin_root), interface)
            for there, interface in namespaces.find(self.task.ifindex, self.program.id)
            if (interface.netns_cookie, interface.index) not in recorded
        ]

    def _find(self) -> tuple[Place, Interface]:
        """Return where the interface is now, with the new program.

        Raises:
            UsageError: it is not found, or several can be meant.
        """
        interface = self.at_home()
        if interface is not None and self.program.id in ids_on(interface):
            return self.home, interface
        found = self._elsewhere()
        if len(found) != 1:
            there = "several can be it in other namespaces" if found else "is not found elsewhere"
            raise UsageError(
                self.what, cause=f"the interface is not where it was any more, and {there}"
            )
        return found[0]

    def undo(self) -> bool:
        """Put the previous program back, or empty the hook; return False if it was confirmed.

        Raises:
            UsageError: the interface is not found.
            HookBusy: another program took the new one's place at this moment.
            RequirementUnmet: the record is not found.
            KernelRefused: the kernel or the driver refused.
        """
        place, interface = self._find()
        pins = place.pins
        # Whatever becomes of the folder: a link is found without its pin.
        with pins.locked(self.what, create=False, lenient=True) as has_pins:
            found = place.look_again(interface)
            present = next(
                (each for each in found.attached if each.program.id == self.program.id), None
            )
            if present is None:
                raise exchanged(self.what, interface)
            folder = pins.folder_of(found.interface) if has_pins else None
            with holding_of(present, found.interface, self.what) as holding:
                # Now, for without pins there is no lock.
                is_waiting = self._is_waiting()
                if is_waiting is None:
                    raise RequirementUnmet(self.what, cause="its record cannot be read")
                if not is_waiting:
                    return False
                if self.previous is None:
                    holding.drop(self.program.fileno(), self.what)
                else:
                    holding.swap(self.previous.fileno(), self.program.fileno(), self.what)
            records.clear_for(
                self.program.fileno(),
                netns_cookie=self.task.netns_cookie,
                ifindex=self.task.ifindex,
            )
            # It is undone. What cannot be put right now, the next change puts right.
            with contextlib.suppress(XdpkitError, OSError):
                if self.previous is None and folder is not None and folder.keeps(self.program.id):
                    pinned.remove(folder.path)
                elif has_pins:
                    sweep(place.resolve_again(interface), pins)
                if has_pins:
                    # Its reader may have gone while this waited.
                    finish(place, place.resolve_again(interface), self.what)
        return True


def guard(change: Change, told_by: int) -> None:
    """Wait for a change's time, and undo it if nobody has confirmed it.

    Before the program is on the hook there is nothing to undo either; so that counts only when the
    change has been made, or whoever was making it is dead. On a busy machine that can be later than
    the time.

    Args:
        change: the change.
        told_by: descriptor by which :data:`MADE` or :data:`FAILED` comes. Its end: whoever was
            making the change is dead.
    """
    told: bytes | None = None
    attempts = gone = 0
    while True:
        sight = change.look()
        gone = gone + 1 if sight is Sight.GONE else 0
        if told == FAILED:
            if sight is not Sight.WAITS:
                return
            # It was interrupted when it had just been made.
            told = MADE
        if told is not None and (sight is Sight.OVER or gone == GONE_AFTER):
            return
        left = change.seconds_left()
        if left <= 0 and (told is not None or sight is Sight.WAITS):
            attempts += 1
            if _try(change, is_last=attempts == ATTEMPTS):
                return
        pause = min(LOOK_EVERY, left) if left > 0 else LOOK_EVERY
        if told is not None:
            time.sleep(pause)
        elif select.select([told_by], [], [], pause)[0]:
            told = os.read(told_by, len(FAILED))


def _try(change: Change, *, is_last: bool) -> bool:
    """Undo a change; return whether that is settled."""
    try:
        if not change.undo():
            return True
    except (XdpkitError, OSError) as error:
        if is_last:
            syslog.syslog(syslog.LOG_ERR, str(error))
        return is_last
    syslog.syslog(
        syslog.LOG_WARNING,
        f"the change of the XDP program on {change.task.name} was not confirmed, and is undone",
    )
    return True


def main(argument: str) -> None:
    """Guard the change that the task names, in a process of its own."""
    task = Task(**json.loads(argument))
    if os.fork():
        return
    with contextlib.ExitStack() as resources:
        program = resources.enter_context(Program(Fd(task.program)))
        previous = None
        if task.previous is not None:
            previous = resources.enter_context(Program(Fd(task.previous)))
        change = Change(task, program, previous)
        obstacle = _obstacle(change)
        os.write(sys.stdout.fileno(), READY if obstacle is None else obstacle.encode())
        if obstacle is None:
            guard(change, sys.stdin.fileno())


def _obstacle(change: Change) -> str | None:
    """Return why a change could not be undone now, if that is so."""
    try:
        if change.at_home() is None:
            return f"{change.task.name} is not found in {change.task.netns or 'its namespace'}"
    except XdpkitError as error:
        return str(error)
    return None


if __name__ == "__main__":
    syslog.openlog("xdpkit")
    main(sys.argv[1])
