# SPDX-License-Identifier: Apache-2.0
"""xdp-loader of xdp-tools: the neighbour on the hook."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.kernel.net import Veth
from xdpkit.syscalls.netns import path_of


class Run(Protocol):
    """Runs ``xdp-loader`` with arguments, in the veth's namespace."""

    def __call__(self, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]: ...


@contextlib.contextmanager
def xdp_loader(veth: Veth) -> Iterator[Run]:
    """Yield what runs xdp-loader, and unload what it loaded in the end; skip the test without."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    command = shutil.which("xdp-loader", path=path)
    if command is None:
        pytest.skip("no xdp-loader: apt-get install xdp-tools")

    def run(*args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = ["nsenter", f"--net={path_of(veth.netns)}", command, *map(str, args)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done

    try:
        yield run
    finally:
        run("unload", veth.name, "--all", check=False)
