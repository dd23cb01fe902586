# SPDX-License-Identifier: Apache-2.0
"""The compiled programs that the package carries."""

from __future__ import annotations

from pathlib import Path

import xdpkit
from xdpkit.errors import RequirementUnmet

FIREWALL = "demo.o"
PASS = "pass.o"


def folder() -> str:
    """Return the folder of the compiled programs.

    Raises:
        RequirementUnmet: the package was not built, as in a bare source tree.
    """
    found = Path(xdpkit.__file__).parent / "_bpf"
    missing = [name for name in (FIREWALL, PASS) if not (found / name).is_file()]
    if missing:
        raise RequirementUnmet(
            "find the demo's programs",
            cause=f"{found} has no {' and no '.join(missing)}: the package was not built",
            remedy="pip install . (in the source tree: make demo)",
        )
    return str(found)
