# SPDX-License-Identifier: Apache-2.0
"""The compiled programs that the package carries."""

from __future__ import annotations

from pathlib import Path

import xdpkit
from xdpkit.errors import RequirementUnmet

FOLDER = Path(xdpkit.__file__).parent / "_bpf"
"""Where they are; the build makes it of ``bpf/*.c``."""


def path(name: str) -> str:
    """Return the path of a compiled program, ``pass.o``.

    Raises:
        RequirementUnmet: the package was not built, as in a bare source tree.
    """
    found = FOLDER / name
    if not found.is_file():
        raise RequirementUnmet(
            f"find xdpkit's own program {name}",
            cause=f"{FOLDER} has no {name}: the package was not built",
            remedy="pip install . (in the source tree: make demo)",
        )
    return str(found)
