# SPDX-License-Identifier: Apache-2.0
"""The contents of the ``.kconfig`` map: what the kernel was configured with. Pure.

An extern ``CONFIG_X`` has the value of that line of the kernel's configuration, ``LINUX_X`` one
that the loader knows. What types may hold what is libbpf's rule: ``y``, ``n``, ``m`` go into
``bool``, ``enum libbpf_tristate`` and ``char``; numbers into integers; strings into arrays of
``char``.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xdpkit.btf import types
from xdpkit.btf.types import IntEncoding
from xdpkit.errors import ObjectFormatError, RequirementUnmet

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.obj import Extern

_BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"
_TRISTATE = {"n": 0, "y": 1, "m": 2}


class Form(enum.Enum):
    """What an extern's type can hold."""

    BOOL = "bool"
    TRISTATE = "enum libbpf_tristate"
    CHAR = "char"
    INT = "integer"
    STRING = "char array"


@dataclass(frozen=True, slots=True)
class _Place:
    form: Form
    size: int
    is_signed: bool


def needs_configuration(externs: Iterable[Extern]) -> bool:
    """Whether any of the externs is a line of the kernel's configuration."""
    return any(extern.name.startswith("CONFIG_") for extern in externs)


def contents(
    externs: Iterable[Extern],
    btf: Btf,
    size: int,
    *,
    configuration: Mapping[str, str],
    known: Mapping[str, Callable[[], int]],
) -> bytes:
    """Return the value of the ``.kconfig`` map.

    Args:
        externs: those of kind KCONFIG.
        btf: the object's types.
        size: bytes of the map's value.
        configuration: the kernel's, by ``CONFIG_`` name; see :func:`parse`.
        known: values of the ``LINUX_`` externs, called only if asked for.

    Raises:
        RequirementUnmet: an extern that is not weak has no value, or one that its type cannot hold.
        ObjectFormatError: an extern is of a type that cannot be a configuration value.
    """
    data = bytearray(size)
    for extern in externs:
        place = _place(extern, btf)
        if extern.name.startswith("CONFIG_"):
            text = configuration.get(extern.name)
            value = None if text is None else _encode_text(extern.name, place, text)
        else:
            number = known.get(extern.name)
            value = None if number is None else _encode_number(extern.name, place, number())
        if value is not None:
            data[extern.offset : extern.offset + len(value)] = value
        elif not extern.name.startswith(("CONFIG_", "LINUX_")):
            raise ObjectFormatError(
                f"extern {extern.name} is a __kconfig, whose names begin with CONFIG_ or LINUX_",
                file=btf.file,
            )
        elif not extern.is_weak:
            raise RequirementUnmet(
                f"find the value of {extern.name} (__kconfig)",
                cause="this kernel has none",
                remedy=f"declare {extern.name} __weak, and it is 0 where there is none",
            )
    return bytes(data)


def parse(text: str) -> dict[str, str]:
    """Return the lines of a kernel configuration file, by name; what is not set is left out."""
    pairs = (line.rstrip("\n").partition("=") for line in text.split("\n"))
    return {name: value for name, _, value in pairs if name.startswith("CONFIG_") and value}


def _place(extern: Extern, btf: Btf) -> _Place:
    form, is_signed = _form(btf, extern.type_id)
    if form is None:
        raise ObjectFormatError(
            f"extern {extern.name} is of a type that cannot hold a configuration value",
            file=btf.file,
            section=".kconfig",
            offset=extern.offset,
        )
    return _Place(form, extern.size, is_signed)


def _form(btf: Btf, type_id: int) -> tuple[Form | None, bool]:
    match btf[btf.strip(type_id)]:
        case types.Int(size=size, encoding=encoding):
            if encoding & IntEncoding.BOOL:
                return (Form.BOOL if size == 1 else None), False
            is_signed = bool(encoding & IntEncoding.SIGNED)
            if size == 1:
                return Form.CHAR, is_signed
            return (Form.INT if size in (2, 4, 8) else None), is_signed
        case types.Enum(name="libbpf_tristate", size=4) | types.Enum64(name="libbpf_tristate"):
            return Form.TRISTATE, False
        case types.Array(element_id=element, count=count) if count:
            is_text = _form(btf, element)[0] is Form.CHAR
            return (Form.STRING if is_text else None), False
        case _:
            return None, False


def _encode_text(name: str, place: _Place, text: str) -> bytes:
    if text[0] in _TRISTATE:
        return _encode_tristate(name, place, text[0])
    if text[0] == '"':
        if place.form is not Form.STRING or len(text) < 2 or not text.endswith('"'):
            raise _misfit(name, text, place)
        return text[1:-1].encode()[: place.size - 1] + b"\0"
    try:
        number = int(text, 0)
    except ValueError:
        raise _misfit(name, text, place) from None
    if place.form not in (Form.INT, Form.CHAR):
        raise _misfit(name, text, place)
    return _encode_number(name, place, number)


def _encode_tristate(name: str, place: _Place, letter: str) -> bytes:
    match place.form:
        case Form.BOOL if letter != "m":
            return bytes((letter == "y",))
        case Form.CHAR:
            return letter.encode()
        case Form.TRISTATE:
            return _TRISTATE[letter].to_bytes(place.size, _BYTEORDER)
        case _:
            raise _misfit(name, letter, place)


def _encode_number(name: str, place: _Place, number: int) -> bytes:
    if place.form not in (Form.INT, Form.CHAR, Form.BOOL):
        raise _misfit(name, str(number), place)
    if place.form is Form.BOOL and number not in (0, 1):
        raise _misfit(name, str(number), place)
    bits = 8 * place.size
    # A hexadecimal line has the bits of 64: 0xffffffffffffffff fits into any signed integer as -1.
    unsigned = number % (1 << 64)
    signed = unsigned - (1 << 64) if unsigned >> 63 else unsigned
    if bits == 64:
        fits = True
    elif place.is_signed:
        fits = -(1 << bits - 1) <= signed < 1 << bits - 1
    else:
        fits = unsigned < 1 << bits
    if not fits:
        raise _misfit(name, str(number), place)
    return (unsigned % (1 << bits)).to_bytes(place.size, _BYTEORDER)


def _misfit(name: str, text: str, place: _Place) -> RequirementUnmet:
    return RequirementUnmet(
        f"find the value of {name} (__kconfig)",
        cause=f"it is {text} in the kernel's configuration, and the program declares it as"
        f" {place.form.value} of {place.size} bytes",
    )
