# SPDX-License-Identifier: Apache-2.0
"""Externs: what a program expects of the kernel by name (``__ksym``, ``__kconfig``)."""

from __future__ import annotations

from dataclasses import replace

from xdpkit.btf import Btf, essential_name, types
from xdpkit.btf.types import Kind
from xdpkit.obj import elf
from xdpkit.obj.elf import Image, Symbol
from xdpkit.obj.spec import KCONFIG, Extern, ExternKind


def read_externs(image: Image, btf: Btf | None) -> dict[str, Extern]:
    """Return the externs of a file by name; those in ``.kconfig`` have their place in its map.

    Undefined symbols that no ``.ksyms`` or ``.kconfig`` section of the BTF mentions are left out:
    compilers leave some that nothing refers to.

    Raises:
        ObjectFormatError: an extern's type has no size, or is not one that it may have.
    """
    undefined = {symbol.name: symbol for symbol in image.undefined()}
    if btf is None or not undefined:
        return {}
    found = {}
    for section, kind in ((".ksyms", ExternKind.KSYM), (".kconfig", ExternKind.KCONFIG)):
        for datasec_id in btf.find(section, Kind.DATASEC):
            datasec = btf[datasec_id]
            assert isinstance(datasec, types.Datasec)
            for entry in datasec.vars:
                symbol = undefined.get(btf.name(entry.type_id))
                if symbol is not None:
                    found[symbol.name] = _extern(btf, entry.type_id, kind, symbol)
    return _place_kconfig(btf, found)


def kconfig_size(externs: dict[str, Extern]) -> int:
    """Return the size of the ``.kconfig`` map's value in bytes, 0 if there is none."""
    return max(
        (e.offset + e.size for e in externs.values() if e.kind is ExternKind.KCONFIG), default=0
    )


def _extern(btf: Btf, type_id: int, kind: ExternKind, symbol: Symbol) -> Extern:
    declared = btf[type_id]
    if not isinstance(declared, types.Var | types.Func):
        raise btf.error(f"extern {symbol.name} is neither a variable nor a function", type_id)
    if isinstance(declared, types.Func):
        if kind is ExternKind.KCONFIG:
            raise btf.error(f"extern function {symbol.name} cannot be a __kconfig", type_id)
        kind = ExternKind.KFUNC
    # An untyped ``extern const void x __ksym`` has only an address.
    is_void = btf.kind(btf.strip(declared.type_id)) is Kind.VOID
    return Extern(
        name=symbol.name,
        kernel_name=symbol.name if kind is ExternKind.KCONFIG else essential_name(symbol.name),
        kind=kind,
        is_weak=symbol.bind == elf.STB_WEAK,
        type_id=0 if is_void else declared.type_id,
        size=btf.sizeof(declared.type_id) if kind is ExternKind.KCONFIG else 0,
    )


def _place_kconfig(btf: Btf, externs: dict[str, Extern]) -> dict[str, Extern]:
    """Give the ``.kconfig`` externs their offsets, in the order that libbpf packs them."""

    def order(extern: Extern) -> tuple[int, int, str]:
        return -btf.alignof(extern.type_id), extern.size, extern.name

    placed = dict(externs)
    end = 0
    for extern in sorted((e for e in externs.values() if e.kind is ExternKind.KCONFIG), key=order):
        alignment = btf.alignof(extern.type_id)
        offset = -(-end // alignment) * alignment
        placed[extern.name] = replace(extern, offset=offset)
        end = offset + extern.size
        if end > elf.MAX_NOBITS:
            raise btf.error(f"extern {extern.name} makes the {KCONFIG} map {end} bytes large")
    return placed
