# SPDX-License-Identifier: Apache-2.0
"""A program put into a program array, devmap or cpumap is attached too, and is negotiated too.

The kernel checks a member's type only. So what it returns there is held against where it runs: a
tail-called program runs on the array owner's interface, a devmap's or cpumap's in the kernel's own
code, which takes fewer actions than a driver does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.hook.mode import Mode
from xdpkit.interfaces import Interface
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.kernel import Map
    from xdpkit.negotiation import Policy

# dev_map_bpf_prog_run() in kernel/bpf/devmap.c, cpu_map_bpf_prog_run_xdp() in kernel/bpf/cpumap.c.
_REFUSED_IN = {
    MapType.DEVMAP: ("action-tx", "action-redirect"),
    MapType.DEVMAP_HASH: ("action-tx", "action-redirect"),
    MapType.CPUMAP: ("action-tx",),
}


def negotiate_members(
    maps: Mapping[str, Map], interface: Interface, mode: Mode, policy: Policy | None
) -> None:
    """From now on, hold each program that is put into one of these maps against where it will run.

    Putting it there raises :class:`~xdpkit.errors.RequirementUnmet` where it is refused.
    """
    for name, found in maps.items():
        if found.type == MapType.PROG_ARRAY or found.type in _REFUSED_IN:
            found.vet = partial(_vet, name, found, interface, mode, policy)


def _vet(
    name: str,
    target: Map,
    interface: Interface,
    mode: Mode,
    policy: Policy | None,
    value: object,
) -> None:
    from xdpkit.hook.check import check
    from xdpkit.kernel import Program
    from xdpkit.negotiation import Policy, refusal

    program = getattr(value, "program", value)
    if not isinstance(program, Program):
        return
    place: Device | int = interface.index
    where = f"{name} of {interface.name}"
    netns = interface.netns
    if target.type in _REFUSED_IN:
        place, netns = _kernel_code(MapType(target.type)), None
    result = check(program, place, mode=mode, policy=policy or Policy.DEFAULT, netns=netns)
    if not result.is_allowed:
        raise refusal(result, f"put {program.name} into {where}")


def _kernel_code(map_type: MapType) -> Device:
    kind = map_type.name.lower()
    evidence = f"a {kind} entry drops what its program returns so"
    return Device(
        name=f"{kind} entry",
        kind=kind,
        findings={
            capability: Finding(capability, Answer.NO, evidence)
            for capability in _REFUSED_IN[map_type]
        },
        source="kernel/bpf",
        otherwise=Answer.YES,
    )
