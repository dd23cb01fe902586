# SPDX-License-Identifier: Apache-2.0
"""Every capability by its name. Names are stable: files and scripts hold them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from xdpkit.errors import UsageError
from xdpkit.uapi.bpf import XdpAction


class Scope(enum.Enum):
    """Who offers a capability."""

    DRIVER = "driver"
    KERNEL = "kernel"
    XDPKIT = "xdpkit"


@dataclass(frozen=True, slots=True)
class CapabilityInfo:
    """A capability.

    Attributes:
        name: its stable name.
        meaning: what a program can do where it is offered.
        evidence: the kernel's bit, or the test, that tells whether it is there.
        since: the first Linux release in which anything offered it; "" where that differs for
            each member of a family.
        scope: whether the driver decides, the kernel, or xdpkit and what it keeps.
    """

    name: str
    meaning: str
    evidence: str
    since: str
    scope: Scope = Scope.DRIVER


_K, _X = Scope.KERNEL, Scope.XDPKIT

_TABLE = (
    CapabilityInfo(
        "action-aborted",
        "XDP_ABORTED drops the packet and fires the tracepoint xdp:xdp_exception",
        "netdev xdp-features: BASIC",
        "4.8",
    ),
    CapabilityInfo("action-drop", "XDP_DROP drops the packet", "netdev xdp-features: BASIC", "4.8"),
    CapabilityInfo(
        "action-pass", "XDP_PASS gives the packet to the stack", "netdev xdp-features: BASIC", "4.8"
    ),
    CapabilityInfo(
        "action-tx",
        "XDP_TX sends the packet out of the interface that it came in by",
        "netdev xdp-features: BASIC",
        "4.8",
    ),
    CapabilityInfo(
        "action-redirect",
        "XDP_REDIRECT sends the packet where bpf_redirect() or bpf_redirect_map() said",
        "netdev xdp-features: REDIRECT",
        "4.14",
    ),
    CapabilityInfo(
        "action-any",
        "every return value is handled: what a program needs whose values cannot be known",
        "all five actions; other values are counted as invalid and dropped",
        "4.8",
    ),
    CapabilityInfo(
        "mode-native", "programs run in the driver", "netdev xdp-features: BASIC", "4.8"
    ),
    CapabilityInfo(
        "mode-generic",
        "programs run in the network stack, on an skb",
        "every network device; net/core/dev.c: generic_xdp_install()",
        "4.12",
        _K,
    ),
    CapabilityInfo(
        "mode-offload", "programs run on the NIC", "netdev xdp-features: HW_OFFLOAD", "4.16"
    ),
    CapabilityInfo(
        "link",
        "a program is attached by a bpf_link",
        "probe: BPF_LINK_CREATE for BPF_XDP",
        "5.9",
        _K,
    ),
    CapabilityInfo(
        "frags",
        "packets may lie in several buffers; the program says so by BPF_F_XDP_HAS_FRAGS",
        "netdev xdp-features: RX_SG",
        "5.18",
    ),
    CapabilityInfo(
        "redirect-devmap",
        "redirect into a map of interfaces",
        "netdev xdp-features: REDIRECT",
        "4.14",
    ),
    CapabilityInfo(
        "redirect-cpumap",
        "redirect to another CPU's stack",
        "netdev xdp-features: REDIRECT",
        "4.15",
    ),
    CapabilityInfo(
        "redirect-xskmap",
        "redirect into an AF_XDP socket",
        "netdev xdp-features: REDIRECT",
        "4.18",
    ),
    CapabilityInfo(
        "redirect-ifindex",
        "redirect to an interface by its index, without a map",
        "netdev xdp-features: REDIRECT",
        "4.14",
    ),
    CapabilityInfo(
        "redirect-broadcast",
        "one packet is redirected to every interface of a map (BPF_F_BROADCAST)",
        "probe: BPF_PROG_TEST_RUN of a program that asks for it",
        "5.14",
        _K,
    ),
    CapabilityInfo(
        "redirect-broadcast-frags",
        "every interface of the map gets all buffers of a packet that lies in several",
        "generic mode; in native mode net/core/xdp.c: xdpf_clone() copies the first buffer only",
        "6.9",
        _K,
    ),
    CapabilityInfo(
        "redirect-target",
        "this interface transmits what other interfaces redirect to it",
        "netdev xdp-features: NDO_XMIT; on some drivers only while a program is attached,"
        " on a veth only while its peer receives by XDP or GRO",
        "4.14",
    ),
    CapabilityInfo(
        "redirect-target-frags",
        "this interface transmits redirected packets that lie in several buffers",
        "netdev xdp-features: NDO_XMIT_SG",
        "5.18",
    ),
    CapabilityInfo(
        "adjust-head",
        "bpf_xdp_adjust_head() moves the start of the packet",
        "table of drivers; in the kernel since the release named",
        "4.10",
    ),
    CapabilityInfo(
        "adjust-meta",
        "bpf_xdp_adjust_meta() makes room for metadata before the packet",
        "table of drivers (the receive path calls xdp_set_data_meta_invalid() where it has none);"
        " netdev never reports it",
        "4.15",
    ),
    CapabilityInfo(
        "adjust-tail-shrink",
        "bpf_xdp_adjust_tail() cuts the end of the packet off",
        "table of drivers; in the kernel since the release named",
        "4.18",
    ),
    CapabilityInfo(
        "adjust-tail-grow",
        "bpf_xdp_adjust_tail() makes the packet longer",
        "table of drivers (xdp_buff.frame_sz is set)",
        "5.8",
    ),
    CapabilityInfo(
        "packet-write", "the program changes bytes of the packet", "table of drivers", "4.8"
    ),
    CapabilityInfo(
        "rx-timestamp",
        "bpf_xdp_metadata_rx_timestamp() gives the time of reception",
        "netdev xdp-rx-metadata-features: TIMESTAMP",
        "6.3",
    ),
    CapabilityInfo(
        "rx-hash",
        "bpf_xdp_metadata_rx_hash() gives the hash that the NIC computed",
        "netdev xdp-rx-metadata-features: HASH",
        "6.3",
    ),
    CapabilityInfo(
        "rx-vlan",
        "bpf_xdp_metadata_rx_vlan_tag() gives the VLAN tag that the NIC took off",
        "netdev xdp-rx-metadata-features: VLAN_TAG",
        "6.8",
    ),
    CapabilityInfo(
        "zero-copy",
        "AF_XDP sockets share their memory with the NIC",
        "netdev xdp-features: XSK_ZEROCOPY",
        "4.18",
    ),
    CapabilityInfo(
        "zero-copy-frags",
        "zero-copy for packets in several buffers; the limit is their number",
        "netdev xdp-zc-max-segs above 1",
        "6.6",
    ),
    CapabilityInfo(
        "port-index",
        "the interface has a number in a port table, which the program reads as port_index",
        "the port tables: xdpkit ports show",
        "5.10",
        _X,
    ),
    CapabilityInfo(
        "port-table",
        "the interface is a port of a table, whose maps the program uses",
        "the port tables: xdpkit ports show",
        "5.10",
        _X,
    ),
    CapabilityInfo(
        "btf-tracing",
        "tracepoints and functions can be traced with types (tp_btf, fentry)",
        "probe: BPF_PROG_LOAD of BPF_PROG_TYPE_TRACING",
        "5.5",
        _K,
    ),
    CapabilityInfo(
        "test-run",
        "programs can be run on a given packet",
        "probe: BPF_PROG_TEST_RUN",
        "4.12",
        _K,
    ),
    CapabilityInfo(
        "test-run-live",
        "test-run's packets go where the program sends them",
        "probe: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES",
        "5.18",
        _K,
    ),
    CapabilityInfo(
        "mtu",
        "the limit is the largest MTU, in bytes, for a program without frags",
        "table of drivers",
        "4.8",
    ),
    CapabilityInfo(
        "rx-queues",
        "the limit is the number of receive queues in use",
        "ethtool channels, else the number of queues that the device was made with",
        "4.8",
    ),
)

_FAMILY_TABLE = (
    CapabilityInfo(
        "action-code:NAME",
        "this return value, a number, means something; never so: those that do are actions",
        "net/core/filter.c: bpf_warn_invalid_xdp_action() counts it as invalid, and the packet is"
        " dropped",
        "",
    ),
    CapabilityInfo(
        "precondition:NAME",
        "the interface, as it is configured now, admits a program",
        "what the driver checks before it takes a program: MTU, queues, LRO, another program",
        "",
    ),
    CapabilityInfo(
        "helper:NAME",
        "XDP programs can call this helper",
        "probe: BPF_PROG_LOAD of a program that calls it",
        "",
        _K,
    ),
    CapabilityInfo(
        "kfunc:NAME",
        "the kernel has this function for programs to call",
        "BTF of the kernel and its modules",
        "",
        _K,
    ),
    CapabilityInfo(
        "map-type:NAME", "maps of this type can be made", "probe: BPF_MAP_CREATE", "", _K
    ),
    CapabilityInfo(
        "context-field:NAME",
        "struct xdpkit_md has this field, which a later xdpkit.h declares; never so: those that"
        " are provided need no capability",
        "the fields that this version of xdpkit provides",
        "",
        _X,
    ),
    CapabilityInfo(
        "port-set:NAME",
        "the port table has a set of this name",
        "the port tables: xdpkit ports show",
        "",
        _X,
    ),
)

CAPABILITIES = {info.name: info for info in _TABLE}
"""Every capability with a fixed name."""

FAMILIES = {info.name.partition(":")[0]: info for info in _FAMILY_TABLE}
"""Capabilities named after something else, by what stands before the colon. Names of the kernel's
follow in lower case and without the common prefix: ``helper:redirect_map``."""

_WORDS = {
    "helper": "helper bpf_{}",
    "kfunc": "kfunc {}",
    "map-type": "map type {}",
    "action-code": "may return {}",
    "precondition": "{}",
    "context-field": "reads {}",
    "port-set": "uses port set {}",
    "port-index": "reads port_index",
    "port-table": "uses the port table",
    "action-any": "may return any value",
    "mode-native": "native mode",
    "mode-generic": "generic mode",
    "mode-offload": "offload mode",
    "redirect-devmap": "redirect into devmap",
    "redirect-cpumap": "redirect into cpumap",
    "redirect-xskmap": "redirect into xskmap",
    "redirect-ifindex": "redirect to an interface",
    "redirect-broadcast": "redirect to all of a map",
    "redirect-broadcast-frags": "redirects packets in several buffers to all of a map",
    "redirect-target": "redirect target",
    "redirect-target-frags": "redirect target for frags",
    "adjust-tail-shrink": "adjust tail, shrinking",
    "adjust-tail-grow": "adjust tail, growing",
    "mtu": "MTU",
    "rx-timestamp": "hint rx_timestamp",
    "rx-hash": "hint rx_hash",
    "rx-vlan": "hint rx_vlan",
    "rx-queues": "RX queues",
    **{f"action-{action.name.lower()}": f"action {action.kernel_name}" for action in XdpAction},
}

# Of a number from 2**31 to 2**32.
_DIGITS = 10

_ACTIONS = {int(action): f"action-{action.name.lower()}" for action in XdpAction}


def capability(name: str) -> CapabilityInfo:
    """Return what is known about a capability.

    Raises:
        UsageError: there is none of this name.
    """
    found = CAPABILITIES.get(name)
    if found is not None:
        return found
    family, colon, member = name.partition(":")
    if colon and member and family in FAMILIES:
        return replace(FAMILIES[family], name=name)
    raise UsageError(
        f"look up capability {name!r}",
        cause="there is no such capability",
        remedy="docs/capabilities.md lists them",
    )


def action_capability(code: int) -> str | None:
    """Return the capability for a program's return code; None if it is no action.

    >>> action_capability(3)
    'action-tx'
    """
    return _ACTIONS.get(code)


def phrase(name: str) -> str:
    """Return a capability in words: "action XDP_TX", "helper bpf_redirect_map".

    Of a name that no capability has, as in another version's records, these are its own.

    >>> phrase("map-type:devmap")
    'map type devmap'
    """
    family, _, member = name.partition(":")
    words = _WORDS.get(family)
    if words is None:
        # Another version of xdpkit may know it.
        return f"{family.replace('-', ' ')} {member}".rstrip()
    if family == "action-code" and member.isdecimal() and len(member) == _DIGITS:
        # What C has as -1 is a u32 to the kernel.
        number = int(member)
        if number in range(1 << 31, 1 << 32):
            member = f"{member} ({number - (1 << 32)})"
    return words.format(member)
