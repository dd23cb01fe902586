# SPDX-License-Identifier: Apache-2.0
"""What a driver's native XDP offers: netdev's word first, then the table of drivers."""

from __future__ import annotations

from collections.abc import Mapping

from xdpkit.capabilities import (
    CAPABILITIES,
    Answer,
    Finding,
    Kernel,
    Release,
    Scope,
    written,
)
from xdpkit.interfaces import table
from xdpkit.interfaces.table import Driver, Since
from xdpkit.syscalls.netdev import NetdevInfo
from xdpkit.uapi.netdev import XdpAct, XdpRxMetadata

Said = tuple[Answer, str]

# By the feature that they stand for, in the names of include/uapi/linux/netdev.h.
_OF_FEATURE = {
    "basic": (
        "mode-native",
        "action-aborted",
        "action-drop",
        "action-pass",
        "action-tx",
    ),
    "redirect": (
        "action-redirect",
        "redirect-devmap",
        "redirect-cpumap",
        "redirect-xskmap",
        "redirect-ifindex",
    ),
    "ndo_xmit": ("redirect-target",),
    "ndo_xmit_sg": ("redirect-target-frags",),
    "rx_sg": ("frags",),
    "xsk_zerocopy": ("zero-copy",),
    "hw_offload": ("mode-offload",),
}

# Part of what it is to have native XDP. Before the release the helper refused on every driver.
_OF_EVERY_DRIVER = {
    "packet-write": ((4, 8), "programs get packets in memory that may be written"),
    "adjust-head": (
        (4, 14),
        "packets have head room: XDP_PACKET_HEADROOM, or 192 bytes on Intel's",
    ),
    "adjust-tail-shrink": ((4, 18), "bpf_xdp_adjust_tail() needs nothing of the driver to shrink"),
    "adjust-tail-grow": ((5, 8), "drivers tell the buffer's size, xdp_buff.frame_sz"),
}

_HINTS = {
    "rx-timestamp": XdpRxMetadata.TIMESTAMP,
    "rx-hash": XdpRxMetadata.HASH,
    "rx-vlan": XdpRxMetadata.VLAN_TAG,
}
_HINTS_SINCE = (6, 3)

# The core looks at the other bits itself, so what does not report them does not have them:
# NDO_XMIT in kernel/bpf/devmap.c, XSK_ZEROCOPY in net/xdp/xsk_buff_pool.c.
_MAY_GO_UNREPORTED = ("basic", "redirect", "rx_sg")

# They say where a program runs, or what is true of the interface whether it has native XDP or not.
_NOT_OF_THE_PROGRAM = frozenset(
    {"mode-offload", "redirect-target", "redirect-target-frags", "rx-queues", "mtu", "action-any"}
)


def by_netdev(said: NetdevInfo, driver: Driver | None, kernel: Kernel) -> dict[str, Said]:
    """Return what a device offers, by feature: what netdev says, and what it leaves out."""
    features = {}
    for bit in XdpAct:
        name = (bit.name or "").lower()
        is_set = bit in said.features
        state = "set" if is_set else "clear"
        features[name] = (Answer.YES if is_set else Answer.NO, f"netdev: {bit.name} {state}")
    for name, entry in (driver.features if driver is not None else {}).items():
        answer, evidence = features[name]
        if answer is Answer.YES and entry.is_overreported:
            features[name] = Answer.UNKNOWN, f"{evidence}, {entry.restriction(kernel)}"
        elif answer is Answer.NO and name in _MAY_GO_UNREPORTED and _is_unreported(entry, kernel):
            features[name] = _unreported(entry, kernel)
    return features


def by_table(driver: Driver, kernel: Kernel) -> dict[str, Said]:
    """Return what a driver offers, by feature, in a kernel that cannot be asked."""
    features = {}
    for bit in XdpAct:
        name = (bit.name or "").lower()
        entry = driver.features.get(name)
        answer, why = table.answer(entry, kernel, driver.name)
        if answer is Answer.YES and entry is not None and entry.needs is not None:
            holder = "its peer" if entry.needs == "peer" else "it"
            answer, why = Answer.UNKNOWN, f"{why}, while {holder} has a program"
        features[name] = answer, why
    return features


def findings_of(
    features: Mapping[str, Said],
    *,
    driver: Driver | None,
    kernel: Kernel,
    said: NetdevInfo | None,
) -> dict[str, Finding]:
    """Return the findings about native mode that follow from a driver's features."""
    found = {
        name: Finding(name, *features[feature])
        for feature, names in _OF_FEATURE.items()
        for name in names
    }
    basic = found["mode-native"]
    for name, (since, why) in _OF_EVERY_DRIVER.items():
        found[name] = Finding(name, *_of_every_driver(basic, since, why, kernel))
    for name in _HINTS:
        found[name] = Finding(name, *_hint(name, driver, kernel, said))
    found["adjust-meta"] = Finding(
        "adjust-meta",
        *(
            driver.adjust_meta
            if driver is not None
            else (Answer.UNKNOWN, "netdev never says, and the table of drivers has nothing on it")
        ),
    )
    found["zero-copy-frags"] = _zero_copy_frags(found["zero-copy"], said)
    if basic.answer is Answer.NO:
        found |= without(basic.evidence)
    return found


def without(evidence: str) -> dict[str, Finding]:
    """Return the findings about an interface that has no native XDP."""
    return {
        name: Finding(name, Answer.NO, evidence)
        for name, info in CAPABILITIES.items()
        if info.scope is Scope.DRIVER and name not in _NOT_OF_THE_PROGRAM
    }


def _is_unreported(entry: Since, kernel: Kernel) -> bool:
    if kernel.release is None or kernel.release < entry.since:
        return False
    return entry.reported is None or kernel.release < entry.reported


def _unreported(entry: Since, kernel: Kernel) -> Said:
    answer, why = table.answer(entry, kernel, "the driver")
    return answer, f"{why}, which does not tell netdev"


def _of_every_driver(basic: Finding, since: Release, why: str, kernel: Kernel) -> Said:
    if basic.answer is not Answer.YES:
        return basic.answer, basic.evidence
    if kernel.has(since):
        return Answer.YES, f"with native XDP since Linux {written(since)}: {why}"
    answer = Answer.NO if kernel.release is not None and not kernel.backports else Answer.UNKNOWN
    return answer, f"only since Linux {written(since)}"


def _hint(name: str, driver: Driver | None, kernel: Kernel, said: NetdevInfo | None) -> Said:
    bit = _HINTS[name]
    if said is not None and said.rx_metadata is not None:
        is_set = bit in said.rx_metadata
        answer = Answer.YES if is_set else Answer.NO
        return answer, f"netdev: rx-metadata {bit.name} {'set' if is_set else 'clear'}"
    if kernel.release is not None and not kernel.has(_HINTS_SINCE) and not kernel.backports:
        return Answer.NO, f"the metadata kfuncs came with Linux {written(_HINTS_SINCE)}"
    if driver is None:
        return Answer.UNKNOWN, "netdev says since Linux 6.8 only; not in the table of drivers"
    return table.answer(driver.hints.get(name), kernel, driver.name)


def _zero_copy_frags(zero_copy: Finding, said: NetdevInfo | None) -> Finding:
    name = "zero-copy-frags"
    if zero_copy.answer is Answer.NO:
        return Finding(name, Answer.NO, zero_copy.evidence)
    segments = said.zc_max_segs if said is not None else None
    if segments is None:
        return Finding(name, Answer.UNKNOWN, "netdev says it since Linux 6.6")
    answer = Answer.YES if segments > 1 else Answer.NO
    return Finding(name, answer, f"netdev: xdp-zc-max-segs {segments}", segments)
