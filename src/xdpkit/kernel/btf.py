# SPDX-License-Identifier: Apache-2.0
"""The running kernel's types: its own and its modules', and those that came with programs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import overload

from xdpkit.btf import Btf, Kind
from xdpkit.errors import RequirementUnmet
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd

VMLINUX = "/sys/kernel/btf/vmlinux"


@functools.cache
def vmlinux() -> Btf:
    """Return the kernel's own types, read once.

    Raises:
        RequirementUnmet: the kernel was built without them.
    """
    try:
        with open(VMLINUX, "rb") as file:
            return Btf.parse(file.read(), file=VMLINUX)
    except OSError as error:
        raise RequirementUnmet(
            "read the kernel's types (BTF)",
            cause=f"{VMLINUX}: {error.strerror}",
            remedy="use a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys",
        ) from None


def by_id(number: int) -> Btf | None:
    """Return the BTF object with this id, as it was loaded with a program or map; None if gone.

    Raises:
        MissingPrivilege: without CAP_SYS_ADMIN.
    """
    fd = bpf.fd_by_id(ObjectKind.BTF, number)
    if fd is None:
        return None
    with fd:
        return Btf.parse(bpf.btf_data(fd.fileno()), file=f"BTF {number}")


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module's types, and the descriptor by which instructions refer to them."""

    name: str
    btf: Btf
    fd: Fd


@dataclass(frozen=True, slots=True)
class Symbol:
    """Where a kernel symbol's type is: an id in the BTF of the kernel (module None) or a module."""

    btf: Btf
    type_id: int
    module: Module | None


class KernelTypes(Sequence[Btf], Closing):
    """The kernel's types, then those of its modules, which are read when the kernel's do not do.

    A context manager: it owns the modules' descriptors.
    """

    def __init__(self) -> None:
        self._owned = ExitStack()
        self._modules: tuple[Module, ...] | None = None

    @property
    def modules(self) -> tuple[Module, ...]:
        """The modules that have types.

        Raises:
            MissingPrivilege: without CAP_SYS_ADMIN.
        """
        if self._modules is None:
            from xdpkit.probes import is_absent

            # Linux 5.11, "bpf: Assign ID to vmlinux BTF and return extra info for BTF in
            # GET_OBJ_INFO": before it there are no modules' types, and no names.
            self._modules = () if is_absent("module-btf") else tuple(self._open_modules())
        return self._modules

    def _open_modules(self) -> Iterator[Module]:
        for number in bpf.ids(ObjectKind.BTF):
            fd = bpf.fd_by_id(ObjectKind.BTF, number)
            if fd is None:
                continue
            with ExitStack() as unused:
                unused.enter_context(fd)
                info = bpf.btf_info(fd.fileno())
                if not info.is_kernel or info.name == "vmlinux":
                    continue
                data = bpf.btf_data(fd.fileno())
                types = Btf.parse(data, base=vmlinux(), file=f"BTF of module {info.name}")
                self._owned.enter_context(unused.pop_all())
                yield Module(info.name, types, fd)

    def find(self, name: str, kind: Kind) -> Symbol | None:
        """Return the first type with this name and kind, the kernel's before the modules'."""
        found = vmlinux().find(name, kind)
        if found:
            return Symbol(vmlinux(), found[0], None)
        for module in self.modules:
            own = [i for i in module.btf.find(name, kind) if i >= module.btf.first_id]
            if own:
                return Symbol(module.btf, own[0], module)
        return None

    @overload
    def __getitem__(self, index: int) -> Btf: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Btf]: ...
    def __getitem__(self, index: int | slice) -> Btf | Sequence[Btf]:
        if index == 0:
            return vmlinux()
        return (vmlinux(), *(module.btf for module in self.modules))[index]

    def __iter__(self) -> Iterator[Btf]:
        yield vmlinux()
        for module in self.modules:
            yield module.btf

    def __len__(self) -> int:
        return 1 + len(self.modules)

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Close the modules' descriptors."""
        self._owned.close()
        self._modules = None
