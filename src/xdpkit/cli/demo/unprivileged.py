# SPDX-License-Identifier: Apache-2.0
"""What the demo shows without privilege: what it needs, and the program that it would attach."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator

from xdpkit.cli.command import Settings
from xdpkit.cli.demo import shipped
from xdpkit.cli.demo.interrupts import Interrupts
from xdpkit.cli.demo.teller import Teller
from xdpkit.cli.options import DEFAULT_PIN_ROOT
from xdpkit.cli.render import Column, emit_json, table
from xdpkit.syscalls.privilege import effective_capabilities, in_initial_user_namespace, lacks
from xdpkit.syscalls.statfs import is_bpffs
from xdpkit.uapi.capability import Capability

_NEEDED = (Capability.SYS_ADMIN, Capability.NET_ADMIN)


def missing_privilege() -> str | None:
    """Return what this process lacks, None if it has all that the demo needs."""
    effective = effective_capabilities()
    missing = [c.kernel_name for c in _NEEDED if not effective >> c & 1]
    if missing:
        return f"this process lacks {' and '.join(missing)}"
    if not in_initial_user_namespace():
        return "this process is in a user namespace, whose capabilities do not count for BPF"
    return None


def tell_without_privilege(settings: Settings, missing: str) -> None:
    """Say what the demo needs, and show the program."""
    folder = shipped.folder()
    with (
        Interrupts() as interrupts,
        contextlib.chdir(folder),
        Teller(settings, interrupts, pausing=False) as teller,
    ):
        teller.explain(
            "The demo makes network namespaces and attaches a program to an interface in one of"
            f" them. That takes root: {missing}."
        )
        teller.say()
        teller.say(f"    sudo {shlex.quote(sys.executable)} -m xdpkit demo")
        teller.step(
            "What needs no privilege: a look at the program",
            "It drops UDP datagrams to one port, and counts what it did with every packet.",
        )
        teller.show_folder(folder)
        teller.command(["inspect", shipped.FIREWALL])
        teller.step("What it would take to attach it")
        for line in table(
            [Column("needed"), Column("here")], [[need, here] for need, here in _needs()]
        ):
            teller.say(line)
    if settings.json:
        emit_json({"ran": False, "missing": missing, "steps": teller.steps}, pretty=settings.pretty)


def _needs() -> Iterator[tuple[str, str]]:
    """Yield what attaching needs, and how that is here."""
    missing = lacks((Capability.BPF, Capability.NET_ADMIN, Capability.PERFMON))
    names = " and ".join(c.kernel_name for c in missing)
    yield "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", f"missing: {names}" if missing else "there"
    yield "Linux 5.9 or later: bpf_link for XDP", f"Linux {os.uname().release}"
    mounted = is_bpffs(DEFAULT_PIN_ROOT)
    yield f"a BPF file system at {DEFAULT_PIN_ROOT}", "mounted" if mounted else "missing"
    yield "a driver with native XDP", "found out when attaching; --mode generic does without"
