# SPDX-License-Identifier: Apache-2.0
"""What an event looks like in the ring buffer: ``struct event`` of bpf/events.c, as a value.

Pure: bytes in, values out. Programs on tracepoints and the taps of :mod:`xdpkit.rewrite.tap` write
such records; both on the same machine, so byte order and alignment are its own.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from xdpkit.errors import ObjectFormatError, errno_name
from xdpkit.uapi.bpf import XdpAction

HEAD = struct.Struct("=QIIIIIIiIIIIIIIII16s")
"""The fixed part of a record; bytes of the packet, or a text, follow.

In this order, with the attributes of :class:`Event` that they become where the names differ: time,
kind, cpu, netns, ifindex, program, action; the negative errno; queue, or of REDIRECT_ERROR and
DEVMAP_XMIT target_netns; length, or of transmissions sent; the number of bytes that follow; target,
map_id, map_type, map_index, drops; flags, of which bit 0 is in_map; and program_name.
"""

NO_QUEUE = 0xFFFF_FFFF
"""The queue of a record whose writer does not know it."""

INVALID = "invalid"
"""The name of all numbers that are no action."""

ACTIONS = (*(action.name.lower() for action in XdpAction), INVALID)
"""The names of actions: those of :data:`xdpkit.rewrite.COUNTED`, which takes long to import."""

BY_IFINDEX = 0x7FFF_FFFF
"""The map id of a redirect without a map, by bpf_redirect(): INT_MAX in include/net/xdp.h."""


class Kind(enum.IntEnum):
    """What told of an event.

    Attributes:
        FRAME: a program that xdpkit attached, in a copy that tells what it returns.
        EXCEPTION: the tracepoint ``xdp:xdp_exception``.
        REDIRECT_ERROR: ``xdp:xdp_redirect_err``.
        DEVMAP_XMIT: ``xdp:xdp_devmap_xmit``.
        BULK_TX: ``xdp:xdp_bulk_tx``.
        CPUMAP_ENQUEUE: ``xdp:xdp_cpumap_enqueue``.
        CPUMAP_KTHREAD: ``xdp:xdp_cpumap_kthread``.
        ATTACH_FAILED: ``xdp:bpf_xdp_link_attach_failed``.
    """

    FRAME = 0
    EXCEPTION = 1
    REDIRECT_ERROR = 2
    DEVMAP_XMIT = 3
    BULK_TX = 4
    CPUMAP_ENQUEUE = 5
    CPUMAP_KTHREAD = 6
    ATTACH_FAILED = 7

    @property
    def title(self) -> str:
        """Its name in JSON: ``redirect_error``."""
        return self.name.lower()


_TRANSMITS = frozenset({Kind.DEVMAP_XMIT, Kind.BULK_TX, Kind.CPUMAP_ENQUEUE, Kind.CPUMAP_KTHREAD})
_WITH_TARGET = frozenset({Kind.REDIRECT_ERROR, Kind.DEVMAP_XMIT})
_KINDS = {int(kind): kind for kind in Kind}
_IN_MAP = 1 << 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as the kernel's side has written it down.

    Attributes:
        time: when, in nanoseconds of CLOCK_MONOTONIC.
        kind: what told of it.
        cpu: the CPU that it happened on.
        netns: the inode number of the network namespace; 0: not known, as of cpumaps.
        ifindex: the interface that the packet came in by; 0: not known. Of a program of a devmap,
            and of BULK_TX, that which was transmitted to.
        program: the program's id, 0: not known. Of a FRAME the logical id.
        program_name: its name as the kernel has it, at most 15 characters; "" where not known.
        in_map: whether it is that of an entry of a devmap or cpumap.
        action: what the program returned, as a number. Of transmissions, what leads to them.
        errno: why it failed, positive; 0: no reason was given.
        queue: the RX queue; None: not known.
        length: bytes of the frame, with all its fragments; None: not known.
        data: the first bytes of the frame.
        target: the index of the interface that it was redirected to; 0: none, or not known.
        target_netns: the inode number of that interface's network namespace; 0: not known.
        map_id, map_type, map_index: by what map, and which key of it, or
            :data:`xdpkit.monitor.layout.INDEX_ALL`; the index of a cpumap is the CPU. Of a redirect
            without a map, the id is BY_IFINDEX, and the index the interface's.
        sent: of transmissions: how many frames were taken.
        drops: of transmissions: how many were lost.
        text: why an attachment failed, in the kernel's words.
    """

    time: int
    kind: Kind
    cpu: int
    netns: int = 0
    ifindex: int = 0
    program: int = 0
    program_name: str = ""
    in_map: bool = False
    action: int = 0
    errno: int = 0
    queue: int | None = None
    length: int | None = None
    data: bytes = b""
    target: int = 0
    target_netns: int = 0
    map_id: int = 0
    map_type: int = 0
    map_index: int = 0
    sent: int = 0
    drops: int = 0
    text: str = ""

    @property
    def action_name(self) -> str:
        """The action's name, one of ACTIONS; "" where there is none."""
        if self.kind is Kind.ATTACH_FAILED:
            return ""
        return ACTIONS[min(self.action, len(ACTIONS) - 1)]

    @property
    def error_name(self) -> str:
        """The errno's name, "" without one."""
        return errno_name(self.errno) if self.errno else ""

    @property
    def is_transmit(self) -> bool:
        """Whether it tells of a bulk of frames that were to be transmitted, not of one frame."""
        return self.kind in _TRANSMITS

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "time": self.time,
            "kind": self.kind.title,
            "cpu": self.cpu,
            "netns": self.netns,
            "ifindex": self.ifindex,
            "program_id": self.program,
            "program": self.program_name,
            "in_map": self.in_map,
            "action": self.action_name,
            "returned": self.action,
            "error": self.error_name,
            "queue": self.queue,
            "length": self.length,
            "data": self.data.hex(),
            "target": self.target,
            "target_netns": self.target_netns,
            "map_id": self.map_id,
            "map_type": self.map_type,
            "map_index": self.map_index,
            "sent": self.sent,
            "drops": self.drops,
            "text": self.text,
        }


def decode(data: bytes) -> Event:
    """Return the event that a record tells.

    What follows the bytes that were captured is ignored: a record may have room for more.

    Raises:
        ObjectFormatError: it is none.
    """
    if len(data) < HEAD.size:
        raise _damaged(f"it has {len(data)} bytes, and needs {HEAD.size}", len(data))
    time, number, cpu, netns, ifindex, program, action, error, *rest = HEAD.unpack_from(data)
    queue, length, captured, target, map_id, map_type, map_index, drops, flags, name = rest
    kind = _KINDS.get(number)
    if kind is None:
        raise _damaged(f"{number} is no kind of event", 8)
    if captured > len(data) - HEAD.size:
        raise _damaged(
            f"it says that {captured} bytes follow, and has {len(data) - HEAD.size}", HEAD.size
        )
    content = data[HEAD.size : HEAD.size + captured]
    is_frame = kind not in _TRANSMITS
    has_target = kind in _WITH_TARGET
    is_text = kind is Kind.ATTACH_FAILED
    return Event(
        time=time,
        kind=kind,
        cpu=cpu,
        netns=netns,
        ifindex=ifindex,
        program=program,
        program_name=_text(name),
        in_map=bool(flags & _IN_MAP),
        action=action,
        errno=-error,
        queue=None if has_target or queue == NO_QUEUE else queue,
        length=length or None if is_frame else None,
        data=b"" if is_text else content,
        target=target,
        target_netns=queue if has_target else 0,
        map_id=map_id,
        map_type=map_type,
        map_index=map_index,
        sent=0 if is_frame else length,
        drops=drops,
        text=_text(content) if is_text else "",
    )


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _damaged(cause: str, offset: int) -> ObjectFormatError:
    return ObjectFormatError(cause, file="a record of an event", offset=offset)
