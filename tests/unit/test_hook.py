# SPDX-License-Identifier: Apache-2.0
"""The hook's values: modes, and how what is attached is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xdpkit.errors import UsageError
from xdpkit.hook import (
    AttachedProgram,
    Hook,
    HookStatus,
    MapSummary,
    Mode,
    Owner,
    ProgramSummary,
    Via,
)
from xdpkit.hook.state import removal
from xdpkit.interfaces import Interface, XdpIds
from xdpkit.uapi.bpf import ProgType
from xdpkit.uapi.if_link import XdpFlags


def interface(*, driver: str | None = "veth", netns: str | None = None) -> Interface:
    return Interface(
        index=4,
        name="eth0",
        netns=netns,
        netns_cookie=1,
        driver=driver,
        kind=None,
        mtu=1500,
        rx_queues=1,
        tx_queues=1,
        xdp=XdpIds(native=7),
    )


def attached(
    *,
    mode: Mode = Mode.NATIVE,
    via: Via | None = Via.LINK,
    link_id: int | None = 3,
    owner: Owner = Owner.UNKNOWN,
    pinned: str | None = None,
) -> AttachedProgram:
    program = ProgramSummary(
        id=7,
        name="xdp_pass",
        tag="3b185187f1855c4c",
        type=ProgType.XDP,
        jited=True,
        loaded_at=datetime(2024, 5, 1, 12, tzinfo=UTC),
        maps=(MapSummary(9, "hits"),),
    )
    return AttachedProgram(mode, program, via, link_id, owner, pinned, None)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("native", Mode.NATIVE),
        ("generic", Mode.GENERIC),
        ("skb", Mode.GENERIC),
        ("Offload", Mode.OFFLOAD),
    ],
)
def test_modes_are_parsed_by_name_and_skb_means_generic(text: str, mode: Mode) -> None:
    assert Mode.parse(text) is mode


def test_an_unknown_mode_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"native, generic, offload \(or skb, for generic\)"):
        Mode.parse("fast")


def test_several_modes_are_tried_in_their_order_and_native_alone_is_the_default() -> None:
    assert Mode.choice("native,skb") == (Mode.NATIVE, Mode.GENERIC)
    assert Mode.choice([Mode.GENERIC, Mode.NATIVE]) == (Mode.GENERIC, Mode.NATIVE)
    assert Mode.choice(None) == (Mode.NATIVE,)


def test_modes_can_be_named_one_by_one() -> None:
    assert Mode.choice(["native", Mode.GENERIC]) == (Mode.NATIVE, Mode.GENERIC)
    assert Mode.choice(Mode.OFFLOAD) == (Mode.OFFLOAD,)


@pytest.mark.parametrize("modes", [5, [5], [["native"]], b"native"])
def test_what_names_no_mode_is_refused(modes: Any) -> None:
    with pytest.raises(UsageError, match="the modes are native"):
        Mode.choice(modes)


def test_what_holds_a_program_is_parsed_by_name() -> None:
    assert (Via.parse("netlink"), Via.parse(Via.LINK)) == (Via.NETLINK, Via.LINK)
    for nonsense in ("glue", 5):
        with pytest.raises(UsageError, match="a link or netlink holds it"):
            Via.parse(nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [{"iface": None}, {"iface": True}, {"netns": 5}, {"pin_root": 5}]
)
def test_a_hook_is_named_by_text_or_an_index(arguments: Any) -> None:
    with pytest.raises(UsageError, match="name the hook of"):
        Hook(**{"iface": "eth0", **arguments})


def test_paths_can_be_given_as_such() -> None:
    place = Hook("eth0", netns=Path("/a/ns"), pin_root=Path("/b")).place

    assert (place.netns, place.pin_root) == ("/a/ns", "/b")


@pytest.mark.parametrize("modes", [(), "generic,skb", [Mode.NATIVE, Mode.NATIVE]])
def test_a_choice_of_no_mode_or_of_one_twice_is_refused(modes: Sequence[Mode] | str) -> None:
    with pytest.raises(UsageError, match="each is to be named once"):
        Mode.choice(modes)


def test_each_mode_has_a_flag_of_its_own() -> None:
    flags = [mode.flag for mode in Mode]

    assert flags == [XdpFlags.DRV_MODE, XdpFlags.SKB_MODE, XdpFlags.HW_MODE]


def test_what_is_attached_is_told_with_all_that_is_known_of_it() -> None:
    assert attached().describe() == (
        "program 7 (xdp_pass, tag 3b185187f1855c4c) in native mode, by link 3"
    )
    assert (
        attached(owner=Owner.XDPKIT, pinned="/p/link")
        .describe()
        .endswith("by link 3, pinned at /p/link")
    )
    assert attached(via=Via.NETLINK, link_id=None).describe().endswith("native mode, by netlink")
    assert attached(owner=Owner.LIBXDP).describe().endswith("by link 3, libxdp's dispatcher")


def test_a_program_that_could_not_be_looked_up_is_told_by_its_id() -> None:
    unknown = AttachedProgram(
        Mode.GENERIC, ProgramSummary(7), None, None, Owner.UNKNOWN, None, "not allowed"
    )

    assert unknown.describe() == "program 7 in generic mode"


@pytest.mark.parametrize(
    ("found", "command"),
    [
        (attached(owner=Owner.XDPKIT, pinned="/sys/fs/bpf/xdpkit/1-2/link"), "xdpkit detach eth0"),
        (attached(owner=Owner.XDPKIT), "xdpkit detach --expect 7 eth0"),
        (attached(owner=Owner.XDPKIT, via=Via.NETLINK, link_id=None), "xdpkit detach eth0"),
        (attached(owner=Owner.LIBXDP), "xdp-loader unload --all eth0"),
        (attached(), "bpftool link detach id 3"),
        (attached(via=Via.NETLINK, link_id=None), "ip link set dev eth0 xdpdrv off"),
        (
            attached(via=Via.NETLINK, link_id=None, mode=Mode.GENERIC),
            "ip link set dev eth0 xdpgeneric off",
        ),
        (attached(via=None, link_id=None), None),
    ],
)
def test_who_holds_a_program_decides_how_it_is_removed(
    found: AttachedProgram, command: str | None
) -> None:
    assert removal(found, interface()) == command


def test_the_command_that_removes_a_program_goes_into_its_namespace() -> None:
    by_netlink = attached(via=Via.NETLINK, link_id=None)

    pinned = attached(owner=Owner.XDPKIT, pinned="/sys/fs/bpf/xdpkit/1-2/link")

    assert removal(pinned, interface(netns="blue")) == "xdpkit detach -n blue eth0"
    assert removal(by_netlink, interface(netns="blue")) == (
        "nsenter --net=/run/netns/blue ip link set dev eth0 xdpdrv off"
    )
    assert removal(by_netlink, interface(netns="/a b/ns")) == (
        "nsenter --net='/a b/ns' ip link set dev eth0 xdpdrv off"
    )


def test_the_status_is_plain_data_for_json() -> None:
    status = HookStatus(interface(netns="blue"), (attached(owner=Owner.XDPKIT, pinned="/p/link"),))

    assert status.to_dict() == {
        "interface": "eth0",
        "ifindex": 4,
        "netns": "blue",
        "attached": [
            {
                "mode": "native",
                "qid": None,
                "prog": {
                    "id": 7,
                    "name": "xdp_pass",
                    "tag": "3b185187f1855c4c",
                    "type": "xdp",
                    "jited": True,
                    "loaded_at": "2024-05-01T12:00:00+00:00",
                    "maps": [{"id": 9, "name": "hits"}],
                },
                "via": "link",
                "link": {"id": 3},
                "owner": "xdpkit",
                "pinned": "/p/link",
                "leaving": False,
                "reverts_in": None,
                "record": None,
                "dispatcher": None,
                "holders": [],
                "note": None,
            }
        ],
        "root": None,
    }


def test_looking_at_hooks_imports_neither_the_loader_nor_its_dependencies() -> None:
    script = "import sys, xdpkit.hook; print(*sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    loaded = set(result.stdout.split())
    assert "xdpkit.hook" in loaded
    assert not loaded & {"pyroute2", "rich", "elftools", "click", "xdpkit.kernel", "xdpkit.obj"}
