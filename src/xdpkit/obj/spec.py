# SPDX-License-Identifier: Apache-2.0
"""What an object file holds, as values: programs, maps, variables, externs.

Nothing here depends on a kernel. An :class:`Object` is what :func:`xdpkit.obj.read` returns; its
:attr:`~Object.variables` can be set before a load, everything else is frozen.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.uapi.bpf import AttachType, MapFlags, MapType, ProgFlags, ProgType

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.obj.code import Code, Function
    from xdpkit.obj.variables import Variables


# The map of kernel configuration values.
KCONFIG = ".kconfig"


class Pinning(enum.IntEnum):
    """``LIBBPF_PIN_*``: the values of a map definition's ``pinning`` attribute."""

    NONE = 0
    BY_NAME = 1


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as the object file defines it.

    Attributes:
        name: the name in the source, or the section's for global data (``.rodata``).
        kernel_name: the name that the kernel is given: at most 15 characters; global data is
            called ``<object>.rodata``, as libbpf does.
        type: the map type.
        key_size, value_size: bytes; value_size is that of one CPU's value.
        max_entries: 0 leaves the choice to the loader where the type allows it
            (``PERF_EVENT_ARRAY``: number of CPUs).
        flags: ``BPF_F_*`` of ``BPF_MAP_CREATE``.
        pinning: whether the loader shares the map through bpffs, under its name.
        numa_node: the node to allocate on, or None.
        map_extra: per map type (bloom filter: number of hashes).
        key_type_id, value_type_id: ids in the object's BTF, 0 where not known.
        inner: template of the maps that an array or hash of maps holds.
        values: initial contents of a program array or map of maps: slot → name of a program or map.
        data_section: the ELF section of a global data map, None for others; its contents are in
            :attr:`Object.variables`, those of ``.kconfig`` come from the kernel.
    """

    name: str
    kernel_name: str
    type: MapType | int
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlags = MapFlags(0)
    pinning: Pinning = Pinning.NONE
    numa_node: int | None = None
    map_extra: int = 0
    key_type_id: int = 0
    value_type_id: int = 0
    inner: MapSpec | None = None
    values: Mapping[int, str] = field(default_factory=dict)
    data_section: str | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether nobody may change the map once it is loaded (``.rodata``, ``.kconfig``)."""
        return self.data_section is not None and bool(self.flags & MapFlags.RDONLY_PROG)


class RelocationKind(enum.Enum):
    """What the loader has to fill in at a place in linked code."""

    MAP = "map"  # ld_imm64: the map's fd
    MAP_VALUE = "map-value"  # ld_imm64: the map's fd and an offset into its first value
    KFUNC = "kfunc"  # call: BTF id of a kernel function
    KSYM = "ksym"  # ld_imm64: BTF id (typed) or address (untyped) of a kernel variable or function


@dataclass(frozen=True, slots=True)
class Relocation:
    """Places in linked code that need the same thing of the running kernel.

    Attributes:
        kind: what it is.
        name: the map's name, or the extern's.
        offset: for MAP_VALUE, bytes into the map's value.
        slots: indices of the instructions, in 8-byte slots from the start of the linked code.
    """

    kind: RelocationKind
    name: str
    offset: int
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CoreRelocation:
    """A CO-RE relocation (``struct bpf_core_relo``) of linked code.

    Attributes:
        slot: index of the instruction, in slots from the start of the linked code.
        type_id: the root type, in the object's BTF.
        access: the access string, "0:1:2".
        kind: ``enum bpf_core_relo_kind``.
    """

    slot: int
    type_id: int
    access: str
    kind: int


class ExternKind(enum.Enum):
    """Where an extern is looked for."""

    KFUNC = "kfunc"
    KSYM = "ksym"
    KCONFIG = "kconfig"


@dataclass(frozen=True, slots=True)
class Extern:
    """A symbol that the kernel provides.

    Attributes:
        name: the symbol. kernel_name: what the kernel calls it: without ``___flavour``.
        kind: kernel function, kernel variable, or configuration value.
        is_weak: absent is allowed: the address is then 0, the value 0.
        type_id: its type in the object's BTF: a FUNC_PROTO, or the variable's type; 0 if untyped
            (``void``): then only its address can be had.
        offset: KCONFIG: bytes into the ``.kconfig`` map. size: KCONFIG: bytes.
    """

    name: str
    kernel_name: str
    kind: ExternKind
    is_weak: bool
    type_id: int
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class LinkedProgram:
    """A program with its subprograms, complete but for what only the running kernel knows.

    Attributes:
        code: instructions, 8 bytes a slot, in the object's byte order.
        functions: (slot, name) of each function in the order linked, the program's own first.
        relocations: places to be filled in by the loader, grouped by what they need.
        core: CO-RE relocations, by slot.
        func_info: ``struct bpf_func_info`` records (8 bytes), native byte order; empty without BTF.
        line_info: ``struct bpf_line_info`` records (16 bytes), native byte order.
    """

    code: bytes
    functions: tuple[tuple[int, str], ...]
    relocations: tuple[Relocation, ...]
    core: tuple[CoreRelocation, ...]
    func_info: bytes = b""
    line_info: bytes = b""


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program as the object file has it.

    Attributes:
        name: the function's name.
        section: the ELF section's name, which says what the program is (``xdp.frags``).
        type: program type. attach_type: expected attach type.
        flags: ``BPF_F_*`` of ``BPF_PROG_LOAD`` (``XDP_HAS_FRAGS``).
        autoload: False where the section's name begins with ``?``: load_all() leaves it out.
        attach_to: what follows the slash in ``tp_btf/NAME`` and ``raw_tp/NAME``, else None.
        function: where it is in the file.
        object: the object that it belongs to.
    """

    name: str
    section: str
    type: ProgType
    attach_type: AttachType | int
    flags: ProgFlags
    autoload: bool
    attach_to: str | None
    function: Function = field(repr=False)
    object: Object = field(repr=False, compare=False)

    def link(self) -> LinkedProgram:
        """Return the program joined with the subprograms it calls.

        Raises:
            ObjectFormatError: a relocation is out of range or of a kind that BPF does not have.
        """
        from xdpkit.obj.link import link

        return link(self)


@dataclass(frozen=True, slots=True)
class Object:
    """An object file.

    Attributes:
        name: the file's name without folder and suffix; it begins the global data maps' names.
        path: where it was read from, None for bytes.
        sha256: of the file's bytes, in hexadecimal.
        byteorder: "little" or "big".
        license: contents of the ``license`` section. version: that of ``version``, else 0.
        programs: by function name, in file order.
        maps: by name, in the order in which libbpf creates them.
        variables: global variables by name: read, and set before a load.
        externs: what the kernel has to provide, by name.
        btf: the object's type information, None where it has none.
        skipped: sections with code of a kind that xdpkit does not handle; they are left alone.
        code: the functions and what is to be relocated in them, for linking.
    """

    name: str
    path: str | None
    sha256: str
    byteorder: str
    license: str
    version: int
    programs: Mapping[str, ProgramSpec]
    maps: Mapping[str, MapSpec]
    variables: Variables
    externs: Mapping[str, Extern]
    btf: Btf | None
    skipped: tuple[str, ...]
    code: Code = field(repr=False, compare=False)

    def snapshot(self) -> Object:
        """Return the object with its variables as they are set now, whatever is set later."""
        programs: dict[str, ProgramSpec] = {}
        found = replace(
            self, programs=MappingProxyType(programs), variables=self.variables.snapshot()
        )
        for name, spec in self.programs.items():
            programs[name] = replace(spec, object=found)
        return found
