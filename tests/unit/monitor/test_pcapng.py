# SPDX-License-Identifier: Apache-2.0
"""The pcapng that is written: by its bytes, as scapy and our own reader see it, and into files."""

from __future__ import annotations

import errno
import io
import os
import pty
import stat
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from xdpkit.cli.pcap import Packet, read_packets
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.monitor.pcapng import LARGEST_PACKET, Writer, create, wall_clock

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
TIME = 1_700_000_000_123_456_789

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a capture, taken apart by the format's own rules."""

    kind: int
    fields: tuple[int, ...]
    data: bytes
    options: dict[int, bytes]


def blocks(capture: bytes) -> Iterator[Block]:
    """Yield the blocks; each has to be whole, with its length at both ends."""
    heads = {SECTION: "<IHHq", INTERFACE: "<HHI", STATISTICS: "<III", PACKET: "<IIIII"}
    at = 0
    while at < len(capture):
        kind, size = struct.unpack_from("<II", capture, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", capture, at + size - 4) == (size,)
        body = capture[at + 8 : at + size - 4]
        fields = struct.unpack_from(heads[kind], body)
        rest = body[struct.calcsize(heads[kind]) :]
        length = fields[3] if kind == PACKET else 0
        padded = -(-length // 4) * 4
        assert rest[length:padded] == bytes(padded - length)
        yield Block(kind, fields, rest[:length], dict(options(rest[padded:])))
        at += size


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert (length, len(data)) == (0, 4)
            return
        padded = -(-length // 4) * 4
        assert data[4 + length : 4 + padded] == bytes(padded - length)
        yield code, data[4 : 4 + length]
        data = data[4 + padded :]
        assert data, "options without an end"


class Capture:
    """A capture that is written to memory, with one interface."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.writer = Writer(self.file, application="xdpkit 1.2")
        self.interface = self.writer.interface("eth0", description="firewall", snaplen=64)

    def content(self) -> bytes:
        self.writer.flush()
        return self.file.getvalue()

    def last(self) -> Block:
        return list(blocks(self.content()))[-1]


@pytest.fixture
def capture() -> Capture:
    return Capture()


def test_a_capture_begins_with_what_wrote_it_and_tells_nothing_of_the_machine(
    capture: Capture,
) -> None:
    section, interface = blocks(capture.content())

    assert section == Block(SECTION, (0x1A2B3C4D, 1, 0, -1), b"", {3: b"Linux", 4: b"xdpkit 1.2"})
    assert interface == Block(INTERFACE, (1, 0, 64), b"", {2: b"eth0", 3: b"firewall", 9: b"\x09"})


def test_an_interface_needs_no_description(capture: Capture) -> None:
    assert capture.writer.interface("eth1") == 1

    assert capture.last() == Block(INTERFACE, (1, 0, 0), b"", {2: b"eth1", 9: b"\x09"})


def test_a_packet_has_its_verdict_queue_and_comment(capture: Capture) -> None:
    capture.writer.packet(
        capture.interface,
        TIME,
        b"frame",
        length=1500,
        comment="XDP_DROP, dropped by «firewall»",
        queue=3,
        verdict=1,
        lost=2,
    )

    assert capture.last() == Block(
        PACKET,
        (0, TIME >> 32, TIME & 0xFFFFFFFF, 5, 1500),
        b"frame",
        {
            1: "XDP_DROP, dropped by «firewall»".encode(),
            2: struct.pack("<I", 1),
            4: struct.pack("<Q", 2),
            6: struct.pack("<I", 3),
            7: b"\x02" + struct.pack("<Q", 1),
        },
    )


def test_what_is_not_known_of_a_packet_is_not_there(capture: Capture) -> None:
    capture.writer.packet(capture.interface, TIME, b"")

    assert set(capture.last().options) == {2}


def test_a_verdict_that_is_no_action_is_kept_as_a_number(capture: Capture) -> None:
    capture.writer.packet(capture.interface, TIME, b"", verdict=0xFFFFFFFF)

    assert capture.last().options[7] == b"\x02\xff\xff\xff\xff\0\0\0\0"


def test_statistics_say_what_was_lost(capture: Capture) -> None:
    capture.writer.statistics(capture.interface, TIME, started=TIME - 1, received=10, lost=3)

    stamp = struct.pack("<II", TIME >> 32, TIME & 0xFFFFFFFF)
    before = struct.pack("<II", TIME >> 32, (TIME - 1) & 0xFFFFFFFF)
    assert capture.last() == Block(
        STATISTICS,
        (0, TIME >> 32, TIME & 0xFFFFFFFF),
        b"",
        {2: before, 3: stamp, 4: struct.pack("<Q", 10), 5: struct.pack("<Q", 3)},
    )


def test_statistics_can_be_without_numbers(capture: Capture) -> None:
    capture.writer.statistics(capture.interface, TIME)

    assert capture.last().options == {}


@pytest.mark.parametrize("interface", [-1, 1])
def test_an_interface_that_was_not_introduced_is_refused(capture: Capture, interface: int) -> None:
    before = capture.content()
    with pytest.raises(UsageError, match=f"the capture has no interface {interface}"):
        capture.writer.packet(interface, TIME, b"")
    with pytest.raises(UsageError, match=f"the capture has no interface {interface}"):
        capture.writer.statistics(interface, TIME)

    assert capture.content() == before


def test_a_packet_is_cut_where_readers_would_refuse_it(capture: Capture) -> None:
    capture.writer.packet(capture.interface, TIME, bytes(LARGEST_PACKET + 1))

    assert capture.last().fields[3:] == (LARGEST_PACKET, LARGEST_PACKET)


def test_a_text_is_cut_between_two_characters(capture: Capture) -> None:
    capture.writer.packet(capture.interface, TIME, b"", comment="é" * 40_000)

    assert capture.last().options[1] == ("é" * 32_767).encode()


def test_a_name_that_is_no_text_is_escaped(capture: Capture) -> None:
    capture.writer.interface(os.fsdecode(b"eth\xff"))

    assert capture.last().options[2] == b"eth\\udcff"


def test_many_packets_are_written_as_they_come(capture: Capture) -> None:
    for _ in range(100):
        capture.writer.packet(capture.interface, TIME, bytes(1000))

    assert len(capture.file.getvalue()) > 50_000


class Hesitant(io.RawIOBase):
    """A file that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.content += bytes(data)[:7]  # type: ignore[call-overload]
        return min(7, len(data))  # type: ignore[arg-type]


def test_a_file_that_takes_little_at_a_time_gets_everything(capture: Capture) -> None:
    file = Hesitant()
    writer = Writer(file, application="xdpkit 1.2")  # type: ignore[arg-type]
    writer.interface("eth0", description="firewall", snaplen=64)
    writer.flush()

    assert file.content == capture.content()


class Failing(io.BytesIO):
    def __init__(self, error: OSError | None) -> None:
        self.error = error

    def write(self, data: object) -> int:
        if self.error is None:
            return None  # type: ignore[return-value]
        raise self.error


def test_a_full_disk_is_said() -> None:
    writer = Writer(Failing(OSError(errno.ENOSPC, "")))
    with pytest.raises(KernelRefused, match="write the capture: No space left on device"):
        writer.flush()


def test_a_file_that_does_not_wait_is_not_waited_for() -> None:
    writer = Writer(Failing(None))
    with pytest.raises(KernelRefused, match="write the capture: Resource temporarily"):
        writer.flush()


def test_a_reader_that_went_is_told_apart() -> None:
    writer = Writer(Failing(BrokenPipeError(errno.EPIPE, "")))
    with pytest.raises(BrokenPipeError):
        writer.flush()


packets = st.tuples(
    st.binary(max_size=200),
    st.integers(0, 2**62),
    st.none() | u32,
    st.text(max_size=20),
    st.none() | u32,
    st.none() | u32,
    st.none() | u64,
)


@given(st.lists(packets, max_size=8), st.text(max_size=20), u32)
def test_any_packets_are_read_back(
    given: list[tuple[bytes, int, int | None, str, int | None, int | None, int | None]],
    name: str,
    snaplen: int,
) -> None:
    file = io.BytesIO()
    writer = Writer(file)
    interface = writer.interface(name, snaplen=snaplen)
    for data, when, length, comment, queue, verdict, lost in given:
        writer.packet(
            interface,
            when,
            data,
            length=length,
            comment=comment,
            queue=queue,
            verdict=verdict,
            lost=lost,
        )
    writer.flush()

    found = [block for block in blocks(file.getvalue()) if block.kind == PACKET]
    assert len(found) == len(given)
    for block, (data, when, length, comment, queue, verdict, lost) in zip(
        found, given, strict=True
    ):
        assert block.data == data
        assert block.fields[1] << 32 | block.fields[2] == when
        assert block.fields[4] == max(length or 0, len(data))
        assert block.options.get(1, b"") == comment.encode("utf-8", "backslashreplace")
        assert block.options.get(6) == (None if queue is None else struct.pack("<I", queue))
        expected = None if verdict is None else struct.pack("<BQ", 2, verdict)
        assert block.options.get(7) == expected
        assert block.options.get(4) == (None if lost is None else struct.pack("<Q", lost))
    file.seek(0)
    assert [packet.data for packet in read_packets(file)] == [data for data, *_ in given]


def test_our_own_reader_reads_it(capture: Capture) -> None:
    capture.writer.packet(capture.interface, TIME, b"frame", length=99, comment="x", verdict=2)
    capture.writer.statistics(capture.interface, TIME, lost=1)

    assert list(read_packets(io.BytesIO(capture.content()))) == [Packet(b"frame", TIME, 99)]


def test_scapy_reads_it(capture: Capture, tmp_path: Path) -> None:
    capture.writer.packet(
        capture.interface, TIME, b"frame", length=99, comment="aborted", queue=1, verdict=0
    )
    capture.writer.packet(capture.interface, TIME + 1, b"another")
    capture.writer.statistics(capture.interface, TIME, lost=1)
    path = tmp_path / "f.pcapng"
    path.write_bytes(capture.content())

    found: list[tuple[bytes, Any]]
    with RawPcapNgReader(str(path)) as reader:
        found = list(reader)
    (one, about_one), (other, about_other) = found

    assert (one, other) == (b"frame", b"another")
    assert (about_one.tshigh << 32) + about_one.tslow == TIME
    assert (about_other.tshigh << 32) + about_other.tslow == TIME + 1
    assert (about_one.tsresol, about_one.wirelen, about_one.ifname) == (10**9, 99, b"eth0")
    assert about_one.direction == 1


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with create(str(tmp_path / "new")) as file:
            file.write(b"x")
    finally:
        os.umask(mask)

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert (tmp_path / "new").read_bytes() == b"x"


def test_a_file_that_is_there_is_replaced_and_who_reads_it_sees_nothing_new(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o666)
    with path.open("rb") as reader, create(str(path)) as file:
        file.write(b"secret")

        assert reader.read() == b"old"
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_stays_until_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with create(str(path)):
        pass
    assert path.read_bytes() == b"old"
    with create(str(path)) as file:
        file.write(b"a")
        assert path.read_bytes() == b"a"
        file.write(b"b")
    assert path.read_bytes() == b"ab"
    assert os.listdir(tmp_path) == ["old"]


def test_where_a_file_cannot_take_its_place_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with create(str(path)) as file:
        writer = Writer(file)
        path.mkdir()
        with pytest.raises(KernelRefused, match="write the capture: Is a directory"):
            writer.flush()
    assert os.listdir(tmp_path) == ["f"]


def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"kept")
    for target in ("victim", "nothing"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(UsageError, match=f"write the capture to {link}: it is a symbolic"):
            create(str(link))
        assert link.is_symlink()

    assert (tmp_path / "victim").read_bytes() == b"kept"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (".", "it is a folder"),
        ("missing/f", "No such file or directory"),
        ("a\0b", "cannot be a file's name"),
        ("a" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        create(f"{tmp_path}/{name}")


def test_no_path_is_no_file() -> None:
    with pytest.raises(UsageError, match="cannot be a file's name"):
        create("")


def test_a_device_that_is_no_terminal_takes_a_capture() -> None:
    with create(os.devnull) as file:
        Writer(file).flush()


def test_a_terminal_takes_no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    try:
        with pytest.raises(UsageError, match="it is a terminal, and a capture is no text"):
            create(os.ttyname(theirs))
        with open(theirs, "w", closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            with pytest.raises(UsageError, match="standard output: it is a terminal"):
                create("-")
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_dash_is_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    with path.open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with create("-") as file:
            file.write(b"x")

    assert path.read_bytes() == b"x"


def test_monotonic_times_become_times_of_the_day() -> None:
    before = time.time_ns()
    converted = time.monotonic_ns() + wall_clock()
    after = time.time_ns()

    # What the clock is set by meanwhile, and what is between two of its readings.
    assert before - 10_000_000 <= converted <= after + 10_000_000
