# SPDX-License-Identifier: Apache-2.0
"""Bodies as what the analysis takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from xdpkit.analysis import Function, Reference, Subject
from xdpkit.isa import Instruction, decode, iter_slots
from xdpkit.obj.spec import RelocationKind
from xdpkit.rewrite.body import Body, function_records, map_of
from xdpkit.rewrite.exceptions import is_throw
from xdpkit.uapi.bpf import PseudoSrc

_THROW = Reference(RelocationKind.KFUNC, "bpf_throw", arguments=1)
_NO_KFUNCS: Mapping[int, Reference] = MappingProxyType({})


def subject_of_body(
    body: Body, throw: int | None, kfuncs: Mapping[int, Reference] = _NO_KFUNCS
) -> Subject:
    """Return a program of which little is known but its instructions.

    Functions have their slots for names, maps their numbers.

    Args:
        body: the program.
        throw: BTF id of ``bpf_throw`` in the kernel.
        kfuncs: the kernel functions that it calls, by slot, as far as they are known.

    Raises:
        ObjectFormatError: the code ends within an instruction.
    """
    instructions = decode(body.code, byteorder=sys.byteorder)
    references = {
        slot: _reference(instruction, throw) for slot, instruction in iter_slots(instructions)
    }
    return Subject(
        name="main",
        instructions=instructions,
        functions=tuple(Function(slot, f"{slot}") for slot in function_records(body)),
        references={**kfuncs, **{slot: each for slot, each in references.items() if each}},
        byteorder=sys.byteorder,
    )


def _reference(instruction: Instruction, throw: int | None) -> Reference | None:
    number = map_of(instruction)
    if number is None:
        return _THROW if is_throw(instruction, throw) else None
    if instruction.src == PseudoSrc.MAP_FD:
        return Reference(RelocationKind.MAP, str(number))
    return Reference(RelocationKind.MAP_VALUE, str(number), instruction.imm >> 32)
