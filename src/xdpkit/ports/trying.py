# SPDX-License-Identifier: Apache-2.0
"""Other tables than the one that is changed: their locks are taken only if they are free.

Who waits for a second lock while holding one may wait for somebody who does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from xdpkit.kernel.folder import is_gone, open_trusted, try_lock
from xdpkit.tables import store
from xdpkit.tables.store import Store


@contextlib.contextmanager
def tried(name: str, what: str, *, pin_root: str) -> Iterator[Store | None]:
    """Hold a table's lock if nobody else does; yields the table, or None.

    Args:
        name: the table's. what: what is being tried, for errors. pin_root: where it is kept.

    Raises:
        UsageError: there is no such table.
        RequirementUnmet: it is damaged, or not to be trusted.
        MissingPrivilege: only root may.
    """
    with store.open(name, pin_root=pin_root) as opened:
        folder = open_trusted(opened.folder, what)
        if folder is None:
            yield None
            return
        with folder:
            if not try_lock(folder):
                yield None
                return
            try:
                yield None if is_gone(folder, opened.folder) else opened
            finally:
                # To close it is not enough: a process that was forked off meanwhile has it, too.
                fcntl.flock(folder.fileno(), fcntl.LOCK_UN)
