# SPDX-License-Identifier: Apache-2.0
"""Finding network namespaces, and in them interfaces that were moved."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.compiled import returning
from tests.kernel.net import Veth, namespace, rtnetlink
from tests.kernel.process import POWERLESS
from xdpkit.interfaces import namespaces
from xdpkit.interfaces.namespaces import Place, Reachable, find, reachable
from xdpkit.syscalls import bpf, netns, proc
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType, XdpAction

# They compare all namespaces of the machine with those a moment later.
pytestmark = pytest.mark.alone


def cookie_of(name: str | None) -> int:
    with netns.entered(name):
        return netns.cookie()


@contextlib.contextmanager
def process(*by: str, within: str | None = None) -> Iterator[str]:
    """Start a process, in a namespace; yield the file of the one that it is in."""
    with netns.entered(within):
        child = subprocess.Popen(
            [*by, "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    with child:
        assert child.stdout is not None
        # From here on it is where `by` takes it.
        child.stdout.readline()
        yield f"/proc/{child.pid}/ns/net"


def move(veth: Veth, to: str) -> Veth:
    """Move an interface to another namespace."""
    with open(netns.path_of(to), "rb") as place, rtnetlink(veth.netns) as connection:
        connection.link("set", index=veth.interface.index, net_ns_fd=place.fileno())
    return Veth(veth.name, to, veth.peer, veth.peer_netns)


@pytest.fixture
def attached(veth: Veth) -> Iterator[int]:
    """The id of a program that a link holds on the interface, wherever that goes."""
    with netns.entered(veth.netns), returning(XdpAction.PASS) as program:
        link: Fd = bpf.link_create(program.fileno(), veth.interface.index, AttachType.XDP)
    with link:
        yield program.id


def test_the_callers_own_namespace_is_entered_by_staying(veth: Veth) -> None:
    outside = netns.cookie()
    with netns.entered(veth.netns):
        found = reachable()

        assert found[netns.cookie()] == Place(None, netns.cookie())
        # Outside are other processes, this one's main thread among them.
        assert found[outside].netns is not None
    assert netns.cookie() == outside == reachable()[outside].cookie


def test_a_namespace_with_a_name_is_found_by_it_though_processes_are_in_it(veth: Veth) -> None:
    cookie = cookie_of(veth.netns)
    with process(within=veth.netns):
        assert reachable()[cookie] == Place(veth.netns, cookie)


def test_a_namespace_without_a_name_is_found_by_its_process() -> None:
    with process("unshare", "--net") as path:
        place = reachable()[cookie_of(path)]

        assert place.netns == path
        assert cookie_of(place.netns) == place.cookie


def test_a_namespace_is_entered_once_however_many_processes_are_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered = netns.entered
    names = []

    def noting(name: str | os.PathLike[str] | None) -> contextlib.AbstractContextManager[None]:
        names.append(name)
        return entered(name)

    with process("unshare", "--net") as path, process(within=path) as second:
        monkeypatch.setattr(netns, "entered", noting)
        found = reachable()

    assert len([name for name in names if name in (path, second)]) == 1
    assert {place.netns for place in found.values()} <= set(names)


def test_a_name_that_is_left_over_without_a_namespace_is_passed_over(netns: str) -> None:
    left_over = Path(f"/run/netns/{netns}-left-over")
    left_over.touch()
    try:
        names = [place.netns for place in reachable().values()]
    finally:
        left_over.unlink()

    assert netns in names
    assert left_over.name not in names


def test_a_process_that_ends_before_it_is_looked_at_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with process("unshare", "--net") as path:
        pass
    gone = int(path.split("/")[2])
    monkeypatch.setattr(proc, "pids", lambda: iter([gone]))
    before = reachable()
    monkeypatch.setattr(proc, "pids", lambda: iter([]))

    assert before == reachable()
    assert path not in [place.netns for place in before.values()]


def test_without_privilege_the_own_namespace_is_left_and_the_rest_is_counted(veth: Veth) -> None:
    look = (
        "from xdpkit.interfaces.namespaces import reachable\n"
        "found = reachable()\n"
        "print([place.netns for place in found.values()], found.unseen > 0)"
    )

    done = subprocess.run(
        [*POWERLESS, sys.executable, "-c", look], capture_output=True, check=True, text=True
    )

    assert done.stdout == "[None] True\n"


def unseen(pid: int, named_folder: str, *by: str) -> int:
    """What cannot be told by somebody who may not trace others, of one process and some names."""
    script = (
        "import sys\n"
        "from xdpkit.interfaces import namespaces\n"
        "namespaces.proc.pids = lambda: iter([int(sys.argv[1])])\n"
        "namespaces.proc.shows_all = lambda: True\n"
        "namespaces.netns.NAMED_FOLDER = sys.argv[2]\n"
        "print(namespaces.reachable().unseen)"
    )
    without = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--")
    command = [*without, *by, sys.executable, "-c", script, str(pid), named_folder]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return int(done.stdout)


def test_a_process_that_may_not_be_traced_is_told_by_its_list_of_devices(
    netns: str, tmp_path: Path
) -> None:
    nowhere = str(tmp_path)
    with process() as beside, process("unshare", "--net") as apart, process(within=netns) as named:
        beside_us, alone, in_named = (int(path.split("/")[2]) for path in (beside, apart, named))

        assert unseen(beside_us, nowhere) == 0
        assert unseen(alone, nowhere) == 1
        assert unseen(in_named, nowhere) == 1
        assert unseen(in_named, "/run/netns") == 0


@pytest.mark.parametrize(
    "hide",
    [
        ("--pid", "--fork", "--mount-proc"),
        ("--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"),
    ],
    ids=["by a container", "by a lack of /proc"],
)
def test_processes_that_are_hidden_count_as_unseen(hide: tuple[str, ...], tmp_path: Path) -> None:
    look = (
        "import sys\n"
        "from xdpkit.interfaces import namespaces\n"
        "namespaces.netns.NAMED_FOLDER = sys.argv[1]\n"
        "print(namespaces.reachable().unseen)"
    )
    command = ["unshare", *hide, sys.executable, "-c", look, str(tmp_path)]

    done = subprocess.run(command, capture_output=True, check=True, text=True)

    assert done.stdout == "1\n"


def test_a_fifo_among_the_names_is_passed_over(netns: str) -> None:
    fifo = Path(f"/run/netns/{netns}-fifo")
    os.mkfifo(fifo)
    look = (
        "from xdpkit.interfaces.namespaces import reachable\n"
        "print(*(place.netns for place in reachable().values()))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, check=True, text=True, timeout=60
        )
    finally:
        fifo.unlink()

    assert netns in done.stdout.split()
    assert fifo.name not in done.stdout.split()


def test_an_interface_is_found_where_it_was_moved_to(veth: Veth, attached: int) -> None:
    index = veth.interface.index
    with namespace() as elsewhere:
        moved = move(veth, elsewhere)
        cookie = cookie_of(elsewhere)

        assert find(index, attached) == [(Place(elsewhere, cookie), moved.interface)]
        assert moved.interface.netns_cookie == cookie
        assert moved.interface.index == index


def test_another_program_or_another_index_is_not_found(veth: Veth, attached: int) -> None:
    index = veth.interface.index

    assert [interface.name for _, interface in find(index, attached)] == [veth.name]
    assert find(index, attached + 1_000_000) == []
    assert find(index + 1000, attached) == []


def test_a_name_that_means_another_namespace_now_is_not_looked_into(
    veth: Veth, attached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = cookie_of(veth.netns)
    for place, found in [
        (Place(veth.netns, cookie), 1),
        (Place(veth.netns, cookie + 1), 0),
        (Place(f"{veth.netns}-gone", cookie), 0),
    ]:
        monkeypatch.setattr(namespaces, "reachable", lambda at=place: Reachable({1: at}, 0))
        assert len(find(veth.interface.index, attached)) == found
