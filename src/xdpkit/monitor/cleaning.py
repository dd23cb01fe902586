# SPDX-License-Identifier: Apache-2.0
"""Clean up after hooks, port tables and monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xdpkit import hook
from xdpkit.errors import UsageError, XdpkitError
from xdpkit.hook.cleaning import Cleaned
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor import resident
from xdpkit.ports import PortTable
from xdpkit.tables import store


def clean(
    *, everything: bool = False, pin_root: str = DEFAULT_ROOT, dry_run: bool = False
) -> tuple[Cleaned, ...]:
    """Remove what is orphaned: pins of interfaces that are gone, and what killed commands left.

    An interface that was renamed, or that moved to another namespace, keeps its program. A port
    table stays until it is destroyed, unless it is a process's own, and that has ended.

    Args:
        everything: uninstall: detach whatever xdpkit keeps on any interface of any namespace that
            can be reached, destroy the port tables and undo what was prepared for their ports, stop
            counting, and remove the folder of pins. Maps that programs share by name, as libbpf
            does, stay: they are their users'.
        pin_root: the bpffs with the pins.
        dry_run: only tell.

    Raises:
        RequirementUnmet: somebody else made the folder of pins.
        HookBusy: another process holds the lock for long.
        MissingPrivilege: a capability is missing.
    """
    # The folder of pins, which the hooks have, can only go when nothing else is in it.
    return (
        *_clean_tables(everything=everything, pin_root=pin_root, dry_run=dry_run),
        *resident.clean(everything=everything, pin_root=pin_root, dry_run=dry_run),
        *hook.clean(everything=everything, pin_root=pin_root, dry_run=dry_run),
    )


def _clean_tables(*, everything: bool, pin_root: str, dry_run: bool) -> Iterator[Cleaned]:
    for name in store.names(pin_root):
        try:
            with store.open(name, pin_root=pin_root) as table:
                is_orphan, folder = table.is_orphan(), table.folder
        except UsageError:
            # Another process was quicker.
            continue
        if not is_orphan and not everything:
            continue
        what = f"port table {name}{', whose owner is gone' if is_orphan else ''}"
        found = Cleaned(what, folder)
        if not dry_run:
            try:
                with PortTable.open(name, pin_root=pin_root) as opened:
                    opened.destroy(force=True)
            except XdpkitError as error:
                found = replace(found, error=error.cause)
        yield found
