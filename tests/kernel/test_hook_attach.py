# SPDX-License-Identifier: Apache-2.0
"""Attaching: what is on the hook while, after and instead."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import (
    attach_by_netlink,
    foreign_link,
    on_hook,
    program,
    raw_program,
)
from tests.kernel.net import Veth, make_veth, rtnetlink, swap_names
from tests.kernel.test_dispatcher import fake
from xdpkit import Hook, Mode
from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook import Add, Owner, Via
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, Cmd

CHILD = """
import sys
import xdpkit
path, name, iface, netns, pin_root, pin = sys.argv[1:]
spec = xdpkit.read(path).programs[name]
attached = xdpkit.attach(iface, spec, netns=netns, pin=pin == "pin", pin_root=pin_root)
print(attached.link_id, flush=True)
sys.stdin.read()
attached.close()
"""


def child(veth: Veth, pin_root: str, *, pin: bool) -> subprocess.Popen[str]:
    """Start a process that attaches, says the link's id, and waits for its input to end."""
    spec = program()
    path = spec.object.path
    assert path is not None
    arguments = [path, spec.name, veth.name, veth.netns, pin_root, "pin" if pin else ""]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def spoil(
    monkeypatch: pytest.MonkeyPatch, cmd: Cmd, instead: Callable[[Callable[[], int]], int]
) -> None:
    """Have one bpf(2) command do something else; it is given what would do the real one."""
    real = bpf.funnel

    def funnel(number: int, argument: Any) -> int:
        if number == cmd:
            return instead(lambda: real(number, argument))
        return real(number, argument)

    monkeypatch.setattr(bpf, "funnel", funnel)


def test_a_program_is_on_the_hook_during_the_block_and_not_after(veth: Veth) -> None:
    with xdpkit.attach(veth.name, program(), netns=veth.netns) as attached:
        found = on_hook(veth)
        assert found is not None
        assert found.program.id == attached.program.id == veth.interface.xdp.native
        assert found.link_id == attached.link_id
        assert (found.mode, attached.mode) == (Mode.NATIVE, Mode.NATIVE)
        assert (found.via, found.owner, attached.pinned) == (Via.LINK, Owner.XDPKIT, None)

    assert on_hook(veth) is None


def test_an_exception_in_the_block_detaches_too(veth: Veth) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        xdpkit.attach(veth.name, program(), netns=veth.netns),
    ):
        raise ZeroDivisionError

    assert on_hook(veth) is None


def test_detaching_by_hand_is_safe_to_repeat_and_leaves_the_program_usable(veth: Veth) -> None:
    with xdpkit.attach(veth.name, program(), netns=veth.netns) as attached:
        attached.detach()
        attached.detach()

        assert on_hook(veth) is None
        assert attached.program.tag


def test_a_loaded_program_stays_loaded_when_it_is_detached(veth: Veth) -> None:
    with xdpkit.load(program()) as loaded:
        with xdpkit.attach(veth.name, loaded, netns=veth.netns) as attached:
            assert attached.program is loaded
        assert loaded.fileno() >= 0
        with xdpkit.attach(veth.interface.index, loaded, netns=veth.netns):
            assert veth.interface.xdp.native == loaded.id


def test_the_maps_of_an_attached_program_are_at_hand(veth: Veth) -> None:
    spec = program("variables.c", "variables")

    with xdpkit.attach(veth.name, spec, netns=veth.netns) as attached:
        assert attached.maps
        assert attached.maps == attached.program.maps


def test_generic_mode_is_used_when_it_is_asked_for(veth: Veth) -> None:
    with xdpkit.attach(veth.name, program(), netns=veth.netns, mode=Mode.GENERIC) as attached:
        assert attached.mode is Mode.GENERIC
        assert veth.interface.xdp.generic == attached.program.id


def test_an_interface_without_native_xdp_is_refused_and_the_remedy_works(netns: str) -> None:
    with pytest.raises(KernelRefused) as caught:
        xdpkit.attach("lo", program(), netns=netns, force=True)

    assert caught.value.errno == errno.EOPNOTSUPP
    assert "no native XDP" in caught.value.cause
    assert "mode=Mode.GENERIC" in str(caught.value.remedy)
    xdpkit.attach("lo", program(), netns=netns, mode=Mode.GENERIC).close()


def test_a_veth_whose_peer_has_a_large_mtu_is_refused_and_the_remedies_work(veth: Veth) -> None:
    with rtnetlink(veth.peer_netns) as connection:
        connection.link("set", ifname=veth.peer, mtu=9000)

    with pytest.raises(KernelRefused) as caught:
        xdpkit.attach(veth.name, program(), netns=veth.netns, force=True)

    assert caught.value.errno == errno.ERANGE
    assert "peer is too large" in caught.value.cause
    assert "lower the peer's MTU" in str(caught.value.remedy)
    frags = program("sections.c", "on_interface_frags")
    with xdpkit.attach(veth.name, frags, netns=veth.netns):
        assert veth.interface.xdp.native
    with rtnetlink(veth.peer_netns) as connection:
        connection.link("set", ifname=veth.peer, mtu=1500)
    with xdpkit.attach(veth.name, program(), netns=veth.netns):
        assert veth.interface.xdp.native


def test_a_veth_with_fewer_queues_than_its_peer_is_refused_with_the_reason(netns: str) -> None:
    wide = make_veth(netns, queues=4)
    # Only the other end gives up its RX queues; the near end keeps four to send on.
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "ethtool", "-L", wide.peer, "rx", "1"],
        check=True,
    )
    narrow = Veth(wide.peer, netns, wide.name, netns)

    with pytest.raises(KernelRefused, match="fewer RX queues in use") as caught:
        xdpkit.attach(narrow.name, program(), netns=netns, force=True)

    assert caught.value.errno == errno.ENOSPC
    assert on_hook(narrow) is None


def test_a_devmap_program_is_refused_before_it_is_loaded(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, Cmd.PROG_LOAD, lambda _: pytest.fail("loaded"))

    with pytest.raises(UsageError, match="a devmap runs it"):
        xdpkit.attach(veth.name, program("sections.c", "on_devmap"), netns=veth.netns)


def test_a_program_that_is_not_for_xdp_is_refused(veth: Veth) -> None:
    with pytest.raises(UsageError, match="not an XDP program"):
        xdpkit.attach(veth.name, program("tracepoints.c", "typed"), netns=veth.netns)


def test_offload_is_refused_where_the_nic_cannot(veth: Veth) -> None:
    with pytest.raises(KernelRefused, match="driver veth cannot run programs on the NIC"):
        xdpkit.attach(veth.name, program(), netns=veth.netns, mode=Mode.OFFLOAD, force=True)

    with xdpkit.load(program()) as loaded, pytest.raises(KernelRefused, match="was not loaded for"):
        xdpkit.attach(veth.name, loaded, netns=veth.netns, mode=Mode.OFFLOAD, force=True)
    assert on_hook(veth) is None


def test_a_hook_held_by_a_foreign_link_is_busy(veth: Veth) -> None:
    with foreign_link(veth) as link_id, pytest.raises(HookBusy) as caught:
        xdpkit.attach(veth.name, program(), netns=veth.netns)

    assert caught.value.cause.startswith(f"{veth.name} already has program ")
    assert "(foreign, tag " in caught.value.cause
    assert f"in native mode, by link {link_id}" in caught.value.cause
    assert caught.value.remedy == f"detach it first: bpftool link detach id {link_id}"


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_a_hook_held_by_netlink_is_busy_and_the_remedy_works(veth: Veth, mode: Mode) -> None:
    attach_by_netlink(veth)

    with pytest.raises(HookBusy, match="in native mode, by netlink") as caught:
        xdpkit.attach(veth.name, program(), netns=veth.netns, mode=mode)

    remedy = str(caught.value.remedy).removeprefix("detach it first: ")
    subprocess.run(remedy, shell=True, check=True)
    xdpkit.attach(veth.name, program(), netns=veth.netns, mode=mode).close()


def test_libxdps_dispatcher_is_recognised(veth: Veth) -> None:
    with entered(veth.netns), fake(2) as loaded:
        link = bpf.link_create(loaded.fileno(), veth.interface.index, AttachType.XDP)
    with link, pytest.raises(HookBusy, match="libxdp's dispatcher") as caught:
        xdpkit.attach(veth.name, program(), netns=veth.netns)

    assert f"xdp-loader unload --all {veth.name}" in str(caught.value.remedy)


def test_who_comes_first_between_the_check_and_the_attach_is_named(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attach_first(go_on: Callable[[], int]) -> int:
        attach_by_netlink(veth)
        return go_on()

    spoil(monkeypatch, Cmd.LINK_CREATE, attach_first)

    with pytest.raises(HookBusy, match=r"already has program .* by netlink"):
        xdpkit.attach(veth.name, program(), netns=veth.netns)


def test_an_interface_that_goes_before_the_attach_is_named_as_gone(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_first(go_on: Callable[[], int]) -> int:
        with rtnetlink(veth.netns) as connection:
            connection.link("del", ifname=veth.name)
        return go_on()

    spoil(monkeypatch, Cmd.LINK_CREATE, remove_first)

    with pytest.raises(KernelRefused, match=f"{veth.name} has gone meanwhile"):
        xdpkit.attach(veth.name, program(), netns=veth.netns)


def test_an_errno_that_nobody_explains_is_called_unknown(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, Cmd.LINK_CREATE, lambda _: -errno.EXFULL)

    with pytest.raises(KernelRefused, match=r"cause unknown \(EXFULL\)"):
        xdpkit.attach(veth.name, program(), netns=veth.netns)


def test_a_pinned_program_stays_when_its_process_ends(veth: Veth, pin_root: str) -> None:
    with child(veth, pin_root, pin=True) as process:
        link_id = int(process.communicate()[0])
    assert process.returncode == 0

    found = on_hook(veth, pin_root)
    assert found is not None
    assert (found.owner, found.link_id) == (Owner.XDPKIT, link_id)
    assert found.pinned is not None
    assert Path(found.pinned).is_relative_to(f"{pin_root}/xdpkit")


def test_a_pinned_program_stays_after_the_block(veth: Veth, pin_root: str) -> None:
    with xdpkit.attach(
        veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
    ) as attached:
        path = attached.pinned
    found = on_hook(veth, pin_root)

    assert found is not None
    assert found.pinned == path == attached.pinned


def test_a_pinned_program_needs_nobody_to_close_it(veth: Veth, pin_root: str) -> None:
    before = os.listdir("/proc/self/fd")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xdpkit.attach(veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root)

    assert [str(warning.message) for warning in caught] == []
    assert os.listdir("/proc/self/fd") == before
    assert on_hook(veth, pin_root) is not None


def test_an_unpinned_program_that_is_forgotten_is_detached_with_a_warning(veth: Veth) -> None:
    with pytest.warns(ResourceWarning, match="unclosed"):
        xdpkit.attach(veth.name, program(), netns=veth.netns)

    assert on_hook(veth) is None


def test_a_pinned_program_can_be_detached_by_who_attached_it(veth: Veth, pin_root: str) -> None:
    with xdpkit.attach(
        veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
    ) as attached:
        attached.detach()
        attached.detach()

        assert attached.pinned is None
    assert on_hook(veth, pin_root) is None
    assert os.listdir(f"{pin_root}/xdpkit") == []


def test_an_unpinned_program_goes_when_its_process_is_killed(veth: Veth, pin_root: str) -> None:
    with child(veth, pin_root, pin=False) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert on_hook(veth) is not None
        process.send_signal(signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert on_hook(veth) is None


def test_a_pin_that_cannot_be_made_leaves_the_hook_empty(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, Cmd.OBJ_PIN, lambda _: -errno.ENOSPC)

    with pytest.raises(KernelRefused):
        xdpkit.attach(veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root)

    assert on_hook(veth, pin_root) is None


def test_nothing_is_left_open_after_a_refusal(veth: Veth, pin_root: str) -> None:
    program().link()
    with foreign_link(veth):
        before = os.listdir("/proc/self/fd")
        with pytest.raises(HookBusy):
            xdpkit.attach(veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root)
        assert os.listdir("/proc/self/fd") == before


def test_the_callers_own_namespace_is_the_default(veth: Veth) -> None:
    with entered(veth.netns), xdpkit.attach(veth.name, program()) as attached:
        assert attached.interface.netns is None
        assert veth.interface.xdp.native == attached.program.id


def test_two_programs_of_the_same_name_are_two(veth: Veth) -> None:
    peer = Veth(veth.peer, veth.peer_netns, veth.name, veth.netns)
    with (
        raw_program("minimal"),
        xdpkit.attach(veth.name, program(), netns=veth.netns) as one,
        xdpkit.attach(peer.name, program(), netns=peer.netns) as other,
    ):
        assert one.link_id != other.link_id
        assert veth.interface.xdp.native == one.program.id
        assert peer.interface.xdp.native == other.program.id


def test_modes_ways_and_policies_are_taken_by_name(veth: Veth) -> None:
    with xdpkit.attach(
        veth.name,
        program(),
        netns=veth.netns,
        mode=["generic", Mode.NATIVE],
        via="netlink",
        policy="strict",
    ) as attached:
        assert (attached.mode, attached.via) == (Mode.GENERIC, Via.NETLINK)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"mode": 5}, "the modes are native, generic, offload"),
        ({"mode": [None]}, "the modes are native, generic, offload"),
        ({"via": "glue"}, "a link or netlink holds it"),
        ({"via": 5}, "a link or netlink holds it"),
        ({"policy": "stern"}, "the policies are strict, default, report"),
        ({"cookie": "5"}, "a cookie is a number of 64 bits"),
        ({"revert_after": "5s"}, "a number of seconds, not '5s'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    veth: Veth, pin_root: str, arguments: dict[str, Any], cause: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)

    with pytest.raises(UsageError, match=re.escape(cause)):
        hook.add(program(), **arguments)

    assert on_hook(veth, pin_root) is None


def test_a_folder_for_pins_can_be_a_path(veth: Veth, pin_root: str) -> None:
    hook = Hook(veth.name, netns=Path("/run/netns", veth.netns), pin_root=Path(pin_root))

    with hook.add(program()) as attached:
        assert str(attached.pinned).startswith(f"{pin_root}/xdpkit/")
    hook.delete()


@pytest.mark.parametrize("mode", ["offload,native", "native,offload"])
def test_each_mode_is_held_by_what_can_hold_it(veth: Veth, pin_root: str, mode: str) -> None:
    place = Hook(veth.name, netns=veth.netns, pin_root=pin_root).place
    assert Add(place, program(), mode=mode).via is Via.LINK

    forced = Add(place, program(), mode=mode, force=True)
    assert forced.via is (Via.NETLINK if mode.startswith("offload") else Via.LINK)
    with forced.apply() as attached:
        assert (attached.mode, attached.via) == (Mode.NATIVE, Via.LINK)
        assert attached.pinned is not None
        assert attached.record is not None
        assert attached.record.via is Via.LINK
        attached.detach()


def test_a_link_for_the_nic_is_refused_among_other_modes(veth: Veth) -> None:
    with pytest.raises(UsageError, match="no link holds a program on the NIC"):
        xdpkit.attach(veth.name, program(), netns=veth.netns, mode="native,offload", via=Via.LINK)


def refuse_pin(_: object) -> int:
    return -errno.ENOSPC


def test_no_other_mode_is_taken_for_a_reason_that_is_not_the_mode(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with monkeypatch.context() as failing:
        spoil(failing, Cmd.OBJ_PIN, refuse_pin)
        with pytest.raises(KernelRefused):
            hook.add(program(), mode="native,generic")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no process could be started")

    with monkeypatch.context() as failing:
        failing.setattr("xdpkit.hook.revert.subprocess.Popen", fail)
        with pytest.raises(KernelRefused, match="no process could be started"):
            hook.add(program(), mode="native,generic", revert_after=60)

    assert on_hook(veth, pin_root) is None


def test_a_dry_run_refuses_maps_that_could_not_be_kept(veth: Veth, tmp_path: Path) -> None:
    jumping = program("program_array.c", "constant_slot")
    place = Hook(veth.name, netns=veth.netns, pin_root=tmp_path).place

    with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
        Add(place, jumping, via=Via.NETLINK, force=True)

    assert "--netlink" not in str(caught.value.remedy)
    assert Add(place, program(), via=Via.NETLINK).via is Via.NETLINK
    assert Add(place, jumping, via=Via.NETLINK, pin=False, force=True).via is Via.NETLINK


def test_an_attach_that_was_prepared_follows_its_interface_and_not_the_name(
    veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    prepared = Add(Hook(veth.name, netns=veth.netns, pin_root=pin_root).place, program())
    swap_names(veth, other)

    with prepared.apply() as attached:
        assert attached.interface.index == prepared.interface.index
        assert on_hook(veth, pin_root) is None
        assert on_hook(other, pin_root) is not None
        attached.detach()


def test_who_keeps_a_program_after_its_block_keeps_no_record_of_it(veth: Veth) -> None:
    with xdpkit.load(program()) as loaded:
        with xdpkit.attach(veth.name, loaded, netns=veth.netns) as attached:
            assert attached.record is not None
        attach_by_netlink(veth, loaded)
        found = on_hook(veth)

    assert found is not None
    assert (found.record, found.owner) == (None, Owner.UNKNOWN)
