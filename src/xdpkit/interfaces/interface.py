# SPDX-License-Identifier: Apache-2.0
"""An interface as a value, and how to find it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from xdpkit.errors import KernelRefused, UsageError
from xdpkit.syscalls import ethtool, netns, rtnetlink
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.rtnetlink import LinkInfo, XdpIds
from xdpkit.uapi.if_link import ALTIFNAMSIZ


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface at one moment.

    Names and indexes are reused, and interfaces move between namespaces: netns_cookie and index
    together identify one, as long as it stays where it is.

    Attributes:
        index: interface index, unique within the network namespace.
        name: interface name.
        netns: the namespace as the caller named it, None for the one that the caller was in.
        netns_cookie: the namespace's number, see :func:`xdpkit.syscalls.netns.cookie`.
        driver: the driver's name as ``ethtool -i`` shows it, None where it has none to show.
        kind: link type of a virtual device ("veth"), None for hardware.
        mtu: bytes, without the Ethernet header.
        rx_queues, tx_queues: how many the device was made with; it may use fewer.
        xdp: ids of the attached programs.
        mac: hardware address; empty where it has none.
    """

    index: int
    name: str
    netns: str | None
    netns_cookie: int
    driver: str | None
    kind: str | None
    mtu: int
    rx_queues: int
    tx_queues: int
    xdp: XdpIds
    mac: bytes = b""


def resolve(interface: str | int, *, netns: str | None = None) -> Interface:
    """Return the interface with this name, alternative name or index.

    Args:
        interface: a string is a name, even if it looks like a number; an int is an index.
        netns: name or path of a network namespace; None: the caller's own.

    Raises:
        UsageError: there is no such interface or namespace, or the name cannot be one.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    cookie, connection = _connect(netns)
    with connection:
        link = find(connection, interface, netns=netns)
        return described(connection, link, netns, cookie)


def find(connection: NetlinkSocket, interface: str | int, *, netns: str | None) -> LinkInfo:
    """Return what rtnetlink says of the interface with this name, alternative name or index.

    Args:
        connection: a socket of the interface's namespace.
        interface: a name or an index, as for :func:`resolve`.
        netns: the namespace as the caller named it, for errors.

    Raises:
        UsageError: there is no such interface, or the name cannot be one.
    """
    what = f"find interface {interface!r}"
    _check_selector(interface, what)
    try:
        if isinstance(interface, int):
            return rtnetlink.get_link(connection, index=interface, what=what)
        return rtnetlink.get_link(connection, name=interface, what=what)
    except KernelRefused as error:
        if error.errno != errno.ENODEV:
            raise
        place = f"network namespace {netns}" if netns is not None else "this network namespace"
        raise UsageError(what, cause=f"{place} has no such interface") from None


def list_all(*, netns: str | None = None) -> tuple[Interface, ...]:
    """Return all interfaces of a network namespace, by index.

    Raises:
        UsageError: there is no such namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
        KernelRefused: the interfaces kept changing while they were listed (EAGAIN).
    """
    cookie, connection = _connect(netns)
    with connection:
        return tuple(
            described(connection, link, netns, cookie) for link in rtnetlink.dump_links(connection)
        )


def rx_queues_in_use(interface: Interface) -> int | None:
    """Return how many RX queues an interface uses now (``ethtool -L``), None if it does not say.

    Raises:
        UsageError: its namespace is gone.
    """
    _, connection = _connect(interface.netns)
    with connection:
        channels = ethtool.channels_of(connection, interface.index)
    return channels.rx if channels is not None else None


def _connect(name: str | None) -> tuple[int, NetlinkSocket]:
    """Return a namespace's cookie and a socket that stays in it."""
    with netns.entered(name):
        connection = NetlinkSocket()
        try:
            return connection.netns_cookie(), connection
        except BaseException:
            connection.close()
            raise


def described(
    connection: NetlinkSocket, link: LinkInfo, netns_name: str | None, cookie: int
) -> Interface:
    """Return the interface that rtnetlink says this of."""
    return Interface(
        index=link.index,
        name=link.name,
        netns=netns_name,
        netns_cookie=cookie,
        driver=ethtool.driver_of(connection, link.index),
        kind=link.kind,
        mtu=link.mtu,
        rx_queues=link.rx_queues,
        tx_queues=link.tx_queues,
        xdp=link.xdp,
        mac=link.mac,
    )


def _check_selector(interface: str | int, what: str) -> None:
    if isinstance(interface, int):
        if not 0 < interface < 1 << 31:
            raise UsageError(what, cause="an interface's index is positive and below 2**31")
        return
    length = len(interface.encode("utf-8", "surrogateescape"))
    if not 0 < length < ALTIFNAMSIZ or "\0" in interface:
        raise UsageError(what, cause="that cannot be an interface's name")
