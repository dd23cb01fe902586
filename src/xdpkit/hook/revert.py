# SPDX-License-Identifier: Apache-2.0
"""Undo a change unless somebody confirms it in time: an administrator's way back in.

The record of the new program says when, so that every process can see it and confirm. A process of
its own, the guard, waits and holds the program that is to come back. It does not hear the hang-up
of the session that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import xdpkit
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook import pins as pinned
from xdpkit.hook.holding import holding_of, open_program
from xdpkit.hook.place import Place
from xdpkit.hook.repair import finish_leaving, repair
from xdpkit.hook.state import LEAVING, AttachedProgram, HookStatus
from xdpkit.interfaces import Interface
from xdpkit.syscalls import netns, privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.record import Record
    from xdpkit.kernel import Program

READY = b"ready"
"""What the guard writes when it has begun to wait."""
MADE = b"made"
"""What is written to the guard when the change has been made."""

_LONGEST = 7 * 24 * 3600.0
# The guard finds this very xdpkit, wherever it begins.
_PACKAGES = str(Path(xdpkit.__file__).resolve().parent.parent)


def check(revert_after: float | None, what: str, *, stays: bool) -> None:
    """Refuse a time that makes no sense, or that nobody could keep.

    Raises:
        UsageError: it is not positive, or longer than a week; or the change is for a block only.
        MissingPrivilege: the guard finds the record by its id, which takes CAP_SYS_ADMIN.
    """
    if revert_after is None:
        return
    if not 0 < revert_after <= _LONGEST:
        raise UsageError(what, cause="it can be undone after at most a week, and not before now")
    if not stays:
        raise UsageError(what, cause="what is attached for a block only is undone at its end")
    privilege.require(f"{what}, to be undone by time", (Capability.SYS_ADMIN,))


@contextlib.contextmanager
def guarding(
    interface: Interface,
    place: Place,
    program: Program,
    record: Record | None,
    previous: int | None = None,
) -> Iterator[None]:
    """Start the guard of a change that the ``with`` block makes, if the record asks for one.

    Before the change, so that a session that breaks in between is guarded, too.

    Args:
        interface: the interface.
        place: the hook.
        program: the new program. record: what was written down with it.
        previous: descriptor of the program that is to come back; None for an empty hook.

    Raises:
        RequirementUnmet: the process ended at once.
        KernelRefused: no process could be started.
    """
    if record is None or not record.revert_at:
        yield
        return
    guard = _start(interface, place, program, record, previous)
    assert guard.stdin is not None, "it was asked for"
    with guard.stdin as told:
        try:
            yield
        except BaseException:
            guard.kill()
            guard.wait()
            raise
        # However late it is: from now on there is something to undo.
        with contextlib.suppress(BrokenPipeError):
            told.write(MADE)
    # It outlives this process on purpose, which the destructor would complain about.
    guard.returncode = 0


def require_record(record: Record | None, revert_after: float | None, what: str) -> None:
    """Refuse to promise an undoing that cannot be written down.

    Raises:
        RequirementUnmet: this kernel keeps no records.
    """
    if revert_after is not None and record is None:
        raise RequirementUnmet(
            what,
            cause="this kernel keeps no record with a program (Linux 5.10), so a change cannot be"
            " undone by time",
        )


def _start(
    interface: Interface,
    place: Place,
    program: Program,
    record: Record,
    previous: int | None,
) -> subprocess.Popen[bytes]:
    what = f"start the process that undoes the change on {interface.name}"
    with netns.entered(interface.netns):
        home = netns.own(what)
    with home:
        descriptors = [home.fileno(), program.fileno()]
        if previous is not None:
            descriptors.append(previous)
        task = {
            "iface": interface.index,
            "name": interface.name,
            "netns": home.fileno(),
            "pin_root": place.pin_root,
            "program": program.fileno(),
            "previous": previous,
            "revert_at": record.revert_at,
        }
        try:
            guard = subprocess.Popen(
                [sys.executable, "-P", "-m", "xdpkit.hook.guard", json.dumps(task)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": _PACKAGES},
            )
        except OSError as error:
            raise KernelRefused(what, errno=error.errno or 0, cause=error.strerror) from error
    assert guard.stdout is not None, "it was asked for"
    with guard.stdout as stdout:
        if stdout.read(len(READY)) != READY:
            guard.communicate()
            raise RequirementUnmet(what, cause=f"it ended at once, with status {guard.returncode}")
    return guard


def find_pending(found: HookStatus, program: Program) -> AttachedProgram | None:
    """Return the program on a hook if it is this one, and waits to be confirmed."""
    for present in found.attached:
        if present.program.id == program.id and present.seconds_to_revert is not None:
            return present
    return None


def undo(place: Place, program: Program, previous: Program | None) -> bool:
    """Put the previous program back, or empty the hook, if the new one is still there.

    Returns whether it was there, and not confirmed.

    Raises:
        UsageError: the interface is gone.
        HookBusy: another program took the new one's place at this moment.
        KernelRefused: the kernel or the driver refused.
    """
    what = f"undo the change on {place.iface}"
    pins = place.pins
    with pins.locked(what, create=False) as has_pins:
        found = place.look()
        present = find_pending(found, program)
        if present is None:
            return False
        folder = pins.folder_of(found.interface) if has_pins else None
        with holding_of(present, found.interface, what) as holding:
            if previous is None:
                holding.drop(program.fileno(), what)
            else:
                holding.swap(previous.fileno(), program.fileno(), what)
        if previous is None and folder is not None and folder.keeps(program.id):
            pinned.remove(folder.path)
        elif has_pins:
            repair(place.resolve(), pins, what)
    return True


def confirm(place: Place) -> AttachedProgram:
    """Keep a change that would be undone by time; return the program that stays, or went.

    Raises:
        UsageError: nothing waits to be confirmed.
        MissingPrivilege: it takes CAP_SYS_ADMIN to find the record.
    """
    from xdpkit.hook import records

    what = f"confirm the change on {place.iface}"
    privilege.require(what, (Capability.SYS_ADMIN,))
    pins = place.pins
    with pins.locked(what, create=False) as has_pins:
        found = place.look()
        for present in found.attached:
            if present.seconds_to_revert is None or present.record is None:
                continue
            with open_program(present.program.id, what) as program:
                # First, for this is what the guard waits for.
                settled = replace(present.record.record, revert_at=0, reverts_to=0)
                records.edit(program.fileno(), present.record, settled)
                if present.program.name == LEAVING:
                    finish_leaving(found.interface, pins, what)
                if has_pins:
                    repair(place.resolve(), pins, what)
            return present
    raise UsageError(what, cause="no change on it waits to be confirmed")
