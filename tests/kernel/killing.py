# SPDX-License-Identifier: Apache-2.0
"""Children that kill themselves at a given step of a change, and what they leave in the kernel.

A step is a system call that matters: of bpf(2), by the funnel that all of them go through; of
netlink, by the request; of ethtool, by what it sets; of the file system, locks and processes, by
Python's audit events. A call
that only reads, or that makes something which dies with the process, leaves nothing to be seen: a
death before it is the same as one before the next step that counts. So the short runs die before
those that last only, and the long ones before each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.kernel.net import Veth
from xdpkit.errors import UsageError
from xdpkit.interfaces import namespaces
from xdpkit.kernel import Map
from xdpkit.syscalls import bpf, ethtool
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.bpf import Cmd, MapType
from xdpkit.uapi.if_link import RouteMessage

DEADLINE = 20.0

_MAKES = {
    Cmd.MAP_CREATE: ObjectKind.MAP,
    Cmd.PROG_LOAD: ObjectKind.PROGRAM,
    Cmd.BTF_LOAD: ObjectKind.BTF,
    Cmd.LINK_CREATE: ObjectKind.LINK,
    Cmd.RAW_TRACEPOINT_OPEN: ObjectKind.LINK,
}
_FIELDS = {
    ObjectKind.MAP: "map_id",
    ObjectKind.PROGRAM: "prog_id",
    ObjectKind.BTF: "btf_id",
    ObjectKind.LINK: "link_id",
}

# What can be seen of a process after its death, if it was to stay.
_LASTING_COMMANDS = {
    Cmd.LINK_CREATE,
    Cmd.LINK_UPDATE,
    Cmd.LINK_DETACH,
    Cmd.OBJ_PIN,
    Cmd.MAP_UPDATE_ELEM,
    Cmd.PROG_BIND_MAP,
}
_LASTING_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "subprocess.Popen"}
_EVENTS = _LASTING_EVENTS | {
    "fcntl.flock",
    "fcntl.ioctl",
    "os.chmod",
    "os.chown",
    "os.listdir",
    "os.scandir",
}


class Killing:
    """Runs changes in children that die, and knows every object that was made meanwhile.

    Attributes:
        made: the objects, and when they were made. deaths: how many children have died.
    """

    def __init__(self) -> None:
        self.made: dict[tuple[ObjectKind, int], str] = {}
        self.deaths = 0
        self._report: int | None = None
        self._is_child = False
        self._steps_left: int | None = None
        self._every = False
        self._is_noting = False

    def programs(self) -> set[int]:
        """Return the ids of the programs that were loaded."""
        return {number for kind, number in self.made if kind is ObjectKind.PROGRAM}

    def die(self, change: Callable[[], object], step: int, *, every: bool = False) -> str | None:
        """Make a change in a child that kills itself before a step; the first is number 1.

        Returns the step that was not made any more; None if the child made the whole change.
        """

        def until_the_step() -> None:
            self._steps_left, self._every = step, every
            sys.addaudithook(self._heard)
            change()

        with self.reporting(f"before step {step}") as said:
            child = self.fork(until_the_step)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "\n".join(said)
            return None
        assert os.WTERMSIG(status) == signal.SIGKILL
        self.deaths += 1
        return said[-1]

    @contextlib.contextmanager
    def reporting(self, when: str) -> Iterator[list[str]]:
        """Hear what the children say that the ``with`` block starts, until the last one is dead.

        Yields a list, which is filled at the end of the block. What they made is noted apart.
        """
        reading, self._report = os.pipe()
        said: list[str] = []
        try:
            yield said
        finally:
            os.close(self._report)
            self._report = None
            with open(reading, encoding="utf-8") as report:
                for line in report:
                    made = re.fullmatch(r"made (\w+) (\d+)\n", line)
                    if made is None:
                        said.append(line.rstrip("\n"))
                    else:
                        self.made[ObjectKind[made[1]], int(made[2])] = when

    def say(self, line: str) -> None:
        """Report from a child. Lines of several of them do not mix."""
        assert self._report is not None
        os.write(self._report, f"{line[: select.PIPE_BUF - 1]}\n".encode())

    def fork(self, task: Callable[[], object]) -> int:
        """Start a child that does a task, and says the traceback if that fails; return its id."""
        child = os.fork()
        if child:
            return child
        self._is_child = True
        status = 1
        try:
            task()
            status = 0
        except BaseException:
            for line in traceback.format_exc().splitlines():
                self.say(line)
        finally:
            os._exit(status)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in (_EVENTS if self._every else _LASTING_EVENTS) and not self._is_noting:
            self._step(f"{event} {arguments[0]}")

    def _step(self, name: str) -> None:
        if self._steps_left is None:
            return
        self._steps_left -= 1
        if self._steps_left == 0:
            self.say(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note what this process makes in the kernel, and have its children step."""
        real, real_request, real_set = bpf.funnel, NetlinkSocket.request, ethtool.set_offloads

        def funnel(cmd: int, argument: Any) -> int:
            if self._every or cmd in _LASTING_COMMANDS:
                self._step(Cmd(cmd).name)
            result = real(cmd, argument)
            kind = _MAKES.get(Cmd(cmd))
            if kind is not None and result >= 0:
                self._note(kind, result)
            return result

        def request(connection: NetlinkSocket, kind: int, *args: Any, **options: Any) -> Any:
            if self._every or kind == RouteMessage.SETLINK:
                self._step(f"netlink {kind}")
            return real_request(connection, kind, *args, **options)

        def set_offloads(
            connection: NetlinkSocket, interface: str | int, wanted: Mapping[str, bool]
        ) -> None:
            # Where each ioctl is a step, this is none besides.
            if not self._every:
                self._step(f"ethtool {wanted}")
            real_set(connection, interface, wanted)

        monkeypatch.setattr(bpf, "funnel", funnel)
        monkeypatch.setattr(ethtool, "set_offloads", set_offloads)
        monkeypatch.setattr(NetlinkSocket, "request", request)

    def _note(self, kind: ObjectKind, descriptor: int) -> None:
        self._is_noting = True
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
            found = re.search(rf"^{_FIELDS[kind]}:\s*(\d+)$", info.read(), re.MULTILINE)
        self._is_noting = False
        assert found is not None
        if self._is_child:
            self.say(f"made {kind.name} {found[1]}")
        else:
            self.made[kind, int(found[1])] = "by the test itself"

    def assert_nothing_is_left(self) -> None:
        """Wait until the kernel has none of what was made any more; bpftool has to agree.

        The kernel takes apart in the background what has no owner left.
        """
        wait_until(lambda: not self._left(), lambda: f"left in the kernel: {self._left()}")
        left = self.made.keys() & set(_seen_by_bpftool())
        assert not [key for key in left if not _has_the_kernel_lost(*key)]

    def _left(self) -> dict[tuple[ObjectKind, int], str]:
        kinds = {kind for kind, _ in self.made}
        present = {(kind, number) for kind in kinds for number in bpf.ids(kind)}
        return {
            key: when
            for key, when in self.made.items()
            if key in present and not _has_the_kernel_lost(*key)
        }


def _has_the_kernel_lost(kind: ObjectKind, number: int) -> bool:
    """Whether it is a program array that nobody holds any more.

    Somebody looked at it by its id when its last user had just gone (bpftool does so, and
    ``xdpkit status``). Then that happens twice before the array is emptied: prog_array_map_clear()
    in kernel/bpf/arraymap.c takes two references, and its work gives one back. What else could hold
    an array would be left, too: a program, a pin, a descriptor.
    """
    if kind is not ObjectKind.MAP:
        return False
    try:
        with Map.from_id(number) as found:
            return found.type == MapType.PROG_ARRAY and not len(found)
    except UsageError:
        return False


def _seen_by_bpftool() -> Iterator[tuple[ObjectKind, int]]:
    bpftool = shutil.which("bpftool")
    if bpftool is None:
        return
    words = {ObjectKind.PROGRAM: "prog", ObjectKind.MAP: "map", ObjectKind.LINK: "link"}
    for kind, word in words.items():
        done = subprocess.run([bpftool, "-j", word, "show"], check=False, stdout=subprocess.PIPE)
        # What ends while it lists is an error to it, among the others or instead of them.
        with contextlib.suppress(ValueError):
            listed = json.loads(done.stdout)
            yield from ((kind, each["id"]) for each in listed if "id" in each)


def wait_until(
    condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "it does not come"
) -> None:
    """Wait for a condition; fail the test if it does not come to pass."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.01)


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killing]:
    """Children that die; all that they and the test itself make has to be gone at the end."""
    killing = Killing()
    killing.watch(monkeypatch)
    yield killing
    killing.assert_nothing_is_left()


@pytest.fixture
def only_here(veth: Veth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``clean`` reach the test's own namespace only: others are not the test's to clean."""
    reach(monkeypatch, veth.netns)


def reach(monkeypatch: pytest.MonkeyPatch, *netns: str, unseen: int = 0) -> None:
    """Let ``clean`` reach these namespaces only."""

    def reachable() -> namespaces.Reachable:
        found = namespaces.reachable()
        places = {cookie: place for cookie, place in found.items() if place.netns in netns}
        return namespaces.Reachable(places, unseen)

    monkeypatch.setattr("xdpkit.hook.cleaning.reachable", reachable)
