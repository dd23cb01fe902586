# SPDX-License-Identifier: Apache-2.0
"""The running kernel as a backend: programs, maps and links that live in it.

>>> with load(obj.programs["fw"]) as program:
...     program.run(packet).action
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpkit.kernel.links import Link, LinkInfo, attach_tracepoint, link_ids
from xdpkit.kernel.maps import Map, MapInfo, map_ids
from xdpkit.kernel.mapvalues import CpumapValue, DevmapValue
from xdpkit.kernel.programs import Program, ProgramInfo, program_ids
from xdpkit.kernel.testrun import RunResult, XdpContext

if TYPE_CHECKING:
    from xdpkit.kernel.collection import Collection
    from xdpkit.kernel.image import Image
    from xdpkit.kernel.loader import load, load_all
    from xdpkit.kernel.reload import load_image

__all__ = [
    "Collection",
    "CpumapValue",
    "DevmapValue",
    "Image",
    "Link",
    "LinkInfo",
    "Map",
    "MapInfo",
    "Program",
    "ProgramInfo",
    "RunResult",
    "XdpContext",
    "attach_tracepoint",
    "link_ids",
    "load",
    "load_all",
    "load_image",
    "map_ids",
    "program_ids",
]

# Loading needs the object reader; who only looks at what is loaded need not wait for its import.
_LATE = {
    "Collection": "xdpkit.kernel.collection",
    "Image": "xdpkit.kernel.image",
    "load": "xdpkit.kernel.loader",
    "load_all": "xdpkit.kernel.loader",
    "load_image": "xdpkit.kernel.reload",
}


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
