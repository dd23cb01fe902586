# SPDX-License-Identifier: Apache-2.0
"""What maps, programs and links have in common: a descriptor, ids, pins."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import ClassVar, Self

from xdpkit.kernel import pins
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd


class Handle(Closing):
    """A context manager that owns the descriptor of an object in the kernel."""

    _KIND: ClassVar[ObjectKind]

    def __init__(self, fd: Fd) -> None:
        self._fd = fd

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open an object by its id.

        Raises:
            UsageError: there is none of this kind with this id.
            MissingPrivilege: without CAP_SYS_ADMIN.
        """
        return cls(pins.open_id(cls._KIND, number))

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Self:
        """Open a pinned object.

        Raises:
            UsageError: nothing is pinned there, or nothing of this kind.
        """
        return cls(pins.open_pin(path, cls._KIND))

    @property
    @abstractmethod
    def _label(self) -> str:
        """What to call it in errors: "map hits"."""

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give it a path on a bpffs, where it outlives the process.

        Raises:
            UsageError: there is something at the path already, or the name has a dot.
            RequirementUnmet: the path is not on a bpffs.
        """
        pins.pin(self._fd, path, what=self._label)

    def fileno(self) -> int:
        """Return the descriptor's number.

        Raises:
            UsageError: it is closed.
        """
        return self._fd.fileno()

    def close(self) -> None:
        """Close the descriptor; closing twice does nothing. The object lives on while used."""
        self._fd.close()
