# SPDX-License-Identifier: Apache-2.0
"""What was seen of the hooks and of the host, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from xdpkit.hook.mode import Mode
from xdpkit.hook.roots import ROOT
from xdpkit.hook.state import Owner, command_for
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor.complaints.complaint import ago
from xdpkit.monitor.complaints.shell import quoted, requoted
from xdpkit.monitor.model import (
    ErrorCount,
    RedirectErrorCount,
    Snapshot,
    TransmitCount,
    Where,
)
from xdpkit.syscalls.netns import nsenter

if TYPE_CHECKING:
    from xdpkit.analysis import Analysis
    from xdpkit.capabilities import Device, Finding
    from xdpkit.hook import AttachedProgram, Cleaned, HookStatus
    from xdpkit.hook.counters import CounterReport
    from xdpkit.monitor.portcounts import PortCounts, TableCounts
    from xdpkit.negotiation import Negotiation, Verdict

_KERNEL_NAME = 15  # characters of a name that the kernel keeps


@dataclass(frozen=True, slots=True)
class RedirectMap:
    """A map by which a program redirects.

    Attributes:
        id: of the map. kind: "devmap", "cpumap" or "xskmap".
        keys: those that have an entry; None: not known.
        interfaces: of a devmap, the indexes of the interfaces in it.
    """

    id: int
    kind: str
    keys: tuple[int, ...] | None
    interfaces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgArray:
    """A program array.

    Attributes:
        id: of the map. size: how many slots it has.
        filled: the slots that have a program.
        loaded_with: the slots that the object file fills; empty where that is not known.
    """

    id: int
    size: int
    filled: frozenset[int]
    loaded_with: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Code:
    """The instructions of a program that runs on a hook, by itself or tail-called.

    Attributes:
        id, name: of the program.
        analysis: of it alone: no tail call is followed. None: not to be had, for the reason in
            ``problem``.
        arrays, redirects: the maps of these kinds that it uses, by name.
    """

    id: int
    name: str
    analysis: Analysis | None
    problem: str | None = None
    arrays: Mapping[str, ProgArray] = field(default_factory=dict)
    redirects: Mapping[str, RedirectMap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """A program that serves packets of an interface.

    Attributes:
        attached: as it was seen; of several RX queues, for the first of them.
        queues: the RX queues that have it for their own; None: all, or all others.
        code: its own, then that of the programs that it can reach by tail calls.
        now: what comes of negotiating again what it needs; None: what it needs is not known.
        natively: the same for native mode, where it is attached in generic mode.
    """

    attached: AttachedProgram
    queues: tuple[int, ...] | None = None
    code: tuple[Code, ...] = ()
    now: Negotiation | None = None
    natively: Negotiation | None = None

    @property
    def name(self) -> str:
        """Its name, in full where that is known."""
        if self.attached.record is not None:
            return self.attached.record.record.program
        return self.attached.program.name or f"program {self.attached.program.id}"

    @property
    def since(self) -> datetime | None:
        """When it was attached; of one that others attached, when it was loaded."""
        if self.attached.record is not None:
            seconds = self.attached.record.record.attached_at / 1e9
            return datetime.fromtimestamp(seconds).astimezone()
        return self.attached.program.loaded_at

    @property
    def is_ours(self) -> bool:
        """Whether xdpkit attached it."""
        return self.attached.owner is Owner.XDPKIT

    @property
    def ids(self) -> frozenset[int]:
        """The ids that it has, and had when it was attached, and those of what it tail-calls."""
        reached = (each.id for each in self.code)
        return frozenset({self.attached.program.id, self.attached.logical_id, *reached})

    def may_return(self, action: int) -> bool:
        """Whether it may return something; so it is where that is not known."""
        analyses = [each.analysis for each in self.code]
        return not analyses or any(each is None or action in each.actions for each in analyses)

    @property
    def map_ids(self) -> frozenset[int]:
        """The ids of its maps, and of those by which programs redirect that it tail-calls."""
        own = (used.id for used in self.attached.program.maps or ())
        redirects = (used.id for each in self.code for used in each.redirects.values())
        return frozenset((*own, *redirects))


@dataclass(frozen=True, slots=True)
class HookFacts:
    """A hook.

    Attributes:
        status: what is on it.
        members: the programs that serve packets.
        device: what the interface offers in native mode, None where that could not be found out.
    """

    status: HookStatus
    members: tuple[Member, ...] = ()
    device: Device | None = None

    @property
    def name(self) -> str:
        """Of the interface."""
        return self.status.interface.name

    @property
    def is_generic(self) -> bool:
        """Whether programs run in the network stack here."""
        return any(each.mode is Mode.GENERIC for each in self.status.attached)

    def finding(self, capability: str) -> Finding | None:
        """Return whether the interface offers something in the mode that its programs are in."""
        if self.device is None:
            return None
        from xdpkit.capabilities import in_mode

        mode = "generic" if self.is_generic else "native"
        return in_mode(self.device, mode).finding(capability)

    def is_at(self, where: Where) -> bool:
        """Whether it is this interface's."""
        return not where.netns and where.ifindex == self.status.interface.index


def called(program: str, blamed: Sequence[Member]) -> str:
    """Return what to call a program that the kernel named, and that one of these may be."""
    if len(blamed) == 1:
        return blamed[0].name
    return "one of the programs of the RX queues" if program == ROOT else program


@dataclass(frozen=True, slots=True)
class TargetState:
    """What becomes of a redirect's target now.

    Attributes:
        device: what it offers; None: the interface is gone, or none was named.
        is_gone: whether there is no such interface any more.
        is_up: whether it is up; None: not known.
        has_entry: whether the map has an entry for the key; None: not known, or no map.
    """

    device: Device | None = None
    is_gone: bool = False
    is_up: bool | None = None
    has_entry: bool | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was seen.

    Attributes:
        snapshot: what was counted.
        at: when.
        netns: the network namespace that was asked for. pin_root: where links are pinned.
        only: the names of the interfaces that were asked for; None: all.
        hooks: those with programs, and those that were asked for.
        targets: of the redirects that failed, as they are now; by interface, map and key.
        fitness: what came of negotiating the ports' interfaces again, by table and number.
        has_jit: whether programs are compiled when they are loaded; None: not known.
        leftovers: what ``xdpkit clean`` would remove; None: not known.
        unread: by interface, the folders of readers of frames that were killed.
        is_hidden: whether pins cannot be seen from here, as in ``ip netns exec``.
        unseen: what could not be looked at, and why, in sentences.
    """

    snapshot: Snapshot
    at: datetime
    netns: str | None = None
    pin_root: str = DEFAULT_ROOT
    only: frozenset[str] | None = None
    hooks: tuple[HookFacts, ...] = ()
    targets: Mapping[tuple[int, int, int], TargetState] = field(default_factory=dict)
    fitness: Mapping[tuple[str, int], tuple[Verdict, ...]] = field(default_factory=dict)
    has_jit: bool | None = None
    leftovers: tuple[Cleaned, ...] | None = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    is_hidden: bool = False
    unseen: tuple[str, ...] = ()

    @property
    def is_whole_host(self) -> bool:
        """Whether nothing was asked for by name: what others lose matters, too."""
        return self.only is None and self.netns is None

    def hook_at(self, where: Where) -> HookFacts | None:
        """Return the hook of an interface, None where it has none that was looked at."""
        return next((hook for hook in self.hooks if hook.is_at(where)), None)

    def when(self, last_seen: int) -> datetime | None:
        """Return the time of day of a count's ``last_seen``, None where that is not known."""
        if not last_seen:
            return None
        return self.at - timedelta(seconds=self._age(last_seen))

    def is_older(self, last_seen: int, seconds: float) -> bool:
        """Whether a count's ``last_seen`` is known, and as long ago."""
        return bool(last_seen) and self._age(last_seen) >= seconds

    def seen(self, last_seen: int) -> str:
        """Return when that was, as what follows a text: ", last seen 3 h ago"; "" if not known."""
        return f", last seen {ago(self._age(last_seen))}" if last_seen else ""

    def _age(self, last_seen: int) -> float:
        return max(self.snapshot.taken_at - last_seen, 0) / 1e9

    def blamed(self, found: ErrorCount | RedirectErrorCount) -> tuple[Member, ...]:
        """Return the programs that an error may be of; none, if it is of one that has left.

        An error that was last seen before a program was attached is none of its. Copies that count
        have ids of their own, and where a root runs programs by RX queue, the kernel names the
        root.
        """
        hook = self.hook_at(found.where)
        if hook is None:
            return ()
        exact = tuple(each for each in hook.members if found.program_id in each.ids)
        if exact:
            return exact
        when = self.when(found.last_seen)
        return tuple(
            each
            for each in hook.members
            if found.program in (ROOT, each.name[:_KERNEL_NAME])
            and when is not None
            and each.since is not None
            and each.since <= when
        )

    def errors(self) -> Iterator[ErrorCount]:
        """Yield the errors of the interfaces that were asked for, without those of their ports."""
        sending = {
            (port.where.netns, port.where.ifindex)
            for _, port in self.ports()
            if port.where is not None
        }
        return (
            each
            for each in self.snapshot.tracepoints.errors
            if self.is_asked_for(each.where)
            and not (each.in_map and (each.where.netns, each.where.ifindex) in sending)
        )

    def ports(self) -> Iterator[tuple[TableCounts, PortCounts]]:
        """Yield the ports that have one of the interfaces that were asked for, with their tables.

        Tables belong to no namespace: where nothing was asked for by name, these are all.
        """
        for table in self.snapshot.tables:
            for port in table.ports:
                if port.where is not None and (self.is_whole_host or self.is_asked_for(port.where)):
                    yield table, port

    def port_at(self, where: Where) -> PortCounts | None:
        """Return the port that an interface is, None where it is none; of several tables, one."""
        return next(
            (
                port
                for table in self.snapshot.tables
                for port in table.ports
                if port.where is not None
                and (port.where.netns, port.where.ifindex) == (where.netns, where.ifindex)
            ),
            None,
        )

    def table_of(self, map_id: int) -> TableCounts | None:
        """Return the port table that a map belongs to, None where it belongs to none."""
        return next((each for each in self.snapshot.tables if map_id in each.maps), None)

    def redirect_errors(self) -> Iterator[RedirectErrorCount]:
        """Yield the redirect errors of the interfaces that were asked for."""
        found = self.snapshot.tracepoints.redirect_errors
        return (each for each in found if self.is_asked_for(each.where))

    def not_sent_back(self, ifindex: int) -> Iterator[TransmitCount]:
        """Yield what an interface did not transmit of what came in by it (XDP_TX)."""
        return (
            each
            for each in self.snapshot.tracepoints.transmits
            if each.source is None
            and each.dropped
            and (each.where.netns, each.where.ifindex) == ("", ifindex)
        )

    def uses(self, map_id: int) -> bool:
        """Whether a program that was looked at has a map."""
        return any(map_id in member.map_ids for hook in self.hooks for member in hook.members)

    def report_of(self, hook: HookFacts) -> CounterReport | None:
        """Return what the programs of a hook have returned, None where it was not read."""
        index = hook.status.interface.index
        reports = self.snapshot.returned
        return next((each for each in reports if each.interface.index == index), None)

    def is_asked_for(self, where: Where) -> bool:
        """Whether an interface is one of those that were asked for."""
        return not where.netns and (self.only is None or where.interface in self.only)

    def command(self, verb: str, hook: HookFacts, *options: str) -> str:
        """Return the command of xdpkit's that does something to an interface, for a shell."""
        *group, last = verb.split()
        text = command_for(last, hook.status.interface, *options, pin_root=self.pin_root)
        return requoted(text).replace("xdpkit", " ".join(["xdpkit", *group]), 1)

    def host_command(self, verb: str, *options: str) -> str:
        """Return the command of xdpkit's that does something to no interface, for a shell."""
        words = ["xdpkit", *verb.split(), *options]
        if self.pin_root != DEFAULT_ROOT:
            words += ["--pin-root", self.pin_root]
        return " ".join(map(quoted, words))

    def ip_link_set(self, interface: str, *options: str) -> str:
        """Return the command of iproute2 that sets something of an interface, for a shell."""
        command = " ".join(map(quoted, ("ip", "link", "set", "dev", interface, *options)))
        enter = requoted(nsenter(self.netns))
        return f"{enter} {command}" if enter else command
