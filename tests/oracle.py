# SPDX-License-Identifier: Apache-2.0
"""libbpf through ctypes: what it makes of an object file, in the kernel's own words.

Tests compare xdpkit with it. Nothing here uses xdpkit, so a mistake of ours cannot hide itself.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libbpf.so.1"

# Sections whose programs xdpkit loads. Everything else in a file is left alone.
OURS = re.compile(r"xdp(\.frags)?(/(devmap|cpumap))?|(tp_btf|raw_tp|raw_tracepoint)/.+")

# Addresses of what the kernel allocates: its direct map and vmalloc; text is above, as is -1.
_POINTER = range(0xFFFF_8000_0000_0000, 0xFFFF_F000_0000_0000)

_LD_IMM64 = 0x18
_PSEUDO_MAP = {1: "map", 2: "value"}  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE


class OracleError(Exception):
    """libbpf refused; the text holds its log."""


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``, tools/lib/bpf/libbpf.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("reserved", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
    )


class _ProgramInfo(ctypes.Structure):
    """``struct bpf_prog_info``, include/uapi/linux/bpf.h."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("attach_btf_obj_id", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """``struct bpf_map_info``, include/uapi/linux/bpf.h."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_id", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class KernelProgram:
    """What the kernel says of a loaded program, without what differs from load to load.

    Attributes:
        xlated: one line for each instruction, maps by name.
        func_info: (instruction, BTF id). line_info: (instruction, file, source text, position).
    """

    name: str
    type: int
    tag: str
    gpl_compatible: bool
    attach_btf_id: int
    verified_instructions: int
    maps: frozenset[str]
    xlated: tuple[str, ...]
    func_info: tuple[tuple[int, int], ...]
    line_info: tuple[tuple[int, str, str, int], ...]


@dataclass(frozen=True, slots=True)
class KernelMap:
    """What the kernel says of a map; ``data`` is the only value of a map of global data."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    extra: int
    key_type_id: int
    value_type_id: int
    frozen: bool
    data: bytes | None


@dataclass(frozen=True, slots=True)
class KernelObject:
    """All programs and maps that a load of an object file made."""

    programs: Mapping[str, KernelProgram]
    maps: Mapping[str, KernelMap]


def available() -> bool:
    """Return whether libbpf is installed."""
    try:
        _libbpf()
    except OSError:
        return False
    return True


@contextmanager
def loaded(path: Path, *, pin_root: Path | None = None) -> Iterator[KernelObject]:
    """Open and load an object as libbpf does by default, but for programs in foreign sections.

    Raises:
        OracleError: libbpf or the kernel refused.
    """
    library = _libbpf()
    options = _OpenOptions(size=ctypes.sizeof(_OpenOptions))
    options.pin_root_path = str(pin_root).encode() if pin_root else None
    with _log() as log:
        handle = library.bpf_object__open_file(str(path).encode(), ctypes.byref(options))
        if not handle:
            raise OracleError(f"open {path}: {os.strerror(ctypes.get_errno())}\n{''.join(log)}")
        try:
            wanted = {}
            for program in _programs(handle):
                if not OURS.fullmatch(library.bpf_program__section_name(program).decode()):
                    library.bpf_program__set_autoload(program, False)
                elif library.bpf_program__autoload(program):
                    wanted[library.bpf_program__name(program).decode()] = program
            result = library.bpf_object__load(handle)
            if result:
                raise OracleError(f"load {path}: {os.strerror(-result)}\n{''.join(log)[-4000:]}")
            yield describe(
                {name: library.bpf_program__fd(program) for name, program in wanted.items()},
                dict(_maps(handle)),
            )
        finally:
            library.bpf_object__close(handle)


def describe(programs: Mapping[str, int], maps: Mapping[str, int]) -> KernelObject:
    """Ask the kernel about programs and maps given by name and file descriptor."""
    infos = {name: _map_info(fd) for name, fd in maps.items()}
    names = {info.id: name for name, info in infos.items()}
    return KernelObject(
        {name: _describe_program(fd, names) for name, fd in programs.items()},
        {name: _describe_map(maps[name], info) for name, info in infos.items()},
    )


def link_objects(output: Path, *inputs: Path) -> None:
    """Link object files statically, as ``bpftool gen object`` does.

    Raises:
        OracleError: libbpf refused.
    """
    library = _libbpf()
    with _log() as log:
        linker = library.bpf_linker__new(str(output).encode(), None)
        if not linker:
            raise OracleError(f"link {output}\n{''.join(log)}")
        try:
            for path in inputs:
                if library.bpf_linker__add_file(linker, str(path).encode(), None):
                    raise OracleError(f"link {path}\n{''.join(log)}")
            if library.bpf_linker__finalize(linker):
                raise OracleError(f"link {output}\n{''.join(log)}")
        finally:
            library.bpf_linker__free(linker)


class Cycle:
    """Open, load and close, for benchmarks: as few steps of Python as can be."""

    def __init__(self, path: Path) -> None:
        self._path = str(path).encode()
        self._library = _libbpf()
        self._library.libbpf_set_print(None)

    def open(self) -> None:
        """Open the file and close it again."""
        self._library.bpf_object__close(self._library.bpf_object__open_file(self._path, None))

    def load(self) -> None:
        """Open the file, load it into the kernel, close it again."""
        handle = self._library.bpf_object__open_file(self._path, None)
        result = self._library.bpf_object__load(handle)
        self._library.bpf_object__close(handle)
        if result:
            raise OracleError(f"load {self._path.decode()}: {os.strerror(-result)}")


def normalized(code: bytes, map_names: Mapping[int, str]) -> tuple[str, ...]:
    """Return an xlated dump as lines that two loads of the same program have in common.

    Map ids become names. Pointers to what was allocated for this very load (as the argument of
    bpf_timer_set_callback() that the kernel inserts) are made one word.
    """
    slots = list(struct.iter_unpack("<BBhi", code))
    lines = []
    index = 0
    while index < len(slots):
        opcode, registers, offset, imm = slots[index]
        if opcode != _LD_IMM64:
            lines.append(f"{opcode:02x} {registers:02x} {offset} {imm}")
            index += 1
            continue
        high = slots[index + 1][3]
        if kind := _PSEUDO_MAP.get(registers >> 4):
            target = f"{kind} {map_names.get(imm, f'unknown map {imm}')}+{high}"
        else:
            value = (high & 0xFFFF_FFFF) << 32 | imm & 0xFFFF_FFFF
            target = "pointer" if value in _POINTER else f"{value:#x}"
        lines.append(f"{opcode:02x} {registers:02x} {offset} {target}")
        index += 2
    return tuple(lines)


def _describe_program(fd: int, map_names: Mapping[int, str]) -> KernelProgram:
    sizes = _ProgramInfo()
    _get_info(fd, sizes)
    info = _ProgramInfo()
    xlated = _buffer(info, "xlated_prog_insns", xlated_prog_len=sizes.xlated_prog_len)
    map_ids = _buffer(info, "map_ids", nr_map_ids=sizes.nr_map_ids, size=4)
    functions = _buffer(
        info,
        "func_info",
        nr_func_info=sizes.nr_func_info,
        size=sizes.func_info_rec_size,
        record="func_info_rec_size",
    )
    lines = _buffer(
        info,
        "line_info",
        nr_line_info=sizes.nr_line_info,
        size=sizes.line_info_rec_size,
        record="line_info_rec_size",
    )
    _get_info(fd, info)
    string = _strings(info.btf_id) if info.btf_id else str
    ids = struct.unpack(f"={sizes.nr_map_ids}I", map_ids)
    return KernelProgram(
        name=info.name.decode(),
        type=info.type,
        tag=bytes(info.tag).hex(),
        gpl_compatible=bool(info.gpl_compatible & 1),
        attach_btf_id=info.attach_btf_id,
        verified_instructions=info.verified_insns,
        maps=frozenset(map_names.get(number, f"unknown map {number}") for number in ids),
        xlated=normalized(bytes(xlated), map_names),
        func_info=tuple(struct.iter_unpack("=II", functions)),
        line_info=tuple(
            (instruction, string(file), string(text), position)
            for instruction, file, text, position in struct.iter_unpack("=IIII", lines)
        ),
    )


def _describe_map(fd: int, info: _MapInfo) -> KernelMap:
    data = None
    is_data = b"." in info.name  # what libbpf and xdpkit call maps of global data
    if is_data:
        value = ctypes.create_string_buffer(info.value_size)
        key = ctypes.c_uint32(0)
        _check(_libbpf().bpf_map_lookup_elem(fd, ctypes.byref(key), value), "look up in a map")
        data = value.raw
    return KernelMap(
        name=info.name.decode(),
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
        extra=info.map_extra,
        key_type_id=info.btf_key_type_id,
        value_type_id=info.btf_value_type_id,
        frozen="frozen:\t1" in Path(f"/proc/self/fdinfo/{fd}").read_text(),
        data=data,
    )


def _strings(btf_id: int) -> Callable[[int], str]:
    """Return a look-up of strings in a BTF that the kernel holds."""
    library = _libbpf()
    fd = _check(library.bpf_btf_get_fd_by_id(btf_id), "open BTF")
    try:
        raw = (ctypes.c_uint64 * 4)()  # struct bpf_btf_info: btf, btf_size and id, name, …
        _get_info(fd, raw)
        size = raw[1] & 0xFFFF_FFFF
        blob = ctypes.create_string_buffer(size)
        raw[0], raw[1], raw[2], raw[3] = ctypes.addressof(blob), size, 0, 0
        _get_info(fd, raw)
    finally:
        os.close(fd)
    header_length, _, _, start, length = struct.unpack_from("=5I", blob, 4)
    strings = blob.raw[header_length + start : header_length + start + length]
    return lambda offset: strings[offset : strings.index(b"\0", offset)].decode()


def _buffer(
    info: _ProgramInfo, pointer: str, size: int = 1, record: str | None = None, **count: int
) -> ctypes.Array[ctypes.c_char]:
    ((name, number),) = count.items()
    buffer = ctypes.create_string_buffer(number * size)
    setattr(info, name, number)
    setattr(info, pointer, ctypes.addressof(buffer))
    if record:
        setattr(info, record, size)
    return buffer


def _map_info(fd: int) -> _MapInfo:
    info = _MapInfo()
    _get_info(fd, info)
    return info


def _get_info(fd: int, info: ctypes.Structure | ctypes.Array[ctypes.c_uint64]) -> None:
    length = ctypes.c_uint32(ctypes.sizeof(info))
    _check(
        _libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length)), "get info"
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OracleError(f"{what}: {os.strerror(-result)}")
    return result


def _programs(handle: int) -> Iterator[int]:
    program: int | None = None
    while program := _libbpf().bpf_object__next_program(handle, program):
        yield program


def _maps(handle: int) -> Iterator[tuple[str, int]]:
    library = _libbpf()
    item = None
    while item := library.bpf_object__next_map(handle, item):
        # Maps of global data: "<object>.rodata" or ".rodata.custom" here, by their section for us.
        owner, dot, section = library.bpf_map__name(item).decode().partition(".")
        yield (dot + section or owner), library.bpf_map__fd(item)


_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def _log() -> Iterator[list[str]]:
    """Collect what libbpf says: warnings and the verifier's log."""
    lines: list[str] = []
    libc = ctypes.CDLL(None)

    def keep(_level: int, template: bytes, arguments: int) -> int:
        text = ctypes.create_string_buffer(1 << 16)
        length: int = libc.vsnprintf(text, len(text), template, ctypes.c_void_p(arguments))
        lines.append(text.value.decode(errors="replace"))
        return length

    callback = _PRINT(keep)
    _libbpf().libbpf_set_print(callback)
    try:
        yield lines
    finally:
        _libbpf().libbpf_set_print(None)


@functools.cache
def _libbpf() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    prototypes: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "bpf_object__open_file": (pointer, (text, pointer)),
        "bpf_object__load": (number, (pointer,)),
        "bpf_object__close": (None, (pointer,)),
        "bpf_object__next_program": (pointer, (pointer, pointer)),
        "bpf_program__section_name": (text, (pointer,)),
        "bpf_program__name": (text, (pointer,)),
        "bpf_program__fd": (number, (pointer,)),
        "bpf_program__autoload": (ctypes.c_bool, (pointer,)),
        "bpf_program__set_autoload": (number, (pointer, ctypes.c_bool)),
        "bpf_object__next_map": (pointer, (pointer, pointer)),
        "bpf_map__name": (text, (pointer,)),
        "bpf_map__fd": (number, (pointer,)),
        "bpf_map_lookup_elem": (number, (number, pointer, pointer)),
        "bpf_obj_get_info_by_fd": (number, (number, pointer, pointer)),
        "bpf_btf_get_fd_by_id": (number, (ctypes.c_uint32,)),
        "bpf_linker__new": (pointer, (text, pointer)),
        "bpf_linker__add_file": (number, (pointer, text, pointer)),
        "bpf_linker__finalize": (number, (pointer,)),
        "bpf_linker__free": (None, (pointer,)),
        "libbpf_set_print": (pointer, (pointer,)),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
