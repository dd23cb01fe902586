# SPDX-License-Identifier: Apache-2.0
"""From a program in an object file to what it needs, its tail calls included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from xdpkit.analysis import Analysis, analyse, subject_of
from xdpkit.requirements.found import requirements_of
from xdpkit.requirements.requirement import Requirements

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.obj import ProgramSpec


def needs_of(
    spec: ProgramSpec,
    target: Btf | Sequence[Btf] | None = None,
    *,
    open_maps: AbstractSet[str] = frozenset(),
) -> Requirements:
    """Return what a program of an object file needs, with its variables as they are set now.

    Programs that the object puts into its program arrays count, where they can be called.

    Args:
        spec: the program.
        target: types of the kernel that it is to run on, for CO-RE; None: as it was compiled.
        open_maps: names of maps that may hold something else than the object puts there: what is
            in such a program array, or in such constants, is not known.

    Raises:
        ObjectFormatError: the program or the object's declarations are malformed.
        RequirementUnmet: the kernel's types give no usable answer to a relocation.
    """
    found: dict[str, tuple[Analysis, ProgramSpec]] = {}
    waiting = [spec]
    while waiting:
        program = waiting.pop(0)
        if program.name not in found:
            analysis = analyse(subject_of(program, target, open_maps=open_maps))
            found[program.name] = analysis, program
            waiting += _callees(analysis, program, open_maps)
    (analysis, _), *callees = found.values()
    return requirements_of(analysis, spec, callees=callees)


def _callees(
    analysis: Analysis, spec: ProgramSpec, open_maps: AbstractSet[str]
) -> Iterator[ProgramSpec]:
    """Yield the programs that a program's tail calls can reach, as far as the object says."""
    for call in analysis.tail_calls:
        for array in call.arrays:
            is_known = array in spec.object.maps and array not in open_maps
            values = spec.object.maps[array].values if is_known else {}
            for slot, name in values.items():
                reached = call.indices is None or slot in call.indices
                if reached and name in spec.object.programs:
                    yield spec.object.programs[name]
