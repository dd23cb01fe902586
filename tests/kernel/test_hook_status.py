# SPDX-License-Identifier: Apache-2.0
"""What the status tells of the hooks, whoever attached what is there."""

from __future__ import annotations

import errno
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import attach_by_netlink, foreign_link, on_hook, program
from tests.kernel.net import Veth
from xdpkit import Mode, status
from xdpkit.errors import UsageError
from xdpkit.hook import Owner, Via
from xdpkit.syscalls import bpf
from xdpkit.uapi.bpf import Cmd, ProgType


def test_a_namespace_without_programs_has_an_empty_status(veth: Veth) -> None:
    assert status(netns=veth.netns) == ()


def test_an_interface_that_is_asked_for_is_told_of_with_and_without_a_program(veth: Veth) -> None:
    (without,) = status(netns=veth.netns, iface=veth.name)
    with xdpkit.attach(veth.name, program(), netns=veth.netns):
        (with_one,) = status(netns=veth.netns, iface=veth.interface.index)

    assert (without.interface.name, without.attached) == (veth.name, ())
    assert len(with_one.attached) == 1
    with pytest.raises(UsageError, match="has no such interface"):
        status(netns=veth.netns, iface="nosuch")


def test_each_interface_with_a_program_is_told_of_once(veth: Veth) -> None:
    with (
        xdpkit.attach(veth.name, program(), netns=veth.netns),
        xdpkit.attach(veth.peer, program(), netns=veth.netns, mode=Mode.GENERIC),
    ):
        found = status(netns=veth.netns)

    modes = {hook.interface.name: [one.mode for one in hook.attached] for hook in found}
    assert modes == {veth.name: [Mode.NATIVE], veth.peer: [Mode.GENERIC]}


def test_a_program_is_told_with_what_the_kernel_knows_of_it(veth: Veth) -> None:
    with xdpkit.attach(
        veth.name, program("variables.c", "variables"), netns=veth.netns
    ) as attached:
        found = on_hook(veth)
        ids = {used.id for used in attached.maps.values()}

    assert found is not None
    summary = found.program
    assert (summary.name, summary.type, summary.jited) == ("variables", ProgType.XDP, True)
    assert summary.tag == attached.program.tag
    assert summary.maps is not None
    assert {used.id for used in summary.maps} == ids
    assert all(used.name for used in summary.maps)
    assert summary.loaded_at is not None
    age = datetime.fromtimestamp(time.time(), UTC) - summary.loaded_at
    assert abs(age) < timedelta(minutes=10)
    assert found.note is None


def test_programs_held_by_links_and_by_netlink_are_told_apart(veth: Veth) -> None:
    with foreign_link(veth) as link_id:
        by_link = on_hook(veth)
    attach_by_netlink(veth)
    by_netlink = on_hook(veth)

    assert by_link is not None
    assert by_netlink is not None
    assert (by_link.via, by_link.link_id) == (Via.LINK, link_id)
    assert (by_netlink.via, by_netlink.link_id) == (Via.NETLINK, None)
    assert by_link.owner is by_netlink.owner is Owner.UNKNOWN


def test_the_status_can_be_written_as_json(veth: Veth) -> None:
    with xdpkit.attach(veth.name, program(), netns=veth.netns) as attached:
        (found,) = status(netns=veth.netns)
    written = json.loads(json.dumps(found.to_dict()))

    assert written["interface"] == veth.name
    assert written["attached"][0]["mode"] == "native"
    prog = written["attached"][0]["prog"]
    assert (prog["id"], prog["tag"], prog["jited"]) == (
        attached.program.id,
        attached.program.tag,
        True,
    )


def test_without_the_right_to_look_objects_up_the_ids_remain_and_the_reason_is_said(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with xdpkit.attach(
        veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
    ) as attached:
        real = bpf.funnel

        def forbid(cmd: int, argument: Any) -> int:
            name = Cmd(cmd).name
            return -errno.EPERM if "_BY_ID" in name or "_NEXT_ID" in name else real(cmd, argument)

        monkeypatch.setattr(bpf, "funnel", forbid)
        ours = on_hook(veth, pin_root)
        unpinned = on_hook(veth)

    assert ours is not None
    assert unpinned is not None
    assert ours.program.id == unpinned.program.id == attached.program.id
    assert (ours.program.name, ours.program.tag, ours.program.jited) == (None, None, None)
    assert (ours.owner, ours.via, ours.link_id) == (Owner.XDPKIT, Via.LINK, attached.link_id)
    assert (unpinned.owner, unpinned.via, unpinned.link_id) == (Owner.UNKNOWN, None, None)
    assert ours.note is not None
    assert ours.note.startswith("names, maps and records of programs cannot be looked up: ")
    assert unpinned.note is not None
    assert "; links cannot be looked up: " in unpinned.note
