# SPDX-License-Identifier: Apache-2.0
"""Loading a program again from its image."""

from __future__ import annotations

import struct
from contextlib import ExitStack

from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.kernel.image import Image, MapReference, references, renumber
from xdpkit.kernel.maps import Map
from xdpkit.kernel.progload import load_program
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.bpf import NewProgram, ObjectKind
from xdpkit.syscalls.fd import Fd


def load_image(
    image: Image,
    *,
    original: Image | None = None,
    like: Program | None = None,
    counters: int = 0,
    held: tuple[MapReference, ...] = (),
    log_level: int = 0,
) -> Program:
    """Load a program as it was loaded before, with the same maps; the Program owns them.

    The kernel takes ``image.ifindex`` for an interface of the calling thread's network namespace.

    Args:
        image: what to load.
        original: of a program that was rewritten, what it was before; it becomes the Program's
            image.
        like: the program that it is a copy of, if this process knows it: the copy has its spec, and
            the very same objects for maps, which stay the other one's to close.
        held: maps that it does not use itself, to be among those that the Program holds beside its
            author's: something has to, for the sake of what it tail-calls.
        counters: id of the map, of those of the image, that becomes the Program's counters and is
            not among its maps; 0: it has none.
        log_level: for :attr:`Program.log`, as :func:`~xdpkit.kernel.load` has it.

    Raises:
        RequirementUnmet: a map, or type information, is gone.
        ObjectFormatError: the image contradicts itself.
        VerifierError: the verifier refused what it took before; only another kernel does.
        MissingPrivilege: CAP_SYS_ADMIN is needed to open things by their ids, beside what loading
            takes.
        KernelRefused: the kernel refused something else.
    """
    what = f"load program {image.name} again"
    used = references(image.code)
    if not used.maps <= {each.id for each in image.maps}:
        raise ObjectFormatError("the code loads maps that it does not list", file="program image")
    notes: list[str] = []
    with ExitStack() as owned, ExitStack() as temporary:
        maps = {}
        counts = None
        descriptors = {}
        for each in image.maps:
            fd = _open(ObjectKind.MAP, each.id, f"map {each.name} (id {each.id})", what)
            maps[each.name] = owned.enter_context(Map(fd, name=each.name))
            descriptors[each.id] = fd.fileno()
            if each.id == counters:
                counts = maps[each.name]
        objects = {0: 0}
        for number in {image.btf_id, image.attach_btf, *image.modules, *used.objects} - {0}:
            fd = _open(ObjectKind.BTF, number, f"type information (BTF id {number})", what)
            objects[number] = temporary.enter_context(fd).fileno()
        code = bytearray(image.code)
        renumber(code, descriptors, objects)
        modules = [0, *(objects[number] for number in image.modules)] if image.modules else []
        new = NewProgram(
            type=image.type,
            code=code,
            license=image.license,
            name=image.name,
            attach_type=image.attach_type,
            flags=image.flags,
            ifindex=image.ifindex,
            kern_version=image.kern_version,
            btf_fd=objects[image.btf_id],
            func_info=image.func_info,
            line_info=image.line_info,
            attach_btf_id=image.attach_btf_id,
            attach_btf_fd=objects[image.attach_btf],
            fd_array=struct.pack(f"={len(modules)}i", *modules),
        )
        loaded, log = load_program(new, what=what, log_level=log_level, notes=notes.append)
        for each in held:
            fd = _open(ObjectKind.MAP, each.id, f"map {each.name} (id {each.id})", what)
            maps[each.name] = owned.enter_context(Map(fd, name=each.name))
        its_own = {each.name for each in (original or image).maps}
        with ExitStack() as unless_bound:
            unless_bound.enter_context(loaded)
            for each in image.maps:
                if each.id not in used.maps:
                    bpf.prog_bind_map(loaded.fileno(), descriptors[each.id])
            unless_bound.pop_all()
        return Program(
            loaded,
            name=image.name,
            maps={
                **{name: found for name, found in maps.items() if name in its_own},
                **(like.maps if like is not None else {}),
            },
            owned=owned.pop_all(),
            spec=like.spec if like is not None else None,
            made=like.made if like is not None else {},
            leaves=like.leaves if like is not None else (),
            image=lambda info: original or image,
            counters=counts,
            held=tuple(
                found for name, found in maps.items() if name not in its_own and found is not counts
            ),
            context=(original or image).context,
            bound_to=(netns.cookie(), image.ifindex) if image.ifindex else None,
            notes=tuple(notes),
            log=log,
        )


def _open(kind: ObjectKind, number: int, words: str, what: str) -> Fd:
    fd = bpf.fd_by_id(kind, number)
    if fd is None:
        raise RequirementUnmet(what, cause=f"its {words} is gone")
    return fd
