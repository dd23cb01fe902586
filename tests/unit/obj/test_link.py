# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest

from tests.unit.obj.elf_writer import ElfWriter, MapTypes, returns, simple
from xdpkit.btf import types
from xdpkit.errors import ObjectFormatError
from xdpkit.isa import Instruction, asm, decode
from xdpkit.isa.opcodes import Register as Reg
from xdpkit.obj import LinkedProgram, elf, read


def linked(writer: ElfWriter, program: str = "main") -> LinkedProgram:
    return read(writer.build(), name="f.o").programs[program].link()


def calls(code: bytes, byteorder: str = "little") -> list[int]:
    """Where each call of a linked program goes, in slots."""
    assert byteorder in ("little", "big")
    instructions = decode(code, byteorder="little" if byteorder == "little" else "big")
    found, slot = [], 0
    for instruction in instructions:
        target = instruction.target(slot)
        if target is not None:
            found.append(target)
        slot += instruction.slots
    return found


def chain(byteorder: str = "little") -> ElfWriter:
    """main calls b, then a; b calls c. In .text they lie as a, b, c."""
    writer = ElfWriter(byteorder)
    text = writer.code(".text", [*returns(1), asm.call_subprogram(-1), asm.exit(), *returns(3)])
    main = writer.code("xdp", [asm.call_subprogram(-1), asm.call_subprogram(-1), *returns(2)])
    a = writer.function("a", text, 0, 2)
    b = writer.function("b", text, 16, 2)
    c = writer.function("c", text, 32, 2)
    writer.function("main", main, 0, 4)
    writer.relocate(text, 16, c)
    writer.relocate(main, 0, b)
    writer.relocate(main, 8, a)
    return writer


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_subprograms_follow_depth_first_in_the_order_of_their_calls(byteorder: str) -> None:
    program = linked(chain(byteorder))
    assert program.functions == ((0, "main"), (4, "b"), (6, "c"), (8, "a"))
    assert calls(program.code, byteorder) == [4, 8, 6]


def test_a_static_function_is_found_through_its_sections_symbol() -> None:
    writer = ElfWriter()
    text = writer.code(".text", [*returns(1), *returns(2)])
    writer.function("first", text, 0, 2, bind=elf.STB_LOCAL)
    writer.function("second", text, 16, 2, bind=elf.STB_LOCAL)
    section = writer.symbol("", text, kind=elf.STT_SECTION, bind=elf.STB_LOCAL)
    main = writer.code("xdp", [asm.call_subprogram(2 - 1), *returns(0)])
    writer.function("main", main, 0, 3)
    writer.relocate(main, 0, section)
    assert linked(writer).functions == ((0, "main"), (3, "second"))


def test_a_call_within_the_section_needs_no_relocation() -> None:
    writer = ElfWriter()
    text = writer.code(".text", [*returns(1), asm.call_subprogram(-3), asm.exit()])
    leaf = writer.function("leaf", text, 0, 2, bind=elf.STB_LOCAL)
    middle = writer.function("middle", text, 16, 2)
    main = writer.code("xdp", [asm.call_subprogram(-1), *returns(0)])
    writer.function("main", main, 0, 3)
    writer.relocate(main, 0, middle)
    program = linked(writer)
    assert leaf
    assert program.functions == ((0, "main"), (3, "middle"), (5, "leaf"))
    assert calls(program.code) == [3, 5]


def test_the_address_of_a_function_is_a_distance() -> None:
    writer = ElfWriter()
    text = writer.code(".text", returns(1))
    callback = writer.function("callback", text, 0, 2)
    main = writer.code("xdp", [asm.ld_imm64(Reg.R2, 0), *returns(0)])
    writer.function("main", main, 0, 4)
    writer.relocate(main, 0, callback)
    program = linked(writer)
    assert program.functions == ((0, "main"), (4, "callback"))
    load = decode(program.code)[0]
    assert (load.src, load.imm) == (4, 3)


def test_functions_that_call_each_other_end() -> None:
    writer = ElfWriter()
    text = writer.code(".text", [asm.call_subprogram(-1), asm.exit()] * 2)
    ping = writer.function("ping", text, 0, 2)
    pong = writer.function("pong", text, 16, 2)
    writer.relocate(text, 0, pong)
    writer.relocate(text, 16, ping)
    main = writer.code("xdp", [asm.call_subprogram(-1), *returns(0)])
    writer.function("main", main, 0, 3)
    writer.relocate(main, 0, ping)
    assert [name for _, name in linked(writer).functions] == ["main", "ping", "pong"]


def test_calls_may_nest_deeper_than_pythons_stack() -> None:
    depth = 5000
    writer = ElfWriter()
    text = writer.code(".text", [asm.call_subprogram(-1), asm.exit()] * depth)
    functions = [writer.function(f"f{n}", text, n * 16, 2) for n in range(depth)]
    for n in range(depth - 1):
        writer.relocate(text, n * 16, functions[n + 1])
    writer.relocate(text, (depth - 1) * 16, functions[0])
    main = writer.code("xdp", [asm.call_subprogram(-1), *returns(0)])
    writer.function("main", main, 0, 3)
    writer.relocate(main, 0, functions[0])
    assert len(linked(writer).functions) == depth + 1


def with_reference(
    instruction: Instruction, *, section: str = ".maps", value: int = 0, kind: int = elf.STT_OBJECT
) -> ElfWriter:
    """A program whose first instruction refers to something in another section."""
    writer = ElfWriter()
    described = MapTypes()
    struct = described.definition(type=described.number(2))
    described.datasec(".maps", ("m", struct, 8))
    main = writer.code("xdp", [instruction, *returns(0)])
    writer.function("main", main, 0, instruction.slots + 2)
    maps = writer.section(".maps", bytes(8))
    writer.symbol("m", maps, 0, 8, kind=elf.STT_OBJECT)
    data = writer.section(".data", bytes(16))
    other = writer.section("maps", bytes(16))
    writer.section(".BTF", described.builder.build())
    place = {".maps": maps, ".data": data, "maps": other, "": 0}[section]
    writer.relocate(main, 0, writer.symbol("target", place, value, 8, kind=kind))
    return writer


def test_a_reference_to_data_carries_its_offset() -> None:
    load = asm.ld_imm64(Reg.R1, 4)
    (relocation,) = linked(with_reference(load, section=".data", value=8)).relocations
    assert (relocation.name, relocation.offset, relocation.slots) == (".data", 12, (0,))


@pytest.mark.parametrize(
    ("writer", "cause"),
    [
        (with_reference(asm.mov(Reg.R1, 0)), "of an instruction that takes none"),
        (with_reference(asm.ld_imm64(Reg.R1, 0), value=8), "'target' is not a map"),
        (
            with_reference(asm.ld_imm64(Reg.R1, 0), section=".data", value=16),
            "is outside of section",
        ),
        (with_reference(asm.ld_imm64(Reg.R1, 0), section=""), "'target' is defined nowhere"),
        (with_reference(asm.call_subprogram(-1)), "calls 'target', which is not code"),
        (
            with_reference(asm.ld_imm64(Reg.R1, 0), section="maps"),
            "neither maps, data nor code\nRemedy: define the map by its types",
        ),
    ],
)
def test_a_reference_that_makes_no_sense_is_refused_with_its_place(
    writer: ElfWriter, cause: str
) -> None:
    with pytest.raises(ObjectFormatError, match=cause) as caught:
        linked(writer)
    assert (caught.value.file, caught.value.section, caught.value.offset) == ("f.o", "xdp", 0)


def test_a_call_into_the_middle_of_a_function_is_refused() -> None:
    writer = ElfWriter()
    main = writer.code("xdp", [asm.call_subprogram(0), *returns(0)])
    writer.function("main", main, 0, 3)
    with pytest.raises(ObjectFormatError, match="refers to 0x8 of section xdp, where no function"):
        linked(writer)


@pytest.mark.parametrize(("size", "value"), [(0, 0), (1, 0), (5, 0), (1, 1)])
def test_a_function_that_is_not_whole_instructions_of_its_section_is_refused(
    size: int, value: int
) -> None:
    writer = ElfWriter()
    code = writer.code("xdp", returns(0))
    writer.symbol("main", code, value, size * 4, kind=elf.STT_FUNC)
    with pytest.raises(ObjectFormatError, match="function main"):
        read(writer.build())


def test_a_program_without_relocations_is_as_in_the_file() -> None:
    program = read(simple(3).build()).programs["prog"].link()
    assert decode(program.code) == tuple(returns(3))
    assert (program.relocations, program.core, program.func_info) == ((), (), b"")


def test_line_records_move_with_their_functions() -> None:
    writer = chain()
    described = MapTypes()
    names = {name: described.builder.string(name) for name in ("xdp", ".text", "f.c", "line")}
    proto = described.builder.add(types.FuncProto(described.u32))
    ids = {name: described.builder.add(types.Func(name, proto)) for name in ("main", "a", "b", "c")}

    def part(size: int, sections: dict[str, list[tuple[int, ...]]]) -> bytes:
        body = struct.pack("<I", size)
        for section, records in sections.items():
            body += struct.pack("<II", names[section], len(records))
            body += b"".join(struct.pack(f"<{len(r)}I", *r) for r in records)
        return body

    functions = part(
        8, {".text": [(0, ids["a"]), (16, ids["b"]), (32, ids["c"])], "xdp": [(0, ids["main"])]}
    )
    place = (names["f.c"], names["line"])
    lines = part(
        16, {".text": [(at, *place, at) for at in (0, 16, 32, 40)], "xdp": [(8, *place, 99)]}
    )
    header = struct.pack(
        "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(functions), len(functions), len(lines)
    )
    writer.section(".BTF", described.builder.build())
    writer.section(".BTF.ext", header + functions + lines)
    program = linked(writer)
    assert [*struct.iter_unpack("=II", program.func_info)] == [
        (0, ids["main"]), (4, ids["b"]), (6, ids["c"]), (8, ids["a"]),
    ]  # fmt: skip
    records = struct.iter_unpack("=IIII", program.line_info)
    assert [(slot, column) for slot, _, _, column in records] == [
        (1, 99), (4, 16), (6, 32), (7, 40), (8, 0),
    ]  # fmt: skip
