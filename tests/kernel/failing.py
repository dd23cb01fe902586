# SPDX-License-Identifier: Apache-2.0
"""Ways to lose packets after their XDP program has run, each with what has to be counted for it.

Frames go into one end of a veth pair; the program on the other end loses them. How many have met it
the driver says, and what became of them the driver or a socket: nothing that is expected here comes
from what is tested.

The kernel's sources (6.18) say where each tracepoint fires: net/core/filter.c (xdp_do_redirect(),
xdp_do_generic_redirect()), net/core/dev.c (do_xdp_generic(), generic_xdp_tx()),
kernel/bpf/devmap.c, kernel/bpf/cpumap.c, drivers/net/veth.c and drivers/net/tun.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.kernel.fates import MODES, set_gro
from tests.kernel.net import Veth, make_veth, rtnetlink
from xdpkit.interfaces import resolve
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Register
from xdpkit.kernel import Map, Program
from xdpkit.monitor.samples import (
    CPUMAP_DROPS,
    CPUMAP_FRAMES,
    ERRORS,
    REDIRECT_ERRORS,
    TRANSMIT_DROPS,
    TRANSMITTED,
    Metric,
)
from xdpkit.probes.ask import machine_code
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.syscalls.libc import libc
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType, PseudoSrc, XdpAction

Series = tuple[Metric, tuple[str, ...]]
Counts = Mapping[Series, int]
Expected = Callable[[int], Counts]
"""Given how many frames have met the program, what has to have been counted."""

R = Register

# An EtherType for local experiments (IEEE 802), so that nothing takes the frames for its own.
_ETHERTYPE = 0x88B5
# The sender's CPU; what the frames cause happens on it, too.
_CPU = 0
_ABSENT_INTERFACE = 4242

# include/uapi/linux/if_packet.h; struct tpacket_stats.
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_STATISTICS = struct.Struct("=II")

# include/uapi/linux/if_xdp.h.
_AF_XDP, _SOL_XDP = 44, 283
_XDP_RX_RING, _XDP_UMEM_REG, _XDP_UMEM_FILL_RING, _XDP_UMEM_COMPLETION_RING = 2, 4, 5, 6
_XDP_COPY = 1 << 1
_UMEM_REG = struct.Struct("=QQIIII")
_SOCKADDR_XDP = struct.Struct("=HHIII")

# include/uapi/linux/if_tun.h.
_TUNSETIFF, _TUNSETPERSIST, _IFF_TAP = 0x400454CA, 0x400454CB, 0x0002

_MNT_DETACH = 2
# include/uapi/linux/bpf.h.
_F_BROADCAST = 1 << 3

_numbers = itertools.count()
_Resource = TypeVar("_Resource")


class Scene:
    """A veth whose program loses what arrives, and all that a failure needs beside it.

    Attributes:
        netns, mode: where, and how the program is attached.
        near: the end with the program, and its peer, where frames are sent into.
        maps: names of the maps that belong to it.
    """

    def __init__(self, netns: str, mode: str, resources: ExitStack) -> None:
        self.netns = netns
        self.mode = mode
        self.maps: set[str] = set()
        self._resources = resources
        self._interfaces: set[str] = set()
        self._connection = resources.enter_context(rtnetlink(netns))
        self.near = self.pair()
        self._sent_live = 0
        self._sent = 0
        self._socket: socket.socket | None = None
        # In generic mode the frames go through a veth that has no native program: with GRO it takes
        # them all the same (veth_set_xdp_features()).
        if mode == "generic":
            set_gro(netns, self.near.name, on=True)
        self._sender = self.own(_program(*_redirect(self.index(self.near.peer)), name="sends"))

    def own(self, resource: contextlib.AbstractContextManager[_Resource]) -> _Resource:
        """Keep something for as long as the scene is there."""
        return self._resources.enter_context(resource)

    # Interfaces

    def index(self, name: str) -> int:
        return resolve(name, netns=self.netns).index

    def pair(self) -> Veth:
        """Make a veth pair with one queue."""
        made = make_veth(self.netns, queues=1)
        self._interfaces |= {made.name, made.peer}
        self._resources.callback(self._delete, made.name)
        return made

    def target(self, *, program: bool = False) -> Veth:
        """Make a veth that transmits redirected frames, as its peer receives by NAPI.

        Args:
            program: by a program on the peer, not by GRO.
        """
        made = self.pair()
        if program:
            self.attach(returning(XdpAction.PASS, name="receives"), to=made.peer, mode="native")
        else:
            set_gro(self.netns, made.peer, on=True)
        return made

    def interface(self, kind: str, **options: object) -> str:
        """Make an interface of another kind, and set it up."""
        name = self._new_name()
        self._connection.link("add", ifname=name, kind=kind, **options)
        self._resources.callback(self._delete, name)
        self.set(name, state="up")
        return name

    def tap(self) -> str:
        """Make a tap device that stays without anybody who reads it, and set it up."""
        name = self._new_name()
        with entered(self.netns), open("/dev/net/tun", "rb", buffering=0) as made:
            fcntl.ioctl(made, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP))
            fcntl.ioctl(made, _TUNSETPERSIST, 1)
        self._resources.callback(self._delete, name)
        self.set(name, state="up")
        return name

    def _new_name(self) -> str:
        name = f"xf{os.getpid()}-{next(_numbers)}"
        self._interfaces.add(name)
        return name

    def set(self, name: str, **what: object) -> None:
        self._connection.link("set", ifname=name, **what)

    def _delete(self, name: str) -> None:
        self._connection.link("del", ifname=name)

    def statistics(self, name: str) -> Mapping[str, int]:
        """Return what the kernel counts of an interface (``struct rtnl_link_stats64``)."""
        (link,) = self._connection.get_links(ifname=name)
        found: Mapping[str, int] = link.get_attr("IFLA_STATS64")
        return found

    def stall(self, veth: Veth) -> None:
        """Have the peer of a veth receive nothing any more: what is sent to it fills its ring.

        Its NAPI is put off by a minute (Documentation/networking/napi.rst), from the first frame
        on, which is sent here.
        """
        with tempfile.TemporaryDirectory() as folder, entered(self.netns):
            # The one on /sys shows the interfaces of another namespace.
            if libc().mount(b"sysfs", folder.encode(), b"sysfs", 0, None):
                raise OSError(ctypes.get_errno(), "mount sysfs")
            try:
                settings = Path(folder, "class/net", veth.peer)
                (settings / "napi_defer_hard_irqs").write_text("1000")
                (settings / "gro_flush_timeout").write_text(str(60 * 10**9))
            finally:
                libc().umount2(folder.encode(), _MNT_DETACH)
        index = self.index(veth.name)
        with _program(*_redirect(index), name="first") as first, entered(self.netns):
            first.run(_frame(64), live=True, cpu=_CPU)

    # Programs and maps

    def attach(
        self, program: Program, *, to: str | None = None, mode: str | None = None
    ) -> Program:
        """Put a program on a hook, that of the scene without other word."""
        self.own(program)
        with entered(self.netns):
            index = resolve(to or self.near.name).index
            flags = MODES[mode or self.mode]
            self.own(bpf.link_create(program.fileno(), index, AttachType.XDP, flags))
        return program

    def redirect(self, index: int, *, name: str = "redirects") -> None:
        """Attach a program that redirects to an interface."""
        self.attach(_program(*_redirect(index), name=name))

    def redirect_by(self, found: Map, *, flags: int = 0) -> None:
        """Attach a program that redirects by a map's first entry."""
        code = (
            asm.ld_imm64(R.R1, found.fileno(), source=PseudoSrc.MAP_FD),
            asm.mov(R.R2, 0),
            asm.mov(R.R3, flags),
            asm.call("redirect_map"),
            asm.exit(),
        )
        self.attach(_program(*code, name="redirects"))

    def map(self, kind: MapType, *entries: bytes) -> Map:
        """Make a map for redirects, with these first entries."""
        size = len(entries[0]) if entries else 4
        name = f"map_{os.getpid() % 10**5}_{next(_numbers)}"
        made = self.own(
            Map.create(kind, key_size=4, value_size=size, max_entries=4, name=name).untyped()
        )
        self.maps.add(made.name)
        with entered(self.netns):
            for key, entry in enumerate(entries):
                bpf.map_update(made.fileno(), struct.pack("=I", key), entry)
        return made

    # Frames

    def send(self, count: int, size: int) -> int:
        """Send frames; return how many met the program: the others, the veth had no room for."""
        with entered(self.netns):
            self._sender.run(_frame(size), live=True, repeat=count, cpu=_CPU)
        self._sent += count
        self._sent_live += count
        return count - self._not_taken()

    def send_by_socket(self, count: int, size: int) -> int:
        """Send frames that may be longer than a page."""
        if self._socket is None:
            with entered(self.netns):
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket = self.own(contextlib.closing(made))
            made.bind((self.near.peer, 0))
        frame = _frame(size)
        for _ in range(count):
            self._socket.send(frame)
        self._sent += count
        return count - self._not_taken()

    def _not_taken(self) -> int:
        return self.statistics(self.near.peer)["tx_dropped"]

    def met(self) -> int:
        """Return how many frames the driver has received and given to the program."""
        return self.statistics(self.near.name)["rx_packets"]

    def listen(self, name: str) -> Callable[[], int]:
        """Return what says how many of the frames have arrived at an interface's stack."""
        with entered(self.netns):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        listening = self.own(contextlib.closing(made))
        listening.bind((name, _ETHERTYPE))
        arrived = 0

        def heard() -> int:
            nonlocal arrived
            # Each answer begins anew, and counts what there was no room for, too.
            answer = listening.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
            arrived += int(_STATISTICS.unpack(answer)[0])
            return arrived

        return heard

    # What is counted

    def has(self, interface: str | None) -> bool:
        return interface in self._interfaces

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a series is about this scene: about its interfaces or its maps."""
        return self.has(labels.get("interface")) or labels.get("map") in self.maps

    def error(self, program: str, action: str, reason: str, *, at: str | None = None) -> Series:
        """The series of errors on an interface, that of the scene without other word."""
        return ERRORS, ("", at or self.near.name, program, action, reason)

    def redirect_error(self, target: str, error: str) -> Series:
        return REDIRECT_ERRORS, ("", self.near.name, "redirects", target, error)

    def transmitted(self, to: str, source: str | None = None) -> Series:
        return TRANSMITTED, ("", to, self.near.name if source is None else source)

    def transmit_drops(self, to: str, source: str | None = None) -> Series:
        return TRANSMIT_DROPS, ("", to, self.near.name if source is None else source)

    def sending(self) -> Counts:
        """Return what is counted of the sending itself, which is a redirect, too."""
        if not self._sent_live:
            return {}
        not_taken = self._not_taken()
        return {
            self.transmitted(self.near.peer, "lo"): self._sent_live - not_taken,
            self.transmit_drops(self.near.peer, "lo"): not_taken,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A way to lose packets.

    Attributes:
        name: what goes wrong.
        stage: sets it up, and returns what has to be counted.
        modes: where it can be provoked.
        size: bytes of the frames.
        by_socket: whether a socket sends them; it can send what a live frame cannot be.
        words: what the explanation says; "" where no tracepoint fires, so that there is none.
    """

    name: str
    stage: Callable[[Scene], Expected]
    modes: tuple[str, ...] = ("native", "generic")
    size: int = 64
    by_socket: bool = False
    words: str = ""


@contextlib.contextmanager
def scene(netns: str, mode: str) -> Iterator[Scene]:
    """Yield a scene in a namespace; what it made there goes with it."""
    with ExitStack() as resources:
        yield Scene(netns, mode, resources)


def _frame(size: int) -> bytes:
    return bytes(12) + _ETHERTYPE.to_bytes(2, "big") + bytes(size - 14)


def _program(
    *code: Instruction, name: str, attach_type: int = AttachType.XDP, frags: bool = False
) -> Program:
    new = NewProgram(
        type=ProgType.XDP,
        code=machine_code(*code),
        license="GPL",
        name=name,
        attach_type=attach_type,
        flags=ProgFlags.XDP_HAS_FRAGS if frags else 0,
    )
    return Program(bpf.prog_load(new, what=f"load {name}"))


def returning(action: int, *, name: str, attach_type: int = AttachType.XDP) -> Program:
    """Load a program that always returns the same."""
    code = asm.mov(R.R0, action), asm.exit()
    return _program(*code, name=name, attach_type=attach_type)


def redirecting_anywhere(*, name: str, returned: bool = False) -> Program:
    """Load a program that draws a number for each packet, of an interface that is not there.

    Args:
        name: what to call it. returned: it returns the number itself, which is no action.
    """
    draw = (
        asm.call("get_prandom_u32"),
        asm.alu(AluOp.AND, R.R0, 0xFFFFFF),
        asm.alu(AluOp.OR, R.R0, 1 << 24),
    )
    redirect = asm.mov(R.R1, R.R0), asm.mov(R.R2, 0), asm.call("redirect")
    return _program(*draw, *(() if returned else redirect), asm.exit(), name=name)


def redirecting_to(index: int, *, name: str) -> Program:
    """Load a program that redirects all packets to an interface."""
    return _program(*_redirect(index), name=name)


def _redirect(index: int, *, flags: int = 0) -> tuple[Instruction, ...]:
    return asm.mov(R.R1, index), asm.mov(R.R2, flags), asm.call("redirect"), asm.exit()


# What a program returns


def _returns(value: int, action: str) -> Callable[[Scene], Expected]:
    def stage(scene: Scene) -> Expected:
        scene.attach(returning(value, name="returns"))
        return lambda met: {scene.error("returns", action, action): met}

    return stage


def _redirects_with_flags(scene: Scene) -> Expected:
    """bpf_redirect() takes no flags, and returns XDP_ABORTED for them."""
    scene.attach(_program(*_redirect(scene.index("lo"), flags=1), name="returns"))
    return lambda met: {scene.error("returns", "aborted", "aborted"): met}


def _finds_no_entry(kind: MapType) -> Callable[[Scene], Expected]:
    """bpf_redirect_map() returns what its flags say if there is no entry, and 0 is XDP_ABORTED."""

    def stage(scene: Scene) -> Expected:
        scene.redirect_by(scene.map(kind))
        return lambda met: {scene.error("redirects", "aborted", "aborted"): met}

    return stage


# XDP_TX


def _tx_without_receiver(scene: Scene) -> Expected:
    scene.attach(returning(XdpAction.TX, name="sends_back"))
    return lambda met: {scene.transmit_drops(scene.near.name, ""): met}


def _tx_into_a_full_ring(scene: Scene) -> Expected:
    _fill_from(scene)
    scene.attach(returning(XdpAction.TX, name="sends_back"))

    def expected(met: int) -> Counts:
        dropped = scene.statistics(scene.near.name)["tx_dropped"]
        return {
            scene.transmitted(scene.near.name, ""): met - dropped,
            scene.transmit_drops(scene.near.name, ""): dropped,
            scene.transmitted(scene.near.name, "lo"): 1,
        }

    return expected


def _tx_into_a_stopped_queue(scene: Scene) -> Expected:
    """A veth stops its queue when its peer's ring is full, if it has a queueing discipline."""
    _fill_from(scene, qdisc=True)
    scene.attach(returning(XdpAction.TX, name="sends_back"))

    def expected(met: int) -> Counts:
        return {
            scene.error("sends_back", "tx", "tx_failed"): scene.statistics(scene.near.name)[
                "tx_dropped"
            ],
            scene.transmitted(scene.near.name, "lo"): 1,
        }

    return expected


def _tx_that_is_not_reported(scene: Scene) -> Expected:
    """Without a queueing discipline the veth drops the skb and says that it took it."""
    _fill_from(scene)
    scene.attach(returning(XdpAction.TX, name="sends_back"))
    return lambda met: {scene.transmitted(scene.near.name, "lo"): 1}


def _fill_from(scene: Scene, *, qdisc: bool = False) -> None:
    """Have the peer of the scene's interface receive nothing, though it could."""
    passing = returning(XdpAction.PASS, name="receives")
    scene.attach(passing, to=scene.near.peer, mode="native")
    if qdisc:
        with rtnetlink(scene.netns) as connection:
            connection.tc("replace", "pfifo_fast", scene.index(scene.near.name), handle=0x10000)
    scene.stall(scene.near)


# Redirects that fail


def _redirects_without_a_call(scene: Scene) -> Expected:
    scene.attach(returning(XdpAction.REDIRECT, name="redirects"))
    return lambda met: {scene.redirect_error("none", "EBADRQC"): met}


def _target_is_absent(scene: Scene) -> Expected:
    scene.redirect(_ABSENT_INTERFACE)
    return lambda met: {scene.redirect_error(f"interface {_ABSENT_INTERFACE}", "EINVAL"): met}


def _target_is_down(scene: Scene) -> Expected:
    target = scene.target()
    scene.set(target.name, state="down")
    scene.redirect(scene.index(target.name))
    return lambda met: {scene.redirect_error(target.name, "ENETDOWN"): met}


def _entry_is_down(kind: MapType) -> Callable[[Scene], Expected]:
    def stage(scene: Scene) -> Expected:
        target = scene.target()
        scene.redirect_by(scene.map(kind, _entry(scene, target)))
        scene.set(target.name, state="down")
        return lambda met: {scene.redirect_error(target.name, "ENETDOWN"): met}

    return stage


def _target_has_a_small_mtu(scene: Scene) -> Expected:
    target = scene.target()
    scene.set(target.name, mtu=500)
    scene.redirect(scene.index(target.name))
    return lambda met: {scene.redirect_error(target.name, "EMSGSIZE"): met}


def _target_cannot_transmit(kind: str) -> Callable[[Scene], Expected]:
    def stage(scene: Scene) -> Expected:
        options = {"macvlan": {"link": scene.index(scene.near.peer)}}.get(kind, {})
        target = scene.interface(kind, **options)
        scene.redirect(scene.index(target))
        return lambda met: {scene.redirect_error(target, "EOPNOTSUPP"): met}

    return stage


def _target_has_an_idle_peer(scene: Scene) -> Expected:
    """A veth whose peer has neither a program nor GRO takes no frames."""
    target = scene.pair()
    scene.redirect(scene.index(target.name))
    return lambda met: {scene.redirect_error(target.name, "EOPNOTSUPP"): met}


def _target_takes_no_fragments(scene: Scene) -> Expected:
    target = scene.tap()
    for name in (target, scene.near.name, scene.near.peer):
        scene.set(name, mtu=9000)
    scene.attach(_program(*_redirect(scene.index(target)), name="redirects", frags=True))
    return lambda met: {scene.redirect_error(target, "EOPNOTSUPP"): met}


def _socket_is_of_another_queue(scene: Scene) -> Expected:
    """A socket of another interface's queue stands for it: a frame is checked against both."""
    bound = scene.own(_af_xdp(scene.netns, scene.near.peer))
    scene.redirect_by(scene.map(MapType.XSKMAP, struct.pack("=I", bound.fileno())))
    return lambda met: {scene.redirect_error("queue 0", "EINVAL"): met}


def _socket_gives_no_buffers(scene: Scene) -> Expected:
    bound = scene.own(_af_xdp(scene.netns, scene.near.name))
    scene.redirect_by(scene.map(MapType.XSKMAP, struct.pack("=I", bound.fileno())))
    return lambda met: {scene.redirect_error("queue 0", "ENOMEM"): met}


@contextlib.contextmanager
def _af_xdp(netns: str, name: str) -> Iterator[socket.socket]:
    """Yield a socket that is bound to an interface's first RX queue, and gives it no buffers."""
    page = mmap.PAGESIZE
    with contextlib.ExitStack() as resources:
        area = resources.enter_context(contextlib.closing(mmap.mmap(-1, page)))
        with entered(netns):
            made = socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        resources.enter_context(made)
        start = ctypes.c_char.from_buffer(area)
        registration = _UMEM_REG.pack(ctypes.addressof(start), page, page, 0, 0, 0)
        del start
        made.setsockopt(_SOL_XDP, _XDP_UMEM_REG, registration)
        for ring in (_XDP_UMEM_FILL_RING, _XDP_UMEM_COMPLETION_RING, _XDP_RX_RING):
            made.setsockopt(_SOL_XDP, ring, 1)
        address = _SOCKADDR_XDP.pack(_AF_XDP, _XDP_COPY, resolve(name, netns=netns).index, 0, 0)
        # Python knows no addresses of this family.
        if libc().bind(made.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), "bind an AF_XDP socket")
        yield made


# Transmission that fails


def _target_has_a_peer_that_is_down(scene: Scene) -> Expected:
    target = scene.target()
    scene.set(target.peer, state="down")
    scene.redirect(scene.index(target.name))
    return lambda met: {scene.transmit_drops(target.name): met}


def _tap_has_no_reader(scene: Scene) -> Expected:
    target = scene.tap()
    scene.redirect(scene.index(target))
    return lambda met: {scene.transmit_drops(target): met}


def _target_has_a_full_ring(scene: Scene) -> Expected:
    target = scene.target()
    scene.stall(target)
    scene.redirect(scene.index(target.name))

    def expected(met: int) -> Counts:
        dropped = scene.statistics(target.name)["tx_dropped"]
        return {
            scene.transmitted(target.name): met - dropped,
            scene.transmit_drops(target.name): dropped,
            scene.transmitted(target.name, "lo"): 1,
        }

    return expected


def _broadcasts_to_a_peer_that_is_down(scene: Scene) -> Expected:
    good, bad = scene.target(), scene.target()
    ports = scene.map(MapType.DEVMAP, _entry(scene, bad), _entry(scene, good))
    scene.redirect_by(ports, flags=_F_BROADCAST)
    scene.set(bad.peer, state="down")
    return lambda met: {scene.transmit_drops(bad.name): met, scene.transmitted(good.name): met}


def _broadcasts_past_a_target(scene: Scene) -> Expected:
    """A native broadcast skips what cannot be sent to, and no tracepoint says so."""
    target = scene.target()
    scene.redirect_by(scene.map(MapType.DEVMAP, _entry(scene, target)), flags=_F_BROADCAST)
    scene.set(target.name, state="down")
    if scene.mode == "native":
        return lambda met: {}
    return lambda met: {scene.redirect_error(target.name, "ENETDOWN"): met}


# Programs in maps


def _program_of_an_entry(value: int, action: str, reason: str) -> Callable[[Scene], Expected]:
    def stage(scene: Scene) -> Expected:
        target = scene.target()
        own = scene.own(returning(value, name="egress", attach_type=AttachType.XDP_DEVMAP))
        scene.redirect_by(scene.map(MapType.DEVMAP, _entry(scene, target, own.fileno())))

        def expected(met: int) -> Counts:
            counted = {scene.error("egress", action, reason, at=target.name): met}
            # In native mode the whole bulk is handed over, and what the program took from it is
            # not sent: dev_map_bpf_prog_run().
            if scene.mode == "native":
                counted[scene.transmit_drops(target.name)] = met
            return counted

        return expected

    return stage


def _program_on_another_cpu(value: int, action: str, reason: str) -> Callable[[Scene], Expected]:
    def stage(scene: Scene) -> Expected:
        own = scene.own(returning(value, name="on_cpu", attach_type=AttachType.XDP_CPUMAP))
        room = 1024
        cpus = scene.map(MapType.CPUMAP, struct.pack("=II", room, own.fileno()))
        scene.redirect_by(cpus)
        return lambda met: {
            (CPUMAP_FRAMES, (cpus.name, "0")): met,
            scene.error("on_cpu", action, reason): met,
        }

    return stage


def _queue_of_a_cpu_is_full(scene: Scene) -> Expected:
    # What is queued is taken by a thread, which has to wait for the CPU that the frames keep busy.
    cpus = scene.map(MapType.CPUMAP, struct.pack("=I", 1))
    scene.redirect_by(cpus)
    arrived = scene.listen(scene.near.name)

    def expected(met: int) -> Counts:
        taken = arrived()
        counted = {
            (CPUMAP_FRAMES, (cpus.name, "0")): taken,
            (CPUMAP_DROPS, (cpus.name, "0", "queue_full")): met - taken,
        }
        if scene.mode == "generic":
            counted[scene.redirect_error("cpu 0", "ENOSPC")] = met - taken
        return counted

    return expected


def _entry(scene: Scene, target: Veth, program: int | None = None) -> bytes:
    """Return an entry of a devmap."""
    index = scene.index(target.name)
    return struct.pack("=I", index) if program is None else struct.pack("=II", index, program)


NATIVE = ("native",)
GENERIC = ("generic",)

FAILURES = (
    Failure("returns_0", _returns(0, "aborted"), words="XDP_ABORTED"),
    Failure("returns_5", _returns(5, "invalid"), words="5 is no action"),
    Failure("returns_42", _returns(42, "invalid"), words="42 is no action"),
    Failure("returns_0xffffffff", _returns(-1, "invalid"), words="4294967295 (-1) is no action"),
    Failure("redirects_with_flags", _redirects_with_flags, words="XDP_ABORTED"),
    Failure("no_entry_in_a_devmap", _finds_no_entry(MapType.DEVMAP), words="found no entry"),
    Failure(
        "no_entry_in_a_devmap_hash", _finds_no_entry(MapType.DEVMAP_HASH), words="found no entry"
    ),
    Failure("no_entry_in_a_cpumap", _finds_no_entry(MapType.CPUMAP), words="found no entry"),
    Failure("no_socket_in_an_xskmap", _finds_no_entry(MapType.XSKMAP), words="found no entry"),
    Failure("tx_without_receiver", _tx_without_receiver, NATIVE, words="no queue"),
    Failure("tx_into_a_full_ring", _tx_into_a_full_ring, NATIVE, words="queue is full"),
    Failure("tx_into_a_stopped_queue", _tx_into_a_stopped_queue, GENERIC, words="queue is full"),
    Failure("tx_that_is_not_reported", _tx_that_is_not_reported, GENERIC),
    Failure(
        "redirects_without_a_call", _redirects_without_a_call, words="without a successful bpf_"
    ),
    Failure("target_is_absent", _target_is_absent, words="no interface with this index"),
    Failure("target_is_down", _target_is_down, words="not up"),
    Failure("entry_is_down", _entry_is_down(MapType.DEVMAP), words="not up"),
    Failure("hash_entry_is_down", _entry_is_down(MapType.DEVMAP_HASH), words="not up"),
    Failure("target_has_a_small_mtu", _target_has_a_small_mtu, size=1000, words="longer than"),
    Failure("target_is_a_bridge", _target_cannot_transmit("bridge"), NATIVE, words="transmit"),
    Failure("target_is_a_macvlan", _target_cannot_transmit("macvlan"), NATIVE, words="transmit"),
    Failure("target_has_an_idle_peer", _target_has_an_idle_peer, NATIVE, words="transmit"),
    Failure(
        "target_takes_no_fragments",
        _target_takes_no_fragments,
        NATIVE,
        size=6000,
        by_socket=True,
        words="fragments",
    ),
    Failure("socket_is_of_another_queue", _socket_is_of_another_queue, words="bound to another"),
    Failure("socket_gives_no_buffers", _socket_gives_no_buffers, words="fill ring is empty"),
    Failure(
        "target_has_a_peer_that_is_down", _target_has_a_peer_that_is_down, NATIVE, words="no queue"
    ),
    Failure("tap_has_no_reader", _tap_has_no_reader, NATIVE, words="no queue"),
    Failure("target_has_a_full_ring", _target_has_a_full_ring, NATIVE, words="queue is full"),
    Failure(
        "broadcasts_to_a_peer_that_is_down",
        _broadcasts_to_a_peer_that_is_down,
        NATIVE,
        words="no queue",
    ),
    Failure("broadcasts_past_a_target", _broadcasts_past_a_target, NATIVE),
    Failure("broadcasts_past_a_target", _broadcasts_past_a_target, GENERIC, words="not up"),
    Failure(
        "program_of_an_entry_returns_0",
        _program_of_an_entry(0, "aborted", "aborted"),
        words="XDP_ABORTED",
    ),
    Failure(
        "program_of_an_entry_returns_42",
        _program_of_an_entry(42, "invalid", "invalid"),
        words="42 is no action",
    ),
    Failure(
        "program_on_another_cpu_returns_42",
        _program_on_another_cpu(42, "invalid", "invalid"),
        GENERIC,
        words="42 is no action",
    ),
    Failure("queue_of_a_cpu_is_full", _queue_of_a_cpu_is_full, NATIVE),
    Failure("queue_of_a_cpu_is_full", _queue_of_a_cpu_is_full, GENERIC, words="queue"),
)
"""All of them."""

CASES: tuple[tuple[Failure, str], ...] = tuple(
    (failure, mode) for failure in FAILURES for mode in failure.modes
)
"""Each with each of its modes."""


def title(case: Any) -> str:
    """Return what to call a case, or one half of it."""
    return case.name if isinstance(case, Failure) else str(case)
