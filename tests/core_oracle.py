# SPDX-License-Identifier: Apache-2.0
"""What libbpf makes of CO-RE relocations, against target types of one's own.

A minimal object is composed around the instructions, in code that the verifier never reaches: it
loads whenever libbpf has been able to relocate it, poisoned or not.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from xdpkit.btf.builder import BtfBuilder
from xdpkit.obj.spec import CoreRelocation

_LIBRARY = os.environ.get("XDPKIT_TEST_LIBBPF", "libbpf.so.1")


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``, tools/lib/bpf/libbpf.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("reserved", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    )


def available() -> bool:
    """Return whether there is a libbpf."""
    try:
        _libbpf()
    except OSError:
        return False
    return True


def version() -> tuple[int, int]:
    """Return libbpf's version."""
    library = _libbpf()
    return library.libbpf_major_version(), library.libbpf_minor_version()


def relocated(
    code: bytes,
    relocations: Sequence[CoreRelocation],
    local: BtfBuilder,
    target: bytes,
    folder: Path,
) -> bytes | None:
    """Return the instructions as libbpf leaves them, None where it refuses to."""
    library = _libbpf()
    body = _guarded(code)
    first = body.index(code)
    data = _object(body, first, relocations, local)
    custom = folder / "target.btf"
    custom.write_bytes(target)
    options = _OpenOptions(
        size=ctypes.sizeof(_OpenOptions),
        object_name=b"core",
        btf_custom_path=os.fsencode(custom),
    )
    handle = library.bpf_object__open_mem(data, len(data), ctypes.byref(options))
    if not handle:
        return None
    try:
        if library.bpf_object__load(handle):
            return None
        program = library.bpf_object__next_program(handle, None)
        count = library.bpf_program__insn_cnt(program)
        instructions = ctypes.string_at(library.bpf_program__insns(program), count * 8)
    finally:
        library.bpf_object__close(handle)
    return instructions[first : first + len(code)]


@functools.cache
def _libbpf() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    pointer = ctypes.c_void_p
    library.bpf_object__open_mem.restype = pointer
    library.bpf_object__open_mem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, pointer)
    library.bpf_object__load.argtypes = (pointer,)
    library.bpf_object__close.argtypes = (pointer,)
    library.bpf_object__next_program.restype = pointer
    library.bpf_object__next_program.argtypes = (pointer, pointer)
    library.bpf_program__insns.restype = pointer
    library.bpf_program__insns.argtypes = (pointer,)
    library.bpf_program__insn_cnt.restype = ctypes.c_size_t
    library.bpf_program__insn_cnt.argtypes = (pointer,)
    library.libbpf_set_print.restype = pointer
    library.libbpf_set_print(None)
    return library


def _guarded(code: bytes) -> bytes:
    """Return a program in which ``code`` is jumped over, always."""
    return b"".join(
        (
            struct.pack("<BBhi", 0xB7, 0x00, 0, 2),  # r0 = XDP_PASS
            struct.pack("<BBhi", 0x15, 0x00, len(code) // 8, 2),  # if r0 == 2 goto the exit
            code,
            struct.pack("<BBhi", 0x95, 0x00, 0, 0),  # exit
        )
    )


def _object(
    code: bytes, first: int, relocations: Sequence[CoreRelocation], local: BtfBuilder
) -> bytes:
    records = b"".join(
        struct.pack(
            "<IIII",
            first + relocation.slot * 8,
            relocation.type_id,
            local.string(relocation.access),
            relocation.kind,
        )
        for relocation in relocations
    )
    section = struct.pack("<III", 16, local.string("xdp"), len(relocations)) + records
    header = struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, len(section))
    sections: list[tuple[str, int, int, bytes, int, int]] = [
        # name, type, flags, data, info, entry size
        ("xdp", 1, 6, code, 0, 0),
        ("license", 1, 3, b"GPL\0", 0, 0),
        (".BTF", 1, 0, local.build(), 0, 0),
        (".BTF.ext", 1, 0, header + section, 0, 0),
    ]
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0, len(code))
    sections.append((".symtab", 2, 0, symbols, 1, 24))
    names = b"\0program\0" + b"".join(name.encode() + b"\0" for name, *_ in sections)
    sections.append((".strtab", 3, 0, names + b".strtab\0", 0, 0))
    return _elf(sections)


def _elf(sections: Sequence[tuple[str, int, int, bytes, int, int]]) -> bytes:
    """Return a relocatable ELF file; the last section holds the names of symbols and sections."""
    names = sections[-1][3]
    data = bytearray(64)
    headers = bytearray(64)
    for name, kind, flags, contents, info, entry in sections:
        data += bytes(-len(data) % 8)
        link = len(sections) if kind == 2 else 0
        headers += struct.pack(
            "<IIQQQQIIQQ",
            names.index(b"\0" + name.encode() + b"\0") + 1,
            kind,
            flags,
            0,
            len(data),
            len(contents),
            link,
            info,
            8,
            entry,
        )
        data += contents
    data += bytes(-len(data) % 8)
    data[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        1,
        247,
        1,
        0,
        0,
        len(data),
        0,
        64,
        0,
        0,
        64,
        len(sections) + 1,
        len(sections),
    )
    return bytes(data + headers)
