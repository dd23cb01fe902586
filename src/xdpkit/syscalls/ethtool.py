# SPDX-License-Identifier: Apache-2.0
"""The ethtool ioctl, as far as it is used: driver, channels, offload features, statistics.

Any socket will do for the ioctl; the one given tells the network namespace. What an interface does
not tell, or a kernel does not know, is None. Of all this only offloads are ever changed.

Interfaces are given by index, or by name. The ioctl goes by names, which need not be text: one that
was decoded, and is not UTF-8, is not the interface's any more.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from xdpkit.errors import KernelRefused, UsageError
from xdpkit.syscalls import privilege
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.ethtool import (
    ETH_GSTRING_LEN,
    ETH_SS_FEATURES,
    ETH_SS_STATS,
    SIOCETHTOOL,
    SIOCGIFNAME,
    EthtoolCommand,
)
from xdpkit.uapi.if_link import IFNAMSIZ

Selector = int | str
"""An interface: its index, or its name."""

# struct ifreq: a name, and a union that begins with an index or a pointer here.
_IFREQ = struct.Struct(f"={IFNAMSIZ}si20x")
_POINTER = struct.Struct("@P")

# struct ethtool_drvinfo: cmd, driver[32], and more that is not read here; 196 bytes.
_DRVINFO_SIZE = 196
# struct ethtool_channels: cmd, max_{rx,tx,other,combined}, {rx,tx,other,combined}_count
_CHANNELS = struct.Struct("=9I")
# struct ethtool_sset_info: cmd, reserved, mask, then a length for each bit of the mask
_SSET_INFO = struct.Struct("=IIQI")
# struct ethtool_gstrings and ethtool_gfeatures: cmd, (string set,) length, then the entries
_GSTRINGS = struct.Struct("=III")
_GFEATURES = struct.Struct("=II")
# struct ethtool_stats: cmd, n_stats, then the values
_GSTATS = struct.Struct("=II")
_FEATURE_BLOCK = struct.Struct("=IIII")  # available, requested, active, never changed
_WANTED_BLOCK = struct.Struct("=II")  # struct ethtool_set_features_block: valid, requested

# ETHTOOL_F_*: what was asked for is not possible at all, or not as the driver is configured now.
_UNSUPPORTED, _WISH = 1 << 0, 1 << 1

# Older kernels write as many statistics as there are by then, whatever room they were told of. The
# largest drivers have some 50,000. This is address space, and becomes memory only where it is used.
_ROOM = 32 << 20
_TRIES = 5

_names: dict[int, tuple[str, ...]] = {}
"""The running kernel's names, by string set."""


@dataclass(frozen=True, slots=True)
class Channels:
    """How many queues are in use (``ethtool -l``); a combined channel is one of each."""

    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class Offload:
    """An offload's state (``ethtool -k``).

    Attributes:
        active: it is on.
        changeable: ``ethtool -K`` can switch it; the others are "[fixed]".
    """

    active: bool
    changeable: bool


def driver_of(connection: NetlinkSocket, interface: Selector) -> str | None:
    """Return the name of an interface's driver, None where it does not say (or is gone)."""
    info = _ask(connection, interface, struct.pack("=I", EthtoolCommand.GDRVINFO), _DRVINFO_SIZE)
    return _text(info[4:36]) if info is not None else None


def channels_of(connection: NetlinkSocket, interface: Selector) -> Channels | None:
    """Return how many queues of an interface are in use, None where it does not say."""
    request = struct.pack("=I", EthtoolCommand.GCHANNELS)
    answer = _ask(connection, interface, request, _CHANNELS.size)
    if answer is None:
        return None
    _, _, _, _, _, rx, tx, _, combined = _CHANNELS.unpack(answer)
    return Channels(rx=rx + combined, tx=tx + combined)


def offloads_of(connection: NetlinkSocket, interface: Selector, *wanted: str) -> dict[str, Offload]:
    """Return the state of offloads by their kernel names ("rx-lro"), without those not known.

    The names are those of ``netdev_features_strings`` in net/ethtool/common.c.
    """
    names = _feature_names(connection, interface)
    blocks = (len(names) + 31) // 32
    request = _GFEATURES.pack(EthtoolCommand.GFEATURES, blocks)
    answer = _ask(connection, interface, request, _GFEATURES.size + blocks * _FEATURE_BLOCK.size)
    if answer is None:
        return {}
    found = {}
    for offload in wanted:
        if offload not in names:
            continue
        block, bit = divmod(names.index(offload), 32)
        available, _, active, _ = _FEATURE_BLOCK.unpack_from(
            answer, _GFEATURES.size + block * _FEATURE_BLOCK.size
        )
        found[offload] = Offload(bool(active >> bit & 1), bool(available >> bit & 1))
    return found


def set_offloads(
    connection: NetlinkSocket, interface: Selector, wanted: Mapping[str, bool]
) -> None:
    """Switch offloads on or off by their kernel names, as ``ethtool -K`` does, in one step.

    What is as wanted already stays so.

    Raises:
        UsageError: there is no such interface, or the kernel knows no offload of a name.
        MissingPrivilege: it takes CAP_NET_ADMIN in the interface's namespace.
        KernelRefused: EOPNOTSUPP: an offload cannot be switched; or the driver refused otherwise.

    ``ethtool_set_features()`` in net/ethtool/ioctl.c.
    """
    switched = ", ".join(f"{offload} {'on' if on else 'off'}" for offload, on in wanted.items())
    name = _shown(connection, interface)
    what = f"switch {switched} on {name}"
    names = _feature_names(connection, interface)
    if not names:
        raise UsageError(what, cause="it is not there, or tells no offloads")
    blocks = [[0, 0] for _ in range((len(names) + 31) // 32)]
    for offload, on in wanted.items():
        if offload not in names:
            raise UsageError(what, cause=f"this kernel has no offload {offload}")
        block, bit = divmod(names.index(offload), 32)
        blocks[block][0] |= 1 << bit
        blocks[block][1] |= on << bit
    request = _GFEATURES.pack(EthtoolCommand.SFEATURES, len(blocks))
    request += b"".join(_WANTED_BLOCK.pack(*block) for block in blocks)
    result = _set(connection, interface, request, what)
    if result & (_UNSUPPORTED | _WISH):
        raise KernelRefused(
            what, errno=errno.EOPNOTSUPP, cause=f"{name} does not let them be switched so"
        )


def statistics_of(connection: NetlinkSocket, interface: Selector) -> tuple[tuple[str, int], ...]:
    """Return a driver's own statistics (``ethtool -S``): names and values, as the driver has them.

    A name can be there more than once. Empty: it has none, or their number kept changing.

    Raises:
        KernelRefused: the driver refused.
    """
    try:
        with _Room() as room:
            return _statistics(connection, interface, room)
    except OSError as error:
        number = error.errno or 0
        raise KernelRefused(
            f"read the statistics of {_shown(connection, interface)}",
            errno=number,
            cause=os.strerror(number),
        ) from None


def _statistics(
    connection: NetlinkSocket, interface: Selector, room: _Room
) -> tuple[tuple[str, int], ...]:
    for _ in range(_TRIES):
        count = _count(connection, interface, ETH_SS_STATS)
        if not count:
            break
        # Names and values are asked for one after the other, and queues can come in between.
        request = _GSTRINGS.pack(EthtoolCommand.GSTRINGS, ETH_SS_STATS, count)
        names = room.ask(connection, interface, request, count * ETH_GSTRING_LEN)
        request = _GSTATS.pack(EthtoolCommand.GSTATS, count)
        values = room.ask(connection, interface, request, count * 8)
        if names is not None and values is not None:
            return tuple(zip(_texts(names), struct.unpack(f"={count}Q", values), strict=True))
    return ()


class _Room:
    """Memory for an answer that may be longer than what was asked for: a context manager."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def ask(
        self, connection: NetlinkSocket, interface: Selector, request: bytes, size: int
    ) -> bytes | None:
        """Return what follows the request in the kernel's answer.

        None: there is no answer, or it is not as long as the request says in its last word.
        """
        self._memory[: len(request)] = request
        start = ctypes.c_char.from_buffer(self._memory)
        try:
            is_answered = _ioctl(connection, interface, ctypes.addressof(start))
        finally:
            # Else the memory is in use and cannot be given back.
            del start
        if not is_answered or self._memory[: len(request)] != request:
            return None
        return self._memory[len(request) : len(request) + size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._memory.close()


def _feature_names(connection: NetlinkSocket, interface: Selector) -> tuple[str, ...]:
    """Return the running kernel's names of offloads; which bit is which differs by release.

    All interfaces have the same (__ethtool_get_strings() in net/ethtool/ioctl.c), so they are asked
    for until one interface has told them. Empty: it did not.
    """
    known = _names.get(ETH_SS_FEATURES, ())
    if known:
        return known
    count = _count(connection, interface, ETH_SS_FEATURES)
    if count is None:
        return ()
    request = _GSTRINGS.pack(EthtoolCommand.GSTRINGS, ETH_SS_FEATURES, count)
    answer = _ask(connection, interface, request, _GSTRINGS.size + count * ETH_GSTRING_LEN)
    if answer is None:
        return ()
    _names[ETH_SS_FEATURES] = _texts(answer[_GSTRINGS.size :])
    return _names[ETH_SS_FEATURES]


def _count(connection: NetlinkSocket, interface: Selector, string_set: int) -> int | None:
    """Return how many names a string set has, 0 where the driver has none of the kind."""
    request = _SSET_INFO.pack(EthtoolCommand.GSSET_INFO, 0, 1 << string_set, 0)
    answer = _ask(connection, interface, request, _SSET_INFO.size)
    return _SSET_INFO.unpack(answer)[3] if answer is not None else None


def _ask(connection: NetlinkSocket, interface: Selector, request: bytes, size: int) -> bytes | None:
    """Return the structure as the kernel filled it in; None where there is no answer."""
    structure = array.array("B", request.ljust(size, b"\0"))
    if not _ioctl(connection, interface, structure.buffer_info()[0]):
        return None
    return structure.tobytes()


def _ioctl(connection: NetlinkSocket, interface: Selector, address: int) -> bool:
    """Have the kernel fill in the structure at an address; return whether it did."""
    try:
        _call(connection, interface, address)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            return False
        raise
    return True


def _set(connection: NetlinkSocket, interface: Selector, request: bytes, what: str) -> int:
    """Have the kernel do what a structure says; return what the call does."""
    structure = array.array("B", request)
    try:
        return _call(connection, interface, structure.buffer_info()[0])
    except OSError as error:
        number = error.errno or errno.EIO
        if number == errno.ENODEV:
            raise UsageError(what, cause="it is not there any more") from None
        if number == errno.EPERM:
            raise privilege.explain_eperm(what, (Capability.NET_ADMIN,)) from None
        raise KernelRefused(what, errno=number, cause=os.strerror(number)) from None


def _call(connection: NetlinkSocket, interface: Selector, address: int) -> int:
    ifreq = bytearray(_IFREQ.pack(_name(connection, interface), 0))
    _POINTER.pack_into(ifreq, IFNAMSIZ, address)
    result: int = fcntl.ioctl(connection.fileno(), SIOCETHTOOL, ifreq)
    return result


def _name(connection: NetlinkSocket, interface: Selector) -> bytes:
    """Return an interface's name.

    Raises:
        OSError: ENODEV: there is none of this index.
    """
    if isinstance(interface, str):
        return interface.encode("utf-8", "surrogateescape")
    ifreq = bytearray(_IFREQ.pack(b"", interface))
    fcntl.ioctl(connection.fileno(), SIOCGIFNAME, ifreq)
    return bytes(ifreq[:IFNAMSIZ]).split(b"\0", 1)[0]


def _shown(connection: NetlinkSocket, interface: Selector) -> str:
    """Return what an interface is called, for errors."""
    try:
        return _text(_name(connection, interface)) or ""
    except OSError:
        return f"interface {interface}"


def _texts(strings: bytes) -> tuple[str, ...]:
    return tuple(
        _text(strings[start : start + ETH_GSTRING_LEN]) or ""
        for start in range(0, len(strings), ETH_GSTRING_LEN)
    )


def _text(value: bytes) -> str | None:
    return value.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") or None
