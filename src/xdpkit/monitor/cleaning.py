# SPDX-License-Identifier: Apache-2.0
"""Clean up after hooks and monitoring."""

from __future__ import annotations

from xdpkit import hook
from xdpkit.hook.cleaning import Cleaned
from xdpkit.hook.pins import DEFAULT_ROOT
from xdpkit.monitor import resident


def clean(
    *, everything: bool = False, pin_root: str = DEFAULT_ROOT, dry_run: bool = False
) -> tuple[Cleaned, ...]:
    """Remove what is orphaned: pins of interfaces that are gone, and what killed commands left.

    An interface that was renamed, or that moved to another namespace, keeps its program.

    Args:
        everything: uninstall: detach whatever xdpkit keeps on any interface of any namespace that
            can be reached, stop counting, and remove the folder of pins. Maps that programs share
            by name, as libbpf does, stay: they are their users'.
        pin_root: the bpffs with the pins.
        dry_run: only tell.

    Raises:
        RequirementUnmet: somebody else made the folder of pins.
        HookBusy: another process holds the lock for long.
        MissingPrivilege: a capability is missing.
    """
    return (
        *resident.clean(everything=everything, pin_root=pin_root, dry_run=dry_run),
        *hook.clean(everything=everything, pin_root=pin_root, dry_run=dry_run),
    )
