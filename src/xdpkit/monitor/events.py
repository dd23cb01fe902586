# SPDX-License-Identifier: Apache-2.0
"""Every packet that goes wrong, one by one: what ``xdpkit events`` shows.

Tracepoints tell of all XDP programs of the machine, but neither the queue nor the packet. So the
programs of interfaces that were named are tapped, too (:mod:`xdpkit.hook.taps`): they tell that
themselves, and the tracepoint then keeps quiet about the same packet.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError
from xdpkit.hook import Hook, status
from xdpkit.interfaces import Interface, resolve
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.monitor.allowance import Allowance
from xdpkit.monitor.limits import DEFAULT_RATE, DEFAULT_SNAPLEN, MAX_RATE, MAX_SNAPLEN
from xdpkit.monitor.places import Places
from xdpkit.monitor.record import ACTIONS
from xdpkit.monitor.report import Known, Report, Reporter
from xdpkit.monitor.ring import DEFAULT_SIZE, Ring
from xdpkit.monitor.tracing import Filter, Tracing
from xdpkit.monitor.watched import Watched, ids_of, known_programs
from xdpkit.syscalls import privilege
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.hook.state import HookStatus
    from xdpkit.hook.taps import Tapped

TAPPED_ACTIONS = frozenset({"aborted", "invalid"})
"""What a program returns that has failed itself: of these, taps tell."""

# How often credit is granted, and how often is looked whether anything changed.
_TURN = 0.1
_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Events that were only counted, since this was told last.

    Attributes:
        count: how many there was no credit for. lost: how many there was no room for.
    """

    count: int
    lost: int

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {"suppressed": self.count, "lost": self.lost}


class EventReader(Closing):
    """Reads what goes wrong: a context manager, and an iterator that does not end by itself.

    ::

        with EventReader(interfaces=["eth0"]) as reader:
            for each in reader:
                print(each)

    What is read is limited by ``rate``; what exceeds it is counted, and so is what comes while
    nobody reads. A reader that stands still, or is killed, costs no more than the counting.
    """

    def __init__(
        self,
        *,
        netns: str | None = None,
        interfaces: Collection[str | int] | None = None,
        programs: Collection[int | str] | None = None,
        actions: Collection[str] | None = None,
        rate: int = DEFAULT_RATE,
        snaplen: int = DEFAULT_SNAPLEN,
        frames: bool = True,
        transmit: bool = False,
        buffer_size: int = DEFAULT_SIZE,
        pin_root: str = DEFAULT_ROOT,
    ) -> None:
        """Begin to watch.

        Args:
            netns: name or path of a network namespace; None: that of the caller for interfaces that
                are named, else all of them.
            interfaces: names or indexes; None: all. One that goes and comes back by the same name
                is watched on.
            programs: ids, and names of which the kernel keeps 15 characters; None: all.
            actions: names of :data:`xdpkit.monitor.record.ACTIONS`; None: all.
            rate: how many events may be written in any second, on each CPU; at most
                :data:`~xdpkit.monitor.limits.MAX_RATE`.
            snaplen: bytes of a packet, where programs are tapped; at most
                :data:`~xdpkit.monitor.limits.MAX_SNAPLEN`.
            frames: tap the programs of interfaces that are named.
            transmit: tell also of frames that were lost in transmission, in bulks.
            buffer_size: of the ring buffer; a power of 2, in bytes.
            pin_root: the bpffs with the pins of programs.

        Raises:
            UsageError: there is no such namespace, interface or action, or a number makes no sense.
            RequirementUnmet: the kernel lacks what it takes.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        what = "watch events"
        _require_number("the rate", rate, 1, MAX_RATE, what)
        _require_number("the number of bytes of a packet", snaplen, 0, MAX_SNAPLEN, what)
        wanted = frozenset(ACTIONS if actions is None else actions)
        if not wanted or wanted - set(ACTIONS):
            raise UsageError(what, cause=f"actions are {', '.join(ACTIONS)}")
        privilege.require(what, (Capability.BPF, Capability.PERFMON))
        self.netns = netns
        self._allowance = Allowance(rate)
        self._programs = None if programs is None else frozenset(programs)
        self._pin_root = pin_root
        self._known: dict[int, Known] = {}
        places = Places(netns)
        self._reporter = Reporter(places, {})
        named = None if interfaces is None else _resolved(interfaces, netns)
        with ExitStack() as owned:
            self._ring = owned.enter_context(Ring(buffer_size))
            self._watching = owned.enter_context(ExitStack())
            self._looked_at = self._told_at = now = time.monotonic()
            self._told = Suppressed(0, 0)
            self._missed: int | None = None
            self._ring.grant(self._allowance, now)
            self._tracing = self._watching.enter_context(
                Tracing(
                    self._ring,
                    Filter(
                        netns=0 if netns is None and named is None else places.number,
                        by_interface=named is not None,
                        by_program=programs is not None,
                        actions=wanted,
                        transmit=transmit,
                    ),
                )
            )
            tap = self._tap(wanted & TAPPED_ACTIONS, snaplen) if frames and named else None
            self._watched = [
                self._watching.enter_context(contextlib.closing(Watched(each, pin_root, tap)))
                for each in named or ()
            ]
            self._learn()
            self._owned = owned.pop_all()

    def _tap(self, actions: frozenset[str], snaplen: int) -> Callable[[Hook], Tapped] | None:
        """Return what taps the programs on a hook, None if there is nothing that they can tell."""
        if not actions:
            return None
        from xdpkit.hook.taps import Tap

        ring = self._ring
        wanted = Tap(
            ring.ring,
            ring.credits,
            ring.spending,
            actions=actions,
            snaplen=snaplen,
            programs=self._programs,
        )
        return lambda hook: hook.tap(wanted)

    @property
    def tracepoints(self) -> tuple[str, ...]:
        """The tracepoints that are watched."""
        return self._tracing.tracepoints

    @property
    def absent(self) -> tuple[str, ...]:
        """The tracepoints that are not watched, as this kernel does not have them."""
        return self._tracing.absent

    @property
    def tapped(self) -> dict[str, tuple[str, ...]]:
        """The programs that tell themselves, with queue and packet: names, by their interface."""
        return {
            each.interface.name: tuple(each.tapped.programs.values())
            for each in self._watched
            if each.tapped is not None and each.tapped.programs
        }

    @property
    def not_tapped(self) -> tuple[str, ...]:
        """Which programs do not, and why, in sentences."""
        return tuple(sentence for each in self._watched for sentence in each.not_tapped)

    @property
    def seen(self) -> int:
        """How many events there were so far, written or not."""
        return self._ring.seen

    @property
    def suppressed(self) -> int:
        """How many events were not written so far, as there was no credit for them."""
        return self._ring.suppressed

    @property
    def lost(self) -> int:
        """How many events were not written so far, as there was no room for them."""
        return self._ring.lost + (self._tracing.missed if self._missed is None else self._missed)

    def read(self, seconds: float) -> Iterator[Report | Suppressed]:
        """Yield what there is, waiting at most so long for the first.

        How many events were suppressed or lost comes at most once a second, when there were any;
        and at last, after :meth:`stop`.
        """
        self._turn()
        end = time.monotonic() + seconds
        while not self._ring.wait(max(0.0, min(_TURN, end - time.monotonic()))):
            self._turn()
            if time.monotonic() >= end:
                break
        yield from map(self._reporter.report, self._ring.events())
        yield from self._tell()

    def __iter__(self) -> Iterator[Report | Suppressed]:
        while True:
            yield from self.read(_TURN)

    def _turn(self) -> None:
        """Grant credit for the time that has passed, and look around once in a while."""
        if self._missed is not None:
            return
        now = time.monotonic()
        self._ring.grant(self._allowance, now)
        if now - self._looked_at >= _LOOK:
            self._looked_at = now
            self._look()

    def _tell(self) -> Iterator[Suppressed]:
        now = time.monotonic()
        if now - self._told_at < _LOOK and self._missed is None:
            return
        self._told_at = now
        total = Suppressed(self.suppressed, self.lost)
        if total != self._told:
            yield Suppressed(total.count - self._told.count, total.lost - self._told.lost)
            self._told = total

    def _look(self) -> None:
        """Look which interfaces and programs there are now."""
        self._reporter.places = Places(self.netns)
        for each in self._watched:
            each.look()
        self._learn()

    def _learn(self) -> None:
        """Have the kernel's side and the reports keep up with what is there."""
        hooks: tuple[HookStatus, ...] = tuple(each.hook for each in self._watched)
        if self._watched:
            self._tracing.follow_interfaces({each.interface.index for each in self._watched})
        elif self._programs is not None:
            hooks = status(netns=self.netns, pin_root=self._pin_root)
        known = known_programs(hooks)
        for each in self._watched:
            # What programs tail-call is among them, too.
            programs = each.tapped.programs if each.tapped is not None else {}
            known |= {number: Known(number, name) for number, name in programs.items()}
        # What is in the buffer may be of those before.
        self._reporter.programs = {**self._known, **known}
        self._known = known
        if self._programs is not None:
            self._tracing.follow_programs({*self._programs, *ids_of(hooks, self._programs)})

    def stop(self) -> None:
        """Watch no longer; the programs that were tapped are as they were.

        What has happened before can still be read, so that all that was seen is either read,
        suppressed or lost. Stopping twice does nothing.
        """
        if self._missed is None:
            self._missed = self._tracing.missed
            self._watching.close()

    def close(self) -> None:
        """End it, as :meth:`stop`, and give everything back. Closing twice does nothing."""
        with self._owned:
            self.stop()


def _require_number(which: str, number: object, least: int, most: int, what: str) -> None:
    """Refuse what is no whole number in a range.

    Raises:
        UsageError: so it is.
    """
    if not isinstance(number, int) or not least <= number <= most:
        raise UsageError(
            what,
            cause=f"{which} has to be a whole number from {least:,} to {most:,}, not {number!r}",
        )


def _resolved(interfaces: Iterable[str | int], netns: str | None) -> tuple[Interface, ...]:
    """Return interfaces, each once, whichever of its names were given.

    Raises:
        UsageError: there is no such interface.
    """
    found = (resolve(each, netns=netns) for each in interfaces)
    return tuple({each.index: each for each in found}.values())
