# SPDX-License-Identifier: Apache-2.0
"""What becomes of real packets: places to send them, programs to meet, sockets to see them again.

A trial sends one frame past a program and says what happened to it. A second one follows, the
fence, which every program passes: when it has arrived, the first one has met the program.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.kernel.net import Veth, make_veth, rtnetlink
from xdpkit.interfaces import resolve
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType, PseudoSrc, XdpAction
from xdpkit.uapi.if_link import XdpFlags

BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"

TESTED, FENCE, SENT = 0x88B5, 0x88B6, 0x88B7
SIZE = 100

# A frame that arrives comes at once; the limit only ends a run that has failed anyway.
_LONG = 10.0
# Behind the fence, and with the other CPU's NAPI at work, this is long.
_SHORT = 0.1

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_TAP, _IFF_NO_PI = 0x0001, 0x0002, 0x1000

MODES = {"native": XdpFlags.DRV_MODE, "generic": XdpFlags.SKB_MODE}

R = Register
PASS = (asm.mov(R.R0, XdpAction.PASS), asm.exit())


def frame(kind: int = TESTED, size: int = SIZE) -> bytes:
    """Return an Ethernet frame whose payload counts up."""
    header = b"\xff" * 6 + b"\2\0\0\0\0\1" + struct.pack("!H", kind)
    return header + bytes(index & 0xFF for index in range(size - len(header)))


def guarded(*body: Instruction) -> bytes:
    """Return a program that does ``body`` to the tested frame and passes all others.

    In it r6 is the context, r7 the packet's start and r8 its end; at least 64 bytes are there.
    """
    slots = sum(instruction.slots for instruction in body)
    tested = int.from_bytes(struct.pack("!H", TESTED), BYTEORDER)
    return encode(
        (
            asm.mov(R.R6, R.R1),
            asm.load(R.R7, R.R6, 0, size=4),
            asm.load(R.R8, R.R6, 4, size=4),
            asm.mov(R.R2, R.R7),
            asm.alu(AluOp.ADD, R.R2, 64),
            asm.branch(JmpOp.JGT, R.R2, R.R8, slots + 2),
            asm.load(R.R3, R.R7, 12, size=2),
            asm.branch(JmpOp.JNE, R.R3, tested, slots),
            *body,
            *PASS,
        ),
        byteorder=BYTEORDER,
    )


def returning(action: int) -> bytes:
    """Return a program that returns ``action`` for the tested frame."""
    return guarded(asm.mov(R.R0, action), asm.exit())


def sending_back() -> bytes:
    """Return a program that sends the tested frame back, by XDP_TX, under another type.

    Where that comes back to the program itself, as on lo, it is passed.
    """
    return guarded(_typed(SENT), asm.mov(R.R0, XdpAction.TX), asm.exit())


def marking_frags() -> bytes:
    """Return a program that gives the tested frame another type if it lies in several buffers."""
    return guarded(
        asm.mov(R.R1, R.R6),
        asm.call("xdp_get_buff_len"),
        asm.mov(R.R2, R.R8),
        asm.alu(AluOp.SUB, R.R2, R.R7),
        asm.branch(JmpOp.JEQ, R.R0, R.R2, 1),
        _typed(SENT),
        *PASS,
    )


def _typed(ethertype: int) -> Instruction:
    value = int.from_bytes(struct.pack("!H", ethertype), BYTEORDER)
    return asm.store(R.R7, 12, value, size=2)


def adjusting(helper: str, *deltas: int) -> bytes:
    """Return a program that passes the tested frame if all calls of a helper succeed."""
    body: list[Instruction] = []
    for delta in deltas:
        body += (asm.mov(R.R1, R.R6), asm.mov(R.R2, delta), asm.call(helper))
        body += (asm.branch(JmpOp.JEQ, R.R0, 0, 2), asm.mov(R.R0, XdpAction.DROP), asm.exit())
    return guarded(*body, *PASS)


def writing(offset: int, value: int) -> bytes:
    """Return a program that writes a byte of the tested frame and passes it."""
    return guarded(asm.store(R.R7, offset, value, size=1), *PASS)


def redirecting(index: int) -> bytes:
    """Return a program that redirects the tested frame to an interface."""
    return guarded(asm.mov(R.R1, index), asm.mov(R.R2, 0), asm.call("redirect"), asm.exit())


def redirecting_by(map_fd: int, flags: int = 0) -> bytes:
    """Return a program that redirects the tested frame by a map's first entry."""
    return guarded(
        asm.ld_imm64(R.R1, map_fd, source=PseudoSrc.MAP_FD),
        asm.mov(R.R2, 0),
        asm.mov(R.R3, flags),
        asm.call("redirect_map"),
        asm.exit(),
    )


def load(code: bytes, *, frags: bool = False) -> Fd:
    """Load an XDP program."""
    flags = ProgFlags.XDP_HAS_FRAGS if frags else ProgFlags(0)
    new = bpf.NewProgram(
        type=ProgType.XDP,
        code=code,
        license="GPL",
        name="trial",
        attach_type=AttachType.XDP,
        flags=flags,
    )
    return bpf.prog_load(new, what="load a trial program")


@contextlib.contextmanager
def attached(
    code: bytes, name: str, netns: str, mode: str = "native", *, frags: bool = False
) -> Iterator[None]:
    """Attach a program without asking whether that is wise."""
    with load(code, frags=frags) as program, entered(netns):
        index = resolve(name).index
        link = bpf.link_create(program.fileno(), index, AttachType.XDP, MODES[mode])
    with link:
        yield


class Port(Protocol):
    """A place to send frames into, and to see them come out."""

    def send(self, data: bytes) -> None: ...

    def receive(self, *, wait: bool) -> bytes | None:
        """Return the next tested or fence frame; None if there is none (when waiting: at last)."""
        ...

    def close(self) -> None: ...


class PacketPort:
    """A packet socket: sees frames that the stack gets."""

    def __init__(self, name: str, netns: str) -> None:
        with entered(netns):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(0x0003)
            )
        self._socket.bind((name, 0x0003))

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def receive(self, *, wait: bool) -> bytes | None:
        while select.select([self._socket], [], [], _LONG if wait else _SHORT)[0]:
            data, address = self._socket.recvfrom(70_000)
            if address[2] != socket.PACKET_OUTGOING and _is_ours(data):
                return data
        return None

    def close(self) -> None:
        self._socket.close()


class TunPort:
    """The user's end of a tun or tap device; the device goes with it."""

    def __init__(self, name: str, netns: str, *, tap: bool) -> None:
        flags = (_IFF_TAP if tap else _IFF_TUN) | _IFF_NO_PI
        with entered(netns):
            # What is written without waiting goes through native XDP: tun_can_build_skb() in
            # drivers/net/tun.c. The rest is built as an skb first.
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(self._file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        with rtnetlink(netns) as connection:
            connection.link("set", ifname=name, state="up")

    def send(self, data: bytes) -> None:
        os.write(self._file, data)

    def receive(self, *, wait: bool) -> bytes | None:
        while select.select([self._file], [], [], _LONG if wait else _SHORT)[0]:
            data = os.read(self._file, 70_000)
            if _is_ours(data):
                return data
        return None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _is_ours(data: bytes) -> bool:
    return len(data) >= 14 and ethertype(data) in (TESTED, FENCE, SENT)


@dataclass(frozen=True, slots=True)
class Lab:
    """An interface under test.

    Attributes:
        name, netns: the interface.
        outside: what is sent here, the interface receives, and the other way round.
        inside: the stack behind the interface.
        veth: the pair, where it is one.
    """

    name: str
    netns: str
    outside: Port
    inside: Port
    veth: Veth | None = None

    def fate(self, data: bytes, at: Port, *, patient: bool) -> bytes | None:
        """Send a frame, and the fence; return what came to a port instead of the frame.

        Args:
            patient: wait for it; else it is not to come, or comes before the fence.
        """
        self.outside.send(data)
        self.outside.send(frame(FENCE))
        seen: list[bytes] = []
        while True:
            came = self.inside.receive(wait=True)
            assert came is not None, "the fence did not arrive"
            if ethertype(came) == FENCE:
                break
            seen.append(came)
        if at is self.inside and seen:
            return seen[0]
        return at.receive(wait=patient)


def ethertype(data: bytes) -> int:
    """Return what kind of frame it is."""
    return int.from_bytes(data[12:14], "big")


@contextlib.contextmanager
def veth_lab(
    netns: str, *, queues: int = 1, mtu: int = 1500, gro: bool = False, program: bool = False
) -> Iterator[Lab]:
    """A veth in the native mode's own habitat; its peer can have GRO, or a program."""
    veth = make_veth(netns, queues=queues)
    with contextlib.ExitStack() as resources:
        for end in (veth.name, veth.peer):
            with rtnetlink(netns) as connection:
                connection.link("set", ifname=end, mtu=mtu)
        if gro:
            set_gro(netns, veth.peer, on=True)
        if program:
            resources.enter_context(
                attached(encode(PASS, byteorder=BYTEORDER), veth.peer, netns, frags=mtu > 1500)
            )
        outside, inside = PacketPort(veth.peer, netns), PacketPort(veth.name, netns)
        resources.callback(outside.close)
        resources.callback(inside.close)
        yield Lab(veth.name, netns, outside, inside, veth)


@contextlib.contextmanager
def tap_lab(netns: str, *, mtu: int = 1500) -> Iterator[Lab]:
    """A tap device."""
    port = TunPort("tap0", netns, tap=True)
    with contextlib.closing(port):
        with rtnetlink(netns) as connection:
            connection.link("set", ifname="tap0", mtu=mtu)
        with contextlib.closing(PacketPort("tap0", netns)) as inside:
            yield Lab("tap0", netns, port, inside)


@contextlib.contextmanager
def bridge_lab(netns: str) -> Iterator[Lab]:
    """A bridge with a veth as its port; frames come in by that."""
    veth = make_veth(netns, queues=1)
    with rtnetlink(netns) as connection:
        connection.link("add", ifname="br0", kind="bridge")
        (bridge,) = connection.link_lookup(ifname="br0")
        connection.link("set", index=bridge, state="up")
        connection.link("set", ifname=veth.name, master=bridge)
    with (
        contextlib.closing(PacketPort(veth.peer, netns)) as outside,
        contextlib.closing(PacketPort("br0", netns)) as inside,
    ):
        yield Lab("br0", netns, outside, inside)


@contextlib.contextmanager
def lo_lab(netns: str) -> Iterator[Lab]:
    """The loopback device of a namespace: what is sent comes back as received."""
    with rtnetlink(netns) as connection:
        connection.link("set", ifname="lo", state="up")
    with (
        contextlib.closing(PacketPort("lo", netns)) as outside,
        contextlib.closing(PacketPort("lo", netns)) as inside,
    ):
        yield Lab("lo", netns, outside, inside)


def set_gro(netns: str, name: str, *, on: bool) -> None:
    """Switch GRO as ``ethtool -K`` does (ETHTOOL_SGRO)."""
    value = array.array("I", [0x2C, int(on)])
    request = struct.pack("16sP8x", name.encode(), value.buffer_info()[0])
    with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket.fileno(), 0x8946, request)
