# SPDX-License-Identifier: Apache-2.0
"""Handing what main keeps to its subprograms.

A subprogram cannot see main's stack: the same instruction would read its own, which the verifier
does not notice. So each subprogram that reads what is kept, or calls one that does, takes the
address of main's block as one more argument, and keeps it in its own stack from the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from xdpkit.context.kept import Block
from xdpkit.context.program import Program
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import LD_IMM64, AluOp, Register
from xdpkit.rewrite.body import Code, Function, Step
from xdpkit.rewrite.stack import CELL

R10 = Register.R10

_MAX_ARGUMENTS = 5


def argument_registers(
    program: Program, code: Code, readers: Mapping[Function, str]
) -> dict[Function, Register]:
    """Return the subprograms that need the block, each with the register that it takes it in.

    Args:
        program: the program. code: the same, not changed yet.
        readers: the subprograms that read what is kept, each with what it reads and where.

    Raises:
        RequirementUnmet: one of them cannot take another argument.
    """
    declared = program.declared
    called_back = {
        step.target
        for function in code.functions
        for step in function.steps
        if step.instruction.opcode == LD_IMM64
    }
    read = {use.slot: use.arguments for use in program.found.functions}
    registers = {}
    for function, reader in _with_callers(code, readers).items():
        slot, remedy = function.slot, "read it in the main function, and pass its value on"
        parameters = declared.parameters(slot)
        declares, reads = len(parameters or ()), read.get(slot, 0)
        if function in called_back or slot == program.exception_callback:
            obstacle = "is called back"
        elif parameters is None:
            obstacle = "has no type information (BTF), which would say what its arguments are"
        elif declared.is_global(slot):
            obstacle = "is global, so that the verifier looks at it by itself"
            remedy = f"make {declared.name(slot)} static"
        elif declares >= _MAX_ARGUMENTS:
            obstacle = f"has {_MAX_ARGUMENTS} arguments, which is the most"
        elif reads >= _MAX_ARGUMENTS:
            # Compilers change what static functions take, and do not always say so.
            obstacle = f"was compiled to read r{reads}, the last register for arguments"
        else:
            registers[function] = Register(max(declares, reads) + 1)
            continue
        name = declared.name(slot)
        why = "cannot be told: it" if function is reader else f"would be told through {name}: that"
        raise program.refusal(
            f"{declared.name(reader.slot)} reads {readers[reader]}, which only the main function"
            f" knows, and {why} {obstacle}",
            remedy,
        )
    return registers


def hand_over(
    code: Code, registers: Mapping[Function, Register], block: Block, depths: Mapping[Function, int]
) -> dict[Function, int]:
    """Have the subprograms that need it take the address of main's block, and keep it.

    Args:
        code: the program. depths: how deep its functions' stack use reaches.
        registers: by subprogram, the register that it takes the address in.
        block: main's block.

    Returns:
        By subprogram, where it keeps the address, as offset from its frame pointer.
    """
    kept = {function: -depths[function] - CELL for function in registers}
    for function in (code.main, *registers):
        steps = []
        for step in function.steps:
            callee = step.target if isinstance(step.target, Function) else None
            register = registers.get(callee) if callee is not None else None
            if register is None:
                steps.append(step)
            elif function is code.main:
                steps += _preceded(
                    step, asm.mov(register, R10), asm.alu(AluOp.ADD, register, block.start)
                )
            else:
                steps += _preceded(step, asm.load(register, R10, kept[function]))
        function.steps = steps
    for function, register in registers.items():
        function.prepend([Step(asm.store(R10, kept[function], register))])
    return kept


def _with_callers(code: Code, readers: Mapping[Function, str]) -> dict[Function, Function]:
    """Return some subprograms and all that call them, each with the one that it is for."""
    callers = defaultdict(list)
    for function in code.functions:
        for callee in function.callees:
            callers[callee].append(function)
    found = {reader: reader for reader in readers}
    waiting = list(readers)
    while waiting:
        callee = waiting.pop()
        for caller in callers[callee]:
            if caller is not code.main and caller not in found:
                found[caller] = found[callee]
                waiting.append(caller)
    return found


def _preceded(call: Step, *instructions: Instruction) -> list[Step]:
    """Put instructions before a call; what leads to the call then leads to them."""
    moved = Step(call.instruction, call.target)
    call.instruction, call.target = instructions[0], None
    return [call, *map(Step, instructions[1:]), moved]
