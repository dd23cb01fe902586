# SPDX-License-Identifier: Apache-2.0
"""The number that a question about a place has for an answer."""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.btf import Btf
from xdpkit.btf.types import Array, Enum, Enum64, Int, Struct, Union
from xdpkit.obj.core.access import SUBJECTS, Access, Subject, Unfit, size_of
from xdpkit.uapi.bpf import CoreReloKind

_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF
_WIDEST_LOAD = 8
_MAX_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class Value:
    """An answer.

    Attributes:
        number: unsigned, 64 bits.
        is_exact: whether there is only one right answer: that from the object's own types is then
            what the compiler put into the instruction.
        memory_size: bytes of the field (of an array's element) for a load or store at this offset;
            0 where it is no plain memory access.
        memory_type: the field's type, 0 as above.
    """

    number: int
    is_exact: bool = True
    memory_size: int = 0
    memory_type: int = 0


def evaluate(kind: CoreReloKind, access: Access) -> Value:
    """Return the answer for a place that exists.

    Raises:
        Unfit: a type has no size, or the question cannot be asked of this place.
    """
    match kind:
        case (
            CoreReloKind.FIELD_EXISTS
            | CoreReloKind.TYPE_EXISTS
            | CoreReloKind.TYPE_MATCHES
            | CoreReloKind.ENUMVAL_EXISTS
        ):
            return Value(1)
        case CoreReloKind.TYPE_SIZE:
            return Value(size_of(access.btf, access.root_id))
        case CoreReloKind.TYPE_ID_LOCAL | CoreReloKind.TYPE_ID_TARGET:
            # Static linking renumbers types, and does not always update the instruction.
            return Value(access.root_id, is_exact=False)
        case CoreReloKind.ENUMVAL_VALUE:
            return Value(_enumerator_value(access))
        case _ if access.steps[-1].name is None:
            return _element(kind, access)
        case _:
            return _member(kind, access)


def absent(kind: CoreReloKind) -> Value | None:
    """Return the answer for a place that the target does not have: None if there is none."""
    if kind in (CoreReloKind.FIELD_EXISTS, CoreReloKind.ENUMVAL_EXISTS):
        return Value(0)
    return Value(0) if SUBJECTS[kind] is Subject.TYPE else None


def _enumerator_value(access: Access) -> int:
    step = access.steps[0]
    holder = access.btf[step.type_id]
    assert isinstance(holder, Enum | Enum64)
    number = holder.values[step.index][1]
    if isinstance(holder, Enum) and number >= 1 << 31:
        # libbpf widens 32-bit values as signed ones, even where the enum is unsigned.
        number -= 1 << 32
    return number & _U64


def _element(kind: CoreReloKind, access: Access) -> Value:
    type_id = access.steps[-1].type_id
    match kind:
        case CoreReloKind.FIELD_BYTE_OFFSET:
            return _offset(access.btf, access.bit_offset // 8, type_id)
        case CoreReloKind.FIELD_BYTE_SIZE:
            return Value(size_of(access.btf, type_id))
        case _:
            raise Unfit("the question cannot be asked of an array element")


def _offset(btf: Btf, offset: int, type_id: int) -> Value:
    """Return a byte offset with the size of a load there: of an array, an element is loaded."""
    element_id = type_id
    for _ in range(_MAX_DIMENSIONS):
        element_id = btf.strip(element_id)
        element = btf[element_id]
        if not isinstance(element, Array):
            size = size_of(btf, element_id)
            return Value(offset, memory_size=size, memory_type=type_id)
        element_id = element.element_id
    raise Unfit("arrays are nested too deeply")


def _member(kind: CoreReloKind, access: Access) -> Value:
    btf = access.btf
    step = access.steps[-1]
    holder = btf[step.type_id]
    assert isinstance(holder, Struct | Union)
    member = holder.members[step.index]
    type_id = btf.strip(member.type_id)
    if kind is CoreReloKind.FIELD_SIGNED:
        of = btf[type_id]
        signed = (
            of.signed if isinstance(of, Enum | Enum64) else isinstance(of, Int) and of.is_signed
        )
        return Value(int(signed))
    if member.bitfield_size:
        bits = member.bitfield_size
        offset, size = _window(btf, type_id, access.bit_offset, bits)
    else:
        size = size_of(btf, type_id)
        offset, bits = access.bit_offset // 8, size * 8
    is_exact = not member.bitfield_size
    match kind:
        case CoreReloKind.FIELD_BYTE_OFFSET:
            return _offset(btf, offset, type_id) if is_exact else Value(offset, is_exact=False)
        case CoreReloKind.FIELD_BYTE_SIZE:
            return Value(size, is_exact)
        case CoreReloKind.FIELD_RSHIFT_U64:
            return Value((64 - bits) & _U32)
        case _:
            before = access.bit_offset - offset * 8
            shift = 64 - before - bits if btf.byteorder == "little" else 64 - size * 8 + before
            return Value(shift & _U32, is_exact)


def _window(btf: Btf, type_id: int, bit_offset: int, bits: int) -> tuple[int, int]:
    """Return offset and size in bytes of the smallest aligned load that covers a bitfield.

    It is at least as wide as the declared type. Compilers may choose another: the answer is not
    exact.
    """
    declared = btf[type_id]
    if not isinstance(declared, Int | Enum | Enum64) or not declared.size:
        raise Unfit(f"type {type_id} cannot be a bitfield")
    size = declared.size
    while True:
        offset = bit_offset // 8 // size * size
        if bit_offset + bits <= (offset + size) * 8:
            return offset, size
        if size >= _WIDEST_LOAD:
            raise Unfit("the bitfield cannot be read with a 64-bit load")
        size *= 2
