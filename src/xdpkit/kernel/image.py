# SPDX-License-Identifier: Apache-2.0
"""What it takes to load a program a second time, when its object file may be gone.

What the kernel shows of a program (:meth:`~xdpkit.kernel.Program.xlated`) is what the verifier made
of it, and cannot be loaded. So this is what the kernel was *given*, with ids in place of this
process's descriptors. It stays good for as long as the program does, which keeps its maps and types
alive.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from ctypes import Structure, c_uint32, c_uint64
from dataclasses import dataclass
from typing import Self

from xdpkit.errors import ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.kernel.context import Given
from xdpkit.syscalls.bpf import FUNC_INFO_SIZE, LINE_INFO_SIZE, NewProgram
from xdpkit.uapi import sized
from xdpkit.uapi.bpf import PseudoSrc
from xdpkit.uapi.sized import HEAD, Part

IMAGE_MAGIC = int.from_bytes(b"xdpI", sys.byteorder)
"""What an encoded image begins with."""

_KIND = "program image"
_SLOT = 8
_LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW
# Where in the registers' byte the source is.
_SHIFT = 4 if sys.byteorder == "little" else 0
_IMM = struct.Struct("=I")
_FIRST_IMM, _SECOND_IMM = 4, 12
_MAPS = (PseudoSrc.MAP_FD, PseudoSrc.MAP_VALUE)


@dataclass(frozen=True, slots=True)
class MapReference:
    """A map: its id in the kernel, and its name in the object file."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Image:
    """The instructions of a program and all that ``BPF_PROG_LOAD`` was told about them.

    Attributes:
        name: of its function, in full.
        type, attach_type, flags: as the kernel numbers them.
        license: its license. kern_version: a number that very old kernels asked for.
        code: the instructions. Loads of maps have the map's id where the kernel takes a descriptor,
            loads of a module's variables the id of the module's BTF.
        func_info, line_info: records about the instructions, empty without BTF.
        btf_id: the types that came with the program, as the kernel numbers BTF objects; 0 without.
        modules: the BTF objects of the modules whose functions it calls, as ``fd_array`` has them
            from index 1 on.
        maps: those that it uses, and those bound to it when it was loaded.
        ifindex: the device that it is bound or offloaded to, else 0.
        attach_btf_id: the type of the tracepoint that it is for. attach_btf: the BTF object that
            has the type, 0 for the kernel's own.
        context: what its instructions have for the fields that xdpkit adds to its context; None: it
            reads none of them.
    """

    name: str
    type: int
    attach_type: int
    flags: int
    license: str
    kern_version: int
    code: bytes
    func_info: bytes = b""
    line_info: bytes = b""
    btf_id: int = 0
    modules: tuple[int, ...] = ()
    maps: tuple[MapReference, ...] = ()
    ifindex: int = 0
    attach_btf_id: int = 0
    attach_btf: int = 0
    context: Given | None = None

    def encode(self) -> bytes:
        """Return it as bytes that this and other versions read.

        Raises:
            UsageError: it has a number or a name that no kernel gives.
        """
        names = [sized.text(used.name, "the map name") for used in self.maps]
        if any(b"\0" in name for name in names):
            raise UsageError(f"store the image of {self.name}", cause="a map's name has a NUL")
        try:
            modules = array("I", self.modules)
            map_ids = array("I", (used.id for used in self.maps))
        except OverflowError:
            raise UsageError(
                f"store the image of {self.name}", cause="an id is out of range"
            ) from None
        numbers, fields = _packed(self.context)
        return sized.pack(
            _Layout(magic=IMAGE_MAGIC),
            {**{name: getattr(self, name) for name in _NUMBERS}, **numbers},
            {
                "name": sized.text(self.name, "the program name"),
                "license": sized.text(self.license, "the license"),
                "code": self.code,
                "func_info": self.func_info,
                "line_info": self.line_info,
                "modules": modules.tobytes(),
                "map_ids": map_ids.tobytes(),
                "map_names": b"\0".join(names),
                "context_fields": fields,
            },
            b"",
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the image that bytes hold.

        Raises:
            ObjectFormatError: they hold none.
            RequirementUnmet: a later version wrote it, with what this one does not know.
        """
        found = sized.unpack(_KIND, IMAGE_MAGIC, _Layout, data)
        if any(found.tail):
            raise RequirementUnmet(
                "read a program's image",
                cause="a later version of xdpkit wrote it, with what this version does not know",
                remedy="use that version",
            )
        map_ids = array("I", found.part("map_ids", unit=4))
        names = found.text("map_names").split("\0") if map_ids else []
        if len(names) != len(map_ids):
            raise ObjectFormatError(
                f"it has {len(map_ids)} maps and {len(names)} names for them", file=_KIND
            )
        return cls(
            name=found.text("name"),
            license=found.text("license"),
            code=found.part("code", unit=_SLOT),
            func_info=found.part("func_info", unit=FUNC_INFO_SIZE),
            line_info=found.part("line_info", unit=LINE_INFO_SIZE),
            modules=tuple(array("I", found.part("modules", unit=4))),
            maps=tuple(map(MapReference, map_ids, names)),
            context=_unpacked(found),
            **{name: int(getattr(found.fields, name)) for name in _NUMBERS},
        )


_NUMBERS = (
    "type",
    "attach_type",
    "flags",
    "kern_version",
    "ifindex",
    "btf_id",
    "attach_btf_id",
    "attach_btf",
)


class _Layout(Structure):
    _fields_ = [
        *HEAD,
        *((name, c_uint32) for name in _NUMBERS),
        ("name", Part),
        ("license", Part),
        ("code", Part),
        ("func_info", Part),
        ("line_info", Part),
        ("modules", Part),
        ("map_ids", Part),
        ("map_names", Part),
        ("cookie", c_uint64),
        ("port_index", c_uint32),
        ("has_port_index", c_uint32),
        ("port_numbers", c_uint32),
        ("context_fields", Part),
    ]


def _packed(given: Given | None) -> tuple[dict[str, int], bytes]:
    if given is None:
        return {}, b""
    numbers = {
        "cookie": given.cookie,
        "port_index": given.port_index or 0,
        "has_port_index": int(given.port_index is not None),
        "port_numbers": given.numbers,
    }
    return numbers, sized.text("\0".join(given.fields), "the context's fields")


def _unpacked(found: sized.Unpacked[_Layout]) -> Given | None:
    fields = found.text("context_fields")
    if not fields:
        return None
    numbers = found.fields
    return Given(
        tuple(fields.split("\0")),
        port_index=int(numbers.port_index) if numbers.has_port_index else None,
        numbers=int(numbers.port_numbers),
        cookie=int(numbers.cookie),
    )


def describe(
    new: NewProgram,
    *,
    btf_id: int,
    maps: Mapping[int, MapReference],
    objects: Mapping[int, int],
    context: Given | None = None,
) -> Image:
    """Return the image of a program that was loaded.

    Args:
        new: what the kernel was given.
        btf_id: the types that the kernel kept with it.
        maps: what it uses, and what is bound to it, by descriptor.
        objects: ids of the modules' BTF objects that it uses, by descriptor.
        context: what it got in its context.
    """
    code = bytearray(new.code)
    renumber(code, {fd: used.id for fd, used in maps.items()}, objects)
    return Image(
        name=new.name,
        type=new.type,
        attach_type=new.attach_type,
        flags=new.flags,
        license=new.license,
        kern_version=new.kern_version,
        code=bytes(code),
        func_info=new.func_info if btf_id else b"",
        line_info=new.line_info if btf_id else b"",
        btf_id=btf_id,
        modules=tuple(objects[fd] for fd in descriptors(new.fd_array)),
        maps=tuple(maps.values()),
        ifindex=new.ifindex,
        attach_btf_id=new.attach_btf_id,
        attach_btf=objects[new.attach_btf_fd] if new.attach_btf_fd else 0,
        context=context,
    )


def descriptors(fd_array: bytes) -> array[int]:
    """Return the descriptors of the modules in an ``fd_array``; index 0 is the kernel's."""
    return array("i", fd_array)[1:]


@dataclass(frozen=True, slots=True)
class References:
    """What the 64-bit loads of a program refer to by descriptor, or by id: maps and modules."""

    maps: frozenset[int]
    objects: frozenset[int]


def references(code: bytes | bytearray) -> References:
    """Return what instructions refer to.

    Raises:
        ObjectFormatError: they end within a load.
    """
    maps, objects = set(), set()
    for at, source in _loads(code):
        if source in _MAPS:
            maps.add(_IMM.unpack_from(code, at + _FIRST_IMM)[0])
        elif source == PseudoSrc.BTF_ID:
            objects.add(_IMM.unpack_from(code, at + _SECOND_IMM)[0])
    return References(frozenset(maps), frozenset(objects - {0}))


def renumber(code: bytearray, maps: Mapping[int, int], objects: Mapping[int, int]) -> None:
    """Replace what :func:`references` finds: descriptors by ids, or ids by descriptors."""
    for at, source in _loads(code):
        place, numbers = (at + _FIRST_IMM, maps) if source in _MAPS else (at + _SECOND_IMM, objects)
        (number,) = _IMM.unpack_from(code, place)
        # The kernel itself has neither descriptor nor id here.
        if source in _MAPS or number:
            _IMM.pack_into(code, place, numbers[number])


def _loads(code: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield where loads of maps and kernel objects are, in bytes, and which kind each is."""
    opcodes = bytes(code[::_SLOT])
    slot = opcodes.find(_LD_IMM64)
    while slot >= 0:
        at = slot * _SLOT
        source = code[at + 1] >> _SHIFT & 0xF
        if source in _MAPS or source == PseudoSrc.BTF_ID:
            if slot + 1 == len(opcodes):
                raise ObjectFormatError("a 64-bit load is cut off", file=_KIND, offset=at)
            yield at, source
        slot = opcodes.find(_LD_IMM64, slot + 2)
