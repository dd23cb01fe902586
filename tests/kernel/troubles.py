# SPDX-License-Identifier: Apache-2.0
"""Packets that go wrong, and the programs that see to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.kernel.fates import PacketPort, frame, returning
from tests.kernel.net import Veth, make_veth
from xdpkit import Hook
from xdpkit.kernel import Program
from xdpkit.kernel.image import Image
from xdpkit.kernel.reload import load_image
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType, XdpAction

ABORTED = returning(XdpAction.ABORTED)
"""A program that aborts the tested frames."""


@pytest.fixture
def one(netns: str) -> Veth:
    """A veth pair with one queue, both ends in the test's own namespace."""
    return make_veth(netns, queues=1)


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """Send and receive all frames on one CPU, whose credit is known then."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def send(veth: Veth, count: int = 1) -> None:
    """Send frames from the other end, all of them tested ones."""
    with contextlib.closing(PacketPort(veth.peer, veth.peer_netns)) as port, on_one_cpu():
        for _ in range(count):
            port.send(frame())


def program(code: bytes, name: str) -> Program:
    """Load a program of which xdpkit has the instructions."""
    return load_image(
        Image(
            name=name,
            type=ProgType.XDP,
            attach_type=AttachType.XDP,
            flags=ProgFlags(0),
            license="GPL",
            kern_version=0,
            code=code,
            maps=(),
        )
    )


@contextlib.contextmanager
def added(veth: Veth, pin_root: str, code: bytes, name: str) -> Iterator[int]:
    """Attach a program, as a user of xdpkit does; yield its id."""
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with program(code, name) as loaded, hook.add(loaded, policy="report"):
        yield loaded.id
    hook.clear()
