# SPDX-License-Identifier: Apache-2.0
"""BTF: the type information of BPF objects and of the kernel, read lazily.

>>> btf = Btf.parse(data)
>>> btf[btf.find("xdp_md", Kind.STRUCT)[0]].members
"""

from __future__ import annotations

from xdpkit.btf import types
from xdpkit.btf.ext import BtfExt, InfoSection
from xdpkit.btf.reader import Btf, essential_name
from xdpkit.btf.types import Kind

__all__ = ["Btf", "BtfExt", "InfoSection", "Kind", "essential_name", "types"]
