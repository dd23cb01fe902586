# SPDX-License-Identifier: Apache-2.0
"""Random XDP programs that the verifier accepts, as hypothesis strategies.

A program reads the first 16 bytes of the packet, computes, branches, keeps things on its stack,
loops, calls subprograms with and without a pointer to its stack, and returns some register. Every
register that is read has been written; there are no pointers but those that are used as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

STACK = 64
_COUNTER = -72

_MAIN = (R0, R6, R7, R8, R9)
_SUBPROGRAM = (R0, R6, R8, R9)  # r7 is the pointer to the caller's stack

_IMMEDIATES = st.one_of(
    st.integers(0, 9),
    st.sampled_from([-1, -2, 15, 63, 127, 128, 255, 0xFFFF, 0x7FFFFFFF, -0x80000000, 1 << 16]),
    st.integers(-(1 << 31), (1 << 31) - 1),
)
_WIDTHS: st.SearchStrategy[Literal[32, 64]] = st.sampled_from([32, 64])
_BINARY = [AluOp.ADD, AluOp.SUB, AluOp.MUL, AluOp.DIV, AluOp.OR, AluOp.AND, AluOp.MOD, AluOp.XOR]
_SHIFTS = [AluOp.LSH, AluOp.RSH, AluOp.ARSH]
_COMPARISONS = [op for op in JmpOp if op not in (JmpOp.JA, JmpOp.CALL, JmpOp.EXIT, JmpOp.JCOND)]
_ATOMICS = [op for op in Atomic if op not in (Atomic.LOAD_ACQ, Atomic.STORE_REL)]


@dataclass(frozen=True, slots=True)
class Branch:
    """A conditional jump over the next ``over`` items of its body; distances come later."""

    op: JmpOp
    left: Register
    right: Register | int
    width: Literal[32, 64]
    over: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A body that runs ``times`` times."""

    body: tuple[Item, ...]
    times: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a subprogram with a number, and a pointer to the lowest stack slot."""

    subprogram: int
    argument: Register


Item = tuple[Instruction, ...] | Branch | Loop | Call


def programs(*, modern: bool = False) -> st.SearchStrategy[tuple[Instruction, ...]]:
    """Return programs.

    Args:
        modern: with what only Linux 6.6 takes: sign-extending instructions, atomic operations that
            fetch, accesses to the stack at variable offsets.
    """
    return st.builds(
        _assemble,
        _bodies(_MAIN, modern, calls=2),
        st.tuples(_bodies(_SUBPROGRAM, modern), _bodies(_SUBPROGRAM, modern)),
        st.sampled_from(_MAIN),
        st.sampled_from([None, 1, 3, 7]),
    )


def _bodies(
    registers: Sequence[Register], modern: bool, *, calls: int = 0
) -> st.SearchStrategy[tuple[Item, ...]]:
    plain = _items(registers, modern, calls)
    nested = st.builds(Loop, st.lists(plain, min_size=1, max_size=6).map(tuple), st.integers(1, 4))
    one = st.one_of(plain, plain, plain, nested).map(lambda item: (item,))
    groups = st.one_of(one, one, one, _selections(registers))
    return st.lists(groups, min_size=8, max_size=32).map(
        lambda found: tuple(item for group in found for item in group)
    )


def _selections(registers: Sequence[Register]) -> st.SearchStrategy[tuple[Item, ...]]:
    """Return what compilers make of a selection: a copy, branches, and a use of either."""
    register = st.sampled_from(registers)
    small = st.integers(-2, 5)

    def selection(
        original: Register,
        copy: Register,
        ops: Sequence[JmpOp],
        numbers: Sequence[int],
        width: Literal[32, 64],
        tested: bool,
    ) -> tuple[Item, ...]:
        first, second = (original, copy) if tested else (copy, original)
        return (
            Branch(ops[0], first, numbers[0], width, 2),
            (asm.mov(copy, original, width=width),),
            Branch(ops[1], second, numbers[1], width, 1),
            (asm.mov(copy, numbers[2]),),
            Branch(ops[2], copy, numbers[3], width, 1),
            (asm.mov(original, numbers[4]),),
        )

    return st.builds(
        selection,
        register,
        register,
        st.lists(st.sampled_from(_COMPARISONS), min_size=3, max_size=3),
        st.lists(small, min_size=5, max_size=5),
        _WIDTHS,
        st.booleans(),
    )


def _items(registers: Sequence[Register], modern: bool, calls: int) -> st.SearchStrategy[Item]:
    register = st.sampled_from(registers)
    offsets = st.integers(0, STACK // 8 - 1).map(lambda index: -STACK + index * 8)
    size = st.sampled_from([1, 2, 4, 8])
    kinds: list[st.SearchStrategy[Item]] = [
        _one(asm.mov, register, st.one_of(register, _IMMEDIATES), width=_WIDTHS),
        _one(asm.mov, register, st.integers(0, 4)),
        _one(asm.alu, st.sampled_from(_BINARY), register, register, width=_WIDTHS),
        st.builds(_with_immediate, st.sampled_from(_BINARY), register, _IMMEDIATES, _WIDTHS),
        st.builds(_shift, st.sampled_from(_SHIFTS), register, st.integers(0, 63), _WIDTHS),
        _one(asm.alu, st.sampled_from(_SHIFTS), register, register, width=_WIDTHS),
        _one(asm.alu, st.just(AluOp.AND), register, st.sampled_from([1, 3, 5, 7, 8, 12, 255])),
        _one(asm.neg, register, width=_WIDTHS),
        st.builds(
            lambda dst, bits, order: (asm.to_endian(dst, bits, byteorder=order),),
            register,
            st.sampled_from([16, 32, 64]),
            st.sampled_from(["little", "big"]),
        ),
        st.builds(
            lambda offset, within, width, src: (
                asm.store(R10, offset + within % (8 // width) * width, src, size=width),
            ),
            offsets,
            st.integers(0, 7),
            size,
            st.one_of(register, st.integers(0, 5)),
        ),
        st.builds(
            lambda dst, offset, within, width: (
                asm.load(dst, R10, offset + within % (8 // width) * width, size=width),
            ),
            register,
            offsets,
            st.integers(0, 7),
            size,
        ),
        st.builds(
            lambda offset, operand, width: (
                asm.atomic(Atomic.ADD, R10, offset, operand, size=width),
            ),
            offsets,
            register,
            st.sampled_from([4, 8]),
        ),
        *[
            st.builds(
                Branch,
                st.sampled_from(_COMPARISONS),
                register,
                st.one_of(register, _IMMEDIATES, st.integers(0, 5)),
                _WIDTHS,
                st.integers(1, 4),
            )
        ]
        * 4,
    ]
    if calls:
        kinds.append(st.builds(Call, st.integers(0, calls - 1), register))
    else:
        kinds += [
            st.builds(
                lambda offset, src, width: (asm.store(R7, offset * 8, src, size=width),),
                st.integers(0, 7),
                register,
                size,
            ),
            st.builds(
                lambda dst, offset, width: (asm.load(dst, R7, offset * 8, size=width),),
                register,
                st.integers(0, 7),
                size,
            ),
        ]
    if modern:
        kinds += [
            st.builds(
                lambda op, offset, operand, width: (
                    asm.atomic(op, R10, offset, operand, size=width),
                ),
                st.sampled_from(_ATOMICS),
                offsets,
                register,
                st.sampled_from([4, 8]),
            ),
            st.builds(_at_variable_offset, register, register, st.booleans()),
            st.builds(
                lambda dst, src, bits, width: (asm.mov_sx(dst, src, bits, width=width),),
                register,
                register,
                st.sampled_from([8, 16]),
                _WIDTHS,
            ),
            st.builds(lambda dst, src: (asm.mov_sx(dst, src, 32),), register, register),
            st.builds(
                lambda dst, offset, width: (asm.load(dst, R10, offset, size=width, signed=True),),
                register,
                offsets,
                st.sampled_from([1, 2, 4]),
            ),
            st.builds(
                lambda op, dst, src, width: (asm.alu(op, dst, src, width=width, signed=True),),
                st.sampled_from([AluOp.DIV, AluOp.MOD]),
                register,
                register,
                _WIDTHS,
            ),
            _one(asm.bswap, register, st.sampled_from([16, 32, 64])),
        ]
    return st.one_of(kinds)


def _one(
    make: Callable[..., Instruction],
    *args: st.SearchStrategy[Any],
    **kwargs: st.SearchStrategy[Any],
) -> st.SearchStrategy[Item]:
    return st.builds(make, *args, **kwargs).map(lambda made: (made,))


def _with_immediate(
    op: AluOp, dst: Register, immediate: int, width: Literal[32, 64]
) -> tuple[Instruction, ...]:
    if op in (AluOp.DIV, AluOp.MOD) and immediate == 0:
        immediate = 3
    return (asm.alu(op, dst, immediate, width=width),)


def _shift(op: AluOp, dst: Register, by: int, width: Literal[32, 64]) -> tuple[Instruction, ...]:
    return (asm.alu(op, dst, by % width, width=width),)


def _at_variable_offset(
    index: Register, value: Register, is_store: bool
) -> tuple[Instruction, ...]:
    address = (
        asm.mov(R5, index),
        asm.alu(AluOp.AND, R5, STACK - 8),
        asm.mov(R4, R10),
        asm.alu(AluOp.ADD, R4, -STACK),
        asm.alu(AluOp.ADD, R4, R5),
    )
    access = asm.store(R4, 0, value) if is_store else asm.load(value, R4, 0)
    return (*address, access)


def _assemble(
    main: tuple[Item, ...],
    subprograms: tuple[tuple[Item, ...], ...],
    result: Register,
    mask: int | None,
) -> tuple[Instruction, ...]:
    calls: list[tuple[int, int]] = []
    code = [
        asm.load(R2, R1, 0, size=4),
        asm.load(R3, R1, 4, size=4),
        asm.mov(R4, R2),
        asm.alu(AluOp.ADD, R4, 16),
        asm.branch(JmpOp.JLE, R4, R3, 2),
        asm.mov(R0, 2),
        asm.exit(),
        asm.load(R6, R2, 0, size=4),
        asm.load(R7, R2, 8, size=8),
        asm.load(R8, R2, 4, size=1),
        asm.load(R9, R2, 6, size=2),
        asm.mov(R0, 1),
        *_filled_stack((R6, R7, R8, R9)),
    ]
    _body(main, code, calls)
    code.append(asm.mov(R0, result))
    if mask is not None:
        code.append(asm.alu(AluOp.AND, R0, mask))
    code.append(asm.exit())
    used = sorted({number for _, number in calls})
    entries = {}
    for number in used:
        entries[number] = len(code)
        code += [
            asm.mov(R6, R1),
            asm.mov(R7, R2),
            asm.mov(R8, 3),
            asm.mov(R9, R1, width=32),
            asm.mov(R0, 0),
            *_filled_stack((R6, R9)),
        ]
        _body(subprograms[number], code, [])
        code.append(asm.exit())
    for slot, number in calls:
        code[slot] = asm.call_subprogram(entries[number] - slot - 1)
    return tuple(code)


def _filled_stack(registers: Sequence[Register]) -> list[Instruction]:
    return [
        asm.store(R10, -STACK + index * 8, registers[index] if index < len(registers) else 0)
        for index in range(STACK // 8)
    ]


def _body(items: tuple[Item, ...], code: list[Instruction], calls: list[tuple[int, int]]) -> None:
    starts: list[int] = []
    branches: list[tuple[int, int, Branch]] = []
    for position, item in enumerate(items):
        starts.append(len(code))
        if isinstance(item, Branch):
            branches.append((len(code), position, item))
            code.append(asm.exit())
        elif isinstance(item, Loop):
            _loop(item, code, calls)
        elif isinstance(item, Call):
            code += [asm.mov(R1, item.argument), asm.mov(R2, R10), asm.alu(AluOp.ADD, R2, -STACK)]
            calls.append((len(code), item.subprogram))
            code.append(asm.exit())
        else:
            code += item
    starts.append(len(code))
    for slot, position, branch in branches:
        target = starts[min(position + 1 + branch.over, len(items))]
        code[slot] = asm.branch(
            branch.op, branch.left, branch.right, target - slot - 1, width=branch.width
        )


def _loop(loop: Loop, code: list[Instruction], calls: list[tuple[int, int]]) -> None:
    code.append(asm.store(R10, _COUNTER, 0))
    start = len(code)
    _body(loop.body, code, calls)
    code += [
        asm.load(R5, R10, _COUNTER),
        asm.alu(AluOp.ADD, R5, 1),
        asm.store(R10, _COUNTER, R5),
    ]
    code.append(asm.branch(JmpOp.JLT, R5, loop.times, start - len(code) - 1))
