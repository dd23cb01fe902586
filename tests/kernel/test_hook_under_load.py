# SPDX-License-Identifier: Apache-2.0
"""A program is replaced while frames arrive: each frame meets the old one or the new one.

Live frames go from one end of a veth pair to the other, where each program counts what it sees in
an array of its own. What all of them have seen is what was sent.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.kernel.compiled import assembled, read
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth
from xdpkit import Hook
from xdpkit.errors import HookBusy
from xdpkit.hook import Via, XdpProg
from xdpkit.interfaces import resolve
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Program
from xdpkit.syscalls.netns import entered

pytestmark = pytest.mark.needs("live-frames", "bpf-link-xdp")

FRAME = bytes(64)
BATCH = 64

rounds = pytest.mark.parametrize(
    ("count", "batches"), [(10, 150), pytest.param(200, 1000, marks=pytest.mark.soak)]
)
ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])


class Flow:
    """Frames that a thread of its own sends into one end of a veth pair, until it is stopped."""

    def __init__(self, program: Program, netns: str, batches: int) -> None:
        self.sent = 0
        self._program = program
        self._netns = netns
        self._frames = batches * BATCH
        self._is_stopped = False
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        with entered(self._netns):
            while not self._is_stopped:
                self._program.run(FRAME, live=True, repeat=self._frames, batch_size=BATCH)
                self.sent += self._frames

    def go_on(self) -> None:
        """Wait until frames have been sent that were not yet on their way."""
        before = self.sent
        wait_until(lambda: self.sent > before + self._frames)

    def stop(self) -> None:
        self._is_stopped = True
        self._thread.join()


@contextlib.contextmanager
def frames_into(veth: Veth, batches: int) -> Iterator[Flow]:
    """Send frames to a veth's end from the other one, during the block."""
    peer = resolve(veth.peer, netns=veth.peer_netns).index
    code = (
        asm.mov(Register.R1, peer),
        asm.mov(Register.R2, 0),
        asm.call("redirect"),
        asm.exit(),
    )
    with entered(veth.peer_netns), assembled(*code, name="sending") as program:
        flow = Flow(program, veth.peer_netns, batches)
        try:
            yield flow
        finally:
            flow.stop()


def seen_by(attached: XdpProg) -> int:
    (seen,) = attached.maps.values()
    return sum(seen[0])


def not_taken(veth: Veth) -> int:
    """Return how many frames the veth had no room for: those never were at the hook."""
    enter = ("nsenter", f"--net=/run/netns/{veth.peer_netns}")
    done = subprocess.run(
        [*enter, "ethtool", "-S", veth.peer], check=True, stdout=subprocess.PIPE, text=True
    )
    return sum(map(int, re.findall(r"tx_queue_\d+_xdp_xmit_errors: (\d+)", done.stdout)))


@rounds
@ways
def test_no_frame_passes_unseen_while_a_program_is_replaced_again_and_again(
    veth: Veth, pin_root: str, via: Via, count: int, batches: int
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    both = [read("counting").programs[name] for name in ("one", "other")]
    with contextlib.ExitStack() as open_until_counted:
        generations = [open_until_counted.enter_context(hook.add(both[0], via=via))]
        with frames_into(veth, batches) as flow:
            for number in range(1, count + 1):
                flow.go_on()
                replaced = hook.replace(both[number % 2], expected=generations[-1])
                generations.append(open_until_counted.enter_context(replaced))
            flow.go_on()
        sent = flow.sent - not_taken(veth)
        assert sent > count * batches * BATCH * 0.9

        # The last batch may still wait in the queue of the other end.
        wait_until(
            lambda: sum(map(seen_by, generations)) >= sent,
            lambda: f"of {sent} frames {sum(map(seen_by, generations))} were seen",
        )
        assert sum(map(seen_by, generations)) == sent
        assert all(map(seen_by, generations))
        hook.delete()


@ways
def test_a_replace_that_is_refused_is_not_noticed_by_any_frame(
    veth: Veth, pin_root: str, via: Via
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    one, other = (read("counting").programs[name] for name in ("one", "other"))
    with hook.add(one, via=via) as first, hook.replace(other, expected=first) as present:
        before = seen_by(first)
        with frames_into(veth, 100) as flow:
            for _ in range(5):
                flow.go_on()
                with pytest.raises(HookBusy, match=f"program {first.program.id} is expected"):
                    hook.replace(one, expected=first)
        sent = flow.sent - not_taken(veth)
        wait_until(lambda: seen_by(present) >= sent)
        assert (seen_by(first), seen_by(present)) == (before, sent)
        hook.delete(expected=present)
