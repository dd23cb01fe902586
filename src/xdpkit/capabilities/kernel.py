# SPDX-License-Identifier: Apache-2.0
"""Kernels by their release.

A release is a pair of numbers, (6, 1). Distributions backport: that a vanilla release lacks
something is no proof for theirs, see :attr:`Kernel.backports`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Release = tuple[int, int]

_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})(?!\d)")
# Red Hat's kernels, and their rebuilds, keep a release's number and take in later drivers.
_BACKPORTING = re.compile(r"\.el\d|\.amzn|\.sles|-default$")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel by what it calls itself.

    Attributes:
        text: the release as ``uname -r`` shows it, or as a profile names it.
        release: its first two numbers; None when it has none.
        backports: it is a distribution's that has later drivers than its number says.
    """

    text: str
    release: Release | None
    backports: bool

    @classmethod
    def parse(cls, text: str) -> Kernel:
        """Read what ``uname -r`` shows."""
        found = _RELEASE.match(text)
        release = (int(found[1]), int(found[2])) if found else None
        return cls(text, release, _BACKPORTING.search(text) is not None)

    def has(self, since: Release) -> bool:
        """Whether a vanilla kernel of this release, or a later one, certainly has something."""
        return self.release is not None and self.release >= since


def written(release: Release) -> str:
    """Return a release as it is written."""
    return f"{release[0]}.{release[1]}"
