# SPDX-License-Identifier: Apache-2.0
"""The process that undoes a change unless it is confirmed: see :mod:`xdpkit.hook.revert`.

``python -m xdpkit.hook.guard TASK`` is started by the change itself, and inherits descriptors of
the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import syslog
import time

from xdpkit.errors import XdpkitError
from xdpkit.hook import revert
from xdpkit.hook.place import Place
from xdpkit.kernel import Program
from xdpkit.syscalls.fd import Fd

_LOOK_EVERY = 1.0


def main(argument: str) -> None:
    """Wait for the time that the task names, and undo the change if nobody has confirmed it."""
    task = json.loads(argument)
    place = Place(task["iface"], f"/proc/self/fd/{task['netns']}", task["pin_root"])
    with contextlib.ExitStack() as resources:
        program = resources.enter_context(Program(Fd(task["program"])))
        previous = None
        if task["previous"] is not None:
            previous = resources.enter_context(Program(Fd(task["previous"])))
        _tell_ready()
        try:
            _wait(place, program, task["revert_at"])
            if not revert.undo(place, program, previous):
                return
        except XdpkitError as error:
            syslog.syslog(syslog.LOG_ERR, str(error))
        else:
            syslog.syslog(
                syslog.LOG_WARNING,
                f"the change of the XDP program on {task['name']} was not confirmed, and is undone",
            )


def _tell_ready() -> None:
    os.write(sys.stdout.fileno(), revert.READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _wait(place: Place, program: Program, revert_at: int) -> None:
    """Wait for the time, or until there is nothing to undo any more.

    Before the program is on the hook there is nothing to undo either; so that counts only when the
    change has been made, or whoever was making it is dead. On a busy machine that can be later than
    the time.
    """
    is_made = False
    while True:
        is_there = revert.find_pending(place.look(), program) is not None
        left = (revert_at - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
        if (is_made and not is_there) or (left <= 0 and is_there):
            return
        pause = min(_LOOK_EVERY, left) if left > 0 else _LOOK_EVERY
        if is_made:
            time.sleep(pause)
        else:
            is_made = bool(select.select([sys.stdin], [], [], pause)[0])


if __name__ == "__main__":
    syslog.openlog("xdpkit")
    main(sys.argv[1])
