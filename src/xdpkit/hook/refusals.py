# SPDX-License-Identifier: Apache-2.0
"""Why the kernel refuses to attach: what errno, mode and driver tell together.

A link gets an errno and no text. What is said here holds for every program; a cause that depends on
who is on the hook is found by looking at the hook, not here.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from xdpkit.hook.mode import Mode
from xdpkit.interfaces import Interface


@dataclass(frozen=True, slots=True)
class Refusal:
    """A cause of an errno from attaching, and what certainly helps.

    Attributes:
        errno: what the kernel returned.
        cause: why; ``{name}`` is the interface, ``{driver}`` its driver.
        remedy: None where none is sure; with the same placeholders.
        mode: the mode in which it can be, None: any.
        driver: the driver whose refusal it is, None: any.
    """

    errno: int
    cause: str
    remedy: str | None = None
    mode: Mode | None = None
    driver: str | None = None


# The first that fits is taken: a driver's own before what holds for all.
REFUSALS = (
    # drivers/net/veth.c: veth_xdp_set()
    Refusal(
        errno.ERANGE,
        "the MTU of {name}'s veth peer is too large for packets that lie in one page",
        "lower the peer's MTU, to 1500 for instance, or use a program in section xdp.frags",
        mode=Mode.NATIVE,
        driver="veth",
    ),
    Refusal(
        errno.ENOSPC,
        "{name} has fewer RX queues in use than its veth peer has TX queues",
        "reduce the peer's: ethtool -L PEER tx 1",
        mode=Mode.NATIVE,
        driver="veth",
    ),
    Refusal(
        errno.ENOTCONN,
        "{name}'s veth peer is being removed",
        mode=Mode.NATIVE,
        driver="veth",
    ),
    # drivers/net/ethernet/intel/idpf
    Refusal(errno.ENOSPC, "{driver} has no TX queue left for XDP", mode=Mode.NATIVE, driver="idpf"),
    # drivers/net/ethernet: ice_xdp_setup_prog(), ixgbe_xdp_setup(), nicvf_xdp_setup()
    Refusal(
        errno.ENOMEM,
        "memory ran out, or {driver} has too few TX queues to give XDP its own",
        mode=Mode.NATIVE,
        driver="ice",
    ),
    Refusal(
        errno.ENOMEM,
        "memory ran out, or {driver} has fewer TX queues than this machine has CPUs",
        mode=Mode.NATIVE,
        driver="ixgbe",
    ),
    Refusal(
        errno.ENOMEM,
        "memory ran out, or {driver} has too few queues to give XDP its own",
        mode=Mode.NATIVE,
        driver="nicvf",
    ),
    # net/core/dev.c: dev_xdp_attach(), dev_xdp_install(); the drivers' ndo_bpf
    Refusal(
        errno.EOPNOTSUPP,
        "{driver} has no native XDP, or not in its present configuration (MTU, LRO, queues)",
        "attach in generic mode (--mode generic, mode=Mode.GENERIC), at the cost of an skb per"
        " packet",
        mode=Mode.NATIVE,
    ),
    Refusal(
        errno.EOPNOTSUPP,
        "{driver} cannot run programs on the NIC",
        mode=Mode.OFFLOAD,
    ),
    Refusal(
        errno.EINVAL,
        "{driver} cannot run programs on the NIC, or the program was not loaded for {name}",
        mode=Mode.OFFLOAD,
    ),
    Refusal(
        errno.EINVAL,
        "the program is bound to a device, and such programs do not run in generic mode",
        mode=Mode.GENERIC,
    ),
    Refusal(
        errno.EINVAL,
        "cause unknown; known ones are a configuration that {driver} cannot combine with XDP (an"
        " MTU too large for one buffer, LRO, SR-IOV, DCB) and a program bound to another device",
        mode=Mode.NATIVE,
    ),
    Refusal(
        errno.EEXIST,
        "a device above {name} (a bond) has a program already",
        "detach it there first",
    ),
    Refusal(
        errno.EBUSY,
        "{name} uses a memory provider or tcp-data-split, which exclude XDP",
    ),
    Refusal(errno.ENOMEM, "memory ran out"),
    Refusal(errno.ENODEV, "{name} is gone"),
)


def explain(number: int, interface: Interface, mode: Mode) -> tuple[str | None, str | None]:
    """Return cause and remedy of an errno from attaching to an empty hook; None where unknown."""
    for refusal in REFUSALS:
        if (
            refusal.errno == number
            and refusal.driver in (None, interface.driver)
            and refusal.mode in (None, mode)
        ):
            words = {
                "name": interface.name,
                "driver": f"driver {interface.driver}" if interface.driver else "its driver",
            }
            remedy = refusal.remedy
            return refusal.cause.format(**words), remedy.format(**words) if remedy else None
    return None, None
