# SPDX-License-Identifier: Apache-2.0
"""Images of programs: as bytes, and with descriptors and ids exchanged."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xdpkit.errors import ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.isa import asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel.context import Given
from xdpkit.kernel.image import (
    Image,
    MapReference,
    describe,
    references,
    renumber,
)
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.bpf import PseudoSrc

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def multiples(unit: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 12).flatmap(
        lambda count: st.binary(min_size=count * unit, max_size=count * unit)
    )


contexts = st.builds(
    Given,
    fields=st.lists(names.filter(bool), min_size=1, max_size=3).map(tuple),
    port_index=st.none() | u32,
    numbers=u32,
    cookie=u64,
)

images = st.builds(
    Image,
    name=texts,
    type=u32,
    attach_type=u32,
    flags=u32,
    license=texts,
    kern_version=u32,
    code=multiples(8),
    func_info=multiples(8),
    line_info=multiples(16),
    btf_id=u32,
    modules=st.lists(u32, max_size=4).map(tuple),
    maps=st.lists(st.builds(MapReference, u32, names), max_size=5).map(tuple),
    ifindex=u32,
    attach_btf_id=u32,
    attach_btf=u32,
    context=st.none() | contexts,
)

CODE = encode(
    [
        asm.ld_imm64(Register.R1, 5, source=PseudoSrc.MAP_FD),
        asm.ld_map_value(Register.R2, 6, 24),
        # The number of a map's descriptor as a number, and an opcode's in a second slot.
        asm.ld_imm64(Register.R3, 0x18_0000_0005),
        asm.ld_imm64(Register.R4, 9 << 32 | 6, source=PseudoSrc.BTF_ID),
        asm.ld_imm64(Register.R4, 5, source=PseudoSrc.BTF_ID),
        asm.ld_imm64(Register.R2, 5, source=PseudoSrc.FUNC),
        asm.call_kfunc(5, module=1),
        asm.exit(),
    ]
)

IMAGE = Image(
    name="firewall",
    type=6,
    attach_type=37,
    flags=64,
    license="GPL",
    kern_version=0,
    code=CODE,
    func_info=bytes(range(16)),
    line_info=bytes(range(32)),
    btf_id=77,
    modules=(8, 9),
    maps=(MapReference(5, "hits"), MapReference(6, ".rodata"), MapReference(7, ".rodata.version")),
    ifindex=4,
)


@given(images)
@example(replace(IMAGE, maps=()))
@example(replace(IMAGE, maps=(MapReference(1, ""),)))
def test_an_image_comes_back_as_it_was_encoded(image: Image) -> None:
    assert Image.decode(image.encode()) == image
    assert Image.decode(image.encode() + bytes(9)) == image


@given(st.binary(max_size=300))
def test_bytes_that_are_no_image_are_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ObjectFormatError):
        Image.decode(data)


ENCODED = IMAGE.encode()


@given(
    st.lists(
        st.tuples(st.integers(4, len(ENCODED) - 1), st.integers(0, 255)), min_size=1, max_size=8
    )
)
def test_whatever_has_a_right_checksum_is_an_image_or_refused(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(ENCODED)
    for at, value in changes:
        data[at] = value
    (used,) = struct.unpack_from("=I", data, 12)
    struct.pack_into("=I", data, 8, zlib.crc32(data[:8] + bytes(4) + data[12:used]))
    try:
        image = Image.decode(bytes(data))
        used_by = references(image.code)
    except (ObjectFormatError, RequirementUnmet):
        return
    assert len(used_by.maps) + len(used_by.objects) <= len(image.code) // 16


FIXED = struct.calcsize("=12I")
PARTS = struct.calcsize("=16I")
CONTEXT = struct.calcsize("=Q6I")  # the last field and 4 bytes that align the whole
(SIZE,) = struct.unpack_from("=I", ENCODED, 4)


def resealed(data: bytes, size: int) -> bytes:
    """Return an image whose structure has another size."""
    unsealed = data[:4] + struct.pack("=3I", size, 0, len(data)) + data[16:]
    return unsealed[:8] + struct.pack("=I", zlib.crc32(unsealed)) + unsealed[12:]


def later(tail: bytes) -> bytes:
    """Return the image as a version with more fields writes it."""
    where = struct.unpack_from("=16I", ENCODED, FIXED)
    moved = struct.pack(
        "=16I", *(each if at % 2 else each + len(tail) for at, each in enumerate(where))
    )
    rest = ENCODED[FIXED + PARTS : SIZE]
    return resealed(ENCODED[:FIXED] + moved + rest + tail + ENCODED[SIZE:], SIZE + len(tail))


def test_fields_that_an_earlier_version_did_not_write_are_zero() -> None:
    assert Image.decode(resealed(ENCODED, SIZE - CONTEXT)) == IMAGE
    # Without the last two of these: the maps' ids and names.
    assert Image.decode(resealed(ENCODED, SIZE - CONTEXT - 16)) == replace(IMAGE, maps=())


def test_a_program_that_reads_nothing_of_ours_has_the_image_that_earlier_versions_read() -> None:
    # They refuse what they do not know unless it is zero.
    assert FIXED + PARTS + CONTEXT == SIZE
    assert not any(ENCODED[FIXED + PARTS : SIZE])
    encoded = replace(IMAGE, context=Given(("cookie",))).encode()
    assert any(encoded[FIXED + PARTS : SIZE])


def test_a_later_versions_image_is_read_only_if_nothing_is_missing() -> None:
    assert Image.decode(later(bytes(16))) == IMAGE
    with pytest.raises(RequirementUnmet, match="a later version of xdpkit wrote it"):
        Image.decode(later(bytes(15) + b"\1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": 1 << 32}, "store type 4294967296: it is out of range"),
        ({"modules": (-1,)}, "an id is out of range"),
        ({"maps": (MapReference(1, "a\0b"),)}, "a map's name has a NUL"),
        ({"name": "\ud800"}, "it is no text"),
        (
            {"context": Given(("cookie",), cookie=1 << 64)},
            "store cookie 18446744073709551616: it is out of range",
        ),
    ],
)
def test_what_no_kernel_gives_cannot_be_encoded(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(IMAGE, **change).encode()


def test_only_loads_of_maps_and_kernel_objects_refer_to_something() -> None:
    used = references(CODE)
    assert used.maps == {5, 6}
    assert used.objects == {9}


def test_renumbering_touches_nothing_else() -> None:
    code = bytearray(CODE)
    renumber(code, {5: 105, 6: 106}, {9: 109})
    changed = [at for at in range(0, len(CODE), 4) if code[at : at + 4] != CODE[at : at + 4]]
    assert changed == [4, 20, 60]
    renumber(code, {105: 5, 106: 6}, {109: 9})
    assert code == CODE


def test_code_that_ends_within_a_load_is_refused() -> None:
    cut = encode([asm.exit(), asm.ld_imm64(Register.R1, 5, source=PseudoSrc.MAP_FD)])[:-8]
    with pytest.raises(ObjectFormatError, match="a 64-bit load is cut off"):
        references(cut)


def test_descriptors_become_ids() -> None:
    new = NewProgram(
        type=6,
        code=CODE,
        license="GPL",
        name="firewall",
        attach_type=37,
        flags=64,
        ifindex=4,
        btf_fd=3,
        func_info=bytes(8),
        line_info=bytes(16),
        attach_btf_id=12,
        attach_btf_fd=11,
        fd_array=struct.pack("=3i", 0, 10, 9),
    )
    maps = {5: MapReference(50, "hits"), 6: MapReference(60, ".rodata"), 7: MapReference(70, "x")}
    image = describe(new, btf_id=30, maps=maps, objects={9: 90, 10: 100, 11: 110})
    assert references(image.code).maps == {50, 60}
    assert references(image.code).objects == {90}
    assert image.modules == (100, 90)
    assert image.maps == tuple(maps.values())
    assert (image.btf_id, image.attach_btf_id, image.attach_btf) == (30, 12, 110)
    assert (image.func_info, image.line_info) == (bytes(8), bytes(16))
    without = describe(new, btf_id=0, maps=maps, objects={9: 90, 10: 100, 11: 110})
    assert (without.func_info, without.line_info) == (b"", b"")


def test_an_image_begins_with_its_magic_number() -> None:
    assert ENCODED[:4] == b"xdpI"
