# SPDX-License-Identifier: Apache-2.0
"""A progress bar for what takes long, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_PATIENCE_S = 0.5
_INTERVAL_S = 0.1


class Progress:
    """Shows on standard error how far something is, once it has taken half a second."""

    def __init__(self, label: str, *, total: int) -> None:
        """Begin; nothing is shown yet.

        Args:
            label: what is being done.
            total: the amount of work, in any unit; 0 where it is not known.
        """
        self._label = label
        self._total = total or None
        self._done = 0
        self._due = time.monotonic() + _PATIENCE_S if sys.stderr.isatty() else float("inf")
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def advance(self, done: int) -> None:
        """Say how much more of the work is done."""
        self._done += done
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _INTERVAL_S
        if self._bar is None or self._task is None:
            self._bar = self._start()
            self._task = self._bar.add_task(self._label, total=self._total)
        self._bar.update(self._task, completed=self._done)

    def _start(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False),
            transient=True,
        )
        bar.start()
        return bar

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
