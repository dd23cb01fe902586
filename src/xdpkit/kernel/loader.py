# SPDX-License-Identifier: Apache-2.0
"""From specs to programs in the kernel.

The order is libbpf's, so that the outcome is the same: find the externs, give the kernel the types,
make the maps, fit the code to the kernel (CO-RE, descriptors, symbols), load the programs, fill the
program arrays. Whatever fails, all that was made before is closed again, and unpinned.
"""

from __future__ import annotations

import os
from collections.abc import Collection as AbstractCollection
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from xdpkit.errors import UsageError
from xdpkit.kernel.collection import Collection
from xdpkit.kernel.context import Context
from xdpkit.kernel.maps import Map
from xdpkit.kernel.plan import plan
from xdpkit.kernel.programs import Program
from xdpkit.kernel.session import Options, Session
from xdpkit.obj import Object, ProgramSpec

PIN_ROOT = "/sys/fs/bpf"


def load(
    spec: ProgramSpec,
    *,
    maps: Mapping[str, Map] = MappingProxyType({}),
    pin_root: str | os.PathLike[str] = PIN_ROOT,
    log_level: int = 0,
    ifindex: int = 0,
    offload: bool = False,
    context: Context | None = None,
) -> Program:
    """Load one program, with the maps that it refers to and the programs in its program arrays.

    The Program owns the maps made for it: closing it closes them. Programs in program arrays live
    as long as the array.

    Args:
        spec: what to load, of :attr:`xdpkit.obj.Object.programs`.
        maps: existing maps to use instead of new ones, by name; they stay the caller's.
        pin_root: the folder on a bpffs where maps with ``pinning`` are shared.
        log_level: for :attr:`Program.log`; 1: the verifier's branches, 2: all instructions, 4:
            statistics.
        ifindex: bind the program to this device, whose metadata kfuncs it may then call.
        offload: run it on the device itself.
        context: what the program, and those in its program arrays, read in the fields that xdpkit
            adds to the context (``struct xdpkit_md``); None: no port, and a cookie of 0.

    Raises:
        VerifierError: the verifier refused the program.
        RequirementUnmet: the kernel lacks something that the program needs, or the program reads a
            field of its context that cannot be provided.
        UsageError: an existing map is not what the program needs.
        ObjectFormatError: the object is malformed.
        MissingPrivilege: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed.
        KernelRefused: the kernel refused something else.
    """
    options = Options(maps, os.fspath(pin_root), log_level, ifindex, offload, _context(context))
    with Session(spec.object, options) as session:
        session.run(plan(spec.object, (spec,)))
        return session.hand_over_program(spec.name)


def load_all(
    obj: Object,
    *,
    programs: AbstractCollection[str] | None = None,
    maps: Mapping[str, Map] = MappingProxyType({}),
    pin_root: str | os.PathLike[str] = PIN_ROOT,
    log_level: int = 0,
    ifindex: int = 0,
    offload: bool = False,
    context: Context | None = None,
) -> Collection:
    """Load programs of an object, and all its maps.

    Args:
        obj: the object.
        programs: names of those to load; None: all but those whose section begins with ``?``.

    The other arguments, and errors, are those of :func:`load`.
    """
    options = Options(maps, os.fspath(pin_root), log_level, ifindex, offload, _context(context))
    if programs is None:
        specs = [spec for spec in obj.programs.values() if spec.autoload]
    else:
        unknown = sorted(set(programs) - set(obj.programs))
        if unknown:
            raise UsageError(
                f"load programs of {obj.path}", cause=f"it has no program {', '.join(unknown)}"
            )
        specs = [spec for spec in obj.programs.values() if spec.name in programs]
    with Session(obj, options) as session:
        session.run(replace(plan(obj, specs), maps=tuple(obj.maps.values())))
        return session.hand_over()


def _context(given: Context | None) -> Context:
    return Context() if given is None else given
