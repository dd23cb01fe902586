# SPDX-License-Identifier: Apache-2.0
"""Writing packet captures that say what a program returned: pcapng.

Format: draft-ietf-opsawg-pcapng. Each packet can have a comment, its RX queue, and the verdict of
XDP (``epb_verdict``), which Wireshark shows. Blocks are written one after the other and never gone
back to, so the file can be a pipe, and what is written so far is always a capture.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import struct
import sys
import time
from typing import BinaryIO

from xdpkit.errors import KernelRefused, UsageError

LINKTYPE_ETHERNET = 1

LARGEST_PACKET = 256 << 10
"""Bytes of a packet that are written at most: what readers take."""

_SECTION_HEADER, _INTERFACE, _STATISTICS, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_VERSION = (1, 0)
_LENGTH_UNKNOWN = -1

# Options of any block, of a section header, an interface, a packet, and statistics.
_END, _COMMENT = 0, 1
_SHB_OS, _SHB_USERAPPL = 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL = 2, 3, 9
_EPB_FLAGS, _EPB_DROPCOUNT, _EPB_QUEUE, _EPB_VERDICT = 2, 4, 6, 7
_ISB_STARTTIME, _ISB_ENDTIME, _ISB_IFRECV, _ISB_IFDROP = 2, 3, 4, 5

_NANOSECONDS = b"\x09"  # if_tsresol: 10 to the power of -9 seconds
_INBOUND = 1
_VERDICT_XDP = 2
_LONGEST_OPTION = 0xFFFF

_PENDING = 64 << 10
"""Bytes that are collected before they are written."""

# The section's byte order is the writer's choice: the same on every machine.
_BLOCK = struct.Struct("<II")
_SECTION = struct.Struct("<IHHq")
_INTERFACE_FIELDS = struct.Struct("<HHI")
_PACKET_FIELDS = struct.Struct("<IIIII")
_STATISTICS_FIELDS = struct.Struct("<III")
_OPTION = struct.Struct("<HH")
_STAMP = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_VERDICT = struct.Struct("<BQ")


class Writer:
    """Writes a capture into a file that stays the caller's; :meth:`flush` comes last."""

    def __init__(self, file: BinaryIO, *, application: str = "xdpkit") -> None:
        """Begin the capture.

        Args:
            file: opened for writing bytes. application: what writes it, with its version.

        Raises:
            KernelRefused: as all of these methods do where the file takes no more.
            BrokenPipeError: as all of these methods do where nobody reads any more.
        """
        self._file = file
        self._pending = bytearray()
        self._interfaces = 0
        # Nothing of the machine itself: captures are passed on.
        options = _text(_SHB_OS, "Linux") + _text(_SHB_USERAPPL, application)
        head = _SECTION.pack(_BYTE_ORDER_MAGIC, *_VERSION, _LENGTH_UNKNOWN)
        self._put(_SECTION_HEADER, head, options)

    def interface(self, name: str, *, description: str = "", snaplen: int = 0) -> int:
        """Introduce an interface; return the number by which packets name it.

        Args:
            name: its name. description: what more there is to say.
            snaplen: how many bytes of a packet are captured, 0: all.
        """
        options = _text(_IF_NAME, name)
        if description:
            options += _text(_IF_DESCRIPTION, description)
        options += _option(_IF_TSRESOL, _NANOSECONDS)
        self._put(_INTERFACE, _INTERFACE_FIELDS.pack(LINKTYPE_ETHERNET, 0, snaplen), options)
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        time: int,
        data: bytes,
        *,
        length: int | None = None,
        comment: str = "",
        queue: int | None = None,
        verdict: int | None = None,
        lost: int | None = None,
    ) -> None:
        """Write a packet that came in.

        Args:
            interface: by which interface, as :meth:`interface` has numbered it.
            time: when, in nanoseconds since 1970.
            data: its bytes, as many as were captured.
            length: how many it had; None: these.
            comment: what there is to say about it.
            queue: its RX queue. verdict: what the program returned, as a number.
            lost: how many packets of the interface are missing before it. None: not known.

        Raises:
            UsageError: there is no such interface.
        """
        self._check(interface, "write a packet")
        data = data[:LARGEST_PACKET]
        options = _option(_EPB_FLAGS, _U32.pack(_INBOUND))
        if comment:
            options += _text(_COMMENT, comment)
        if lost is not None:
            options += _option(_EPB_DROPCOUNT, _U64.pack(lost))
        if queue is not None:
            options += _option(_EPB_QUEUE, _U32.pack(queue))
        if verdict is not None:
            options += _option(_EPB_VERDICT, _VERDICT.pack(_VERDICT_XDP, verdict))
        whole = len(data) if length is None else max(length, len(data))
        fields = _PACKET_FIELDS.pack(interface, *_halves(time), len(data), whole)
        self._put(_ENHANCED_PACKET, fields + _padded(data), options)

    def statistics(
        self,
        interface: int,
        time: int,
        *,
        started: int | None = None,
        received: int | None = None,
        lost: int | None = None,
    ) -> None:
        """Write what became of an interface's packets, once, behind them.

        Args:
            interface: as :meth:`interface` has numbered it.
            time: now, in nanoseconds since 1970. started: when the capture began.
            received: how many packets there were. lost: how many of them could not be captured.

        Raises:
            UsageError: there is no such interface.
        """
        self._check(interface, "write statistics")
        options = b""
        if started is not None:
            options += _option(_ISB_STARTTIME, _STAMP.pack(*_halves(started)))
            options += _option(_ISB_ENDTIME, _STAMP.pack(*_halves(time)))
        if received is not None:
            options += _option(_ISB_IFRECV, _U64.pack(received))
        if lost is not None:
            options += _option(_ISB_IFDROP, _U64.pack(lost))
        self._put(_STATISTICS, _STATISTICS_FIELDS.pack(interface, *_halves(time)), options)

    def flush(self) -> None:
        """Hand everything that was written to the file."""
        try:
            while self._pending:
                taken = self._file.write(self._pending)
                if taken is None:
                    raise BlockingIOError(errno.EAGAIN, "it does not wait for its reader")
                del self._pending[:taken]
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            number = error.errno or 0
            raise KernelRefused(
                "write the capture", errno=number, cause=os.strerror(number)
            ) from None

    def _check(self, interface: int, what: str) -> None:
        if not 0 <= interface < self._interfaces:
            raise UsageError(what, cause=f"the capture has no interface {interface}")

    def _put(self, kind: int, body: bytes, options: bytes) -> None:
        if options:
            options += _OPTION.pack(_END, 0)
        size = _BLOCK.size + len(body) + len(options) + _U32.size
        self._pending += _BLOCK.pack(kind, size) + body + options + _U32.pack(size)
        if len(self._pending) >= _PENDING:
            self.flush()


def create(path: str) -> BinaryIO:
    """Make a file for a capture, which nobody else may read; "-" is standard output.

    It takes the place of a file that is there with the first bytes that are written: where a
    capture does not come about, the old one stays. Who had that open keeps it.

    Raises:
        UsageError: it cannot be made, is a terminal, or is a symbolic link, which could lead
            anywhere.
    """
    if path == "-":
        if sys.stdout.isatty():
            raise _terminal("write the capture to standard output")
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    what = f"write the capture to {path}"
    if not path or "\0" in path:
        raise UsageError(what, cause="that cannot be a file's name")
    try:
        return _open(path, what)
    except OSError as error:
        raise UsageError(what, cause=os.strerror(error.errno or 0)) from None


class _NewFile(io.FileIO):
    """A file that is called something else until the first bytes are written."""

    def __init__(self, path: str) -> None:
        import tempfile

        number, self._temporary = tempfile.mkstemp(
            prefix=".xdpkit-", suffix=".tmp", dir=os.path.dirname(path) or "."
        )
        self._path = path
        super().__init__(number, "wb")

    def write(self, data: bytes | bytearray) -> int | None:  # type: ignore[override]
        if self._temporary:
            os.replace(self._temporary, self._path)
            self._temporary = ""
        return super().write(data)

    def close(self) -> None:
        super().close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""


def wall_clock() -> int:
    """Return what to add to nanoseconds of CLOCK_MONOTONIC to have those since 1970.

    As the clocks stand now: ask once for a capture, so that its packets keep their distances.
    """
    # The two clocks are not read at one moment; the shortest way is the nearest to it.
    readings = []
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def _open(path: str, what: str) -> BinaryIO:
    there = _mode(path)
    if there is not None and stat.S_ISLNK(there):
        raise UsageError(
            what,
            cause="it is a symbolic link, and could lead anywhere",
            remedy="name the file that it leads to, or remove it",
        )
    if there is not None and stat.S_ISDIR(there):
        raise UsageError(what, cause="it is a folder")
    if there is None or stat.S_ISREG(there):
        return _NewFile(path)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY)
    if os.isatty(fd):
        os.close(fd)
        raise _terminal(what)
    return os.fdopen(fd, "wb", buffering=0)


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def _terminal(what: str) -> UsageError:
    return UsageError(
        what, cause="it is a terminal, and a capture is no text", remedy="name a file: --pcap FILE"
    )


def _text(code: int, text: str) -> bytes:
    """Return an option of text; what is longer than an option can be is cut."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > _LONGEST_OPTION:
        data = data[:_LONGEST_OPTION].decode("utf-8", "ignore").encode()
    return _option(code, data)


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _halves(number: int) -> tuple[int, int]:
    return number >> 32, number & 0xFFFFFFFF
