# SPDX-License-Identifier: Apache-2.0
"""What tests of the hook share: a small program, a place for pins, foreign programs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from tests.kernel.net import Veth, rtnetlink
from xdpkit.hook import AttachedProgram, status
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi.bpf import AttachType, ProgType, XdpAction

BPFFS = "/sys/fs/bpf"

_numbers = itertools.count()


@functools.cache
def program(source: str = "minimal.c", name: str = "minimal") -> xdpkit.ProgramSpec:
    """Return a program of the corpus; skip the test where nothing can compile it."""
    compilers = build.compilers()
    if not compilers:
        pytest.skip("no BPF compiler: apt-get install clang")
    return xdpkit.read(build.build(build.FOLDER / source, compilers[0]).path).programs[name]


@pytest.fixture
def pin_root() -> Iterator[str]:
    """A folder in bpffs, to be used like a mount of its own."""
    if not is_bpffs(BPFFS):
        pytest.skip(f"{BPFFS} is no bpffs: mount -t bpf bpf {BPFFS}")
    root = Path(BPFFS) / f"xdpkit-test-{os.getpid()}-{next(_numbers)}"
    root.mkdir(0o700)
    yield str(root)
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    root.rmdir()


def raw_program(name: str) -> Fd:
    """Load a program that lets all packets pass, as another tool would."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, XdpAction.PASS) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    new = bpf.NewProgram(
        type=ProgType.XDP, code=code, license="GPL", name=name, attach_type=AttachType.XDP
    )
    return bpf.prog_load(new, what="load a foreign program")


def link_of(loaded: Fd, veth: Veth) -> Fd:
    """Attach a loaded program by a link that is not xdpkit's; return the link."""
    with entered(veth.netns):
        return bpf.link_create(loaded.fileno(), veth.interface.index, AttachType.XDP)


@contextlib.contextmanager
def foreign_link(veth: Veth, *, name: str = "foreign") -> Iterator[int]:
    """Attach a program by a link that is not xdpkit's; yield the link's id."""
    with raw_program(name) as loaded:
        link = link_of(loaded, veth)
    with link:
        yield int(bpf.link_info(link.fileno()).id)


def attach_by_netlink(veth: Veth, loaded: Fd | xdpkit.Program | None = None) -> None:
    """Attach a program natively as ``ip link set dev … xdp`` does; None: one of its own."""
    with contextlib.ExitStack() as resources:
        given = loaded or resources.enter_context(raw_program("foreign"))
        connection = resources.enter_context(rtnetlink(veth.netns))
        connection.link("set", ifname=veth.name, xdp_fd=given.fileno())


def on_hook(veth: Veth, pin_root: str = BPFFS) -> AttachedProgram | None:
    """Return what is attached to the interface, None for nothing.

    Without the processes that hold its link: whoever lists the links holds each for an instant.
    """
    (found,) = status(iface=veth.name, netns=veth.netns, pin_root=pin_root)
    return replace(found.attached[0], holders=()) if found.attached else None
