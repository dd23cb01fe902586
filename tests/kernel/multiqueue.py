# SPDX-License-Identifier: Apache-2.0
"""Frames into a chosen RX queue of a veth, and programs that tell which frames they saw.

A frame that is sent into one end of a veth pair arrives at the other one in the RX queue that has
the number of the TX queue it was sent by (``veth_xmit()`` in drivers/net/veth.c). The sender names
that queue by the mark of its socket, and a classifier on the way out makes it the frame's queue.
That takes no more than clsact and a BPF classifier (Linux 5.1, 74e31ca850c1 "bpf: add
skb->queue_mapping write access from tc clsact"), and reaches any queue from any CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import pytest

from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, rtnetlink
from xdpkit import Hook
from xdpkit.hook import AttachedProgram
from xdpkit.interfaces import resolve
from xdpkit.isa import asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.kernel import Map, Program
from xdpkit.kernel.image import Image, MapReference
from xdpkit.kernel.reload import load_image
from xdpkit.probes.ask import machine_code
from xdpkit.rewrite import NoProgram
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.attr import XdpMd
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType, XdpAction
from xdpkit.uapi.ethtool import SIOCETHTOOL, EthtoolCommand

ROOT = "xdpkit_root"

# An EtherType for local experiments (IEEE 802), so that only our own frames are counted.
_ETHERTYPE = 0x88B5
_FRAME = bytes(12) + _ETHERTYPE.to_bytes(2, "big") + bytes(50)

# include/uapi/asm-generic/socket.h, include/uapi/linux/if_packet.h; struct tpacket_stats.
_SO_MARK = 36
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_STATISTICS = struct.Struct("=II")

# struct __sk_buff in include/uapi/linux/bpf.h; where clsact has what goes out.
_SKB_MARK, _SKB_QUEUE_MAPPING = 8, 12
_EGRESS = "ffff:fff3"

# include/uapi/linux/ethtool.h: struct ethtool_channels, ETHTOOL_SCHANNELS; struct ifreq.
_CHANNELS = struct.Struct("=9I")
_SET_CHANNELS = 0x3D
_IFREQ = struct.Struct("@16sP16x")

_COUNT = struct.Struct("=Q")


class Line:
    """A veth pair into which frames are sent by the RX queue that they are to arrive in.

    Attributes:
        sent: how many frames were sent.
    """

    def __init__(
        self, veth: Veth, sender: socket.socket, receiver: socket.socket, *, generic: bool
    ) -> None:
        self.sent = 0
        # In generic mode the number of the TX queue is taken for one that begins with 1:
        # netif_get_rxqueue() in net/core/dev.c.
        self._first = 1 if generic else 0
        self._veth = veth
        self._sender = sender
        self._receiver = receiver
        self._passed = 0

    def send(self, queue: int, count: int = 1) -> None:
        """Send frames of 64 bytes that arrive in a queue."""
        self._sender.setsockopt(socket.SOL_SOCKET, _SO_MARK, queue + self._first)
        for _ in range(count):
            self._sender.send(_FRAME)
            self.sent += 1

    def passed(self) -> int:
        """Return how many frames have passed the hook so far, as the receiving end counts them."""
        # Each answer begins anew, and counts what there was no room for, too.
        answer = self._receiver.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self._passed += _STATISTICS.unpack(answer)[0]
        return self._passed

    def not_taken(self) -> int:
        """Return how many frames the veth had no room for: those never were at the hook."""
        with rtnetlink(self._veth.peer_netns) as connection:
            (link,) = connection.get_links(ifname=self._veth.peer)
        return int(link.get_attr("IFLA_STATS64")["tx_dropped"])


@contextlib.contextmanager
def line_into(veth: Veth, *, generic: bool = False) -> Iterator[Line]:
    """Send frames from the other end of a veth pair to this one.

    Args:
        veth: where they arrive.
        generic: they are to meet a program in generic mode there; the last queue is out of reach.
    """
    _steer(veth)
    with (
        _packets(veth.peer, veth.peer_netns, 0) as sender,
        _packets(veth.name, veth.netns, _ETHERTYPE) as receiver,
    ):
        yield Line(veth, sender, receiver, generic=generic)


def _packets(name: str, netns: str, ethertype: int) -> socket.socket:
    """Return a packet socket of an interface; with an EtherType it hears such frames."""
    with entered(netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind((name, ethertype))
    return made


def _steer(veth: Veth) -> None:
    """Give each frame, on its way out of the other end, the queue that its mark names."""
    code = machine_code(
        asm.load(Register.R2, Register.R1, _SKB_MARK, size=4),
        # 0 stands for no queue: skb_tx_hash() in net/core/dev.c takes 1 off again.
        asm.alu(AluOp.ADD, Register.R2, 1),
        asm.store(Register.R1, _SKB_QUEUE_MAPPING, Register.R2, size=4),
        asm.mov(Register.R0, 0),
        asm.exit(),
    )
    new = NewProgram(type=ProgType.SCHED_CLS, code=code, license="GPL", name="steer")
    peer = resolve(veth.peer, netns=veth.peer_netns).index
    with (
        bpf.prog_load(new, what="load a classifier") as loaded,
        rtnetlink(veth.peer_netns) as connection,
    ):
        connection.tc("add", "clsact", peer)
        options = {"fd": loaded.fileno(), "name": "steer", "direct_action": True, "classid": 1}
        connection.tc("add-filter", "bpf", peer, ":1", parent=_EGRESS, **options)


class Witnesses:
    """Programs that drop the frames that they see, and count them by RX queue in one map."""

    def __init__(self, queues: int = 4, *, room: int = 64) -> None:
        """Make a map with room for a number of programs."""
        self._queues = queues
        self._row = queues * _COUNT.size
        self._ids: list[int] = []
        self._owned = contextlib.ExitStack()
        self._map = self._owned.enter_context(
            Map.create(
                MapType.ARRAY, key_size=4, value_size=room * self._row, max_entries=1, name="seen"
            )
        )

    def program(self, name: str = "witness", *, flags: ProgFlags = ProgFlags(0)) -> Program:
        """Load one more program, which is closed with the others."""
        code = machine_code(
            asm.load(Register.R2, Register.R1, XdpMd.rx_queue_index.offset, size=4),
            asm.branch(JmpOp.JGE, Register.R2, self._queues, 6),
            asm.ld_map_value(Register.R1, self._map.id, len(self._ids) * self._row),
            asm.alu(AluOp.LSH, Register.R2, 3),
            asm.alu(AluOp.ADD, Register.R1, Register.R2),
            asm.mov(Register.R2, 1),
            asm.atomic(Atomic.ADD, Register.R1, 0, Register.R2),
            asm.mov(Register.R0, XdpAction.DROP),
            asm.exit(),
        )
        image = Image(
            name=name,
            type=ProgType.XDP,
            attach_type=AttachType.XDP,
            flags=flags,
            license="GPL",
            kern_version=0,
            code=code,
            maps=(MapReference(self._map.id, "seen"),),
        )
        loaded = self._owned.enter_context(load_image(image))
        self._ids.append(loaded.id)
        return loaded

    def seen(self) -> Counter[tuple[int, int]]:
        """Return how many frames were seen, by the program's id and the queue."""
        counts = (count for (count,) in _COUNT.iter_unpack(self._map[0]))
        places = ((number, queue) for number in self._ids for queue in range(self._queues))
        return Counter(dict(zip(places, counts, strict=False)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._owned.close()


def served_by(
    line: Line, witnesses: Witnesses, queues: Iterable[int], *, frames: int = 2
) -> dict[int, int | None]:
    """Send frames into queues; return the id of the program that saw them, None if they passed."""
    return {queue: _served_by(line, witnesses, queue, frames) for queue in queues}


def _served_by(line: Line, witnesses: Witnesses, queue: int, frames: int) -> int | None:
    seen, passed = witnesses.seen(), line.passed()

    def arrived() -> Counter[tuple[int, int] | None]:
        new = Counter[tuple[int, int] | None](witnesses.seen() - seen)
        return new + Counter({None: line.passed() - passed})

    line.send(queue, frames)
    wait_until(lambda: arrived().total() >= frames)
    (((where, count),)) = arrived().items()
    assert count == frames
    if where is None:
        return None
    program, in_queue = where
    assert in_queue == queue
    return program


class Stream:
    """Frames that a thread of its own sends into queues in turn, until it is stopped."""

    def __init__(self, line: Line, queues: Sequence[int]) -> None:
        self._line = line
        self._queues = queues
        self._is_stopped = False
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        while not self._is_stopped:
            for queue in self._queues:
                self._line.send(queue, 16)

    def go_on(self) -> None:
        """Wait until each queue has been sent frames that were not yet on their way."""
        enough = self._line.sent + 3 * 16 * len(self._queues)
        wait_until(lambda: self._line.sent > enough)

    def stop(self) -> None:
        self._is_stopped = True
        self._thread.join()


@contextlib.contextmanager
def streaming(line: Line, queues: Sequence[int]) -> Iterator[Stream]:
    """Send frames into queues in turn, during the block."""
    stream = Stream(line, queues)
    try:
        yield stream
    finally:
        stream.stop()


def on(hook: Hook) -> AttachedProgram | None:
    """Return what the kernel has on a hook: a program, or the root; None for nothing."""
    attached = hook.status().attached
    assert len(attached) <= 1
    return attached[0] if attached else None


def has_root(hook: Hook) -> bool:
    """Whether a hook's program is the one that runs another for each queue."""
    found = hook.status()
    is_root = found.root is not None
    assert is_root == (ROOT in {each.program.name for each in found.attached})
    return is_root


def scopes(hook: Hook) -> dict[int | None, int]:
    """Return the ids of a hook's programs by their RX queue, None for the global one."""
    programs = hook.status().programs
    found = {each.qid: each.program.id for each in programs}
    assert len(found) == len(programs)
    return found


def unserved_map(hook: Hook) -> Map:
    """Open the map in which a hook's root counts packets for which there is no program."""
    found = hook.status().root
    assert found is not None
    assert found.root is not None
    return Map.from_id(found.root.unserved_id)


def unserved(counters: Map) -> dict[int, int]:
    """Return how many packets had no program, by RX queue; no zeros."""
    found = {queue: NoProgram.read(values).packets for queue, values in counters.items()}
    return {queue: packets for queue, packets in found.items() if packets}


def set_channels(name: str, netns: str, *, rx: int, tx: int) -> None:
    """Change how many queues an interface uses, as ``ethtool -L``; skip the test if none can."""
    with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        wanted = ctypes.create_string_buffer(_CHANNELS.pack(EthtoolCommand.GCHANNELS, *[0] * 8))
        request = _IFREQ.pack(name.encode(), ctypes.addressof(wanted))
        try:
            fcntl.ioctl(asking, SIOCETHTOOL, request)
            limits = _CHANNELS.unpack_from(wanted)[1:5]
            _CHANNELS.pack_into(wanted, 0, _SET_CHANNELS, *limits, rx, tx, 0, 0)
            fcntl.ioctl(asking, SIOCETHTOOL, request)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip("needs a veth that can change its queues, which came with Linux 5.15")
