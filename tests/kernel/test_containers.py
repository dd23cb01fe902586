# SPDX-License-Identifier: Apache-2.0
"""What the commands say in containers that lack something, word for word.

A container is a shell that is process 1 of a PID namespace, with mounts of its own. What it does is
a script; what was typed and printed is compared with a golden file. Where an error has a remedy,
the script carries it out, and tries again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import on_hook, program
from tests.kernel.net import Veth
from xdpkit.capabilities import Kernel, Release
from xdpkit.hook import Via
from xdpkit.syscalls.netns import path_of

# Absolute, because nsenter changes the folder.
_PACKAGES = str(Path(xdpkit.__file__).parents[1])

# $NAME is the network namespace, $DEV the interface. Commands are shown as a user would type them.
_PRELUDE = """
show() { echo "\\$ $*"; "$@" 2>&1 || echo "exit status $?"; }
xdpkit() { "$PYTHON" -m xdpkit "$@"; }
mount -t bpf bpf /sys/fs/bpf
"""

_ATTACH = "xdpkit attach $DEV minimal.o"
_ALL_THREE = f"show {_ATTACH}; show xdpkit status; show xdpkit detach $DEV"


@dataclass(frozen=True, slots=True)
class Case:
    """A container: what is made of it, and what is done in it.

    Attributes:
        script: shell, with ``show COMMAND`` for what is to be seen.
        outside: begin in the namespace of the tests, not in the interface's.
        held_by: what holds the program that is on the hook in the end; None: there is none.
        since: older kernels do without something else, and say so.
    """

    script: str
    outside: bool = False
    held_by: Via | None = None
    since: Release = (5, 10)


CASES = {
    "no-bpffs": Case(
        f"""
        mount -t tmpfs tmpfs /sys/fs/bpf
        {_ALL_THREE}
        show mount -t bpf bpf /sys/fs/bpf
        {_ALL_THREE}
        """
    ),
    "no-bpffs-netlink": Case(
        f"""
        mount -t tmpfs tmpfs /sys/fs/bpf
        show {_ATTACH} --netlink
        show xdpkit status
        show xdpkit detach $DEV
        """
    ),
    "read-only-bpffs": Case(
        f"""
        mount -o remount,ro /sys/fs/bpf
        {_ALL_THREE}
        show mount -o remount,rw /sys/fs/bpf
        {_ALL_THREE}
        """
    ),
    "private-bpffs": Case(
        f"""
        privately() {{ unshare --mount sh -c 'mount -t bpf bpf /sys/fs/bpf; exec "$0" "$@"' "$@"; }}
        xdpkit() {{ privately "$PYTHON" -m xdpkit "$@"; }}
        {_ALL_THREE}
        show {_ATTACH} --netlink
        show xdpkit status
        """,
        held_by=Via.NETLINK,
    ),
    "ip-netns-exec": Case(
        """
        xdpkit() { ip netns exec $NAME "$PYTHON" -m xdpkit "$@"; }
        show xdpkit attach $DEV minimal.o
        show xdpkit status
        show xdpkit detach $DEV
        xdpkit() { "$PYTHON" -m xdpkit "$@"; }
        show xdpkit -n $NAME attach $DEV minimal.o
        xdpkit() { ip netns exec $NAME "$PYTHON" -m xdpkit "$@"; }
        show xdpkit status
        show xdpkit detach $DEV
        xdpkit() { "$PYTHON" -m xdpkit "$@"; }
        show xdpkit -n $NAME detach $DEV
        """,
        outside=True,
    ),
    "read-only-sys": Case(f"mount -o remount,bind,ro /sys; {_ALL_THREE}"),
    "no-btf": Case(
        f"""
        mount -t tmpfs tmpfs /sys/kernel/btf
        show xdpkit attach $DEV enums.o
        {_ALL_THREE}
        """
    ),
    "no-tracefs": Case(
        f"""
        for folder in /sys/kernel/tracing /sys/kernel/debug; do
            [ ! -d $folder ] || mount -t tmpfs tmpfs $folder
        done
        {_ALL_THREE}
        show ip link set ${{DEV}}p mtu 9000
        show {_ATTACH} --force
        """,
        since=(6, 6),
    ),
    "no-proc": Case(
        f"""
        mount -t tmpfs tmpfs /proc
        {_ALL_THREE}
        show xdpkit -n $NAME status
        """,
        since=(5, 14),
    ),
    "hidepid": Case(
        f"""
        mount -t proc -o hidepid=2 proc /proc
        xdpkit() {{ setpriv --bounding-set=-sys_ptrace "$PYTHON" -m xdpkit "$@"; }}
        {_ALL_THREE}
        """
    ),
    "user-namespace": Case(
        f"""
        {_ATTACH} > /dev/null
        xdpkit() {{ unshare --user --map-root-user "$PYTHON" -m xdpkit "$@"; }}
        show xdpkit status
        show xdpkit replace $DEV minimal.o
        show xdpkit confirm $DEV
        show xdpkit detach $DEV
        show {_ATTACH}
        show {_ATTACH} --netlink
        show xdpkit -n $NAME status
        """,
        since=(5, 19),
    ),
}


def transcript(case: Case, veth: Veth, folder: Path) -> str:
    """Run a case's script, and return what was typed and printed."""
    for tool in ("unshare", "nsenter", "setpriv", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt-get install util-linux iproute2")
    for source, name in (("minimal.c", "minimal"), ("core_enums.c", "enums")):
        shutil.copy(program(source, name).object.path or "", folder / f"{name}.o")
    container = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    if not case.outside:
        container = ["nsenter", f"--net={path_of(veth.netns)}", *container]
    done = subprocess.run(
        [*container, "sh", "-ec", _PRELUDE + case.script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": _PACKAGES,
            "NAME": veth.netns,
            "DEV": veth.name,
            "COLUMNS": "200",
        },
    )
    return without_accidents(done.stdout.decode(), veth)


def without_accidents(text: str, veth: Veth) -> str:
    """Return a transcript without what is different each time."""
    for name, stands_for in ((veth.name, "veth0"), (veth.netns, "blue")):
        text = text.replace(name, stands_for)
    for pattern, stands_for in (
        (r"/xdpkit/\d+-\d+", "/xdpkit/HOOK"),
        (r"\b(program |link |--expect |expected=)\d+", r"\1ID"),
        (r"(?m)^(veth0 +native +)\d+", r"\1ID"),
        (r"\b[0-9a-f]{16}\b", "TAG"),
        (r" {3,}", "  "),
    ):
        text = re.sub(pattern, stands_for, text)
    return text


@pytest.mark.parametrize("name", CASES)
def test_a_container_that_lacks_something_is_told_what_and_what_helps(
    name: str, veth: Veth, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    case = CASES[name]
    if not Kernel.parse(os.uname().release).has(case.since):
        pytest.skip(f"needs Linux {case.since[0]}.{case.since[1]}, to say the same")

    said = transcript(case, veth, tmp_path)

    # Looked at from outside, where the container's processes have ended.
    found = on_hook(veth)
    if found is not None:
        xdpkit.detach(veth.name, netns=veth.netns)
    assert (found.via if found is not None else None) is case.held_by
    golden(f"container-{name}.txt", said)
