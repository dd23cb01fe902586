# SPDX-License-Identifier: Apache-2.0
"""What holds a program on its hook, and how that program is exchanged: a link, or netlink.

A hook that one of them holds cannot be taken over by the other: the kernel says EBUSY.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from xdpkit.errors import HookBusy, KernelRefused, MissingPrivilege, UsageError, XdpkitError
from xdpkit.hook import refusals
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.pins import Pins, root_of
from xdpkit.hook.state import LEAVING, LEAVING_CODE, AttachedProgram, Owner, command_for
from xdpkit.interfaces import Interface
from xdpkit.interfaces.observation import Observation, observe
from xdpkit.syscalls import bpf, netns, privilege, rtnetlink
from xdpkit.syscalls.bpf import NewProgram, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.bpf import BPF_F_REPLACE, AttachType, ProgFlags, ProgType
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.if_link import XdpFlags

# Expected attach type and flags of the programs that may stand in for one that leaves.
_STAND_INS = (
    (AttachType.XDP, ProgFlags.XDP_HAS_FRAGS),
    (AttachType.XDP, ProgFlags(0)),
    (0, ProgFlags.XDP_HAS_FRAGS),
    (0, ProgFlags(0)),
)


class Holding(Protocol):
    """What holds a hook's program. Programs are given by descriptor."""

    link_id: int | None

    def swap(self, program: int, expected: int | None, what: str) -> None:
        """Put another program in the place of the present one, in one step.

        With ``expected``, only if that is the present one.

        Raises:
            HookBusy: it is not.
            KernelRefused: the kernel or the driver refused.
        """

    def drop(self, expected: int | None, what: str) -> None:
        """Empty the hook; arguments and errors as for :meth:`swap`."""


class ByLink:
    """A hook that a link holds; the descriptor is the caller's."""

    def __init__(self, link: Fd, interface: Interface, mode: Mode) -> None:
        self._link = link
        self._interface = interface
        self._mode = mode
        self.link_id: int | None = int(bpf.link_info(link.fileno()).id)

    def swap(self, program: int, expected: int | None, what: str) -> None:
        with hearing(self._interface, self._mode, "replace", what):
            try:
                bpf.link_update(
                    self._link.fileno(),
                    program,
                    flags=0 if expected is None else BPF_F_REPLACE,
                    expected=expected,
                    what=what,
                )
            except (KernelRefused, MissingPrivilege) as error:
                if error.errno != errno.EPERM or privilege.lacks((Capability.BPF,)):
                    raise
                raise exchanged(what, self._interface) from error

    def drop(self, expected: int | None, what: str) -> None:
        # The kernel has no compare-and-detach for links.
        if expected is not None:
            stand_in(self, expected, what)
        bpf.link_detach(self._link.fileno(), what=what)


class ByNetlink:
    """A hook whose program netlink attached."""

    link_id: int | None = None

    def __init__(self, interface: Interface, mode: Mode) -> None:
        self._interface = interface
        self._mode = mode

    def swap(self, program: int, expected: int | None, what: str) -> None:
        set_program(self._interface, self._mode, program, expected, what, verb="replace")

    def drop(self, expected: int | None, what: str) -> None:
        set_program(
            self._interface, self._mode, rtnetlink.NO_PROGRAM, expected, what, verb="detach"
        )


def stand_in(
    holding: Holding,
    expected: int,
    what: str,
    around: Callable[[Fd], AbstractContextManager[None]] = lambda leaving: contextlib.nullcontext(),
) -> None:
    """Exchange the expected program for one that lets all packets pass.

    The kernel takes one with the same expected attach type only, which it does not tell, and an
    interface with large packets one that takes frags: so there are several to try.

    Args:
        holding: what holds the hook.
        expected: the program that has to be there.
        what: what is being tried, for errors.
        around: given a loaded program, the context to make the exchange in.

    Raises:
        HookBusy: another program is there.
        KernelRefused: the kernel or the driver refused.
    """
    refused: KernelRefused | None = None
    for attach_type, flags in _STAND_INS:
        try:
            with pass_program(attach_type, flags) as leaving, around(leaving):
                holding.swap(leaving.fileno(), expected, what)
            return
        except KernelRefused as error:
            refused = refused or error
    assert refused is not None, "there are programs to try"
    raise refused


def set_program(
    interface: Interface,
    mode: Mode,
    program: int,
    expected: int | None,
    what: str,
    *,
    verb: str,
    if_empty: bool = False,
) -> None:
    """Set an interface's program by netlink.

    Args:
        interface: the interface. mode: how.
        program: descriptor of the new program, -1 for none.
        expected: descriptor of the program that has to be there; None: any.
        what: what is being tried, for errors. verb: likewise.
        if_empty: only if there is no program.

    Raises:
        HookBusy: it is not the expected program that is there.
        KernelRefused: the kernel or the driver refused.
    """
    flags = mode.flag | XdpFlags.UPDATE_IF_NOEXIST if if_empty else mode.flag
    try:
        _set_xdp(interface, program, flags, expected, what)
    except KernelRefused as error:
        if error.errno == errno.EEXIST and expected is not None:
            raise exchanged(what, interface) from error
        raise explained(
            error, error.extack, interface, mode, verb, Via.NETLINK, what, heard=True
        ) from error


def _set_xdp(
    interface: Interface, program: int, flags: XdpFlags, expected: int | None, what: str
) -> None:
    with netns.entered(interface.netns):
        connection = NetlinkSocket()
    with connection:
        rtnetlink.set_xdp(
            connection, interface.index, fd=program, flags=flags, expected=expected, what=what
        )


@contextlib.contextmanager
def hearing(interface: Interface, mode: Mode, verb: str, what: str) -> Iterator[None]:
    """Explain what the kernel refuses in the ``with`` block, in its own words where it has any.

    Raises:
        KernelRefused: the refusal, with its cause.
    """
    from xdpkit.kernel.extack import listening

    with listening() as words:
        try:
            yield
        except MissingPrivilege:
            raise
        except KernelRefused as error:
            raise explained(
                error,
                words.last(),
                interface,
                mode,
                verb,
                Via.LINK,
                what,
                heard=words.is_listening,
            ) from error


def explained(
    error: KernelRefused,
    said: str | None,
    interface: Interface,
    mode: Mode,
    verb: str,
    via: Via,
    what: str,
    *,
    heard: bool,
) -> KernelRefused:
    """Return a refusal with its cause; ``heard``: whether a text of the kernel's would be known."""
    number = error.errno or errno.EIO
    seen: Observation | None
    try:
        seen = observe(interface.index, netns_name=interface.netns)
    except UsageError:
        return KernelRefused(what, errno=number, cause=f"{interface.name} has gone meanwhile")
    except XdpkitError:
        seen = None
    found = refusals.explain(number, said, interface, mode, verb, via=via, heard=heard, seen=seen)
    return KernelRefused(what, errno=number, cause=found.cause, remedy=found.remedy, extack=said)


def exchanged(what: str, interface: Interface) -> HookBusy:
    """Return the error for a program that went between the look and the change."""
    return HookBusy(
        what,
        cause="the program that was seen there is not there any more: another process changed the"
        " hook meanwhile",
        remedy=_look_again(interface),
    )


def _look_again(interface: Interface) -> str:
    return f"look again: {command_for('status', interface)}"


def as_held(attached: AttachedProgram, interface: Interface, what: str) -> AttachedProgram:
    """Return a program with what certainly holds it, as far as this process may know.

    A link that is not pinned for this very interface was found by its interface's index and its
    program. It can be that of an interface with the same index in another network namespace, while
    netlink holds the program here.

    Raises:
        MissingPrivilege: asking the kernel takes CAP_NET_ADMIN.
    """
    if (
        attached.via is Via.NETLINK
        or _is_pinned_for(attached, interface)
        or (attached.via is None and privilege.lacks((Capability.SYS_ADMIN,)))
        or is_held_by_link(interface, attached.mode, what)
    ):
        return attached
    # That it is ours was told by the link, or by what was written down about one.
    owner = Owner.UNKNOWN if attached.owner is Owner.XDPKIT else attached.owner
    return replace(attached, via=Via.NETLINK, link_id=None, pinned=None, owner=owner, note=None)


def _is_pinned_for(attached: AttachedProgram, interface: Interface) -> bool:
    if attached.pinned is None:
        return False
    return os.path.dirname(attached.pinned) == Pins(root_of(attached.pinned)).home_of(interface)


def is_held_by_link(interface: Interface, mode: Mode, what: str) -> bool:
    """Ask the kernel whether a link holds what is on an interface's hook.

    It is told to put nothing in the place of nothing, by netlink: whatever is on the hook, that
    changes nothing, and of a link it says so first (dev_xdp_attach() in net/core/dev.c).

    Raises:
        MissingPrivilege: it takes CAP_NET_ADMIN.
        KernelRefused: the kernel refused for another reason.
    """
    nothing = rtnetlink.NO_PROGRAM
    try:
        _set_xdp(interface, nothing, mode.flag, nothing, what)
    except KernelRefused as error:
        if error.errno not in (errno.EBUSY, errno.EEXIST):
            raise
        return error.errno == errno.EBUSY
    return False


@contextlib.contextmanager
def holding_of(attached: AttachedProgram, interface: Interface, what: str) -> Iterator[Holding]:
    """Open what holds a program.

    Raises:
        HookBusy: the link has gone meanwhile, or the kernel does not tell which one it is.
        MissingPrivilege: looking up a link that is not pinned takes CAP_SYS_ADMIN, and whether it
            is this interface's, CAP_NET_ADMIN.
    """
    attached = as_held(attached, interface, what)
    if attached.via is None:
        raise hidden(attached, interface, what)
    if attached.via is Via.NETLINK:
        yield ByNetlink(interface, attached.mode)
        return
    if attached.pinned is not None:
        link = bpf.obj_get(attached.pinned, what=what)
    else:
        assert attached.link_id is not None, "a link has an id"
        link = bpf.fd_by_id(ObjectKind.LINK, attached.link_id)
    if link is None:
        raise exchanged(what, interface)
    with link:
        yield ByLink(link, interface, attached.mode)


def hidden(attached: AttachedProgram, interface: Interface, what: str) -> XdpkitError:
    """Return the error for a program of which cannot be seen what holds it."""
    if not privilege.lacks((Capability.SYS_ADMIN,)):
        return HookBusy(
            what,
            cause=f"what holds it cannot be told: {attached.note}: {attached.describe()}",
            remedy=f"{_look_again(interface)}; or let whoever attached it detach it; or detach the"
            " right one of the links: bpftool link detach id N",
        )
    error = privilege.explain_bpf_eperm(what, (Capability.SYS_ADMIN,))
    return MissingPrivilege(
        what, cause=f"whose program is there cannot be told: {attached.note}", remedy=error.remedy
    )


def open_program(number: int, interface: Interface, what: str) -> Fd:
    """Open the program that is expected on a hook.

    Raises:
        HookBusy: it has gone.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    try:
        program = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    except MissingPrivilege as error:
        raise MissingPrivilege(
            what, cause=f"program {number} has to be opened, but {error.cause}", remedy=error.remedy
        ) from error
    if program is None:
        raise exchanged(what, interface)
    return program


def pass_program(attach_type: int, flags: ProgFlags) -> Fd:
    """Load the program that lets all packets pass while another one leaves."""
    return bpf.prog_load(
        NewProgram(
            type=ProgType.XDP,
            code=LEAVING_CODE,
            license="Apache-2.0",
            name=LEAVING,
            attach_type=attach_type,
            flags=flags,
        ),
        what="load the program that stands in while another one is detached",
    )
