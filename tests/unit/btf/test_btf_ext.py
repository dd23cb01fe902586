# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.btf.blobs import mutated, object_sections
from xdpkit.btf import Btf, BtfExt, InfoSection
from xdpkit.errors import ObjectFormatError

FUNC_INFO = struct.pack("<II", 0, 7)
LINE_INFO = struct.pack("<IIII", 8, 20, 30, 1 << 10 | 5)
CORE = struct.pack("<IIII", 16, 3, 40, 0)


def part(record_size: int, *lists: tuple[int, int, bytes], order: str = "<") -> bytes:
    """Return a list of lists of records: (section name, count, records)."""
    bodies = (struct.pack(f"{order}II", name, count) + raw for name, count, raw in lists)
    return struct.pack(f"{order}I", record_size) + b"".join(bodies)


def ext(func: bytes, line: bytes = b"", core: bytes | None = b"", *, order: str = "<") -> bytes:
    spans = [0, len(func), len(func), len(line)]
    if core is not None:
        spans += [len(func) + len(line), len(core)]
    fixed = struct.pack(f"{order}HBBI", 0xEB9F, 1, 0, 8 + 4 * len(spans))
    fields = struct.pack(f"{order}{len(spans)}I", *spans)
    return fixed + fields + func + line + (core or b"")


def test_records_are_kept_as_bytes_by_section() -> None:
    parsed = BtfExt.parse(
        ext(
            part(8, (1, 2, FUNC_INFO * 2), (5, 1, FUNC_INFO)),
            part(16, (1, 1, LINE_INFO)),
            part(16, (5, 1, CORE)),
        )
    )
    assert dict(parsed.func_info) == {
        1: InfoSection(8, FUNC_INFO * 2, 2),
        5: InfoSection(8, FUNC_INFO, 1),
    }
    assert dict(parsed.line_info) == {1: InfoSection(16, LINE_INFO, 1)}
    assert dict(parsed.core) == {5: InfoSection(16, CORE, 1)}
    assert parsed.byteorder == "little"


def test_lists_about_the_same_section_are_joined() -> None:
    parsed = BtfExt.parse(ext(part(8, (1, 1, FUNC_INFO), (2, 1, bytes(8)), (1, 1, bytes(8)))))
    assert parsed.func_info[1] == InfoSection(8, FUNC_INFO + bytes(8), 2)


def test_an_old_header_has_no_co_re_relocations() -> None:
    assert not BtfExt.parse(ext(part(8, (1, 1, FUNC_INFO)), core=None)).core


def test_longer_records_of_a_newer_compiler_are_kept_whole() -> None:
    parsed = BtfExt.parse(ext(part(12, (1, 1, FUNC_INFO + b"new!"))))
    assert parsed.func_info[1] == InfoSection(12, FUNC_INFO + b"new!", 1)


def test_big_endian_records_are_split_alike() -> None:
    raw = struct.pack(">II", 0, 7)
    parsed = BtfExt.parse(ext(part(8, (1, 1, raw), order=">"), order=">"))
    assert parsed.byteorder == "big"
    assert parsed.func_info[1] == InfoSection(8, raw, 1)


@pytest.mark.parametrize(
    ("blob", "complaint"),
    [
        (b"\x9f\xeb\x01", "too short"),
        (ext(b"")[:20], "header length"),
        (ext(b"\0\0"), "do not fit"),
        (ext(part(8, (1, 1, FUNC_INFO)))[:-4], "do not fit"),
        (ext(part(4, (1, 2, FUNC_INFO))), "records of 4 bytes, at least 8"),
        (ext(part(10, (1, 1, FUNC_INFO + b"xx"))), "records of 10 bytes"),
        (ext(b"", part(8, (1, 1, FUNC_INFO))), "records of 8 bytes, at least 16"),
        (ext(part(8, (1, 0, b""))), "a list of 0 records"),
        (ext(part(8, (1, 0xFFFFFFFF, FUNC_INFO))), "a list of 4294967295 records"),
        (ext(part(8, (1, 1, FUNC_INFO)) + b"\0\0\0\0"), "cut off"),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0xFFFFFFFC, 8, 0, 0, 0, 0), "do not fit"),
        (struct.pack("<HBBI7I", 0xEB9F, 1, 0, 36, 0, 0, 0, 0, 0, 0, 1), "unknown"),
    ],
)
def test_lengths_and_counts_that_lie_are_refused(blob: bytes, complaint: str) -> None:
    with pytest.raises(ObjectFormatError, match=complaint) as caught:
        BtfExt.parse(blob, file="fw.o")
    assert (caught.value.file, caught.value.section) == ("fw.o", ".BTF.ext")


def test_a_compilers_sections_have_names_and_programs() -> None:
    for blob, ext_blob in object_sections().values():
        btf, parsed = Btf.parse(blob), BtfExt.parse(ext_blob)
        assert parsed.func_info.keys() <= parsed.line_info.keys()
        for name, section in parsed.func_info.items():
            assert btf.string(name)
            assert len(section.raw) == section.count * section.record_size


@given(mutated(st.just(ext(part(8, (1, 2, FUNC_INFO * 2)), part(16, (1, 1, LINE_INFO))))))
def test_mutated_bytes_give_a_value_or_a_format_error(blob: bytes) -> None:
    with suppress(ObjectFormatError):
        BtfExt.parse(blob)
