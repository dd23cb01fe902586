# SPDX-License-Identifier: Apache-2.0
"""Other processes, as /proc shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

# The kernel names links in two ways: bpf_link_prime() and bpf_link_new_fd() in
# kernel/bpf/syscall.c, the latter for links that are opened by id or by pin.
_LINK_FILES = frozenset(("anon_inode:bpf_link", "anon_inode:bpf-link"))

_PROC_PID_INIT_INO = 0xEFFFFFFC  # include/linux/proc_ns.h


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that keeps an object alive.

    Attributes:
        pid: its number.
        name: what it calls itself (/proc/PID/comm), at most 15 characters, which can be any.
    """

    pid: int
    name: str


def pids() -> Iterator[int]:
    """Yield the numbers of all processes that this one may see, in order; none without /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        names = []
    yield from sorted(int(name) for name in names if name.isdecimal())


def shows_all() -> bool:
    """Whether /proc shows the processes of the whole system.

    It does not in a PID namespace other than the first, as in a container, and for whom it was
    mounted with ``hidepid``. Without /proc nothing is shown.
    """
    try:
        own = os.stat("/proc/self/ns/pid").st_ino
        # Who may not see the first process may not see others either.
        os.stat("/proc/1")
    except OSError:
        return False
    # /proc shows this process, so it belongs to this PID namespace or to one above.
    return own == _PROC_PID_INIT_INO


def own_pid() -> int:
    """Return this process's number as /proc counts, which may be another PID namespace's.

    0 without /proc.
    """
    try:
        return int(os.readlink("/proc/self"))
    except OSError:
        return 0


def holders_of_link(link_id: int) -> tuple[Holder, ...]:
    """Return the processes that hold a descriptor of a bpf link, by number; this one among them.

    Processes that may not be looked into are left out: that takes CAP_SYS_PTRACE, or their user.
    """
    return tuple(
        Holder(pid, name)
        for pid in pids()
        if _holds_link(pid, link_id) and (name := _name_of(pid)) is not None
    )


def link_id_of(fdinfo: bytes) -> int | None:
    """Return the link's id in the contents of a /proc/PID/fdinfo file, None if it has none.

    ``bpf_link_show_fdinfo()`` in kernel/bpf/syscall.c.
    """
    for line in fdinfo.split(b"\n"):
        key, _, value = line.partition(b":")
        if key == b"link_id" and value.strip().isdigit():
            return int(value)
    return None


def _holds_link(pid: int, link_id: int) -> bool:
    folder = f"/proc/{pid}"
    try:
        numbers = os.listdir(f"{folder}/fd")
    except OSError:
        return False
    for number in numbers:
        try:
            if os.readlink(f"{folder}/fd/{number}") not in _LINK_FILES:
                continue
            with open(f"{folder}/fdinfo/{number}", "rb") as file:
                if link_id_of(file.read()) == link_id:
                    return True
        except OSError:
            # Closed meanwhile.
            continue
    return False


def _name_of(pid: int) -> str | None:
    """Return what a process calls itself, None if it has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().removesuffix(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return None
