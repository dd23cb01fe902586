# SPDX-License-Identifier: Apache-2.0
"""What a loaded program reads in the fields that xdpkit adds to its context."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet
from xdpkit.obj.spec import ProgramSpec

if TYPE_CHECKING:
    from xdpkit.kernel import Given, Program


def given_to(program: ProgramSpec | Program) -> tuple[Given, ...]:
    """Return what a loaded program, and those that it tail-calls, read as their context's fields.

    Empty where they read none of them, or where it is not known.
    """
    if isinstance(program, ProgramSpec):
        return ()
    if program.was_loaded_here:
        found = [program.context, *(leaf.context for leaf in program.leaves)]
    else:
        from xdpkit.hook import records

        found = []
        with contextlib.suppress(MissingPrivilege, RequirementUnmet, KernelRefused):
            image = records.image_of(program.fileno())
            found = [image.context if image is not None else None]
    return tuple(each for each in found if each is not None)
