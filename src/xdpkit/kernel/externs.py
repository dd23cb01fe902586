# SPDX-License-Identifier: Apache-2.0
"""Finding in the running kernel what programs ask of it by name."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from xdpkit.btf import Btf, Kind, types
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.kernel import host, patch
from xdpkit.kernel.btf import KernelTypes, Module, Symbol
from xdpkit.obj import Extern, ExternKind, Object, Relocation, RelocationKind

# bpf_insn's offset, the index of a module, is a signed 16-bit number.
_MAX_MODULES = (1 << 15) - 1


@dataclass(frozen=True, slots=True)
class _Address:
    """What an untyped or absent symbol is: a number."""

    number: int


class Externs:
    """The externs of one object that its programs refer to, resolved.

    What is weak and absent is 0: the address, and the function, which the verifier accepts in dead
    code only.
    """

    def __init__(self, obj: Object, relocations: Iterable[Relocation], kernel: KernelTypes) -> None:
        """Look the symbols up.

        Raises:
            RequirementUnmet: the kernel lacks one that is not weak, or has it with another type.
        """
        self._kernel = kernel
        self._modules: list[Module] = []
        self._found: dict[str, Symbol | _Address] = {}
        wanted = {
            relocation.name
            for relocation in relocations
            if relocation.kind in (RelocationKind.KFUNC, RelocationKind.KSYM)
        }
        untyped = []
        for name in wanted:
            extern = obj.externs.get(name)
            if extern is None or obj.btf is None:
                raise ObjectFormatError(f"{name} is no extern of the object", file=obj.path)
            if extern.type_id:
                self._found[name] = self._typed(extern, obj.btf)
            else:
                untyped.append(extern)
        if untyped:
            self._find_untyped(untyped)

    def patch(self, code: bytearray, relocation: Relocation) -> None:
        """Write a symbol into the instructions that refer to it."""
        found = self._found[relocation.name]
        if relocation.kind is RelocationKind.KFUNC:
            if isinstance(found, Symbol):
                index = self._module_index(found.module)
                patch.set_kfunc(code, relocation.slots, found.type_id, index)
            else:
                patch.set_kfunc(code, relocation.slots, 0, 0)
        elif isinstance(found, Symbol):
            btf_fd = found.module.fd.fileno() if found.module else 0
            patch.set_kernel_object(code, relocation.slots, found.type_id, btf_fd)
        else:
            patch.set_number(code, relocation.slots, found.number)

    @property
    def fd_array(self) -> bytes:
        """``fd_array`` of ``BPF_PROG_LOAD``: the modules that functions were found in."""
        if not self._modules:
            return b""
        # Index 0 means the kernel itself.
        numbers = [0, *(module.fd.fileno() for module in self._modules)]
        return struct.pack(f"={len(numbers)}i", *numbers)

    def _module_index(self, module: Module | None) -> int:
        if module is None:
            return 0
        if module not in self._modules:
            if len(self._modules) == _MAX_MODULES:
                raise RequirementUnmet(
                    "call kernel functions", cause=f"they are in more than {_MAX_MODULES} modules"
                )
            self._modules.append(module)
        return 1 + self._modules.index(module)

    def _typed(self, extern: Extern, local: Btf) -> Symbol | _Address:
        is_function = extern.kind is ExternKind.KFUNC
        kind = Kind.FUNC if is_function else Kind.VAR
        found = self._kernel.find(extern.kernel_name, kind)
        if found is None:
            if extern.is_weak:
                return _Address(0)
            raise _missing(extern)
        declared = found.btf[found.type_id]
        assert isinstance(declared, types.Func | types.Var)
        from xdpkit.obj.core.relation import Relation

        ours, theirs = extern.type_id, declared.type_id
        if not is_function:
            ours, theirs = local.strip(ours), found.btf.strip(theirs)
        if not Relation(local, found.btf).types_compatible(ours, theirs):
            from xdpkit.btf.format import format_type

            raise RequirementUnmet(
                f"find the kernel {_word(extern)} {extern.kernel_name}",
                cause=f"the program declares it as {format_type(local, extern.type_id)}, and in"
                f" this kernel it is {format_type(found.btf, declared.type_id)}",
            )
        return found

    def _find_untyped(self, externs: list[Extern]) -> None:
        # Every kernel has _stext: its address tells whether addresses are hidden.
        marker = "_stext"
        symbols = host.read_kallsyms({marker, *(extern.kernel_name for extern in externs)})
        hidden = symbols.get(marker) == {0}
        for extern in externs:
            addresses = symbols.get(extern.kernel_name, set())
            if not addresses and not extern.is_weak:
                raise _missing(extern)
            if addresses and hidden:
                raise RequirementUnmet(
                    f"find the kernel symbol {extern.kernel_name}",
                    cause="the kernel hides its addresses (kernel.kptr_restrict)",
                    remedy="sysctl kernel.kptr_restrict=1, and run as root",
                )
            if len(addresses) > 1:
                raise RequirementUnmet(
                    f"find the kernel symbol {extern.kernel_name}",
                    cause=f"this kernel has {len(addresses)} symbols of that name",
                )
            self._found[extern.name] = _Address(next(iter(addresses), 0))


def _word(extern: Extern) -> str:
    return "function" if extern.kind is ExternKind.KFUNC else "symbol"


def _missing(extern: Extern) -> RequirementUnmet:
    return RequirementUnmet(
        f"find the kernel {_word(extern)} {extern.kernel_name}",
        cause="this kernel and its loaded modules do not have it",
        remedy=f"if the program can do without, declare it __weak and test {extern.name} with"
        " bpf_ksym_exists()",
    )
