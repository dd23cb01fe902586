# SPDX-License-Identifier: Apache-2.0
"""From specs to programs in the kernel.

The order is libbpf's, so that the outcome is the same: find the externs, give the kernel the types,
make the maps, fit the code to the kernel (CO-RE, descriptors, symbols), load the programs, fill the
program arrays. Whatever fails, all that was made before is closed again, and unpinned.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from xdpkit.kernel.collection import Collection
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

    Raises:
        VerifierError: the verifier refused the program.
        RequirementUnmet: the kernel lacks something that the program needs.
        UsageError: an existing map is not what the program needs.
        ObjectFormatError: the object is malformed.
        MissingPrivilege: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed.
        KernelRefused: the kernel refused something else.
    """
    options = Options(maps, os.fspath(pin_root), log_level, ifindex, offload)
    with Session(spec.object, options) as session:
        session.run(plan(spec.object, (spec,)))
        return session.hand_over_program(spec.name)


def load_all(
    obj: Object,
    *,
    maps: Mapping[str, Map] = MappingProxyType({}),
    pin_root: str | os.PathLike[str] = PIN_ROOT,
    log_level: int = 0,
    ifindex: int = 0,
    offload: bool = False,
) -> Collection:
    """Load all programs of an object, but those whose section begins with ``?``, and all its maps.

    Arguments and errors are those of :func:`load`.
    """
    options = Options(maps, os.fspath(pin_root), log_level, ifindex, offload)
    with Session(obj, options) as session:
        wanted = plan(obj, (spec for spec in obj.programs.values() if spec.autoload))
        session.run(replace(wanted, maps=tuple(obj.maps.values())))
        return session.hand_over()
