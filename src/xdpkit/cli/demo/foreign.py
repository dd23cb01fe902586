# SPDX-License-Identifier: Apache-2.0
"""Another tool, as the demo plays it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from xdpkit.cli.demo import shipped
from xdpkit.cli.demo.network import End
from xdpkit.syscalls.netns import entered


@contextlib.contextmanager
def foreign_program(end: End) -> Iterator[None]:
    """Keep a program on an interface that has neither a pin nor a record of xdpkit's."""
    from xdpkit.kernel import load
    from xdpkit.obj import read
    from xdpkit.syscalls import bpf
    from xdpkit.uapi.bpf import AttachType

    (spec,) = read(shipped.PASS).programs.values()
    with load(spec) as program, entered(end.netns):
        link = bpf.link_create(
            program.fileno(), socket.if_nametoindex(end.interface), AttachType.XDP
        )
    with link:
        yield
