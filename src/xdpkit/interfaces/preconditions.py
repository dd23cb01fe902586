# SPDX-License-Identifier: Apache-2.0
"""What a driver demands of an interface's configuration before it takes a program."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.capabilities import (
    Answer,
    Kernel,
    Precondition,
)
from xdpkit.interfaces import table
from xdpkit.interfaces.observation import GRO_HW, LRO, Observation
from xdpkit.interfaces.table import Driver

# The word that drivers' rules about the MTU have in common; the limit itself says more.
_MTU = "mtu_too_large"
_LRO = "lro_on"
_GUEST_OFFLOADS = "guest_offloads_on"

_DISPATCHERS = {"xdp_dispatcher": "the dispatcher of libxdp and xdp-loader"}


def of_configuration(seen: Observation, driver: Driver) -> Iterator[Precondition]:
    """Yield what a driver checks, judged by what was seen."""
    name = seen.link.name
    if driver.mtu is not None:
        fits = table.has_limits_for(seen.machine, seen.page_size)
        yield mtu(driver, seen.kernel, name, seen.link.mtu, limit_fits=fits)
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


def mtu(driver: Driver, kernel: Kernel, name: str, size: int, *, limit_fits: bool) -> Precondition:
    """Return whether an interface's MTU lets a program without frags be attached.

    Args:
        driver: of the interface; its limit is known. name: of the interface.
        size: its MTU. limit_fits: whether the table's limits hold for the machine.
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
        remedy=f"ip link set {name} mtu {limit.limit}" if answer is not Answer.YES else None,
    )


def of_the_hook(seen: Observation) -> Iterator[Precondition]:
    """Yield who is there already; native and generic mode exclude each other."""
    attached = seen.link.xdp
    for mode, number, other in (
        ("native", attached.native, "generic"),
        ("generic", attached.generic, "native"),
    ):
        if number is None:
            continue
        program = seen.program_names.get(number)
        whose = _DISPATCHERS.get(program or "")
        described = f"program {number}" + (f", {program}," if program else "")
        described += f" {whose}," if whose else ""
        evidence = f"{described} is attached in {mode} mode"
        yield Precondition("existing-program", Answer.YES, evidence, modes=(mode,))
        yield Precondition(
            "existing-program",
            Answer.NO,
            f"{evidence}, and the modes exclude each other",
            modes=(other,),
        )


def _lro(seen: Observation) -> Precondition:
    name = seen.link.name
    known = [seen.offloads[offload] for offload in (LRO, GRO_HW) if offload in seen.offloads]
    if not known:
        return Precondition("lro", Answer.UNKNOWN, f"{name} does not say whether LRO is on")
    on = [name for name in (LRO, GRO_HW) if name in seen.offloads and seen.offloads[name].active]
    if not on:
        return Precondition("lro", Answer.YES, "LRO and GRO-HW are off")
    short = " ".join(f"{offload} off" for offload in on)
    return Precondition(
        "lro", Answer.NO, f"on: {', '.join(on)}", remedy=f"ethtool -K {name} {short}"
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
