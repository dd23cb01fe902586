# SPDX-License-Identifier: Apache-2.0
"""Which processes hold a link."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.compiled import returning
from tests.kernel.net import Veth
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.syscalls.proc import Holder, holders_of_link
from xdpkit.uapi.bpf import AttachType, XdpAction

# Whoever lists the links holds each for an instant.
pytestmark = pytest.mark.alone


@pytest.fixture
def link(veth: Veth) -> Iterator[Fd]:
    """A link, held by this process."""
    with entered(veth.netns), returning(XdpAction.PASS) as program:
        held = bpf.link_create(program.fileno(), veth.interface.index, AttachType.XDP)
    with held:
        yield held


def again(link: Fd) -> Fd:
    """The link, opened by its id: the kernel gives such a descriptor another name."""
    opened = bpf.fd_by_id(ObjectKind.LINK, bpf.link_info(link.fileno()).id)
    assert opened is not None
    return opened


@pytest.mark.parametrize("open_as", [Fd.duplicate, again])
def test_a_process_that_holds_a_link_is_named(link: Fd, open_as: Callable[[Fd], Fd]) -> None:
    link_id = bpf.link_info(link.fileno()).id
    with open_as(link) as theirs:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
    with child:
        holder = Holder(child.pid, "cat")
        assert holder in holders_of_link(link_id)
        link.close()
        assert holders_of_link(link_id) == (holder,)
    assert holders_of_link(link_id) == ()


def test_this_process_counts_and_other_links_do_not(link: Fd) -> None:
    link_id = bpf.link_info(link.fileno()).id

    assert [holder.pid for holder in holders_of_link(link_id)] == [os.getpid()]
    assert holders_of_link(link_id + 1_000_000) == ()


def test_a_name_can_be_any_bytes(link: Fd) -> None:
    link_id = bpf.link_info(link.fileno()).id
    rename = r"open('/proc/self/comm', 'wb').write(b'\x1b[31m\xff'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", rename],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[link.fileno()],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        holders = holders_of_link(link_id)
        child.communicate(b"\n")

    assert Holder(child.pid, "\x1b[31m\\xff") in holders
