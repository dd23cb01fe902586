# SPDX-License-Identifier: Apache-2.0
"""The compiled programs that the demo attaches."""

from __future__ import annotations

import os

from xdpkit.kernel.shipped import path

FIREWALL = "demo.o"
PASS = "pass.o"
FAULTY = "faulty.o"


def folder() -> str:
    """Return the folder that they are in.

    Raises:
        RequirementUnmet: the package was not built, as in a bare source tree.
    """
    (found,) = {os.path.dirname(path(name)) for name in (FIREWALL, PASS, FAULTY)}
    return found
