# SPDX-License-Identifier: Apache-2.0
"""Where the demo pins: the system's BPF file system, or one of its own where that is missing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator

from xdpkit.cli.options import DEFAULT_PIN_ROOT
from xdpkit.errors import RequirementUnmet
from xdpkit.syscalls.statfs import is_bpffs


@contextlib.contextmanager
def pin_root() -> Iterator[str]:
    """Yield a mounted BPF file system; one that had to be mounted for it is gone at the end.

    Raises:
        RequirementUnmet: there is none, and none can be mounted.
    """
    if is_bpffs(DEFAULT_PIN_ROOT):
        yield DEFAULT_PIN_ROOT
        return
    with tempfile.TemporaryDirectory(prefix="xdpkit-demo-") as folder:
        _run("mount", "-t", "bpf", "bpf", folder)
        try:
            yield folder
        finally:
            _run("umount", folder)


def _run(*command: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            # Away from the terminal's Ctrl-C, which is to end the demo and not its clean-up.
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise RequirementUnmet(
            "pin the demo's program",
            cause=f"{DEFAULT_PIN_ROOT} is not a BPF file system, and {' '.join(command)} failed:"
            f" {said.strip()}",
            remedy=f"mount -t bpf bpf {DEFAULT_PIN_ROOT}",
        ) from error
