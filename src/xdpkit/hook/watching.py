# SPDX-License-Identifier: Apache-2.0
"""Counting, or reporting, what others' programs return: by a program that the kernel runs after.

xdpkit has not their instructions, so no copy of them can count. Where the kernel allows it, a
program of type tracing watches the main function (:mod:`xdpkit.rewrite.watch`). Its link is pinned
in the folder of the hook, ``watch-<id of the watched program>``, and keeps it and its counters
while no process runs; nothing on the hook is changed for it. libxdp's dispatcher is one program. If
it has one component only, libxdp has that replace the dispatcher's main function, which cannot be
watched then: so the component is.

A reader of frames (:mod:`xdpkit.hook.taps`) has a program of its own so (:func:`listen`). No pin
keeps that one, and it goes with the reader.

Such a link keeps the watched program, too. So it goes when that is no longer on the hook: with the
next change to any hook of the namespace (:mod:`xdpkit.hook.repair`), or with ``clean``.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from xdpkit.errors import (
    KernelRefused,
    RequirementUnmet,
    UsageError,
    VerifierError,
    XdpkitError,
    errno_name,
)
from xdpkit.hook import pins as pinned
from xdpkit.hook import roots
from xdpkit.hook.copies import COUNTS_MAP
from xdpkit.hook.holding import open_program
from xdpkit.hook.mode import Mode
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.bpf import NewMap, NewProgram, ObjectKind
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN, AttachType, MapType, ProgType

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.hook.state import AttachedProgram, ProgramSummary
    from xdpkit.hook.work import Reader
    from xdpkit.interfaces import Interface
    from xdpkit.syscalls.fd import Fd

WATCH = "xdpkit_watch"
"""The name of a program that watches another one."""

LISTEN = "xdpkit_listen"
"""The name of one that reports to a reader what another one returns."""

_FUNC_INFO = struct.Struct("=II")
_CONTEXT = "xdp_md"


def start(watched: AttachedProgram, interface: Interface, home: str) -> None:
    """Count what a program returns that others attached, until the pin goes. Under the lock.

    Args:
        watched: the program. interface: the interface that it is on.
        home: the folder of the interface's hook, which is there.

    Raises:
        RequirementUnmet: it cannot be watched, and why.
        HookBusy: it has gone.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    what = _what(watched)
    with _linked(watched, lambda number: _load(watched, interface, number), what) as link:
        pinned.pin_watch(link, home, watched.program.id, what)


def listen(watched: AttachedProgram, interface: Interface, reader: Reader) -> Fd:
    """Have a program's frames reported that others attached; return the link, which keeps it so.

    Args:
        watched: the program. interface: the interface that it is on.
        reader: to whom.

    Raises:
        RequirementUnmet, HookBusy, MissingPrivilege, KernelRefused: as :func:`start`.
    """
    what = f"report what {watched.program.name} returns"
    return _linked(
        watched, lambda number: _load_listener(watched, interface, number, reader, what), what
    )


def _linked(watched: AttachedProgram, load: Callable[[int], Fd], what: str) -> Fd:
    """Have the kernel run a program after one that is on a hook, or after what runs instead.

    Args:
        watched: what is on the hook.
        load: loads the program to be run, after the one of an id.
        what: what is being tried, for errors.
    """
    try:
        return _attach(load, watched.program.id, what)
    except KernelRefused as error:
        # __bpf_trampoline_link_prog() in kernel/bpf/trampoline.c.
        if error.errno == errno.E2BIG:
            raise RequirementUnmet(
                what, cause="as many programs watch it as the kernel allows"
            ) from error
        if error.errno != errno.EBUSY:
            raise
        replacing = _replacing(watched)
        if replacing is None:
            raise RequirementUnmet(
                what, cause="another program replaces its main function (freplace)"
            ) from error
        return _attach(load, replacing, what)


def why_not(watched: AttachedProgram, interface: Interface) -> str | None:
    """Return why a program cannot be watched, as the rest of a sentence; None: it could be."""
    try:
        _load(watched, interface, watched.program.id).close()
    except XdpkitError as error:
        return reason(error)
    return None


def reason(error: XdpkitError) -> str:
    """Return why a program is not watched, as the rest of a sentence."""
    cause = error.cause
    if isinstance(error, KernelRefused) and error.errno != errno.EPERM:
        cause += f" ({errno_name(error.errno or 0)})"
    return f"nor can it be watched from outside: {cause}"


def counters(home: str) -> dict[int, int]:
    """Return the programs that are watched, and the maps that count for them, by their ids.

    Args:
        home: the folder of a hook.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
        KernelRefused: the kernel refused.
    """
    found = {}
    for number, path in pinned.watches(home).items():
        link = pinned.open_link(path)
        if link is None:
            continue
        with link:
            if bpf.kind_of(link.fileno()) is not ObjectKind.LINK:
                continue
            program = bpf.fd_by_id(ObjectKind.PROGRAM, bpf.link_info(link.fileno()).prog_id)
        if program is None:
            continue
        with program:
            _, map_ids = bpf.prog_info(program.fileno())
        if len(map_ids) == 1:
            (found[number],) = map_ids
    return found


def name_of(watched: ProgramSummary) -> str:
    """Return a program's name: that of its main function, where the kernel has cut it.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
        KernelRefused: the kernel refused.
    """
    name = watched.name or ""
    if len(name) < BPF_OBJ_NAME_LEN - 1:
        return name
    program = bpf.fd_by_id(ObjectKind.PROGRAM, watched.id)
    if program is None:
        return name
    with program:
        found = _typed_main_function(program)
    if found is None:
        return name
    types, function = found
    return types.name(function) or name


def _what(watched: AttachedProgram) -> str:
    return f"count what {watched.program.name} returns"


def _replacing(watched: AttachedProgram) -> int | None:
    """Return the program that runs instead of libxdp's dispatcher: its only component."""
    components = watched.dispatcher.programs if watched.dispatcher is not None else ()
    return components[0].id if len(components) == 1 else None


def _attach(load: Callable[[int], Fd], number: int, what: str) -> Fd:
    with load(number) as program:
        # Linux 5.19 also has BPF_LINK_CREATE for this.
        return bpf.raw_tracepoint_open(program.fileno(), None, what=what)


def _load(watched: AttachedProgram, interface: Interface, number: int) -> Fd:
    """Load a program that counts what another one returns.

    Args:
        watched: what is on the hook. interface: the interface.
        number: the program whose main function is watched: itself, or one that runs instead.

    Raises:
        RequirementUnmet: it cannot be watched, and why.
        HookBusy: it has gone.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    from xdpkit import rewrite
    from xdpkit.kernel import patch
    from xdpkit.kernel.btf import vmlinux

    what = _what(watched)
    _require_in_reach(watched, interface, what)
    entries = roots.size_for(interface)
    with ExitStack() as during:
        target = during.enter_context(open_program(number, interface, what))
        made = rewrite.watching(
            rewrite.Layout.find(vmlinux()),
            entries=entries,
            ifindex=interface.index,
            netns_inode=inode_of(interface, what),
            # Always: it could not be exchanged later without a gap, or counting twice.
            count_bytes=True,
        )
        size = rewrite.value_size(count_bytes=True)
        new_map = NewMap(MapType.PERCPU_ARRAY, 4, size, entries, name=COUNTS_MAP)
        counted = during.enter_context(bpf.map_create(new_map, what=f"create map {COUNTS_MAP}"))
        code = bytearray(made.body.code)
        patch.set_map(code, made.map_slots, counted.fileno())
        return _load_behind(target, code, WATCH, what)


def _load_listener(
    watched: AttachedProgram, interface: Interface, number: int, reader: Reader, what: str
) -> Fd:
    """Load a program that reports what another one returns; as :func:`_load`."""
    from xdpkit import rewrite
    from xdpkit.kernel import patch
    from xdpkit.kernel.btf import vmlinux

    _require_in_reach(watched, interface, what)
    made = rewrite.listening(
        rewrite.Layout.find(vmlinux()),
        rewrite.Reporting(
            program=watched.program.id,
            name=watched.program.name or "",
            netns=reader.netns,
            actions=reader.actions,
            snaplen=reader.wanted,
            sample=reader.sample,
        ),
        ifindex=interface.index,
    )
    code = bytearray(made.body.code)
    with ExitStack() as during:
        for slots, map_id in (
            (made.ring_slots, reader.ring),
            (made.credits_slots, reader.credits),
            (made.spending_slots, reader.spending),
        ):
            found = bpf.fd_by_id(ObjectKind.MAP, map_id)
            if found is None:
                raise UsageError(what, cause=f"its reader has closed map {map_id}")
            patch.set_map(code, slots, during.enter_context(found).fileno())
        target = during.enter_context(open_program(number, interface, what))
        return _load_behind(target, code, LISTEN, what)


def _require_in_reach(watched: AttachedProgram, interface: Interface, what: str) -> None:
    if watched.mode is Mode.OFFLOAD:
        raise RequirementUnmet(what, cause="it runs on the NIC itself")
    if interface.kind == "bond":
        raise RequirementUnmet(what, cause="a bond has its program run by the interfaces below it")


def _load_behind(target: Fd, code: bytearray, name: str, what: str) -> Fd:
    """Load a program that is to run after another one's main function."""
    from xdpkit import rewrite
    from xdpkit.kernel.progload import load_program
    from xdpkit.kernel.verifier import read_log

    new = NewProgram(
        type=ProgType.TRACING,
        code=code,
        license=rewrite.WATCH_LICENSE,
        name=name,
        attach_type=AttachType.TRACE_FEXIT,
        attach_btf_id=_main_function(target, what),
        attach_prog_fd=target.fileno(),
    )
    try:
        return load_program(new, what=what, log_level=0, notes=lambda text: None)[0]
    except VerifierError as error:
        said = read_log(error.log).message or "it does not say why"
        would = what.split()[0]
        raise RequirementUnmet(
            what, cause=f"the verifier refuses the program that would {would}: {said}"
        ) from error


def _main_function(target: Fd, what: str) -> int:
    """Return the id that a program's main function has in the program's types.

    Raises:
        RequirementUnmet: it has none, or another program cannot watch it.
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
    """
    info, _ = bpf.prog_info(target.fileno())
    if not info.jited_prog_len:
        # The kernel would say: "Can attach to only JITed progs".
        raise RequirementUnmet(what, cause="it runs interpreted (net.core.bpf_jit_enable)")
    found = _typed_main_function(target)
    if found is None:
        raise RequirementUnmet(what, cause="it has no type information (BTF) about its functions")
    types, function = found
    if not _takes_context_only(types, function):
        # The kernel would tell neither what it is called with nor where it returns.
        raise RequirementUnmet(
            what, cause=f"its main function does not take one argument, a struct {_CONTEXT} *"
        )
    return function


def _typed_main_function(program: Fd) -> tuple[Btf, int] | None:
    """Return a program's types, and which of them its main function is; None: it has none."""
    from xdpkit.kernel.btf import by_id

    info, _ = bpf.prog_info(program.fileno())
    records = bpf.prog_func_info(program.fileno()) if info.btf_id else b""
    types = by_id(info.btf_id) if records else None
    if types is None:
        return None
    _, function = _FUNC_INFO.unpack_from(records)
    return types, function


def _takes_context_only(types: Btf, function: int) -> bool:
    from xdpkit.btf.types import Func, FuncProto, Ptr, Struct

    declared = types[function]
    proto = types[declared.type_id] if isinstance(declared, Func) else None
    if not isinstance(proto, FuncProto) or len(proto.params) != 1:
        return False
    pointer = types[types.strip(proto.params[0].type_id)]
    pointed = types[types.strip(pointer.type_id)] if isinstance(pointer, Ptr) else None
    return isinstance(pointed, Struct) and pointed.name == _CONTEXT


def inode_of(interface: Interface, what: str) -> int:
    """Return the inode number of an interface's network namespace.

    Raises:
        UsageError: the namespace has gone, or its name means another one now.
        RequirementUnmet: there is no /proc.
    """
    with netns.entered(interface.netns):
        if netns.cookie() != interface.netns_cookie:
            raise UsageError(what, cause="its network namespace is another one now")
        with netns.own(what) as namespace:
            return os.fstat(namespace.fileno()).st_ino
