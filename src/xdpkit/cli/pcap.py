# SPDX-License-Identifier: Apache-2.0
"""Packet captures: reads pcap and pcapng, writes pcap.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. A file is read as a stream, one packet
at a time, and whatever it claims, no more than :data:`MAX_BLOCK` bytes of it are held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from xdpkit.errors import ObjectFormatError

LINKTYPE_ETHERNET = 1

MAX_PACKET = 256 << 10
"""Bytes; what tcpdump captures at most."""
MAX_BLOCK = 16 << 20
"""Bytes; the largest block of a pcapng file that is read."""

RECORD_HEADER = 16
"""Bytes in front of each packet in a pcap file."""

_NS = 1_000_000_000
_NANOSECOND_MAGIC = 0xA1B23C4D
# Magic as the first four bytes → byte order, and nanoseconds per unit of the fraction.
_PCAP_MAGIC = {
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
    bytes.fromhex("a1b23c4d"): (">", 1),
}
_SECTION_HEADER = bytes.fromhex("0a0d0d0a")
_BYTE_ORDER_MAGIC = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}

# Block types of pcapng.
_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
# Options of an interface.
_END_OF_OPTIONS, _IF_TSRESOL, _IF_TSOFFSET = 0, 9, 14


@dataclass(frozen=True, slots=True)
class Packet:
    """A captured packet.

    Attributes:
        data: as much of it as was captured.
        timestamp_ns: nanoseconds since 1970.
        wire_length: bytes that it had when it was captured.
        linktype: ``LINKTYPE_*``: what it begins with.
    """

    data: bytes
    timestamp_ns: int
    wire_length: int
    linktype: int = LINKTYPE_ETHERNET

    @property
    def is_cut(self) -> bool:
        """Whether a part of it was not captured."""
        return self.wire_length > len(self.data)


def read_packets(stream: BinaryIO, *, file: str | None = None) -> Iterator[Packet]:
    """Yield the packets of a capture, in the order of the file.

    Args:
        stream: pcap or pcapng, at its beginning.
        file: its name, for errors.

    Raises:
        ObjectFormatError: it is no capture, or is malformed or cut off; says where.
    """
    source = _Source(stream, file)
    magic = source.take(4, "the magic number")
    if magic in _PCAP_MAGIC:
        yield from _read_pcap(source, *_PCAP_MAGIC[magic])
    elif magic == _SECTION_HEADER:
        yield from _read_pcapng(source)
    else:
        raise ObjectFormatError("neither pcap nor pcapng", file=file, offset=0)


class PcapWriter:
    """Writes packets as pcap, with nanoseconds."""

    def __init__(self, stream: BinaryIO, *, linktype: int = LINKTYPE_ETHERNET) -> None:
        """Write the file's header."""
        self._stream = stream
        stream.write(struct.pack("=IHHiIII", _NANOSECOND_MAGIC, 2, 4, 0, 0, MAX_PACKET, linktype))

    def write(self, packet: Packet) -> None:
        """Append a packet. The format's seconds have 32 bits: a time beyond them wraps around."""
        seconds, fraction = divmod(packet.timestamp_ns, _NS)
        length = len(packet.data)
        self._stream.write(
            struct.pack(
                "=IIII",
                seconds & 0xFFFFFFFF,
                fraction,
                length,
                min(max(packet.wire_length, length), 0xFFFFFFFF),
            )
        )
        self._stream.write(packet.data)


class _Source:
    """A stream that knows how far it was read."""

    def __init__(self, stream: BinaryIO, file: str | None) -> None:
        self._stream = stream
        self._file = file
        self.offset = 0

    def take(self, size: int, what: str) -> bytes:
        """Return exactly so many bytes.

        Raises:
            ObjectFormatError: the file ends before.
        """
        data = self._stream.read(size)
        if len(data) != size:
            raise self.error(f"the file ends in the middle of {what}", self.offset + len(data))
        self.offset += size
        return data

    def take_if_any(self, size: int, what: str) -> bytes | None:
        """Return exactly so many bytes, or None at the end of the file."""
        first = self._stream.read(1)
        if not first:
            return None
        self.offset += 1
        return first + self.take(size - 1, what)

    def error(self, cause: str, offset: int) -> ObjectFormatError:
        return ObjectFormatError(cause, file=self._file, offset=offset)


def _read_pcap(source: _Source, order: str, unit_ns: int) -> Iterator[Packet]:
    major, _, _, _, _, network = struct.unpack(
        f"{order}HHiIII", source.take(20, "the file's header")
    )
    if major != 2:
        raise source.error(f"version {major} of pcap is not known", 4)
    # The upper bits say how long the frame check sequence is.
    linktype = network & 0xFFFF
    record = struct.Struct(f"{order}IIII")
    while header := source.take_if_any(record.size, "a packet's header"):
        seconds, fraction, length, wire_length = record.unpack(header)
        if length > MAX_PACKET:
            raise source.error(
                f"a packet of {length} bytes; at most {MAX_PACKET} are read",
                source.offset - record.size + 8,
            )
        data = source.take(length, "a packet")
        yield Packet(data, seconds * _NS + fraction * unit_ns, wire_length, linktype)


@dataclass(frozen=True, slots=True)
class _Capture:
    """An interface of a pcapng section: how its packets are to be read."""

    linktype: int
    snaplen: int
    units_per_second: int
    offset_seconds: int

    def nanoseconds(self, units: int) -> int:
        return units * _NS // self.units_per_second + self.offset_seconds * _NS


@dataclass(slots=True)
class _Section:
    """A pcapng section: its byte order and the interfaces described so far."""

    order: str
    interfaces: list[_Capture] = field(default_factory=list)


def _read_pcapng(source: _Source) -> Iterator[Packet]:
    kind: bytes | None = _SECTION_HEADER
    section = _Section("<")
    while kind is not None:
        start = source.offset - 4
        if kind == _SECTION_HEADER:
            section = _read_section(source, start)
        else:
            (number,) = struct.unpack(f"{section.order}I", kind)
            body = _read_body(source, section.order, start)
            if number == _INTERFACE:
                section.interfaces.append(_read_interface(source, section.order, body, start + 8))
            else:
                packet = _read_packet(source, section, number, body, start)
                if packet is not None:
                    yield packet
        kind = source.take_if_any(4, "a block's type")


def _read_section(source: _Source, start: int) -> _Section:
    length = source.take(4, "a section's header")
    magic = source.take(4, "a section's header")
    order = _BYTE_ORDER_MAGIC.get(magic)
    if order is None:
        raise source.error("a section without a byte-order magic", start + 8)
    (total,) = struct.unpack(f"{order}I", length)
    _check_length(source, total, 28, start)
    (major,) = struct.unpack_from(f"{order}H", source.take(total - 16, "a section's header"))
    if major != 1:
        raise source.error(f"version {major} of pcapng is not known", start + 12)
    _read_trailer(source, order, total, start)
    return _Section(order)


def _read_body(source: _Source, order: str, start: int) -> bytes:
    (total,) = struct.unpack(f"{order}I", source.take(4, "a block's length"))
    _check_length(source, total, 12, start)
    body = source.take(total - 12, "a block")
    _read_trailer(source, order, total, start)
    return body


def _check_length(source: _Source, total: int, least: int, start: int) -> None:
    if total < least or total % 4 or total > MAX_BLOCK:
        raise source.error(f"a block cannot have {total} bytes", start + 4)


def _read_trailer(source: _Source, order: str, total: int, start: int) -> None:
    at = source.offset
    (again,) = struct.unpack(f"{order}I", source.take(4, "a block's length"))
    if again != total:
        raise source.error(
            f"the block at {start:#x} has {total} bytes at its beginning and {again} at its end", at
        )


def _read_interface(source: _Source, order: str, body: bytes, at: int) -> _Capture:
    if len(body) < 8:
        raise source.error("the description of an interface is too short", at)
    linktype, _, snaplen = struct.unpack_from(f"{order}HHI", body)
    units_per_second, offset_seconds = 1_000_000, 0
    for code, value in _options(source, order, body, 8, at):
        if code == _IF_TSRESOL and value:
            exponent = value[0] & 0x7F
            units_per_second = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == _IF_TSOFFSET and len(value) == 8:
            (offset_seconds,) = struct.unpack(f"{order}q", value)
    return _Capture(linktype, snaplen, units_per_second, offset_seconds)


def _options(
    source: _Source, order: str, body: bytes, start: int, at: int
) -> Iterator[tuple[int, bytes]]:
    while start + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, start)
        if code == _END_OF_OPTIONS:
            return
        if start + 4 + length > len(body):
            raise source.error("an option reaches out of its block", at + start)
        yield code, body[start + 4 : start + 4 + length]
        start += 4 + (length + 3) // 4 * 4


def _read_packet(
    source: _Source, section: _Section, number: int, body: bytes, start: int
) -> Packet | None:
    """Return the packet in a block's body; None for other blocks."""
    layouts = {_OBSOLETE_PACKET: "HHIIII", _SIMPLE_PACKET: "I", _ENHANCED_PACKET: "IIIII"}
    if number not in layouts:
        return None
    layout = struct.Struct(section.order + layouts[number])
    if len(body) < layout.size:
        raise source.error("a packet's block is too short", start + 8)
    fields = layout.unpack_from(body)
    interface = 0 if number == _SIMPLE_PACKET else fields[0]
    if interface >= len(section.interfaces):
        raise source.error(f"interface {interface} is not described", start + 8)
    capture = section.interfaces[interface]
    if number == _SIMPLE_PACKET:
        (wire_length,) = fields
        length = min(wire_length, capture.snaplen or wire_length)
        timestamp = 0
    else:
        high, low, length, wire_length = fields[-4:]
        timestamp = capture.nanoseconds(high << 32 | low)
    if length > min(MAX_PACKET, len(body) - layout.size):
        raise source.error(
            f"a packet of {length} bytes in a block with {len(body) - layout.size}", start + 8
        )
    data = body[layout.size : layout.size + length]
    return Packet(data, timestamp, wire_length, capture.linktype)
