# SPDX-License-Identifier: Apache-2.0
"""Reading mountinfo."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import KernelRefused
from xdpkit.syscalls.mounts import Mount, has_device, parse

numbers = st.integers(0, 0xFFFFFFFF)
names = st.binary(max_size=30).filter(lambda name: b"\0" not in name).map(os.fsdecode)
mounts = st.builds(
    Mount,
    id=numbers,
    parent=numbers,
    device=st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF)),
    root=names,
    path=names,
    kind=names,
)
optional_fields = st.lists(st.sampled_from(["shared:1", "master:7", "unbindable"]), max_size=3)


def mangled(name: str) -> bytes:
    """A name as the kernel's seq_path() and mangle() write it."""
    escaped = (
        b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in os.fsencode(name)
    )
    return b"".join(escaped)


def line(mount: Mount, optional: list[str]) -> bytes:
    """A line of mountinfo."""
    head = f"{mount.id} {mount.parent} {mount.device[0]}:{mount.device[1]}".encode()
    fields = [head, mangled(mount.root), mangled(mount.path), b"rw,relatime"]
    fields += [each.encode() for each in optional]
    return b" ".join([*fields, b"-", mangled(mount.kind), b"none", b"rw,mode=700"]) + b"\n"


@given(st.lists(st.tuples(mounts, optional_fields), max_size=5))
def test_what_the_kernel_writes_is_read_back(written: list[tuple[Mount, list[str]]]) -> None:
    data = b"".join(line(mount, optional) for mount, optional in written)

    assert parse(data) == tuple(mount for mount, _ in written)


@given(st.lists(mounts, max_size=5), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_device_is_found_where_the_parsed_mounts_have_it(
    written: list[Mount], other: tuple[int, int]
) -> None:
    data = b"".join(line(mount, []) for mount in written)
    devices = {mount.device for mount in written}

    assert all(has_device(data, device) for device in devices)
    assert has_device(data, other) is (other in devices)


def test_a_device_is_not_found_in_other_fields() -> None:
    data = (
        b"1 2 0:22 / /3\\0404\\0400:39\\040 rw - bpf 0:39 rw\n5 6 10:39 / /0:39 rw - bpf 0:3 rw\n"
    )

    assert has_device(data, (0, 22))
    assert not has_device(data, (0, 39))
    assert not has_device(data, (0, 3))


@given(st.binary(max_size=80), st.lists(st.sampled_from(b" -:0123456789/\\\n"), max_size=60))
def test_any_bytes_are_mounts_or_malformed(anything: bytes, likely: list[int]) -> None:
    for data in (anything, bytes(likely), b"42 23 0:39 / " + anything):
        with contextlib.suppress(KernelRefused):
            parse(data)


def test_mounts_are_read_with_and_without_optional_fields() -> None:
    data = (
        b"23 27 0:22 / /sys rw,nosuid shared:7 master:2 - sysfs sysfs rw\n"
        b"43 23 0:39 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n"
        b"44 27 0:4 mnt:[4026532177] /run/a\\040\\134\\043 rw - nsfs  rw\n"
    )

    assert parse(data) == (
        Mount(23, 27, (0, 22), "/", "/sys", "sysfs"),
        Mount(43, 23, (0, 39), "/", "/sys/fs/bpf", "bpf"),
        Mount(44, 27, (0, 4), "mnt:[4026532177]", "/run/a \\#", "nsfs"),
    )


@pytest.mark.parametrize(
    "malformed",
    [
        b"42",
        b"23 27 0:22 / /sys rw sysfs sysfs rw",
        b"23 27 0:22 / - sysfs sysfs rw",
        b"23 27 0:22 / /sys rw -",
        b"23 27 22 / /sys rw - sysfs sysfs rw",
        b"x 27 0:22 / /sys rw - sysfs sysfs rw",
    ],
)
def test_a_malformed_line_is_refused_and_quoted(malformed: bytes) -> None:
    with pytest.raises(KernelRefused, match="read mountinfo: a line does not follow") as refused:
        parse(b"23 27 0:22 / /sys rw - sysfs sysfs rw\n" + malformed + b"\n")

    assert refused.value.errno == errno.EBADMSG
    assert repr(malformed.decode()) in refused.value.cause
