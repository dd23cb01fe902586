# SPDX-License-Identifier: Apache-2.0
"""The running kernel as a backend: programs, maps and links that live in it.

>>> with load(obj.programs["fw"]) as program:
...     program.run(packet).action
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdpkit.kernel.collection import Collection
    from xdpkit.kernel.context import Context, Given
    from xdpkit.kernel.image import Image
    from xdpkit.kernel.links import Link, LinkInfo, attach_tracepoint, link_ids
    from xdpkit.kernel.loader import load, load_all
    from xdpkit.kernel.maps import Map, MapInfo, map_ids
    from xdpkit.kernel.mapvalues import CpumapValue, DevmapValue
    from xdpkit.kernel.programs import Program, ProgramInfo, program_ids
    from xdpkit.kernel.reload import load_image
    from xdpkit.kernel.testrun import RunResult, XdpContext

__all__ = [
    "Collection",
    "Context",
    "CpumapValue",
    "DevmapValue",
    "Given",
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

# Most users need one of these, and loading needs the object reader, whose import takes long.
_LATE = {
    "Collection": "xdpkit.kernel.collection",
    "Context": "xdpkit.kernel.context",
    "CpumapValue": "xdpkit.kernel.mapvalues",
    "DevmapValue": "xdpkit.kernel.mapvalues",
    "Given": "xdpkit.kernel.context",
    "Image": "xdpkit.kernel.image",
    "Link": "xdpkit.kernel.links",
    "LinkInfo": "xdpkit.kernel.links",
    "Map": "xdpkit.kernel.maps",
    "MapInfo": "xdpkit.kernel.maps",
    "Program": "xdpkit.kernel.programs",
    "ProgramInfo": "xdpkit.kernel.programs",
    "RunResult": "xdpkit.kernel.testrun",
    "XdpContext": "xdpkit.kernel.testrun",
    "attach_tracepoint": "xdpkit.kernel.links",
    "link_ids": "xdpkit.kernel.links",
    "load": "xdpkit.kernel.loader",
    "load_all": "xdpkit.kernel.loader",
    "load_image": "xdpkit.kernel.reload",
    "map_ids": "xdpkit.kernel.maps",
    "program_ids": "xdpkit.kernel.programs",
}


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
