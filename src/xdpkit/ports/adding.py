# SPDX-License-Identifier: Apache-2.0
"""An interface becomes a port.

First everything is checked that can be checked without a change. Then the record says what is to
be, what is to be prepared included; then that is made so. So whatever a killed command has left
undone, the next one does; and a command that fails puts everything back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.interfaces import Interface, XdpIds, resolve
from xdpkit.ports import members, seeing
from xdpkit.ports.following import follow
from xdpkit.ports.using import maps_for, require_same_frags
from xdpkit.tables.frags import frags_of
from xdpkit.tables.model import Identity, Port, Table
from xdpkit.tables.store import Store
from xdpkit.uapi.bpf import AttachType

if TYPE_CHECKING:
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Policy
    from xdpkit.obj import ProgramSpec
    from xdpkit.tables.model import Preparation

Prepare = bool | Literal["gro", "program"]


@dataclass(frozen=True, slots=True)
class Addition:
    """An interface that is to become a port; see :meth:`xdpkit.PortTable.add`."""

    iface: str | int
    netns: str | None
    number: int | None
    name: str | None
    egress: ProgramSpec | Program | None
    prepare: Prepare
    policy: Policy | str | None
    force: bool

    def apply(self, store: Store, what: str) -> Port:
        """Add it. Under the lock; ``what`` is what is being tried, for errors."""
        followed = follow(store, thorough=False)
        table = store.read()
        identity = seeing.identify(self.iface, self.netns)
        there = [
            (port, port.interface)
            for port in table.ports
            if port.interface is not None and port.number in followed.there
        ]
        for port, each in there:
            if each.place == identity.place:
                raise UsageError(
                    what,
                    cause=f"it is port {port.number} ({port.name}) already",
                    remedy=f"to give it another name: xdpkit ports rename {table.name} {port.name}"
                    " NAME; another number: remove it first, with --free",
                )
        number, name = members.choose(
            table, identity.name, number=self.number, name=self.name, what=what
        )
        interface = resolve(identity.ifindex, netns=self.netns)
        others = tuple(_interface(each, followed.places[each.netns_cookie]) for _, each in there)
        planned = self._negotiate(store, interface, others, what)
        with contextlib.ExitStack() as resources:
            program = self._load(store, number, what, resources)
            if program is not None:
                self._require_egress(store, program, interface, number, what)
            port = Port(number, name, identity, None if program is None else program.name, planned)
            with _putting_back(store, table, planned):
                self._make(store, table, port, program, interface, others, what)
        return port

    def _make(
        self,
        store: Store,
        table: Table,
        port: Port,
        program: Program | None,
        interface: Interface,
        others: tuple[Interface, ...],
        what: str,
    ) -> None:
        from xdpkit.ports import preparing

        if program is not None:
            store.pin_egress(port.number, program)
        store.write(members.with_port(table, port))
        for preparation in port.prepared:
            preparing.apply(preparation, pin_root=store.pin_root)
        if port.prepared:
            self._require_fit(store, interface, others, what)
        followed = follow(store)
        if port.number in followed.refused:
            raise followed.refused[port.number]
        if port.number not in followed.there:
            raise UsageError(what, cause="the interface has gone meanwhile")

    def _negotiate(
        self, store: Store, interface: Interface, others: tuple[Interface, ...], what: str
    ) -> tuple[Preparation, ...]:
        """Return what is to be prepared; refuse an interface that then still cannot be a port."""
        if not self.prepare:
            if not self.force:
                self._require_fit(store, interface, others, what)
            return ()
        from xdpkit.ports import fitness, preparing

        verdicts = fitness.negotiate(
            interface, others=others, frags=bool(frags_of(store.ports)), policy=self.policy
        )
        planned = preparing.plan(interface, verdicts, self.prepare)
        if not planned:
            fitness.require(verdicts, what, policy=self.policy, force=self.force)
        return planned

    def _require_fit(
        self, store: Store, interface: Interface, others: tuple[Interface, ...], what: str
    ) -> None:
        from xdpkit.ports import fitness

        verdicts = fitness.negotiate(
            interface, others=others, frags=bool(frags_of(store.ports)), policy=self.policy
        )
        fitness.require(verdicts, what, policy=self.policy, force=self.force)

    # The egress program

    def _load(
        self, store: Store, number: int, what: str, resources: contextlib.ExitStack
    ) -> Program | None:
        """Return the program, loaded if it was not yet; then it closes with the resources."""
        if self.egress is None:
            return None
        from xdpkit import kernel
        from xdpkit.kernel.context import Context
        from xdpkit.obj import ProgramSpec

        if isinstance(self.egress, kernel.Program):
            return self.egress
        if not isinstance(self.egress, ProgramSpec):
            raise UsageError(
                what, cause="the egress program is none: give one of an object's, or a loaded one"
            )
        _require_for_devmaps(self.egress, what)
        require_same_frags(store, self.egress, what)
        return resources.enter_context(
            kernel.load(
                self.egress,
                maps=maps_for(store, self.egress),
                pin_root=store.pin_root,
                context=Context(port_index=number),
            )
        )

    def _require_egress(
        self, store: Store, program: Program, interface: Interface, number: int, what: str
    ) -> None:
        """Refuse a program that would not do, or know, what it is to at this port."""
        if program.spec is not None:
            _require_for_devmaps(program.spec, what)
            require_same_frags(store, program.spec, what)
        given = program.context
        if given is not None and "port_index" in given.fields:
            own = given.port_index == number or given.numbers == store.numbers.id
            if not own:
                raise RequirementUnmet(
                    what,
                    cause=f"{program.name} was loaded for another port or table, and reads"
                    " port_index",
                    remedy="give it as it is in the object file, and it is loaded for this port",
                )
        if not self.force:
            _negotiate_egress(store, program, interface, self.policy)


def _negotiate_egress(
    store: Store, program: Program, interface: Interface, policy: Policy | str | None
) -> None:
    from xdpkit.hook.check import policy_of
    from xdpkit.hook.members import negotiate_members
    from xdpkit.hook.mode import Mode
    from xdpkit.kernel.mapvalues import DevmapValue

    maps = {"the port": store.ports}
    with negotiate_members(maps, interface, Mode.NATIVE, policy_of(policy)):
        for vet in tuple(store.ports.vets):
            vet(DevmapValue(interface.index, program))


def _require_for_devmaps(spec: ProgramSpec, what: str) -> None:
    if spec.attach_type != AttachType.XDP_DEVMAP:
        raise UsageError(
            what,
            cause=f"{spec.name} is no program for what is sent: its section is {spec.section}",
            remedy='SEC("xdp/devmap")',
        )


@contextlib.contextmanager
def _putting_back(store: Store, table: Table, planned: tuple[Preparation, ...]) -> Iterator[None]:
    """If the block fails, have the table be as it was, and undo what was prepared."""
    try:
        yield
    except BaseException:
        from xdpkit.ports import preparing

        with contextlib.ExitStack() as every:
            for preparation in planned:
                every.callback(preparing.undo, preparation, pin_root=store.pin_root)
            every.callback(follow, store)
            every.callback(store.write, table)
        raise


def _interface(identity: Identity, place: str | None) -> Interface:
    """Return an interface by which a port's is found; nothing else is asked of it."""
    return Interface(
        index=identity.ifindex,
        name=identity.name,
        netns=place,
        netns_cookie=identity.netns_cookie,
        driver=None,
        kind=identity.kind or None,
        mtu=0,
        rx_queues=0,
        tx_queues=0,
        xdp=XdpIds(),
    )
