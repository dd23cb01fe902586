# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, RawPcapReader, wrpcap

from xdpkit.cli.pcap import MAX_BLOCK, MAX_PACKET, Packet, PcapWriter, read_packets
from xdpkit.errors import ObjectFormatError

PACKETS = [
    Packet(b"\x02" * 14, 1_700_000_000_123_456_789, 14),
    Packet(b"\x03" * 61, 1_700_000_001_000_000_001, 1500),
    Packet(b"", 0, 60),
]

packets = st.builds(
    Packet,
    data=st.binary(max_size=100),
    timestamp_ns=st.integers(0, (1 << 32) * 10**9 - 1),
    wire_length=st.integers(100, 1 << 32 - 1),
)


def written(found: Sequence[Packet]) -> bytes:
    stream = io.BytesIO()
    writer = PcapWriter(stream)
    for packet in found:
        writer.write(packet)
    return stream.getvalue()


def read(data: bytes) -> list[Packet]:
    return list(read_packets(io.BytesIO(data), file="f.pcap"))


def block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(*, order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(*options: tuple[int, bytes], snaplen: int = 0, order: str = "<") -> bytes:
    body = struct.pack(f"{order}HHI", 1, 0, snaplen)
    for code, value in options:
        body += struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)
    return block(1, body, order=order)


def enhanced(data: bytes, units: int = 0, number: int = 0, *, order: str = "<") -> bytes:
    head = struct.pack(
        f"{order}IIIII", number, units >> 32, units & 0xFFFFFFFF, len(data), len(data)
    )
    return block(6, head + data, order=order)


@given(st.lists(packets))
def test_what_was_written_is_read_again(found: list[Packet]) -> None:
    assert read(written(found)) == found


def test_scapy_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(written(PACKETS))
    with RawPcapReader(str(path)) as reader:
        assert reader.nano
        assert [(data, meta.sec * 10**9 + meta.usec, meta.wirelen) for data, meta in reader] == [
            (packet.data, packet.timestamp_ns, packet.wire_length) for packet in PACKETS
        ]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_what_scapy_writes_as_pcap_is_read(tmp_path: Path, order: str, nano: bool) -> None:
    path = tmp_path / "in.pcap"
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / (b"x" * 50)
    frame.time = 1_700_000_000.25
    wrpcap(str(path), [frame, frame], endianness=order, nano=nano)
    assert read(path.read_bytes()) == [Packet(bytes(frame), 1_700_000_000_250_000_000, 64)] * 2


def test_what_scapy_writes_as_pcapng_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.pcapng"
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / (b"x" * 51)
    frame.time = 1_700_000_000.25
    writer = PcapNgWriter(str(path))
    writer.write([frame])
    writer.close()
    assert read(path.read_bytes()) == [Packet(bytes(frame), 1_700_000_000_250_000_000, 65)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_has_its_time_in_the_units_of_the_interface(order: str) -> None:
    data = (
        section(order=order)
        + interface(order=order)
        + interface((9, b"\x09"), order=order)
        + interface((9, b"\x82"), (14, struct.pack(f"{order}q", 100)), order=order)
        + enhanced(b"one", 1_000_001, 0, order=order)
        + enhanced(b"two", 5 << 32, 1, order=order)
        + enhanced(b"three", 6, 2, order=order)
    )
    assert [packet.timestamp_ns for packet in read(data)] == [
        1_000_001_000,
        5 << 32,
        101_500_000_000,
    ]


def test_pcapng_sections_have_their_own_interfaces_and_byte_order() -> None:
    data = (
        section()
        + interface()
        + block(0xBAD, b"private")
        + enhanced(b"one")
        + section(order=">")
        + interface(order=">")
        + enhanced(b"two", order=">")
    )
    assert [packet.data for packet in read(data)] == [b"one", b"two"]
    with pytest.raises(ObjectFormatError, match="interface 0 is not described"):
        read(section() + interface() + section() + enhanced(b"x"))


def test_simple_and_obsolete_packets_of_pcapng_are_read() -> None:
    data = (
        section()
        + interface(snaplen=4)
        + block(3, struct.pack("<I", 10) + b"data")
        + block(2, struct.pack("<HHIIII", 0, 0, 0, 7, 3, 9) + b"old")
    )
    assert read(data) == [Packet(b"data", 0, 10), Packet(b"old", 7000, 9)]


@pytest.mark.parametrize(
    ("data", "cause", "offset"),
    [
        (b"", "ends in the middle of the magic number", 0),
        (b"GIF89a", "neither pcap nor pcapng", 0),
        (written([])[:20], "ends in the middle of the file's header", 20),
        (written(PACKETS)[:30], "ends in the middle of a packet's header", 30),
        (written(PACKETS)[:45], "ends in the middle of a packet", 45),
        (written([])[:4] + b"\3\0" + written([])[6:], "version 3 of pcap", 4),
        (written([]) + struct.pack("=4I", 0, 0, MAX_PACKET + 1, 0), "at most", 32),
        (section()[:8] + b"\0\0\0\0" + section()[12:], "byte-order magic", 8),
        (section() + struct.pack("<II", 6, 13), "cannot have 13 bytes", 32),
        (section() + struct.pack("<II", 6, 8), "cannot have 8 bytes", 32),
        (section() + struct.pack("<II", 6, MAX_BLOCK + 4), "cannot have", 32),
        (section() + block(6, b"")[:-4] + b"\0\0\0\0", "and 0 at its end", 36),
        (section() + enhanced(b"x"), "interface 0 is not described", 36),
        (section() + block(1, b"abc"), "too short", 36),
        (section() + block(6, bytes(16)), "too short", 36),
        (section() + interface() + block(6, struct.pack("<5I", 0, 0, 0, 9, 9)), "9 bytes", 56),
        (section() + block(1, bytes(8) + struct.pack("<HH", 2, 99)), "out of its block", 44),
    ],
)
def test_malformed_captures_are_refused_with_the_place(
    data: bytes, cause: str, offset: int
) -> None:
    with pytest.raises(ObjectFormatError) as refused:
        read(data)
    assert cause in refused.value.cause
    assert (refused.value.file, refused.value.offset) == ("f.pcap", offset)


PCAPNG = section() + interface((9, b"\x09")) + enhanced(b"abc", 5) + block(3, bytes(4))


@given(
    data=st.sampled_from([written(PACKETS), PCAPNG]),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 200),
)
def test_any_bytes_give_packets_or_a_format_error(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    for candidate in (bytes(mutated), bytes(mutated)[:cut]):
        found: list[Packet] = []
        with contextlib.suppress(ObjectFormatError):
            found.extend(read_packets(io.BytesIO(candidate)))
        assert sum(len(packet.data) for packet in found) <= len(candidate)
        # Whatever was read can be written.
        assert [packet.data for packet in read(written(found))] == [p.data for p in found]
