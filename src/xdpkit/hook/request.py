# SPDX-License-Identifier: Apache-2.0
"""A program that is to go on a hook: is it one for it, does it fit, and its load."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError, VerifierError
from xdpkit.hook import refusals
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.porting import context_of, kept, maps_of
from xdpkit.hook.ports import PortsOf, table_of
from xdpkit.interfaces import Interface
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.bpf import NewMap
from xdpkit.uapi.bpf import AttachType, MapType, ProgType

if TYPE_CHECKING:
    from xdpkit.capabilities import Device
    from xdpkit.hook.record import PortOf
    from xdpkit.hook.standing import Standing
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Negotiation, Policy, Target
    from xdpkit.obj import ProgramSpec

_NOT_ON_AN_INTERFACE = {
    AttachType.XDP_DEVMAP: "a devmap runs it (section xdp/devmap), not an interface",
    AttachType.XDP_CPUMAP: "a cpumap runs it (section xdp/cpumap), not an interface",
}


class Terms(TypedDict, total=False):
    """What may be said about a program that goes on a hook; all of it is optional.

    Keys:
        maps: maps to use instead of creating the program's own, by name; for a spec only.
        policy: a Policy or its name, as for :func:`xdpkit.check`; by default, what is not known
            passes.
        targets: the interfaces that the program redirects to, as for :func:`xdpkit.check`.
        force: try it even if the interface certainly cannot do what the program needs.
        cookie: a number of the caller's, kept in the record; a program reads it as
            ``ctx->cookie``.
        ports: the port table that is meant, or its name, for a program that reads
            ``ctx->port_index`` or uses a table's maps; None: the one that has the interface as a
            port.
    """

    maps: Mapping[str, Map] | None
    policy: Policy | str | None
    targets: Sequence[Target | Device | str | int]
    force: bool
    cookie: int
    ports: PortsOf | None


class Request:
    """A program that is to go on an interface's hook."""

    def __init__(
        self,
        program: ProgramSpec | Program,
        interface: Interface,
        what: str,
        *,
        pin_root: str,
        maps: Mapping[str, Map] | None = None,
        policy: Policy | str | None = None,
        targets: Sequence[Target | Device | str | int] = (),
        force: bool = False,
        cookie: int = 0,
        ports: PortsOf | None = None,
    ) -> None:
        """Check what needs no look at the hook.

        Raises:
            UsageError: it is no program for an interface, or there is no such port table.
        """
        from xdpkit.hook.check import policy_of
        from xdpkit.hook.given import require_cookie
        from xdpkit.kernel import Program
        from xdpkit.obj.spec import ProgramSpec

        if not isinstance(program, ProgramSpec | Program):
            raise UsageError(
                what,
                cause="it is no program: give one of an object's programs, or a loaded one",
            )
        if program.type != ProgType.XDP:
            raise UsageError(what, cause="it is not an XDP program")
        if not _has_64_bits(cookie):
            raise UsageError(what, cause="a cookie is a number of 64 bits, not negative")
        self.spec = program if isinstance(program, ProgramSpec) else program.spec
        if self.spec is not None:
            for attach_type, purpose in _NOT_ON_AN_INTERFACE.items():
                if self.spec.attach_type == attach_type:
                    raise UsageError(what, cause=purpose)
        if self.spec is not program and maps is not None:
            raise UsageError(what, cause="a loaded program has its maps already")
        require_cookie(program, cookie, what)
        self.program = program
        self.interface = interface
        self.what = what
        self.pin_root = pin_root
        self.maps = maps
        self.policy = policy_of(policy)
        self.targets = targets
        self.force = force
        self.cookie = cookie
        self.table = table_of(ports, what, pin_root)
        self._standing: Standing | None = None
        self._table_maps: Mapping[str, int] = {}

    def needs_pins(self) -> bool:
        """Whether the program has maps that something has to hold beside it."""
        from xdpkit.hook.members import maps_that_need_a_holder, needs_holder
        from xdpkit.obj.spec import ProgramSpec

        if isinstance(self.program, ProgramSpec):
            return needs_holder(self.program)
        return bool(maps_that_need_a_holder(self.program))

    def negotiate(self, mode: Mode, via: Via) -> Negotiation:
        """Hold the program against the interface."""
        from xdpkit.hook.check import look

        found = look(
            self.program,
            self.interface.index,
            mode=mode,
            policy=self.policy,
            targets=self.targets,
            maps=self.maps,
            netns=self.interface.netns,
            by_link=via is Via.LINK,
            table=self.table,
            pin_root=self.pin_root,
        )
        self._standing = found.standing
        self._table_maps = found.standing.maps if found.standing is not None else {}
        return found.negotiation

    @property
    def port(self) -> PortOf | None:
        """What the program is told of a port table; known once it was negotiated."""
        return self._standing.written if self._standing is not None else None

    def as_port(self) -> str:
        """Return it as what goes behind what is done: ", as port 2 (eth1) of table lan"."""
        if self.port is None:
            return ""
        return f", {'with' if self.port.number is None else 'as'} {self.port}"

    def port_kept(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from changing what the program has of a port table, meanwhile.

        Raises:
            HookBusy: the interface is that port no longer, or the table or a set is another one.
        """
        return kept(self._standing, self._table_maps, self.interface, self.pin_root, self.what)

    def note_on_port(self) -> str | None:
        """Return what there is to know of a program that does without a port; else None."""
        return self._standing.note if self._standing is not None else None

    def require_allowed(self, negotiation: Negotiation) -> None:
        """Refuse a program that the interface certainly cannot serve, unless that was forced.

        One that would be told that it has no port, though it has one, is refused even so.

        Raises:
            RequirementUnmet, UsageError: so it is.
        """
        from xdpkit.negotiation import refusal
        from xdpkit.requirements.context import is_of_ports

        if not (negotiation.is_allowed or self.force):
            raise refusal(negotiation, self.what)
        unclear = self._standing.unclear if self._standing is not None else None
        if unclear is not None and any(
            is_of_ports(each.requirement.capability) for each in negotiation.refused
        ):
            raise unclear.error(self.what)

    def members_held(self, loaded: Program, mode: Mode) -> contextlib.AbstractContextManager[None]:
        """Hold programs that are put into the program's maps against the interface, meanwhile."""
        from xdpkit.hook.members import negotiate_members

        if self.force:
            return contextlib.nullcontext()
        return negotiate_members(
            loaded.maps,
            self.interface,
            mode,
            self.policy,
            ports=self.table,
            pin_root=self.pin_root,
            cookie=self.cookie,
        )

    def load(self, mode: Mode, resources: contextlib.ExitStack) -> Program:
        """Return the program, loaded if it was not yet.

        What was loaded here closes with the resources, and so do the maps of its port table. If
        they close because of an error, the pins of the maps that were made for it go, too.

        Raises:
            UsageError: the port table has gone.
            VerifierError: the verifier refused it.
            KernelRefused: the kernel refused otherwise.
        """
        from xdpkit.obj.spec import ProgramSpec

        if not isinstance(self.program, ProgramSpec):
            return self.program
        loaded = resources.enter_context(self._load(self.program, mode, resources))
        resources.enter_context(_unpinning_after_failure(loaded))
        return loaded

    def _load(self, spec: ProgramSpec, mode: Mode, resources: contextlib.ExitStack) -> Program:
        from xdpkit import kernel

        context = context_of(self._standing, self.cookie)
        maps, self._table_maps = maps_of(
            spec, self._standing, self.maps or {}, self.pin_root, self.what, resources
        )
        if mode is not Mode.OFFLOAD:
            return kernel.load(spec, maps=maps, pin_root=self.pin_root, context=context)
        try:
            with netns.entered(self.interface.netns):
                return kernel.load(
                    spec,
                    maps=maps,
                    pin_root=self.pin_root,
                    ifindex=self.interface.index,
                    offload=True,
                    context=context,
                )
        except VerifierError:
            raise
        except KernelRefused as error:
            # bpf_prog_dev_bound_init() in kernel/bpf/offload.c: the driver registered no offload.
            if error.errno != errno.EINVAL:
                raise
            found = refusals.explain(errno.EOPNOTSUPP, None, self.interface, mode)
            raise KernelRefused(self.what, errno=error.errno, cause=found.cause) from error

    def require_binding(self, loaded: Program) -> None:
        """Refuse a program that is bound to another device; nothing overrides this.

        The kernel checks it when a link is made, but not when its program is replaced: the program
        would then call the other driver's functions with this one's packets.

        Raises:
            RequirementUnmet: it is bound to another device, or to one that is not known.
        """
        here = (self.interface.netns_cookie, self.interface.index)
        if loaded.bound_to == here:
            return
        if loaded.bound_to is None:
            if loaded.was_loaded_here or not is_bound(loaded):
                return
            place = "an interface that the kernel does not tell"
        else:
            cookie, ifindex = loaded.bound_to
            place = f"interface {ifindex}"
            if cookie != here[0]:
                place += " of another network namespace"
        raise RequirementUnmet(
            self.what,
            cause=f"the program was loaded for {place}, and must not run on any other",
            remedy=f"load it for {self.interface.name}: ifindex={self.interface.index}",
        )


def is_bound(program: Program) -> bool:
    """Return whether a program is bound to a device, which the kernel does not tell.

    But it takes no such program into a program array (bpf_prog_map_compatible() in
    kernel/bpf/core.c), and a new, empty one refuses no other.
    """
    what = f"see whether {program.name} is bound to a device"
    with bpf.map_create(NewMap(MapType.PROG_ARRAY, 4, 4, 1, name="xdpkit_probe"), what=what) as fd:
        try:
            bpf.map_update(fd.fileno(), bytes(4), program.fileno().to_bytes(4, sys.byteorder))
        except KernelRefused as error:
            if error.errno != errno.EINVAL:
                raise
            return True
    return False


def _has_64_bits(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 64


@contextlib.contextmanager
def _unpinning_after_failure(loaded: Program) -> Iterator[None]:
    """Unpin the maps that were made and pinned for a program if the block fails."""
    try:
        yield
    except BaseException:
        for path in loaded.pins_made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
