# SPDX-License-Identifier: Apache-2.0
"""Take a program that xdpkit pinned off its hook."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook.mode import Mode
from xdpkit.hook.pins import DEFAULT_ROOT, Pins
from xdpkit.hook.state import (
    AttachedProgram,
    HookStatus,
    Owner,
    ProgramSummary,
    removal,
)
from xdpkit.hook.status import examine
from xdpkit.interfaces import Interface, resolve
from xdpkit.syscalls import bpf


@dataclass(frozen=True, slots=True)
class Detached:
    """What was on a hook until :func:`detach` took it off.

    Attributes:
        interface: the interface, as it was before.
        mode: how the program was attached. program: what it was.
        link_id: the link that held it.
    """

    interface: Interface
    mode: Mode
    program: ProgramSummary
    link_id: int

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "mode": self.mode.value,
            "prog": self.program.to_dict(),
            "link": {"id": self.link_id},
        }


def detach(
    iface: str | int,
    *,
    netns: str | None = None,
    pin_root: str = DEFAULT_ROOT,
    expect: int | None = None,
) -> Detached:
    """Detach the program that was attached with ``pin=True``, and unpin it.

    Only what xdpkit pinned is touched. A program that an :class:`Attached` of a living process
    holds is that process's to detach.

    Args:
        iface: interface name, or index.
        netns: name or path of the interface's network namespace; None: the caller's own.
        pin_root: the bpffs in which it was pinned.
        expect: id of the program that has to be there; None: any of ours.

    Raises:
        UsageError: there is no such interface, or nothing is attached to it.
        HookBusy: the program there is not ours, or not the expected one.
        RequirementUnmet: somebody else made the folder of pins.
        MissingPrivilege: a capability is missing.
    """
    what = f"detach the program on {iface}"
    pins = Pins(pin_root)
    with pins.locked(what, create=False) as present:
        if present:
            pins.sweep()
        interface = resolve(iface, netns=netns)
        (found,) = examine([interface], pins)
        attached = _ours(found, what)
        if expect is not None and attached.program.id != expect:
            raise HookBusy(
                what, cause=f"program {expect} is expected, but there is {attached.describe()}"
            )
        opened = pins.open(interface)
        if opened is None:
            raise UsageError(what, cause="it has been detached meanwhile")
        link, pinned = opened
        # The pin goes last: after a crash in between, it is found and swept.
        with link:
            bpf.link_detach(link.fileno(), what=what)
        pins.remove(interface)
    return Detached(interface, attached.mode, attached.program, pinned.link_id)


def _ours(found: HookStatus, what: str) -> AttachedProgram:
    """Return the program that xdpkit pinned.

    Raises:
        UsageError: there is no program at all.
        HookBusy: there are only others.
    """
    if not found.attached:
        raise UsageError(what, cause="nothing is attached to it")
    for attached in found.attached:
        if attached.owner is Owner.XDPKIT:
            return attached
    other = found.attached[0]
    command = removal(other, found.interface)
    raise HookBusy(
        what,
        cause=f"xdpkit did not pin what is there: {other.describe()}",
        remedy=f"let the tool that attached it detach it, or: {command}" if command else None,
    )
