# SPDX-License-Identifier: Apache-2.0
"""Netlink: the message codec, and a socket that asks the kernel and waits for its answer.

pyroute2 does all this and more, but its import takes longer than a whole ``xdpkit status`` may,
so the few requests on that path are made here. The codec is pure: bytes in, values out.

A message that does not follow the format raises :class:`~xdpkit.errors.KernelRefused` with
``EBADMSG``: whatever it was, no kernel sent it.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from xdpkit.errors import KernelRefused, XdpkitError
from xdpkit.syscalls import netns, privilege
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.netlink import (
    NLA_F_NESTED,
    NLA_TYPE_MASK,
    SOL_NETLINK,
    ErrorAttribute,
    MessageFlags,
    MessageType,
    NetlinkProtocol,
    SocketOption,
)

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: len, type, flags, seq, pid
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: len, type
_ERRNO = struct.Struct("=i")

# The kernel caps a dump's datagrams at 32 KiB; a single answer can be larger and is peeked at.
_DUMP_ATTEMPTS = 8

# As plain numbers: to combine members of an enumeration takes longer than some answers.
_REQUEST = int(MessageFlags.REQUEST | MessageFlags.ACK)
_DUMP = int(MessageFlags.REQUEST | MessageFlags.DUMP)
_DUMP_INTR = int(MessageFlags.DUMP_INTR)
_ACK_TLVS = int(MessageFlags.ACK_TLVS)
_NOOP, _LAST = int(MessageType.NOOP), (int(MessageType.ERROR), int(MessageType.DONE))
_PEEK = int(socket.MSG_PEEK | socket.MSG_TRUNC)

# Not in SocketOption, all of which every socket turns on.
_ADD_MEMBERSHIP = 1  # NETLINK_ADD_MEMBERSHIP
_LISTEN_ALL_NSID = 8  # NETLINK_LISTEN_ALL_NSID


@dataclass(frozen=True, slots=True)
class Message:
    """A netlink message: ``struct nlmsghdr`` without its length, and what follows it."""

    type: int
    flags: int
    sequence: int
    port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What ``NLMSG_ERROR`` says, or ``NLMSG_DONE`` at the end of a dump.

    Attributes:
        errno: 0 for success, else positive.
        text: the kernel's own words (extack), None where it gave none. They can come with success
            too: a warning.
        offset: bytes into the request where the offending attribute begins, or None.
    """

    errno: int
    text: str | None = None
    offset: int | None = None


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _malformed(cause: str) -> KernelRefused:
    return KernelRefused("read a netlink message", errno=errno.EBADMSG, cause=cause)


def encode_message(message: Message) -> bytes:
    """Return a message's bytes, padded to the alignment that a following one needs."""
    length = _HEADER.size + len(message.payload)
    header = _HEADER.pack(length, message.type, message.flags, message.sequence, message.port)
    return header + message.payload + bytes(_aligned(length) - length)


def decode_messages(data: bytes) -> tuple[Message, ...]:
    """Return the messages of a datagram.

    Raises:
        KernelRefused: EBADMSG: a length is shorter than the header or longer than the datagram.
    """
    messages = []
    position = 0
    while position < len(data):
        if len(data) - position < _HEADER.size:
            raise _malformed(f"{len(data) - position} bytes are left, a header has {_HEADER.size}")
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, position)
        if not _HEADER.size <= length <= len(data) - position:
            raise _malformed(
                f"a message claims {length} bytes, the datagram has {len(data) - position} left"
            )
        payload = data[position + _HEADER.size : position + length]
        messages.append(Message(kind, flags, sequence, port, payload))
        position += _aligned(length)
    return tuple(messages)


def encode_attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute's bytes, padded to the alignment that a following one needs."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def encode_nested(kind: int, attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Return an attribute that holds other attributes."""
    return encode_attribute(
        kind | NLA_F_NESTED, b"".join(encode_attribute(inner, value) for inner, value in attributes)
    )


def decode_attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by number, without their flag bits; of a repeated one, the last.

    Raises:
        KernelRefused: EBADMSG: a length is shorter than the header or longer than the data.
    """
    attributes = {}
    position, end, unpack = 0, len(data), _ATTRIBUTE.unpack_from
    # Up to three bytes may be left over: padding, which the kernel's own parser ignores too.
    while end - position >= 4:
        length, kind = unpack(data, position)
        kind &= NLA_TYPE_MASK
        if not 4 <= length <= end - position:
            raise _malformed(
                f"attribute {kind} claims {length} bytes, the message has {end - position} left"
            )
        attributes[kind] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return attributes


def decode_text(value: bytes) -> str:
    """Return a string attribute's text: up to its NUL, bytes that are not UTF-8 escaped."""
    return value.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def decode_number(value: bytes) -> int:
    """Return an unsigned attribute of 1, 2, 4 or 8 bytes, in the machine's byte order.

    Raises:
        KernelRefused: EBADMSG: any other length.
    """
    format_ = {1: "=B", 2: "=H", 4: "=I", 8: "=Q"}.get(len(value))
    if format_ is None:
        raise _malformed(f"a number has {len(value)} bytes")
    (number,) = struct.unpack(format_, value)
    return int(number)


def decode_acknowledgement(message: Message) -> Acknowledgement:
    """Return what an ``NLMSG_ERROR`` or ``NLMSG_DONE`` says.

    Raises:
        KernelRefused: EBADMSG: too short, or the errno is positive.
    """
    payload = message.payload
    if message.type == MessageType.DONE and not payload:
        return Acknowledgement(0)
    if len(payload) < _ERRNO.size:
        raise _malformed(f"an acknowledgement has {len(payload)} bytes")
    (negative,) = _ERRNO.unpack_from(payload)
    if negative > 0:
        raise _malformed(f"an acknowledgement's errno is {negative}, not zero or negative")
    if not message.flags & _ACK_TLVS:
        return Acknowledgement(-negative)
    attributes = decode_attributes(payload[_attributes_of_acknowledgement(message) :])
    text = attributes.get(ErrorAttribute.MSG)
    offset = attributes.get(ErrorAttribute.OFFS)
    return Acknowledgement(
        -negative,
        text=decode_text(text) if text is not None else None,
        offset=decode_number(offset) if offset is not None else None,
    )


def _attributes_of_acknowledgement(message: Message) -> int:
    """Return where the attributes begin: behind the request, which an ``NLMSG_ERROR`` repeats."""
    if message.type == MessageType.DONE:
        return _ERRNO.size
    if len(message.payload) < _ERRNO.size + _HEADER.size:
        raise _malformed("an acknowledgement ends within the request that it answers")
    length = _HEADER.unpack_from(message.payload, _ERRNO.size)[0]
    if message.flags & MessageFlags.CAPPED:
        return _ERRNO.size + _HEADER.size
    if not _HEADER.size <= length <= len(message.payload) - _ERRNO.size:
        raise _malformed(f"an acknowledgement claims that the request had {length} bytes")
    return _ERRNO.size + _aligned(length)


class NetlinkSocket(Closing):
    """A netlink socket of the network namespace in which it was made.

    Extended acknowledgements, capped acknowledgements and strict checking of requests are on where
    the kernel has them. A context manager; not to be shared between threads.
    """

    def __init__(self, protocol: NetlinkProtocol = NetlinkProtocol.ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._sequences = itertools.count(1)
        try:
            for option in SocketOption:
                self._enable(option)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def _enable(self, option: SocketOption) -> None:
        try:
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError as error:
            # Linux 4.12 (2d4bc93368f5): EXT_ACK. Linux 4.20 (89d35528d17d): GET_STRICT_CHK.
            # Both only make the answers better.
            if error.errno != errno.ENOPROTOOPT:
                raise

    def close(self) -> None:
        """Close the socket; safe to repeat."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    def netns_cookie(self) -> int:
        """Return the number of the namespace, where the calling thread has to be still.

        Raises:
            RequirementUnmet: see :func:`xdpkit.syscalls.netns.cookie`.
        """
        return netns.cookie_by(self._socket)

    def join(self, group: int) -> None:
        """Receive a multicast group's notifications from now on, by :meth:`notifications`.

        A socket that has joined a group is for that only: its requests would drop notifications.

        Raises:
            KernelRefused: the protocol has no such group.
        """
        try:
            self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            raise KernelRefused(
                f"join netlink group {group}", errno=error.errno or errno.EIO
            ) from error

    def hear_other_namespaces(self) -> bool:
        """Receive notifications also from namespaces that this one has a number for.

        Return whether that is possible: it takes CAP_NET_BROADCAST.
        """
        try:
            self._socket.setsockopt(SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOPROTOOPT):
                raise
            return False
        return True

    def notifications(self) -> tuple[Message, ...] | None:
        """Return the notifications that have come, without waiting; empty for none.

        None says that some were lost, because they came faster than they were read: whatever they
        were about has to be looked at again.

        Raises:
            KernelRefused: the socket failed.
        """
        received: list[Message] = []
        try:
            while True:
                received += decode_messages(self._datagram(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return tuple(received)
        except XdpkitError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise KernelRefused(
                "read netlink notifications",
                errno=error.errno or errno.EIO,
                cause="the netlink socket failed",
            ) from error

    def request(self, kind: int, payload: bytes, *, what: str) -> tuple[Message, ...]:
        """Send a request, wait for its acknowledgement, and return what came before that.

        Args:
            kind: message type. payload: what follows the header.
            what: what is being tried, for errors.

        Raises:
            KernelRefused: the request was refused; ``extack`` has the kernel's own words.
            MissingPrivilege: it takes CAP_NET_ADMIN.
        """
        request = Message(kind, _REQUEST, next(self._sequences), 0, payload)
        answers, _ = self._exchange(request, what)
        return answers

    def dump(
        self, kind: int, payload: bytes, *, what: str, consistent: bool = True
    ) -> tuple[Message, ...]:
        """Ask for all objects of a kind and return them as one consistent snapshot.

        Args:
            kind: message type. payload: what follows the header.
            what: what is being tried, for errors.
            consistent: False: objects that change meanwhile may be missing, or there twice.

        Raises:
            KernelRefused: refused; or EAGAIN: the objects kept changing during the dump.
            MissingPrivilege: it takes CAP_NET_ADMIN.
        """
        for _ in range(_DUMP_ATTEMPTS):
            request = Message(kind, _DUMP, next(self._sequences), 0, payload)
            answers, is_consistent = self._exchange(request, what)
            if is_consistent or not consistent:
                return answers
        raise KernelRefused(
            what, errno=errno.EAGAIN, cause=f"changes interrupted all {_DUMP_ATTEMPTS} attempts"
        )

    def _exchange(self, request: Message, what: str) -> tuple[tuple[Message, ...], bool]:
        """Return the answers, and whether nothing changed while they were made."""
        answers = []
        consistent = True
        try:
            self._socket.send(encode_message(request))
            while True:
                for message in decode_messages(self._datagram()):
                    # Answers to an earlier request whose reading was interrupted may still queue.
                    if message.sequence != request.sequence or message.type == _NOOP:
                        continue
                    consistent = consistent and not message.flags & _DUMP_INTR
                    if message.type not in _LAST:
                        answers.append(message)
                        continue
                    acknowledgement = decode_acknowledgement(message)
                    if acknowledgement.errno:
                        raise _refusal(what, acknowledgement)
                    return tuple(answers), consistent
        except XdpkitError:
            raise
        except OSError as error:
            raise KernelRefused(
                what, errno=error.errno or errno.EIO, cause="the netlink socket failed"
            ) from error

    def _datagram(self, flags: int = 0) -> bytes:
        """Return the next datagram that the kernel, port 0, sent; others cannot answer for it."""
        while True:
            size = self._socket.recv_into(bytearray(1), 1, _PEEK | flags)
            data, sender = self._socket.recvfrom(max(size, 1), flags)
            if sender[0] == 0:
                return data


def _refusal(what: str, acknowledgement: Acknowledgement) -> XdpkitError:
    if acknowledgement.errno == errno.EPERM:
        return privilege.explain_eperm(what, (Capability.NET_ADMIN,), acknowledgement.text)
    return KernelRefused(what, errno=acknowledgement.errno, extack=acknowledgement.text)
