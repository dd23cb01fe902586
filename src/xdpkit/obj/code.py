# SPDX-License-Identifier: Apache-2.0
"""The code of an object file: its functions, and what is to be relocated in them."""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xdpkit.btf import Btf, InfoSection
from xdpkit.errors import ObjectFormatError
from xdpkit.obj import elf
from xdpkit.obj.elf import Image, Section, Symbol, printable
from xdpkit.obj.spec import KCONFIG, Extern, ExternKind, RelocationKind

CALL = 0x85  # BPF_JMP | BPF_CALL
LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function as the symbol table has it; ``offset`` and ``size`` in bytes of its section."""

    name: str
    section: int
    offset: int
    size: int
    is_local: bool
    is_hidden: bool

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What an instruction refers to that the running kernel provides.

    There is one for each different thing, so that thousands of references compare by identity.
    """

    kind: RelocationKind
    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class References:
    """The references of one section: parallel lists, by ascending byte offset.

    A target is a :class:`Target`, or a :class:`Function` whose call or address the linker resolves.
    """

    offsets: list[int]
    targets: list[Target | Function]

    def __contains__(self, offset: int) -> bool:
        at = bisect_left(self.offsets, offset)
        return at < len(self.offsets) and self.offsets[at] == offset

    def between(self, start: int, end: int) -> Iterator[tuple[int, Target | Function]]:
        first, last = bisect_left(self.offsets, start), bisect_left(self.offsets, end)
        return zip(self.offsets[first:last], self.targets[first:last], strict=True)


def as_long(words: array[int]) -> int:
    """Return 32-bit words as one long integer, for work on all of them at once."""
    return int.from_bytes(words.tobytes(), sys.byteorder)


def ones(count: int) -> array[int]:
    """Return as many words of 1."""
    return array("I", [1]) * count


@dataclass(frozen=True, slots=True)
class Records:
    """One section's records of ``.BTF.ext`` as words, in this machine's byte order.

    Attributes:
        words: the records, ``fields`` words each.
        offsets: the first word of each, the instruction's offset in bytes: ascending multiples of
            8.
    """

    fields: int
    words: array[int]
    offsets: array[int]

    def between(self, start: int, end: int) -> slice:
        """Return which records are about the instructions from one offset to another."""
        return slice(bisect_left(self.offsets, start), bisect_left(self.offsets, end))


@dataclass(slots=True)
class Code:
    """Everything that linking needs of a file.

    Attributes:
        image: the file. functions: by (section, offset).
        externs: by symbol name.
        maps_at: map names by offset in ``.maps``.
        data_maps: names of global data maps by section index.
        func_info, line_info, core: records of ``.BTF.ext``, by section index.
    """

    image: Image
    functions: Mapping[tuple[int, int], Function]
    externs: Mapping[str, Extern]
    maps_at: Mapping[int, str]
    data_maps: Mapping[int, str]
    func_info: Mapping[int, Records]
    line_info: Mapping[int, Records]
    core: Mapping[int, Records]
    _references: dict[int, References] = field(default_factory=dict)
    _targets: dict[tuple[RelocationKind, str, int], Target] = field(default_factory=dict)

    def function_at(self, section: Section, offset: int, place: int) -> Function:
        """Return the function that begins at an offset; ``place`` is where it is referred to.

        Raises:
            ObjectFormatError: none begins there.
        """
        found = self.functions.get((section.index, offset))
        if found is None:
            raise self.image.error(
                f"refers to {offset:#x} of section {section.name}, where no function begins",
                section,
                place,
            )
        return found

    def references(self, section: Section) -> References:
        """Return the references of a section with code.

        Raises:
            ObjectFormatError: a relocation that makes no sense.
        """
        found = self._references.get(section.index)
        if found is None:
            found = self._references[section.index] = self._read_references(section)
        return found

    def _read_references(self, section: Section) -> References:
        data = section.data
        offsets, symbols = self.image.relocations(section)
        opcodes = bytes([data[offset] for offset in offsets])
        # There may be thousands, to few symbols: a map is the same wherever it is referred to.
        maps = {index: self._map_target(index) for index in set(symbols)}
        targets: list[Target | Function | None] = [maps[index] for index in symbols]
        for at, target in enumerate(targets):
            if target is None or opcodes[at] != LD_IMM64:
                symbol = self.image.symbol(symbols[at])
                targets[at] = self._target(section, offsets[at], symbol)
        found = [target for target in targets if target is not None]
        if offsets != sorted(offsets):
            order = sorted(range(len(offsets)), key=offsets.__getitem__)
            offsets, found = [offsets[at] for at in order], [found[at] for at in order]
        return References(offsets, found)

    def _map_target(self, index: int) -> Target | None:
        """Return the map that a symbol is, whatever addend it is referred to with."""
        symbol = self.image.symbol(index)
        if not 0 < symbol.section < elf.SHN_LORESERVE or symbol.type == elf.STT_SECTION:
            return None
        if self.image.sections[symbol.section].name != ".maps" or symbol.value not in self.maps_at:
            return None
        return self._intern(RelocationKind.MAP, self.maps_at[symbol.value])

    def _target(self, section: Section, offset: int, symbol: Symbol) -> Target | Function:
        opcode = section.data[offset]
        if opcode == CALL:
            return self._call_target(section, offset, symbol)
        if opcode != LD_IMM64:
            raise self.image.error(
                f"relocation against {symbol.name!r} of an instruction that takes none",
                section,
                offset,
            )
        if offset + 16 > len(section.data):
            raise self.image.error("a 64-bit load is cut off", section, offset)
        if symbol.section == elf.SHN_UNDEF:
            return self._extern(section, offset, symbol, RelocationKind.KSYM)
        if symbol.section >= elf.SHN_LORESERVE:
            raise self.image.error(f"{symbol.name!r} is in no section", section, offset)
        home = self.image.sections[symbol.section]
        position = self._position(section, offset, symbol)
        if home.name == ".maps":
            if position not in self.maps_at:
                raise self.image.error(f"{symbol.name!r} is not a map", section, offset)
            return self._intern(RelocationKind.MAP, self.maps_at[position])
        if home.index in self.data_maps:
            if not 0 <= position < home.size:
                raise self.image.error(
                    f"{symbol.name!r} at {position:#x} is outside of section {home.name}",
                    section,
                    offset,
                )
            return self._intern(RelocationKind.MAP_VALUE, self.data_maps[home.index], position)
        if home.is_code:
            return self.function_at(home, position, offset)
        legacy = home.name == "maps" or home.name.startswith("maps/")
        raise ObjectFormatError(
            f"{symbol.name!r} is in section {home.name}, which has neither maps, data nor code",
            file=self.image.file,
            section=section.name,
            offset=offset,
            remedy='define the map by its types, in SEC(".maps")' if legacy else None,
        )

    def _call_target(self, section: Section, offset: int, symbol: Symbol) -> Target | Function:
        if symbol.section == elf.SHN_UNDEF:
            return self._extern(section, offset, symbol, RelocationKind.KFUNC)
        if symbol.section >= elf.SHN_LORESERVE or not self.image.sections[symbol.section].is_code:
            raise self.image.error(f"calls {symbol.name!r}, which is not code", section, offset)
        position = symbol.value
        if symbol.type == elf.STT_SECTION:
            # A static function: its distance in slots, less one, is in the instruction.
            position += (self._immediate(section, offset) + 1) * 8
        return self.function_at(self.image.sections[symbol.section], position, offset)

    def _position(self, section: Section, offset: int, symbol: Symbol) -> int:
        """Return where in its section a 64-bit load refers to."""
        addend = self._immediate(section, offset)
        if symbol.type == elf.STT_SECTION:
            return symbol.value + addend
        home = self.image.sections[symbol.section]
        # A map and a function are whole, and the GNU assembler puts their place in the addend.
        if home.name == ".maps" or symbol.type == elf.STT_FUNC:
            return symbol.value
        position = symbol.value + addend
        if self.image.is_gnu and position >= symbol.value + max(symbol.size, 1):
            raise ObjectFormatError(
                f"{symbol.name!r} is {symbol.size} bytes long and referred to at {addend}: this "
                "assembler counts a variable's place twice",
                file=self.image.file,
                section=section.name,
                offset=offset,
                remedy="assemble with binutils 2.41 or newer, or compile with clang",
            )
        return position

    def _extern(
        self, section: Section, offset: int, symbol: Symbol, kind: RelocationKind
    ) -> Target:
        extern = self.externs.get(symbol.name)
        if extern is None:
            raise self.image.error(
                f"{symbol.name!r} is defined nowhere, nor declared __ksym or __kconfig",
                section,
                offset,
            )
        if extern.kind is ExternKind.KCONFIG and kind is RelocationKind.KSYM:
            return self._intern(RelocationKind.MAP_VALUE, KCONFIG, extern.offset)
        if kind is RelocationKind.KFUNC and extern.kind is not ExternKind.KFUNC:
            raise self.image.error(f"calls {symbol.name!r}, a variable", section, offset)
        return self._intern(kind, symbol.name)

    def _intern(self, kind: RelocationKind, name: str, offset: int = 0) -> Target:
        return self._targets.setdefault((kind, name, offset), Target(kind, name, offset))

    def _immediate(self, section: Section, offset: int) -> int:
        mark = "<i" if self.image.byteorder == "little" else ">i"
        value: int = struct.unpack_from(mark, section.data, offset + 4)[0]
        return value


def functions_of(image: Image) -> dict[tuple[int, int], Function]:
    """Return the functions in a file's code sections, in order, by (section, offset).

    Of several names for one function (aliases), the first counts.

    Raises:
        ObjectFormatError: a function is empty, not aligned, or reaches out of its section.
    """
    found: dict[tuple[int, int], Function] = {}
    for symbol in image.defined(elf.STT_FUNC):
        section = image.sections[symbol.section]
        if not section.is_code:
            continue
        if symbol.size == 0 or symbol.value % 8 or symbol.size % 8:
            raise image.error(
                f"function {symbol.name} of {symbol.size} bytes is not made of instructions",
                section,
                symbol.value,
            )
        if symbol.value + symbol.size > section.size:
            raise image.error(
                f"function {symbol.name} reaches out of the section", section, symbol.value
            )
        function = Function(
            symbol.name,
            section.index,
            symbol.value,
            symbol.size,
            symbol.bind == elf.STB_LOCAL,
            symbol.is_hidden,
        )
        found.setdefault((section.index, symbol.value), function)
    return dict(sorted(found.items()))


def records_of(
    image: Image, btf: Btf, infos: Mapping[int, InfoSection], fields: int, byteorder: str
) -> dict[int, Records]:
    """Return one kind of ``.BTF.ext`` records by section index.

    Records about sections that the file does not have are left out, as libbpf does.

    Raises:
        ObjectFormatError: the records are not in the order of the instructions.
    """
    found = {}
    for name, info in infos.items():
        section = image.by_name.get(printable(btf.string(name)))
        if section is not None and section.is_code:
            found[section.index] = _records(image, section, info, fields, byteorder)
    return found


def _records(
    image: Image, section: Section, info: InfoSection, fields: int, byteorder: str
) -> Records:
    words = array("I", info.raw)
    if byteorder != sys.byteorder:
        words.byteswap()
    stride = info.record_size // 4
    if stride != fields:
        longer, words = words, ones(info.count * fields)
        for number in range(fields):
            words[number::fields] = longer[number::stride]
    offsets = words[::fields]
    values = offsets.tolist()
    if values != sorted(values) or as_long(offsets) & 7 * as_long(ones(len(offsets))):
        raise image.error("the records of .BTF.ext about it are not in order", section)
    return Records(fields, words, offsets)
