# SPDX-License-Identifier: Apache-2.0
"""Put a program on an empty hook, by a ``bpf_link``.

The program is on the hook for as long as something holds the link: this process's descriptor, or
a pin. So a crash at any point leaves either nothing behind, or a link that is pinned and found
again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from xdpkit.errors import HookBusy, KernelRefused, UsageError, VerifierError
from xdpkit.hook import refusals
from xdpkit.hook.members import maps_that_need_a_holder, negotiate_members
from xdpkit.hook.mode import Mode
from xdpkit.hook.pins import DEFAULT_ROOT, Pins
from xdpkit.hook.state import removal
from xdpkit.hook.status import examine
from xdpkit.interfaces import Interface, resolve
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType, ProgType

if TYPE_CHECKING:
    from xdpkit.capabilities import Device
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Negotiation, Policy, Target
    from xdpkit.obj import ProgramSpec

_NOT_ON_AN_INTERFACE = {
    AttachType.XDP_DEVMAP: "a devmap runs it (section xdp/devmap), not an interface",
    AttachType.XDP_CPUMAP: "a cpumap runs it (section xdp/cpumap), not an interface",
}


class Attached:
    """A program on an interface's hook.

    A context manager: at the end of the ``with`` block the program is detached, unless it is
    pinned; then only this process's descriptors are closed. A program that was given loaded stays
    the caller's to close; one that was given as a spec is closed here.

    Attributes:
        interface: the interface as it was just before.
        mode: how the program is attached.
        program: the loaded program.
        link_id: the link's id, unique until reboot.
        negotiation: what came of holding the program against the interface before.
    """

    def __init__(
        self,
        *,
        interface: Interface,
        mode: Mode,
        program: Program,
        link: Fd,
        link_id: int,
        negotiation: Negotiation,
        pins: Pins | None,
        members: contextlib.ExitStack,
        resources: contextlib.ExitStack,
    ) -> None:
        self.interface = interface
        self.mode = mode
        self.program = program
        self.link_id = link_id
        self.negotiation = negotiation
        self._link: Fd | None = link
        self._pins = pins
        self._members = members
        self._resources = resources

    @property
    def maps(self) -> Mapping[str, Map]:
        """The program's maps, by name.

        A program put into one of them (a tail call's, a devmap's or a cpumap's) is negotiated as
        the attached one was, unless that was forced.
        """
        return self.program.maps

    @property
    def pinned(self) -> str | None:
        """Where the link is pinned; None when it is not, or no more."""
        return self._pins.path_of(self.interface) if self._pins is not None else None

    def detach(self) -> None:
        """Take the program off the hook, and unpin it; safe to repeat.

        The program and its maps can be used until :meth:`close`.
        """
        if self._link is None:
            return
        what = f"detach {self.program.name} from {self.interface.name}"
        if self._pins is None:
            bpf.link_detach(self._link.fileno(), what=what)
        else:
            with self._pins.locked(what, create=False) as present:
                bpf.link_detach(self._link.fileno(), what=what)
                if present:
                    self._unpin(self._pins)
            self._pins = None
        self._link.close()
        self._link = None
        self._members.close()

    def _unpin(self, pins: Pins) -> None:
        """Remove the pin if it is still this link's."""
        opened = pins.open(self.interface)
        if opened is None:
            return
        descriptor, pinned = opened
        descriptor.close()
        if pinned.link_id == self.link_id:
            pins.remove(self.interface)

    def close(self) -> None:
        """Close this process's descriptors; safe to repeat. Without a pin, that detaches too."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._members.close()
        self._resources.close()

    def __del__(self) -> None:
        # A pinned program needs no owner here, so nothing is lost that a warning could be about.
        if getattr(self, "_pins", None) is not None:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._pins is None:
                self.detach()
        finally:
            self.close()


def attach(
    iface: str | int,
    program: ProgramSpec | Program,
    *,
    mode: Mode | str | None = None,
    pin: bool = False,
    netns: str | None = None,
    pin_root: str = DEFAULT_ROOT,
    maps: Mapping[str, Map] | None = None,
    policy: Policy | None = None,
    targets: Sequence[Target | Device | str | int] = (),
    force: bool = False,
) -> Attached:
    """Attach a program to an interface whose hook is empty, if the interface can do what it needs.

    ::

        with xdpkit.attach("eth0", obj.programs["fw"]) as attached:  # detached at the end
            attached.maps["hits"][0]
        xdpkit.attach("eth0", obj.programs["fw"], pin=True)  # outlives the process

    Args:
        iface: interface name, or index.
        program: a program from an object file, which is loaded; or a loaded one.
        mode: a Mode or its name; None asks for native mode, and never takes generic instead.
        pin: keep the program attached when this process ends.
        netns: name or path of the interface's network namespace; None: the caller's own.
        pin_root: a mounted bpffs.
        maps: maps to use instead of creating the program's own, by name; for a spec only.
        policy: see :func:`xdpkit.check`; None: what is not known passes.
        targets: the interfaces that the program redirects to, as for :func:`xdpkit.check`.
        force: try it even if the interface certainly cannot do what the program needs.

    Raises:
        UsageError: there is no such interface, or the program is none for an interface.
        HookBusy: a program is there already.
        RequirementUnmet: the interface cannot do what the program needs; or pins are impossible.
        MissingPrivilege: a capability is missing.
        VerifierError: the program did not load.
        KernelRefused: the kernel or the driver refused.
    """
    from xdpkit.kernel import Program
    from xdpkit.obj.spec import ProgramSpec

    mode = Mode.parse(mode) if isinstance(mode, str) else mode or Mode.NATIVE
    if not isinstance(program, ProgramSpec | Program):
        raise UsageError(
            f"attach {program!r} to {iface}",
            cause="it is no program: give one of an object's programs, or a loaded one",
        )
    interface = resolve(iface, netns=netns)
    what = f"attach {program.name} to {interface.name} in {mode.value} mode"
    if program.type != ProgType.XDP:
        raise UsageError(what, cause="it is not an XDP program")
    spec = program if isinstance(program, ProgramSpec) else program.spec
    if spec is not None:
        _require_for_interfaces(spec, what)
    if spec is not program and maps is not None:
        raise UsageError(what, cause="a loaded program has its maps already")
    pins = Pins(pin_root)
    if pin:
        pins.require_bpffs(what)
    _require_empty(interface, mode, pins, what)
    negotiation = _negotiate(program, interface, mode, maps, policy, targets)
    if not (negotiation.is_allowed or force):
        from xdpkit.negotiation import refusal

        raise refusal(negotiation, what)

    with contextlib.ExitStack() as resources:
        if isinstance(program, ProgramSpec):
            loaded = resources.enter_context(_load(program, interface, mode, maps, pin_root, what))
        else:
            loaded = program
        with contextlib.ExitStack() as until_pinned:
            if pin:
                until_pinned.enter_context(pins.locked(what, create=True))
                pins.sweep()
                kept = maps_that_need_a_holder(loaded)
                until_pinned.enter_context(pins.keeping(kept, interface, what))
            link = until_pinned.enter_context(_create_link(loaded, interface, mode, pins, what))
            link_id = int(bpf.link_info(link.fileno()).id)
            if pin:
                pins.pin(link, interface, what)
            link = Fd(link.detach())
        members = contextlib.ExitStack()
        if not force:
            members.enter_context(negotiate_members(loaded.maps, interface, mode, policy))
        return Attached(
            interface=interface,
            mode=mode,
            program=loaded,
            link=link,
            link_id=link_id,
            negotiation=negotiation,
            pins=pins if pin else None,
            members=members,
            resources=resources.pop_all(),
        )


def _require_for_interfaces(spec: ProgramSpec, what: str) -> None:
    for attach_type, purpose in _NOT_ON_AN_INTERFACE.items():
        if spec.attach_type == attach_type:
            raise UsageError(what, cause=purpose)


def _negotiate(
    program: ProgramSpec | Program,
    interface: Interface,
    mode: Mode,
    maps: Mapping[str, Map] | None,
    policy: Policy | None,
    targets: Sequence[Target | Device | str | int],
) -> Negotiation:
    from xdpkit.hook.check import check
    from xdpkit.negotiation import Policy

    return check(
        program,
        interface.index,
        mode=mode,
        policy=policy or Policy.DEFAULT,
        targets=targets,
        maps=maps,
        netns=interface.netns,
    )


def _require_empty(interface: Interface, mode: Mode, pins: Pins, what: str) -> None:
    """Refuse if there is a program where the new one would go.

    Raises:
        HookBusy: there is.
    """
    (found,) = examine([interface], pins)
    for attached in found.attached:
        # The NIC's hook and the software's are two; native and generic share the latter.
        if (attached.mode is Mode.OFFLOAD) == (mode is Mode.OFFLOAD):
            command = removal(attached, interface)
            raise HookBusy(
                what,
                cause=f"{interface.name} already has {attached.describe()}",
                remedy=f"detach it first: {command}" if command else None,
            )


def _load(
    spec: ProgramSpec,
    interface: Interface,
    mode: Mode,
    maps: Mapping[str, Map] | None,
    pin_root: str,
    what: str,
) -> Program:
    from xdpkit import kernel

    if mode is not Mode.OFFLOAD:
        return kernel.load(spec, maps=maps or {}, pin_root=pin_root)
    try:
        with netns.entered(interface.netns):
            return kernel.load(
                spec, maps=maps or {}, pin_root=pin_root, ifindex=interface.index, offload=True
            )
    except VerifierError:
        raise
    except KernelRefused as error:
        # bpf_prog_dev_bound_init() in kernel/bpf/offload.c: the driver registered no offload.
        if error.errno != errno.EINVAL:
            raise
        cause, _ = refusals.explain(errno.EOPNOTSUPP, interface, mode)
        raise KernelRefused(what, errno=error.errno, cause=cause) from error


def _create_link(program: Program, interface: Interface, mode: Mode, pins: Pins, what: str) -> Fd:
    from xdpkit.kernel.extack import listening

    with listening() as words:
        try:
            with netns.entered(interface.netns):
                return bpf.link_create(
                    program.fileno(), interface.index, AttachType.XDP, mode.flag, what=what
                )
        except KernelRefused as error:
            refused = error
        said = words.last()
    number = refused.errno or errno.EIO
    if number in (errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.ENODEV):
        now = _look_again(interface, what, number)
        _require_empty(now, mode, pins, what)
    cause, remedy = refusals.explain(number, interface, mode)
    if cause is not None and said is not None:
        cause = f"{cause}; the kernel says {said!r}"
    raise KernelRefused(
        what, errno=number, cause=cause or said or refused.cause, remedy=remedy, extack=said
    ) from refused


def _look_again(interface: Interface, what: str, number: int) -> Interface:
    """Return the interface as it is now.

    Raises:
        KernelRefused: it is gone.
    """
    try:
        return resolve(interface.index, netns=interface.netns)
    except UsageError as error:
        raise KernelRefused(
            what, errno=number, cause=f"{interface.name} has gone meanwhile"
        ) from error
