# SPDX-License-Identifier: Apache-2.0
"""Interfaces as the kernel reports them."""

from __future__ import annotations

import errno
import os

import pytest

from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.interfaces import list_all, resolve
from xdpkit.syscalls.netlink import (
    Message,
    NetlinkSocket,
    encode_attribute,
    encode_message,
)
from xdpkit.syscalls.netns import cookie, entered
from xdpkit.syscalls.rtnetlink import dump_links, encode_selector, get_link
from xdpkit.uapi.if_link import Ifla, RouteMessage
from xdpkit.uapi.netlink import MessageFlags


def test_an_interface_is_found_by_name_and_by_index(veth: Veth) -> None:
    by_name = resolve(veth.name, netns=veth.netns)
    by_index = resolve(by_name.index, netns=veth.netns)

    assert by_name == by_index
    assert by_name.name == veth.name


def test_an_interface_is_found_by_an_alternative_name(veth: Veth) -> None:
    short, long = "other", "a-name-that-is-longer-than-a-device-may-have"
    with rtnetlink(veth.netns) as connection:
        index = resolve(veth.name, netns=veth.netns).index
        connection.link("property_add", index=index, altname=short)
        connection.link("property_add", index=index, altname=long)

    assert resolve(short, netns=veth.netns).name == veth.name
    assert resolve(long, netns=veth.netns).name == veth.name


def test_a_veth_tells_its_driver_queues_and_mtu(veth: Veth) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, mtu=1400)

    interface = veth.interface

    assert (interface.kind, interface.driver) == ("veth", "veth")
    assert (interface.rx_queues, interface.tx_queues) == (4, 4)
    assert interface.mtu == 1400
    assert not interface.xdp


def test_an_interface_without_a_driver_to_show_has_none(netns: str) -> None:
    loopback = resolve("lo", netns=netns)

    assert (loopback.index, loopback.driver, loopback.kind) == (1, None, None)


def test_an_interface_knows_its_namespace(veth: Veth) -> None:
    with entered(veth.netns):
        inside = cookie()

    assert veth.interface.netns_cookie == inside
    assert veth.interface.netns == veth.netns


def test_all_interfaces_of_a_namespace_are_listed_by_index_and_no_others(veth: Veth) -> None:
    names = [interface.name for interface in list_all(netns=veth.netns)]

    assert sorted(names) == sorted(["lo", veth.name, veth.peer])
    indexes = [interface.index for interface in list_all(netns=veth.netns)]
    assert indexes == sorted(indexes)


def test_a_list_longer_than_one_datagram_is_complete(netns: str) -> None:
    names = {f"near{number}": f"far{number}" for number in range(40)}
    with rtnetlink(netns) as connection:
        for near, far in names.items():
            connection.link("add", ifname=near, kind="veth", peer={"ifname": far})

    found = {interface.name for interface in list_all(netns=netns)}

    assert found == {"lo", *names.keys(), *names.values()}


@pytest.mark.parametrize(
    ("interface", "cause"),
    [
        ("nosuch", "has no such interface"),
        ("a-name-that-is-longer-than-a-device-may-have", "has no such interface"),
        ("with/slash", "has no such interface"),
        (0x7FFFFFFF, "has no such interface"),
        ("", "cannot be an interface's name"),
        ("a" * 128, "cannot be an interface's name"),
        ("a\0b", "cannot be an interface's name"),
        (0, "an interface's index is positive"),
        (-1, "an interface's index is positive"),
        (1 << 31, "an interface's index is positive"),
    ],
)
def test_what_names_no_interface_is_refused(netns: str, interface: str | int, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        resolve(interface, netns=netns)


def test_a_veth_tells_its_peer_and_the_peers_namespace() -> None:
    with namespace() as near, namespace() as far:
        veth = make_veth(near, far)
        with entered(far):
            peer = resolve(veth.peer)
        with entered(near), NetlinkSocket() as connection:
            link = get_link(connection, name=veth.name, what="look")

    assert link.peer_index == peer.index
    assert link.peer_netns_id is not None


def test_a_refused_request_carries_the_kernels_own_words(netns: str) -> None:
    # An attribute that RTM_GETLINK does not take; strict checking says so.
    request = encode_selector(index=1) + encode_attribute(Ifla.MTU, bytes(4))

    with (
        entered(netns),
        NetlinkSocket() as connection,
        pytest.raises(KernelRefused) as caught,
    ):
        connection.request(RouteMessage.GETLINK, request, what="provoke")

    assert caught.value.errno == errno.EINVAL
    assert caught.value.extack
    assert caught.value.extack in str(caught.value)


def test_a_socket_answers_the_next_request_after_a_refused_one(netns: str) -> None:
    with entered(netns), NetlinkSocket() as connection:
        with pytest.raises(KernelRefused):
            get_link(connection, name="nosuch", what="look")
        assert get_link(connection, index=1, what="look").name == "lo"
        assert [link.name for link in dump_links(connection)] == ["lo"]


def test_an_answer_to_an_abandoned_request_is_not_taken_for_the_next_ones(veth: Veth) -> None:
    flags = MessageFlags.REQUEST | MessageFlags.DUMP
    abandoned = Message(RouteMessage.GETLINK, flags, 999, 0, encode_selector())
    with entered(veth.netns), NetlinkSocket() as connection:
        os.write(connection.fileno(), encode_message(abandoned))

        assert get_link(connection, name=veth.name, what="look").name == veth.name
