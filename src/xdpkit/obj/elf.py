# SPDX-License-Identifier: Apache-2.0
"""The ELF side of an object file: sections, symbols, relocations.

A BPF object is the simplest kind of ELF: relocatable, 64-bit, no segments, four kinds of fixed
records (System V ABI, chapter 4). They are read here, by ``struct``, because loading has to keep up
with libbpf and a general ELF library takes longer for the section table alone than all the rest of
a load (docs/decisions/001-own-elf-reader.md).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from xdpkit.errors import ObjectFormatError

EM_BPF = 247
ET_REL = 1

SHT_NULL = 0
SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_RELA = 4
SHT_NOBITS = 8
SHT_REL = 9
SHF_EXECINSTR = 0x4
SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00

STB_LOCAL = 0
STB_WEAK = 2
STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STV_INTERNAL = 1
STV_HIDDEN = 2

# A section of zeros takes no room in the file, so the file's size does not bound it. The kernel
# refuses larger map values anyway (array_map_alloc_check in kernel/bpf/arraymap.c).
MAX_NOBITS = 1 << 30


def printable(name: str) -> str:
    """Return a name from a file with everything that is not printable escaped."""
    if name.isprintable():
        return name
    return name.encode("unicode_escape", "backslashreplace").decode("ascii")


@dataclass(slots=True, eq=False)
class Section:
    """A section."""

    index: int
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    _file: bytes = field(repr=False)
    _offset: int = field(repr=False)
    _data: bytes | None = field(default=None, repr=False)

    @property
    def data(self) -> bytes:
        """The contents; empty for NOBITS. Copied when first asked for: most of a file is DWARF."""
        if self._data is None:
            empty = self.type in (SHT_NULL, SHT_NOBITS)
            self._data = b"" if empty else self._file[self._offset : self._offset + self.size]
        return self._data

    @property
    def is_code(self) -> bool:
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """A symbol; ``section`` is 0 for what is not defined in the file (an extern)."""

    name: str
    value: int
    size: int
    section: int
    type: int
    bind: int
    visibility: int

    @property
    def is_hidden(self) -> bool:
        return self.visibility in (STV_HIDDEN, STV_INTERNAL)


class Image:
    """A BPF ELF file, read but not interpreted.

    Attributes:
        file: the name used in errors.
        byteorder: "little" or "big".
        sections: by index.
        by_name: sections by name; of several with one name, the first.
    """

    def __init__(self, data: bytes, file: str) -> None:
        """Read the section table.

        Raises:
            ObjectFormatError: not an ELF file, not one for BPF, or malformed.
        """
        self.file = file
        self.byteorder, self.sections = _read_sections(data, file)
        mark = "<" if self.byteorder == "little" else ">"
        self._symbol_record = struct.Struct(mark + "IBBHQQ")
        self.by_name = {section.name: section for section in reversed(self.sections)}
        self._relocation_tables: dict[int, Section] = {}
        self._symbol_table: Section | None = None
        for section in self.sections:
            if section.type in (SHT_REL, SHT_RELA):
                self._relocation_tables.setdefault(section.info, section)
            elif section.type == SHT_SYMTAB and self._symbol_table is None:
                self._symbol_table = section
        self._symbols: dict[int, Symbol] = {}
        self._globals: dict[str, Symbol] | None = None
        self._strings, self._records, self._named = self._read_symbol_table()

    def error(
        self, cause: str, section: Section | None = None, offset: int | None = None
    ) -> ObjectFormatError:
        """Return an error that names the place in this file."""
        name = section.name if section else None
        return ObjectFormatError(cause, file=self.file, section=name, offset=offset)

    def defined(self, type: int) -> Iterator[Symbol]:
        """Yield the symbols of this ``STT_*`` type that a section of the file holds."""
        last = len(self.sections)
        for index in self._named:
            symbol = self.symbol(index)
            if symbol.type == type and 0 < symbol.section < last:
                yield symbol

    def undefined(self) -> Iterator[Symbol]:
        """Yield the symbols that the file refers to and does not hold."""
        for index in self._named:
            symbol = self.symbol(index)
            if symbol.section == SHN_UNDEF and symbol.name:
                yield symbol

    @property
    def is_gnu(self) -> bool:
        """Whether gcc compiled it, and so the GNU assembler made it."""
        comment = self.by_name.get(".comment")
        return comment is not None and b"GCC: (" in comment.data

    @property
    def globals(self) -> dict[str, Symbol]:
        """The symbols of global and weak variables that the file defines, by name."""
        if self._globals is None:
            self._globals = {
                symbol.name: symbol
                for symbol in self.defined(STT_OBJECT)
                if symbol.bind != STB_LOCAL
            }
        return self._globals

    def symbol(self, index: int) -> Symbol:
        """Return the symbol with this index.

        Raises:
            ObjectFormatError: its name or its section does not exist.
        """
        found = self._symbols.get(index)
        if found is not None:
            return found
        name, info, other, section, value, size = self._symbol_record.unpack_from(
            self._records, index * 24
        )
        end = self._strings.find(b"\0", name)
        if end < 0:
            raise self.error(
                f"the name of symbol {index} is outside of the string table",
                self._symbol_table,
                index * 24,
            )
        if len(self.sections) <= section < SHN_LORESERVE:
            raise self.error(
                f"symbol {index} is in section {section}", self._symbol_table, index * 24
            )
        kind = info & 0xF
        if kind == STT_SECTION and section < SHN_LORESERVE:
            text = self.sections[section].name
        else:
            text = printable(self._strings[name:end].decode("utf-8", "surrogateescape"))
        symbol = Symbol(text, value, size, section, kind, info >> 4, other & 3)
        self._symbols[index] = symbol
        return symbol

    def relocations(self, section: Section) -> tuple[list[int], list[int]]:
        """Return what is to be relocated in a section: offsets, and the symbols' indices.

        In the file's order. The addends are in the places relocated (``SHT_REL``).

        Raises:
            ObjectFormatError: malformed, of the kind with addends, naming a symbol that does not
                exist, or a place that does not.
        """
        table = self._relocation_tables.get(section.index)
        if table is None:
            return [], []
        if table.type == SHT_RELA:
            raise self.error("relocations with addends (SHT_RELA) are not used for BPF", table)
        if len(table.data) % 16:
            raise self.error("size is not a multiple of 16, the size of a relocation", table)
        words = array("Q", table.data)
        if self.byteorder != sys.byteorder:
            words.byteswap()
        offsets = words[::2].tolist()
        symbols = [info >> 32 for info in words[1::2]]
        count = len(self._records) // 24
        if symbols and max(symbols) >= count:
            raise self.error(f"a relocation names symbol {max(symbols)} of {count}", table)
        for offset in offsets:
            if offset & 7 or offset + 8 > section.size:
                raise self.error(
                    f"relocation at {offset:#x}, where section {section.name} of {section.size:#x} "
                    "bytes has no instruction or value",
                    table,
                )
        return offsets, symbols

    def _read_symbol_table(self) -> tuple[bytes, bytes, list[int]]:
        """Return the names, the records, and which of these are worth a look."""
        table = self._symbol_table
        if table is None:
            return b"", b"", []
        data = table.data
        if len(data) % 24:
            raise self.error("size is not a multiple of 24, the size of a symbol", table)
        if not 0 < table.link < len(self.sections):
            raise self.error(f"names section {table.link} as its string table", table)
        # st_info and st_shndx. Most symbols are the labels of jumps, which nothing asks for.
        infos, low, high = data[4::24], data[6::24], data[7::24]
        columns = enumerate(zip(infos, low, high, strict=True))
        named = [index for index, (info, a, b) in columns if info & 0xF or not (a or b)]
        return self.sections[table.link].data, data, named


def _read_sections(data: bytes, file: str) -> tuple[str, tuple[Section, ...]]:
    if data[:4] != b"\x7fELF":
        raise ObjectFormatError(
            "not an ELF file",
            file=file,
            offset=0,
            remedy="give an object file made by clang -target bpf, or by xdpkit build",
        )
    if len(data) < 64:
        raise ObjectFormatError("the ELF header is cut off", file=file, offset=len(data))
    if data[4] != 2 or data[5] not in (1, 2):
        raise ObjectFormatError("not a 64-bit ELF file", file=file, offset=4)
    byteorder, mark = ("little", "<") if data[5] == 1 else ("big", ">")
    kind, machine, _, _, _, table, _, _, _, _, entry, count, names = struct.unpack_from(
        mark + "HHIQQQIHHHHHH", data, 16
    )
    if machine != EM_BPF:
        raise ObjectFormatError(
            f"made for machine {machine}, not for BPF (247)",
            file=file,
            offset=18,
            remedy="compile with -target bpf",
        )
    if kind != ET_REL:
        raise ObjectFormatError(f"ELF type {kind}, not a relocatable object", file=file, offset=16)
    if count and entry != 64:
        raise ObjectFormatError(f"section headers of {entry} bytes", file=file, offset=58)
    if table + count * 64 > len(data):
        raise ObjectFormatError("the section table is cut off", file=file, offset=len(data))
    headers = struct.iter_unpack(mark + "IIQQQQIIQQ", data[table : table + count * 64])
    sections = [
        Section(index, "", type_, flags, size, link, info, data, offset)
        for index, (_, type_, flags, _, offset, size, link, info, _, _) in enumerate(headers)
    ]
    if count and names >= count:
        raise ObjectFormatError(f"section {names} holds the section names", file=file, offset=62)
    strings = sections[names].data if count else b""
    for section in sections:
        place = table + section.index * 64
        start: int = struct.unpack_from(mark + "I", data, place)[0]
        end = strings.find(b"\0", start)
        if end < 0:
            raise ObjectFormatError(
                "a section's name is outside of the string table", file=file, offset=place
            )
        section.name = printable(strings[start:end].decode("utf-8", "surrogateescape"))
        _check_extent(section, len(data), file)
    return byteorder, tuple(sections)


def _check_extent(section: Section, file_size: int, file: str) -> None:
    if section.type == SHT_NOBITS:
        if section.size > MAX_NOBITS:
            raise ObjectFormatError(
                f"{section.size} bytes of zeros", file=file, section=section.name
            )
    elif section.type != SHT_NULL and section._offset + section.size > file_size:
        raise ObjectFormatError(
            f"ends at {section._offset + section.size:#x} in a file of {file_size:#x} bytes",
            file=file,
            section=section.name,
        )
