# SPDX-License-Identifier: Apache-2.0
"""Entering network namespaces, and always coming back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.kernel.net import namespace
from xdpkit.errors import UsageError
from xdpkit.interfaces import list_all
from xdpkit.syscalls.netns import cookie, entered, path_of


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


def test_a_cookie_tells_namespaces_apart_and_stays_the_same(netns: str) -> None:
    with namespace() as other:
        seen = []
        for name in (netns, other, None, netns):
            with entered(name):
                seen.append(cookie())

    assert len(set(seen)) == 3
    assert seen[0] == seen[3]


def test_no_descriptor_stays_open(netns: str) -> None:
    before = os.listdir("/proc/self/fd")

    with entered(netns):
        list_all()
        cookie()

    assert os.listdir("/proc/self/fd") == before
