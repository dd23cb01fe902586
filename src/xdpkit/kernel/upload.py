# SPDX-License-Identifier: Apache-2.0
"""What the kernel is given beside code: the object's types, and its own configuration."""

from __future__ import annotations

from collections.abc import Callable

from xdpkit.btf import Btf, Kind
from xdpkit.errors import KernelRefused
from xdpkit.kernel import host, kconfig
from xdpkit.obj import ExternKind, MapSpec, Object
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd

# Which probe says whether the kernel knows a kind; the releases are in xdpkit.probes.
_PROBES = {
    Kind.FUNC: "btf-func",
    Kind.FUNC_PROTO: "btf-func",
    Kind.VAR: "btf-datasec",
    Kind.DATASEC: "btf-datasec",
    Kind.FLOAT: "btf-float",
    Kind.DECL_TAG: "btf-decl-tag",
    Kind.TYPE_TAG: "btf-type-tag",
    Kind.ENUM64: "btf-enum64",
}


def upload_types(data: bytes, notes: Callable[[str], None]) -> Fd | None:
    """Give the kernel an object's types (:func:`xdpkit.obj.kernel_btf`); None if it takes none.

    A kernel that does not know all kinds of types is given others in their place.
    """
    try:
        return bpf.btf_load(data)
    except KernelRefused as error:
        first = error.with_traceback(None)
    from xdpkit.btf.sanitize import sanitize
    from xdpkit.probes import is_absent

    # Linux 4.18, "bpf: btf: Introduce BPF Type Format (BTF)".
    if is_absent("btf"):
        notes("this kernel takes no type information")
        return None
    supported = {kind for kind in Kind if kind not in _PROBES or not is_absent(_PROBES[kind])}
    simpler = sanitize(
        Btf.parse(data),
        supported,
        global_functions=not is_absent("btf-func-global"),
        # Only those who look see the difference, so it is not probed for.
        question_marks=False,
    )
    try:
        fd = bpf.btf_load(simpler)
    except KernelRefused:
        notes(f"the kernel refused the type information: {first.cause}")
        return None
    missing = sorted({kind.name for kind in Kind if kind not in supported})
    notes(f"the kernel does not know all kinds of types: {', '.join(missing) or first.cause}")
    return fd


def kconfig_contents(obj: Object, spec: MapSpec) -> bytes:
    """Return the contents of the ``.kconfig`` map for the running kernel.

    Raises:
        RequirementUnmet: a value that is not weak is not to be had.
    """
    assert obj.btf is not None, "externs come from BTF"
    externs = [e for e in obj.externs.values() if e.kind is ExternKind.KCONFIG]
    needed = kconfig.needs_configuration(externs)
    return kconfig.contents(
        externs,
        obj.btf,
        spec.value_size,
        configuration=host.read_configuration() if needed else {},
        known={
            "LINUX_KERNEL_VERSION": host.kernel_version,
            "LINUX_HAS_BPF_COOKIE": _has_cookie,
            "LINUX_HAS_SYSCALL_WRAPPER": host.has_syscall_wrapper,
        },
    )


def _has_cookie() -> int:
    from xdpkit.probes import Answer, probe

    return probe("attach-cookie").answer is Answer.YES
