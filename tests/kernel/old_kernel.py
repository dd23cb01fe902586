# SPDX-License-Identifier: Apache-2.0
"""This kernel with features taken away: bpf(2) refuses them as an older kernel would."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from xdpkit import probes
from xdpkit.btf import Btf, Kind
from xdpkit.errors import ObjectFormatError
from xdpkit.syscalls import bpf
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import Cmd, MapFlags, ProgFlags

Refuses = Callable[[int, object], bool]


def names(cmd: int, argument: object) -> bool:
    """Linux before 4.15."""
    return bool(getattr(argument, "map_name", b"") or getattr(argument, "prog_name", b""))


def dots(cmd: int, argument: object) -> bool:
    """Linux before 5.2."""
    return b"." in getattr(argument, "map_name", b"")


def all_types(cmd: int, argument: object) -> bool:
    """Linux before 4.18."""
    return cmd == Cmd.BTF_LOAD


def kinds(*refused: Kind) -> Refuses:
    """A Linux that does not know these kinds of types."""

    def refuses(cmd: int, argument: object) -> bool:
        if not isinstance(argument, attr.BtfLoad):
            return False
        data = ctypes.string_at(argument.btf, argument.btf_size)
        return any(True for _ in Btf.parse(data).ids(*refused))

    return refuses


def map_flags(refused: MapFlags) -> Refuses:
    """A Linux that does not know these flags."""
    return lambda cmd, argument: bool(getattr(argument, "map_flags", 0) & refused)


def frags(cmd: int, argument: object) -> bool:
    """Linux before 5.18."""
    return bool(getattr(argument, "prog_flags", 0) & ProgFlags.XDP_HAS_FRAGS)


def attach_types(cmd: int, argument: object) -> bool:
    """Linux before 4.17."""
    return isinstance(argument, attr.ProgLoad) and argument.expected_attach_type != 0


def commands(*refused: Cmd) -> Refuses:
    """A Linux that does not know these commands."""
    return lambda cmd, argument: cmd in refused


def types_of_maps(cmd: int, argument: object) -> bool:
    """A Linux where no map takes types."""
    return isinstance(argument, attr.MapCreate) and bool(argument.btf_value_type_id)


def run_context(cmd: int, argument: object) -> bool:
    """Linux before 5.15."""
    return isinstance(argument, attr.TestRun) and bool(argument.ctx_size_in)


def live_frames(cmd: int, argument: object) -> bool:
    """Linux before 5.18, which looks at the batch size, and not at the flag."""
    return isinstance(argument, attr.TestRun) and bool(argument.batch_size)


@contextmanager
def without(monkeypatch: pytest.MonkeyPatch, *features: Refuses) -> Iterator[None]:
    """Have this process talk to a kernel that refuses these features."""

    def funnel(cmd: int, argument: ctypes.Structure) -> int:
        try:
            if any(refuses(cmd, argument) for refuses in features):
                return -errno.EINVAL
        except ObjectFormatError:
            return -errno.EINVAL
        return bpf.libc_bpf(cmd, argument)

    probes.forget()
    with monkeypatch.context() as patched:
        patched.setattr(bpf, "funnel", funnel)
        yield
    probes.forget()
