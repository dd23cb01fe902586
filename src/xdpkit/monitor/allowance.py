# SPDX-License-Identifier: Apache-2.0
"""How much may be spent, so that it is no more than so much in any second. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_SECOND = 1.0
# Sums of what was spent are not kept closer to each other than this, so that they stay few.
_STEP = 1 / 16


class Allowance:
    """Grants several spenders, which each count what they have spent since the beginning.

    Each may go ``rate`` beyond what it had spent a second ago. So it spends at most ``rate`` in any
    second, from the first one on, wherever that second begins. Who has spent all of it has it back
    a second later, or when it is asked for then.
    """

    def __init__(self, rate: int) -> None:
        """Nothing has been spent yet.

        Args:
            rate: how much each may spend in a second.
        """
        self.rate = rate
        self._past: deque[tuple[float, tuple[int, ...]]] = deque()

    def granted(self, now: float, spent: Sequence[int]) -> list[int]:
        """Return up to which sum each may spend.

        Args:
            now: seconds of a clock that does not go back.
            spent: how much each has spent since the beginning.
        """
        past = self._past
        if not past or now - past[-1][0] >= _STEP:
            past.append((now, tuple(spent)))
        while len(past) > 1 and now - past[1][0] >= _SECOND:
            past.popleft()
        _, before = past[0]
        return [each + self.rate for each in before]
