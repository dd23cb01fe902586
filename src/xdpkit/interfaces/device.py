# SPDX-License-Identifier: Apache-2.0
"""An interface's findings: what was observed, judged."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from xdpkit.capabilities import (
    Answer,
    Device,
    Finding,
    Kernel,
    Precondition,
    generic,
    written,
)
from xdpkit.errors import UsageError
from xdpkit.interfaces import native, preconditions, table, veth
from xdpkit.interfaces.native import Said
from xdpkit.interfaces.observation import Observation, observe
from xdpkit.interfaces.table import Driver
from xdpkit.uapi.if_link import ARPHRD_ETHER, ARPHRD_LOOPBACK, IFF_UP

MODES = ("native", "generic", "offload")

_TAP_FRAGS = (
    "drivers/net/tun.c: a packet that does not fit a page takes generic mode's way"
    " (tun_can_build_skb()); netdev does not say so"
)


def device_of(iface: str | int, *, mode: str | None = None, netns: str | None = None) -> Device:
    """Return everything that is known about an interface, with the evidence.

    ::

        device_of("veth0").findings["redirect-target"]
        # NO: netdev: NDO_XMIT clear; its peer, veth1, has neither a native program nor GRO

    Args:
        iface: interface name, or index.
        mode: "native" (also for None), "generic" or "offload": what the findings are about.
        netns: name or path of the interface's network namespace; None: the caller's own.

    Raises:
        UsageError: there is no such interface or namespace, or no such mode.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    mode = mode or "native"
    if mode not in MODES:
        raise UsageError(f"examine {iface}", cause=f"the modes are {', '.join(MODES)}")
    return judge(observe(iface, netns_name=netns), mode)


def judge(seen: Observation, mode: str = "native") -> Device:
    """Return the findings that follow from what was observed; pure."""
    driver = table.find(seen.interface.driver or seen.link.kind, seen.kernel)
    found = _of_native_mode(seen, driver)
    found["mode-generic"] = _generic(seen.kernel)["mode-generic"]
    found["rx-queues"] = _queues(seen)
    if mode == "generic":
        found |= _generic(seen.kernel)
    elif mode == "offload":
        found = _of_offload_mode(found)
    return Device(
        name=seen.interface.name,
        driver=seen.interface.driver,
        kernel=seen.kernel.text,
        kind=seen.link.kind,
        mtu=seen.link.mtu,
        rx_queues=seen.channels.rx if seen.channels is not None else seen.link.rx_queues,
        tx_queues=seen.channels.tx if seen.channels is not None else seen.link.tx_queues,
        findings=dict(sorted(found.items())),
        preconditions=tuple(_preconditions(seen, driver, found)),
        source="live",
        mode=mode,
    )


@functools.lru_cache(maxsize=4)
def _generic(kernel: Kernel) -> Mapping[str, Finding]:
    return generic.findings(kernel)


def _of_native_mode(seen: Observation, driver: Driver | None) -> dict[str, Finding]:
    found = native.findings_of(
        _features(seen, driver), driver=driver, kernel=seen.kernel, said=seen.netdev
    )
    if driver is not None and driver.mtu is not None and seen.link.kind != veth.KIND:
        found["mtu"] = Finding("mtu", Answer.YES, driver.mtu.source, driver.mtu.limit)
    if seen.link.kind == veth.KIND:
        found |= {finding.capability: finding for finding in veth.findings(seen, found)}
    if seen.interface.driver == "tun" and found["mode-native"].answer is Answer.YES:
        found["frags"] = Finding("frags", Answer.YES, _TAP_FRAGS)
    for name in ("redirect-target", "redirect-target-frags"):
        found[name] = _target(found[name], seen, driver)
    return found


def _target(finding: Finding, seen: Observation, driver: Driver | None) -> Finding:
    """Return whether others can redirect to the interface in the state that it is in."""
    entry = driver.features.get("ndo_xmit") if driver is not None else None
    if entry is not None and entry.needs == "program" and seen.link.xdp.native is None:
        # Of some drivers netdev says NDO_XMIT at all times (mlx5_core up to 6.18, vmxnet3).
        if finding.answer is not Answer.NO:
            why = f"{finding.evidence}, but {seen.interface.driver} transmits only with a program"
            return Finding(finding.capability, Answer.NO, why)
        why = f"{finding.evidence}; {seen.interface.driver} has it only while it has a program"
        return Finding(finding.capability, Answer.NO, why)
    if finding.answer is Answer.YES and not seen.link.flags & IFF_UP:
        why = f"{finding.evidence}, but {seen.link.name} is down"
        return Finding(finding.capability, Answer.UNKNOWN, why)
    return finding


def _of_offload_mode(found: dict[str, Finding]) -> dict[str, Finding]:
    """Return what can be said about programs on the NIC: only whether it takes any."""
    kept = ("mode-offload", "mode-native", "mode-generic", "rx-queues")
    offload = found["mode-offload"]
    if offload.answer is Answer.NO:
        return native.without(offload.evidence) | {name: found[name] for name in kept}
    return {name: found[name] for name in kept}


def _features(seen: Observation, driver: Driver | None) -> dict[str, Said]:
    if seen.netdev is not None:
        features = native.by_netdev(seen.netdev, driver, seen.kernel)
        if not seen.netdev.features and features["basic"][0] is Answer.NO:
            return dict.fromkeys(features, _why_netdev_has_none(seen, driver))
        return features
    if _is_tun(seen):
        return dict.fromkeys(table.FEATURES, (Answer.NO, "a tun device has none, only a tap has"))
    if driver is not None:
        return native.by_table(driver, seen.kernel)
    return dict.fromkeys(table.FEATURES, _unlisted(seen))


def _why_netdev_has_none(seen: Observation, driver: Driver | None) -> Said:
    """Return whether there is native XDP although netdev reports nothing."""
    said = "netdev: xdp-features 0"
    answer, evidence = seen.takes_programs
    if answer is Answer.NO:
        return Answer.NO, f"{said}, and the driver takes no programs ({evidence})"
    if _is_tun(seen):
        return Answer.NO, f"{said}; a tun device has no native XDP, only a tap has"
    if driver is not None:
        return Answer.NO, f"{said}, although {driver.name} has native XDP: {_excuse(driver)}"
    unlisted, why = _unlisted(seen)
    if answer is Answer.UNKNOWN and unlisted is Answer.NO:
        return Answer.NO, f"{said}; {why}"
    return Answer.UNKNOWN, f"{said}; {evidence}"


def _excuse(driver: Driver) -> str:
    rules = [rule.text for rule in driver.constraints if rule.effect == "feature"]
    return "; ".join(rules) or "not as the device is configured now"


def _unlisted(seen: Observation) -> Said:
    """Return what is known about a driver that the table has no features of."""
    name = seen.interface.driver or seen.link.kind
    if seen.link.hardware_type == ARPHRD_LOOPBACK:
        name = "loopback"
    entry = table.find_without_native(name)
    if entry is None:
        return Answer.UNKNOWN, f"the table of drivers has nothing on {name or 'this driver'}"
    evidence = f"{name} has no native XDP up to Linux {written(entry.last)} ({entry.source})"
    if seen.kernel.release is None or seen.kernel.release > entry.last:
        return Answer.UNKNOWN, evidence
    return Answer.NO, evidence


def _is_tun(seen: Observation) -> bool:
    return seen.interface.driver == "tun" and seen.link.hardware_type != ARPHRD_ETHER


def _queues(seen: Observation) -> Finding:
    if seen.channels is not None:
        number, evidence = seen.channels.rx, "ethtool: channels in use"
    else:
        number, evidence = seen.link.rx_queues, "rtnetlink: queues that the device was made with"
    return Finding("rx-queues", Answer.YES, evidence, number)


def _preconditions(
    seen: Observation, driver: Driver | None, found: dict[str, Finding]
) -> list[Precondition]:
    listed = list(preconditions.of_the_hook(seen))
    if seen.link.kind == veth.KIND:
        listed += veth.preconditions(seen)
    elif driver is not None and found["mode-native"].answer is not Answer.NO:
        listed += preconditions.of_configuration(seen, driver)
    elif driver is not None:
        # What would have to change is what makes the driver report none.
        listed += [
            condition
            for condition in preconditions.of_configuration(seen, driver)
            if condition.answer is Answer.NO
        ]
    return listed
