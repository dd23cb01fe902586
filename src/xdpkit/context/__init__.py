# SPDX-License-Identifier: Apache-2.0
"""The extended context: what ``struct xdpkit_md`` has beyond the kernel's ``struct xdp_md``.

Pure: programs in, programs out. The kernel knows nothing of these fields: what reads them is given
other instructions. Maps are put in afterwards, at the places that the result names.

===============  ==================================================================
``fields``       the fields, and a glance that tells whether a program may read them
``declared``     what a program's type and line information says
``program``      a program with all that is known of it
``accesses``     which instructions read the fields, and what cannot be provided
``loads``        what takes the place of such an instruction
``kept``         finding fields out when the program is entered, and keeping them
``subprograms``  handing what is kept to subprograms
``providing``    all of it together
===============  ==================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpkit.context.fields import BASE, FIELDS, NO_PORT, Field, field_at, may_read

if TYPE_CHECKING:
    from xdpkit.context.providing import Provided, provide, stand_in

__all__ = [
    "BASE",
    "FIELDS",
    "NO_PORT",
    "Field",
    "Provided",
    "field_at",
    "may_read",
    "provide",
    "stand_in",
]


def __getattr__(name: str) -> Any:
    # Most programs read none of the fields, and the analysis takes long to import.
    if name not in ("Provided", "provide", "stand_in"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from xdpkit.context import providing

    return getattr(providing, name)
