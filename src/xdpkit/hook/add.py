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
from xdpkit.hook import revert, scope
from xdpkit.hook.holding import as_held, exchanged, hearing, set_program
from xdpkit.hook.inherited import Inheritance
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.placing import Coming
from xdpkit.hook.repair import finish_leaving, repair
from xdpkit.hook.request import Request, Terms
from xdpkit.hook.rooting import (
    new_root,
    note_on_idle_queues,
    note_on_tail_calls,
    require_unbound,
)
from xdpkit.hook.scope import Scope
from xdpkit.hook.state import HookStatus, removal
from xdpkit.hook.unread import ends_unread
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.syscalls import bpf, netns, privilege
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Negotiation
    from xdpkit.obj import ProgramSpec

_NOT_BY_QUEUE = {
    True: "a program on the NIC is for all queues",
    False: "a program for a block only is for all queues",
}


class Add:
    """An attach that has been prepared: nothing is loaded or changed before :meth:`apply`.

    Attributes:
        interface: the interface as it was seen.
        mode: the mode that will be tried first.
        via: what will hold the program then.
        negotiation: what came of holding the program against the interface.
        notes: what there is to know, in sentences.
    """

    def __init__(
        self,
        place: Place,
        program: ProgramSpec | Program,
        *,
        mode: Mode | str | Sequence[Mode | str] | None = None,
        pin: bool = True,
        via: Via | str | None = None,
        queues: Scope = None,
        found: HookStatus | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        """Look at the hook, and hold the program against the interface.

        Args:
            found: the hook as it was seen just before.
            queues: the RX queues that the program is for; None: all.

        Raises:
            UsageError: there is no such interface, it has no such queue, or the program is none
                for an interface.
            HookBusy: a program is there already.
            RequirementUnmet: the interface cannot do what the program needs; or pins are
                impossible.
        """
        modes = Mode.choice(mode)
        wanted = " or ".join(each.value for each in modes)
        name = getattr(program, "name", repr(program))
        self.interface = found.interface if found is not None else place.resolve()
        self.what = f"attach {name} to {self.interface.name} in {wanted} mode"
        if queues is not None:
            self.what += f" for {scope.describe(queues)}"
            scope.require(queues, self.interface, self.what)
            privilege.require(self.what, (Capability.SYS_ADMIN,))
            if not pin or Mode.OFFLOAD in modes:
                raise UsageError(self.what, cause=_NOT_BY_QUEUE[pin])
        self.queues = queues
        self._request = Request(
            program, self.interface, self.what, pin_root=place.pin_root, **terms
        )
        self.notes: list[str] = []
        self._place = place
        self._pin = pin
        self._keeps_maps = pin and (queues is not None or self._request.needs_pins())
        tries = [(each, self._via_for(each, via)) for each in modes]
        self._require_pins([way for _, way in tries])
        found = place.look_again(self.interface)
        self._require_empty(found, modes[0])
        self._tries = self._negotiated(tries)
        self.mode, self.via, self.negotiation = self._tries[0]
        self._require_empty(found, self.mode)
        self._note(note_on_idle_queues(queues, self.interface))

    def _via_for(self, mode: Mode, wanted: Via | str | None) -> Via:
        """Return what is to hold the program in a mode.

        Raises:
            UsageError: what is wanted cannot, or is nothing.
        """
        via = Via.parse(wanted) if wanted is not None else None
        if mode is Mode.OFFLOAD:
            if via is Via.LINK:
                raise UsageError(
                    self.what, cause="no link holds a program on the NIC, only netlink"
                )
            return Via.NETLINK
        if via is not None:
            return via
        from xdpkit.probes import is_absent

        # Linux 5.9, "bpf, xdp: Add bpf_link-based XDP attachment API".
        if is_absent("bpf-link-xdp"):
            self._note("this kernel has no links for XDP (Linux 5.9): netlink holds the program")
            return Via.NETLINK
        return Via.LINK

    def _note(self, text: str | None) -> None:
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def _require_pins(self, ways: Sequence[Via]) -> None:
        """Refuse if pins are needed and impossible.

        Raises:
            RequirementUnmet: so it is.
            MissingPrivilege: the place for pins is another user's.
        """
        by_link = Via.LINK in ways
        if self._pin and (by_link or self._keeps_maps):
            # Maps that have to be kept are pinned beside what netlink holds, too.
            can_do_without = not self._keeps_maps
            self._note(self._place.pins.require_lasting(self.what, alternative=can_do_without))

    def _negotiated(self, tries: Sequence[tuple[Mode, Via]]) -> list[tuple[Mode, Via, Negotiation]]:
        """Return the modes that the interface can serve the program in, the preferred one first.

        Raises:
            RequirementUnmet: there is none.
        """
        results = [(mode, via, self._request.negotiate(mode, via)) for mode, via in tries]
        allowed = [each for each in results if each[2].is_allowed]
        self._request.require_allowed((allowed or results)[0][2])
        self._note(self._request.note_on_port())
        if self._request.force:
            return results
        for mode, _, result in results[: results.index(allowed[0])]:
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
                if self.queues is not None and attached.root is not None:
                    # Another process has been as quick, for other queues perhaps.
                    raise exchanged(self.what, found.interface)
                present = as_held(attached, found.interface, self.what)
                command = removal(present, found.interface)
                raise HookBusy(
                    self.what,
                    cause=f"{found.interface.name} already has {present.describe()}",
                    remedy=f"detach it first: {command}" if command else None,
                )

    def describe(self) -> str:
        """Return what would change, as a sentence."""
        held = "by netlink"
        if self.via is Via.LINK:
            held = "by a link"
            if self._pin:
                held += f" pinned in {self._place.pins.home_of(self.interface)}"
        queues = f" for {scope.describe(self.queues)}" if self.queues is not None else ""
        return (
            f"would attach {self._request.program.name} to {self.interface.name} in"
            f" {self.mode.value} mode{queues}{self._request.as_port()}, {held}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON."""
        return {
            "change": "attach",
            "program": self._request.program.name,
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "queues": None if self.queues is None else sorted(self.queues),
            "mode": self.mode.value,
            "via": self.via.value,
            "port": port.to_dict() if (port := self._request.port) else None,
            "negotiation": self.negotiation.to_dict(),
            "notes": self.notes,
        }

    def check_revert(self, revert_after: float | None) -> None:
        """Refuse a time after which it could not be undone.

        Raises:
            UsageError: it makes no sense, or the program is attached for a block only.
            MissingPrivilege: undoing takes CAP_SYS_ADMIN.
        """
        revert.check(revert_after, self.what, stays=self._pin)

    @ends_unread
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
        self.check_revert(revert_after)
        refused: list[KernelRefused] = []
        for mode, via, negotiation in self._tries:
            try:
                return self._apply_in(mode, via, negotiation, revert_after)
            except _ModeRefused as refusal:
                refused.append(refusal.error)
                self._note(f"not in {mode.value} mode: {refusal.error.cause}")
        raise refused[-1]

    def _apply_in(
        self, mode: Mode, via: Via, negotiation: Negotiation, revert_after: float | None
    ) -> XdpProg:
        request = self._request
        with contextlib.ExitStack() as resources:
            # What is for the NIC is loaded by its driver.
            with _of_the_mode() if mode is Mode.OFFLOAD else contextlib.nullcontext():
                loaded = request.load(mode, resources)
            request.require_binding(loaded)
            inherited = Inheritance.of(self._place, self.interface)
            arriving = inherited.take_in(
                loaded,
                request,
                mode,
                via,
                negotiation,
                resources,
                queues=self.queues,
                keeps_maps=self._keeps_maps,
                note=self._note,
                # What is undone is what is on the hook: the root.
                revert_after=revert_after if self.queues is None else None,
            )
            with contextlib.ExitStack() as during:
                during.enter_context(arriving.forgotten_if_it_fails())
                coming = arriving
                if self.queues is not None:
                    require_unbound(loaded, self.what)
                    self._note(note_on_tail_calls(loaded))
                    coming = during.enter_context(
                        new_root(
                            self.interface,
                            mode,
                            via,
                            dict.fromkeys(self.queues, arriving.program),
                            self.what,
                            runs=(arriving,),
                            revert_after=revert_after,
                        )
                    )
                revert.require_record(coming.record, revert_after, self.what)
                during.enter_context(request.port_kept())
                link, pin = self._put(coming, inherited, mode, via)
            members = contextlib.ExitStack()
            members.enter_context(request.members_held(loaded, mode))
            return XdpProg(
                place=self._place,
                interface=self.interface,
                mode=mode,
                via=via,
                program=arriving.program,
                link=link,
                negotiation=negotiation,
                record=arriving.record,
                pinned=pin,
                is_for_a_block=not self._pin,
                queues=self.queues,
                members=members,
                resources=resources.pop_all(),
                notes=tuple(self.notes),
            )

    def _put(
        self, coming: Coming, inherited: Inheritance, mode: Mode, via: Via
    ) -> tuple[Fd | None, str | None]:
        """Put the loaded program on the hook; return its link and where that is pinned."""
        what, pins, home = self.what, self._place.pins, self._place.pins.home_of(self.interface)
        loaded = coming.program
        with contextlib.ExitStack() as during:
            needs_pins = self._pin and (via is Via.LINK or coming.needs_pins)
            # What netlink holds, or a block, does without pins; there may be some all the same.
            has_pins = during.enter_context(
                pins.locked(what, create=needs_pins, lenient=not needs_pins)
            )
            inherited.require_unchanged(what)
            interface = self._place.resolve_again(self.interface)
            found = (repair if has_pins else finish_leaving)(interface, pins, what)
            self._require_empty(found, mode)
            if needs_pins:
                pins.vacate(interface, what)
                holder = via is Via.NETLINK
                during.enter_context(coming.pinned(pins, home, what, holder=holder))
            during.enter_context(
                revert.guarding(self.interface, self._place, loaded, coming.record)
            )
            if via is Via.NETLINK:
                self._set(loaded, mode)
                return None, None
            link = during.enter_context(self._link(loaded, mode))
            pin = pinned.pin_link(link, home, what) if self._pin else None
            return Fd(link.detach()), pin

    def _link(self, loaded: Program, mode: Mode) -> Fd:
        with (
            _of_the_mode(),
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
        with _of_the_mode(), self._occupied(mode):
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
                    self._require_empty(self._place.look_again(self.interface), mode)
            raise


class _ModeRefused(Exception):
    """The kernel or the driver refused the program in one mode; another may be possible."""

    def __init__(self, error: KernelRefused) -> None:
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def _of_the_mode() -> Iterator[None]:
    """Tell what is refused in the block, because of the mode, from all other failures."""
    try:
        yield
    except VerifierError:
        raise
    except KernelRefused as error:
        raise _ModeRefused(error) from error
