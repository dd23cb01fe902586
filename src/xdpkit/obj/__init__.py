# SPDX-License-Identifier: Apache-2.0
"""Object files: ELF and BTF in, values out. Nothing here asks the running system.

>>> obj = read("fw.o")
>>> obj.variables["blocked_port"] = 53
>>> obj.programs["fw"].link().functions
"""

from __future__ import annotations

from xdpkit.obj.kernel_btf import kernel_btf
from xdpkit.obj.read import read
from xdpkit.obj.spec import (
    CoreRelocation,
    Extern,
    ExternKind,
    LinkedProgram,
    MapSpec,
    Object,
    Pinning,
    ProgramSpec,
    Relocation,
    RelocationKind,
)
from xdpkit.obj.variables import Variable, Variables

__all__ = [
    "CoreRelocation",
    "Extern",
    "ExternKind",
    "LinkedProgram",
    "MapSpec",
    "Object",
    "Pinning",
    "ProgramSpec",
    "Relocation",
    "RelocationKind",
    "Variable",
    "Variables",
    "kernel_btf",
    "read",
]
