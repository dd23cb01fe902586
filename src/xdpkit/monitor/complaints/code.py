# SPDX-License-Identifier: Apache-2.0
"""The instructions of attached programs, analysed each by itself.

They are what xdpkit loaded the programs from (:class:`xdpkit.kernel.image.Image`), so that source
lines are known although the object file may be gone. A copy that counts has those of its original.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, UsageError, XdpkitError
from xdpkit.hook import records
from xdpkit.kernel.maps import Map
from xdpkit.monitor.complaints.facts import Code, ProgArray, RedirectMap
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType, ProgFlags

if TYPE_CHECKING:
    from xdpkit.analysis import Analysis, Function, Subject, SubjectMap
    from xdpkit.btf import Btf
    from xdpkit.hook.reach import Reached, Web
    from xdpkit.hook.record import Record
    from xdpkit.kernel.image import Image

_UNKNOWN = "xdpkit did not load it, so its instructions are not known"
_REDIRECTS = {
    MapType.DEVMAP: "devmap",
    MapType.DEVMAP_HASH: "devmap",
    MapType.CPUMAP: "cpumap",
    MapType.XSKMAP: "xskmap",
}
_RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG in include/uapi/linux/bpf.h
_INDEX = struct.pack("=I", 0)
_FUNC_INFO = struct.Struct("=II")
_LINE_INFO = struct.Struct("=IIII")
_COLUMN_BITS = 10


def read_code(program: int, web: Web, record: Record | None) -> Iterator[Code]:
    """Yield the code of a program, then that of the programs that it can reach by tail calls.

    Args:
        program: its id. web: what was seen of it.
        record: what was written down with it; it says which file it came from.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    others = web.reached_from(program) - {program}
    for number in (program, *sorted(others)):
        found = web.programs.get(number)
        if found is not None:
            yield _read(found, web, record)


def _read(found: Reached, web: Web, record: Record | None) -> Code:
    if found.image is None:
        return Code(found.id, found.name, None, found.problem or _UNKNOWN)
    analysis, problem = None, None
    try:
        analysis = analysed(found.image)
    except XdpkitError as error:
        problem = error.cause
    kinds = {used.name: _kind_of(used.id) for used in found.image.maps}
    numbers = {used.name: used.id for used in found.image.maps}
    arrays = {name: number for name, number in numbers.items() if number in web.arrays}
    loaded_with = _loaded_with(record) if arrays and analysis and analysis.tail_calls else {}
    return Code(
        id=found.id,
        name=found.name,
        analysis=analysis,
        problem=problem,
        arrays={
            name: ProgArray(
                number,
                web.sizes[number],
                frozenset(web.arrays[number]),
                loaded_with.get(name, frozenset()),
            )
            for name, number in arrays.items()
        },
        redirects={
            name: redirect
            for name, kind in kinds.items()
            if kind is not None and (redirect := _redirect_map(numbers[name], kind)) is not None
        },
    )


def _kind_of(map_id: int) -> str | None:
    for _, _, info in records.opened((map_id,)):
        return _REDIRECTS.get(info.type)
    return None


def _redirect_map(map_id: int, kind: str) -> RedirectMap | None:
    with contextlib.suppress(UsageError), Map.from_id(map_id) as found:
        try:
            entries = dict(found.items())
        except KernelRefused:
            # What is in an XSKMAP only programs can see: xsk_map_lookup_elem_sys_only() in
            # net/xdp/xskmap.c.
            return RedirectMap(map_id, kind, None)
        indexes = (int(getattr(value, "ifindex", value) or 0) for value in entries.values())
        interfaces = tuple(sorted(set(indexes) - {0})) if kind == "devmap" else ()
        return RedirectMap(map_id, kind, tuple(map(int, entries)), interfaces)
    return None


def _loaded_with(record: Record | None) -> Mapping[str, frozenset[int]]:
    """Return the slots that the object file fills, by array; nothing if it is gone, or another."""
    if record is None or record.origin.path is None or record.origin.sha256 is None:
        return {}
    from hashlib import sha256

    from xdpkit.obj import read

    try:
        if sha256(Path(record.origin.path).read_bytes()).hexdigest() != record.origin.sha256:
            return {}
        maps = read(record.origin.path).maps
    except (OSError, XdpkitError):
        return {}
    return {
        name: frozenset(spec.values)
        for name, spec in maps.items()
        if spec.type == MapType.PROG_ARRAY and spec.values
    }


def analysed(image: Image) -> Analysis:
    """Return what a program can return by itself: as if all program arrays were empty.

    Raises:
        ObjectFormatError: the image contradicts itself.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    from xdpkit.analysis import analyse

    return analyse(_subject(image))


def _subject(image: Image) -> Subject:
    from xdpkit.kernel.btf import by_id
    from xdpkit.kernel.kfuncs import throw_in
    from xdpkit.rewrite import Body
    from xdpkit.rewrite.subject import subject_of_body

    types = by_id(image.btf_id) if image.btf_id else None
    bare = subject_of_body(Body(image.code, image.func_info, image.line_info), throw_in(image.code))
    names = {str(used.id): used.name for used in image.maps}
    return replace(
        bare,
        name=image.name,
        functions=tuple(_functions(image, types)) or bare.functions,
        references={
            slot: replace(each, name=names.get(each.name, each.name))
            for slot, each in bare.references.items()
        },
        maps={known.name: known for known in _maps(image)},
        flags=ProgFlags(image.flags),
        line_of=_Lines(image.line_info, types),
    )


def _functions(image: Image, types: Btf | None) -> Iterator[Function]:
    from xdpkit.analysis import Function

    if types is None:
        return
    for slot, type_id in _FUNC_INFO.iter_unpack(image.func_info):
        yield Function(slot, str(getattr(types[type_id], "name", "")) or f"function at {slot}")


def _maps(image: Image) -> Iterator[SubjectMap]:
    from xdpkit.analysis import SubjectMap

    for used in image.maps:
        for _, fd, info in records.opened((used.id,)):
            is_constant = used.name.startswith(".rodata") and info.map_flags & _RDONLY_PROG
            yield SubjectMap(
                name=used.name,
                type=info.type,
                key_size=info.key_size,
                value_size=info.value_size,
                max_entries=info.max_entries,
                data=_first_value(fd, info.value_size) if is_constant else None,
                programs={} if info.type == MapType.PROG_ARRAY else None,
            )


def _first_value(fd: Fd, size: int) -> bytes | None:
    return bpf.map_lookup(fd.fileno(), _INDEX, size)


class _Lines:
    """Source lines of a program in the kernel, as "file.c:12"."""

    def __init__(self, line_info: bytes, types: Btf | None) -> None:
        self._types = types
        self._records = list(_LINE_INFO.iter_unpack(line_info)) if types is not None else []
        self._slots = [slot for slot, _, _, _ in self._records]

    def __call__(self, slot: int) -> str | None:
        # Line 0: the compiler made one instruction of several lines; the one before says more.
        for at in range(bisect_right(self._slots, slot) - 1, -1, -1):
            _, file, _, place = self._records[at]
            if self._types is not None and place >> _COLUMN_BITS:
                name = self._types.string(file).rpartition("/")[2]
                return f"{name}:{place >> _COLUMN_BITS}"
        return None
