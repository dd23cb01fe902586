# SPDX-License-Identifier: Apache-2.0
"""The programs of ``c/``, compiled; and programs and maps made without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map, Program
from xdpkit.probes.ask import machine_code
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.bpf import AttachType, MapType, ProgType, XdpAction

_FOLDER = Path(__file__).parent / "c"


def read(name: str) -> xdpkit.Object:
    """Return the object of a source; skip the test where no compiler takes it."""
    source = _FOLDER / f"{name}.c"
    for compiler in build.compilers():
        if compiler.family != "gcc-bpf":
            return xdpkit.read(build.build(source, compiler).path)
    pytest.skip("no BPF compiler: apt-get install clang")


def assembled(
    *instructions: Instruction, name: str = "assembled", attach_type: int = AttachType.XDP
) -> Program:
    """Load an XDP program."""
    new = NewProgram(
        type=ProgType.XDP,
        code=machine_code(*instructions),
        license="GPL",
        name=name,
        attach_type=attach_type,
    )
    return Program(bpf.prog_load(new, what=f"load {name}"))


def returning(
    action: XdpAction | int, *, name: str = "assembled", attach_type: int = AttachType.XDP
) -> Program:
    """Load an XDP program that always returns the same."""
    code = asm.mov(Register.R0, int(action)), asm.exit()
    return assembled(*code, name=name, attach_type=attach_type)


def hash_map(*, max_entries: int = 100) -> Map:
    """Create a hash map with keys of 4 and values of 8 bytes."""
    return Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=max_entries, name="table")
