# SPDX-License-Identifier: Apache-2.0
"""What holds a program on its hook, and how that program is exchanged: a link, or netlink.

A hook that one of them holds cannot be taken over by the other: the kernel says EBUSY.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from xdpkit.errors import HookBusy, KernelRefused, MissingPrivilege, UsageError, XdpkitError
from xdpkit.hook import refusals
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.state import LEAVING, AttachedProgram
from xdpkit.interfaces import Interface
from xdpkit.interfaces.observation import Observation, observe
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.syscalls import bpf, netns, privilege, rtnetlink
from xdpkit.syscalls.bpf import NewProgram, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.bpf import BPF_F_REPLACE, AttachType, ProgFlags, ProgType, XdpAction
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
                raise exchanged(what) from error

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
    with netns.entered(interface.netns):
        connection = NetlinkSocket()
    try:
        with connection:
            rtnetlink.set_xdp(
                connection,
                interface.index,
                fd=program,
                flags=mode.flag | XdpFlags.UPDATE_IF_NOEXIST if if_empty else mode.flag,
                expected=expected,
                what=what,
            )
    except KernelRefused as error:
        if error.errno == errno.EEXIST and expected is not None:
            raise exchanged(what) from error
        raise explained(
            error, error.extack, interface, mode, verb, Via.NETLINK, what, heard=True
        ) from error


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


def exchanged(what: str) -> HookBusy:
    """Return the error for a program that went between the look and the change."""
    return HookBusy(
        what,
        cause="the program that was seen there is not there any more: another process changed the"
        " hook meanwhile",
        remedy="look again: xdpkit status",
    )


@contextlib.contextmanager
def holding_of(attached: AttachedProgram, interface: Interface, what: str) -> Iterator[Holding]:
    """Open what holds a program.

    Raises:
        HookBusy: the link has gone meanwhile.
        MissingPrivilege: looking up a link that is not pinned takes CAP_SYS_ADMIN.
    """
    if attached.via is None:
        raise hidden(attached, what)
    if attached.via is Via.NETLINK:
        yield ByNetlink(interface, attached.mode)
        return
    if attached.pinned is not None:
        link = bpf.obj_get(attached.pinned, what=what)
    else:
        assert attached.link_id is not None, "a link has an id"
        link = bpf.fd_by_id(ObjectKind.LINK, attached.link_id)
    if link is None:
        raise exchanged(what)
    with link:
        yield ByLink(link, interface, attached.mode)


def hidden(attached: AttachedProgram, what: str) -> MissingPrivilege:
    """Return the error for a program of which this process may not see whose it is."""
    error = privilege.explain_bpf_eperm(what, (Capability.SYS_ADMIN,))
    return MissingPrivilege(
        what, cause=f"whose program is there cannot be told: {attached.note}", remedy=error.remedy
    )


def open_program(number: int, what: str) -> Fd:
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
        raise exchanged(what)
    return program


def pass_program(attach_type: int, flags: ProgFlags) -> Fd:
    """Load the program that lets all packets pass while another one leaves."""
    code = [asm.mov(Register.R0, XdpAction.PASS), asm.exit()]
    return bpf.prog_load(
        NewProgram(
            type=ProgType.XDP,
            code=encode(code),
            license="Apache-2.0",
            name=LEAVING,
            attach_type=attach_type,
            flags=flags,
        ),
        what="load the program that stands in while another one is detached",
    )
