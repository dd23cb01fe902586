# SPDX-License-Identifier: Apache-2.0
"""Generic netlink and its controller (include/uapi/linux/genetlink.h)."""

from __future__ import annotations

import enum

GENL_ID_CTRL = 0x10
"""The message type of the controller, the one family whose number is fixed."""


class CtrlCommand(enum.IntEnum):
    """``CTRL_CMD_*``."""

    GETFAMILY = 3


class CtrlAttribute(enum.IntEnum):
    """``CTRL_ATTR_*``."""

    FAMILY_ID = 1
    FAMILY_NAME = 2
    VERSION = 3
    MCAST_GROUPS = 7


class CtrlGroupAttribute(enum.IntEnum):
    """``CTRL_ATTR_MCAST_GRP_*``: the attributes of each multicast group."""

    NAME = 1
    ID = 2
