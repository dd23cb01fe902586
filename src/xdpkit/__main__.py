# SPDX-License-Identifier: Apache-2.0
"""``python -m xdpkit``: the command."""

from __future__ import annotations

from xdpkit.cli import main

if __name__ == "__main__":
    main()
