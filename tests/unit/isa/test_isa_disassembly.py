# SPDX-License-Identifier: Apache-2.0
"""The text of instructions, against golden files.

``golden/instructions.txt`` is input and expectation in one: machine code (little endian, hex) and
its text. ``golden/program.txt`` is the disassembly of the program below. ``make bless`` writes the
texts anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpkit.isa import Instruction, asm, decode, disassemble, encode, format_instruction
from xdpkit.isa.forms import FORMS
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.uapi.bpf import PseudoSrc

GOLDEN = Path(__file__).parent / "golden"
INSTRUCTIONS = GOLDEN / "instructions.txt"
CODE_WIDTH = 33

R0, R1, R2, R3, _, _, R6, _, _, _, R10 = Register


def check(config: pytest.Config, path: Path, text: str) -> None:
    if config.getoption("--bless", default=False):
        path.write_text(text)
    assert text == path.read_text()


def golden_code() -> list[bytes]:
    return [bytes.fromhex(line.split()[0]) for line in INSTRUCTIONS.read_text().splitlines()]


@pytest.mark.golden
def test_each_instruction_prints_as_in_the_golden_file(pytestconfig: pytest.Config) -> None:
    lines = []
    for code in golden_code():
        (instruction,) = decode(code)
        lines.append(f"{code.hex():<{CODE_WIDTH}}{format_instruction(instruction)}\n")
    check(pytestconfig, INSTRUCTIONS, "".join(lines))


def test_the_golden_file_has_every_form_of_instruction() -> None:
    found = {decode(code)[0].form for code in golden_code()}
    assert [form for form in FORMS if form not in found] == []


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_each_golden_instruction_round_trips(byteorder: str) -> None:
    instructions = decode(b"".join(golden_code()))
    code = encode(instructions, byteorder=byteorder)
    assert decode(code, byteorder=byteorder) == instructions


PROGRAM = (
    asm.mov(R6, R1),
    asm.load(R2, R6, 4, size=4),
    asm.load(R1, R6, 0, size=4),
    asm.mov(R3, R1),
    asm.alu(AluOp.ADD, R3, 14),
    asm.branch(JmpOp.JGT, R3, R2, 12),
    asm.call_subprogram(13),
    asm.store(R10, -4, R0, size=4),
    asm.ld_imm64(R1, 0, source=PseudoSrc.MAP_FD),
    asm.mov(R2, R10),
    asm.alu(AluOp.ADD, R2, -4),
    asm.call("bpf_map_lookup_elem"),
    asm.branch(JmpOp.JEQ, R0, 0, 4),
    asm.mov(R1, 1),
    asm.atomic(Atomic.ADD, R0, 0, R1),
    asm.ld_map_value(R2, 0, 8),
    asm.mov(R0, 2, width=32),
    asm.exit(),
    asm.load(R0, R1, 12, size=2),
    asm.to_endian(R0, 16, byteorder="big"),
    asm.ld_imm64(R2, 0),
    asm.call_kfunc(0),
    asm.exit(),
)
SYMBOLS = {
    6: "protocol_of",
    8: "hits",
    16: ".rodata",
    22: "jiffies",
    24: "bpf_xdp_metadata_rx_hash",
}
SOURCE = {0: "int count(struct xdp_md *ctx)", 6: "__u32 key = protocol_of(data);"}


@pytest.mark.golden
def test_a_program_prints_with_symbols_and_annotations_as_in_the_golden_file(
    pytestconfig: pytest.Config,
) -> None:
    lines = disassemble(PROGRAM, symbols=SYMBOLS, annotate=SOURCE.get)
    check(
        pytestconfig, GOLDEN / "program.txt", "".join(f"{slot:4}: {text}\n" for slot, text in lines)
    )


def test_an_annotation_is_a_line_of_its_own_before_the_instruction() -> None:
    program = [asm.mov(R0, 2), asm.exit()]
    assert list(disassemble(program, annotate={1: "return XDP_PASS;"}.get)) == [
        (0, "r0 = 2"),
        (1, "; return XDP_PASS;"),
        (1, "exit"),
    ]


@pytest.mark.parametrize(
    ("instruction", "symbol", "text"),
    [
        (asm.ld_imm64(R1, 5, source=PseudoSrc.MAP_FD), "hits", "r1 = map[hits]"),
        (asm.ld_map_value(R1, 5, 8), ".bss", "r1 = map[.bss][0]+8"),
        (asm.ld_imm64(R1, 5, source=PseudoSrc.MAP_IDX), "hits", "r1 = map[hits]"),
        (asm.ld_imm64(R1, 5, source=PseudoSrc.BTF_ID), "runqueues", "r1 = runqueues"),
        (asm.ld_imm64(R1, 5, source=PseudoSrc.FUNC), "visit", "r1 = subprog[visit]"),
        (asm.ld_imm64(R1, 0), "jiffies", "r1 = jiffies"),
        (asm.call_subprogram(-9), "parse", "call pc-9#parse"),
        (asm.call_kfunc(77), "bpf_dynptr_from_xdp", "call bpf_dynptr_from_xdp#77"),
        (asm.mov(R1, 5), "hits", "r1 = 5"),
        (Instruction(0x8D), "hits", "(unknown 0x8d dst=0 src=0 offset=0 imm=0)"),
    ],
)
def test_a_symbol_stands_for_what_the_instruction_refers_to(
    instruction: Instruction, symbol: str, text: str
) -> None:
    assert format_instruction(instruction, symbol=symbol) == text
