# SPDX-License-Identifier: Apache-2.0
"""Numbers of network namespaces (include/uapi/linux/{net_namespace,rtnetlink}.h)."""

from __future__ import annotations

import enum

NETNSA_NSID_NOT_ASSIGNED = -1


class NamespaceMessage(enum.IntEnum):
    """``RTM_*``."""

    NEWNSID = 88
    GETNSID = 90


class Netnsa(enum.IntEnum):
    """``NETNSA_*``."""

    NSID = 1
    FD = 3
