# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations: making code that was compiled against one set of types fit another.

The compiler records, for an instruction, what the source asked about a type: the offset of a
member, whether an enumerator exists. The answer is looked up in the target's BTF (the kernel's and
its modules') and written into the instruction. The rules are libbpf's, so that an object behaves
the same under either loader:

- A *candidate* is a target type of the same kind and name; a ``___flavour`` at the end of a name
  is not part of it. Modules are searched only for what the kernel itself does not have.
- A *place* in the object's type is followed by member names and array indices, and searched for
  through anonymous structs and unions; the member found must be of a compatible type.
- Where several candidates fit, they must give the same answer.
- What does not exist is 0 for an existence question and for a question about a whole type. Any
  other instruction is *poisoned*: it becomes a call that the verifier refuses, unless the program
  guards it with an existence question and it is dead code.

=============  ==========================================================
``access``     a place in a type, from the compiler's access string
``relation``   which types of the object and of the target correspond
``match``      finding a place of the object's types in the target's
``value``      the number that a question about a place has for an answer
``resolve``    candidates, and agreement between them
``patch``      writing the answer into the instruction
=============  ==========================================================

Source: ``struct bpf_core_relo`` in include/uapi/linux/bpf.h; Documentation/bpf/llvm_reloc.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.obj.core.access import Unfit
from xdpkit.obj.core.describe import describe
from xdpkit.obj.core.patch import POISON, patch
from xdpkit.obj.core.resolve import Resolver

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.obj.spec import CoreRelocation

__all__ = ["POISON", "describe", "relocate"]


def relocate(
    code: bytearray,
    relocations: Iterable[CoreRelocation],
    local: Btf,
    targets: Sequence[Btf],
    *,
    byteorder: Literal["little", "big"] = "little",
    where: str = "",
) -> None:
    """Patch instructions in place; on an error nothing is changed.

    Args:
        code: linked instructions, 8 bytes a slot.
        relocations: what to answer, and in which slot. Their order can matter, as it does in
            libbpf: a candidate that one relocation ruled out is not asked again for that type.
        local: the object's types.
        targets: the kernel's types, then those of its modules, which continue the kernel's.
        byteorder: that of the code.
        where: what the code is ("program xdp_fw"), for messages.

    Raises:
        ObjectFormatError: a relocation is malformed, or the instruction is not what it says.
        RequirementUnmet: the target's types give no usable answer: they contradict each other, or
            the answer does not fit into the instruction.
    """
    patched = bytearray(code)
    resolver = Resolver(local, targets)
    for relocation in relocations:
        try:
            outcome = resolver.resolve(relocation)
            patch(patched, relocation.slot, outcome, byteorder)
        except Unfit as unfit:
            raise RequirementUnmet(
                f"resolve the {_context(relocation, local, where)}", cause=unfit.cause
            ) from None
        except ObjectFormatError as error:
            raise ObjectFormatError(
                f"{_context(relocation, local, where)}: {error.cause}",
                file=error.file,
                section=error.section,
                offset=error.offset,
            ) from error
    code[:] = patched


def _context(relocation: CoreRelocation, local: Btf, where: str) -> str:
    place = f" of {where}" if where else ""
    return f"relocation {describe(relocation, local)} at instruction {relocation.slot}{place}"
