# SPDX-License-Identifier: Apache-2.0
"""The ethtool ioctl (include/uapi/linux/ethtool.h), as far as it is used."""

from __future__ import annotations

import enum

SIOCETHTOOL = 0x8946
# include/uapi/linux/sockios.h
SIOCGIFNAME = 0x8910

ETH_GSTRING_LEN = 32
ETH_SS_STATS = 1
ETH_SS_FEATURES = 4


class EthtoolCommand(enum.IntEnum):
    """``ETHTOOL_*``: what ``struct ifreq`` points at begins with one."""

    GDRVINFO = 0x03
    GSTRINGS = 0x1B
    GSTATS = 0x1D
    GSSET_INFO = 0x37
    GFEATURES = 0x3A
    SFEATURES = 0x3B
    GCHANNELS = 0x3C
