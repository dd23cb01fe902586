# SPDX-License-Identifier: Apache-2.0
"""How often something is done that can take long."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import monotonic


class Pace:
    """Keeps what is done again and again to a share of the time, however long it takes."""

    def __init__(self, pause: float) -> None:
        """Begin.

        Args:
            pause: for how many times as long as the last time took it is not done again.
        """
        self._pause = pause
        self._due = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it may be done again."""
        return monotonic() >= self._due

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Do it in the ``with`` block."""
        begun = monotonic()
        yield
        ended = monotonic()
        self._due = ended + self._pause * (ended - begun)
