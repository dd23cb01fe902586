# SPDX-License-Identifier: Apache-2.0
"""The kinds of types that BTF describes, as values.

Types refer to each other by id; id 0 is ``void``. An anonymous type has an empty name.
Source: include/uapi/linux/btf.h and Documentation/bpf/btf.rst, up to Linux 6.18.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias


class Kind(enum.IntEnum):
    """``BTF_KIND_*``, include/uapi/linux/btf.h; ``VOID`` is the kernel's ``UNKN``, type id 0."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class IntEncoding(enum.IntFlag):
    """``BTF_INT_*``. Clang marks neither ``char`` nor its unsigned kin as ``CHAR``."""

    SIGNED = 1
    CHAR = 2
    BOOL = 4


_UNSIGNED = IntEncoding(0)


class VarLinkage(enum.IntEnum):
    """``BTF_VAR_*``."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


class FuncLinkage(enum.IntEnum):
    """``enum btf_func_linkage``."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


@dataclass(frozen=True, slots=True)
class Void:
    """Type id 0: no type, or a function without a prototype's return value."""

    kind: ClassVar[Kind] = Kind.VOID


@dataclass(frozen=True, slots=True)
class Int:
    """An integer.

    Attributes:
        size: bytes of its storage.
        bits: bits that carry the value.
        offset: bits before the value; only old compilers, which describe bitfields so, set it.
    """

    kind: ClassVar[Kind] = Kind.INT
    name: str
    size: int
    bits: int
    offset: int = 0
    encoding: IntEncoding = _UNSIGNED

    @property
    def is_signed(self) -> bool:
        return bool(self.encoding & IntEncoding.SIGNED)

    @property
    def is_bool(self) -> bool:
        return bool(self.encoding & IntEncoding.BOOL)


@dataclass(frozen=True, slots=True)
class Ptr:
    """A pointer to ``type_id``; 0 is ``void *``."""

    kind: ClassVar[Kind] = Kind.PTR
    type_id: int


@dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements of ``element_id``; a flexible array has count 0."""

    kind: ClassVar[Kind] = Kind.ARRAY
    element_id: int
    index_id: int
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union.

    Attributes:
        bit_offset: bits from the start of the struct; on big-endian, from the most significant bit.
        bitfield_size: bits, or 0 when the member is not a bitfield.
    """

    name: str
    type_id: int
    bit_offset: int = 0
    bitfield_size: int = 0


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct; ``size`` in bytes.

    ``kind_flag`` says how members are encoded: with a bitfield size each. A bitfield implies it.
    """

    kind: ClassVar[Kind] = Kind.STRUCT
    name: str
    size: int
    members: tuple[Member, ...] = ()
    kind_flag: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Union:
    """A union; as :class:`Struct`."""

    kind: ClassVar[Kind] = Kind.UNION
    name: str
    size: int
    members: tuple[Member, ...] = ()
    kind_flag: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration of ``size`` bytes whose values fit in 32 bits."""

    kind: ClassVar[Kind] = Kind.ENUM
    name: str
    size: int
    signed: bool = False
    values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Enum64:
    """An enumeration of ``size`` bytes with 64-bit values (Linux 6.0)."""

    kind: ClassVar[Kind] = Kind.ENUM64
    name: str
    size: int
    signed: bool = False
    values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Fwd:
    """A struct or union that is declared, not defined."""

    kind: ClassVar[Kind] = Kind.FWD
    name: str
    is_union: bool = False


@dataclass(frozen=True, slots=True)
class Typedef:
    """Another name for ``type_id``."""

    kind: ClassVar[Kind] = Kind.TYPEDEF
    name: str
    type_id: int


@dataclass(frozen=True, slots=True)
class Volatile:
    """``volatile`` applied to ``type_id``."""

    kind: ClassVar[Kind] = Kind.VOLATILE
    type_id: int


@dataclass(frozen=True, slots=True)
class Const:
    """``const`` applied to ``type_id``."""

    kind: ClassVar[Kind] = Kind.CONST
    type_id: int


@dataclass(frozen=True, slots=True)
class Restrict:
    """``restrict`` applied to ``type_id``."""

    kind: ClassVar[Kind] = Kind.RESTRICT
    type_id: int


@dataclass(frozen=True, slots=True)
class TypeTag:
    """A ``btf_type_tag`` applied to ``type_id`` (Linux 5.17).

    Attributes:
        name: the tag's text.
        is_attribute: the text is a GNU attribute of its own, not a ``btf_type_tag`` (Linux 6.15).
    """

    kind: ClassVar[Kind] = Kind.TYPE_TAG
    name: str
    type_id: int
    is_attribute: bool = False


@dataclass(frozen=True, slots=True)
class Func:
    """A function; ``type_id`` is its FUNC_PROTO. Linkage: see :class:`FuncLinkage`."""

    kind: ClassVar[Kind] = Kind.FUNC
    name: str
    type_id: int
    linkage: int = FuncLinkage.STATIC


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter. Without name and with type 0, as the last one: variable arguments."""

    name: str
    type_id: int


@dataclass(frozen=True, slots=True)
class FuncProto:
    """A function's type."""

    kind: ClassVar[Kind] = Kind.FUNC_PROTO
    return_id: int
    params: tuple[Param, ...] = ()


@dataclass(frozen=True, slots=True)
class Var:
    """A variable. Linkage: see :class:`VarLinkage`."""

    kind: ClassVar[Kind] = Kind.VAR
    name: str
    type_id: int
    linkage: int = VarLinkage.GLOBAL


@dataclass(frozen=True, slots=True)
class SectionVar:
    """The VAR, or extern FUNC, that lies at ``offset`` in a section; in bytes."""

    type_id: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Datasec:
    """An ELF section with variables. Clang leaves the size and the offsets 0."""

    kind: ClassVar[Kind] = Kind.DATASEC
    name: str
    size: int
    vars: tuple[SectionVar, ...] = ()


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number of ``size`` bytes (Linux 5.13)."""

    kind: ClassVar[Kind] = Kind.FLOAT
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class DeclTag:
    """A ``btf_decl_tag`` on a declaration (Linux 5.16).

    Attributes:
        value: the tag's text.
        type_id: the struct, union, typedef, variable or function that it is on.
        component: index of the member or parameter that it is on; -1: on the whole.
        is_attribute: the text is a GNU attribute of its own, not a ``btf_decl_tag`` (Linux 6.15).
    """

    kind: ClassVar[Kind] = Kind.DECL_TAG
    value: str
    type_id: int
    component: int = -1
    is_attribute: bool = False


Type: TypeAlias = (
    Void
    | Int
    | Ptr
    | Array
    | Struct
    | Union
    | Enum
    | Enum64
    | Fwd
    | Typedef
    | Volatile
    | Const
    | Restrict
    | TypeTag
    | Func
    | FuncProto
    | Var
    | Datasec
    | Float
    | DeclTag
)
