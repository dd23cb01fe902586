# SPDX-License-Identifier: Apache-2.0
"""How long a mount lasts, asked by real processes in mount namespaces of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from xdpkit.errors import MissingPrivilege, UsageError
from xdpkit.syscalls.mounts import BPFFS, is_read_only, outlives

# Asks about each path, with a thread beside it.
_ASK = """
import json, sys, threading
from xdpkit.syscalls.mounts import hidden_bpffs, is_read_only, outlives
over = threading.Event()
threading.Thread(target=over.wait).start()
try:
    lifetimes = [outlives(path).value for path in sys.argv[1:]]
    read_only = [is_read_only(path) for path in sys.argv[1:]]
    print(json.dumps({"lifetimes": lifetimes, "read_only": read_only, "hidden": hidden_bpffs()}))
finally:
    over.set()
"""

# Absolute, because nsenter changes the folder.
_PACKAGES = str(Path(xdpkit.__file__).parents[1])

# A shell that is process 1 of a PID namespace with a /proc of its own.
_AS_PROCESS_1 = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
_PRIVATELY = ("unshare", "--mount")


def answers(*by: str, script: str = 'exec "$@"', paths: tuple[object, ...]) -> Any:
    """Run a shell script by a command; it asks about the paths where it says ``"$@"``.

    In the script $FOLDER is the first path.
    """
    if shutil.which(by[0]) is None:
        pytest.skip(f"no {by[0]}: apt-get install util-linux iproute2")
    ask = [sys.executable, "-c", _ASK, *map(str, paths)]
    done = subprocess.run(
        [*by, "sh", "-ec", script, "sh", *ask],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "FOLDER": str(paths[0]), "PYTHONPATH": _PACKAGES},
    )
    return json.loads(done.stdout)


def test_a_mount_that_only_this_process_has_ends_with_it(tmp_path: Path) -> None:
    only_here = 'mount -t bpf bpf "$FOLDER"; exec "$@"'

    said = answers(*_PRIVATELY, script=only_here, paths=(tmp_path, "/proc"))

    # In the same namespace, /proc is what process 1 has.
    assert said["lifetimes"] == ["private", "shared"]


def test_a_mount_lasts_as_long_as_a_companion_in_the_namespace(tmp_path: Path) -> None:
    shell_stays = 'mount -t bpf bpf "$FOLDER"; "$@"; exit $?'

    said = answers(*_PRIVATELY, script=shell_stays, paths=(tmp_path,))

    assert said["lifetimes"] == ["companions"]


def test_a_mount_that_is_in_others_namespaces_too_does_not_end_with_this_one() -> None:
    # The bpffs of the tests: this process has it, process 1 has not.
    said = answers(*_PRIVATELY, paths=(BPFFS,))

    assert said["lifetimes"] == ["companions"]


def test_a_mount_in_the_namespace_of_process_1_is_shared(tmp_path: Path) -> None:
    shell_is_1 = 'mount -t bpf bpf "$FOLDER"; "$@"; exit $?'

    said = answers(*_AS_PROCESS_1, script=shell_is_1, paths=(tmp_path,))

    assert said["lifetimes"] == ["shared"]


def test_a_namespace_that_is_bound_to_a_file_is_kept_by_it(tmp_path: Path) -> None:
    bound = """
    mount --bind "$FOLDER" "$FOLDER"
    mount --make-private "$FOLDER"
    touch "$FOLDER/namespace"
    unshare --mount="$FOLDER/namespace" mount -t bpf bpf /mnt
    nsenter --mount="$FOLDER/namespace" "$@"
    exit $?
    """

    # A mount namespace can be bound only in one with a smaller number, and Linux 6.18 hands the
    # numbers out in batches to each CPU: on one CPU they rise.
    one_cpu = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
    said = answers(*one_cpu, *_AS_PROCESS_1, script=bound, paths=(tmp_path, "/mnt"))

    assert said["lifetimes"] == ["shared", "companions"]


def test_what_cannot_be_told_counts_as_shared(tmp_path: Path) -> None:
    no_proc = 'mount -t bpf bpf "$FOLDER"; mount -t tmpfs none /proc; exec "$@"'

    said = answers(*_PRIVATELY, script=no_proc, paths=(tmp_path,))

    assert said["lifetimes"] == ["shared"]
    assert said["hidden"] is False


def test_read_only_mounts_are_told_from_others(tmp_path: Path) -> None:
    several = """
    mkdir "$FOLDER/whole" "$FOLDER/bound" "$FOLDER/writable"
    mount -t bpf -o ro bpf "$FOLDER/whole"
    mount -t bpf bpf "$FOLDER/bound"
    mount -o remount,bind,ro "$FOLDER/bound"
    mount -t bpf bpf "$FOLDER/writable"
    exec "$@"
    """

    paths = (tmp_path, *(tmp_path / name for name in ("whole", "bound", "writable")))
    said = answers(*_PRIVATELY, script=several, paths=paths)

    assert said["read_only"] == [False, True, True, False]


def test_ip_netns_exec_hides_a_bpffs_and_has_a_sys_that_ends_with_it(netns: str) -> None:
    if shutil.which("ip") is None:
        pytest.skip("no ip: apt-get install iproute2")
    within = f'ip netns exec {netns} "$@"; exit $?'

    said = answers(*_AS_PROCESS_1, script=within, paths=("/sys", "/"))

    assert said["hidden"] is True
    assert said["lifetimes"] == ["private", "shared"]


def test_a_bpffs_that_is_there_is_not_hidden() -> None:
    said = answers(*_AS_PROCESS_1, script='"$@"; exit $?', paths=(BPFFS,))

    assert said["hidden"] is False
    assert said["lifetimes"] == ["shared"]


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for ask in (outlives, is_read_only):
        with pytest.raises(UsageError) as refused:
            ask(missing)
        assert str(refused.value) == (
            f"look at the file system of {missing}: there is no such path"
        )


def test_a_path_that_may_not_be_looked_at_is_refused(tmp_path: Path) -> None:
    hidden = tmp_path / "closed" / "inside"
    hidden.mkdir(parents=True)
    hidden.parent.chmod(0)
    os.seteuid(65534)
    try:
        for ask in (outlives, is_read_only):
            with pytest.raises(MissingPrivilege, match="may not be searched"):
                ask(hidden)
    finally:
        os.seteuid(0)
