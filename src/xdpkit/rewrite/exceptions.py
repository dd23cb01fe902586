# SPDX-License-Identifier: Apache-2.0
"""``bpf_throw()``: leaving a program from wherever it is.

What is thrown is what the program returns, unless it has a callback of its own, which is called
then and returns instead of it (Linux 6.7, f18b03fabaa9 "bpf: Implement BPF exceptions",
b9ae0c9dd0ac "bpf: Add support for custom exception callbacks").
"""

from __future__ import annotations

from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind
from xdpkit.isa import CallKind, Instruction, asm
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.rewrite.body import Body, Code, Function, Step, function_records

THROWS_IN_A_SUBPROGRAM = "a subprogram throws (bpf_throw), which ends the program without a return"
"""Why such a program is refused, as the rest of a sentence."""

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


def functions_that_throw(code: Code, throw: int | None) -> set[Function]:
    """Return the functions of a program that call ``bpf_throw``, of that BTF id."""
    return {
        function
        for function in code.functions
        if any(is_throw(step.instruction, throw) for step in function.steps)
    }


def return_what_is_thrown(main: Function, throw: int | None) -> None:
    """Have a main function return what it throws: without a callback, it is the same."""
    steps = main.steps
    main.steps = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        main.steps.append(step)
        if not is_throw(step.instruction, throw):
            continue
        step.instruction = asm.mov(Register.R0, Register.R1)
        if following is not None:
            # Never taken. What follows would have nothing that leads to it, and be refused.
            main.steps += [
                Step(asm.mov(Register.R2, 0)),
                Step(asm.branch(JmpOp.JNE, Register.R2, 0, 0), following),
            ]
        main.steps.append(Step(asm.exit()))
