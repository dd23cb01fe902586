# SPDX-License-Identifier: Apache-2.0
"""Detaching what was pinned, and nothing else."""

from __future__ import annotations

import os

import pytest

import xdpkit
from tests.kernel.attaching import attach_by_netlink, foreign_link, on_hook, program
from tests.kernel.net import Veth, make_veth, rtnetlink
from xdpkit import Mode
from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import detach
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd


def attach_pinned(veth: Veth, pin_root: str, *, mode: Mode = Mode.NATIVE) -> tuple[int, int | None]:
    """Attach the small program, pinned; return the program's id and the link's."""
    with xdpkit.attach(
        veth.name, program(), netns=veth.netns, mode=mode, pin=True, pin_root=pin_root
    ) as attached:
        return attached.program.id, attached.link_id


def pinned_link(veth: Veth, pin_root: str) -> Fd:
    found = on_hook(veth, pin_root)
    assert found is not None
    assert found.pinned is not None
    link = bpf.obj_get(found.pinned, what="open the pin")
    assert link is not None
    return link


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_a_pinned_program_is_detached_and_told(veth: Veth, pin_root: str, mode: Mode) -> None:
    program_id, link_id = attach_pinned(veth, pin_root, mode=mode)

    detached = detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert (detached.mode, detached.program.id, detached.link_id) == (mode, program_id, link_id)
    assert detached.program.name == "minimal"
    assert detached.to_dict()["interface"] == veth.name
    assert on_hook(veth, pin_root) is None
    assert os.listdir(f"{pin_root}/xdpkit") == []


def test_a_program_is_detached_although_others_hold_its_link(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)

    with pinned_link(veth, pin_root):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

        assert on_hook(veth, pin_root) is None


def test_nothing_attached_is_said_plainly(veth: Veth, pin_root: str) -> None:
    with pytest.raises(UsageError, match="nothing is attached to it"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

    attach_pinned(veth, pin_root)
    detach(veth.name, netns=veth.netns, pin_root=pin_root)
    with pytest.raises(UsageError, match="nothing is attached to it"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)


def test_another_program_than_the_expected_one_stays(veth: Veth, pin_root: str) -> None:
    program_id, _ = attach_pinned(veth, pin_root)

    with pytest.raises(HookBusy, match=rf"{program_id + 1} is expected, .* program {program_id} "):
        detach(veth.name, netns=veth.netns, pin_root=pin_root, expected=program_id + 1)

    assert on_hook(veth, pin_root) is not None
    detach(veth.name, netns=veth.netns, pin_root=pin_root, expected=program_id)


def test_a_program_that_netlink_holds_is_not_ours_to_detach(veth: Veth, pin_root: str) -> None:
    attach_by_netlink(veth)

    with pytest.raises(HookBusy, match=r"xdpkit did not attach what is there: .* by netlink"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert on_hook(veth, pin_root) is not None


def test_a_program_that_a_foreign_link_holds_is_not_ours_to_detach(
    veth: Veth, pin_root: str
) -> None:
    with foreign_link(veth) as link_id:
        with pytest.raises(HookBusy, match=f"by link {link_id}") as caught:
            detach(veth.name, netns=veth.netns, pin_root=pin_root)
        assert on_hook(veth, pin_root) is not None

    assert f"bpftool link detach id {link_id}" in str(caught.value.remedy)


def test_a_program_that_a_block_holds_is_left_to_the_block(veth: Veth, pin_root: str) -> None:
    with xdpkit.attach(veth.name, program(), netns=veth.netns):
        with pytest.raises(HookBusy, match=r"but did not pin it below .*: a process holds it"):
            detach(veth.name, netns=veth.netns, pin_root=pin_root)
        assert on_hook(veth, pin_root) is not None


def test_a_detach_that_died_before_the_pin_went_is_no_obstacle(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)
    with pinned_link(veth, pin_root) as link:
        bpf.link_detach(link.fileno())

    with pytest.raises(UsageError, match="nothing is attached to it"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert os.listdir(f"{pin_root}/xdpkit") == []
    attach_pinned(veth, pin_root)
    assert on_hook(veth, pin_root) is not None


def test_a_foreign_program_where_ours_was_is_not_taken_for_ours(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)
    with pinned_link(veth, pin_root) as link:
        bpf.link_detach(link.fileno())
    attach_by_netlink(veth)

    with pytest.raises(HookBusy, match="by netlink"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert on_hook(veth, pin_root) is not None


def test_pins_of_interfaces_that_are_gone_go_with_the_next_change(
    veth: Veth, pin_root: str
) -> None:
    peer = Veth(veth.peer, veth.peer_netns, veth.name, veth.netns)
    attach_pinned(veth, pin_root)
    attach_pinned(peer, pin_root)
    assert len(os.listdir(f"{pin_root}/xdpkit")) == 2

    with rtnetlink(veth.netns) as connection:
        connection.link("del", ifname=veth.name)
    remaining = make_veth(veth.netns)
    with pytest.raises(UsageError, match="nothing is attached to it"):
        detach(remaining.name, netns=veth.netns, pin_root=pin_root)

    assert os.listdir(f"{pin_root}/xdpkit") == []
