# SPDX-License-Identifier: Apache-2.0
"""``--set VAR=VALUE``: text to the value of a global variable, by the variable's type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError

if TYPE_CHECKING:
    from xdpkit.obj import Object

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def assign(obj: Object, assignments: Iterable[str]) -> None:
    """Set variables of an object; nothing is set if one of the assignments is wrong.

    Args:
        obj: the object.
        assignments: texts like ``port=53``; a later one for the same variable wins.

    Raises:
        UsageError: there is no such variable, or the value is none for it.
    """
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(
                f"set {assignment!r}", cause="there is no '=' in it", remedy="--set NAME=VALUE"
            )
        values[name] = _parse(obj, name, text)
    before = {name: obj.variables[name] for name in values}
    try:
        for name, value in values.items():
            obj.variables[name] = value
    except UsageError:
        obj.variables.update(before)
        raise


def _parse(obj: Object, name: str, text: str) -> object:
    from xdpkit.btf import types as t
    from xdpkit.btf.types import IntEncoding

    variable = obj.variables.describe(name)
    if obj.btf is None or not variable.type_id:
        return _hexadecimal(name, text)
    match obj.btf[obj.btf.strip(variable.type_id)]:
        case t.Int(encoding=encoding) if encoding & IntEncoding.BOOL:
            return _BOOLS.get(text.lower()) if text.lower() in _BOOLS else _number(name, text)
        case t.Int() | t.Ptr():
            return _number(name, text)
        case t.Enum() | t.Enum64():
            return _number(name, text) if text[:1] in "+-0123456789" else text
        case t.Float():
            return _float(name, text)
        case t.Array(element_id=element) if _is_text(obj.btf[obj.btf.strip(element)]):
            return text
        case _:
            return _json(name, text)


def _is_text(element: object) -> bool:
    """Whether an array of this is text; ``char``, or ``unsigned char`` by the same encoding."""
    from xdpkit.btf import types as t
    from xdpkit.btf.types import IntEncoding

    return (
        isinstance(element, t.Int) and element.size == 1 and not element.encoding & IntEncoding.BOOL
    )


def _number(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise _wrong(name, text, "it is a number: 53, 0x35, -1") from None


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong(name, text, "it is a number: 0.5, 1e9") from None


def _json(name: str, text: str) -> object:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(name, text, 'it takes JSON: [1, 2] or {"member": 1}') from None


def _hexadecimal(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _wrong(name, text, "its type is not known, so it takes hexadecimal bytes") from None


def _wrong(name: str, text: str, cause: str) -> UsageError:
    return UsageError(f"set variable {name} to {text!r}", cause=cause)
