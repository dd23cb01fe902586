# SPDX-License-Identifier: Apache-2.0
"""What one replace costs, beside the bare exchange that libbpf makes.

Most of the time is the kernel's: it waits until no CPU runs the old program, and its dispatcher of
XDP programs is written anew (bpf_dispatcher_change_prog() in kernel/bpf/dispatcher.c). So the bare
exchange (``bpf_link_update()`` of libbpf; one netlink request) is measured in the same run, by
turns, on a veth and with programs of its own. What xdpkit adds is a look at the hook, negotiation,
the record, the lock, and sweeping what the old program leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.kernel.attaching import BPFFS
from tests.kernel.compiled import returning
from tests.kernel.net import make_veth, namespace
from xdpkit import Hook
from xdpkit.hook import Mode, Via
from xdpkit.kernel import Program
from xdpkit.syscalls import bpf, rtnetlink
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, XdpAction

RUNS = 40

Exchange = Callable[[Program], object]
Way = Callable[[str, Program, contextlib.ExitStack], Exchange]


def main() -> None:
    """Print a line for each way: milliseconds, and how many times the bare exchange that is."""
    print("Replacing a loaded program on a veth: milliseconds, medians of", RUNS, "runs, by turns")
    with contextlib.ExitStack() as resources:
        netns = resources.enter_context(namespace())
        turns = {name: _turns(way, netns, resources) for name, way in WAYS.items()}
        times: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(RUNS):
            for name, turn in turns.items():
                start = time.perf_counter()
                turn()
                times[name].append((time.perf_counter() - start) * 1000)
    bare = 1.0
    for name, taken in times.items():
        median = statistics.median(taken)
        if not name.startswith("Hook"):
            bare = median
        print(f"{name:36}{median:10.2f} ms{median / bare:8.1f}", flush=True)


def _turns(way: Way, netns: str, resources: contextlib.ExitStack) -> Callable[[], object]:
    """Return what exchanges two programs of its own, in turn, on an interface of its own."""
    one = resources.enter_context(returning(XdpAction.PASS, name="one"))
    other = resources.enter_context(returning(XdpAction.DROP, name="other"))
    exchange = way(netns, one, resources)
    programs = itertools.cycle((other, one))
    return lambda: exchange(next(programs))


def _bare_link(netns: str, first: Program, resources: contextlib.ExitStack) -> Exchange:
    veth = make_veth(netns)
    with entered(netns):
        link = bpf.link_create(first.fileno(), veth.interface.index, AttachType.XDP)
    resources.enter_context(link)
    update = ctypes.CDLL("libbpf.so.1").bpf_link_update

    def exchange(program: Program) -> None:
        if update(link.fileno(), program.fileno(), None):
            raise SystemExit("bench: libbpf did not update the link")

    return exchange


def _bare_netlink(netns: str, first: Program, resources: contextlib.ExitStack) -> Exchange:
    index = make_veth(netns).interface.index
    with entered(netns):
        connection = resources.enter_context(NetlinkSocket())

    def exchange(program: Program) -> None:
        flags = Mode.NATIVE.flag
        rtnetlink.set_xdp(connection, index, fd=program.fileno(), flags=flags, what="measure")

    exchange(first)
    return exchange


def _hook(via: Via) -> Way:
    def way(netns: str, first: Program, resources: contextlib.ExitStack) -> Exchange:
        root = Path(BPFFS, f"bench-{via.value}")
        root.mkdir(0o700)
        resources.callback(root.rmdir)
        resources.callback(_remove, root / "xdpkit")
        hook = Hook(make_veth(netns).name, netns=netns, pin_root=str(root))
        hook.add(first, via=via).close()
        resources.callback(hook.delete)
        return lambda program: hook.replace(program).close()

    return way


def _remove(folder: Path) -> None:
    if folder.exists():
        folder.rmdir()


WAYS: dict[str, Way] = {
    "bpf_link_update() of libbpf": _bare_link,
    "Hook.replace() of a link": _hook(Via.LINK),
    "one netlink request": _bare_netlink,
    "Hook.replace() by netlink": _hook(Via.NETLINK),
}


if __name__ == "__main__":
    main()
