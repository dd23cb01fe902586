# SPDX-License-Identifier: Apache-2.0
"""The ethtool ioctl, as far as it is asked: driver, channels, offload features.

Any socket will do for the ioctl; the one given tells the network namespace. What an interface does
not tell, or a kernel does not know, is None.
"""

from __future__ import annotations

import array
import errno
import fcntl
import struct
from dataclasses import dataclass

from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.ethtool import ETH_GSTRING_LEN, ETH_SS_FEATURES, SIOCETHTOOL, EthtoolCommand
from xdpkit.uapi.if_link import IFNAMSIZ

_IFREQ = struct.Struct(f"={IFNAMSIZ}s16x")
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
_FEATURE_BLOCK = struct.Struct("=IIII")  # available, requested, active, never changed

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


def driver_of(connection: NetlinkSocket, name: str) -> str | None:
    """Return the name of an interface's driver, None where it does not say (or is gone)."""
    info = _ask(connection, name, struct.pack("=I", EthtoolCommand.GDRVINFO), _DRVINFO_SIZE)
    return _text(info[4:36]) if info is not None else None


def channels_of(connection: NetlinkSocket, name: str) -> Channels | None:
    """Return how many queues of an interface are in use, None where it does not say."""
    request = struct.pack("=I", EthtoolCommand.GCHANNELS)
    answer = _ask(connection, name, request, _CHANNELS.size)
    if answer is None:
        return None
    _, _, _, _, _, rx, tx, _, combined = _CHANNELS.unpack(answer)
    return Channels(rx=rx + combined, tx=tx + combined)


def offloads_of(connection: NetlinkSocket, name: str, *wanted: str) -> dict[str, Offload]:
    """Return the state of offloads by their kernel names ("rx-lro"), without those not known.

    The names are those of ``netdev_features_strings`` in net/ethtool/common.c.
    """
    names = _feature_names(connection, name)
    blocks = (len(names) + 31) // 32
    request = _GFEATURES.pack(EthtoolCommand.GFEATURES, blocks)
    answer = _ask(connection, name, request, _GFEATURES.size + blocks * _FEATURE_BLOCK.size)
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


def _feature_names(connection: NetlinkSocket, name: str) -> tuple[str, ...]:
    """Return the running kernel's names of offloads; which bit is which differs by release.

    All interfaces have the same (__ethtool_get_strings() in net/ethtool/ioctl.c), so they are asked
    for until one interface has told them. Empty: it did not.
    """
    known = _names.get(ETH_SS_FEATURES, ())
    if known:
        return known
    request = _SSET_INFO.pack(EthtoolCommand.GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0)
    answer = _ask(connection, name, request, _SSET_INFO.size)
    if answer is None:
        return ()
    count = _SSET_INFO.unpack(answer)[3]
    request = _GSTRINGS.pack(EthtoolCommand.GSTRINGS, ETH_SS_FEATURES, count)
    answer = _ask(connection, name, request, _GSTRINGS.size + count * ETH_GSTRING_LEN)
    if answer is None:
        return ()
    _names[ETH_SS_FEATURES] = tuple(
        _text(answer[start : start + ETH_GSTRING_LEN]) or ""
        for start in range(_GSTRINGS.size, len(answer), ETH_GSTRING_LEN)
    )
    return _names[ETH_SS_FEATURES]


def _ask(connection: NetlinkSocket, name: str, request: bytes, size: int) -> bytes | None:
    """Return the structure as the kernel filled it in; None where there is no answer."""
    structure = array.array("B", request.ljust(size, b"\0"))
    ifreq = bytearray(_IFREQ.pack(name.encode("utf-8", "surrogateescape")))
    _POINTER.pack_into(ifreq, IFNAMSIZ, structure.buffer_info()[0])
    try:
        fcntl.ioctl(connection.fileno(), SIOCETHTOOL, ifreq)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            return None
        raise
    return structure.tobytes()


def _text(value: bytes) -> str | None:
    return value.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") or None
