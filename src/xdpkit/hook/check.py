# SPDX-License-Identifier: Apache-2.0
"""Negotiate before anything is loaded: collect what is known, and hand it to ``negotiation``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.errors import UsageError, XdpkitError
from xdpkit.hook.mode import Mode
from xdpkit.hook.ports import PortsOf, table_of
from xdpkit.interfaces import device_of, resolve
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.negotiation import Negotiation, Policy, Target, negotiate
from xdpkit.requirements import Requirement, Requirements, needs_of
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.hook.standing import Standing
    from xdpkit.kernel import Map, Program
    from xdpkit.obj import MapSpec, ProgramSpec

_OF_THE_KERNEL = ("helper", "kfunc", "map-type", "link", "redirect-broadcast")
_DEVMAPS = (MapType.DEVMAP, MapType.DEVMAP_HASH)
_NOT_FOLLOWED = "its instructions are not known: it was not loaded from an object file here"


def check(
    program: ProgramSpec | Program,
    device: Device | str | int,
    *,
    mode: Mode | str | None = None,
    policy: Policy | str = Policy.DEFAULT,
    targets: Sequence[Target | Device | str | int] = (),
    maps: Mapping[str, Map] | None = None,
    netns: str | None = None,
    by_link: bool = True,
    ports: PortsOf | None = None,
    pin_root: str | os.PathLike[str] = DEFAULT_ROOT,
) -> Negotiation:
    """Return every verdict on a program and a device; nothing is loaded or attached.

    ::

        negotiation = xdpkit.check(obj.programs["fw"], "eth0")
        if not negotiation.is_allowed:
            print(*(verdict.why for verdict in negotiation.refused), sep="\\n")
        xdpkit.check(obj.programs["fw"], Device.from_json(text, source="fleet/mlx5.json"))

    Args:
        program: from an object file, with its variables as they are set now; or a loaded one, with
            those that it was loaded with. Of one that this process did not load nothing is known.
        device: an interface of this host, or one as data (a profile).
        mode: a Mode or its name; None asks for native mode.
        policy: what becomes of what is not known; a Policy or its name.
        targets: the interfaces that it redirects to. One that the program names by a constant
            index, and those in ``maps``, are looked at without being named.
        maps: maps that the program will use, by name: what devmaps hold is looked at; what
            program arrays and constants hold is not known.
        netns: name or path of the interfaces' network namespace; None: the caller's own.
        by_link: whether a ``bpf_link`` is to hold it, which the kernel then has to have.
        ports: the port table that is meant, or its name, for a program that asks for its port
            or uses a table's maps; None: the one that has the interface as a port.
        pin_root: the bpffs in which the port tables are pinned.

    Raises:
        UsageError: there is no such interface, namespace, mode, policy or port table.
        ObjectFormatError: the program or its declarations are malformed.
        RequirementUnmet: the kernel's types give no usable answer to a CO-RE relocation.
    """
    root = os.fsdecode(pin_root)
    return look(
        program,
        device,
        mode=mode,
        policy=policy,
        targets=targets,
        maps=maps,
        netns=netns,
        by_link=by_link,
        table=table_of(ports, f"check {program.name}", root),
        pin_root=root,
    ).negotiation


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of holding a program against a device.

    Attributes:
        negotiation: every verdict.
        standing: what the port tables have for the program, None if it asks for nothing of
            them, or the device is no interface of this host.
    """

    negotiation: Negotiation
    standing: Standing | None


def look(
    program: ProgramSpec | Program,
    device: Device | str | int,
    *,
    mode: Mode | str | None,
    policy: Policy | str | None,
    targets: Sequence[Target | Device | str | int],
    maps: Mapping[str, Map] | None,
    netns: str | None,
    by_link: bool,
    table: str | None,
    pin_root: str,
) -> Checked:
    """Hold a program against a device. Arguments and errors are those of :func:`check`.

    Args:
        table: the name of the port table that is meant.
    """
    mode = Mode.parse(mode or Mode.NATIVE)
    is_live = not isinstance(device, Device)
    requirements = _needs(program, is_live, maps or {})
    named = [_target(target, netns) for target in targets]
    kernel: dict[str, Finding] = {}
    standing = None
    if not isinstance(device, Device):
        standing = _standing(program, device, requirements, netns, table, pin_root, maps or {})
        device = device_of(device, mode=mode.value, netns=netns)
        kernel = _kernel(requirements, by_link)
        named += _constant_targets(requirements, netns)
        others = _maps(program, maps)
        if standing is not None:
            kernel |= standing.findings
            named += standing.targets
            others = {name: each for name, each in others.items() if name not in standing.maps}
        named += _targets_in(others, netns)
    negotiation = negotiate(
        requirements,
        device,
        kernel=kernel,
        mode=mode.value,
        policy=policy_of(policy),
        targets=named,
    )
    return Checked(negotiation, standing)


def _standing(
    program: ProgramSpec | Program,
    device: str | int,
    requirements: Requirements,
    netns: str | None,
    table: str | None,
    pin_root: str,
    maps: Mapping[str, Map],
) -> Standing | None:
    from xdpkit.requirements.context import is_of_ports

    if not any(is_of_ports(each.capability) for each in requirements):
        return None
    from xdpkit.hook import standing

    interface = resolve(device, netns=netns)
    return standing.look(
        program, requirements, interface, table=table, pin_root=pin_root, maps=maps
    )


def policy_of(policy: Policy | str | None) -> Policy:
    """Return the policy with this name, the default one for None. A policy is itself.

    Raises:
        UsageError: there is none.
    """
    try:
        return Policy.DEFAULT if policy is None else Policy(policy)
    except ValueError:
        known = ", ".join(each.value for each in Policy)
        raise UsageError(f"use policy {policy!r}", cause=f"the policies are {known}") from None


def _kernel(requirements: Requirements, by_link: bool) -> dict[str, Finding]:
    """Ask the kernel for what the program needs of it, and for links where they are to be used."""
    from xdpkit.probes.offered import kernel_findings

    names = {item.capability for item in requirements}
    if by_link:
        names.add("link")
    return kernel_findings(
        sorted(name for name in names if name.partition(":")[0] in _OF_THE_KERNEL)
    )


def _needs(program: ProgramSpec | Program, is_live: bool, given: Mapping[str, Map]) -> Requirements:
    from xdpkit.obj.spec import ProgramSpec

    loaded = None if isinstance(program, ProgramSpec) else program
    spec = program if isinstance(program, ProgramSpec) else program.spec
    if spec is None:
        # Frags waive the MTU's limit, and whether it takes them is not known either.
        anything = [Requirement("frags", optional=True), Requirement("action-any")]
        if loaded is not None and _may_need_a_port(loaded):
            anything.append(Requirement("port-index"))
        return Requirements(program.name, tuple(anything), notes=(_NOT_FOLLOWED,))
    open_maps: AbstractSet[str] = given.keys()
    if loaded is not None:
        open_maps = frozenset(_changed(loaded, spec.object.maps))
    fits_kernel = spec.object.code.core or any(
        extern.is_weak for extern in spec.object.externs.values()
    )
    if loaded is not None and not fits_kernel:
        return _needs_of_loaded(loaded, spec, frozenset(open_maps))
    if not is_live or not fits_kernel:
        return needs_of(spec, open_maps=open_maps)
    from xdpkit.kernel.btf import KernelTypes

    with KernelTypes() as types:
        return needs_of(spec, types, open_maps=open_maps)


def _may_need_a_port(program: Program) -> bool:
    from xdpkit.hook.given import reading_of

    return reading_of(program).may_need_a_port


def _needs_of_loaded(
    program: Program, spec: ProgramSpec, open_maps: frozenset[str]
) -> Requirements:
    """Return what a program needs of whatever kernel; one that goes on many hooks is read once."""
    obj = spec.object
    # All that can change: a spec is frozen, but for its object's variables.
    constants = tuple(
        obj.variables.data(each.data_section)
        for each in obj.maps.values()
        if each.data_section is not None and each.data_section.startswith(".rodata")
    )
    known = _known.get(program)
    if known is None or known.spec is not spec or known.given != (open_maps, constants):
        needs = needs_of(spec, open_maps=open_maps)
        known = _known[program] = _Known(spec, (open_maps, constants), needs)
    return known.needs


class _Known(NamedTuple):
    """What was found of a loaded program, and what that depends on."""

    spec: ProgramSpec
    given: tuple[frozenset[str], tuple[bytes, ...]]
    needs: Requirements


_known: WeakKeyDictionary[Program, _Known] = WeakKeyDictionary()


def _changed(program: Program, specs: Mapping[str, MapSpec]) -> Iterator[str]:
    """Yield the maps of a loaded program that may not hold what its object puts there."""
    for name, spec in specs.items():
        if name not in program.made:
            yield name
        elif spec.type == MapType.PROG_ARRAY and spec.values:
            live = program.maps.get(name)
            if live is None or not _holds(live, program.made[name]):
                yield name


def _holds(live: Map, members: Mapping[int, int]) -> bool:
    """Return whether a program array is known to hold these programs, and no others."""
    try:
        return dict(live.items()) == members
    except XdpkitError:
        # It may be closed, or not for reading.
        return False


def _maps(program: ProgramSpec | Program, given: Mapping[str, Map] | None) -> Mapping[str, Map]:
    from xdpkit.obj.spec import ProgramSpec

    if isinstance(program, ProgramSpec):
        return given or {}
    return program.maps


def _target(target: Target | Device | str | int, netns: str | None) -> Target:
    if isinstance(target, Target):
        return target
    return Target(target if isinstance(target, Device) else device_of(target, netns=netns))


def _constant_targets(requirements: Requirements, netns: str | None) -> Iterator[Target]:
    """Yield the interfaces that the program names by index; bpf_redirect() means its own netns."""
    for redirect in requirements.of("redirect-ifindex"):
        if redirect.ifindex is not None:
            try:
                device = device_of(redirect.ifindex, netns=netns)
            except UsageError as error:
                device = _not_found(redirect.ifindex, Answer.NO, error)
                yield Target(device, ifindex=redirect.ifindex, is_absent=True)
            else:
                yield Target(device, ifindex=redirect.ifindex)


def _targets_in(maps: Mapping[str, Map], netns: str | None) -> Iterator[Target]:
    """Yield the interfaces that devmaps hold."""
    for name, found in maps.items():
        if found.type in _DEVMAPS:
            # They were looked up in the namespace of whoever put them there.
            for value in found.values():
                ifindex = int(getattr(value, "ifindex", value))
                try:
                    device = device_of(ifindex, netns=netns)
                except UsageError as error:
                    device = _not_found(ifindex, Answer.UNKNOWN, error)
                yield Target(device, map=name)


def _not_found(ifindex: int, answer: Answer, error: UsageError) -> Device:
    finding = Finding("redirect-target", answer, error.cause)
    return Device(f"interface {ifindex}", findings={finding.capability: finding})
