# SPDX-License-Identifier: Apache-2.0
"""Programs put on a hook by netlink, and the kernel's words when it refuses."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kernel.compiled import returning
from tests.kernel.net import Veth, namespace
from xdpkit.errors import KernelRefused
from xdpkit.kernel import Program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.syscalls.rtnetlink import NO_PROGRAM, XdpIds, set_xdp
from xdpkit.uapi.bpf import AttachType, XdpAction
from xdpkit.uapi.if_link import XdpFlags

NATIVE, GENERIC = XdpFlags.DRV_MODE, XdpFlags.SKB_MODE
ONLY_IF_EMPTY = XdpFlags.UPDATE_IF_NOEXIST


@pytest.fixture
def one() -> Iterator[Program]:
    with returning(XdpAction.PASS, name="one") as program:
        yield program


@pytest.fixture
def other() -> Iterator[Program]:
    with returning(XdpAction.DROP, name="other") as program:
        yield program


def put(
    veth: Veth,
    program: Program | None,
    flags: XdpFlags = NATIVE,
    *,
    expected: Program | int | None = None,
) -> None:
    """Put a program on the hook, or take it off with None."""
    with entered(veth.netns):
        connection = NetlinkSocket()
    with connection:
        set_xdp(
            connection,
            veth.interface.index,
            fd=NO_PROGRAM if program is None else program.fileno(),
            flags=flags,
            expected=expected.fileno() if isinstance(expected, Program) else expected,
            what=f"put a program on {veth.name}",
        )


@pytest.mark.parametrize("flags", [NATIVE, GENERIC])
def test_a_program_is_attached_in_the_mode_that_was_asked_for_and_detached(
    veth: Veth, one: Program, flags: XdpFlags
) -> None:
    put(veth, one, flags)
    attached = veth.interface.xdp
    put(veth, None, flags)

    assert attached == (XdpIds(native=one.id) if flags == NATIVE else XdpIds(generic=one.id))
    assert not veth.interface.xdp


def test_the_program_stays_when_its_descriptor_goes(veth: Veth) -> None:
    with returning(XdpAction.PASS) as program:
        put(veth, program)

    assert veth.interface.xdp == XdpIds(native=program.id)


def test_an_empty_hook_is_taken_and_an_occupied_one_is_left_alone(
    veth: Veth, one: Program, other: Program
) -> None:
    put(veth, one, NATIVE | ONLY_IF_EMPTY)

    with pytest.raises(KernelRefused) as refused:
        put(veth, other, NATIVE | ONLY_IF_EMPTY)

    assert refused.value.errno == errno.EBUSY
    assert refused.value.extack == "XDP program already attached"
    assert str(refused.value) == (
        f"put a program on {veth.name}: XDP program already attached (EBUSY)"
    )
    assert veth.interface.xdp == XdpIds(native=one.id)


def test_the_expected_program_is_replaced(veth: Veth, one: Program, other: Program) -> None:
    put(veth, one, expected=NO_PROGRAM)
    put(veth, other, expected=one)

    assert veth.interface.xdp == XdpIds(native=other.id)


@pytest.mark.parametrize("what", ["replace", "detach"])
def test_a_program_that_is_not_the_expected_one_stays(
    veth: Veth, one: Program, other: Program, what: str
) -> None:
    new = other if what == "replace" else None
    put(veth, one)

    for expected in (other, NO_PROGRAM):
        with pytest.raises(KernelRefused) as refused:
            put(veth, new, expected=expected)
        assert refused.value.errno == errno.EEXIST
        assert refused.value.extack == "Active program does not match expected"

    assert veth.interface.xdp == XdpIds(native=one.id)


def test_an_empty_hook_does_not_have_the_expected_program(veth: Veth, one: Program) -> None:
    with pytest.raises(KernelRefused, match="Active program does not match expected"):
        put(veth, one, expected=one)

    assert not veth.interface.xdp


def test_the_expected_program_is_detached(veth: Veth, one: Program) -> None:
    put(veth, one)
    put(veth, None, expected=one)

    assert not veth.interface.xdp


def test_the_software_modes_exclude_each_other(veth: Veth, one: Program, other: Program) -> None:
    put(veth, one, NATIVE)

    with pytest.raises(KernelRefused) as refused:
        put(veth, other, GENERIC)

    assert refused.value.errno == errno.EEXIST
    assert refused.value.extack == "Native and generic XDP can't be active at the same time"
    assert veth.interface.xdp == XdpIds(native=one.id)


def test_a_hook_held_by_a_link_is_refused_even_with_the_expected_program(
    veth: Veth, one: Program, other: Program
) -> None:
    with entered(veth.netns):
        link = bpf.link_create(one.fileno(), veth.interface.index, AttachType.XDP)
    with link:
        for new in (other, None):
            with pytest.raises(KernelRefused) as refused:
                put(veth, new, expected=one)
            assert refused.value.errno == errno.EBUSY
            assert refused.value.extack == "Can't replace active BPF XDP link"
        assert veth.interface.xdp == XdpIds(native=one.id)


def test_an_index_counts_in_the_namespace_of_the_socket(veth: Veth, one: Program) -> None:
    with namespace() as elsewhere, entered(elsewhere), NetlinkSocket() as connection:
        index = veth.interface.index
        with pytest.raises(KernelRefused) as refused:
            set_xdp(connection, index, fd=one.fileno(), flags=NATIVE, what="attach elsewhere")

    assert refused.value.errno == errno.ENODEV
    assert not veth.interface.xdp


def test_it_takes_cap_net_admin_and_cap_sys_admin_does_not_stand_for_it(veth: Veth) -> None:
    detach = f"""
from xdpkit.errors import XdpkitError
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.syscalls.rtnetlink import NO_PROGRAM, set_xdp
with entered({veth.netns!r}), NetlinkSocket() as connection:
    try:
        set_xdp(connection, {veth.interface.index}, fd=NO_PROGRAM, flags=0, what="detach")
    except XdpkitError as error:
        print(type(error).__name__, error)
"""
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")

    done = subprocess.run(
        [*without, sys.executable, "-c", detach], capture_output=True, check=True, text=True
    )

    assert done.stdout == (
        "MissingPrivilege detach: this process lacks CAP_NET_ADMIN\n"
        "Remedy: run it as root (sudo), or give it CAP_NET_ADMIN\n"
    )
