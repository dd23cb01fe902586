# SPDX-License-Identifier: Apache-2.0
"""An object's types as the kernel takes them.

Compilers leave to the loader what only the symbols know: sizes of sections, offsets of variables.
And the kernel knows no externs: each becomes an ordinary variable or function. Nor does it know
``struct xdpkit_md``: it is told that this is its own context, so that a global function may take
one.
"""

from __future__ import annotations

from dataclasses import replace

from xdpkit.btf import Btf, types
from xdpkit.btf.editor import BtfEditor
from xdpkit.btf.types import FuncLinkage, IntEncoding, Kind, VarLinkage
from xdpkit.obj.spec import KCONFIG, Object
from xdpkit.obj.variables import section_variables

_KSYMS = ".ksyms"
_CONTEXT, _KERNELS_CONTEXT = "xdpkit_md", "xdp_md"


def kernel_btf(obj: Object) -> bytes | None:
    """Return the object's BTF completed for ``BPF_BTF_LOAD``, None if it has none. Ids stay.

    Raises:
        ObjectFormatError: BTF and symbols contradict each other.
    """
    btf = obj.btf
    if btf is None:
        return None
    editor = btf.edit()
    for type_id in btf.ids(Kind.DATASEC):
        name = btf.name(type_id)
        if name == _KSYMS:
            _complete_ksyms(btf, type_id, editor)
        elif name == KCONFIG:
            _complete_kconfig(obj, btf, type_id, editor)
        else:
            _complete_section(obj, btf, type_id, editor)
    # A global function that is hidden is verified with its callers, as a static one is.
    for function in obj.code.functions.values():
        if function.is_hidden and not function.is_local:
            for type_id in btf.find(function.name, Kind.FUNC):
                editor.set_linkage(type_id, FuncLinkage.STATIC)
    for type_id in btf.find(_CONTEXT, Kind.STRUCT):
        context = btf[type_id]
        assert isinstance(context, types.Struct)
        editor.replace(type_id, replace(context, name=_KERNELS_CONTEXT))
    return editor.build()


def _complete_section(obj: Object, btf: Btf, type_id: int, editor: BtfEditor) -> None:
    image = obj.code.image
    datasec = btf[type_id]
    assert isinstance(datasec, types.Datasec)
    section = image.by_name.get(datasec.name)
    if section is None:
        return
    entries = []
    for entry, variable, offset in section_variables(btf, type_id, image):
        entries.append(types.SectionVar(entry.type_id, offset, entry.size))
        symbol = image.globals.get(variable.name)
        if symbol is not None and symbol.is_hidden and symbol.section == section.index:
            editor.set_linkage(entry.type_id, VarLinkage.STATIC)
    editor.set_section(type_id, datasec.size or section.size, entries)


def _complete_ksyms(btf: Btf, type_id: int, editor: BtfEditor) -> None:
    datasec = btf[type_id]
    assert isinstance(datasec, types.Datasec)
    int_id = editor.add(types.Int("int", 4, 32, encoding=IntEncoding.SIGNED))
    # The kernel wants variables with a size in a section: functions are stood in for.
    stand_in = editor.add(types.Var("ksym_function", int_id))
    entries: list[types.SectionVar] = []
    for entry in datasec.vars:
        target = entry.type_id
        declared = btf[target]
        if isinstance(declared, types.Func):
            _complete_function(btf, target, declared, editor)
            target = stand_in
        elif isinstance(declared, types.Var):
            editor.replace(target, replace(declared, type_id=int_id, linkage=VarLinkage.GLOBAL))
        else:
            raise btf.error(f"type {target} in {_KSYMS} is not an extern", type_id)
        entries.append(types.SectionVar(target, 4 * len(entries), 4))
    editor.set_section(type_id, 4 * len(entries), entries)


def _complete_function(btf: Btf, type_id: int, function: types.Func, editor: BtfEditor) -> None:
    editor.set_linkage(type_id, FuncLinkage.GLOBAL)
    prototype = btf[function.type_id]
    if not isinstance(prototype, types.FuncProto):
        raise btf.error(f"function {function.name} has no prototype", type_id)
    # btf_func_check() in kernel/bpf/btf.c: the parameters of a function have names.
    named = tuple(
        param if param.name or not param.type_id else replace(param, name="arg")
        for param in prototype.params
    )
    editor.replace(function.type_id, replace(prototype, params=named))


def _complete_kconfig(obj: Object, btf: Btf, type_id: int, editor: BtfEditor) -> None:
    datasec = btf[type_id]
    assert isinstance(datasec, types.Datasec)
    entries = []
    for entry in datasec.vars:
        extern = obj.externs.get(btf.name(entry.type_id))
        if extern is None:
            raise btf.error(f"there is no symbol for extern {btf.name(entry.type_id)}", type_id)
        editor.set_linkage(entry.type_id, VarLinkage.GLOBAL)
        entries.append(replace(entry, offset=extern.offset))
    editor.set_section(type_id, obj.maps[KCONFIG].value_size, entries)
