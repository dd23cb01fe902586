# SPDX-License-Identifier: Apache-2.0
"""What generic mode offers: the network stack does it, on any interface (net/core/dev.c).

The stack copies a packet that is in pieces, or that has less head room than XDP_PACKET_HEADROOM,
into one piece; from Linux 6.9 on a program that takes frags gets them instead. LRO and GRO-HW are
switched off when a program is attached.
"""

from __future__ import annotations

from xdpkit.capabilities.finding import Answer, Finding
from xdpkit.capabilities.kernel import Kernel, Release, written
from xdpkit.capabilities.table import CAPABILITIES, Scope

_ALWAYS = (4, 12)
# What a kernel that is not named has at least: xdpkit runs on none that is older.
_OLDEST = (5, 10)

# Redirects, and what helpers do to an skb, came later than generic mode itself.
_SINCE: dict[str, tuple[Release, str]] = {
    "action-redirect": ((4, 14), "net/core/filter.c: xdp_do_generic_redirect()"),
    "redirect-ifindex": ((4, 14), "net/core/filter.c: xdp_do_generic_redirect()"),
    "redirect-devmap": ((4, 14), "kernel/bpf/devmap.c: dev_map_generic_redirect()"),
    "redirect-xskmap": ((4, 18), "net/xdp/xsk.c: xsk_generic_rcv()"),
    "redirect-cpumap": ((5, 15), "kernel/bpf/cpumap.c: cpu_map_generic_redirect()"),
    "adjust-tail-shrink": ((4, 18), "net/core/dev.c: bpf_prog_run_generic_xdp()"),
    "adjust-tail-grow": (
        (5, 8),
        "net/core/dev.c: bpf_prog_run_generic_xdp(); by as much as the skb has tail room",
    ),
}
_STACK = "net/core/dev.c: the network stack does it for every interface"
_FRAGS = "net/core/dev.c: packets in several buffers come in one piece, or as frags"
_MTU = "net/core/dev.c: generic mode has no limit on the MTU"
_BOUND = (
    "programs that call metadata kfuncs are bound to a device, and such programs are refused in"
    " generic mode (dev_xdp_attach() in net/core/dev.c)"
)
_COPIED = "generic mode copies what an AF_XDP socket gets (xsk_generic_rcv() in net/xdp/xsk.c)"

_NO = {
    "rx-timestamp": _BOUND,
    "rx-hash": _BOUND,
    "rx-vlan": _BOUND,
    "zero-copy": _COPIED,
    "zero-copy-frags": _COPIED,
}
_YES = {"frags": _FRAGS, "mtu": _MTU}

OF_THE_INTERFACE = frozenset(
    {"mode-native", "mode-offload", "redirect-target", "redirect-target-frags", "rx-queues"}
)
"""What is true of the interface in whatever mode a program on it runs."""


def findings(kernel: Kernel) -> dict[str, Finding]:
    """Return the findings about generic mode, which are the same for every interface."""
    found = {"mode-generic": _since("mode-generic", _ALWAYS, _STACK, kernel)}
    for name, info in CAPABILITIES.items():
        if info.scope is not Scope.DRIVER or name in {*OF_THE_INTERFACE, "action-any"}:
            continue
        if name in _NO:
            found[name] = Finding(name, Answer.NO, _NO[name])
        else:
            since, why = _SINCE.get(name, (_ALWAYS, _YES.get(name, _STACK)))
            found[name] = _since(name, since, why, kernel)
    return found


def _since(name: str, since: Release, why: str, kernel: Kernel) -> Finding:
    if kernel.has(since) or (kernel.release is None and since <= _OLDEST):
        return Finding(name, Answer.YES, why)
    later = f"only since Linux {written(since)} ({why})"
    is_known = kernel.release is not None and not kernel.backports
    return Finding(name, Answer.NO if is_known else Answer.UNKNOWN, later)
