# SPDX-License-Identifier: Apache-2.0
"""Types as C source.

A declarator is built from the name outwards: a pointer goes before what is there, an array or a
parameter list behind it, and then a pointer before it needs parentheses.
"""

from __future__ import annotations

from typing import TypeAlias

from xdpkit.btf import types as t
from xdpkit.btf.reader import Btf
from xdpkit.btf.types import Kind
from xdpkit.btf.wire import MAX_DEPTH

_INDENT = "    "
# Hostile types can describe text without end: anonymous structs nest exponentially.
_MAX_TEXT = 1 << 22

_Braced: TypeAlias = t.Struct | t.Union | t.Enum | t.Enum64


def format_type(btf: Btf, type_id: int) -> str:
    """Return a type as C names it; a struct, union or enumeration with its members.

    For example ``struct hdr {…}``, ``__u32[4]``, ``int (*)(struct xdp_md *)``. Functions and
    variables, which are no types in C, become declarations, a section a list of them. Padding and
    alignment that attributes made, other than ``packed``, are not shown.

    Raises:
        ObjectFormatError: the type is malformed, contains itself, or its text is of hostile length.
    """
    printer = _Printer(btf)
    match btf[type_id]:
        case t.Struct() | t.Union() | t.Enum() | t.Enum64() as braced:
            return printer.body(braced, type_id, 0)
        case t.Func() | t.Var() as symbol:
            return printer.symbol(symbol)
        case t.Datasec(name, _, entries):
            symbols = (btf[entry.type_id] for entry in entries)
            lines = [printer.symbol(s) + ";" for s in symbols if isinstance(s, t.Func | t.Var)]
            return "\n".join((f"/* {_shown(name)} */", *lines))
        case t.DeclTag(text, _, _, is_attribute):
            return _attribute("btf_decl_tag", text, is_attribute)
    return printer.declare(type_id, "", 0)


def format_declaration(btf: Btf, type_id: int, name: str) -> str:
    """Return the declaration of a variable or member of a type, without the semicolon.

    For example ``__u32 ports[4]`` or ``int (*handler)(void *)``. Anonymous types are spelt out.

    Raises:
        ObjectFormatError: as :func:`format_type`.
    """
    return _Printer(btf).declare(type_id, name, 0)


def _shown(name: str) -> str:
    """Return a name as it may be sent to a terminal."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


def _attribute(kind: str, text: str, is_attribute: bool) -> str:
    if is_attribute:
        return f"__attribute__(({_shown(text)}))"
    quoted = _shown(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'__attribute__(({kind}("{quoted}")))'


class _Printer:
    """Writes declarations of bounded length; ``level`` is how many bodies a place is nested in."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._left = _MAX_TEXT

    def symbol(self, symbol: t.Func | t.Var) -> str:
        storage = ("static ", "", "extern ")[symbol.linkage]
        return storage + self.declare(symbol.type_id, symbol.name, 0)

    def declare(self, type_id: int, name: str, level: int) -> str:
        btf = self._btf
        if level > MAX_DEPTH:
            raise btf.error(f"type {type_id} is nested too deeply", type_id)
        declarator = _shown(name)
        qualifiers: list[str] = []
        tags: list[str] = []
        is_pointer = False
        for _ in range(MAX_DEPTH):
            match btf[type_id]:
                case t.Const(inner) | t.Volatile(inner) | t.Restrict(inner) as modifier:
                    qualifiers.append(modifier.kind.name.lower())
                    type_id = inner
                case t.TypeTag(text, inner, is_attribute):
                    tags.append(_attribute("btf_type_tag", text, is_attribute))
                    type_id = inner
                case t.Ptr(inner):
                    gap = " " if (qualifiers or tags) and declarator[:1] not in ("", "[") else ""
                    declarator = f"*{' '.join(tags + qualifiers)}{gap}{declarator}"
                    qualifiers, tags, is_pointer, type_id = [], [], True, inner
                case t.Array(element, _, count):
                    declarator = f"({declarator})" if is_pointer else declarator
                    declarator += f"[{count}]"
                    is_pointer, type_id = False, element
                case t.FuncProto(returned, params):
                    declarator = f"({declarator})" if is_pointer else declarator
                    declarator += f"({self._parameters(params, level)})"
                    qualifiers, tags, is_pointer, type_id = [], [], False, returned
                case base:
                    words = [*qualifiers, self._base(base, type_id, level), *tags]
                    gap = " " if declarator[:1] not in ("", "[") else ""
                    return self._charged(" ".join(words) + gap + declarator, type_id)
        raise btf.error(f"type {type_id} refers to itself, or is nested too deeply", type_id)

    def body(self, value: _Braced, type_id: int, level: int) -> str:
        inside = _INDENT * (level + 1)
        if isinstance(value, t.Enum | t.Enum64):
            head, packed = "enum", value.size < 4
            lines = [
                self._charged(f"{inside}{_shown(name)} = {number},\n", type_id)
                for name, number in value.values
            ]
        else:
            head, packed = value.kind.name.lower(), self._is_packed(value, type_id)
            lines = [f"{inside}{self._member(m, level + 1)};\n" for m in value.members]
        name = f"{head} {_shown(value.name)}" if value.name else head
        attribute = " __attribute__((packed))" if packed else ""
        if not lines:
            return f"{name} {{}}{attribute}"
        return f"{name} {{\n{''.join(lines)}{_INDENT * level}}}{attribute}"

    def _member(self, member: t.Member, level: int) -> str:
        text = self.declare(member.type_id, member.name, level)
        bits = member.bitfield_size
        if not bits:
            underlying = self._btf[self._btf.strip(member.type_id)]
            # Old compilers describe a bitfield by an integer type of fewer bits.
            if isinstance(underlying, t.Int) and underlying.bits < 8 * underlying.size:
                bits = underlying.bits
        return f"{text} : {bits}" if bits else text

    def _parameters(self, params: tuple[t.Param, ...], level: int) -> str:
        if not params:
            return "void"
        return ", ".join(
            self.declare(p.type_id, p.name, level + 1) if p.type_id else "..." for p in params
        )

    def _base(self, value: t.Type, type_id: int, level: int) -> str:
        match value:
            case t.Void():
                return "void"
            case t.Int(name) | t.Float(name) | t.Typedef(name):
                return _shown(name)
            case t.Fwd(name, is_union):
                return f"{'union' if is_union else 'struct'} {_shown(name)}"
            case t.Struct() | t.Union() | t.Enum() | t.Enum64():
                if not value.name:
                    return self.body(value, type_id, level)
                head = "enum" if value.kind == Kind.ENUM64 else value.kind.name.lower()
                return f"{head} {_shown(value.name)}"
            case other:
                raise self._btf.error(f"a {other.kind.name} cannot be part of a type", type_id)

    def _is_packed(self, value: t.Struct | t.Union, type_id: int) -> bool:
        alignof = self._btf.alignof
        return alignof(type_id) == 1 and any(alignof(m.type_id) > 1 for m in value.members)

    def _charged(self, text: str, type_id: int) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise self._btf.error(f"type {type_id} is too long to be printed", type_id)
        return text
