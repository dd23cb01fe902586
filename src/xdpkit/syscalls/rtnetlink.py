# SPDX-License-Identifier: Apache-2.0
"""Interfaces in rtnetlink: ``RTM_GETLINK``, one or all, and ``RTM_SETLINK`` for a hook's program.

The codec (:func:`encode_selector`, :func:`decode_link`, :func:`encode_set_xdp`) is pure;
:func:`get_link`, :func:`find_links`, :func:`dump_links` and :func:`set_xdp` use it on a
:class:`~xdpkit.syscalls.netlink.NetlinkSocket`.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from xdpkit.errors import KernelRefused
from xdpkit.syscalls.netlink import (
    Message,
    NetlinkSocket,
    decode_attributes,
    decode_number,
    decode_text,
    encode_attribute,
    encode_nested,
)
from xdpkit.uapi.if_link import (
    IFNAMSIZ,
    ExtMask,
    Ifla,
    IflaInfo,
    IflaXdp,
    RouteMessage,
    XdpAttached,
    XdpFlags,
)

# struct ifinfomsg: family, padding, type, index, flags, change
_IFINFOMSG = struct.Struct("=BxHiII")

_LIST = "list the interfaces"

# A list costs as much as some requests even where it has nothing else.
_FEW = 32

NO_PROGRAM = -1
"""In place of a descriptor: no program."""


@dataclass(frozen=True, slots=True)
class XdpIds:
    """The ids of the programs on an interface's hooks; None where there is none.

    The software hook is held natively or generically, never both ways; the hardware's comes beside
    it.
    """

    native: int | None = None
    generic: int | None = None
    offload: int | None = None

    def __bool__(self) -> bool:
        return (self.native, self.generic, self.offload) != (None, None, None)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What ``RTM_NEWLINK`` says of an interface, as far as xdpkit uses it.

    Attributes:
        index: interface index, unique within the network namespace.
        hardware_type: ``ARPHRD_*``: 1 for Ethernet.
        name: interface name, with bytes that are not UTF-8 escaped.
        flags: ``IFF_*``.
        mtu: bytes, without the Ethernet header.
        kind: link type of a virtual device ("veth"), None for hardware.
        rx_queues, tx_queues: how many the device was made with; it may use fewer.
        peer_index: index of the device that this one is stacked on or paired with, or None.
        peer_netns_id: id of the namespace in which peer_index counts; None: the same namespace.
        xdp: attached programs.
        mac: hardware address; empty where it has none.
    """

    index: int
    hardware_type: int
    name: str
    flags: int
    mtu: int
    kind: str | None
    rx_queues: int
    tx_queues: int
    peer_index: int | None
    peer_netns_id: int | None
    xdp: XdpIds
    mac: bytes = b""


def encode_selector(
    *,
    index: int = 0,
    name: str | None = None,
    netns_id: int | None = None,
    statistics: bool = False,
) -> bytes:
    """Return the payload of an ``RTM_GETLINK`` for one interface, or for all without a selector.

    Args:
        statistics: whether the answer is to have them.
        netns_id: the namespace in which to look, as the socket's namespace numbers it; None: the
            socket's own. Linux 4.15 (79e1ad148c84): IFLA_IF_NETNSID.
    """
    payload = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    if not statistics:
        payload += encode_attribute(Ifla.EXT_MASK, struct.pack("=I", ExtMask.SKIP_STATS))
    if netns_id is not None:
        payload += encode_attribute(Ifla.TARGET_NETNSID, struct.pack("=i", netns_id))
    if name is not None:
        encoded = name.encode("utf-8", "surrogateescape") + b"\0"
        # Only alternative names (Linux 5.5) are longer.
        kind = Ifla.IFNAME if len(encoded) <= IFNAMSIZ else Ifla.ALT_IFNAME
        payload += encode_attribute(kind, encoded)
    return payload


def decode_link(payload: bytes) -> LinkInfo:
    """Return what an ``RTM_NEWLINK`` message says.

    Raises:
        KernelRefused: EBADMSG: the message is malformed.
    """
    attributes = decode_link_attributes(payload)
    _, hardware_type, index, flags, _ = _IFINFOMSG.unpack_from(payload)

    def number(kind: Ifla) -> int | None:
        value = attributes.get(kind)
        return decode_number(value) if value is not None else None

    link_kind = decode_attributes(attributes.get(Ifla.LINKINFO, b"")).get(IflaInfo.KIND)
    netns_id = number(Ifla.LINK_NETNSID)
    return LinkInfo(
        index=index,
        hardware_type=hardware_type,
        name=decode_text(attributes.get(Ifla.IFNAME, b"")),
        flags=flags,
        mtu=number(Ifla.MTU) or 0,
        kind=decode_text(link_kind) if link_kind is not None else None,
        rx_queues=number(Ifla.NUM_RX_QUEUES) or 0,
        tx_queues=number(Ifla.NUM_TX_QUEUES) or 0,
        peer_index=number(Ifla.LINK) or None,
        peer_netns_id=netns_id,
        xdp=decode_xdp(attributes.get(Ifla.XDP, b"")),
        mac=attributes.get(Ifla.ADDRESS, b""),
    )


def decode_link_attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes in an ``RTM_NEWLINK`` message, by number.

    Raises:
        KernelRefused: EBADMSG: the message is malformed.
    """
    if len(payload) < _IFINFOMSG.size:
        raise KernelRefused(
            "read RTM_NEWLINK",
            errno=errno.EBADMSG,
            cause=f"its header has {len(payload)} bytes, not {_IFINFOMSG.size}",
        )
    return decode_attributes(payload[_IFINFOMSG.size :])


def decode_xdp(nested: bytes) -> XdpIds:
    """Return the program ids in an ``IFLA_XDP`` attribute.

    Raises:
        KernelRefused: EBADMSG: the attribute is malformed.
    """
    attributes = {kind: decode_number(value) for kind, value in decode_attributes(nested).items()}

    def program(kind: IflaXdp, attached: XdpAttached) -> int | None:
        if kind in attributes:
            return attributes[kind]
        # Linux 4.19 (a25717d2b604): before, there was one program, and its mode told apart.
        if attributes.get(IflaXdp.ATTACHED) == attached:
            return attributes.get(IflaXdp.PROG_ID)
        return None

    return XdpIds(
        native=program(IflaXdp.DRV_PROG_ID, XdpAttached.DRV),
        generic=program(IflaXdp.SKB_PROG_ID, XdpAttached.SKB),
        offload=program(IflaXdp.HW_PROG_ID, XdpAttached.HW),
    )


def get_link(
    connection: NetlinkSocket,
    *,
    index: int = 0,
    name: str | None = None,
    netns_id: int | None = None,
    what: str,
) -> LinkInfo:
    """Return one interface, by index or by (alternative) name.

    Args:
        netns_id: the namespace in which to look, as the socket's namespace numbers it; None: the
            socket's own.

    Raises:
        MissingPrivilege: looking into another namespace takes CAP_NET_ADMIN there.
        KernelRefused: ENODEV: there is none; ERANGE: the name is longer than any can be.
    """
    answers = connection.request(
        RouteMessage.GETLINK, encode_selector(index=index, name=name, netns_id=netns_id), what=what
    )
    links = _decode_links(answers)
    if not links:
        raise KernelRefused(what, errno=errno.ENODEV, cause="the kernel's answer is empty")
    return links[0]


def dump_links(connection: NetlinkSocket) -> tuple[LinkInfo, ...]:
    """Return all interfaces of the socket's namespace, by index.

    Raises:
        KernelRefused: EAGAIN: they kept changing.
    """
    answers = connection.dump(RouteMessage.GETLINK, encode_selector(), what=_LIST)
    return tuple(sorted(_decode_links(answers), key=lambda link: link.index))


def links_now(connection: NetlinkSocket) -> dict[int, LinkInfo]:
    """Return the interfaces of the socket's namespace by index, whatever happens meanwhile.

    Those that come, go or change while they are listed may be missing. So whoever changes them all
    the time keeps nobody from seeing the others.
    """
    answers = connection.dump(RouteMessage.GETLINK, encode_selector(), what=_LIST, consistent=False)
    return {link.index: link for link in _decode_links(answers)}


def find_links(
    connection: NetlinkSocket, indexes: Collection[int], *, what: str
) -> dict[int, LinkInfo]:
    """Return those of some interfaces that are there, by index.

    A few are asked for one by one, as there may be many others. Many are taken from a list of all,
    and those that it has not, perhaps since others changed meanwhile, are asked for.

    Args:
        indexes: in the socket's namespace. what: what is being tried, for errors.

    Raises:
        KernelRefused: the kernel refused.
    """
    found: dict[int, LinkInfo] = {}
    if len(indexes) > _FEW:
        listed = links_now(connection)
        found = {index: listed[index] for index in indexes if index in listed}
    for index in indexes:
        if index not in found:
            link = find_link(connection, index=index, what=what)
            if link is not None:
                found[index] = link
    return found


def find_link(
    connection: NetlinkSocket,
    *,
    index: int = 0,
    name: str | None = None,
    netns_id: int | None = None,
    what: str,
) -> LinkInfo | None:
    """Return one interface, None where there is none; see :func:`get_link`."""
    try:
        return get_link(connection, index=index, name=name, netns_id=netns_id, what=what)
    except KernelRefused as error:
        # ERANGE: the name is longer than any can be.
        if error.errno not in (errno.ENODEV, errno.ERANGE):
            raise
        return None


def encode_set_xdp(
    index: int, *, fd: int, flags: XdpFlags | int, expected: int | None = None
) -> bytes:
    """Return the payload of the ``RTM_SETLINK`` that :func:`set_xdp` sends."""
    attributes = [(IflaXdp.FD, struct.pack("=i", fd))]
    if expected is not None:
        flags |= XdpFlags.REPLACE
        attributes.append((IflaXdp.EXPECTED_FD, struct.pack("=i", expected)))
    attributes.append((IflaXdp.FLAGS, struct.pack("=I", flags)))
    header = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return header + encode_nested(Ifla.XDP, attributes)


def set_xdp(
    connection: NetlinkSocket,
    index: int,
    *,
    fd: int,
    flags: XdpFlags | int,
    expected: int | None = None,
    what: str,
) -> None:
    """Put a program on an interface's hook in one step, or take it off.

    The program stays until somebody takes it off, whatever becomes of this process.

    Args:
        connection: a socket of the interface's namespace.
        fd: the program's descriptor; NO_PROGRAM detaches.
        flags: with UPDATE_IF_NOEXIST the hook must be empty; the mode, DRV_MODE, SKB_MODE or
            HW_MODE, should be said: without one the driver's ability decides.
        expected: a descriptor of the program that must be there now, NO_PROGRAM if none may be;
            None: whatever is there. It adds XDP_FLAGS_REPLACE, Linux 5.7 (92234c8f15c8).

    Raises:
        MissingPrivilege: it takes CAP_NET_ADMIN in the interface's namespace.
        KernelRefused: with the kernel's words in ``extack`` where it has any. EBUSY: the hook is
            occupied, or a link holds it; EEXIST: another program is there than the expected one,
            or the other software mode is in use; EINVAL, among others: a kernel before 5.7 was
            told what to expect; ENODEV: there is no such interface.

    ``do_setlink()`` in net/core/rtnetlink.c, ``dev_xdp_attach()`` in net/core/dev.c.
    """
    payload = encode_set_xdp(index, fd=fd, flags=flags, expected=expected)
    connection.request(RouteMessage.SETLINK, payload, what=what)


def _decode_links(answers: tuple[Message, ...]) -> list[LinkInfo]:
    return [
        _decoded(message.payload) for message in answers if message.type == RouteMessage.NEWLINK
    ]


# Whoever looks again and again is mostly told the same again.
_decoded = functools.lru_cache(maxsize=4096)(decode_link)
