# SPDX-License-Identifier: Apache-2.0
"""The command ``xdpkit``: arguments in, typed results out, rendered as text or JSON.

Each command is a module of its own, imported when it runs, so that ``xdpkit status`` does not pay
for what ``xdpkit demo`` needs.
"""

from __future__ import annotations

from xdpkit.cli.app import main

__all__ = ["main"]
