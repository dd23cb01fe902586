# SPDX-License-Identifier: Apache-2.0
"""Programs of ``c/`` that include the header of users, compiled."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from xdpkit.compiler import INCLUDE_DIR

_FOLDER = Path(__file__).parent / "c"


def path_of(name: str) -> Path:
    """Return the object file of a source; skip the test where no compiler takes it."""
    compilers = [each for each in build.compilers() if each.family != "gcc-bpf"]
    if not compilers:
        pytest.skip("no BPF compiler: apt-get install clang")
    # What is in the cache was made with the header as it was then.
    digest = hashlib.sha256((INCLUDE_DIR / "xdpkit.h").read_bytes()).hexdigest()
    flags = f"-I{INCLUDE_DIR}", f"-DHEADER={digest[:16]}"
    return build.build(_FOLDER / f"{name}.c", compilers[-1], flags=flags).path


def read(name: str) -> xdpkit.Object:
    """Return the object of a source; skip the test where no compiler takes it."""
    return xdpkit.read(path_of(name))
