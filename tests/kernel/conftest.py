# SPDX-License-Identifier: Apache-2.0
"""What the tests that talk to the running kernel share.

They run in a mount namespace of their own, with a bpffs of their own on /sys/fs/bpf and with named
network namespaces that only they see; so does each worker of ``--workers``. Each of them closes
every descriptor that it opens. ``@pytest.mark.needs("batch")`` says what the kernel must have, by
the names of :data:`xdpkit.probes.FEATURES`.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.attaching import pin_root
from tests.kernel.net import netns, veth
from xdpkit.probes import FEATURES, Answer, probe

__all__ = ["bpffs", "netns", "pin_root", "veth"]

BPFFS = "/sys/fs/bpf"
NETNS = "/run/netns"

# include/uapi/linux/sched.h, include/uapi/linux/mount.h.
_CLONE_NEWNS = 0x00020000
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19

_numbers = itertools.count()


def pytest_configure() -> None:
    _live_apart()


def pytest_worker_begins() -> None:
    _live_apart()


def _live_apart() -> None:
    """Give this process a bpffs and named network namespaces that nobody else sees.

    Tests that need them find out if that failed.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) == 0:
        libc.mount(b"", b"/", None, _MS_REC | _MS_SLAVE, None)
        libc.mount(b"bpf", BPFFS.encode(), b"bpf", 0, None)
        os.makedirs(NETNS, exist_ok=True)
        libc.mount(b"tmpfs", NETNS.encode(), b"tmpfs", 0, None)
        _keep_company()


def _keep_company() -> None:
    """Leave a process in this mount namespace, which is nobody's alone then.

    A pin in a mount that only this process has would be refused: it would end with the process.
    """
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    # The other process ends when this one does, and with it the pipe.


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            finding = probe(name)
            if finding.answer is not Answer.YES:
                pytest.skip(
                    f"needs {name}, which came with Linux {FEATURES[name].since}"
                    f" ({finding.answer.value}: {finding.evidence})"
                )


@pytest.fixture(autouse=True)
def every_descriptor_is_closed() -> Iterator[None]:
    """Fail a test that leaves a file descriptor open."""
    before = _descriptors()
    yield
    left = _descriptors() - before
    if left:
        # What only a reference cycle keeps (a traceback) is not forgotten.
        gc.collect()
        left = _descriptors() - before
    assert not left, f"descriptors left open: {sorted(left)}"


def _descriptors() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            # The descriptor of the listing itself.
            continue
    return found


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """An empty folder on the bpffs; what is pinned there goes with it."""
    folder = Path(BPFFS) / f"test-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
