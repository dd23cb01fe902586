# SPDX-License-Identifier: Apache-2.0
"""The numbers by which a network namespace refers to others (``RTM_GETNSID``, ``RTM_NEWNSID``).

A link's ``IFLA_LINK_NETNSID`` is such a number: it counts in the namespace of who asks, and says
nothing about how to enter the other one.
"""

from __future__ import annotations

import errno
import struct

from xdpkit.errors import KernelRefused, MissingPrivilege
from xdpkit.syscalls.netlink import NetlinkSocket, decode_attributes, encode_attribute
from xdpkit.uapi.net_namespace import NETNSA_NSID_NOT_ASSIGNED, NamespaceMessage, Netnsa

# struct rtgenmsg: family, padded to the attributes' alignment.
_RTGENMSG = struct.Struct("=Bxxx")
_DESCRIPTOR = struct.Struct("=I")
_NUMBER = struct.Struct("=i")


def netns_id_of(connection: NetlinkSocket, descriptor: int) -> int | None:
    """Return the number that the socket's namespace has for another one; None: it has none.

    Args:
        descriptor: of the other namespace's file.

    Raises:
        KernelRefused: EINVAL: the file is no network namespace's.

    Linux 3.20 (0c7aecd4bde4); ``rtnl_net_getid()`` in net/core/net_namespace.c.
    """
    payload = _of(descriptor)
    answers = connection.request(
        NamespaceMessage.GETNSID, payload, what="tell network namespaces apart"
    )
    for message in answers:
        if message.type == NamespaceMessage.NEWNSID:
            value = decode_attributes(message.payload[_RTGENMSG.size :]).get(Netnsa.NSID, b"")
            if len(value) == _NUMBER.size:
                (number,) = _NUMBER.unpack(value)
                return None if number == NETNSA_NSID_NOT_ASSIGNED else int(number)
    return None


def give_number(connection: NetlinkSocket, descriptor: int) -> bool:
    """Have the socket's namespace number another one; return whether it has a number now.

    Args:
        descriptor: of the other namespace's file.

    Raises:
        KernelRefused: EINVAL: the file is no network namespace's.

    It takes CAP_NET_ADMIN. ``rtnl_net_newid()`` in net/core/net_namespace.c.
    """
    payload = _of(descriptor)
    payload += encode_attribute(Netnsa.NSID, _NUMBER.pack(NETNSA_NSID_NOT_ASSIGNED))
    try:
        connection.request(
            NamespaceMessage.NEWNSID, payload, what="give a network namespace a number"
        )
    except MissingPrivilege:
        return False
    except KernelRefused as error:
        if error.errno != errno.EEXIST:
            raise
    return True


def _of(descriptor: int) -> bytes:
    return _RTGENMSG.pack(0) + encode_attribute(Netnsa.FD, _DESCRIPTOR.pack(descriptor))
