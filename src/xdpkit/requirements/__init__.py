# SPDX-License-Identifier: Apache-2.0
"""What a program needs, with its origin: found in its instructions, or declared in its file.

:func:`needs_of` follows the instructions. The values stand alone: negotiation needs no analysis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpkit.requirements.requirement import Origin, Requirement, Requirements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from xdpkit.btf import Btf
    from xdpkit.obj import ProgramSpec

__all__ = ["Origin", "Requirement", "Requirements", "needs_of"]


def needs_of(
    spec: ProgramSpec,
    target: Btf | Sequence[Btf] | None = None,
    *,
    open_maps: AbstractSet[str] = frozenset(),
) -> Requirements:
    """Return what a program needs; see :func:`xdpkit.requirements.program.needs_of`."""
    from xdpkit.requirements import program

    return program.needs_of(spec, target, open_maps=open_maps)
