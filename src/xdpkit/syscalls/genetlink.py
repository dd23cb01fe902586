# SPDX-License-Identifier: Apache-2.0
"""Generic netlink: find a family by its name, and talk to it.

Family and group numbers are given out at boot and when modules load, so they are asked for each
time, unless a family can be in no module. The codec (:func:`encode_payload`,
:func:`decode_payload`, :func:`decode_family`) is pure.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from xdpkit.errors import KernelRefused
from xdpkit.syscalls.netlink import (
    Message,
    NetlinkSocket,
    decode_attributes,
    decode_number,
    decode_text,
    encode_attribute,
)
from xdpkit.uapi.genetlink import GENL_ID_CTRL, CtrlAttribute, CtrlCommand, CtrlGroupAttribute

_HEADER = struct.Struct("=BBxx")  # struct genlmsghdr: command, version
_CTRL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Family:
    """A generic netlink family as the running kernel numbers it.

    Attributes:
        id: the message type of the family's requests and answers.
        version: the family's version, which requests repeat.
        groups: numbers of the multicast groups by name, to be joined by a socket.
    """

    id: int
    version: int
    groups: Mapping[str, int] = field(default_factory=dict)


def encode_payload(command: int, version: int, attributes: bytes = b"") -> bytes:
    """Return the payload of a message: the family's header and attributes."""
    return _HEADER.pack(command, version) + attributes


def decode_payload(payload: bytes) -> tuple[int, dict[int, bytes]]:
    """Return a message's command and attributes.

    Raises:
        KernelRefused: EBADMSG: the payload is malformed.
    """
    if len(payload) < _HEADER.size:
        raise KernelRefused(
            "read a generic netlink message",
            errno=errno.EBADMSG,
            cause=f"its header has {len(payload)} bytes, not {_HEADER.size}",
        )
    command, _ = _HEADER.unpack_from(payload)
    return command, decode_attributes(payload[_HEADER.size :])


def decode_family(payload: bytes) -> Family:
    """Return what the controller says of a family.

    Raises:
        KernelRefused: EBADMSG: the message is malformed, or has no family number.
    """
    _, attributes = decode_payload(payload)
    if CtrlAttribute.FAMILY_ID not in attributes:
        raise KernelRefused(
            "read CTRL_CMD_GETFAMILY", errno=errno.EBADMSG, cause="the answer has no family number"
        )
    groups = {}
    for entry in decode_attributes(attributes.get(CtrlAttribute.MCAST_GROUPS, b"")).values():
        group = decode_attributes(entry)
        name, number = group.get(CtrlGroupAttribute.NAME), group.get(CtrlGroupAttribute.ID)
        if name is not None and number is not None:
            groups[decode_text(name)] = decode_number(number)
    return Family(
        id=decode_number(attributes[CtrlAttribute.FAMILY_ID]),
        version=decode_number(attributes.get(CtrlAttribute.VERSION, b"\1")),
        groups=groups,
    )


def find_family(connection: NetlinkSocket, name: str) -> Family | None:
    """Return the family with this name, None where the kernel has none (or not loaded).

    Raises:
        KernelRefused: the controller refused for another reason.
    """
    request = encode_payload(
        CtrlCommand.GETFAMILY,
        _CTRL_VERSION,
        encode_attribute(CtrlAttribute.FAMILY_NAME, name.encode() + b"\0"),
    )
    try:
        answers = connection.request(
            GENL_ID_CTRL, request, what=f"find generic netlink family {name}"
        )
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    return decode_family(answers[0].payload) if answers else None


def ask(
    connection: NetlinkSocket, family: Family, command: int, attributes: bytes, *, what: str
) -> tuple[Message, ...]:
    """Send a request to a family and return the answers.

    Raises:
        KernelRefused: refused; ``extack`` has the kernel's own words.
        MissingPrivilege: refused with EPERM.
    """
    return connection.request(
        family.id, encode_payload(command, family.version, attributes), what=what
    )


def ask_all(
    connection: NetlinkSocket, family: Family, command: int, *, what: str
) -> tuple[Message, ...]:
    """Ask a family for all objects of a kind.

    Raises:
        KernelRefused: refused; or EAGAIN: the objects kept changing during the dump.
        MissingPrivilege: refused with EPERM.
    """
    return connection.dump(family.id, encode_payload(command, family.version), what=what)
