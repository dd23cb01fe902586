# SPDX-License-Identifier: Apache-2.0
"""``bpf_throw()``: leaving a program from wherever it is.

What is thrown is what the program returns, unless it has a callback of its own, which is called
then and returns instead of it (Linux 6.7, f18b03fabaa9 "bpf: Implement BPF exceptions",
b9ae0c9dd0ac "bpf: Add support for custom exception callbacks").
"""

from __future__ import annotations

from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind
from xdpkit.isa import CallKind, Instruction
from xdpkit.rewrite.body import Body, function_records

_TAG = "exception_callback:"


def exception_callback(body: Body, btf: Btf) -> int | None:
    """Return the slot of the function that a program goes on in when something is thrown.

    Args:
        body: the program.
        btf: its types.

    Returns:
        None for a program without a callback of its own.
    """
    records = function_records(body)
    functions = {type_id: slot for slot, type_id in records.items()}
    for tag_id in btf.ids(Kind.DECL_TAG):
        tag = btf[tag_id]
        if (
            isinstance(tag, types.DeclTag)
            and tag.type_id == records.get(0)
            and tag.value.startswith(_TAG)
        ):
            for type_id in btf.find(tag.value.removeprefix(_TAG), Kind.FUNC):
                if type_id in functions:
                    return functions[type_id]
    return None


def is_throw(instruction: Instruction, throw: int | None) -> bool:
    """Return whether an instruction calls the kernel function ``bpf_throw``, of that BTF id."""
    return (
        instruction.imm == throw
        and instruction.call_kind is CallKind.KFUNC
        and instruction.offset == 0
    )
