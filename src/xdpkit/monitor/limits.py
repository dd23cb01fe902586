# SPDX-License-Identifier: Apache-2.0
"""How much a reader of events may ask for; the command offers the same."""

from __future__ import annotations

DEFAULT_RATE = 100
MAX_RATE = 1_000_000
"""Events that may be written in any second, on each CPU."""

DEFAULT_SNAPLEN = 64
MAX_SNAPLEN = 4096
"""Bytes that are kept of a packet."""
