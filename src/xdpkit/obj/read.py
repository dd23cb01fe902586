# SPDX-License-Identifier: Apache-2.0
"""Reading an object file into values."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from types import MappingProxyType

from xdpkit.btf import Btf, BtfExt
from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.obj.code import Code, Function, functions_of, records_of
from xdpkit.obj.elf import Image
from xdpkit.obj.externs import kconfig_size, read_externs
from xdpkit.obj.maps import check_values, data_map, read_maps
from xdpkit.obj.sections import section_kind
from xdpkit.obj.spec import KCONFIG, Object, ProgramSpec
from xdpkit.obj.variables import Variables
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN

# The kernel takes a million instructions, 8 MB; with all its debug information, an object that big
# is well below this.
MAX_FILE_SIZE = 256 << 20


def read(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> Object:
    """Read a BPF object file, as clang, zig or gcc write it. Nothing of the system is asked.

    Args:
        source: a path, or the file's bytes.
        name: the object's name, if not that of the file; global data maps are called after it.

    Raises:
        ObjectFormatError: the file is not a BPF object, or is malformed; says where.
        UsageError: the file cannot be read.
    """
    if isinstance(source, bytes):
        data, path = source, None
    else:
        data, path = _contents(source), os.fspath(source)
    file = path or name or "object"
    try:
        return _read(data, path, file, name or (Path(path).name if path else "object"))
    except ObjectFormatError as error:
        raise error.located(file=file) from None


def _contents(source: str | os.PathLike[str]) -> bytes:
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"read {os.fspath(source)!r}", cause=cause) from None
    if len(data) > MAX_FILE_SIZE:
        raise ObjectFormatError(f"the file is larger than {MAX_FILE_SIZE >> 20} MiB")
    return data


def _read(data: bytes, path: str | None, file: str, name: str) -> Object:
    image = Image(data, file)
    object_name = name[: BPF_OBJ_NAME_LEN - 1].partition(".")[0]
    btf, ext = _type_information(image, file)
    externs = read_externs(image, btf)
    maps = read_maps(image, btf, object_name)
    if size := kconfig_size(externs):
        maps.specs[KCONFIG] = data_map(KCONFIG, size, btf, image, object_name)
    functions = functions_of(image)
    infos = (ext.func_info, ext.line_info, ext.core) if ext else ({}, {}, {})
    func_info, line_info, core = (
        records_of(image, btf, info, fields, ext.byteorder) if btf and ext else {}
        for info, fields in zip(infos, (2, 4, 4), strict=True)
    )
    programs: dict[str, ProgramSpec] = {}
    found = Object(
        name=object_name,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        byteorder=image.byteorder,
        license=_license(image),
        version=_version(image),
        programs=MappingProxyType(programs),
        maps=MappingProxyType(maps.specs),
        variables=Variables(image, btf, maps.data),
        externs=MappingProxyType(externs),
        btf=btf,
        skipped=_skipped(image),
        code=Code(image, functions, externs, maps.at, maps.data, func_info, line_info, core),
    )
    for function in functions.values():
        spec = _program(image, function, found)
        if spec is not None:
            programs[spec.name] = spec
    check_values(image, maps.specs, programs)
    return found


def _type_information(image: Image, file: str) -> tuple[Btf | None, BtfExt | None]:
    types, ext = image.by_name.get(".BTF"), image.by_name.get(".BTF.ext")
    if types is None or not types.size:
        return None, None
    btf = Btf.parse(types.data, file=file)
    return btf, BtfExt.parse(ext.data, file=file) if ext and ext.size else None


def _program(image: Image, function: Function, owner: Object) -> ProgramSpec | None:
    section = image.sections[function.section].name
    kind = section_kind(section)
    if kind is None or function.is_local:
        return None
    return ProgramSpec(
        name=function.name,
        section=section,
        type=kind.type,
        attach_type=kind.attach_type,
        flags=kind.flags,
        autoload=not section.startswith("?"),
        attach_to=kind.attach_to,
        function=function,
        object=owner,
    )


def _skipped(image: Image) -> tuple[str, ...]:
    return tuple(
        section.name
        for section in image.sections
        if section.is_code
        and section.size
        and section.name != ".text"
        and section_kind(section.name) is None
    )


def _license(image: Image) -> str:
    section = image.by_name.get("license")
    text = section.data.partition(b"\0")[0] if section else b""
    return text.decode("ascii", "backslashreplace")


def _version(image: Image) -> int:
    section = image.by_name.get("version")
    if section is None:
        return 0
    if len(section.data) != 4:
        raise image.error(f"is {len(section.data)} bytes long, not 4", section)
    version: int = struct.unpack("<I" if image.byteorder == "little" else ">I", section.data)[0]
    return version
