# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus import build
from tests.unit.obj.elf_writer import ElfWriter, simple
from xdpkit.errors import ObjectFormatError
from xdpkit.obj import elf
from xdpkit.obj.elf import Image

DEBIAN = sorted(Path("/usr/lib").glob("*/bpf/*.o"))
CORPUS = [variant.path for source in build.sources()[:12] for variant in build.variants(source)]


@pytest.mark.parametrize(
    "path", DEBIAN + CORPUS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_reading_equals_that_of_pyelftools(path: Path) -> None:
    data = path.read_bytes()
    image = Image(data, str(path))
    reference = ELFFile(io.BytesIO(data))
    for ours, theirs in zip(image.sections, reference.iter_sections(), strict=True):
        assert (ours.name, ours.size, ours.flags) == (
            theirs.name, theirs["sh_size"], theirs["sh_flags"],
        )  # fmt: skip
        if theirs["sh_type"] not in ("SHT_NOBITS", "SHT_NULL"):
            assert ours.data == theirs.data()
    table = reference.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    expected = [
        (symbol.name, symbol["st_value"], symbol["st_size"], symbol["st_shndx"])
        for symbol in table.iter_symbols()
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF"
    ]
    found = [(s.name, s.value, s.size, s.section) for s in image.defined(elf.STT_FUNC)]
    assert found == expected


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_both_byte_orders_are_read(byteorder: str) -> None:
    writer = ElfWriter(byteorder)
    section = writer.section("xdp", bytes(16), flags=elf.SHF_EXECINSTR)
    writer.function("prog", section, 0, 2)
    image = Image(writer.build(), "f.o")
    assert image.byteorder == byteorder
    assert [(s.name, s.size) for s in image.defined(elf.STT_FUNC)] == [("prog", 16)]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF\x02\x01", "the ELF header is cut off"),
        (simple().build(machine=62), "made for machine 62, not for BPF"),
        (simple().build(kind=2), "ELF type 2, not a relocatable object"),
        (simple().build()[:4] + b"\x01" + simple().build()[5:], "not a 64-bit ELF file"),
        (simple().build()[:-1], "the section table is cut off"),
    ],
)
def test_what_is_not_a_bpf_object_is_refused_with_the_reason(data: bytes, cause: str) -> None:
    with pytest.raises(ObjectFormatError, match=cause) as caught:
        Image(data, "f.o")
    assert str(caught.value).startswith("read f.o")


def test_a_section_that_reaches_out_of_the_file_is_named() -> None:
    writer = simple()
    writer.section("license2", b"x", size=1 << 40)
    with pytest.raises(ObjectFormatError, match=r"section license2: ends at 0x10\w+ in a file of"):
        Image(writer.build(), "f.o")


def test_a_section_of_zeros_has_a_limit() -> None:
    writer = simple()
    writer.section(".bss", kind=elf.SHT_NOBITS, size=1 << 62)
    with pytest.raises(ObjectFormatError, match="bytes of zeros"):
        Image(writer.build(), "f.o")


def test_a_relocation_against_a_symbol_that_is_not_there_is_refused() -> None:
    writer = simple()
    writer.relocate(1, 0, 999)
    image = Image(writer.build(), "f.o")
    with pytest.raises(
        ObjectFormatError, match=r"section \.relxdp: a relocation names symbol 999 of 2"
    ):
        image.relocations(image.by_name["xdp"])


@pytest.mark.parametrize("offset", [4, 16, 1 << 40])
def test_a_relocation_that_meets_no_instruction_is_refused(offset: int) -> None:
    writer = simple()
    writer.relocate(1, offset, 1)
    image = Image(writer.build(), "f.o")
    with pytest.raises(
        ObjectFormatError, match="where section xdp of 0x10 bytes has no instruction"
    ):
        image.relocations(image.by_name["xdp"])


def test_control_characters_in_names_are_escaped() -> None:
    image = Image(simple(section="xdp", name="a\x1b[31m").build(), "f.o")
    assert [s.name for s in image.defined(elf.STT_FUNC)] == ["a\\x1b[31m"]


@given(st.data())
def test_a_damaged_file_gives_a_value_or_our_error(data: st.DataObject) -> None:
    damaged = bytearray(simple().build())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    with contextlib.suppress(ObjectFormatError):
        image = Image(bytes(damaged[:end]), "f.o")
        for section in image.sections:
            image.relocations(section)
