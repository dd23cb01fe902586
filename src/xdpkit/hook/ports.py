# SPDX-License-Identifier: Apache-2.0
"""Tables of ports and the hook: which table is meant, and what its port's programs are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from xdpkit.errors import HookBusy, UsageError
from xdpkit.kernel.folder import DEFAULT_ROOT

if TYPE_CHECKING:
    from xdpkit.hook.record import PortOf
    from xdpkit.hook.standing import Standing
    from xdpkit.hook.state import AttachedProgram
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Context, Map


class Named(Protocol):
    """What has the name of a port table: a :class:`xdpkit.PortTable`, say."""

    @property
    def name(self) -> str: ...


PortsOf = str | Named
"""A port table, or its name."""


def name_of(ports: PortsOf | None, what: str) -> str | None:
    """Return the name of the table that is meant, None where none is named.

    Raises:
        UsageError: it is no name.
    """
    name = ports if ports is None or isinstance(ports, str) else getattr(ports, "name", None)
    if ports is not None and not isinstance(name, str):
        raise UsageError(what, cause="ports= is a port table, or its name")
    return name


def context_of(
    standing: Standing | None, cookie: int, pin_root: str, resources: contextlib.ExitStack
) -> tuple[Context, Mapping[str, Map]]:
    """Return what a program is to be loaded with: its context, and the maps of its table.

    The maps are open as long as the resources: they are the loaded program's, too.

    Raises:
        UsageError: the table has gone.
        MissingPrivilege: tables are root's.
    """
    from xdpkit.context import NO_PORT
    from xdpkit.kernel import Context

    if standing is None:
        return Context(cookie=cookie), {}
    if standing.unseen is not None:
        # It may be a port all the same, and must not be told that it is none.
        raise standing.unseen
    if standing.port is None:
        # It was forced, or does without.
        return Context(port_index=NO_PORT if standing.is_told else None, cookie=cookie), {}
    from xdpkit.tables import store

    table = resources.enter_context(store.open(standing.port.table, pin_root=pin_root))
    number = standing.port.number if standing.is_told else None
    return Context(port_index=number, cookie=cookie), table.maps()


@contextlib.contextmanager
def kept(
    standing: Standing | None, interface: Interface, pin_root: str, what: str
) -> Iterator[None]:
    """Keep others from giving away the port that a program has in its instructions, meanwhile.

    Raises:
        HookBusy: the interface is that port no longer.
    """
    if standing is None or standing.port is None or not standing.is_told:
        yield
        return
    from xdpkit.hook.standing import describe
    from xdpkit.tables import store

    port = standing.port
    with store.locked(port.table, what, pin_root=pin_root):
        if port not in store.find(interface, pin_root=pin_root, table=port.table):
            raise HookBusy(
                what,
                cause=f"{interface.name} was {describe(port)}, and is not any more",
                remedy="try it again",
            )
        yield


def constant_ports(interface: Interface, *, pin_root: str = DEFAULT_ROOT) -> tuple[PortOf, ...]:
    """Return the ports that programs on an interface have in their instructions, each once.

    Those of RX queues count, and one that comes back if a change is not confirmed.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look at programs.
    """
    from xdpkit.hook.looking import examine
    from xdpkit.hook.pins import Pins

    (found,) = examine([interface], Pins(pin_root), with_members=True)
    hook = interface.netns_cookie, interface.index
    told = [port for each in (*found.attached, *found.programs) for port in _told(each, hook)]
    return tuple(dict.fromkeys(port for port in told if port.number is not None))


def _told(attached: AttachedProgram, hook: tuple[int, int]) -> Iterator[PortOf]:
    record = attached.record.record if attached.record is not None else None
    if record is None:
        return
    if record.port is not None:
        yield record.port
    if record.revert_at and record.reverts_to:
        yield from _told_before(record.reverts_to, hook)


def _told_before(number: int, hook: tuple[int, int]) -> Iterator[PortOf]:
    """Yield what a program was told that may come back, or what those were that it runs."""
    from xdpkit.hook import records, roots
    from xdpkit.hook.looking import root_of
    from xdpkit.syscalls import bpf
    from xdpkit.syscalls.bpf import ObjectKind

    root = root_of(number)
    numbers = {number}
    if root is not None:
        numbers = set(roots.members_of(root, "see which ports its programs were told").values())
    for each in sorted(numbers):
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, each)
        if descriptor is not None:
            with descriptor:
                found = records.find(descriptor.fileno(), netns_cookie=hook[0], ifindex=hook[1])
            if found is not None and found.record.port is not None:
                yield found.record.port
