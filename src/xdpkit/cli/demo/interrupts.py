# SPDX-License-Identifier: Apache-2.0
"""Signals that end the demo, at places where it can be ended."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Notes Ctrl-C, SIGTERM and SIGHUP instead of acting on them.

    An exception that could come up anywhere could also come up in the middle of the clean-up.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def checkpoint(self) -> None:
        """End the demo if a signal has come.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
            SystemExit: it was another one; the status is the one that shells give.
        """
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt
        if self._received is not None:
            sys.exit(128 + self._received)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
