# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of an interface, collected and not yet judged.

:class:`Observation` is data; :func:`observe` is the only thing here that asks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from xdpkit.capabilities import (
    Answer,
    Kernel,
)
from xdpkit.errors import KernelRefused, MissingPrivilege, XdpkitError, errno_name
from xdpkit.interfaces.interface import Interface, described, find
from xdpkit.syscalls import bpf, ethtool, netdev, netns, rtnetlink
from xdpkit.syscalls.ethtool import Channels, Offload
from xdpkit.syscalls.netdev import NetdevInfo
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.rtnetlink import LinkInfo
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType, XdpAction
from xdpkit.uapi.netlink import NetlinkProtocol

LRO = "rx-lro"
GRO = "rx-gro"
GRO_HW = "rx-gro-hw"

_BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth pair.

    Attributes:
        link: what rtnetlink says of it.
        channels: its queues in use; None where it is in another namespace.
        gro: whether it has GRO; None where it is in another namespace, or does not say.
    """

    link: LinkInfo
    channels: Channels | None
    gro: bool | None


@dataclass(frozen=True, slots=True)
class Observation:
    """All that was asked about an interface.

    Attributes:
        interface, link: what rtnetlink says.
        kernel: the running kernel.
        machine: as ``uname -m`` shows it. page_size: in bytes.
        has_family: whether the kernel has the ``netdev`` family (Linux 6.3).
        netdev: what it says of the interface; None without the family.
        takes_programs: whether the driver has ``ndo_bpf``, with the evidence; asked only where
            netdev says that there is no native XDP.
        channels: queues in use, None where the driver does not say.
        offloads: the receive offloads that matter to XDP, by kernel name.
        peer: of a veth; None: it could not be looked at, with the reason in ``peer_unknown``.
        peer_unknown: why there is no peer.
        program_names: of what is attached, by program id; without those that may not be looked at.
    """

    interface: Interface
    link: LinkInfo
    kernel: Kernel
    machine: str
    page_size: int
    has_family: bool = False
    netdev: NetdevInfo | None = None
    takes_programs: tuple[Answer, str] = (Answer.UNKNOWN, "not asked")
    channels: Channels | None = None
    offloads: Mapping[str, Offload] = field(default_factory=dict)
    peer: Peer | None = None
    peer_unknown: str | None = None
    program_names: Mapping[int, str] = field(default_factory=dict)


def observe(iface: str | int, *, netns_name: str | None = None) -> Observation:
    """Ask the kernel about an interface.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    system = os.uname()
    with netns.entered(netns_name), contextlib.ExitStack() as sockets:
        route = sockets.enter_context(NetlinkSocket())
        generic = sockets.enter_context(NetlinkSocket(NetlinkProtocol.GENERIC))
        link = find(route, iface, netns=netns_name)
        family = netdev.find_family(generic)
        said = netdev.get_device(generic, family, link.index) if family is not None else None
        peer, peer_unknown = _look_at_peer(route, link) if link.kind == "veth" else (None, None)
        return Observation(
            interface=described(route, link, netns_name, route.netns_cookie()),
            link=link,
            kernel=Kernel.parse(system.release),
            machine=system.machine,
            page_size=os.sysconf("SC_PAGE_SIZE"),
            has_family=family is not None,
            netdev=said,
            takes_programs=_ask_by_binding(link)
            if said is not None and not said.features
            else (Answer.UNKNOWN, "not asked"),
            channels=ethtool.channels_of(route, link.index),
            offloads=ethtool.offloads_of(route, link.index, LRO, GRO_HW),
            peer=peer,
            peer_unknown=peer_unknown,
            program_names=_program_names(link),
        )


def _look_at_peer(route: NetlinkSocket, link: LinkInfo) -> tuple[Peer | None, str | None]:
    if link.peer_index is None:
        return None, "it has none"
    try:
        found = rtnetlink.get_link(
            route,
            index=link.peer_index,
            netns_id=link.peer_netns_id,
            what=f"look at the peer of {link.name}",
        )
    except MissingPrivilege:
        return None, "its namespace may not be looked into without CAP_NET_ADMIN there"
    except KernelRefused as error:
        return None, f"looking at it failed with {errno_name(error.errno or 0)}"
    if link.peer_netns_id is not None:
        # ethtool's ioctl reaches the socket's own namespace only.
        return Peer(found, channels=None, gro=None), None
    return peer_seen_from(route, found), None


def peer_seen_from(route: NetlinkSocket, link: LinkInfo) -> Peer:
    """Return what an interface says as the peer of another one, in its own namespace.

    Args:
        route: a socket of that namespace. link: what rtnetlink says of it.
    """
    gro = ethtool.offloads_of(route, link.index, GRO).get(GRO)
    channels = ethtool.channels_of(route, link.index)
    return Peer(link, channels, gro.active if gro is not None else None)


def _ask_by_binding(link: LinkInfo) -> tuple[Answer, str]:
    """Return whether an interface's driver has ndo_bpf, by loading a program bound to it.

    Nothing gets attached. Linux 6.3 (2b3486bc2d23): BPF_F_XDP_DEV_BOUND_ONLY; a driver without
    ndo_bpf is refused in bpf_prog_dev_bound_init(), kernel/bpf/offload.c.
    """
    # Few interfaces are asked; the rest do without the import.
    from xdpkit.isa import asm, encode
    from xdpkit.isa.opcodes import Register

    code = encode((asm.mov(Register.R0, XdpAction.PASS), asm.exit()), byteorder=_BYTEORDER)
    bound = bpf.NewProgram(
        type=ProgType.XDP,
        code=code,
        license="GPL",
        attach_type=AttachType.XDP,
        flags=ProgFlags.XDP_DEV_BOUND_ONLY,
        ifindex=link.index,
    )
    question = f"BPF_PROG_LOAD of a program bound to {link.name}"
    try:
        bpf.prog_load(bound, what="probe").close()
    except KernelRefused as error:
        answer = Answer.NO if error.errno == errno.EOPNOTSUPP else Answer.UNKNOWN
        return answer, f"{question}: {errno_name(error.errno or 0)}"
    except XdpkitError as error:
        return Answer.UNKNOWN, f"{question}: {error.cause}"
    return Answer.YES, f"{question}: accepted"


def _program_names(link: LinkInfo) -> dict[int, str]:
    found = {}
    for number in (link.xdp.native, link.xdp.generic, link.xdp.offload):
        # Without CAP_SYS_ADMIN programs cannot be looked at; then the id has to do.
        with contextlib.suppress(XdpkitError):
            opened = bpf.fd_by_id(bpf.ObjectKind.PROGRAM, number) if number is not None else None
            if number is not None and opened is not None:
                with opened:
                    info, _ = bpf.prog_info(opened.fileno())
                    found[number] = info.name.decode("utf-8", "backslashreplace")
    return found
