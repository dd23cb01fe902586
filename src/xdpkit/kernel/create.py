# SPDX-License-Identifier: Apache-2.0
"""Making the maps of an object, or taking those that are there already."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.kernel import host, mapvalues, pins
from xdpkit.kernel.maps import Map, MapInfo
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi.bpf import MapFlags, MapType

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.obj import MapSpec

# Types that take no BTF: libbpf and the kernel's map_check_btf callbacks agree on these.
_WITHOUT_BTF = mapvalues.MAP_IN_MAP | {
    MapType.PERF_EVENT_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.STACK_TRACE,
    MapType.DEVMAP,
    MapType.DEVMAP_HASH,
    MapType.CPUMAP,
    MapType.XSKMAP,
    MapType.SOCKMAP,
    MapType.SOCKHASH,
    MapType.QUEUE,
    MapType.STACK,
}

_DEVMAPS = (MapType.DEVMAP, MapType.DEVMAP_HASH)


def create(
    spec: MapSpec, *, types: Btf | None, btf_fd: int, ifindex: int, notes: Callable[[str], None]
) -> Map:
    """Create a map as an object file defines it.

    Args:
        spec: the definition.
        types: the object's BTF, by which Python sees keys and values.
        btf_fd: the same in the kernel, 0 without.
        ifindex: the device to offload to, or 0.
        notes: told what this kernel made us leave out.

    Raises:
        RequirementUnmet: it is a port table's map, which is not made for one program.
        KernelRefused: says what is wrong with the definition, as far as that is sure.
    """
    what = f"create map {spec.name}"
    if is_ports_map(spec):
        raise RequirementUnmet(
            what,
            cause="it is a port table's map, and the program was given no port table",
            remedy="attach the program to an interface that is a port (xdpkit ports), or pass maps"
            " of your own: maps=",
        )
    new = _new_map(spec, btf_fd, ifindex)
    if spec.inner is None:
        fd = _create(new, spec, what, notes)
    else:
        # The kernel copies what it needs to know of the template.
        template = _new_map(spec.inner, btf_fd, ifindex)
        with _create(template, spec.inner, f"{what}: the inner map", notes) as inner:
            fd = _create(replace(new, inner_fd=inner.fileno()), spec, what, notes)
    return Map(
        fd,
        name=spec.name,
        btf=types,
        key_type_id=spec.key_type_id,
        value_type_id=spec.value_type_id,
    )


def _new_map(spec: MapSpec, btf_fd: int, ifindex: int) -> NewMap:
    has_types = btf_fd and spec.type not in _WITHOUT_BTF
    return NewMap(
        type=spec.type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=max_entries(spec),
        flags=spec.flags,
        name=spec.kernel_name,
        numa_node=spec.numa_node,
        map_extra=spec.map_extra,
        ifindex=ifindex,
        btf_fd=btf_fd if has_types else 0,
        key_type_id=spec.key_type_id if has_types else 0,
        value_type_id=spec.value_type_id if has_types else 0,
    )


def is_ports_map(spec: MapSpec) -> bool:
    """Whether a map is a port table's, which has the size of the table."""
    if spec.max_entries:
        return False
    from xdpkit.requirements.context import is_port_map

    return is_port_map(spec.name)


def max_entries(spec: MapSpec) -> int:
    """Return the size of a map; a perf event array without one has an entry for each CPU."""
    if spec.type == MapType.PERF_EVENT_ARRAY and not spec.max_entries:
        return host.possible_cpus()
    return spec.max_entries


def _create(new: NewMap, spec: MapSpec, what: str, notes: Callable[[str], None]) -> Fd:
    try:
        return bpf.map_create(new, what=what)
    except KernelRefused as error:
        # Its traceback would keep this frame and all its callers', with what is open in them.
        first = error.with_traceback(None)
    if new.key_type_id or new.value_type_id:
        # Map types differ, also by release, in what BTF they take.
        new = replace(new, btf_fd=0, key_type_id=0, value_type_id=0)
        try:
            return bpf.map_create(new, what=what)
        except KernelRefused as error:
            first = error.with_traceback(None)
    plain = without_unsupported(new)
    if first.errno in (errno.EINVAL, errno.E2BIG) and plain != new:
        notes(f"map {spec.name}: this kernel takes no {_difference(new, plain)}")
        return bpf.map_create(plain, what=what)
    cause, remedy = _explain(spec, first.errno or 0)
    raise KernelRefused(what, errno=first.errno or 0, cause=cause or first.cause, remedy=remedy)


def without_unsupported(new: NewMap) -> NewMap:
    """Return the request without what this kernel certainly does not know."""
    from xdpkit.probes import is_absent

    # Linux 4.15, "bpf: Add map_name to bpf_map_info"; Linux 5.2, "bpf: allow . char as part of the
    # object name".
    if new.name and (is_absent("map-name") or ("." in new.name and is_absent("map-name-dot"))):
        new = replace(new, name="")
    # Linux 5.5, "bpf: Add mmap() support for BPF_MAP_TYPE_ARRAY".
    if new.flags & MapFlags.MMAPABLE and is_absent("map-mmapable"):
        new = replace(new, flags=new.flags & ~MapFlags.MMAPABLE)
    # Linux 5.2, "bpf: add program side {rd, wr}only support for maps".
    if new.flags & MapFlags.RDONLY_PROG and is_absent("map-rdonly-prog"):
        new = replace(new, flags=new.flags & ~MapFlags.RDONLY_PROG)
    return new


def _difference(new: NewMap, plain: NewMap) -> str:
    dropped = ["such name"] if new.name != plain.name else []
    dropped += [f"BPF_F_{flag.name}" for flag in MapFlags(new.flags & ~plain.flags)]
    return ", ".join(dropped)


def _explain(spec: MapSpec, number: int) -> tuple[str | None, str | None]:
    """Return cause and remedy where the definition contradicts a rule that all kernels have."""
    if number == errno.E2BIG:
        return "keys, values or the map as a whole are too large", None
    if number != errno.EINVAL:
        return None, None
    if spec.type in mapvalues.INDEXED and spec.key_size != 4:
        return f"the key is an index of 4 bytes, not {spec.key_size}", "__type(key, __u32)"
    if spec.type in mapvalues.MAP_IN_MAP and spec.inner is None:
        return "it does not say what maps it holds", "__array(values, struct { ... })"
    if not spec.max_entries:
        return "it has no max_entries", "__uint(max_entries, N)"
    if spec.type == MapType.LPM_TRIE and not spec.flags & MapFlags.NO_PREALLOC:
        return "an LPM trie is not preallocated", "__uint(map_flags, BPF_F_NO_PREALLOC)"
    if spec.type == MapType.RINGBUF and spec.max_entries & (spec.max_entries - 1):
        return f"the size of a ring buffer is a power of 2, not {spec.max_entries}", None
    return None, None


def check_reuse(spec: MapSpec, info: MapInfo, what: str, remedy: str) -> None:
    """Check that an existing map is what the definition says.

    Raises:
        UsageError: it is not; names the first difference.
    """
    flags = info.flags
    if spec.type in _DEVMAPS and not spec.flags & MapFlags.RDONLY_PROG:
        # dev_map_init_map() in kernel/bpf/devmap.c adds it.
        flags &= ~MapFlags.RDONLY_PROG
    entries = info.max_entries if is_ports_map(spec) else max_entries(spec)
    compared = {
        "type": (spec.type, info.type),
        "key size": (spec.key_size, info.key_size),
        "value size": (spec.value_size, info.value_size),
        "max_entries": (entries, info.max_entries),
        "flags": (spec.flags, flags),
        "map_extra": (spec.map_extra, info.map_extra),
    }
    for word, (wanted, there) in compared.items():
        if wanted != there:
            raise UsageError(
                what,
                cause=f"the existing map's {word} is {_shown(there)}, and the program's"
                f" {_shown(wanted)}",
                remedy=remedy,
            )


def _shown(value: int) -> str:
    if isinstance(value, MapFlags):
        return hex(value)
    return value.name if isinstance(value, MapType) else str(value)


def pin_path(spec: MapSpec, pin_root: str) -> str:
    """Return where a map that is shared by name is pinned; names on a bpffs have no dots."""
    return os.path.join(pin_root, spec.name.replace(".", "_"))


def open_pinned(spec: MapSpec, path: str, types: Btf | None) -> Map | None:
    """Open the map that is shared under a name, None if there is none yet.

    Raises:
        UsageError: it is not what the definition says.
    """
    what = f"share map {spec.name} at {path}"
    fd = bpf.obj_get(path, what=what) if os.path.lexists(path) else None
    if fd is None:
        return None
    found = Map(
        pins.checked(fd, bpf.ObjectKind.MAP, what),
        name=spec.name,
        btf=types,
        key_type_id=spec.key_type_id,
        value_type_id=spec.value_type_id,
    )
    try:
        check_reuse(spec, found.info(), what, f"remove {path}, or use another pin_root")
    except UsageError:
        found.close()
        raise
    return found


def make_pin_root(path: str) -> None:
    """Make the folder for shared maps, if its parent is on a bpffs.

    Raises:
        RequirementUnmet: it is not on a bpffs.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    if not is_bpffs(parent):
        raise RequirementUnmet(
            f"make folder {path}",
            cause=f"{parent} is not on a bpffs",
            remedy="mount one: mount -t bpf bpf /sys/fs/bpf",
        )
    os.makedirs(path, mode=0o700, exist_ok=True)
