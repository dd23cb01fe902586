# SPDX-License-Identifier: Apache-2.0
"""Describing types to a kernel that does not know all kinds.

Each type is replaced by one of a kind that every kernel since 4.18 knows, with a record of the same
length: ids, which instructions and other types refer to, stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container

from xdpkit.btf import types as t
from xdpkit.btf.editor import BtfEditor
from xdpkit.btf.reader import Btf
from xdpkit.btf.types import Kind

# Kinds that came together: Linux 5.0, 5.2, 5.13, 5.16, 5.17, 6.0.
_GENERATIONS = (
    (Kind.FUNC, Kind.FUNC_PROTO),
    (Kind.VAR, Kind.DATASEC),
    (Kind.FLOAT,),
    (Kind.DECL_TAG,),
    (Kind.TYPE_TAG,),
    (Kind.ENUM64,),
)
_NAME_OF_STRUCT = str.maketrans(".?", "__")


def sanitize(
    btf: Btf,
    supported: Container[Kind],
    *,
    global_functions: bool = True,
    question_marks: bool = True,
) -> bytes:
    """Return the BTF with the kinds replaced that the kernel does not know.

    FUNC → TYPEDEF, FUNC_PROTO → ENUM, VAR and DECL_TAG → INT of one byte, DATASEC → STRUCT, FLOAT →
    empty STRUCT, TYPE_TAG → CONST, ENUM64 → UNION; without ENUM64, enumerations lose their sign.

    Args:
        btf: an object's types.
        supported: the kinds that the kernel knows.
        global_functions: whether it knows functions whose linkage is not static (Linux 5.6).
        question_marks: whether a section's name may begin with "?" (Linux 6.12).

    Raises:
        ObjectFormatError: a type that has to be replaced is malformed.
    """
    missing = {
        kind
        for generation in _GENERATIONS
        if any(kind not in supported for kind in generation)
        for kind in generation
    }
    if not missing.isdisjoint((Kind.FUNC, Kind.VAR)):
        # The kernel takes no tag on what functions and variables are replaced by.
        missing.add(Kind.DECL_TAG)
    editor = btf.edit()
    placeholder = 0
    if Kind.ENUM64 in missing and any(btf.ids(Kind.ENUM64)):
        placeholder = editor.add(t.Int("enum64_placeholder", 1, 8))
    for type_id in btf.ids(*missing) if missing else ():
        editor.replace(type_id, _replacement(btf, type_id, placeholder))
    if Kind.ENUM64 in missing:
        for type_id in btf.ids(Kind.ENUM):
            _drop_sign(btf, type_id, editor)
    if not global_functions and Kind.FUNC not in missing:
        for type_id in btf.ids(Kind.FUNC):
            editor.set_linkage(type_id, t.FuncLinkage.STATIC)
    if not question_marks and Kind.DATASEC not in missing:
        for type_id in btf.ids(Kind.DATASEC):
            _drop_question_mark(btf, type_id, editor)
    return editor.build()


def _replacement(btf: Btf, type_id: int, placeholder: int) -> t.Type:
    match btf[type_id]:
        case t.Func(name, proto):
            return t.Typedef(name, proto)
        case t.FuncProto(_, params):
            # The kernel takes no enumerator without a name.
            named = [(p.name or f"arg{i}", p.type_id) for i, p in enumerate(params)]
            return t.Enum("", 4, values=tuple(named))
        case t.Var(name) | t.DeclTag(name):
            # The kernel compares an INT's size with the room that the section gives the variable:
            # one byte always fits.
            return t.Int(name, 1, 8)
        case t.Datasec(name, size, entries):
            members = []
            for entry in entries:
                if entry.offset >> 29:
                    raise btf.error(f"a section has a variable at {entry.offset}", type_id)
                members.append(t.Member(btf.name(entry.type_id), entry.type_id, 8 * entry.offset))
            return t.Struct(name.translate(_NAME_OF_STRUCT), size, tuple(members))
        case t.Float(_, size):
            # No compiler takes "float" as the name of a struct, nor does the kernel's check.
            return t.Struct("", size)
        case t.TypeTag(_, to):
            return t.Const(to)
        case t.Enum64(name, size, _, values):
            return t.Union(name, size, tuple(t.Member(each, placeholder) for each, _ in values))
        case other:
            raise AssertionError(f"{other.kind.name} has no replacement")


def _drop_sign(btf: Btf, type_id: int, editor: BtfEditor) -> None:
    enum = btf[type_id]
    if isinstance(enum, t.Enum) and enum.signed:
        values = tuple((name, value & 0xFFFFFFFF) for name, value in enum.values)
        editor.replace(type_id, t.Enum(enum.name, enum.size, values=values))


def _drop_question_mark(btf: Btf, type_id: int, editor: BtfEditor) -> None:
    section = btf[type_id]
    if isinstance(section, t.Datasec) and section.name.startswith("?"):
        editor.replace(type_id, dataclasses.replace(section, name="_" + section.name[1:]))
