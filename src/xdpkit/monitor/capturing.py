# SPDX-License-Identifier: Apache-2.0
"""Frames of an interface with what the program returned for each, dropped ones among them.

While somebody captures, the programs on the hook are copies that write what they return, and what
the frame begins with, into a ring buffer (:mod:`xdpkit.hook.taps`). They never wait: what there is
no room for is counted, so the number of frames that are missing is always known.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from xdpkit.errors import RequirementUnmet, printable
from xdpkit.hook.taps import Tap
from xdpkit.monitor.pcapng import Writer, wall_clock
from xdpkit.monitor.record import Event
from xdpkit.monitor.ring import Ring
from xdpkit.monitor.words import returned_number
from xdpkit.rewrite import COUNTED, require_sense
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.bpf import XdpAction

if TYPE_CHECKING:
    from xdpkit.hook import Hook
    from xdpkit.interfaces import Interface

DEFAULT_SNAPLEN = 256
DEFAULT_BUFFER = 8 << 20
"""Bytes of the ring buffer: some 23,000 frames of the default length."""

_GRANT_EVERY = 256  # frames
_LOOK_EVERY = 1.0
"""Seconds after which is looked whether other programs are on the hook."""


class Capture(Closing):
    """Captures frames: a context manager, which gives the interface its plain programs back.

    ::

        with Capture(Hook("eth0"), actions={"drop"}) as capture:
            while capture.wait(1.0):
                for frame in capture.frames():
                    print(frame.action_name, frame.queue, frame.data.hex())

    Attributes:
        interface: whose frames. sample: 1 in so many is captured. snaplen: so many bytes of each.
        started: when it began, in nanoseconds since 1970.
    """

    def __init__(
        self,
        hook: Hook,
        *,
        actions: Collection[str] = COUNTED,
        sample: int = 1,
        snaplen: int = DEFAULT_SNAPLEN,
        buffer: int = DEFAULT_BUFFER,
    ) -> None:
        """Begin to capture.

        Args:
            hook: where. actions: what was returned for them: names of :data:`.rewrite.COUNTED`.
            sample: capture 1 in so many of the frames with these actions.
            snaplen: how many bytes of a frame are captured, as the program left them.
            buffer: size of the ring buffer in bytes, a power of 2.

        Raises:
            UsageError: there is no such interface or action, or a number makes no sense.
            RequirementUnmet: no program on the hook can be captured from; or the kernel lacks what
                it takes.
            MissingPrivilege: it takes CAP_SYS_ADMIN.
            KernelRefused: the kernel refused otherwise.
        """
        wanted = frozenset(actions)
        require_sense(wanted, snaplen, sample, "capture frames")
        self.sample = sample
        self.snaplen = snaplen
        with ExitStack() as owned:
            self._ring = owned.enter_context(Ring(buffer))
            # Before there is a frame: what finds no credit counts as lost.
            self._ring.grant_room(snaplen)
            tap = Tap(
                ring=self._ring.ring,
                credits=self._ring.credits,
                spending=self._ring.spending,
                actions=wanted,
                snaplen=snaplen,
                sample=sample,
            )
            self._tapped = owned.enter_context(hook.tap(tap))
            self.interface: Interface = self._tapped.interface
            if not self._tapped.programs:
                raise RequirementUnmet(
                    f"capture frames of {self.interface.name}",
                    cause="; ".join(self._tapped.not_tapped) or "there is no program on its hook",
                )
            self._owned = owned.pop_all()
        # Asked for once, so that frames keep their distances.
        self._since_1970 = wall_clock()
        self.started = self._since_1970 + time.monotonic_ns()
        self._names = dict(self._tapped.programs)
        self._looked_at = time.monotonic()
        self._is_stopped = False

    @property
    def programs(self) -> Mapping[int, str]:
        """The programs that are captured from: names by id."""
        return self._tapped.programs

    @property
    def not_tapped(self) -> tuple[str, ...]:
        """Which programs are not captured from, and why, in sentences."""
        return self._tapped.not_tapped

    @property
    def seen(self) -> int:
        """How many frames there were so far for which the programs returned such an action."""
        return self._ring.seen

    @property
    def lost(self) -> int:
        """How many frames could not be captured so far, as the buffer was full."""
        return self._ring.lost + self._ring.suppressed

    def program_of(self, frame: Event) -> str:
        """Return the name of the program that returned the action."""
        return self._names.get(frame.program) or frame.program_name

    def time_of(self, frame: Event) -> int:
        """Return when a frame came in, in nanoseconds since 1970."""
        return self._since_1970 + frame.time

    def wait(self, seconds: float) -> bool:
        """Wait until there are frames to be read, at most so long; return whether there are."""
        return self._ring.wait(seconds)

    def frames(self) -> Iterator[Event]:
        """Yield the frames that are there now, of each CPU in their order.

        About once a second it looks for programs that came meanwhile, and captures from them, too;
        after the frames, so that these are had in any case.

        Raises:
            UsageError: the interface is gone.
        """
        for number, frame in enumerate(self._ring.events()):
            if number % _GRANT_EVERY == 0:
                self._grant()
            yield frame
        self._grant()
        if not self._is_stopped and time.monotonic() - self._looked_at >= _LOOK_EVERY:
            self._looked_at = time.monotonic()
            if self._tapped.refresh():
                self._names.update(self._tapped.programs)

    def _grant(self) -> None:
        if not self._is_stopped:
            self._ring.grant_room(self.snaplen)

    def stop(self) -> None:
        """Put the plain programs back; frames that were captured can still be read.

        Stopping twice does nothing.
        """
        self._is_stopped = True
        self._tapped.close()

    def close(self) -> None:
        """Put the plain programs back and let go of all frames; closing twice does nothing."""
        self._owned.close()


class Recorder:
    """Writes the frames of a capture into a file: pcapng, see :mod:`xdpkit.monitor.pcapng`."""

    def __init__(self, file: BinaryIO, capture: Capture, *, application: str = "xdpkit") -> None:
        """Begin the file, which stays the caller's.

        Args:
            file: opened for writing bytes. capture: what is written. application: by whom.

        Raises:
            KernelRefused, BrokenPipeError: as of :class:`~xdpkit.monitor.pcapng.Writer`.
        """
        self._capture = capture
        self._lost = self._missing = 0
        self._writer = Writer(file, application=application)
        chosen = f", 1 in {capture.sample}" if capture.sample > 1 else ""
        self._interface = self._writer.interface(
            capture.interface.name,
            description=f"frames as XDP programs left them{chosen}",
            snaplen=capture.snaplen,
        )

    def write(self, frames: Iterable[Event]) -> None:
        """Write frames, those that are there now."""
        for frame in frames:
            self._writer.packet(
                self._interface,
                self._capture.time_of(frame),
                frame.data,
                length=frame.length,
                comment=f"{printable(self._capture.program_of(frame))}: {verdict(frame)}",
                queue=frame.queue,
                verdict=frame.action,
                lost=self._missing or None,
            )
            self._missing = 0
        # There was no room because of the frames that have just been read: what was lost comes
        # behind them.
        lost = self._capture.lost
        self._missing += lost - self._lost
        self._lost = lost

    def flush(self) -> None:
        """Hand what was written to the file."""
        self._writer.flush()

    def finish(self) -> None:
        """Write how many frames there were, and how many were lost, and flush."""
        self._writer.statistics(
            self._interface,
            wall_clock() + time.monotonic_ns(),
            started=self._capture.started,
            received=self._capture.seen,
            lost=self._capture.lost,
        )
        self._writer.flush()


def verdict(frame: Event) -> str:
    """Return what was returned for a frame: ``XDP_DROP``, or the number that is no action."""
    try:
        return XdpAction(frame.action).kernel_name
    except ValueError:
        return f"{returned_number(frame.action)}, which is no action"
