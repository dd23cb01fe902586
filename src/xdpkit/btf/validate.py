# SPDX-License-Identifier: Apache-2.0
"""Checking a whole object's types: each by itself, and how they fit each other."""

from __future__ import annotations

from xdpkit.btf import types as t
from xdpkit.btf.reader import Btf
from xdpkit.btf.types import Kind

_SYMBOLS = frozenset((Kind.FUNC, Kind.VAR, Kind.DATASEC, Kind.DECL_TAG))
_TAGGABLE = (t.Struct, t.Union, t.Typedef, t.Var, t.Func)


def validate(btf: Btf) -> None:
    """Check all types that are not the base's, in time linear in their size.

    Raises:
        ObjectFormatError: the first type that is malformed, contains itself, has a member that does
            not fit,
            or refers to a type of a kind that cannot be there.
    """
    _check_nesting(btf)
    for type_id in range(btf.first_id, len(btf)):
        complaint = _complaint(btf, btf[type_id])
        if complaint:
            name = btf.name(type_id)
            raise btf.error(f"{name or f'type {type_id}'} {complaint}", type_id)


def _complaint(btf: Btf, value: t.Type) -> str | None:
    for inner in _parts(value):
        if btf.kind(inner) in _SYMBOLS:
            return f"is made of a {btf.kind(inner).name}"
    match value:
        case t.Struct() | t.Union():
            return _complaint_about_members(btf, value)
        case t.Array(element, index):
            btf.sizeof(element)
            if btf.kind(btf.strip(index)) != Kind.INT:
                return "is an array whose index is not an integer"
        case t.Func(_, proto) if btf.kind(proto) != Kind.FUNC_PROTO:
            return "is a function without a prototype"
        case t.Var(_, type_id, linkage):
            if linkage != t.VarLinkage.EXTERN:
                btf.sizeof(type_id)
        case t.Datasec(_, _, entries):
            for entry in entries:
                if btf.kind(entry.type_id) not in (Kind.VAR, Kind.FUNC):
                    return f"is a section with a {btf.kind(entry.type_id).name}"
        case t.DeclTag(_, type_id, component):
            return _complaint_about_tag(btf[type_id], component)
    return None


def _complaint_about_members(btf: Btf, value: t.Struct | t.Union) -> str | None:
    for member in value.members:
        bits = 8 * btf.sizeof(member.type_id)
        if member.bitfield_size > bits:
            return f"has a bitfield {member.name} that is wider than its type"
        if member.bit_offset + (member.bitfield_size or bits) > 8 * value.size:
            # Old compilers describe a bitfield by an integer type of fewer bits.
            inner = btf[btf.strip(member.type_id)]
            if not isinstance(inner, t.Int) or member.bit_offset + inner.bits > 8 * value.size:
                return f"ends before its member {member.name}"
    return None


def _complaint_about_tag(target: t.Type, component: int) -> str | None:
    if not isinstance(target, _TAGGABLE):
        return f"is a tag on a {target.kind.name}"
    if component >= 0 and isinstance(target, t.Struct | t.Union):
        if component >= len(target.members):
            return f"is a tag on member {component} of {len(target.members)}"
    elif component >= 0 and not isinstance(target, t.Func):
        return f"is a tag on component {component} of a {target.kind.name}"
    return None


def _parts(value: t.Type) -> tuple[int, ...]:
    """Return the ids of the types that this one is made of, complete or not."""
    match value:
        case t.Ptr(type_id):
            return (type_id,)
        case t.FuncProto(returned, params):
            return (returned, *(p.type_id for p in params))
    return _contained(value)


def _contained(value: t.Type) -> tuple[int, ...]:
    """Return the ids of the types that must be complete for this one to have a size."""
    match value:
        case t.Struct() | t.Union():
            return tuple(member.type_id for member in value.members)
        case t.Array(element, index):
            return (element, index)
        case (
            t.Typedef(type_id=type_id)
            | t.Volatile(type_id)
            | t.Const(type_id)
            | t.Restrict(type_id)
            | t.TypeTag(type_id=type_id)
            | t.Var(type_id=type_id)
        ):
            return (type_id,)
    return ()


def _check_nesting(btf: Btf) -> None:
    """Refuse a type that contains itself."""
    done = set(range(btf.first_id))
    for root in range(btf.first_id, len(btf)):
        if root in done:
            continue
        path = {root}
        stack = [(root, iter(_contained(btf[root])))]
        while stack:
            current, rest = stack[-1]
            inner = next((i for i in rest if i not in done), None)
            if inner is None:
                done.add(current)
                path.discard(current)
                stack.pop()
            elif inner in path:
                raise btf.error(f"type {inner} contains itself", inner)
            else:
                path.add(inner)
                stack.append((inner, iter(_contained(btf[inner]))))
