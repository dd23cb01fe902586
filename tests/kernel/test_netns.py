# SPDX-License-Identifier: Apache-2.0
"""Entering network namespaces, and always coming back."""

from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from tests.kernel.net import namespace
from tests.kernel.process import POWERLESS
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.interfaces import list_all
from xdpkit.syscalls import netns as namespaces
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import cookie, entered, nsenter, path_of

if TYPE_CHECKING:
    from _typeshed import TraceFunction


def here() -> tuple[int, int]:
    """What tells the thread's network namespace from others."""
    status = os.stat("/proc/thread-self/ns/net")
    return status.st_dev, status.st_ino


def inside(name: str) -> tuple[int, int]:
    status = os.stat(path_of(name))
    return status.st_dev, status.st_ino


def test_the_block_runs_in_the_named_namespace_and_what_follows_does_not(netns: str) -> None:
    before = here()

    with entered(netns):
        assert here() == inside(netns)
    assert here() == before


def test_a_path_names_a_namespace_too(netns: str) -> None:
    with entered(f"/run/netns/{netns}"):
        assert here() == inside(netns)


def test_no_name_means_staying(netns: str) -> None:
    with entered(netns), entered(None):
        assert here() == inside(netns)


def test_namespaces_nest(netns: str) -> None:
    with namespace() as other, entered(netns):
        with entered(other):
            assert here() == inside(other)
        assert here() == inside(netns)


def test_an_exception_in_the_block_leaves_the_namespace_too(netns: str) -> None:
    before = here()

    with pytest.raises(ZeroDivisionError), entered(netns):
        raise ZeroDivisionError
    assert here() == before


def test_a_signals_exception_at_any_moment_leaves_the_namespace(netns: str) -> None:
    before = here()
    files = (namespaces.__file__, contextlib.__file__)

    def interrupted(moment: int) -> bool:
        """Enter and leave, with Ctrl-C at a moment; return whether that came."""
        moments = itertools.count()

        def trace(frame: FrameType, event: str, _: object) -> TraceFunction | None:
            if frame.f_code.co_filename not in files:
                return None
            # Python does not look for signals between a generator's yield and its caller.
            is_yield = event == "return" and frame.f_code.co_flags & inspect.CO_GENERATOR
            if event != "exception" and not is_yield and next(moments) == moment:
                raise KeyboardInterrupt
            return trace

        tracer = sys.gettrace()
        try:
            sys.settrace(trace)
            with entered(netns):
                pass
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(tracer)
        return False

    moment = 0
    with warnings.catch_warnings():
        # Of what was opened just then, nobody took hold.
        warnings.simplefilter("ignore", ResourceWarning)
        while interrupted(moment):
            assert here() == before, moment
            moment += 1

    assert moment > 40


def test_the_way_back_needs_no_proc(netns: str) -> None:
    leave = (
        "import os, subprocess, sys\n"
        "from xdpkit.syscalls.netns import cookie, entered\n"
        "before = cookie()\n"
        "with entered(sys.argv[1]):\n"
        "    subprocess.run(['mount', '-t', 'tmpfs', 'none', '/proc'], check=True)\n"
        "    assert cookie() != before\n"
        "print(cookie() == before, os.listdir('/proc'))"
    )

    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", leave, netns],
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout == "True []\n"


def test_who_may_not_enter_is_told_so_and_nothing_of_the_way_back(netns: str) -> None:
    enter = (
        "from xdpkit.syscalls.netns import entered\n"
        "from xdpkit.errors import MissingPrivilege\n"
        "import sys\n"
        "try:\n"
        "    entered(sys.argv[1]).__enter__()\n"
        "except MissingPrivilege as error:\n"
        "    print(error.what, error.__context__)"
    )

    done = subprocess.run(
        [*POWERLESS, sys.executable, "-c", enter, netns], capture_output=True, check=True, text=True
    )

    assert done.stdout == f"enter network namespace {netns} None\n"


def test_other_threads_stay_where_they_are(netns: str) -> None:
    before = here()
    seen = []
    entered_now, looked = threading.Event(), threading.Event()

    def look() -> None:
        entered_now.wait()
        seen.append(here())
        looked.set()

    thread = threading.Thread(target=look)
    thread.start()
    with entered(netns):
        entered_now.set()
        looked.wait()
    thread.join()

    assert seen == [before]


def test_the_mount_namespace_is_the_same_inside(netns: str) -> None:
    before = os.readlink("/proc/thread-self/ns/mnt")

    with entered(netns):
        assert os.readlink("/proc/thread-self/ns/mnt") == before


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("xdpkit-no-such", "/run/netns/xdpkit-no-such does not exist"),
        ("", "cannot be a namespace's name"),
        ("..", "cannot be a namespace's name"),
        ("\ud800", "cannot be a namespace's name"),
        ("/\ud800", "cannot be a namespace's name"),
        ("/proc", "/proc is not a network namespace"),
        ("/dev/null", "/dev/null is not a network namespace"),
        ("/proc/thread-self/ns/mnt", "/proc/thread-self/ns/mnt is not a network namespace"),
    ],
)
def test_what_is_no_network_namespace_is_refused(name: str, cause: str) -> None:
    before = here()

    with pytest.raises(UsageError, match=cause), entered(name):
        pytest.fail("entered")
    assert here() == before


def test_a_file_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with (
        pytest.raises(UsageError, match="is not a network namespace"),
        entered(str(file)),
    ):
        pytest.fail("entered")


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    enter = "import sys; from xdpkit.interfaces import list_all; list_all(netns=sys.argv[1])"

    done = subprocess.run(
        [sys.executable, "-c", enter, str(fifo)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert f"{fifo} is not a network namespace" in done.stderr


def test_a_file_that_cannot_be_opened_is_refused_with_the_errno(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    with pytest.raises(KernelRefused, match="cannot be opened") as refused, entered(loop):
        pytest.fail("entered")
    assert refused.value.errno == errno.ELOOP


def test_a_command_is_made_to_run_in_a_namespace(netns: str) -> None:
    look = "readlink /proc/self/ns/net"
    with entered(netns):
        expected = os.readlink("/proc/thread-self/ns/net")

    for name in (netns, path_of(netns)):
        found = subprocess.check_output(f"{nsenter(name)}{look}", shell=True, text=True)
        assert found.strip() == expected
    assert nsenter(None) == ""
    assert nsenter("a b") == "nsenter --net='/run/netns/a b' "


def test_a_cookie_tells_namespaces_apart_and_stays_the_same(netns: str) -> None:
    with namespace() as other:
        seen = []
        for name in (netns, other, None, netns):
            with entered(name):
                seen.append(cookie())

    assert len(set(seen)) == 3
    assert seen[0] == seen[3]


def test_a_netlink_socket_tells_the_same_cookie(netns: str) -> None:
    with NetlinkSocket() as connection:
        assert connection.netns_cookie() == cookie()
        outside = connection.netns_cookie()
    with entered(netns), NetlinkSocket() as connection:
        assert connection.netns_cookie() == cookie() != outside


def test_no_descriptor_stays_open(netns: str) -> None:
    before = os.listdir("/proc/self/fd")

    with entered(netns):
        list_all()
        cookie()

    assert os.listdir("/proc/self/fd") == before
