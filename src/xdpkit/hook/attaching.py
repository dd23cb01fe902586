# SPDX-License-Identifier: Apache-2.0
"""Attach and detach in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from xdpkit.hook.changes import prepare_add, prepare_delete
from xdpkit.hook.delete import Detached
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place, StrPath
from xdpkit.hook.present import Expected
from xdpkit.hook.request import Terms
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.kernel.folder import DEFAULT_ROOT

if TYPE_CHECKING:
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec


def attach(
    iface: str | int,
    program: ProgramSpec | Program,
    *,
    mode: Mode | str | Sequence[Mode | str] | None = None,
    pin: bool = False,
    via: Via | str | None = None,
    netns: StrPath | None = None,
    pin_root: StrPath = DEFAULT_ROOT,
    **terms: Unpack[Terms],
) -> XdpProg:
    """Attach a program to an interface whose hook is empty, if the interface can do what it needs.

    ::

        with xdpkit.attach("eth0", obj.programs["fw"]) as attached:  # detached at the end
            attached.maps["hits"][0]
        xdpkit.attach("eth0", obj.programs["fw"], pin=True)  # outlives the process

    Args:
        iface: interface name, or index.
        program: a program from an object file, which is loaded; or a loaded one.
        mode: see :meth:`xdpkit.Hook.add`; None asks for native mode, and never takes generic
            instead.
        pin: keep the program attached when this process ends.
        via: what is to hold it; None: a link, and netlink where a link cannot.
        netns: name or path of the interface's network namespace; None: the caller's own.
        pin_root: a mounted bpffs.
        **terms: see :class:`~xdpkit.hook.Terms`.

    Raises:
        UsageError: there is no such interface, or the program is none for an interface.
        HookBusy: a program is there already.
        RequirementUnmet: the interface cannot do what the program needs; or pins are impossible.
        MissingPrivilege: a capability is missing.
        VerifierError: the program did not load.
        KernelRefused: the kernel or the driver refused.
    """
    place = Place.named(iface, netns, pin_root)
    return prepare_add(place, program, mode=mode, pin=pin, via=via, **terms).apply()


def detach(
    iface: str | int,
    *,
    netns: StrPath | None = None,
    pin_root: StrPath = DEFAULT_ROOT,
    expected: Expected | None = None,
) -> Detached:
    """Take a program off its hook: the one that xdpkit keeps there, or the expected one.

    Args:
        iface: interface name, or index.
        netns: name or path of the interface's network namespace; None: the caller's own.
        pin_root: the bpffs in which it was pinned.
        expected: the program that has to be there; it may be somebody else's. None: whichever
            xdpkit keeps there.

    Raises:
        UsageError: there is no such interface, or nothing is attached to it.
        HookBusy: the program there is not ours, or not the expected one.
        RequirementUnmet: somebody else made the folder of pins.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    return prepare_delete(Place.named(iface, netns, pin_root), expected=expected).apply()
