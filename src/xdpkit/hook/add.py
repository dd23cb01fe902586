# SPDX-License-Identifier: Apache-2.0
"""Put a program on an empty hook.

By a ``bpf_link``, the program is on the hook for as long as something holds the link: this
process's descriptor, or a pin. So a crash at any point leaves either nothing behind, or a link that
is pinned and found again. What netlink attaches stays until somebody detaches it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import HookBusy, KernelRefused, UsageError, VerifierError
from xdpkit.hook import pins as pinned
from xdpkit.hook import revert
from xdpkit.hook.holding import hearing, set_program
from xdpkit.hook.members import maps_that_need_a_holder, negotiate_members
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.repair import finish_leaving, repair
from xdpkit.hook.request import Request, Terms
from xdpkit.hook.state import HookStatus, removal
from xdpkit.hook.writing import write_record
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType

if TYPE_CHECKING:
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Negotiation
    from xdpkit.obj import ProgramSpec


class Add:
    """An attach that has been prepared: nothing is loaded or changed before :meth:`apply`.

    Attributes:
        interface: the interface as it was seen.
        mode: the mode that will be tried first.
        via: what will hold the program.
        negotiation: what came of holding the program against the interface.
        notes: what there is to know, in sentences.
    """

    def __init__(
        self,
        place: Place,
        program: ProgramSpec | Program,
        *,
        mode: Mode | str | Sequence[Mode] | None = None,
        pin: bool = True,
        via: Via | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the program against the interface.

        Raises:
            UsageError: there is no such interface, or the program is none for an interface.
            HookBusy: a program is there already.
            RequirementUnmet: the interface cannot do what the program needs; or pins are
                impossible.
        """
        modes = Mode.choice(mode)
        wanted = " or ".join(each.value for each in modes)
        name = getattr(program, "name", repr(program))
        self.interface = place.resolve()
        self.what = f"attach {name} to {self.interface.name} in {wanted} mode"
        self._request = Request(
            program, self.interface, self.what, pin_root=place.pin_root, **terms
        )
        self.notes: list[str] = []
        self.via = via or self._default_via(modes[0])
        if self.via is Via.LINK and Mode.OFFLOAD in modes:
            raise UsageError(self.what, cause="no link holds a program on the NIC, only netlink")
        self._place = place
        self._pin = pin
        if pin and self.via is Via.LINK:
            self._note(place.pins.require_lasting(self.what))
        self._require_empty(place.look(), modes[0])
        self._modes = self._negotiated(modes)
        self.mode, self.negotiation = self._modes[0]

    def _default_via(self, mode: Mode) -> Via:
        if mode is Mode.OFFLOAD:
            return Via.NETLINK
        from xdpkit.probes import is_absent

        # Linux 5.9, "bpf, xdp: Add bpf_link-based XDP attachment API".
        if is_absent("bpf-link-xdp"):
            self._note("this kernel has no links for XDP (Linux 5.9): netlink holds the program")
            return Via.NETLINK
        return Via.LINK

    def _note(self, text: str | None) -> None:
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def _negotiated(self, modes: Sequence[Mode]) -> list[tuple[Mode, Negotiation]]:
        """Return the modes that the interface can serve the program in, the preferred one first.

        Raises:
            RequirementUnmet: there is none.
        """
        results = [(mode, self._request.negotiate(mode, self.via)) for mode in modes]
        allowed = [(mode, result) for mode, result in results if result.is_allowed]
        if self._request.force:
            return results
        if not allowed:
            self._request.require_allowed(results[0][1])
        for mode, result in results:
            if (mode, result) == allowed[0]:
                break
            self._note(f"not in {mode.value} mode: {result.refused[0].why}")
        return allowed

    def _require_empty(self, found: HookStatus, mode: Mode) -> None:
        """Refuse if there is a program where the new one would go.

        Raises:
            HookBusy: there is.
        """
        for attached in found.attached:
            # The NIC's hook and the software's are two; native and generic share the latter.
            shares = (attached.mode is Mode.OFFLOAD) == (mode is Mode.OFFLOAD)
            if shares and not attached.is_leaving:
                command = removal(attached, found.interface)
                raise HookBusy(
                    self.what,
                    cause=f"{found.interface.name} already has {attached.describe()}",
                    remedy=f"detach it first: {command}" if command else None,
                )

    def describe(self) -> str:
        """Return what would change, as a sentence."""
        held = "by netlink"
        if self.via is Via.LINK:
            held = "by a link"
            if self._pin:
                held += f" pinned in {self._place.pins.home_of(self.interface)}"
        return (
            f"would attach {self._request.program.name} to {self.interface.name} in"
            f" {self.mode.value} mode, {held}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": "attach",
            "program": self._request.program.name,
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "mode": self.mode.value,
            "via": self.via.value,
            "negotiation": self.negotiation.to_dict(),
            "notes": self.notes,
        }

    def apply(self, *, revert_after: float | None = None) -> XdpProg:
        """Do it.

        Args:
            revert_after: seconds after which the program is taken off again by a process that is
                left behind, unless :meth:`xdpkit.hook.Hook.confirm` is called before; for what
                is to stay (pinned, or by netlink) only.

        Raises:
            HookBusy: a program is there meanwhile.
            VerifierError: the program did not load.
            RequirementUnmet: pins are impossible.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or the driver refused.
        """
        revert.check(revert_after, self.what, stays=self._pin)
        for mode, negotiation in self._modes[:-1]:
            try:
                return self._apply_in(mode, negotiation, revert_after)
            except VerifierError:
                raise
            except KernelRefused as error:
                self._note(f"not in {mode.value} mode: {error.cause}")
        return self._apply_in(*self._modes[-1], revert_after)

    def _apply_in(
        self, mode: Mode, negotiation: Negotiation, revert_after: float | None
    ) -> XdpProg:
        request, interface, what = self._request, self.interface, self.what
        pins, home = self._place.pins, self._place.pins.home_of(self.interface)
        with contextlib.ExitStack() as resources:
            loaded = request.load(mode, resources)
            request.require_binding(loaded)
            record, note = write_record(
                loaded, request, mode, self.via, negotiation, revert_after=revert_after
            )
            self._note(note)
            revert.require_record(record, revert_after, self.what)
            kept = maps_that_need_a_holder(loaded) if self._pin else []
            if self.via is Via.NETLINK and kept:
                self._note(pins.require_lasting(what))
            link: Fd | None = None
            pin: str | None = None
            with contextlib.ExitStack() as until_held:
                until_held.enter_context(revert.guarding(interface, self._place, loaded, record))
                if self._pin and (self.via is Via.LINK or kept):
                    until_held.enter_context(pins.locked(what, create=True))
                    repair(interface, pins, what)
                    pins.vacate(interface, what)
                    program = loaded if self.via is Via.NETLINK and kept else None
                    until_held.enter_context(pins.keeping(kept, home, what, program=program))
                else:
                    finish_leaving(interface, pins, what)
                if self.via is Via.LINK:
                    link = until_held.enter_context(self._link(loaded, mode))
                    if self._pin:
                        pin = pinned.pin_link(link, home, what)
                    link = Fd(link.detach())
                else:
                    self._set(loaded, mode)
            members = contextlib.ExitStack()
            if not request.force:
                members.enter_context(
                    negotiate_members(loaded.maps, interface, mode, request.policy)
                )
            return XdpProg(
                place=self._place,
                interface=interface,
                mode=mode,
                via=self.via,
                program=loaded,
                link=link,
                negotiation=negotiation,
                record=record,
                pinned=pin,
                is_for_a_block=not self._pin,
                members=members,
                resources=resources.pop_all(),
                notes=tuple(self.notes),
            )

    def _link(self, loaded: Program, mode: Mode) -> Fd:
        with (
            self._occupied(mode),
            hearing(self.interface, mode, "attach", self.what),
            netns.entered(self.interface.netns),
        ):
            return bpf.link_create(
                loaded.fileno(),
                self.interface.index,
                AttachType.XDP,
                mode.flag,
                what=self.what,
            )

    def _set(self, loaded: Program, mode: Mode) -> None:
        with self._occupied(mode):
            set_program(
                self.interface,
                mode,
                loaded.fileno(),
                None,
                self.what,
                verb="attach",
                if_empty=True,
            )

    @contextlib.contextmanager
    def _occupied(self, mode: Mode) -> Iterator[None]:
        """Say who is there, where the kernel refuses because somebody is."""
        try:
            yield
        except KernelRefused as error:
            if error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL):
                with contextlib.suppress(UsageError):
                    self._require_empty(self._place.look(), mode)
            raise
