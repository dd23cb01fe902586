# SPDX-License-Identifier: Apache-2.0
"""Who has an interface's frames reported: a folder, locked as long as the reader lives.

``<bpffs>/xdpkit/tap-<netns cookie>-<ifindex>/`` is made before programs are exchanged for copies
that report, and removed after they have been exchanged again. The reader holds a lock on it
(``flock``), which the kernel releases with the process, however that ends. So a folder that nobody
has locked says that copies may be left that report to nobody. When they have spent the credit that
their reader granted they cost next to nothing, and the next change puts others in their place.

A folder also stays for copies that are on no hook now and may come back: those that a change has
replaced which waits to be confirmed.

All of this is done under the lock of the pins (:meth:`xdpkit.hook.pins.Pins.locked`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator

from xdpkit.errors import HookBusy
from xdpkit.hook.pins import Pins
from xdpkit.interfaces import Interface
from xdpkit.kernel import claim as claims
from xdpkit.kernel.claim import Claim

_NAME = re.compile(r"tap-(\d+)-(\d+)")


def claim(pins: Pins, interface: Interface, what: str) -> Claim:
    """Become an interface's reader, as long as what is returned is open.

    Raises:
        HookBusy: another process, or another reader in this one, is.
        RequirementUnmet, MissingPrivilege, KernelRefused: the folder cannot be made.
    """
    path = _path(pins, (interface.netns_cookie, interface.index))
    made = claims.claim(path, what)
    if made is None:
        raise HookBusy(
            what,
            cause=f"another reader has the frames of {interface.name} reported already",
            remedy=f"see which: fuser -v {path}",
        )
    return made


def give_up(pins: Pins, hook: tuple[int, int]) -> None:
    """Remove the folder of a hook's reader: no copy reports to it any more."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(_path(pins, hook))
    # The one above it, if that was all there was.
    with contextlib.suppress(OSError):
        os.rmdir(pins.folder)


def may_have_left(pins: Pins) -> bool:
    """Whether there are, or have been, any readers. Takes no lock."""
    return any(_hooks(pins))


def live(pins: Pins) -> set[tuple[int, int]]:
    """Return the hooks, by cookie and index, that have a reader."""
    return {hook for hook in _hooks(pins) if claims.is_claimed(_path(pins, hook))}


def left(pins: Pins) -> dict[tuple[int, int], str]:
    """Return the hooks whose readers have gone without tidying up, and the folders of those."""
    has_reader = live(pins)
    return {hook: _path(pins, hook) for hook in _hooks(pins) if hook not in has_reader}


def _path(pins: Pins, hook: tuple[int, int]) -> str:
    cookie, ifindex = hook
    return f"{pins.folder}/tap-{cookie}-{ifindex}"


def _hooks(pins: Pins) -> Iterator[tuple[int, int]]:
    names: Collection[str] = ()
    with contextlib.suppress(OSError):
        names = os.listdir(pins.folder)
    for name in names:
        found = _NAME.fullmatch(name)
        if found is not None:
            yield int(found[1]), int(found[2])
