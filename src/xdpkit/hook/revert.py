# SPDX-License-Identifier: Apache-2.0
"""Undo a change unless somebody confirms it in time: an administrator's way back in.

The record of the new program says when, so that every process can see it and confirm. A process of
its own, the guard (:mod:`xdpkit.hook.guard`), waits and holds the program that is to come back. It
does not hear the hang-up of the session that started it, and is nobody's child.

One change waits at a time. Another timed one is refused meanwhile: what it would go back to may be
gone by then, and nobody would be left to undo the first. Any other change settles the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import xdpkit
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook.holding import exchanged, open_program
from xdpkit.hook.homes import ids_on
from xdpkit.hook.place import Place
from xdpkit.hook.repair import finish_leaving, repair
from xdpkit.hook.state import LEAVING, AttachedProgram
from xdpkit.hook.unread import put_back_unread
from xdpkit.interfaces import Interface
from xdpkit.syscalls import netns, privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.record import Record
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec

READY = b"ready\n"
"""What the guard writes when it has begun to wait; anything else is why it cannot."""
MADE = b"made"
"""What is written to the guard when the change has been made."""
FAILED = b"failed"
"""What is written to the guard when the change was given up."""

_LONGEST = 7 * 24 * 3600.0
# The guard finds this very xdpkit, wherever it begins.
_PACKAGES = str(Path(xdpkit.__file__).resolve().parent.parent)


@dataclass(frozen=True, slots=True)
class Task:
    """What a guard is to do.

    Attributes:
        name: the interface's name when the change was made.
        ifindex, netns_cookie: the interface, and the hook in the program's record.
        netns: path of the network namespace; None for the guard's own. No descriptor, which would
            keep a namespace that is deleted meanwhile.
        pin_root: a mounted bpffs.
        program: descriptor of the new program.
        previous: descriptor of the one that is to come back, None for an empty hook.
        revert_at: when, in nanoseconds of CLOCK_BOOTTIME, as in the record.
    """

    name: str
    ifindex: int
    netns_cookie: int
    netns: str | None
    pin_root: str
    program: int
    previous: int | None
    revert_at: int


def check(
    revert_after: float | None,
    what: str,
    *,
    stays: bool,
    present: AttachedProgram | None = None,
    program: ProgramSpec | Program | None = None,
) -> None:
    """Refuse a time that makes no sense, or that nobody could keep.

    Args:
        revert_after: seconds; None: no time was given, and nothing is refused.
        what: what is being tried, for errors.
        stays: whether the change is to outlive the process.
        present: the program that is to go, if there is one.
        program: the one that is to come, if there is one.

    Raises:
        UsageError: it is not positive, or longer than a week; or the change is for a block only;
            or another one waits to be confirmed; or the program is there already.
        MissingPrivilege: the guard finds the record by its id, which takes CAP_SYS_ADMIN.
    """
    if revert_after is None:
        return
    if not _is_number(revert_after):
        raise UsageError(
            what, cause=f"the time to undo it is a number of seconds, not {revert_after!r}"
        )
    if not 0 < revert_after <= _LONGEST:
        raise UsageError(what, cause="it can be undone after at most a week, and not before now")
    if not stays:
        raise UsageError(what, cause="what is attached for a block only is undone at its end")
    if present is not None:
        _require_settled([present], what)
        _require_another(program, present, what)
    privilege.require(f"{what}, to be undone by time", (Capability.SYS_ADMIN,))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _require_settled(attached: Iterable[AttachedProgram], what: str) -> None:
    if any(present.seconds_to_revert is not None for present in attached):
        raise UsageError(
            what,
            cause="a change on it waits to be confirmed already",
            remedy="confirm that one first (xdpkit confirm), or make this one without a time",
        )


def _require_another(
    program: ProgramSpec | Program | None, present: AttachedProgram, what: str
) -> None:
    from xdpkit.kernel import Program

    if isinstance(program, Program) and program.id == present.program.id:
        raise UsageError(
            what, cause="it is the program that is there already: there is nothing to go back to"
        )


@contextlib.contextmanager
def guarding(
    interface: Interface,
    place: Place,
    program: Program,
    record: Record | None,
    previous: int | None = None,
) -> Iterator[None]:
    """Start the guard of a change that the ``with`` block makes, if the record asks for one.

    Before the change, so that a session that breaks in between is guarded, too. Under the lock,
    where there is one.

    Args:
        interface: the interface.
        place: the hook.
        program: the new program. record: what was written down with it.
        previous: descriptor of the program that is to come back; None for an empty hook.

    Raises:
        UsageError: another change waits to be confirmed.
        RequirementUnmet: the guard does not find the hook, or ended at once.
        KernelRefused: no process could be started.
    """
    if record is None or not record.revert_at:
        yield
        return
    _require_settled(
        place.look_again(interface).attached, f"change {interface.name}, to be undone by time"
    )
    with _start(interface, place, program, record, previous) as guard:
        said = FAILED
        try:
            yield
            # However late it is: from now on there is something to undo.
            said = MADE
        finally:
            with contextlib.suppress(BrokenPipeError):
                guard.write(said)


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
) -> IO[bytes]:
    """Start a guard; return the pipe by which it is told what became of the change."""
    what = f"start the process that undoes the change on {interface.name}"
    task = Task(
        name=interface.name,
        ifindex=record.ifindex,
        netns_cookie=record.netns_cookie,
        netns=_lasting_path(place.netns),
        pin_root=os.path.abspath(place.pin_root),
        program=program.fileno(),
        previous=previous,
        revert_at=record.revert_at,
    )
    try:
        launched = subprocess.Popen(
            [sys.executable, "-P", "-m", "xdpkit.hook.guard", json.dumps(asdict(task))],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[number for number in (task.program, previous) if number is not None],
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _PACKAGES},
        )
    except OSError as error:
        raise KernelRefused(what, errno=error.errno or 0, cause=error.strerror) from error
    assert launched.stdin is not None, "it was asked for"
    assert launched.stdout is not None, "it was asked for"
    with contextlib.ExitStack() as resources:
        guard = resources.enter_context(launched.stdin)
        with launched.stdout as stdout:
            # This is only what the guard has left, see there.
            launched.wait()
            said = stdout.readline()
        if said != READY:
            cause = said.decode() or f"it ended at once, with status {launched.returncode}"
            raise RequirementUnmet(what, cause=cause)
        resources.pop_all()
    return guard


def _lasting_path(name: str | None) -> str | None:
    """Return the path of a network namespace, as any process can use it."""
    if name is None:
        return None
    folder, file = os.path.split(netns.path_of(name))
    # /proc/self is another process's there.
    return os.path.join(os.path.realpath(folder), file)


def confirm(place: Place) -> AttachedProgram:
    """Keep a change that would be undone by time; return the program that stays, or went.

    Raises:
        UsageError: nothing waits to be confirmed.
        HookBusy: the change is being undone at this moment, or another one is made.
        MissingPrivilege: it takes CAP_SYS_ADMIN to find the record.
    """
    what = f"confirm the change on {place.iface}"
    privilege.require(what, (Capability.SYS_ADMIN,))
    confirmed = _confirm(place, what)
    put_back_unread(place)
    return confirmed


def _confirm(place: Place, what: str) -> AttachedProgram:
    from xdpkit.hook import records

    pins = place.pins
    with pins.locked(what, create=False, lenient=True) as has_pins:
        found = place.look()
        for present in found.attached:
            if present.seconds_to_revert is None or present.record is None:
                continue
            # First, for this is what the guard waits for.
            settled = replace(present.record.record, revert_at=0, reverts_to=0)
            with open_program(present.program.id, found.interface, what) as program:
                records.edit(program.fileno(), present.record, settled)
            # Without pins there is no lock, and it may have been undone at the same moment.
            if present.program.id not in ids_on(place.resolve_again(found.interface)):
                raise exchanged(what, found.interface)
            if present.program.name == LEAVING:
                finish_leaving(found.interface, pins, what)
            if has_pins:
                repair(place.resolve_again(found.interface), pins, what)
            return present
    raise UsageError(what, cause="no change on it waits to be confirmed")
