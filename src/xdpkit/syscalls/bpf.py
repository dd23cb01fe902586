# SPDX-License-Identifier: Apache-2.0
"""bpf(2): one typed function per command, all through one funnel.

Every call goes through :data:`funnel`, which a test may replace to watch or to refuse. What the
kernel refuses is raised as :class:`~xdpkit.errors.KernelRefused`, and EPERM as
:class:`~xdpkit.errors.MissingPrivilege` when a capability is what lacks. "Not there" is a value
(None or False) where it is an ordinary answer.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xdpkit.errors import KernelRefused, RequirementUnmet, XdpkitError
from xdpkit.syscalls import privilege
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.libc import libc
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN, AttachType, Cmd, ProgType
from xdpkit.uapi.capability import Capability

ENOTSUPP = 524
"""A kernel-internal errno that bpf(2) lets out all the same: the map type cannot do it."""

_SYSCALL_NUMBER = {
    "x86_64": 321,
    "i686": 357,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "armv7l": 386,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
}

_LOAD_ATTEMPTS = 5

# A program seldom uses more; nor can it, but others can be bound to it (MAX_USED_MAPS).
_USUAL_MAPS = 64


@functools.cache
def _libc_syscall() -> tuple[Callable[..., int], int]:
    machine = platform.machine()
    if machine not in _SYSCALL_NUMBER:
        raise RequirementUnmet("call bpf(2)", cause=f"its number on {machine} is not known")
    syscall = libc().syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
    return syscall, _SYSCALL_NUMBER[machine]


def libc_bpf(cmd: int, argument: ctypes.Structure) -> int:
    """Make the system call; return its result, or the errno negated."""
    syscall, number = _libc_syscall()
    result = syscall(number, cmd, ctypes.byref(argument), ctypes.sizeof(argument))
    return result if result >= 0 else -ctypes.get_errno()


funnel: Callable[[int, Any], int] = libc_bpf
"""Where every bpf(2) call goes through: command and attributes in, result or negated errno out."""

_BPF = (Capability.BPF,)
_BPF_NET = (Capability.BPF, Capability.NET_ADMIN)
_BPF_PERFMON = (Capability.BPF, Capability.PERFMON)
_ADMIN = (Capability.SYS_ADMIN,)

# What a command asks for at most; kernel/bpf/syscall.c.
_NEEDS: dict[int, tuple[Capability, ...]] = {
    Cmd.MAP_CREATE: _BPF_NET,
    Cmd.PROG_LOAD: _BPF_NET,
    Cmd.PROG_TEST_RUN: _BPF_NET,
    Cmd.LINK_CREATE: _BPF_NET,
    Cmd.RAW_TRACEPOINT_OPEN: _BPF_PERFMON,
    Cmd.PROG_GET_NEXT_ID: _ADMIN,
    Cmd.MAP_GET_NEXT_ID: _ADMIN,
    Cmd.BTF_GET_NEXT_ID: _ADMIN,
    Cmd.LINK_GET_NEXT_ID: _ADMIN,
    Cmd.PROG_GET_FD_BY_ID: _ADMIN,
    Cmd.MAP_GET_FD_BY_ID: _ADMIN,
    Cmd.BTF_GET_FD_BY_ID: _ADMIN,
    Cmd.LINK_GET_FD_BY_ID: _ADMIN,
    Cmd.ENABLE_STATS: _ADMIN,
}

_TRACING = frozenset(
    {
        ProgType.KPROBE,
        ProgType.TRACEPOINT,
        ProgType.PERF_EVENT,
        ProgType.RAW_TRACEPOINT,
        ProgType.RAW_TRACEPOINT_WRITABLE,
        ProgType.TRACING,
        ProgType.LSM,
    }
)


def _needs_of_load(type: int) -> tuple[Capability, ...]:
    """Return what loading a program of a type asks for at most."""
    if type == ProgType.EXT:
        # It may replace a function of any program: is_net_admin_prog_type() and
        # is_perfmon_prog_type() in kernel/bpf/syscall.c.
        return (*_BPF_NET, Capability.PERFMON)
    return _BPF_PERFMON if type in _TRACING else _BPF_NET


def refusal(
    what: str, number: int, needs: tuple[Capability, ...] = _BPF, cause: str | None = None
) -> XdpkitError:
    """Return the error for a positive errno from bpf(2)."""
    if number == errno.EPERM:
        return privilege.explain_bpf_eperm(what, needs)
    if number == errno.ENOSYS:
        return RequirementUnmet(what, cause="this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)")
    return KernelRefused(what, errno=number, cause=cause or _CAUSES.get(number))


_CAUSES = {
    errno.ENOMEM: "the kernel is out of memory, or the memory control group is full",
    errno.EINTR: "a signal interrupted it",
    ENOTSUPP: "the kernel does not support it here",
}


def _make(cmd: int, argument: ctypes.Structure) -> int:
    """Make a kernel object: a call whose EPERM can be the memory limit of kernels before 5.11."""
    result = funnel(cmd, argument)
    if result != -errno.EPERM or privilege.lacks(_NEEDS.get(cmd, _BPF)):
        return result
    # Linux 5.11, "bpf: Eliminate rlimit-based memory accounting for bpf maps".
    before = privilege.lift_memlock()
    if before is None:
        return result
    result = funnel(cmd, argument)
    if result < 0:
        privilege.restore_memlock(before)
    return result


def _address(data: bytes | bytearray | None) -> int:
    """Return where the bytes are; the caller keeps them alive for the call."""
    if data is None:
        return 0
    if isinstance(data, bytearray):
        return ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else 0
    return ctypes.c_void_p.from_buffer(ctypes.c_char_p(data)).value or 0


def object_name(name: str) -> bytes:
    """Return a name as the kernel's 15 characters."""
    return name.encode("ascii", "replace")[: BPF_OBJ_NAME_LEN - 1]


# Maps


@dataclass(frozen=True, slots=True)
class NewMap:
    """What ``BPF_MAP_CREATE`` is asked for; zero or None: not given."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    name: str = ""
    inner_fd: int | None = None
    numa_node: int | None = None
    map_extra: int = 0
    ifindex: int = 0
    btf_fd: int = 0
    key_type_id: int = 0
    value_type_id: int = 0


def map_create(new: NewMap, *, what: str) -> Fd:
    """Create a map."""
    argument = attr.MapCreate(
        map_type=new.type,
        key_size=new.key_size,
        value_size=new.value_size,
        max_entries=new.max_entries,
        map_flags=new.flags,
        inner_map_fd=new.inner_fd or 0,
        numa_node=new.numa_node or 0,
        map_name=object_name(new.name),
        map_ifindex=new.ifindex,
        btf_fd=new.btf_fd,
        btf_key_type_id=new.key_type_id,
        btf_value_type_id=new.value_type_id,
        map_extra=new.map_extra,
    )
    result = _make(Cmd.MAP_CREATE, argument)
    if result < 0:
        raise refusal(what, -result, _BPF_NET)
    return Fd(result)


def _element(cmd: Cmd, fd: int, key: bytes | None, value: int = 0, flags: int = 0) -> int:
    return funnel(cmd, attr.MapElement(map_fd=fd, key=_address(key), value=value, flags=flags))


def map_lookup(fd: int, key: bytes | None, size: int, *, flags: int = 0) -> bytes | None:
    """Return the value, ``size`` bytes with all CPUs' values; None when there is none."""
    return _lookup(Cmd.MAP_LOOKUP_ELEM, fd, key, size, flags)


def map_lookup_and_delete(fd: int, key: bytes | None, size: int) -> bytes | None:
    """Remove an element (of a queue or stack: the next one) and return its value, or None."""
    return _lookup(Cmd.MAP_LOOKUP_AND_DELETE_ELEM, fd, key, size, 0)


def _lookup(cmd: Cmd, fd: int, key: bytes | None, size: int, flags: int) -> bytes | None:
    value = ctypes.create_string_buffer(size)
    result = _element(cmd, fd, key, ctypes.addressof(value), flags)
    if result == 0:
        return value.raw
    if result == -errno.ENOENT:
        return None
    raise refusal("read a map element", -result)


def map_contains(fd: int, value: bytes) -> bool:
    """Whether a value may be in a bloom filter."""
    result = _element(Cmd.MAP_LOOKUP_ELEM, fd, None, _address(value))
    if result in (0, -errno.ENOENT):
        return result == 0
    raise refusal("look into a bloom filter", -result)


def map_update(fd: int, key: bytes | None, value: bytes, *, flags: int = 0) -> None:
    """Set an element."""
    result = _element(Cmd.MAP_UPDATE_ELEM, fd, key, _address(value), flags)
    if result < 0:
        raise refusal("set a map element", -result, cause=_UPDATE_CAUSES.get(-result))


_UPDATE_CAUSES = {
    errno.E2BIG: "the map is full, or the index is beyond its end",
    errno.EEXIST: "the element is there already",
}


def map_delete(fd: int, key: bytes) -> bool:
    """Delete an element; return whether it was there."""
    result = _element(Cmd.MAP_DELETE_ELEM, fd, key)
    if result in (0, -errno.ENOENT):
        return result == 0
    raise refusal("delete a map element", -result)


def map_next_key(fd: int, key: bytes | None, size: int) -> bytes | None:
    """Return the key after ``key``, the first for None or an absent one; None at the end."""
    following = ctypes.create_string_buffer(size)
    result = _element(Cmd.MAP_GET_NEXT_KEY, fd, key, ctypes.addressof(following))
    if result == 0:
        return following.raw
    if result == -errno.ENOENT:
        return None
    raise refusal("walk through a map", -result)


def map_freeze(fd: int) -> None:
    """Make a map read-only for user space, for good."""
    result = funnel(Cmd.MAP_FREEZE, attr.MapElement(map_fd=fd))
    if result < 0:
        raise refusal("freeze a map", -result)


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a map: ``count`` keys and values end to end, and where to go on (None: the end)."""

    count: int
    keys: bytes
    values: bytes
    cursor: bytes | None


def map_lookup_batch(
    fd: int, cursor: bytes | None, count: int, *, key_size: int, value_size: int
) -> Batch:
    """Read up to ``count`` elements from where the previous batch ended (None: the start).

    Raises:
        KernelRefused: ENOSPC, a hash bucket has more elements than ``count``; EINVAL or ENOTSUPP,
            the kernel has no batches for this map.
    """
    keys = ctypes.create_string_buffer(count * key_size)
    values = ctypes.create_string_buffer(count * value_size)
    # The cursor is a key, or a bucket number of four bytes (kernel/bpf/hashtab.c).
    following = ctypes.create_string_buffer(max(key_size, 4))
    argument = attr.MapBatch(
        in_batch=_address(cursor),
        out_batch=ctypes.addressof(following),
        keys=ctypes.addressof(keys),
        values=ctypes.addressof(values),
        count=count,
        map_fd=fd,
    )
    result = funnel(Cmd.MAP_LOOKUP_BATCH, argument)
    if result not in (0, -errno.ENOENT):
        raise refusal("read a batch of map elements", -result)
    read = argument.count
    return Batch(
        read,
        keys.raw[: read * key_size],
        values.raw[: read * value_size],
        None if result else following.raw,
    )


def map_update_batch(
    fd: int, keys: bytes, values: bytes, count: int, *, flags: int = 0
) -> tuple[int, int]:
    """Set elements, given end to end; return how many were, and the errno that ended it or 0."""
    argument = attr.MapBatch(
        keys=_address(keys), values=_address(values), count=count, map_fd=fd, elem_flags=flags
    )
    return _batch(Cmd.MAP_UPDATE_BATCH, argument)


def map_delete_batch(fd: int, keys: bytes, count: int) -> tuple[int, int]:
    """Delete elements, keys end to end; return how many were, and the errno that ended it or 0."""
    argument = attr.MapBatch(keys=_address(keys), count=count, map_fd=fd)
    return _batch(Cmd.MAP_DELETE_BATCH, argument)


def _batch(cmd: Cmd, argument: attr.MapBatch) -> tuple[int, int]:
    wanted = int(argument.count)
    result = funnel(cmd, argument)
    if result >= 0:
        return wanted, 0
    # A command that is refused as a whole leaves the count as it was.
    done = int(argument.count)
    return (done if done < wanted else 0), -result


# Type information


def btf_load(data: bytes) -> Fd:
    """Give BTF to the kernel.

    Raises:
        KernelRefused: its cause is the last line of what the kernel says about the BTF.
    """
    argument = attr.BtfLoad(btf=_address(data), btf_size=len(data))
    result = _make(Cmd.BTF_LOAD, argument)
    if result >= 0:
        return Fd(result)
    log = LogBuffer(1 << 16)
    argument.btf_log_buf = log.address
    argument.btf_log_size = log.size
    argument.btf_log_level = 1
    again = _make(Cmd.BTF_LOAD, argument)
    if again >= 0:
        return Fd(again)
    lines = log.text().splitlines()
    raise refusal("load BTF into the kernel", -result, cause=lines[-1] if lines else None)


# Programs


class LogBuffer:
    """Memory for the verifier to write its log into."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.true_size = 0
        self._memory = ctypes.create_string_buffer(size)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._memory)

    @property
    def is_full(self) -> bool:
        """Whether the log may have been cut."""
        return self.true_size > self.size or len(self._memory.value) >= self.size - 1

    def text(self) -> str:
        return self._memory.value.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class NewProgram:
    """What ``BPF_PROG_LOAD`` is asked for; zero or empty: not given."""

    type: int
    code: bytes | bytearray
    license: str
    name: str = ""
    attach_type: int = 0
    flags: int = 0
    ifindex: int = 0
    kern_version: int = 0
    btf_fd: int = 0
    func_info: bytes = b""
    line_info: bytes = b""
    attach_btf_id: int = 0
    attach_btf_fd: int = 0
    attach_prog_fd: int = 0
    fd_array: bytes = b""


FUNC_INFO_SIZE = 8
LINE_INFO_SIZE = 16


def prog_load(
    new: NewProgram, *, what: str, log: LogBuffer | None = None, log_level: int = 0
) -> Fd:
    """Load a program; a log level asks for the verifier's log, on success too."""
    license_name = new.license.encode("ascii", "replace")
    argument = attr.ProgLoad(
        prog_type=new.type,
        insn_cnt=len(new.code) // 8,
        insns=_address(new.code),
        license=_address(license_name),
        kern_version=new.kern_version,
        prog_flags=new.flags,
        prog_name=object_name(new.name),
        prog_ifindex=new.ifindex,
        expected_attach_type=new.attach_type,
        attach_btf_id=new.attach_btf_id,
        # A union: in which BTF the id counts, or in which program's.
        attach_btf_obj_fd=new.attach_btf_fd or new.attach_prog_fd,
    )
    if new.btf_fd:
        argument.prog_btf_fd = new.btf_fd
        if new.func_info:
            argument.func_info_rec_size = FUNC_INFO_SIZE
            argument.func_info = _address(new.func_info)
            argument.func_info_cnt = len(new.func_info) // FUNC_INFO_SIZE
        if new.line_info:
            argument.line_info_rec_size = LINE_INFO_SIZE
            argument.line_info = _address(new.line_info)
            argument.line_info_cnt = len(new.line_info) // LINE_INFO_SIZE
    if new.fd_array:
        argument.fd_array = _address(new.fd_array)
    if log is not None:
        argument.log_level = log_level
        argument.log_buf = log.address
        argument.log_size = log.size
    result = -errno.EAGAIN
    for _ in range(_LOAD_ATTEMPTS):
        result = _make(Cmd.PROG_LOAD, argument)
        # The verifier gives up with EAGAIN when a signal is pending; Python has handled it by now.
        if result not in (-errno.EAGAIN, -errno.EINTR):
            break
    if log is not None:
        log.true_size = argument.log_true_size
    if result < 0:
        raise refusal(what, -result, _needs_of_load(new.type))
    return Fd(result)


def prog_bind_map(program: int, bound_map: int) -> None:
    """Make a map live as long as a program, and show it in the program's map ids."""
    result = funnel(Cmd.PROG_BIND_MAP, attr.ProgBindMap(prog_fd=program, map_fd=bound_map))
    if result < 0:
        raise refusal("bind a map to a program", -result)


@dataclass(frozen=True, slots=True)
class TestRun:
    """What ``BPF_PROG_TEST_RUN`` is asked for; None: not given."""

    __test__ = False

    data: bytes | None = None
    data_out_size: int = 0
    context: bytes | None = None
    context_out_size: int = 0
    repeat: int = 0
    flags: int = 0
    cpu: int = 0
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class TestRunOutcome:
    """What a test run gave. ``data_size`` can be more than the ``data`` there was room for."""

    __test__ = False

    retval: int
    duration: int
    data: bytes
    data_size: int
    context: bytes


def prog_test_run(fd: int, run: TestRun, *, what: str) -> TestRunOutcome:
    """Run a program over given data; the duration is in nanoseconds per run."""
    data = ctypes.create_string_buffer(run.data_out_size)
    context = ctypes.create_string_buffer(run.context_out_size)
    argument = attr.TestRun(
        prog_fd=fd,
        data_in=_address(run.data),
        data_size_in=len(run.data or b""),
        data_out=ctypes.addressof(data) if run.data_out_size else 0,
        data_size_out=run.data_out_size,
        ctx_in=_address(run.context),
        ctx_size_in=len(run.context or b""),
        ctx_out=ctypes.addressof(context) if run.context_out_size else 0,
        ctx_size_out=run.context_out_size,
        repeat=run.repeat,
        flags=run.flags,
        cpu=run.cpu,
        batch_size=run.batch_size,
    )
    result = funnel(Cmd.PROG_TEST_RUN, argument)
    room_lacks = result == -errno.ENOSPC and argument.data_size_out > run.data_out_size
    if result < 0 and not room_lacks:
        raise refusal(what, -result, _BPF_NET)
    return TestRunOutcome(
        retval=argument.retval,
        duration=argument.duration,
        data=data.raw[: argument.data_size_out],
        data_size=argument.data_size_out,
        context=context.raw[: argument.ctx_size_out],
    )


def enable_run_stats() -> Fd:
    """Have the kernel measure every program's runs for as long as the descriptor is open."""
    # enum bpf_stats_type: BPF_STATS_RUN_TIME is 0.
    result = funnel(Cmd.ENABLE_STATS, attr.EnableStats(type=0))
    if result < 0:
        raise refusal("measure the programs' run time", -result, _ADMIN)
    return Fd(result)


# Links


def link_create(
    program: int,
    target_ifindex: int,
    attach_type: AttachType | int,
    flags: int = 0,
    *,
    what: str = "attach a program",
) -> Fd:
    """Attach a program to an interface's hook; the link detaches it when its last owner goes."""
    argument = attr.LinkCreate(
        prog_fd=program, target_ifindex=target_ifindex, attach_type=attach_type, flags=flags
    )
    result = funnel(Cmd.LINK_CREATE, argument)
    if result < 0:
        raise refusal(what, -result, _BPF_NET)
    return Fd(result)


def link_update(
    link: int,
    program: int,
    *,
    flags: int = 0,
    expected: int | None = None,
    what: str = "replace a link's program",
) -> None:
    """Replace a link's program in one step; ``expected`` needs ``BPF_F_REPLACE`` in the flags."""
    argument = attr.LinkUpdate(
        link_fd=link, new_prog_fd=program, flags=flags, old_prog_fd=expected or 0
    )
    result = funnel(Cmd.LINK_UPDATE, argument)
    if result < 0:
        raise refusal(what, -result)


def link_detach(link: int, *, what: str = "detach a link") -> None:
    """Detach a link's program; the link stays, defunct."""
    result = funnel(Cmd.LINK_DETACH, attr.LinkDetach(link_fd=link))
    if result < 0:
        raise refusal(what, -result)


def raw_tracepoint_open(program: int, name: str | None, *, what: str) -> Fd:
    """Attach a program to a raw tracepoint; None: to the one that it was loaded for."""
    text = None if name is None else name.encode()
    argument = attr.RawTracepointOpen(name=_address(text), prog_fd=program)
    result = funnel(Cmd.RAW_TRACEPOINT_OPEN, argument)
    if result < 0:
        raise refusal(what, -result, _BPF_PERFMON)
    return Fd(result)


# Pins


def obj_pin(fd: int, path: str | os.PathLike[str], *, what: str) -> None:
    """Pin a map, program or link on a bpffs."""
    name = os.fsencode(path)
    result = funnel(Cmd.OBJ_PIN, attr.ObjPin(pathname=_address(name), bpf_fd=fd))
    if result < 0:
        raise refusal(what, -result)


def obj_get(path: str | os.PathLike[str], *, what: str) -> Fd | None:
    """Open what is pinned at a path; None when nothing is there."""
    name = os.fsencode(path)
    result = funnel(Cmd.OBJ_GET, attr.ObjPin(pathname=_address(name)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise refusal(what, -result)
    return Fd(result)


# Ids and information


class ObjectKind(enum.Enum):
    """What a BPF file descriptor is of."""

    MAP = "map"
    PROGRAM = "program"
    LINK = "link"
    BTF = "btf"


# How the kernel names its anonymous inodes: the end of a link in /proc/self/fd.
_INODES = {
    "bpf-map": ObjectKind.MAP,
    "bpf-prog": ObjectKind.PROGRAM,
    "bpf_link": ObjectKind.LINK,
    "bpf-link": ObjectKind.LINK,
    "btf": ObjectKind.BTF,
}

_NEXT_ID = {
    ObjectKind.MAP: Cmd.MAP_GET_NEXT_ID,
    ObjectKind.PROGRAM: Cmd.PROG_GET_NEXT_ID,
    ObjectKind.LINK: Cmd.LINK_GET_NEXT_ID,
    ObjectKind.BTF: Cmd.BTF_GET_NEXT_ID,
}

_BY_ID = {
    ObjectKind.MAP: Cmd.MAP_GET_FD_BY_ID,
    ObjectKind.PROGRAM: Cmd.PROG_GET_FD_BY_ID,
    ObjectKind.LINK: Cmd.LINK_GET_FD_BY_ID,
    ObjectKind.BTF: Cmd.BTF_GET_FD_BY_ID,
}


def kind_of(fd: int) -> ObjectKind | None:
    """Return what a file descriptor is of, None when it is no BPF object."""
    return _INODES.get(os.readlink(f"/proc/self/fd/{fd}").rpartition(":")[2].strip("[]"))


def ids(kind: ObjectKind) -> Iterator[int]:
    """Yield the ids of all objects of a kind."""
    last = 0
    while True:
        argument = attr.GetId(start_id=last)
        result = funnel(_NEXT_ID[kind], argument)
        if result == -errno.ENOENT:
            return
        if result < 0:
            raise refusal(f"list the {kind.value} ids", -result, _ADMIN)
        last = argument.next_id
        yield last


def fd_by_id(kind: ObjectKind, number: int) -> Fd | None:
    """Open an object by its id, None when there is none."""
    result = funnel(_BY_ID[kind], attr.GetId(start_id=number))
    # A link that is being made has an id that is not yet in force: bpf_link_by_id().
    if result in (-errno.ENOENT, -errno.EAGAIN):
        return None
    if result < 0:
        raise refusal(f"open {kind.value} {number}", -result, _ADMIN)
    return Fd(result)


def get_info(fd: int, info: ctypes.Structure) -> None:
    """Fill in ``struct bpf_*_info``; pointers and sizes in it say where arrays may be written."""
    argument = attr.GetInfo(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    result = funnel(Cmd.OBJ_GET_INFO_BY_FD, argument)
    if result < 0:
        raise refusal("ask the kernel about a BPF object", -result)


def prog_info(fd: int) -> tuple[attr.ProgInfo, tuple[int, ...]]:
    """Return ``struct bpf_prog_info`` and the ids of the program's maps."""
    room = _USUAL_MAPS
    while True:
        map_ids = (ctypes.c_uint32 * room)()
        info = attr.ProgInfo(nr_map_ids=room, map_ids=ctypes.addressof(map_ids))
        get_info(fd, info)
        if info.nr_map_ids <= room:
            return info, tuple(map_ids[: info.nr_map_ids])
        # The kernel says how many there are, and has written as many as there was room for.
        room = info.nr_map_ids


def prog_xlated(fd: int) -> bytes:
    """Return the instructions as the verifier rewrote them; empty when the kernel hides them."""
    info = attr.ProgInfo()
    get_info(fd, info)
    code = ctypes.create_string_buffer(info.xlated_prog_len)
    info = attr.ProgInfo(xlated_prog_len=len(code), xlated_prog_insns=ctypes.addressof(code))
    get_info(fd, info)
    return code.raw if info.xlated_prog_insns else b""


def prog_func_info(fd: int) -> bytes:
    """Return the function records of a program, main's first; empty without type information."""
    info = attr.ProgInfo()
    get_info(fd, info)
    records = ctypes.create_string_buffer(info.nr_func_info * FUNC_INFO_SIZE)
    if records:
        info = attr.ProgInfo(
            nr_func_info=info.nr_func_info,
            func_info_rec_size=FUNC_INFO_SIZE,
            func_info=ctypes.addressof(records),
        )
        get_info(fd, info)
    return records.raw


def map_info(fd: int) -> attr.MapInfo:
    """Return ``struct bpf_map_info``."""
    info = attr.MapInfo()
    get_info(fd, info)
    return info


@dataclass(frozen=True, slots=True)
class KernelBtf:
    """A BTF object in the kernel: its id, whether it is the kernel's or a module's, its name."""

    id: int
    is_kernel: bool
    name: str


def btf_info(fd: int) -> KernelBtf:
    """Describe a BTF object; its types come from :func:`btf_data`."""
    name = ctypes.create_string_buffer(64)
    info = attr.BtfInfo(name=ctypes.addressof(name), name_len=len(name))
    get_info(fd, info)
    return KernelBtf(info.id, bool(info.kernel_btf), name.value.decode("utf-8", "replace"))


def btf_data(fd: int) -> bytes:
    """Return the bytes of a BTF object in the kernel."""
    info = attr.BtfInfo()
    get_info(fd, info)
    data = ctypes.create_string_buffer(info.btf_size)
    info = attr.BtfInfo(btf=ctypes.addressof(data), btf_size=len(data))
    get_info(fd, info)
    return data.raw


def link_info(fd: int) -> attr.LinkInfo:
    """Return the part of ``struct bpf_link_info`` that all types have."""
    info = attr.LinkInfo()
    get_info(fd, info)
    return info


def xdp_link_ifindex(fd: int) -> int:
    """Return the interface of an XDP link; 0 when it is detached or the interface is gone."""
    info = attr.XdpLinkInfo()
    get_info(fd, info)
    return int(info.ifindex)


def raw_tracepoint_name(fd: int) -> str:
    """Return the tracepoint that a raw tracepoint link is attached to."""
    name = ctypes.create_string_buffer(128)
    info = attr.RawTracepointLinkInfo(tp_name=ctypes.addressof(name), tp_name_len=len(name))
    get_info(fd, info)
    return name.value.decode("utf-8", "replace")
