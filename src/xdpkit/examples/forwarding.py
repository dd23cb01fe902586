# SPDX-License-Identifier: Apache-2.0
"""What a switch and a router have in common: ports of their own, with a program on each.

The port table is an *owned* one, and the programs are attached for a block: both go with the
process, however it ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import xdpkit
from xdpkit import ports
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.monitor.ports import PortReport, port_counts
from xdpkit.negotiation import Outcome, Verdict, refusal


@dataclass(frozen=True, slots=True)
class Setup:
    """Between which interfaces to forward, and how.

    Attributes:
        interfaces: their names; they become ports 0, 1, 2 and so on.
        table: what to call the port table.
        netns: the network namespace of the interfaces, a name or a path; None: the caller's own.
        mode: "native" or "generic".
        prepare: do what it takes for interfaces to be sent to, such as switching GRO on at the
            other end of a veth; it is undone at the end.
        pin_root: a mounted bpffs.
    """

    interfaces: tuple[str, ...]
    table: str
    netns: str | None = None
    mode: str = "native"
    prepare: bool = False
    pin_root: str = "/sys/fs/bpf"


class Forwarding:
    """Frames are forwarded for as long as the ``with`` block; then everything is put back.

    An interface that goes keeps its port. When it is there again it has the port, and the program:
    a thread watches the interfaces. Others may watch them, too, and change the ports: what counts
    is not who has seen a change, but what the table says, and what there is.

    Attributes:
        setup: what was asked for.
    """

    def __init__(self, program: xdpkit.ProgramSpec, setup: Setup) -> None:
        """Nothing is looked at or changed before the block begins.

        Args:
            program: what all ports run. Its maps are shared by all of them.
            setup: between which interfaces, and how.
        """
        self.setup = setup
        self._program = program
        self._attached: dict[int, xdpkit.XdpProg] = {}
        self._problems: set[str] = set()
        self._news: deque[str] = deque()
        self._lock = threading.Lock()
        self._owned = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begin to forward.

        Raises:
            UsageError: there is no such interface, or a table of this name.
            RequirementUnmet: an interface cannot be a port, or cannot run the program.
            HookBusy: an interface has a program already.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel or a driver refused.
        """
        setup = self.setup
        interfaces = self._check()
        with contextlib.ExitStack() as owned:
            size = len(setup.interfaces)
            self.table = owned.enter_context(
                xdpkit.PortTable.create(setup.table, size=size, owned=True, pin_root=setup.pin_root)
            )
            owned.callback(self._destroy)
            for name in setup.interfaces:
                # The table judges by native mode; in generic mode any interface transmits.
                force = setup.mode == "generic"
                self.table.add(name, netns=setup.netns, prepare=setup.prepare, force=force)
            for interface in interfaces:
                self._tell(self._as_port(interface, interfaces))
            loaded = xdpkit.load_all(
                self._program.object, programs=(), maps=self.table.maps_for(self._program)
            )
            owned.enter_context(loaded)
            self.maps = {name: each for name, each in loaded.maps.items() if _is_shared(name)}
            owned.callback(self._detach_all)
            for error in self._attach_all():
                raise error
            self._watch(owned)
            self._owned = owned.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owned.close()

    def _check(self) -> list[Interface]:
        """Look at all interfaces before anything is changed; return them.

        Raises:
            UsageError: there is no such interface.
            RequirementUnmet: an interface cannot be a port, or cannot run the program.
            HookBusy: an interface has a program already.
        """
        setup = self.setup
        interfaces = [resolve(name, netns=setup.netns) for name in setup.interfaces]
        if len({each.index for each in interfaces}) < len(interfaces):
            raise xdpkit.UsageError(
                f"forward between {len(interfaces)} interfaces", cause="some of them are the same"
            )
        for interface in interfaces:
            what = f"forward by {interface.name}"
            hook = xdpkit.Hook(interface.index, netns=setup.netns, pin_root=setup.pin_root)
            for found in hook.status().attached:
                raise xdpkit.HookBusy(
                    what,
                    cause=f"it has {found.describe()} already",
                    remedy="see what it is: xdpkit status",
                )
            negotiation = xdpkit.check(
                self._program,
                interface.index,
                mode=setup.mode,
                netns=setup.netns,
                pin_root=setup.pin_root,
            )
            # It will be a port; what it lacks to be one may be prepared.
            verdicts = [each for each in negotiation.verdicts if not _is_about_ports(each)]
            self._tell(verdicts)
            if not setup.prepare:
                verdicts += self._as_port(interface, interfaces)
            negotiation = replace(negotiation, verdicts=tuple(verdicts))
            if not negotiation.is_allowed:
                raise refusal(negotiation, what)
        return interfaces

    def _as_port(self, interface: Interface, all_of_them: list[Interface]) -> Iterable[Verdict]:
        others = [each for each in all_of_them if each != interface]
        return ports.negotiate(interface, mode=self.setup.mode, others=others)

    def _tell(self, verdicts: Iterable[Verdict]) -> None:
        """Tell which frames an interface does not forward, though it is a port."""
        for verdict in verdicts:
            if verdict.outcome is Outcome.DEGRADED:
                remedy = f"\nRemedy: {verdict.remedy}" if verdict.remedy else ""
                self._news.append(f"{verdict.device}: {verdict.why}{remedy}")

    # What happens meanwhile

    def counts(self) -> PortReport:
        """Return what is counted for the ports."""
        return port_counts([self.setup.table], netns=self.setup.netns, pin_root=self.setup.pin_root)

    def news(self) -> list[str]:
        """Return what has happened to ports since the last call, in sentences."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def refresh(self) -> None:
        """See to what no watcher announces: call it now and then."""
        with self._lock:
            self._try_to_attach()

    def _watch(self, owned: contextlib.ExitStack) -> None:
        """Have a thread follow the interfaces until the resources close."""
        watch = owned.enter_context(ports.watch([self.setup.table], pin_root=self.setup.pin_root))
        thread = threading.Thread(target=self._follow, args=(watch,), name="xdpkit-forward")
        thread.start()
        owned.callback(thread.join)
        owned.callback(watch.stop)

    def _follow(self, watch: ports.Watch) -> None:
        try:
            for change in watch:
                with self._lock:
                    self._take_in(change)
        except xdpkit.XdpkitError as error:
            self._news.append(f"interfaces are not watched any more: {error}")

    def _take_in(self, change: ports.Change) -> None:
        self._news.append(change.text)
        self._try_to_attach()

    def _try_to_attach(self) -> None:
        """Attach what is missing; what does not work is told once, and tried again later."""
        problems = {str(error) for error in self._attach_all()}
        self._news += sorted(problems - self._problems)
        self._problems = problems

    # Programs

    def ports_changed(self, table: ports.Table) -> None:
        """Take in which ports there are, before they get their program; for those who care."""

    def _attach_all(self) -> list[xdpkit.XdpkitError]:
        """Have the program on each port whose interface is there; return what did not work."""
        table = self.table.state()
        self.ports_changed(table)
        there = _there(table)
        known = {port.number: port for port in table.ports}
        errors = []
        for number in sorted(known.keys() | self._attached.keys()):
            try:
                if number in known:
                    self._keep_attached(known[number], there.get(number))
                else:
                    self._detach(number)
            except xdpkit.XdpkitError as error:
                errors.append(error)
        return errors

    def _keep_attached(self, port: ports.Port, interface: Interface | None) -> None:
        """Have the program on a port, and nowhere else.

        Raises:
            UsageError: somebody has taken the interface out of the table.
            HookBusy: it has another program.
            XdpkitError: the program could not be attached, or detached where it was.
        """
        attached = self._attached.get(port.number)
        if attached is not None and not _is_on(attached, interface):
            # Its link is none any more; or it is on an interface which is no port now.
            self._detach(port.number)
            attached = None
        if port.interface is None:
            table = self.table.name
            raise xdpkit.UsageError(
                f"forward by port {port.number} ({port.name}) of {table}",
                cause="its interface has been removed from the table",
                remedy=f"to have it back: xdpkit ports add {table} IFACE --number {port.number}",
            )
        if attached is None and interface is not None:
            self._attached[port.number] = self._attach(interface)

    def _attach(self, interface: Interface) -> xdpkit.XdpProg:
        """Put the program on a port: loaded for it, with its number as a constant."""
        return xdpkit.attach(
            interface.index,
            self._program,
            mode=self.setup.mode,
            netns=interface.netns,
            pin_root=self.setup.pin_root,
            maps=self.maps,
            ports=self.table,
        )

    def _destroy(self) -> None:
        # Somebody else may have destroyed it.
        with contextlib.suppress(xdpkit.UsageError):
            self.table.destroy(force=True)

    def _detach(self, number: int) -> None:
        attached = self._attached.pop(number, None)
        if attached is not None:
            with attached:
                pass

    def _detach_all(self) -> None:
        for number in list(self._attached):
            self._detach(number)


def _there(table: ports.Table) -> dict[int, Interface]:
    """Return the interfaces that are where the table has its ports, by number."""
    seen: dict[tuple[int, int], Interface] = {}
    for netns in {port.interface.netns for port in table.ports if port.interface is not None}:
        # A namespace may have ended.
        with contextlib.suppress(xdpkit.UsageError):
            seen |= {(each.netns_cookie, each.index): each for each in list_all(netns=netns)}
    places = {
        port.number: (port.interface.netns_cookie, port.interface.ifindex)
        for port in table.ports
        if port.interface is not None
    }
    return {number: seen[place] for number, place in places.items() if place in seen}


def _is_on(attached: xdpkit.XdpProg, interface: Interface | None) -> bool:
    """Whether a program is on an interface: one that was made anew has none."""
    if interface is None or not interface.xdp:
        return False
    on = attached.interface
    return (on.netns_cookie, on.index) == (interface.netns_cookie, interface.index)


def _is_shared(name: str) -> bool:
    """Whether a map is the program's own, and not of the table, nor of its variables."""
    return not name.startswith(("xdpkit_", "."))


def _is_about_ports(verdict: Verdict) -> bool:
    return verdict.requirement.capability.startswith(("port-", "redirect-target"))
