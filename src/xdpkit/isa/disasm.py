# SPDX-License-Identifier: Apache-2.0
"""Disassembly in the notation of the verifier's log and of ``bpftool prog dump xlated``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from xdpkit.isa.forms import CallKind, Form, Kind
from xdpkit.isa.instruction import Instruction, iter_slots, signed32
from xdpkit.uapi.helpers import HELPERS


def disassemble(
    instructions: Iterable[Instruction],
    *,
    symbols: Mapping[int, str] | None = None,
    annotate: Callable[[int], str | None] | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield the lines of a disassembly, each with the slot of the instruction it belongs to.

    Args:
        instructions: a program or a part of it, the first at slot 0.
        symbols: names by slot: the callee of a call, or what a 64-bit immediate load refers to.
            The name stands for the map in ``map[fd:5]``, and for the whole number where the load
            has no pseudo-source (yet).
        annotate: asked once for each instruction, by slot; what it returns (a source line) comes
            as a line of its own before the instruction, after ``"; "``.
    """
    names = symbols or {}
    for slot, instruction in iter_slots(instructions):
        note = annotate(slot) if annotate else None
        if note is not None:
            yield slot, f"; {note}"
        yield slot, format_instruction(instruction, symbol=names.get(slot))


def format_instruction(instruction: Instruction, *, symbol: str | None = None) -> str:
    """Return the text of one instruction, ``(unknown 0x..)`` with its fields if it is not known.

    Args:
        instruction: what to print.
        symbol: the name of what it refers to; see :func:`disassemble`.
    """
    form = instruction.form
    if form is None:
        return (
            f"(unknown {instruction.opcode:#04x} dst={instruction.dst} src={instruction.src}"
            f" offset={instruction.offset} imm={instruction.imm})"
        )
    letter = "w" if form.word else "r"
    imm = instruction.imm
    wide = form.kind is Kind.CONSTANT
    low = imm & 0xFFFFFFFF
    numbers = {
        "d": f"{letter}{instruction.dst}",
        "s": f"{letter}{instruction.src}",
        "off": f"{instruction.offset:+d}",
        "imm": str(imm),
        "rel": f"{signed32(imm):+d}",
        "hex": f"{imm if wide else low:#x}",
        "low": str(low),
        "high": str(imm >> 32),
        "space": f"{imm >> 16}, {imm & 0xFFFF}",
    }
    name = symbol or _helper_name(instruction, form) or form.default_name.format_map(numbers)
    text = form.text.format_map({**numbers, "name": name})
    # bpftool keeps the distance of a subprogram call and adds the name to it.
    if symbol and instruction.call_kind is CallKind.SUBPROGRAM:
        return f"{text}#{symbol}"
    return text


def _helper_name(instruction: Instruction, form: Form) -> str | None:
    if form.kind is Kind.CALL and instruction.src == CallKind.HELPER:
        number = instruction.imm
        if 0 <= number < len(HELPERS):
            return f"bpf_{HELPERS[number]}"
    return None
