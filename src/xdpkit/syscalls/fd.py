# SPDX-License-Identifier: Apache-2.0
"""File descriptors that have an owner."""

from __future__ import annotations

import fcntl
import os
import warnings
from typing import Protocol, Self

from xdpkit.errors import UsageError
from xdpkit.syscalls.closing import Closing


class HasFileno(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int: ...


class Fd(Closing):
    """A file descriptor and the duty to close it.

    A context manager. An Fd that is garbage collected while still open is closed, with a
    ResourceWarning: somebody forgot it.
    """

    __slots__ = ("__weakref__", "_number")

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def duplicate(cls, of: HasFileno | int) -> Self:
        """Return a second descriptor of the same kernel object, closed on exec."""
        number = of if isinstance(of, int) else of.fileno()
        return cls(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0))

    @property
    def closed(self) -> bool:
        return self._number < 0

    def fileno(self) -> int:
        """Return the number.

        Raises:
            UsageError: it was closed or detached.
        """
        if self._number < 0:
            raise UsageError("use a file descriptor", cause="it is closed")
        return self._number

    def close(self) -> None:
        """Close it; closing twice does nothing."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def detach(self) -> int:
        """Hand the number over to the caller, who must close it."""
        number = self.fileno()
        self._number = -1
        return number

    def __del__(self) -> None:
        if getattr(self, "_number", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<Fd {'closed' if self.closed else self._number}>"
