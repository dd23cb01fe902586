# SPDX-License-Identifier: Apache-2.0
"""Short programs, written as instructions with labels, and their analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from xdpkit.analysis import Analysis, Function, Reference, Subject, SubjectMap, analyse
from xdpkit.isa import CallKind, Instruction, asm
from xdpkit.isa.instruction import iter_slots
from xdpkit.isa.opcodes import LD_IMM64, AluOp, Class, JmpOp, Register
from xdpkit.obj.spec import RelocationKind
from xdpkit.uapi.bpf import MapType, PseudoSrc

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

Line = Instruction | str | tuple[Instruction, str]
"""An instruction, a label's definition, or an instruction with what it refers to: the label that it
leads to, ``map NAME``, ``value NAME+OFFSET``, ``kfunc NAME/ARGUMENTS`` (or without their number) or
``ksym NAME``."""

MAPS = {
    "hash": SubjectMap("hash", MapType.HASH, value_size=8, max_entries=16),
    "array": SubjectMap("array", MapType.ARRAY),
    "queue": SubjectMap("queue", MapType.QUEUE, key_size=0),
    "devmap": SubjectMap("devmap", MapType.DEVMAP),
    "cpumap": SubjectMap("cpumap", MapType.CPUMAP),
    "jumps": SubjectMap("jumps", MapType.PROG_ARRAY),
    ".rodata": SubjectMap(".rodata", MapType.ARRAY, data=bytes([1, 0, 0, 0, 2, 0, 0, 0])),
    ".bss": SubjectMap(".bss", MapType.ARRAY),
}


def subject(*lines: Line, maps: Mapping[str, SubjectMap] = MAPS, **fields: Any) -> Subject:
    """Return a program; labels that are called are its functions."""
    labels: dict[str, int] = {}
    code: list[Instruction] = []
    wanted: list[str | None] = []
    slot = 0
    for line in lines:
        if isinstance(line, str):
            labels[line] = slot
            continue
        instruction, target = line if isinstance(line, tuple) else (line, None)
        code.append(instruction)
        wanted.append(target)
        slot += instruction.slots
    references: dict[int, Reference] = {}
    functions = {0: Function(0, fields.get("name", "main"))}
    for index, (slot, instruction) in enumerate(iter_slots(code)):
        target = wanted[index]
        if target is None:
            continue
        kind, _, name = target.partition(" ")
        if name:
            name, _, count = name.partition("/")
            name, _, offset = name.partition("+")
            references[slot] = Reference(
                _KINDS[kind], name, int(offset or 0), arguments=int(count) if count else None
            )
        else:
            distance = labels[target] - slot - 1
            code[index] = _aimed(instruction, distance)
            if instruction.is_call or instruction.opcode == LD_IMM64:
                functions[labels[target]] = Function(
                    labels[target], target, is_global=target.startswith("global")
                )
    return Subject(
        **{
            "name": "main",
            "instructions": tuple(code),
            "functions": tuple(functions[at] for at in sorted(functions)),
            "references": references,
            "maps": maps,
            **fields,
        }
    )


_KINDS = {
    "map": RelocationKind.MAP,
    "value": RelocationKind.MAP_VALUE,
    "kfunc": RelocationKind.KFUNC,
    "ksym": RelocationKind.KSYM,
}


def _aimed(instruction: Instruction, distance: int) -> Instruction:
    if instruction.opcode == LD_IMM64:
        return replace(instruction, imm=distance % (1 << 32))
    if instruction.is_call or instruction.opcode == Class.JMP32 | JmpOp.JA:
        return replace(instruction, imm=distance)
    return replace(instruction, offset=distance)


def run(*lines: Line, **fields: Any) -> Analysis:
    """Return the analysis of a program."""
    return analyse(subject(*lines, **fields))


def actions(*lines: Line, **fields: Any) -> str:
    """Return what a program can return, as text."""
    return str(run(*lines, **fields).actions)


def goto(label: str) -> Line:
    return asm.jump(0), label


def when(op: JmpOp, left: Register, right: Register | int, label: str, *, width: Any = 64) -> Line:
    return asm.branch(op, left, right, 0, width=width), label


def call(label: str) -> Line:
    return Instruction(Class.JMP | JmpOp.CALL, src=CallKind.SUBPROGRAM), label


def kfunc(name: str) -> Line:
    return asm.call_kfunc(1), f"kfunc {name}"


def address_of(register: Register, target: str) -> Line:
    """Load the address of a function (a label), a map or a kernel variable."""
    if " " in target:
        return asm.ld_imm64(register, 0), target
    return Instruction(LD_IMM64, register, PseudoSrc.FUNC), target


def returns(number: int) -> tuple[Line, Line]:
    return asm.mov(R0, number), asm.exit()


def lookup(name: str) -> tuple[Line, ...]:
    """Look up key 0 of a map; the key is at the bottom of the stack."""
    return (
        asm.store(R10, -512, 0, size=4),
        asm.mov(R2, R10),
        asm.alu(AluOp.ADD, R2, -512),
        address_of(R1, f"map {name}"),
        asm.call("map_lookup_elem"),
    )


def unknown(register: Register) -> tuple[Line, ...]:
    """Put anything into a register."""
    return asm.call("ktime_get_ns"), asm.mov(register, R0)
