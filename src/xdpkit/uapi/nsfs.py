# SPDX-License-Identifier: Apache-2.0
"""The ioctls of namespaces' files (include/uapi/linux/nsfs.h)."""

from __future__ import annotations

NS_GET_USERNS = 0xB701
