# SPDX-License-Identifier: Apache-2.0
"""Eight processes change one hook at random, in two mount namespaces with a bpffs of their own.

Within a mount namespace they wait for each other, across the two there is no lock: there the
kernel's compare-and-swap decides. Whatever comes of it, the hook is empty or has one of the
programs that were put there, and who could not do what he wanted is told why.
"""

from __future__ import annotations

import collections
import ctypes
import os
import random
import re
import select
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import BPFFS, program
from tests.kernel.compiled import read
from tests.kernel.killing import Killing, killing, only_here
from tests.kernel.net import Veth
from xdpkit import Hook, Mode
from xdpkit.errors import XdpkitError
from xdpkit.hook import Via, clean
from xdpkit.hook.state import LEAVING

__all__ = ["killing", "only_here"]

pytestmark = pytest.mark.needs("bpf-link-xdp")

PROCESSES = 4  # in each of the mount namespaces

# include/uapi/linux/sched.h, include/uapi/linux/mount.h.
CLONE_NEWNS = 0x00020000
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18

# add, replace, replace-expected, delete, delete-expected, open, clean, status
WEIGHTS = (8, 4, 4, 2, 2, 1, 1, 1)

NAMES = {"one", "other", "constant_slot", LEAVING}

# What may be told to who comes too late, or finds another one's program. What happens between the
# look and the change, the kernel tells.
EXPLAINED = re.compile(
    r"already has program"
    r"|nothing is attached to it"
    r"|is expected, but there is"
    r"|the program that was seen there is not there any more"
    r"|but did not pin it below"
    r"|what holds it cannot be told: (its|a) link is being made"
    r"|native and generic mode exclude each other; the kernel says"
    r"|has a program already; the kernel says"
    r"|has a program already, without a bpf_link, and a link does not replace it; the kernel says"
    r"|a bpf_link holds the program on \S+, and only by that link .*; the kernel says"
    r"|is gone, or the link was detached"
)

counts = pytest.mark.parametrize(
    ("seed", "count"),
    [(1, 30), *(pytest.param(seed, 500, marks=pytest.mark.soak) for seed in range(2, 6))],
)


class Worker:
    """Does one thing after another to a hook."""

    def __init__(self, hook: Hook, specs: list[xdpkit.ProgramSpec], seed: int) -> None:
        self._hook = hook
        self._specs = specs
        self._random = random.Random(seed)
        self.verbs: dict[str, Callable[[], object]] = {
            "add": self._add,
            "replace": lambda: self._hook.replace(self._spec(), force=True).close(),
            "replace-expected": self._replace_expected,
            "delete": self._hook.delete,
            "delete-expected": lambda: self._hook.delete(expected=self._present()),
            "open": self._open,
            "clean": clean,
            "status": self._hook.status,
        }

    def _spec(self) -> xdpkit.ProgramSpec:
        return self._random.choice(self._specs)

    def _add(self) -> None:
        mode = self._random.choice((Mode.NATIVE, Mode.GENERIC))
        via = self._random.choice(list(Via))
        self._hook.add(self._spec(), mode=mode, via=via, force=True).close()

    def _present(self) -> int | None:
        attached = self._hook.status().attached
        return attached[0].program.id if attached else None

    def _replace_expected(self) -> None:
        self._hook.replace(self._spec(), expected=self._present(), force=True).close()

    def _open(self) -> None:
        present = self._hook.open()
        if present is not None:
            present.close()

    def work(self, count: int, say: Callable[[str], None]) -> None:
        """Do so many things, and say what came of each."""
        for _ in range(count):
            (verb,) = self._random.choices(list(self.verbs), weights=WEIGHTS)
            try:
                self.verbs[verb]()
            except XdpkitError as error:
                text = f"{type(error).__name__} {error}".replace("\n", "; ")
                say(f"{verb}: refused: {text}")
            else:
                say(f"{verb}: done")


def watch(hook: Hook, say: Callable[[str], None], working: int) -> None:
    """Look at the hook as long as somebody holds a pipe open, and say what should not be there."""
    while not select.select([working], [], [], 0)[0]:
        attached = hook.status().attached
        if len(attached) > 1:
            say(f"watch: several: {[each.describe() for each in attached]}")
        for each in attached:
            # It can go between two looks at it.
            if each.program.name not in {*NAMES, None}:
                say(f"watch: illegal: {each.describe()}")


def own_bpffs() -> None:
    """Go into a mount namespace of one's own, with a bpffs that is nobody else's."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0
    assert libc.mount(b"", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    assert libc.mount(b"bpf", BPFFS.encode(), b"bpf", 0, None) == 0


@counts
def test_processes_that_change_one_hook_at_once_leave_it_legal_and_are_told_why(
    veth: Veth, only_here: None, killing: Killing, seed: int, count: int
) -> None:
    hook = Hook(veth.name, netns=veth.netns)
    specs = [read("counting").programs[name] for name in ("one", "other")]
    specs.append(program("program_array.c", "constant_slot"))
    # What is learnt once in a process is learnt before the first child is born.
    with xdpkit.attach(veth.name, specs[0], netns=veth.netns):
        pass
    # Whoever works holds the writing end open.
    working, works = os.pipe()

    def group(number: int) -> None:
        own_bpffs()
        first = seed * 100 + number * PROCESSES
        members = [
            killing.fork(partial(Worker(hook, specs, each).work, count, killing.say))
            for each in range(first, first + PROCESSES)
        ]
        results = [os.waitpid(member, 0)[1] for member in members]
        os.close(works)
        os.read(working, 1)
        clean(everything=True)
        killing.say(f"group: {results}, left: {list(Path(BPFFS).glob('xdpkit*'))}")

    def watcher() -> None:
        os.close(works)
        watch(hook, killing.say, working)

    with killing.reporting("in the race") as said:
        children = [killing.fork(partial(group, number)) for number in range(2)]
        children.append(killing.fork(watcher))
        os.close(works)
        os.close(working)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0], "\n".join(said)

    outcomes = collections.Counter(line for line in said if line.endswith(": done"))
    assert outcomes["add: done"], outcomes
    assert len(outcomes) > len(WEIGHTS) / 2, outcomes
    others = [line for line in said if line not in outcomes and not EXPLAINED.search(line)]
    assert others == [f"group: {[0] * PROCESSES}, left: []"] * 2, "\n".join(others)
    assert hook.status().attached == ()
