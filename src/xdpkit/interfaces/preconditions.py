# SPDX-License-Identifier: Apache-2.0
"""What a driver demands of an interface's configuration before it takes a program."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from xdpkit.capabilities import (
    Answer,
    Kernel,
    Precondition,
)
from xdpkit.interfaces import table
from xdpkit.interfaces.observation import GRO_HW, LRO, Observation
from xdpkit.interfaces.table import Driver
from xdpkit.syscalls.netns import nsenter

# The word that drivers' rules about the MTU have in common; the limit itself says more.
_MTU = "mtu_too_large"
_LRO = "lro_on"
_GUEST_OFFLOADS = "guest_offloads_on"

_DISPATCHER = "xdp_dispatcher"


def of_configuration(seen: Observation, driver: Driver) -> Iterator[Precondition]:
    """Yield what a driver checks, judged by what was seen."""
    name = seen.link.name
    if driver.mtu is not None:
        fits = table.has_limits_for(seen.machine, seen.page_size)
        enter = nsenter(seen.interface.netns)
        yield mtu(driver, seen.kernel, name, seen.link.mtu, limit_fits=fits, enter=enter)
    for constraint in driver.constraints:
        if constraint.effect != "refuse" or constraint.cause == _MTU:
            continue
        if constraint.cause == _LRO:
            yield _lro(seen)
        elif constraint.cause == _GUEST_OFFLOADS:
            yield _guest_offloads(seen)
        else:
            evidence = f"not looked at: {constraint.text} ({constraint.source})"
            yield Precondition(constraint.name.replace("_", "-"), Answer.UNKNOWN, evidence)


def mtu(
    driver: Driver, kernel: Kernel, name: str, size: int, *, limit_fits: bool, enter: str = ""
) -> Precondition:
    """Return whether an interface's MTU lets a program without frags be attached.

    Args:
        driver: of the interface; its limit is known. name: of the interface.
        size: its MTU. limit_fits: whether the table's limits hold for the machine.
        enter: what makes a command run in the interface's namespace.
    """
    limit = driver.mtu
    if limit is None:
        raise ValueError(f"{driver.name} has no MTU limit")
    is_known = limit_fits and limit.is_exact and (limit.since is None or kernel.has(limit.since))
    if size <= limit.limit and limit_fits:
        answer = Answer.YES
    else:
        answer = Answer.NO if is_known else Answer.UNKNOWN
    return Precondition(
        "mtu",
        answer,
        f"MTU {size}; {driver.name} takes {limit.limit} without frags ({limit.source})",
        waived_by="frags",
        remedy=None if answer is Answer.YES else f"{enter}{set_mtu(name, limit.limit)}",
    )


def set_mtu(name: str, size: int) -> str:
    """Return the command that sets an interface's MTU, in its namespace."""
    return f"ip link set dev {shlex.quote(name)} mtu {size}"


def of_the_hook(seen: Observation) -> Iterator[Precondition]:
    """Yield who is there already; native and generic mode exclude each other."""
    attached = seen.link.xdp
    for mode, number, other in (
        ("native", attached.native, "generic"),
        ("generic", attached.generic, "native"),
    ):
        if number is None:
            continue
        evidence = f"program {number}{_named(seen, number)} is attached in {mode} mode"
        yield Precondition("existing-program", Answer.YES, evidence, modes=(mode,))
        yield Precondition(
            "existing-program",
            Answer.NO,
            f"{evidence}, and the modes exclude each other",
            modes=(other,),
        )


def _named(seen: Observation, program: int) -> str:
    """Return a program's name, as what follows its number."""
    name = seen.program_names.get(program)
    if name == _DISPATCHER:
        # Anybody may call a program so.
        return f", called {name} as the dispatcher of libxdp and xdp-loader is,"
    return f", {name}," if name else ""


def _lro(seen: Observation) -> Precondition:
    name = seen.link.name
    known = [seen.offloads[offload] for offload in (LRO, GRO_HW) if offload in seen.offloads]
    if not known:
        return Precondition("lro", Answer.UNKNOWN, f"{name} does not say whether LRO is on")
    on = [each for each in (LRO, GRO_HW) if each in seen.offloads and seen.offloads[each].active]
    if not on:
        return Precondition("lro", Answer.YES, "LRO and GRO-HW are off")
    short = " ".join(f"{offload} off" for offload in on)
    remedy = f"{nsenter(seen.interface.netns)}ethtool -K {shlex.quote(name)} {short}"
    is_sure = all(seen.offloads[offload].changeable for offload in on)
    return Precondition(
        "lro", Answer.NO, f"on: {', '.join(on)}", remedy=remedy if is_sure else None
    )


def _guest_offloads(seen: Observation) -> Precondition:
    """Judge virtio_net, which switches them off itself if the host lets it.

    It cannot without VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, without which they cannot be changed by
    ethtool either.
    """
    fixed = [
        name
        for name in (LRO, GRO_HW)
        if name in seen.offloads
        and seen.offloads[name].active
        and not seen.offloads[name].changeable
    ]
    if fixed:
        return Precondition(
            "guest-offloads",
            Answer.NO,
            f"the host merges packets and cannot be told to stop: {', '.join(fixed)} [fixed]",
            remedy="turn guest_tso4, guest_tso6, guest_ecn and guest_ufo off on the host",
        )
    return Precondition("guest-offloads", Answer.YES, "merged packets can be switched off")
