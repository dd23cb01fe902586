# SPDX-License-Identifier: Apache-2.0
"""What is analysed, as a value that knows nothing of files or kernels.

A program from an object file, one that the kernel dumped, one that was generated: all become a
:class:`Subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from xdpkit.isa import Instruction, decode
from xdpkit.obj.spec import RelocationKind
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType

if TYPE_CHECKING:
    from xdpkit.analysis.report import Analysis

ByteOrder = Literal["little", "big"]
LineOf = Callable[[int], str | None]


def no_lines(slot: int) -> str | None:
    """The ``line_of`` of a program without line information."""
    return None


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a linked program.

    Attributes:
        slot: where it begins. name: its name.
        is_global: the verifier looks at it by itself, and a program of type EXT (freplace) can
            take its place.
    """

    slot: int
    name: str
    is_global: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What the immediate of a 64-bit load or a call stands for.

    Attributes:
        kind: a map, a place in a map's value, a kernel function or a kernel variable.
        name: of the map, or in the kernel.
        offset: MAP_VALUE: bytes into the map's (first) value.
        is_there: KSYM: whether the kernel has it, else the address is 0; None: not known.
        arguments: KFUNC: how many its prototype has; None: not known.
    """

    kind: RelocationKind
    name: str
    offset: int = 0
    is_there: bool | None = True
    arguments: int | None = None


@dataclass(frozen=True, slots=True)
class SubjectMap:
    """What is known of a map.

    Attributes:
        name: by which references name it.
        type: its type. key_size, value_size: bytes. max_entries: how many values.
        data: the bytes of its first value, if nothing will ever change them; else None.
        programs: PROG_ARRAY: what is in which slot, nothing in the others; None: not known. The
            same subject can be in several slots, also the one that the map belongs to.
    """

    name: str
    type: MapType | int
    key_size: int = 4
    value_size: int = 4
    max_entries: int = 1
    data: bytes | None = field(default=None, repr=False)
    programs: Mapping[int, Subject | Analysis] | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """One linked program, as it would be loaded.

    Attributes:
        name: of the program.
        instructions: main function first, then the subprograms.
        functions: by slot, the main function first; those that are missing have no name.
        references: by slot.
        maps: by name.
        byteorder: of the machine that runs it, "little" or "big".
        type, attach_type, flags: as it is loaded.
        exception_callback: slot of the function that ``bpf_throw()`` goes on in; None: the
            kernel's own, which returns what was thrown.
        line_of: source line of a slot, as "file.c:12".
        is_foreign: others loaded it, so that its global functions may have been replaced.
    """

    name: str
    instructions: tuple[Instruction, ...] = field(repr=False)
    functions: tuple[Function, ...] = ()
    references: Mapping[int, Reference] = field(default_factory=dict, repr=False)
    maps: Mapping[str, SubjectMap] = field(default_factory=dict, repr=False)
    byteorder: ByteOrder = "little"
    type: ProgType | int = ProgType.XDP
    attach_type: AttachType | int = AttachType.XDP
    flags: ProgFlags = ProgFlags(0)
    exception_callback: int | None = None
    line_of: LineOf = field(default=no_lines, repr=False, compare=False)
    is_foreign: bool = False

    @classmethod
    def from_code(cls, name: str, code: bytes, *, byteorder: ByteOrder = "little") -> Subject:
        """Return the subject of machine code of which nothing else is known.

        Raises:
            ObjectFormatError: the code ends within an instruction.
        """
        return cls(name, decode(code, byteorder=byteorder), byteorder=byteorder)

    def function_name(self, slot: int) -> str:
        """Return the name of the function that begins at a slot."""
        for function in self.functions:
            if function.slot == slot:
                return function.name
        return self.name if slot == 0 else f"function at {slot}"

    def is_replaceable(self, slot: int) -> bool:
        """Return whether the function that begins at a slot is global."""
        return any(function.is_global for function in self.functions if function.slot == slot)
