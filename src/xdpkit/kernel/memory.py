# SPDX-License-Identifier: Apache-2.0
"""The values of an array as memory of this process: read and set without a system call.

``BPF_F_MMAPABLE``, Linux 5.5 (fc9702273e2e "bpf: Add mmap() support for BPF_MAP_TYPE_ARRAY").
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, UsageError
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.bpf import MapFlags, MapType

if TYPE_CHECKING:
    from xdpkit.kernel.maps import Map

_WORD = 8


class Memory(Closing):
    """An array map's values as numbers of 64 bits: a context manager that owns the mapping.

    A number is read and written by one instruction on machines of 64 bits, so it is never half old
    and half new. Nothing is promised of the order in which others see several writes: where two
    numbers have to fit each other, each needs a single writer, and a reader that can do with the
    one being older than the other.

    The map may be closed meanwhile. Closing twice does nothing.
    """

    def __init__(self, of: Map, *, writable: bool = False) -> None:
        """Map the values of an array.

        Args:
            of: an array with ``BPF_F_MMAPABLE`` whose values are whole numbers of 64 bits.
            writable: whether they can be set here, too.

        Raises:
            UsageError: it is no such array.
            KernelRefused: it is frozen, and they are to be set (EPERM).
        """
        what = f"map the values of {of.name} into memory"
        info = of.info()
        if info.type != MapType.ARRAY or not info.flags & MapFlags.MMAPABLE:
            raise UsageError(what, cause="it is no array with BPF_F_MMAPABLE")
        if info.value_size % _WORD:
            raise UsageError(what, cause="its values are no whole numbers of 64 bits")
        self.entries = info.max_entries
        self._stride = info.value_size // _WORD
        size = info.max_entries * info.value_size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._memory = mapped(of, size, protection, what=what)
        self._whole = memoryview(self._memory)
        self._words = self._whole.cast("Q")

    def get(self, index: int, word: int = 0) -> int:
        """Return one number of an entry.

        Args:
            index: which entry. word: which number of it.

        Raises:
            UsageError: there is none.
        """
        at = self._at(index, word)
        return self._words[at]

    def set(self, index: int, word: int, value: int) -> None:
        """Set one number of an entry.

        Raises:
            UsageError: there is none, the mapping is not writable, or the value has not 64 bits.
        """
        at = self._at(index, word)
        what = "set a number in a map's memory"
        if self._words.readonly:
            raise UsageError(what, cause="it was mapped to be read only")
        if not 0 <= value < 1 << 64:
            raise UsageError(what, cause=f"{value} is no unsigned number of 64 bits")
        self._words[at] = value

    def sum(self, word: int = 0) -> int:
        """Return the sum of one number over all entries, as of CPUs."""
        return sum(self._words[self._at(0, word) :: self._stride][: self.entries])

    def _at(self, index: int, word: int) -> int:
        if self._memory.closed:
            raise UsageError("read a map's memory", cause="it is closed")
        if not 0 <= index < self.entries or not 0 <= word < self._stride:
            raise UsageError(
                f"find number {word} of entry {index} in a map's memory",
                cause=f"it has {self.entries} entries of {self._stride} numbers",
            )
        return index * self._stride + word

    def close(self) -> None:
        """End the mapping; closing twice does nothing."""
        self._words.release()
        self._whole.release()
        self._memory.close()


def mapped(of: Map, size: int, protection: int, *, offset: int = 0, what: str) -> mmap.mmap:
    """Map part of a map into memory.

    Args:
        of: the map. size: bytes; the kernel counts in pages. offset: where, a multiple of a page.
        protection: ``mmap.PROT_*``. what: for errors.

    Raises:
        KernelRefused: the kernel refused.
    """
    pages = -(-size // mmap.PAGESIZE)
    try:
        return mmap.mmap(
            of.fileno(), pages * mmap.PAGESIZE, mmap.MAP_SHARED, protection, offset=offset
        )
    except OSError as error:
        raise KernelRefused(what, errno=error.errno or 0) from None
