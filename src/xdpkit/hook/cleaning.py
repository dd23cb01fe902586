# SPDX-License-Identifier: Apache-2.0
"""Clean up: what is orphaned, or every trace of xdpkit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xdpkit.errors import UsageError, XdpkitError
from xdpkit.hook import pins as pinned
from xdpkit.hook import readers, unread
from xdpkit.hook.delete import Delete
from xdpkit.hook.homes import is_gone
from xdpkit.hook.looking import examine
from xdpkit.hook.pins import HookFolder, Pins
from xdpkit.hook.place import Place
from xdpkit.hook.present import is_kept_by_us
from xdpkit.hook.repair import (
    finish_leaving,
    gone_watched,
    repair_folder,
    still_attached,
    unwatch_gone,
)
from xdpkit.hook.state import AttachedProgram, HookStatus, Owner
from xdpkit.hook.view import View
from xdpkit.interfaces import Interface, list_all
from xdpkit.interfaces.namespaces import Reachable, reachable
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.syscalls import bpf, privilege
from xdpkit.uapi.capability import Capability


@dataclass(frozen=True, slots=True)
class Cleaned:
    """One thing that was removed, or could not be.

    Attributes:
        what: what it is, as a phrase ("the pins of an interface that is gone").
        path: its pins, None where there were none.
        interface: the interface that it was attached to, None where that is gone.
        error: why it is still there; None: it is gone, or would go.
    """

    what: str
    path: str | None = None
    interface: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "what": self.what,
            "path": self.path,
            "interface": self.interface,
            "error": self.error,
        }


def clean(
    *, everything: bool = False, pin_root: str = DEFAULT_ROOT, dry_run: bool = False
) -> tuple[Cleaned, ...]:
    """Remove what is orphaned: pins of interfaces that are gone, and what killed commands left.

    An interface that was renamed, or that moved to another namespace, keeps its program.

    Args:
        everything: uninstall: detach whatever xdpkit keeps on any interface of any namespace that
            can be reached, and remove the folder of pins. Maps that programs share by name, as
            libbpf does, stay: they are their users'.
        pin_root: the bpffs in which links are pinned.
        dry_run: only tell.

    Raises:
        RequirementUnmet: somebody else made the folder of pins.
        MissingPrivilege: a capability is missing.
    """
    what = "clean up"
    if everything:
        # Without it, what netlink holds would not be recognised, and be left in silence.
        privilege.require("remove every trace of xdpkit", (Capability.SYS_ADMIN,))
    pins = Pins(pin_root)
    namespaces = reachable()
    results: list[Cleaned] = []
    with pins.locked(what, create=False) as has_pins:
        results += _finish_leaving(namespaces, pins, dry_run)
        # Without the lock, pins that somebody is just making would look like a dead command's.
        if has_pins:
            results += _put_back_unread(namespaces, pins, dry_run)
            results += _sweep(_untold(pins, results), namespaces, everything, dry_run)
        results += [
            Cleaned("what is not of xdpkit's making", path, error=wrong)
            for path, wrong in pins.strangers()
        ]
    if everything:
        results += _detach_all(namespaces, pin_root, dry_run)
        with pins.locked(what, create=False) as has_pins:
            for folder in _untold(pins, results) if has_pins else ():
                reason = "pins of an interface that cannot be reached from here"
                results.append(Cleaned(reason, folder.path))
                if not dry_run:
                    _release(folder)
            if has_pins and not dry_run:
                # What somebody else has detached meanwhile.
                for folder in pins.folders():
                    repair_folder(folder, still_attached(folder, namespaces))
                    if folder.has_only_settings:
                        pinned.remove(folder.path, with_settings=True)
                with contextlib.suppress(OSError):
                    os.rmdir(pins.folder)
    return tuple(results)


def _untold(pins: Pins, results: list[Cleaned]) -> list[HookFolder]:
    """Return the hooks' pins that nothing has been told of yet. Under the lock."""
    told = {os.path.dirname(found.path) for found in results if found.path is not None}
    told.update(found.path for found in results if found.path is not None)
    return [folder for folder in pins.folders() if folder.path not in told]


def _sweep(
    folders: list[HookFolder], namespaces: Reachable, everything: bool, dry_run: bool
) -> Iterator[Cleaned]:
    """Remove the pins that serve nothing any more. Under the lock."""
    for folder in folders:
        gone = gone_watched(folder, namespaces)
        for number in sorted(gone):
            reason = f"what counts program {number}, which is not on the interface any more"
            yield Cleaned(reason, f"{folder.path}/{pinned.WATCH}{number}")
        if gone and not dry_run:
            unwatch_gone(folder, namespaces)
        attached = still_attached(folder, namespaces)
        if folder.has_only_settings:
            if is_gone(folder.netns_cookie, folder.ifindex, namespaces):
                yield Cleaned("what was set for an interface that is gone", folder.path)
            elif everything:
                yield Cleaned("what is set for an interface", folder.path)
            else:
                continue
            if not dry_run:
                pinned.remove(folder.path, with_settings=True)
            continue
        if folder.is_dead:
            yield Cleaned(
                "pins of an interface that is gone, or of a command that was killed", folder.path
            )
            if not dry_run and is_gone(folder.netns_cookie, folder.ifindex, namespaces):
                pinned.remove(folder.path, with_settings=True)
        elif folder.link is None and not attached and attached is not None:
            yield Cleaned("pins of a program that is on no interface any more", folder.path)
        elif folder.link is None and attached is None and not everything:
            error = "its interface may be in a namespace that cannot be entered from here"
            yield Cleaned("pins of a program", folder.path, error=error)
        if not dry_run:
            repair_folder(folder, attached)


def _detach_all(namespaces: Reachable, pin_root: str, dry_run: bool) -> Iterator[Cleaned]:
    for hook in _hooks(namespaces, Pins(pin_root)):
        for attached in hook.attached:
            if attached.owner is Owner.XDPKIT and not attached.is_leaving:
                yield _detach(hook.interface, attached, pin_root, dry_run)


def _detach(
    interface: Interface, attached: AttachedProgram, pin_root: str, dry_run: bool
) -> Cleaned:
    folder = Pins(pin_root).folder_of(interface)
    pinned_at = attached.pinned
    if pinned_at is None and folder is not None and folder.keeps(attached.program.id):
        pinned_at = folder.path
    found = Cleaned(attached.describe(), pinned_at, interface.name)
    if not is_kept_by_us(attached):
        # Nobody else can say when its block ends.
        return replace(found, error="a process holds it, or it is pinned elsewhere")
    if dry_run:
        return found
    place = Place(interface.index, interface.netns, pin_root)
    try:
        Delete(place, expected=attached.program.id).apply()
    except XdpkitError as error:
        return replace(found, error=error.cause)
    return found


def _finish_leaving(namespaces: Reachable, pins: Pins, dry_run: bool) -> Iterator[Cleaned]:
    for hook in _hooks(namespaces, pins):
        for attached in hook.attached:
            if attached.is_leaving:
                yield Cleaned("a detach that was killed", attached.pinned, hook.interface.name)
                if not dry_run:
                    finish_leaving(hook.interface, pins, "clean up")
                    if attached.pinned is not None:
                        pinned.remove(os.path.dirname(attached.pinned))


def _put_back_unread(namespaces: Reachable, pins: Pins, dry_run: bool) -> Iterator[Cleaned]:
    """Put plain copies back where a reader of frames was killed. Under the lock."""
    left = readers.left(pins)
    if not left:
        return
    kept: dict[tuple[int, int], str] = {}
    for hook in _hooks(namespaces, pins):
        hooks = frozenset({(hook.interface.netns_cookie, hook.interface.index)})
        place = Place(hook.interface.index, hook.interface.netns, pins.root)
        found = Cleaned("copies that report frames to nobody", None, hook.interface.name)
        try:
            view = View.of(place, hook.interface)
            hooks |= view.hooks
            is_stale = bool(unread.stale(view, pins))
            if view.is_waiting:
                reason = f"a change on {hook.interface.name} waits to be confirmed"
            elif not is_stale:
                continue
            else:
                reason = "" if dry_run else _put_back(place, hook.interface, pins)
        except XdpkitError as error:
            is_stale, reason = True, error.cause
        if reason:
            kept.update(dict.fromkeys(hooks, reason))
        if is_stale:
            yield replace(found, error=reason or None)
    for hook_id, path in left.items():
        what = "what a reader of frames left that is gone"
        if hook_id in kept:
            yield Cleaned(what, path, error=kept[hook_id])
        # By its folder it is noticed where it could not be looked at.
        elif hook_id[0] in namespaces or not namespaces.unseen:
            yield Cleaned(what, path)
            if not dry_run:
                readers.give_up(pins, hook_id)


def _put_back(place: Place, interface: Interface, pins: Pins) -> str:
    """Put plain copies back; return why some are still not plain, and "" if all are."""
    unread.put_plain(place, interface, "clean up")
    left = View.of(place, place.resolve_again(interface))
    return "not all programs can be loaded again" if unread.stale(left, pins) else ""


def _hooks(namespaces: Reachable, pins: Pins) -> Iterator[HookStatus]:
    """Yield the interfaces that have programs, of all these namespaces."""
    for namespace in namespaces.values():
        try:
            interfaces = [each for each in list_all(netns=namespace.netns) if each.xdp]
        except UsageError:
            # It has ended meanwhile.
            continue
        yield from examine(interfaces, pins)


def _release(folder: HookFolder) -> None:
    """Detach what the pins hold, and remove them."""
    if folder.link is not None and folder.link.ifindex:
        link = pinned.open_link(folder.link.path)
        if link is not None:
            with link:
                bpf.link_detach(link.fileno())
    pinned.remove(folder.path)
