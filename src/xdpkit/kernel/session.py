# SPDX-License-Identifier: Apache-2.0
"""One load: what has been made so far, and the steps that make the rest."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Literal, Self

from xdpkit.btf import Btf, Kind
from xdpkit.errors import KernelRefused, ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.kernel import create, patch
from xdpkit.kernel.btf import KernelTypes
from xdpkit.kernel.collection import Collection
from xdpkit.kernel.context import PORT_NUMBERS, Context, Given, check_context
from xdpkit.kernel.externs import Externs
from xdpkit.kernel.image import Image, MapReference, describe, descriptors, references
from xdpkit.kernel.maps import Map
from xdpkit.kernel.plan import Plan, is_bound
from xdpkit.kernel.progload import load_program
from xdpkit.kernel.programs import Program, ProgramInfo
from xdpkit.kernel.providing import extended
from xdpkit.kernel.upload import kconfig_contents, upload_types
from xdpkit.obj import (
    LinkedProgram,
    MapSpec,
    Object,
    Pinning,
    ProgramSpec,
    RelocationKind,
    kernel_btf,
)
from xdpkit.obj.spec import KCONFIG
from xdpkit.syscalls import bpf, netns
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType, ProgFlags, ProgType

_BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"
_MAP_KINDS = (RelocationKind.MAP, RelocationKind.MAP_VALUE)
_INDEX = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Options:
    """How to load; see :func:`xdpkit.kernel.load`."""

    maps: Mapping[str, Map]
    pin_root: str
    log_level: int
    ifindex: int
    offload: bool
    context: Context


class Session:
    """A load in progress: a context manager that closes and unpins what was not handed over."""

    def __init__(self, obj: Object, options: Options) -> None:
        # What is loaded is what is set now, and negotiated later as what was loaded.
        self._obj = obj.snapshot()
        self._options = options
        self._maps: dict[str, Map] = {}
        self._created: set[str] = set()
        self._members: dict[str, dict[int, int]] = {}
        self._programs: dict[str, Fd] = {}
        self._used: dict[str, set[str]] = {}
        self._new: dict[str, tuple[NewProgram, dict[int, int]]] = {}
        self._contexts: dict[str, Given] = {}
        self._logs: dict[str, str] = {}
        self._notes: list[str] = []
        self._owned = ExitStack()
        self._pinned = ExitStack()
        self._pins_made: list[str] = []
        self._temporary = ExitStack()
        self._types: Btf | None = None
        self._btf_fd = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pinned.close()
        for program in self._programs.values():
            program.close()
        self._owned.close()
        self._temporary.close()

    def run(self, wanted: Plan) -> None:
        """Do everything; see :mod:`xdpkit.kernel.loader` for the order."""
        self._check()
        kernel = self._temporary.enter_context(KernelTypes())
        relocations = [r for linked in wanted.programs.values() for r in linked.relocations]
        externs = Externs(self._obj, relocations, kernel)
        self._give_types()
        for spec in wanted.maps:
            self._maps[spec.name] = self._map(spec)
        for spec in wanted.maps:
            if spec.type != MapType.PROG_ARRAY and spec.name in self._created:
                self._fill(spec, {name: found.fileno() for name, found in self._maps.items()})
        for name, linked in wanted.programs.items():
            self._load(self._obj.programs[name], linked, externs, kernel)
        for spec in wanted.maps:
            if spec.type == MapType.PROG_ARRAY:
                # An array that none of the programs uses may want some that are not loaded.
                values = {
                    slot: name for slot, name in spec.values.items() if name in self._programs
                }
                self._fill(
                    replace(spec, values=values),
                    {name: fd.fileno() for name, fd in self._programs.items()},
                )
                self._members[spec.name] = {
                    slot: int(bpf.prog_info(self._programs[name].fileno())[0].id)
                    for slot, name in values.items()
                }

    def hand_over_program(self, name: str) -> Program:
        """Return one program, which owns the maps and the programs in its program arrays."""
        leaves = tuple(
            self._owned.enter_context(self._program(other, self._used[other]))
            for other in [*self._programs]
            if other != name
        )
        program = self._program(name, set(self._maps), self._owned, leaves)
        self._keep_pins()
        return program

    def hand_over(self) -> Collection:
        """Return all programs and maps."""
        with ExitStack() as owned:
            owned.push(self._owned.pop_all())
            programs = {}
            for name in self._obj.programs:
                if name in self._programs:
                    programs[name] = owned.enter_context(self._program(name, self._used[name]))
            self._keep_pins()
            owned = owned.pop_all()
        for name, program in programs.items():
            program.leaves = tuple(programs[leaf] for leaf in self._reached(name) if leaf != name)
        return Collection(programs, self._maps, owned=owned, notes=tuple(self._notes))

    def _reached(self, name: str) -> dict[str, None]:
        """Return the programs that a program can reach through arrays that were filled here."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            for used in self._used[waiting.pop()] & self._members.keys():
                new = [leaf for leaf in self._obj.maps[used].values.values() if leaf not in found]
                found.update(dict.fromkeys(new))
                waiting += new
        return found

    def _program(
        self,
        name: str,
        maps: set[str],
        owned: ExitStack | None = None,
        leaves: tuple[Program, ...] = (),
    ) -> Program:
        fd = self._programs.pop(name)
        return Program(
            fd,
            name=name,
            maps={each: self._maps[each] for each in self._maps if each in maps},
            owned=owned.pop_all() if owned else None,
            spec=self._obj.programs[name],
            made={each: self._members.get(each, {}) for each in self._created},
            leaves=leaves,
            image=partial(
                _image,
                *self._new[name],
                {each: self._maps[each] for each in self._maps if each in self._used[name]},
                self._contexts.get(name),
            ),
            context=self._contexts.get(name),
            pins_made=tuple(self._pins_made),
            bound_to=self._bound_to(),
            attach_to=self._obj.programs[name].attach_to,
            notes=tuple(self._notes),
            log=self._logs[name],
        )

    def _bound_to(self) -> tuple[int, int] | None:
        ifindex = self._options.ifindex
        return (netns.cookie(), ifindex) if ifindex else None

    def _keep_pins(self) -> None:
        self._pinned.pop_all()

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _check(self) -> None:
        obj = self._obj
        if obj.byteorder != _BYTEORDER:
            raise RequirementUnmet(
                f"load {obj.name}",
                cause=f"it is {obj.byteorder}-endian, and this machine is {_BYTEORDER}-endian",
                remedy="compile it with -target bpf on this machine, or with"
                f" -target bpf{'el' if _BYTEORDER == 'little' else 'eb'}",
            )
        for name in self._options.maps:
            if name not in obj.maps:
                raise UsageError(
                    f"use an existing map as {name} of {obj.name}",
                    cause=f"it has these maps: {', '.join(obj.maps) or 'none'}",
                )
        check_context(self._options.context, f"load {obj.name}")

    def _give_types(self) -> None:
        data = kernel_btf(self._obj)
        if data is None:
            return
        # Sizes and offsets of global data are only in the completed types.
        self._types = Btf.parse(data, file=self._obj.path)
        uploaded = upload_types(data, self._note)
        if uploaded is not None:
            self._btf_fd = self._temporary.enter_context(uploaded).fileno()

    # Maps

    def _map(self, spec: MapSpec) -> Map:
        given = self._options.maps.get(spec.name)
        if given is None and spec.name == PORT_NUMBERS:
            given = self._options.context.port_numbers
        if given is not None:
            what = f"use map {given.id} as {spec.name} of {self._obj.name}"
            create.check_reuse(spec, given.info(), what, "pass another map, or none")
            return given
        if spec.pinning is not Pinning.BY_NAME:
            return self._new_map(spec)
        path = create.pin_path(spec, self._options.pin_root)
        return self._pinned_map(spec, path) or self._new_pinned_map(spec, path)

    def _new_map(self, spec: MapSpec) -> Map:
        options = self._options
        made = self._owned.enter_context(
            create.create(
                spec,
                types=self._types,
                btf_fd=self._btf_fd,
                ifindex=options.ifindex if options.offload else 0,
                notes=self._note,
            )
        )
        self._created.add(spec.name)
        if spec.data_section is not None:
            self._set_contents(spec, made)
        return made

    def _pinned_map(self, spec: MapSpec, path: str) -> Map | None:
        found = create.open_pinned(spec, path, self._types)
        return None if found is None else self._owned.enter_context(found)

    def _new_pinned_map(self, spec: MapSpec, path: str) -> Map:
        create.make_pin_root(self._options.pin_root)
        made = self._new_map(spec)
        try:
            made.pin(path)
        except UsageError:
            # Somebody else may have pinned one just now: then that is the one to share.
            found = self._pinned_map(spec, path)
            if found is None:
                raise
            self._created.discard(spec.name)
            return found
        self._pinned.callback(os.unlink, path)
        self._pins_made.append(path)
        return made

    def _set_contents(self, spec: MapSpec, made: Map) -> None:
        if spec.name == KCONFIG:
            data = kconfig_contents(self._obj, spec)
        else:
            data = self._obj.variables.data(spec.name)
        # A new map is all zeros.
        if any(data):
            bpf.map_update(made.fileno(), _INDEX.pack(0), data)
        if spec.is_frozen:
            self._freeze(made)

    def _freeze(self, made: Map) -> None:
        try:
            made.freeze()
        except KernelRefused:
            from xdpkit.probes import is_absent

            # Linux 5.2, "bpf: add syscall side map freeze support".
            if not is_absent("map-freeze"):
                raise
            self._note(f"map {made.name}: this kernel freezes no maps")

    def _fill(self, spec: MapSpec, descriptors: Mapping[str, int]) -> None:
        if not spec.values:
            return
        number = self._maps[spec.name].fileno()
        for slot, name in spec.values.items():
            bpf.map_update(number, _INDEX.pack(slot), _INDEX.pack(descriptors[name]))

    # Programs

    def _load(
        self, spec: ProgramSpec, linked: LinkedProgram, externs: Externs, kernel: KernelTypes
    ) -> None:
        what = f"load program {spec.name}"
        options = self._options
        attach_btf_id, attach_btf_fd = self._attach_target(spec, kernel)
        flags = spec.flags
        if options.ifindex and not options.offload:
            flags |= ProgFlags.XDP_DEV_BOUND_ONLY
        new = NewProgram(
            type=spec.type,
            code=self._code(spec, linked, externs, kernel),
            license=self._obj.license,
            name=spec.name,
            attach_type=spec.attach_type,
            flags=flags,
            ifindex=options.ifindex,
            kern_version=self._obj.version,
            btf_fd=self._btf_fd,
            func_info=linked.func_info,
            line_info=linked.line_info,
            attach_btf_id=attach_btf_id,
            attach_btf_fd=attach_btf_fd,
            fd_array=externs.fd_array,
        )
        found = extended(
            spec,
            linked,
            new,
            options.context,
            types=self._types,
            numbers=self._port_numbers,
        )
        if found is not None:
            new = found.new
            self._contexts[spec.name] = found.given
        fd, log = load_program(new, what=what, log_level=options.log_level, notes=self._note)
        self._programs[spec.name] = fd
        self._logs[spec.name] = log
        self._new[spec.name] = new, _module_ids(new, linked)
        used = {r.name for r in linked.relocations if r.kind in _MAP_KINDS}
        if found is not None and found.numbers is not None:
            used.add(PORT_NUMBERS)
        self._used[spec.name] = used | self._bind(fd, used)

    def _code(
        self, spec: ProgramSpec, linked: LinkedProgram, externs: Externs, kernel: KernelTypes
    ) -> bytearray:
        code = bytearray(linked.code)
        if linked.core and self._obj.btf is not None:
            from xdpkit.obj.core import relocate

            relocate(
                code,
                linked.core,
                self._obj.btf,
                kernel,
                byteorder=_BYTEORDER,
                where=f"program {spec.name}",
            )
        for relocation in linked.relocations:
            if relocation.kind is RelocationKind.MAP:
                patch.set_map(code, relocation.slots, self._maps[relocation.name].fileno())
            elif relocation.kind is RelocationKind.MAP_VALUE:
                number = self._maps[relocation.name].fileno()
                patch.set_map_value(code, relocation.slots, number, relocation.offset)
            else:
                externs.patch(code, relocation)
        return code

    def _port_numbers(self) -> Map:
        """Return the map in which ports are looked up; the object may have it among its own."""
        given = self._options.context.port_numbers
        assert given is not None, "only asked for when it was given"
        used = self._maps.get(PORT_NUMBERS)
        if used is None:
            # A descriptor of the load's own, which is open for as long as the program is.
            used = Map(Fd.duplicate(given), name=PORT_NUMBERS)
            self._maps[PORT_NUMBERS] = self._owned.enter_context(used)
        elif used.id != given.id:
            raise UsageError(
                f"load {self._obj.name}",
                cause=f"its map {PORT_NUMBERS} is map {used.id}, and map {given.id} is where it is"
                " to look its port up",
                remedy="pass the same map for both",
            )
        return used

    def _attach_target(self, spec: ProgramSpec, kernel: KernelTypes) -> tuple[int, int]:
        """Return the id of the tracepoint's type, and the BTF of the module that has it."""
        if spec.type is not ProgType.TRACING:
            return 0, 0
        if spec.attach_to is None:
            raise ObjectFormatError(
                f"program {spec.name} does not say for which tracepoint it is",
                file=self._obj.path,
                section=spec.section,
            )
        # include/trace/bpf_probe.h makes such a type for each tracepoint.
        found = kernel.find(f"btf_trace_{spec.attach_to}", Kind.TYPEDEF)
        if found is None:
            raise RequirementUnmet(
                f"load program {spec.name}",
                cause=f"this kernel and its loaded modules have no tracepoint {spec.attach_to}",
            )
        return found.type_id, found.module.fd.fileno() if found.module else 0

    def _bind(self, program: Fd, used: set[str]) -> set[str]:
        """Bind the read-only data that the program does not refer to, as libbpf does."""
        bound = set()
        for name, found in self._maps.items():
            if not is_bound(name) or name in used:
                continue
            try:
                bpf.prog_bind_map(program.fileno(), found.fileno())
            except KernelRefused:
                # Linux 5.10, "bpf: Add BPF_PROG_BIND_MAP syscall": it only serves those who look.
                self._note(f"map {name}: this kernel binds no maps to programs")
            else:
                bound.add(name)
        return bound


def _module_ids(new: NewProgram, linked: LinkedProgram) -> dict[int, int]:
    """Return the ids of the modules' BTF objects that a program uses, by descriptor.

    While the descriptors are open, which is not for long.
    """
    used = {*descriptors(new.fd_array), new.attach_btf_fd}
    if any(relocation.kind is RelocationKind.KSYM for relocation in linked.relocations):
        used |= references(new.code).objects
    return {fd: bpf.btf_info(fd).id for fd in used - {0}}


def _image(
    new: NewProgram,
    objects: Mapping[int, int],
    maps: Mapping[str, Map],
    context: Given | None,
    info: ProgramInfo,
) -> Image:
    return describe(
        new,
        btf_id=info.btf_id,
        maps={found.fileno(): MapReference(found.id, name) for name, found in maps.items()},
        objects=objects,
        context=context,
    )
