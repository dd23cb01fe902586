# SPDX-License-Identifier: Apache-2.0
"""Composes small BPF object files, so that tests need no compiler and can make wrong ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from xdpkit.btf import types
from xdpkit.btf.builder import BtfBuilder
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.obj import elf

SHT_STRTAB = 3
GLOBAL = 1


@dataclass
class ElfWriter:
    """A file in the making; what it is asked for is not checked."""

    byteorder: str = "little"
    sections: list[tuple[str, int, int, bytes, int, int, int]] = field(default_factory=list)
    symbols: list[tuple[str, int, int, int, int, int, int]] = field(default_factory=list)
    relocations: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def section(
        self,
        name: str,
        data: bytes = b"",
        *,
        kind: int = elf.SHT_PROGBITS,
        flags: int = 0,
        size: int = -1,
    ) -> int:
        """Add a section and return its index."""
        self.sections.append((name, kind, flags, data, len(data) if size < 0 else size, 0, 0))
        return len(self.sections)

    def code(self, name: str, instructions: Iterable[Instruction]) -> int:
        data = encode(
            tuple(instructions), byteorder="little" if self.byteorder == "little" else "big"
        )
        return self.section(name, data, flags=elf.SHF_EXECINSTR)

    def symbol(
        self,
        name: str,
        section: int = 0,
        value: int = 0,
        size: int = 0,
        *,
        kind: int = elf.STT_NOTYPE,
        bind: int = GLOBAL,
        visibility: int = 0,
    ) -> int:
        """Add a symbol and return its index."""
        self.symbols.append((name, section, value, size, kind, bind, visibility))
        return len(self.symbols)

    def function(
        self, name: str, section: int, value: int, slots: int, *, bind: int = GLOBAL
    ) -> int:
        return self.symbol(name, section, value, slots * 8, kind=elf.STT_FUNC, bind=bind)

    def relocate(self, section: int, offset: int, symbol: int) -> None:
        self.relocations.setdefault(section, []).append((offset, symbol))

    def build(self, *, machine: int = elf.EM_BPF, kind: int = elf.ET_REL) -> bytes:
        mark = "<" if self.byteorder == "little" else ">"
        strings = bytearray(b"\0")

        def text(name: str) -> int:
            at = len(strings)
            strings.extend(name.encode() + b"\0")
            return at

        sections = [("", 0, 0, b"", 0, 0, 0), *self.sections]
        names = len(sections) + len(self.relocations) + 1
        symbols = bytes(24) + b"".join(
            struct.pack(
                mark + "IBBHQQ", text(name), bind << 4 | type_, visibility, place, value, size
            )
            for name, place, value, size, type_, bind, visibility in self.symbols
        )
        table = len(sections)
        sections.append((".symtab", elf.SHT_SYMTAB, 0, symbols, len(symbols), names, 0))
        for section, entries in self.relocations.items():
            data = b"".join(
                struct.pack(mark + "QQ", offset, symbol << 32 | 1) for offset, symbol in entries
            )
            name = ".rel" + sections[section][0]
            sections.append((name, elf.SHT_REL, 0, data, len(data), table, section))
        offsets = [text(section[0]) for section in sections]
        offsets.append(text(".strtab"))
        sections.append((".strtab", SHT_STRTAB, 0, bytes(strings), len(strings), 0, 0))
        body = bytearray(64)
        headers = b""
        for name_at, (_, type_, flags, data, size, link, info) in zip(
            offsets, sections, strict=True
        ):
            headers += struct.pack(
                mark + "IIQQQQIIQQ", name_at, type_, flags, 0, len(body), size, link, info, 1, 0
            )
            body += data
        body[:64] = struct.pack(
            mark + "4sBBBB8xHHIQQQIHHHHHH",
            b"\x7fELF", 2, 1 if mark == "<" else 2, 1, 0,
            kind, machine, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(sections), names,
        )  # fmt: skip
        return bytes(body + headers)


def returns(action: int) -> list[Instruction]:
    """A program that returns a number."""
    return [asm.mov(Register.R0, action), asm.exit()]


def simple(action: int = 2, section: str = "xdp", name: str = "prog") -> ElfWriter:
    """A file with one program."""
    writer = ElfWriter()
    code = writer.code(section, returns(action))
    writer.function(name, code, 0, 2)
    writer.section("license", b"GPL\0")
    return writer


@dataclass
class MapTypes:
    """Composes the BTF of map definitions and variables."""

    builder: BtfBuilder = field(default_factory=BtfBuilder)
    u32: int = 0
    u64: int = 0

    def __post_init__(self) -> None:
        self.u32 = self.builder.add(types.Int("unsigned int", 4, 32))
        self.u64 = self.builder.add(types.Int("unsigned long", 8, 64))

    def number(self, value: int) -> int:
        array = self.builder.add(types.Array(self.u32, self.u32, value))
        return self.builder.add(types.Ptr(array))

    def definition(self, **attributes: int) -> int:
        """Return the struct type of a definition, from attribute names and member type ids."""
        members = tuple(
            types.Member(name, type_id, 64 * index)
            for index, (name, type_id) in enumerate(attributes.items())
        )
        return self.builder.add(types.Struct("", 8 * len(members), members))

    def datasec(self, name: str, *variables: tuple[str, int, int], linkage: int = 1) -> int:
        """Return the section type for (name, type id, size) variables, as clang leaves it."""
        entries = tuple(
            types.SectionVar(self.builder.add(types.Var(var, type_id, linkage)), 0, size)
            for var, type_id, size in variables
        )
        return self.builder.add(types.Datasec(name, 0, entries))
