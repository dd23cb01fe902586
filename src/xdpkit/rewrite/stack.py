# SPDX-License-Identifier: Apache-2.0
"""How much stack a program's functions use, and whether there is room for more.

The limits are the verifier's (``check_max_stack_depth()``, kernel/bpf/verifier.c, Linux 6.18), for
programs that a JIT compiles. Before Linux 6.9 it rounds frames up to 32 bytes, not 16, and so
refuses a few programs for which there is room here: "bpf: Fix test verif_scale_strobemeta_subprogs
failure due to llvm19".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from xdpkit.analysis import CauseKind, analyse
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import CallKind, Instruction
from xdpkit.isa.opcodes import Register
from xdpkit.rewrite.body import Body, Code, Function
from xdpkit.rewrite.subject import subject_of_body
from xdpkit.uapi.bpf import MAX_BPF_STACK
from xdpkit.uapi.helpers import HELPERS

CELL = 8
"""Bytes that the stack is used in."""

_FRAME_UNIT = 16  # bytes that the verifier rounds a frame up to
_MAX_ABOVE_TAIL_CALL = 256  # a subprogram that tail-calls must have less above it
_TAIL_CALL = HELPERS.index("tail_call")


def depths_of(
    body: Body,
    code: Code,
    *,
    what: str,
    throw: int | None = None,
    known: Sequence[int] | None = None,
) -> dict[Function, int]:
    """Return how deep each function's stack use reaches, in bytes, a multiple of 8.

    Args:
        body: the program. code: the same, not changed yet.
        what: what is tried, for errors.
        throw: BTF id of ``bpf_throw`` in the kernel.
        known: the depths as the verifier's log has them, main's first; None: they are found by
            analysis.

    Raises:
        RequirementUnmet: the program is too complex to be followed.
        UsageError: ``known`` is empty.
    """
    if known is None:
        found = _analysed(body, throw, what)
        return {each: _up(found.get(each.slot, 0), CELL) for each in code.functions}
    if not known:
        raise UsageError(what, cause="the stack depths of its functions are empty")
    depths = list(known)
    if len(depths) != len(code.functions):
        # The verifier takes out functions that are not reached, and adds one for exceptions.
        depths[1:] = [max(depths[1:], default=0)] * (len(code.functions) - 1)
    # It leaves out what else it takes out: registers that are kept over calls of some helpers.
    return {
        each: _up(max(depth, _named(each)), CELL)
        for each, depth in zip(code.functions, depths, strict=True)
    }


def stack_in_log(log: str) -> tuple[int, ...] | None:
    """Return how much stack each function uses, by the verifier's log of level 4 (or 5, 6, 7).

    It is exact where :func:`depths_of` has to take the most: a place that is chosen at run time. It
    has 24 bytes more for a function that calls ``bpf_loop``. None for a log without statistics.
    """
    found = re.search(r"^stack depth (\d+(?:\+\d+)*)", log, re.MULTILINE)
    return None if found is None else tuple(int(depth) for depth in found[1].split("+"))


def is_used(function: Function) -> bool:
    """Return whether a function certainly uses its stack."""
    return _named(function) > 0


def check_room(
    code: Code, depths: Mapping[Function, int], deeper: Mapping[Function, int], *, what: str
) -> None:
    """Check that functions' stack use may reach deeper than it does.

    Args:
        code: the program. depths: how deep its functions reach.
        deeper: how deep some are to reach, in bytes.
        what: what is tried, for errors.

    Raises:
        RequirementUnmet: it may not.
    """
    depth = deeper.get(code.main, 0)
    if depth > MAX_BPF_STACK:
        raise RequirementUnmet(
            what,
            cause=f"{depth - depths[code.main]} more bytes of stack are needed, and the program"
            f" may use {depths[code.main]} of {MAX_BPF_STACK}",
        )
    before, after = _chains(code, depths), _chains(code, {**depths, **deeper})
    # Where the limit is passed already, the verifier counts otherwise: callbacks of timers, say.
    if before.deepest <= MAX_BPF_STACK < after.deepest:
        raise RequirementUnmet(
            what,
            cause=f"its chain of calls would use {after.deepest} bytes of stack, and"
            f" {MAX_BPF_STACK} is the most",
        )
    if before.above_tail_call < _MAX_ABOVE_TAIL_CALL <= after.above_tail_call:
        raise RequirementUnmet(
            what,
            cause=f"there would be {after.above_tail_call} bytes of stack above a subprogram that"
            f" tail-calls, and less than {_MAX_ABOVE_TAIL_CALL} are allowed",
        )


class _Chains:
    """The deepest chains of calls, in bytes: of all, and above subprograms that tail-call."""

    def __init__(self) -> None:
        self.deepest = 0
        self.above_tail_call = 0


def _chains(code: Code, depths: Mapping[Function, int]) -> _Chains:
    found = _Chains()
    above = {code.main: 0}
    for function in _callers_first(code.main):
        start = above[function]
        end = start + _up(depths[function], _FRAME_UNIT)
        found.deepest = max(found.deepest, end)
        if function is not code.main and _tail_calls(function):
            found.above_tail_call = max(found.above_tail_call, start)
        for callee in function.callees:
            above[callee] = max(above.get(callee, 0), end)
    return found


def _callers_first(main: Function) -> list[Function]:
    """Return the functions that are called, each after all that call it."""
    order: list[Function] = []
    seen = {main}
    path = [(main, iter(main.callees))]
    while path:
        function, callees = path[-1]
        callee = next((each for each in callees if each not in seen), None)
        if callee is None:
            order.append(function)
            path.pop()
        else:
            seen.add(callee)
            path.append((callee, iter(callee.callees)))
    return order[::-1]


def _analysed(body: Body, throw: int | None, what: str) -> dict[int, int]:
    found = analyse(subject_of_body(body, throw))
    if any(reason.cause.kind is CauseKind.TOO_COMPLEX for reason in found.actions.unknown):
        raise RequirementUnmet(
            what, cause="the program is too complex to find out how much stack it uses"
        )
    return {use.slot: use.stack for use in found.functions}


def _named(function: Function) -> int:
    """Return how deep a function's own loads and stores of constant places reach."""
    return max(
        (-step.instruction.offset for step in function.steps if _is_on_stack(step.instruction)),
        default=0,
    )


def _is_on_stack(instruction: Instruction) -> bool:
    base = instruction.dst if instruction.is_store else instruction.src
    return (instruction.is_load or instruction.is_store) and base == Register.R10


def _tail_calls(function: Function) -> bool:
    return any(
        step.instruction.imm == _TAIL_CALL and step.instruction.call_kind is CallKind.HELPER
        for step in function.steps
    )


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
